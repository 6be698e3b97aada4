"""Whether a value differs on two sides of a place by more than a tiny step and rounding explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np

Verdict: TypeAlias = "bool | Literal['small', 'undefined'] | None"
"""Whether a value jumps; by little beside how it varies (a tolerance of what is approximated, or a true jump of an addend); it is
undefined where it is infinite or no number on one side; `None` where that cannot be told."""


def differs(a: Any, b: Any, before: Any = (), after: Any = (), along: Any = ()) -> Verdict:
    """Whether two values differ by more than a tiny step and rounding explain.

    Args:
        a: the value on one side.
        b: that on the other side.
        before: values near `a`, on its side: what these differ by is no jump.
        after: the same of `b`.
        along: values on the whole line: a jump is small beside how they vary, or beside `a` where that is less.
    """
    if np.all(np.isfinite(a) & (a == b)):
        return False
    eps = _rounding(a)
    a, b, *others = (_as_double(x) for x in (a, b, *before, *after, *along))
    if a.dtype.kind not in "fc":
        return bool(np.any(a != b))
    near, along = others[: len(before) + len(after)], others[len(before) + len(after) :]
    some = np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        change, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
        varied = np.max([np.where(np.isfinite(x), np.abs(x - a), 0) for x in along] or [0 * change], axis=0)
        moved = some & (change > eps * np.maximum(np.maximum(size, varied), _mean(size, some)) + 1e-30)
        sides = [a] * len(before) + [b] * len(after)
        noise = np.max([np.abs(x - side) for x, side in zip(near, sides, strict=True)] or [0 * change], axis=0)
        jumps = moved & (change > _ABOVE_NOISE * np.nan_to_num(noise, nan=np.inf))
        beside = np.minimum(size, varied) if along else 0 * size
        large = change > 1e-3 * beside + 1e-4 * _mean(beside, some)
    if np.any(jumps):
        return True if np.any(jumps & large) else "small"
    unlike = ~some & (a != b) & ~(np.isnan(a) & np.isnan(b))
    if np.any(moved & (change > 1e-3 * size)) or not np.any(some | unlike):
        return None
    return "undefined" if np.any(unlike) else False


def _mean(x: np.ndarray, where: np.ndarray) -> float:
    return np.sum(x, where=where) / max(np.sum(where), 1)


def _rounding(x: Any) -> float:
    """The relative change up to which rounding, or an approximation in the precision of a value, explains it."""
    return min(max(64 * float(jnp.finfo(x.dtype).eps), 1e-7), 1e-3) if jnp.issubdtype(x.dtype, jnp.inexact) else 0.0


def _as_double(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind in "biu":
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


_ABOVE_NOISE = 5
"""How far above what a few roundings of the inputs change a jump must be: rounding's own changes are of one size."""


def either(found: Sequence[Verdict], more: Sequence[Verdict]) -> list[Verdict]:
    """What two trials say together: a jump seen in one is a jump."""
    return [next((v for v in _ORDER if v in pair), None) for pair in zip(found, more, strict=True)]


_ORDER: tuple[Verdict, ...] = (True, "undefined", "small", False)
