"""Weak derivatives of distributions of single numbers, by inverting the derivative of the distribution function.

The `rate` of a parameter is the derivative `dF/dparameter` of the distribution function, a function of `x` that is zero at both
ends. Where it rises the density grows with the parameter, where it falls the density shrinks: its positive and negative
variations are the Hahn-Jordan parts, and points of a part are where the rate takes levels that are uniform in between.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad._types import PRNGKey
from mcgrad.distributions.derivatives.weak_derivative import Coupling, WeakDerivative
from mcgrad.distributions.numerics.arithmetic import open_uniform
from mcgrad.distributions.numerics.roots import bracket_root

stop = jax.lax.stop_gradient
Function = Callable[[Array], Array]


def hahn_jordan_term(
    name: str, parameter: Array, rate: Function, turns: Array, key: PRNGKey, x: Array, how: Coupling
) -> WeakDerivative:
    """The Hahn-Jordan term of one parameter, of the shape of the draw `x`; see `hahn_jordan_parts`."""
    weight, positive, negative = hahn_jordan_parts(rate, turns, key, x, how)
    return WeakDerivative.single(name, weight * parameter, positive, negative)


def hahn_jordan_parts(
    rate: Function, turns: Array, key: PRNGKey, x: Array, how: Coupling
) -> tuple[Array, Array, Array]:
    """The total increase of `rate`, a point where it increases and a point where it decreases, each of the shape of `x`.

    `rate` must be monotone between consecutive `turns`; a jump is an atom. With shared noise both points lie at the same
    level, with no other point of that level in between.

    Args:
        rate: elementwise, with frozen parameters; what is not finite counts as zero.
        turns: `[n, *batch]`, where it turns, increasing along the first axis; more points do no harm.
        key: of the level.
        x: a draw.
        how: `"comonotone"` or not.
    """

    def level_of(points: Array) -> Array:
        found = rate(points)
        return jnp.where(jnp.isfinite(found), found, 0)

    x, turns = stop(x), stop(turns)
    far = jnp.full((1, *x.shape), jnp.finfo(x.dtype).max, x.dtype)
    edges = jnp.concatenate([-far, turns, far])
    heights = jnp.concatenate([0 * far, jax.vmap(level_of)(turns), 0 * far])
    rises = jnp.diff(heights, axis=0)  # [cell, *batch]
    gained, lost = (jnp.cumsum(jnp.maximum(sign * rises, 0), axis=0) for sign in (1, -1))
    mass = gained[-1]
    u = open_uniform(key, x.shape, x.dtype)
    up, above = _cell(gained, u * mass)
    level = _at(heights[1:], up) - above
    if how.comonotone:
        down, above = _cell(lost, u * lost[-1])
        levels = jnp.stack([level, _at(heights[1:], down) + above])
    else:
        # Along an excursion of the rate above zero the fall comes after the rise, along one below zero before it.
        cells = jnp.arange(len(rises)).reshape(-1, *[1] * x.ndim)
        ahead = jnp.where(level > 0, 1, -1)[None] * (cells - up[None])
        falls = (heights[1:] <= level[None]) & (level[None] <= heights[:-1]) & (rises < 0) & (ahead > 0)
        down = jnp.argmin(jnp.where(falls, ahead, len(rises)), axis=0)
        levels = jnp.stack([level, level])
    low, high = (jnp.stack([_at(side, up), _at(side, down)]) for side in (edges[:-1], edges[1:]))
    sign = jnp.asarray([1, -1], x.dtype).reshape(2, *[1] * x.ndim)
    low, high = bracket_root(lambda points: sign * (jax.vmap(level_of)(points) - levels), low, high)
    # The neighbor on the side of the draw: never outside the support.
    points = jnp.where(high > x[None], low, high)
    positive, negative = jnp.where(mass[None] > 0, points, x[None])
    return mass, positive, negative


def turning_points(cdf: Function, rate: Function, x: Array) -> Array:
    """Quantiles, and between neighbors of them a point where the rate turns if there is one.

    The density must be continuous, and its derivative in the parameter have at most one change of sign between two of the
    quantiles, which are a 24th of the mass apart, and by factors in the tails.

    Args:
        cdf: the distribution function, elementwise, with frozen parameters. Beyond where it is between 0 and 1, and where it
            is not a number, the distribution has no mass.
        rate: its derivative in the parameter.
        x: a draw, which says where the mass is, and the shape of a point.
    """
    far = jnp.full_like(x, jnp.finfo(x.dtype).max)
    tails = 2.0 ** -np.array(
        [40, 32, 25, 19, 14, 10, 7, 5.5] if x.dtype == jnp.float64 else [20, 17, 14, 12, 10, 8, 7, 5.5]
    )
    fractions = jnp.asarray(np.concatenate([tails, np.arange(1, 24) / 24, 1 - tails[::-1]]), x.dtype)

    def quantile(fraction: Array) -> Array:
        low, high = bracket_root(lambda points: inside(cdf(points), points, x) - fraction, -far, far)
        return jnp.where(high > x, low, high)

    nodes = jax.vmap(quantile)(fractions)

    def slope(points: Array) -> Array:
        return jax.jvp(rate, (points,), (jnp.ones_like(points),))[1]

    slopes = jax.vmap(slope)
    falling = slopes(nodes[:-1]) > 0
    low, _ = bracket_root(lambda points: jnp.where(falling, -1, 1) * slopes(points), nodes[:-1], nodes[1:])
    return jnp.sort(jnp.concatenate([nodes, low]), axis=0)


def inside(fraction: Array, points: Array, x: Array) -> Array:
    """A distribution function between 0 and 1; where it is not a number, the end on that side of `x`."""
    return jnp.clip(jnp.where(jnp.isnan(fraction), jnp.where(points < x, 0, 1), fraction), 0, 1)


def _cell(reached: Array, target: Array) -> tuple[Array, Array]:
    """The first cell in which a sum reaches its target, and by how much the sum after it is above that."""
    index = jnp.minimum(jnp.sum(reached < target[None], axis=0), len(reached) - 1)
    return index, _at(reached, index) - target


def _at(cells: Array, index: Array) -> Array:
    return jnp.take_along_axis(cells, index[None], axis=0)[0]
