"""How the weights of a draw reach the entries of a cost: summed over the window of each entry."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.program.relation import NO_DRAW, Relation, Window, axis_length


def bring_each(weights: jax.Array, relation: Relation, shape: Any) -> jax.Array:
    """As `bring`, for weights with further axes in front of the plates, which they keep."""
    each = functools.partial(bring, relation=relation, shape=shape)
    for _ in range(weights.ndim - len(relation)):
        each = jax.vmap(each)
    return each(weights)


def expand_right(x: jax.Array, ndim: int) -> jax.Array:
    """An array with axes of size one added behind, to `ndim` axes."""
    return jnp.expand_dims(x, tuple(range(x.ndim, ndim)))


def where_each(going_on: jax.Array, xs: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
    """`xs` where a condition with the leading axes of all holds, `ys` elsewhere."""
    return [jnp.where(expand_right(going_on, x.ndim), x, y) for x, y in zip(xs, ys, strict=True)]


def bring(weights: jax.Array, relation: Relation, shape: Any, *, once: bool = False) -> jax.Array:
    """Sum a site's weights, of shape `plates`, over the window of each entry of a cost; broadcasts against `shape`.

    Args:
        weights: of the site's shape `plates`.
        relation: how the cost depends on the site.
        shape: the cost's.
        once: count each plate entry at one cost entry only, the first that depends on it.
    """
    used: list[Any] = [axis for window in relation for axis in window.axes]
    places: list[Any] = []  # of the axes of `weights` after the current one; a window has no place yet
    # From the last plate axis to the first, so that axes still to come keep their place.
    for k in reversed(range(len(relation))):
        window = relation[k]
        if once and window.axes:
            late = window.high if math.isfinite(window.high) else window.low
            window = dataclasses.replace(window, low=late, high=late)
        alone = all(isinstance(a, int) and used.count(a) == 1 for a in window.axes)
        axes: Any = window.axes
        lengths = [axis_length(a, shape) for a in axes]
        counted = alone and window.table is None and all(a < b for a, b in itertools.pairwise(axes))
        if window.axes and not counted and window.entries(shape) is None:
            window = window.without(window.axes, shape, None)
        if not window.axes:
            weights = _sum_range(weights, k, window)
        elif counted:  # for several axes, those of one that was split
            weights = _sum_window(weights, k, window.low, window.high, math.prod(lengths))
            weights = weights.reshape(*weights.shape[:k], *lengths, *weights.shape[k + 1 :])
            places[:0] = axes
        else:
            places.insert(0, window)
    if any(isinstance(place, Window) for place in places):
        weights, places = _gathered(weights, places, shape, once=once)
    placed: Any = places
    weights = jnp.transpose(weights, tuple(np.argsort(placed).tolist()))
    return jnp.expand_dims(weights, [a for a in range(len(shape)) if a not in placed])


def _sum_range(weights: jax.Array, k: int, window: Window) -> jax.Array:
    """The sum over the draws that every entry depends on."""
    n = weights.shape[k]
    low, high = int(max(window.low, 0)), int(min(window.high, n - 1)) + 1
    chosen = weights if (low, high) == (0, n) else jax.lax.slice_in_dim(weights, low, max(high, low), axis=k)
    return jnp.sum(chosen, axis=k)


def _gathered(
    weights: jax.Array, places: Sequence[int | Window], shape: Sequence[int], *, once: bool
) -> tuple[jax.Array, list[int]]:
    """Weights whose plate axes with a window are replaced, all together, by the axes of the cost that these read."""
    at = [k for k, place in enumerate(places) if isinstance(place, Window)]
    windows: list[Any] = [places[k] for k in at]
    others: list[Any] = [place for place in places if not isinstance(place, Window)]
    axes: list[Any] = sorted({axis for window in windows for axis in window.axes})
    lengths = [shape[axis] for axis in axes]
    weights = jnp.moveaxis(weights, at, range(len(at)))
    rest = weights.shape[len(at) :]
    read = []  # for each plate axis, the entry that each entry of the cost reads
    for k, window in enumerate(windows):
        entries = window.entries(shape)
        assert entries is not None  # tables are small, and an axis that counts by itself is used here with others
        if not window.separate:  # the sum over each window first, one for each of its entries
            weights = _sum_at(weights, k, entries.ravel(), window.low, window.high)
            entries = np.arange(entries.size).reshape(entries.shape)
        else:
            entries = np.where(entries == NO_DRAW, NO_DRAW, entries + max(window.low, NO_DRAW))
        entries = np.transpose(entries, np.argsort(window.axes))
        read.append(entries.reshape([n if axis in window.axes else 1 for axis, n in zip(axes, lengths, strict=True)]))
    plates = weights.shape[: len(at)]
    inside, flat = np.ones(lengths, bool), np.zeros(lengths, int)
    for entries, n in zip(read, plates, strict=True):
        inside = inside & (entries >= 0) & (entries < n)
        flat = flat * n + np.clip(entries, 0, n - 1)
    if once:
        first = np.zeros(flat.size, bool)
        where = np.flatnonzero(inside.ravel())
        first[where[np.unique(flat.ravel()[where], return_index=True)[1]]] = True
        inside = first.reshape(inside.shape)
    weights = weights.reshape(math.prod(plates), *rest)
    if not np.array_equal(flat.ravel(), np.arange(len(weights))):
        weights = jnp.take(weights, flat.ravel(), axis=0, mode="clip")
    weights = weights.reshape(*lengths, *rest)
    if not inside.all():
        weights = jnp.where(expand_right(jnp.asarray(inside), weights.ndim), weights, 0)
    return weights, [*axes, *others]


def _sum_at(x: jax.Array, axis: int, draws: np.ndarray, low: float, high: float) -> jax.Array:
    """`y[i] = sum_{j = draws[i] + low}^{draws[i] + high} x[j]` along an axis."""
    n = x.shape[axis]
    some = draws != NO_DRAW
    first = np.where(some, np.clip(draws + max(low, NO_DRAW), 0, n), 0)  # of those summed
    end = np.where(some, np.clip(draws + min(high, -NO_DRAW) + 1, 0, n), 0)  # past the last
    if np.all((first == 0) | (first >= end)):
        sums = jnp.cumsum(x, axis=axis)
        return _masked(jnp.take(sums, np.maximum(end - 1, 0), axis=axis), axis, end > first)
    if np.all((end == n) | (first >= end)):
        sums = jax.lax.cumsum(x, axis=axis, reverse=True)
        return _masked(jnp.take(sums, np.minimum(first, n - 1), axis=axis), axis, end > first)
    if np.max(end - first) > _FEW:  # a wide band: a wider window is sound
        return _sum_at(x, axis, draws, -math.inf, high)
    terms = [
        _masked(jnp.take(x, np.minimum(first + step, n - 1), axis=axis), axis, first + step < end)
        for step in range(int(np.max(end - first)))
    ]
    return sum(terms[1:], terms[0])


def _masked(x: jax.Array, axis: int, kept: np.ndarray) -> jax.Array:
    shape = [len(kept) if a == axis else 1 for a in range(x.ndim)]
    return x if kept.all() else jnp.where(kept.reshape(shape), x, 0)


def _sum_window(x: jax.Array, axis: int, low: float, high: float, length: int) -> jax.Array:
    """`y[i] = sum_{j = i + low}^{i + high} x[j]` along an axis, for `i < length`; entries outside are zero."""
    n = x.shape[axis]
    low, high = max(low, 1 - length), min(high, n - 1)
    if high < low:
        return jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype)
    if low <= 1 - length and high - low > _FEW:  # everything up to i + high
        return _shifted(jnp.cumsum(x, axis=axis), axis, int(high), length, edge=True)
    if high >= n - 1 and high - low > _FEW:  # everything from i + low
        backward = jax.lax.cumsum(x, axis=axis, reverse=True)
        return jnp.flip(_shifted(jnp.flip(backward, axis), axis, int(n - length - low), length, edge=True), axis)
    if high - low > _FEW:  # a wide band: a wider window is sound
        return _sum_window(x, axis, -math.inf, high, length)
    parts = [_shifted(x, axis, shift, length, edge=False) for shift in range(int(low), int(high) + 1)]
    return sum(parts[1:], parts[0])


_FEW = 4
"""A band up to this wide is summed term by term: about what a cumulative sum costs."""


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
