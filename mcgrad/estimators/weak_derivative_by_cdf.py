"""Weak derivatives of any distribution of single numbers with a differentiable `cdf`, in whatever its parameters are."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_parts, inside, turning_points
from mcgrad.program import Site
from mcgrad.program.dependence import axes_of_entries

_MOST_DIRECTIONS = 256
"""Parameters that one entry may depend on: each takes some 5,000 evaluations of the `cdf`. A limit of time, not of accuracy."""


Directions: TypeAlias = dict[int, tuple[int | None, ...]]
"""How parameters of a distribution meet its entries: for a leaf of the distribution, and each of its axes, the batch axis along
which an entry of a draw depends on its own entry only, or `None` where it may depend on all."""


def _count(axes: tuple[int | None, ...], shape: tuple[int, ...]) -> int:
    """How many directions a leaf moves in, all entries of a batch together."""
    return math.prod(n for n, axis in zip(shape, axes, strict=True) if axis is None)


def directions(site: Site) -> Directions:
    """The directions of a site's distribution, found on placeholders of its leaves."""
    structs, tree = jax.tree.flatten(site.base_dist)
    x = site.base_draw

    def cdf(*operands: Any) -> Array:
        return jax.tree.unflatten(tree, operands[:-1]).cdf(operands[-1])

    found = axes_of_entries(cdf, [*structs, x])[:-1]
    return {i: axes for i, axes in enumerate(found) if axes is not None and _moves(structs[i])}


def _moves(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def why_no_weak_derivative(site: Site) -> str | None:
    """Why a distribution has no weak derivative, neither of its own nor from its `cdf`, or `None`."""
    facts = site.facts
    if "weak_derivative" in facts.knows:
        return None
    if facts.discrete or not (facts.scalar_event and "cdf" in facts.knows):
        return "the distribution has no `weak_derivative`, and is not one of continuous single numbers with a `cdf`"
    structs, tree = jax.tree.flatten(site.base_dist)

    def slope(x: Array, *leaves: Any) -> Array:
        moves = [jnp.ones_like(leaf) if _moves(leaf) else np.zeros(leaf.shape, jax.dtypes.float0) for leaf in leaves]

        def growth(x: Array) -> Array:
            return jax.jvp(lambda *leaves: jax.tree.unflatten(tree, leaves).cdf(x), leaves, tuple(moves))[1]

        return jax.jvp(growth, (x,), (jnp.ones_like(x),))[1]

    try:
        jax.eval_shape(slope, site.base_draw, *structs)
    # how JAX and other libraries say that a function has no derivative
    except (NotImplementedError, ValueError, TypeError) as error:
        return f"the distribution has no `weak_derivative`, and its `cdf` cannot be differentiated ({str(error).splitlines()[0]})"
    number = sum(_count(axes, structs[i].shape) for i, axes in directions(site).items())
    if number > _MOST_DIRECTIONS:
        return (
            f"an entry of a draw may depend on {number} parameters, each of which takes evaluations of its own (at most "
            f"{_MOST_DIRECTIONS} here)"
        )
    return None


def weak_derivative_by_cdf(
    dist: Any, key: PRNGKey, x: Array, how: Coupling, chosen: Directions
) -> tuple[WeakDerivative, ...]:
    """Hahn-Jordan terms of `dist` in each of its leaves, from its `cdf`: one term per direction."""
    leaves, tree = jax.tree.flatten(dist)
    frozen = stop(leaves)
    x = stop(x)
    # Any draw says where the mass is. One that is always the same, so that the quantiles of a distribution are found once for
    # all samples.
    somewhere = stop(dist.sample(jax.random.key(0)))
    terms = []
    for (i, axes), leaf_key in zip(chosen.items(), jax.random.split(key, len(chosen)), strict=True):
        shape = jnp.shape(leaves[i])
        own = [k for k, axis in enumerate(axes) if axis is None]
        number = _count(axes, shape)
        masks = np.eye(number, dtype=bool).reshape(
            number, *(n if axis is None else 1 for n, axis in zip(shape, axes, strict=True))
        )
        masks = jnp.asarray(np.broadcast_to(masks, (number, *shape)), frozen[i].dtype)

        def part(mask: Array, key: PRNGKey, i: int = i) -> tuple[Array, Array, Array]:
            def cdf(leaf: Array, points: Array) -> Array:
                return jax.tree.unflatten(tree, [*frozen[:i], leaf, *frozen[i + 1 :]]).cdf(points)

            def rate(points: Array) -> Array:
                value, found = jax.jvp(lambda leaf: cdf(leaf, points), (frozen[i],), (mask,))
                fraction = inside(value, points, somewhere)
                return jnp.where((fraction > 0) & (fraction < 1), found, 0)

            turns = turning_points(lambda points: cdf(frozen[i], points), rate, somewhere)
            far = jnp.full_like(somewhere, jnp.finfo(somewhere.dtype).max)
            first, last = (inside(cdf(frozen[i], end), end, somewhere) for end in (-far, far))
            weight, positive, negative = hahn_jordan_parts(rate, turns, key, x, how)
            # NaN, not a silent zero, if the cdf does not go from 0 to 1: the formula may not hold there.
            return jnp.where((first < 0.5) & (last > 0.5), weight, jnp.nan), positive, negative

        weight, positive, negative = jax.vmap(part)(masks, jax.random.split(leaf_key, number))
        # The parameter of each direction, along the batch axes that it has.
        values = jnp.sum(jnp.where(masks != 0, leaves[i][None], 0), axis=[1 + k for k in own])
        kept = [axis for axis in axes if axis is not None]
        values = jnp.transpose(values, (0, *(1 + k for k in np.argsort(kept))))
        values = jax.lax.broadcast_in_dim(values, weight.shape, (0, *(1 + axis for axis in sorted(kept))))
        terms.append(WeakDerivative((), weight * values, positive, negative))
    return tuple(terms)
