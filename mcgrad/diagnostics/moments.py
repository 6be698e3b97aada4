"""Mean and deviation of many samples, in chunks that are merged, on one device or many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._spread import Spread, not_closed_over


class Moments(NamedTuple):
    """Of the samples seen so far: how many, their mean, and the sum of squared deviations from it."""

    count: Array
    mean: Any
    deviation: Any


def moments_of_chunk(one: Callable[[Any], Any], start: Any, size: int, end: Any) -> Moments:
    """The moments of samples `start` to `start + size`, those from `end` on left out."""
    indices = start + jnp.arange(size)
    samples = jax.vmap(one)(indices)
    count = jnp.minimum(end - start, size)

    def total(leaf: Array) -> Array:
        return jnp.sum(leaf, axis=0, where=(indices < end).reshape(size, *[1] * (leaf.ndim - 1)))

    mean = jax.tree.map(lambda leaf: total(leaf) / count.astype(leaf.dtype), samples)
    return Moments(count, mean, jax.tree.map(lambda leaf, m: total((leaf - m[None]) ** 2), samples, mean))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of samples together."""
    share = b.count / (a.count + b.count)
    apart = jax.tree.map(jnp.subtract, b.mean, a.mean)
    mean = jax.tree.map(lambda m, d: m + d * share.astype(d.dtype), a.mean, apart)
    between = jax.tree.map(lambda d: d**2 * (a.count * share).astype(d.dtype), apart)
    return Moments(a.count + b.count, mean, jax.tree.map(lambda *parts: sum(parts), a.deviation, b.deviation, between))


def of_all_devices(
    of_device: Callable[[Any, Any], Moments], given: Any, num_samples: int, spread: Spread | None
) -> Moments:
    """The moments of all devices, from those of one as a function of its first sample and what is `given`; all have as many."""
    if spread is None:
        return of_device(0, given)
    arrays, put = not_closed_over(given)

    def local(first: Array, *arrays: Array) -> tuple[Any, Moments]:
        return (), jax.tree.map(lambda leaf: leaf[None], of_device(first[0], put(arrays)))

    starts = jnp.arange(0, num_samples, num_samples // spread.num_devices)
    _, (counts, means, deviations) = spread.run(local, starts, arrays)
    count = jnp.max(counts)  # of one device: all have equally many
    mean = jax.tree.map(lambda m: jnp.mean(m, axis=0), means)
    between = jax.tree.map(
        lambda m, whole: count.astype(m.dtype) * jnp.sum((m - whole[None]) ** 2, axis=0), means, mean
    )
    deviation = jax.tree.map(lambda d, more: jnp.sum(d, axis=0) + more, deviations, between)
    return Moments(jnp.sum(counts), mean, deviation)
