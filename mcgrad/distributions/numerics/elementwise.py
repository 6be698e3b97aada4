"""Functions of numbers that are one operation in a program: nobody needs to look inside to see that they are smooth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat


def smooth(fn: Callable[..., Array]) -> Callable[..., Array]:
    """The same function of arrays, entry by entry and differentiable: an operation by itself while programs are planned.

    For sums over many terms, whose parts round, select and hold fixed where that changes nothing.
    """

    @functools.wraps(fn)
    def bound(*operands: Array) -> Array:
        return smooth_p.bind(*jnp.broadcast_arrays(*operands), fn=fn)[0]

    return bound


def _run(*operands: Array, fn: Callable[..., Array]) -> list[Array]:
    return [fn(*operands)]


def _batch(
    operands: Sequence[Array], axes: Sequence[int | None], *, fn: Callable[..., Array]
) -> tuple[list[Array], list[int]]:
    moved = [x[None] if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)]
    return smooth_p.bind(*jnp.broadcast_arrays(*moved), fn=fn), [0]


def _jvp(
    operands: Sequence[Array], tangents: Sequence[Any], *, fn: Callable[..., Array]
) -> tuple[list[Array], list[Any]]:
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def of_moving(*xs: Array) -> Array:
        full = dict(zip(moving, xs, strict=True))
        return fn(*(full.get(i, x) for i, x in enumerate(operands)))

    out, out_dot = jax.jvp(of_moving, [operands[i] for i in moving], [tangents[i] for i in moving])
    return [out], [out_dot]


smooth_p = _compat.new_primitive("mcgrad_smooth", run=_run, batch=_batch, jvp=_jvp)
