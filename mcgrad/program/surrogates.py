"""Functions whose derivatives are not those of their values: the building blocks of surrogate costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


@jax.custom_vjp
def with_fitted_baseline(log_weight: jax.Array, baseline: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A log weight less a baseline, and a carrier: zeros, to be added to a cost, by which the derivative finds its units.

    Going back, the log weight has the derivative `G`, what its draw is credited with in the units of the output, and the
    carrier `s`, what one unit of the cost is in these. The log weight then gets `G - s w b`, as from a term `(1 - w) b` of the
    cost, and the baseline `-sign(s) (G - s b)`, the derivative of `|s| / 2 (b - G / s)^2`.
    """
    return log_weight, _zeros(log_weight, baseline)


def _zeros(log_weight: jax.Array, baseline: jax.Array) -> jax.Array:
    """Zeros that a `vmap` maps where it maps one of the two: what is shared would have the derivative of all entries together."""
    return jnp.where(jnp.isnan(log_weight + baseline), 0.0, jnp.zeros_like(log_weight))


def _fitted_forward(log_weight: jax.Array, baseline: jax.Array) -> tuple[Any, Any]:
    return (log_weight, _zeros(log_weight, baseline)), (log_weight, baseline)


def _fitted_backward(residuals: Any, cotangents: Any) -> tuple[jax.Array, jax.Array]:
    (log_weight, baseline), (credited, unit) = residuals, cotangents
    stop = jax.lax.stop_gradient
    return credited - unit * unit_weight(log_weight) * stop(baseline), stop(
        jnp.sign(unit) * (unit * baseline - credited)
    )


with_fitted_baseline.defvjp(_fitted_forward, _fitted_backward)


_first_order = undifferentiable(
    "A second derivative through an estimator of signed points (measure-valued, coupled) would be wrong: its "
    "points are right to first order only. Use `mcgrad.Score`, `mcgrad.Pathwise` or `mcgrad.Enumerate` at this "
    "site, which are right to every order, or wrap the estimator in `mcgrad.EveryOrder`."
)


@custom_jvp
def signed_term(coefficient: jax.Array, cost: jax.Array) -> jax.Array:
    """`coefficient * stop(cost)` for a coefficient that is zero in value, with an error in place of a second derivative.

    The rule, and not this function, stops the cost. A second derivative, first in the site's parameter and then in one that
    only the cost depends on, is thus refused rather than silently zero. The value is not computed: a product with zeros that
    are only known to be zeros is one that XLA must keep.
    """
    return jnp.zeros_like(coefficient * cost)


@signed_term.defjvp
def _signed_term_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    coefficient, cost = primals
    # The guard is on what the tangent is multiplied with, which stays when the product is linearized.
    return signed_term(coefficient, cost), _first_order(cost, coefficient) * tangents[0]


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
