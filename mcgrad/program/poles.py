"""Operations that divide: `x / abs(x)`, `1 / x`, `tan`, `arctan2` jump without a comparison, where what they divide by is zero.

Where they do is found as other jumps are: on lines through random points, here at the place where the divisor comes closest to
zero. What becomes infinite there has no expectation, so only what jumps between finite values counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mcgrad.program.density import log_density
from mcgrad.program.lines import NEARBY, POINTS, Bracket, Line
from mcgrad.program.site import Site, sample_p, under_vmaps
from mcgrad.program.trace import Constant, Equation, Value


def divisor_of(equation: Equation) -> Value | None:
    """What an operation divides by, or the result of `tan`, which is the inverse of that; `None` if it does not divide."""
    name, inputs = equation.name, equation.inputs
    negative = name == "rsqrt" or (name == "integer_pow" and equation.eqn.params["y"] < 0)
    if name == "pow" and isinstance(inputs[1], Constant):
        negative = bool(np.any(np.asarray(inputs[1].value) < 0))
    if name == "tan":
        return equation.outputs[0]
    return inputs[1] if name == "div" else inputs[0] if negative or name == "atan2" else None


class Nearest:
    """Where on a line a divisor comes closest to zero; to be used as a `Search`.

    Attributes:
        where: for entries of it that come as good as there: between which points.
    """

    def __init__(self, line: Line, told: Callable[[Line, np.ndarray], list[Any]], *, inverse: bool):
        self.line, self.inverse = line, inverse
        self.told = told
        self.dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
        self.ts = np.linspace(0.0, 1.0, POINTS).astype(self.dtype)
        size = self._size(self.ts)
        self._usual = np.median(size, axis=0)
        lowest, entries = np.argmin(size, axis=0), np.arange(size.shape[1])
        # Between two points it is at most as far away as it changes from one to the next.
        with np.errstate(invalid="ignore"):
            change = np.nan_to_num(np.abs(np.diff(size, axis=0)), nan=np.inf, posinf=np.inf).max(axis=0, initial=0)
        near = entries[np.isfinite(self._usual) & (size[lowest, entries] / 2 <= change)]
        near = near[np.argsort(size[lowest[near], near], kind="stable")][:_MOST_ENTRIES]
        self.where = {int(entry): int(lowest[entry]) for entry in near}

    def narrowed(self, entry: int) -> Bracket | None:
        """Where on the line it is zero; `None` if it does not get there."""
        ts, place = self.ts, self.where[entry]
        eps = float(np.finfo(self.dtype).eps)
        while True:
            low, high = float(ts[max(place - 1, 0)]), float(ts[min(place + 1, POINTS - 1)])
            last = high - low <= 4 * POINTS * eps
            ts = np.linspace(low, high, POINTS).astype(self.dtype)
            size = self._size(ts)[:, entry]
            place = int(np.argmin(size))
            if last:
                break
        if not size[place] <= _AS_GOOD_AS_ZERO * math.sqrt(eps) * self._usual[entry]:
            return None
        step = 4 * max(float(ts[1] - ts[0]), eps)
        low, high = float(ts[place]) - step, float(ts[place]) + step
        beyond = step * np.arange(1, 1 + NEARBY)
        places = np.concatenate([[low, high], low - beyond, high + beyond, self.ts[::8]])
        return Bracket(self.line, places.astype(self.dtype))

    def _size(self, ts: np.ndarray) -> np.ndarray:
        (x,) = self.told(self.line, ts)
        with np.errstate(all="ignore"):
            size = np.abs(x.reshape(POINTS, -1).astype(np.float64))
            return np.nan_to_num(1 / size if self.inverse else size, nan=np.inf, posinf=np.inf)


_AS_GOOD_AS_ZERO = 1e-2
"""How close to zero a divisor must come, beside its usual size and the root of rounding: what stops before is no zero."""

_MOST_ENTRIES = 4
"""Entries of a divisor that are followed on one line."""


def is_drawn(equation: Equation, read: Callable[[Value], Any]) -> Any:
    """Whether the result of a draw is in its support, so that a place on a line is one that a program can come to."""
    site = Site(equation)
    if equation.eqn.primitive is not sample_p or site.facts.discrete or "log_prob" not in site.facts.knows:
        return True
    n, levels = len(site.parameters), site.levels

    def density(*operands: Any) -> Any:
        return log_density(site.dist_of(operands[:n]), site.value_of(operands[n:]))

    mapped = [(*level[:n], *[0] * len(equation.outputs)) for level in levels]
    values = [read(v) for v in (*site.parameters, *equation.outputs)]
    return jax.numpy.all(jax.numpy.isfinite(under_vmaps(density, mapped)(*values)))
