"""Functions whose derivatives are not those of their values: the building blocks of surrogate costs."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mcgrad._compat import custom_jvp, undifferentiable


@custom_jvp
def unit_weight(log_weight: jax.Array) -> jax.Array:
    """`exp(l - stop(l))`: one in value, with the derivatives of `exp(l)` divided by `exp(l)` (Foerster et al. 2018, eq. 5).

    It has its own derivative rule, so that it never forms `l - l`, which is NaN for infinite `l`, and costs nothing if only
    the value is needed.
    """
    return jnp.ones_like(log_weight)


@unit_weight.defjvp
def _unit_weight_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (log_weight,), (tangent,) = primals, tangents
    weight = unit_weight(log_weight)
    return weight, weight * tangent


@custom_jvp
def zero_with_derivative_of(x: jax.Array) -> jax.Array:
    """`x - stop(x)`, without the value of `x` being computed."""
    return jnp.zeros_like(x)


@zero_with_derivative_of.defjvp
def _zero_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return zero_with_derivative_of(*primals), tangents[0]


_first_order = undifferentiable(
    "A second derivative through an estimator of signed points (measure-valued, coupled) would be wrong: its "
    "points are right to first order only. Use `mcgrad.Score`, `mcgrad.Pathwise` or `mcgrad.Enumerate` at this "
    "site, which are right to every order."
)


@custom_jvp
def signed_term(coefficient: jax.Array, cost: jax.Array) -> jax.Array:
    """`coefficient * stop(cost)` for a coefficient that is zero in value, with an error in place of a second derivative.

    The rule, and not this function, stops the cost. A second derivative, first in the site's parameter and then in one that
    only the cost depends on, is thus refused rather than silently zero.
    """
    return coefficient * cost


@signed_term.defjvp
def _signed_term_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    coefficient, cost = primals
    # The guard is on what the tangent is multiplied with, which stays when the product is linearized.
    return coefficient * cost, _first_order(cost, coefficient) * tangents[0]


_biased = undifferentiable(
    "A second derivative through a biased estimator (straight-through, relaxed) means nothing: its paths are made to be "
    "followed once. Use `mcgrad.Score`, `mcgrad.RELAX` or `mcgrad.Enumerate` at this site, which are right to every order."
)


@custom_jvp
def zero_with_first_derivative_of(x: jax.Array) -> jax.Array:
    """`zero_with_derivative_of`, with an error in place of a second derivative."""
    return jnp.zeros_like(x)


@zero_with_first_derivative_of.defjvp
def _zero_once_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return jnp.zeros_like(x), _biased(jnp.ones_like(x), x) * tangent
