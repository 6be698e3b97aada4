"""Relations: which draws of a site the entries of a value depend on, and how weights reach them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Value


@dataclasses.dataclass(frozen=True)
class Window:
    """Entry `i` along `axis` depends on draws `i + low .. i + high`; with `axis=None` every entry does on `low .. high`.

    `axis` is an axis of the value, or inside the body of a `scan` that scan's equation, for the current step.
    """

    axis: int | Equation | None
    low: float
    high: float
    cause: Equation | None = dataclasses.field(default=None, compare=False)

    @property
    def separate(self) -> bool:
        """Whether an entry depends on one draw only."""
        return self.low == self.high

    def shifted(self, low: float, high: float) -> Window:
        return dataclasses.replace(self, low=self.low + low, high=self.high + high)

    def spread(self, length: int, cause: Equation | None) -> Window:
        """The window of the whole value: of all entries together."""
        if self.axis is None:
            return self
        return Window(None, self.low, self.high + length - 1, self.cause or cause)

    def draws(self, length: int, plate: int) -> float:
        """How many of the `plate` draws an entry depends on, on average over the axis's `length` entries."""
        if self.axis is None:
            return max(min(self.high, plate - 1) - max(self.low, 0) + 1, 0)
        ends = [(max(i + self.low, 0), min(i + self.high, plate - 1)) for i in range(length)]
        return sum(max(high - low + 1, 0) for low, high in ends) / max(length, 1)

    def most_draws(self, plate: int) -> int:
        """How many of the `plate` draws an entry depends on, at most."""
        if self.axis is None:
            return int(self.draws(1, plate))
        return int(min(plate, self.high - self.low + 1))


Relation: TypeAlias = tuple[Window, ...]
"""One window for each plate axis of a site."""


Dependence: TypeAlias = Mapping[Site, Relation]
"""The sites upstream of a value, and how it depends on each."""


def axis_length(axis: int | Equation | None, shape: Sequence[int]) -> int:
    """How many entries an axis of a value has; the time axis of a `scan` its length."""
    if axis is None:
        return 1
    return shape[axis] if isinstance(axis, int) else axis.eqn.params["length"]


def expand_right(x: jax.Array, ndim: int) -> jax.Array:
    """An array with axes of size one added behind, to `ndim` axes."""
    return jnp.expand_dims(x, tuple(range(x.ndim, ndim)))


def bring(weights: jax.Array, relation: Relation, shape: Any, *, once: bool = False) -> jax.Array:
    """Sum a site's weights, of shape `plates`, over the window of each entry of a cost; broadcasts against `shape`.

    Args:
        weights: of the site's shape `plates`.
        relation: how the cost depends on the site.
        shape: the cost's.
        once: count each plate entry at one cost entry only, the first that depends on it.
    """
    placed: list[Any] = []
    # From the last plate axis to the first, so that axes still to come keep their place.
    for k in reversed(range(len(relation))):
        window = relation[k]
        if not isinstance(window.axis, int) or window.axis in placed:
            low = 0 if window.axis is not None else max(int(max(window.low, 0)), 0)
            high = weights.shape[k] if window.axis is not None else int(min(window.high, weights.shape[k] - 1)) + 1
            whole = low == 0 and high == weights.shape[k]
            chosen = weights if whole else jax.lax.slice_in_dim(weights, low, max(high, low), axis=k)
            weights = jnp.sum(chosen, axis=k)
        else:
            if once:
                late = window.high if math.isfinite(window.high) else window.low
                window = Window(window.axis, late, late)
            weights = _sum_window(weights, k, window, shape[window.axis])
            placed.insert(0, window.axis)
    weights = jnp.transpose(weights, tuple(np.argsort(placed).tolist()))
    return jnp.expand_dims(weights, [a for a in range(len(shape)) if a not in placed])


def _sum_window(x: jax.Array, axis: int, window: Window, length: int) -> jax.Array:
    """`y[i] = sum_{j = i + low}^{i + high} x[j]` along an axis, for `i < length`; entries outside are zero."""
    n = x.shape[axis]
    low, high = max(window.low, 1 - length), min(window.high, n - 1)
    if high < low:
        return jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype)
    if low <= 1 - length and high - low > _FEW:  # everything up to i + high
        return _shifted(jnp.cumsum(x, axis=axis), axis, int(high), length, edge=True)
    if high >= n - 1 and high - low > _FEW:  # everything from i + low
        backward = jax.lax.cumsum(x, axis=axis, reverse=True)
        return jnp.flip(_shifted(jnp.flip(backward, axis), axis, int(n - length - low), length, edge=True), axis)
    if high - low > _FEW:  # a wide band: a wider window is sound
        return _sum_window(x, axis, Window(window.axis, -math.inf, window.high), length)
    parts = [_shifted(x, axis, shift, length, edge=False) for shift in range(int(low), int(high) + 1)]
    return sum(parts[1:], parts[0])


_FEW = 4  # a band this wide is summed term by term


def _shifted(x: jax.Array, axis: int, shift: int, length: int, *, edge: bool) -> jax.Array:
    """`y[i] = x[i + shift]` for `i < length`; zero outside, or past the end the last entry where `edge`."""
    n = x.shape[axis]
    if shift == 0 and length == n:
        return x
    if edge and length + shift > n:
        last = jax.lax.slice_in_dim(x, n - 1, n, axis=axis)
        more = jnp.broadcast_to(last, (*x.shape[:axis], length + shift - n, *x.shape[axis + 1 :]))
        x = jnp.concatenate([x, more], axis=axis)
        n = length + shift
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (-shift, length + shift - n, 0)  # negative padding cuts
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def number_of_draws(relation: Relation, site: Site, value: Value) -> float:
    """How many draws of a site an entry of a value depends on, on average."""
    axes = zip(relation, site.plates, strict=True)
    return math.prod(w.draws(axis_length(w.axis, value.shape), n) for w, n in axes)
