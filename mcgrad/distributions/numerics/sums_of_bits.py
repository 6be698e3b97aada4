"""How many of several independent bits are one, for all nodes of a binary tree over the bits.

A node of `s` bits has the probabilities `[min(s, most) + 1]` of its number of ones, those of its two halves convolved. No number
is negative, so no digits are lost; a probability that underflows is one that no draw meets. Building the tree over `n` bits takes
some `4 n most` multiplications in `log2(n)` steps, and drawing bits given their sum goes down it, one step a level.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mcgrad import _mesh


def tree_of_sums(p: Float[Array, "*batch n"], q: Float[Array, "*batch n"], most: int) -> list[Array]:
    """`[*batch, nodes, width]` for each level, the bits first and the root last, of `P(1) = p` and `P(0) = q`."""
    n = p.shape[-1]
    ahead = [(0, 0)] * (p.ndim - 1)
    room = (1 << (n - 1).bit_length()) - n  # bits that are zero, up to a power of two
    level = jnp.stack([jnp.pad(q, [*ahead, (0, room)], constant_values=1), jnp.pad(p, [*ahead, (0, room)])], axis=-1)
    levels = [level]
    size = 1
    while level.shape[-2] > 1:
        size *= 2
        level = _convolve(level[..., ::2, :], level[..., 1::2, :], min(size, most) + 1)
        levels.append(level)
    return levels


def _convolve(a: Float[Array, "*batch w"], b: Float[Array, "*batch w"], width: int) -> Float[Array, "*batch width"]:
    """The first entries of the convolution; shifts are reshapes, whose transposes are as cheap."""
    w = a.shape[-1]
    length = width + w
    rows = jnp.pad(b, [(0, 0)] * (b.ndim - 1) + [(0, length - w)])
    rows = jnp.broadcast_to(rows[..., None, :], (*b.shape[:-1], w, length)).reshape(*b.shape[:-1], w * length)
    shifted = rows[..., : w * (length - 1)].reshape(*b.shape[:-1], w, length - 1)[..., :width]  # [j, m] is b[m - j]
    return jnp.sum(a[..., :, None] * shifted, axis=-2)


def bits_given_sum(levels: list[Array], total: Int[Array, "*batch"], u: list[Array]) -> Int[Array, "*batch nodes"]:
    """The bits of quantiles `u`, `[*batch, nodes]` for each level above the bits, given how many are one."""
    counts = total[..., None]
    for children, noise in zip(reversed(levels[:-1]), reversed(u), strict=True):
        joint = _of_left(children, counts)
        cumulative = jnp.cumsum(joint, axis=-1)
        left = jnp.sum(cumulative < noise[..., None] * cumulative[..., -1:], axis=-1, dtype=jnp.int32)
        # whatever the sum rounds to, a number of ones that can be
        possible = joint > 0
        first, behind = jnp.argmax(possible, axis=-1), jnp.argmax(possible[..., ::-1], axis=-1)
        left = jnp.clip(left, first.astype(jnp.int32), (joint.shape[-1] - 1 - behind).astype(jnp.int32))
        counts = _interleaved(left, counts - left)
    return counts


def quantiles_of(levels: list[Array], bits: Int[Array, "*batch nodes"], v: list[Array]) -> list[Array]:
    """Quantiles that bits are made of, uniform given the bits where `v` is uniform."""
    found = []
    for children, noise in zip(levels[:-1], v, strict=True):
        left, total = bits[..., ::2], bits[..., ::2] + bits[..., 1::2]
        joint = _of_left(children, total)
        which = _positions(joint)
        below = jnp.sum(jnp.where(which < left[..., None], joint, 0), axis=-1)
        here = jnp.sum(jnp.where(which == left[..., None], joint, 0), axis=-1)
        whole = jnp.sum(joint, axis=-1)
        found.append((below + noise * here) / jnp.where(whole > 0, whole, 1))
        bits = total
    return found


def _of_left(children: Float[Array, "*batch n w"], total: Int[Array, "*batch m"]) -> Float[Array, "*batch m w"]:
    """The joint probability of `j` ones in the left half and `total - j` in the right one."""
    left, right = children[..., ::2, :], children[..., 1::2, :]
    rest = total[..., None] - _positions(left)
    inside = (rest >= 0) & (rest < right.shape[-1])
    other = jnp.take_along_axis(right, jnp.clip(rest, 0, right.shape[-1] - 1), axis=-1)
    return jnp.where(inside, left * other, 0)


def _positions(x: Array) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def _interleaved(left: Array, right: Array) -> Array:
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:-1], -1)


def tilt(logits: Float[Array, "*batch n"], k: int) -> Float[Array, "*batch"]:
    """Where `sum(sigmoid(logits - tilt)) = k`, so that `k` is a likely number of ones; held fixed."""
    logits = jax.lax.stop_gradient(logits)
    n = logits.shape[-1]
    # With `log n` above the k-th largest the sum is below k, and with as much below the one after it, above; where there is none
    # after it, log odds of 60 are certain enough.
    largest = jax.lax.top_k(logits, min(k + 1, n))[0]
    high, after = largest[..., k - 1], largest[..., -1]
    low = jnp.where((after > -jnp.inf) & (k < n), after, high - 60) - math.log(n)
    high = high + math.log(n)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low / 2 + high / 2
        over = jnp.sum(jax.nn.sigmoid(logits - middle[..., None]), axis=-1) > k
        return jnp.where(over, middle, low), jnp.where(over, high, middle)

    low, high = _mesh.fori_loop(0, 40, halve, (low, high))
    return low / 2 + high / 2
