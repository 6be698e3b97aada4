"""What estimators for distributions of finite support share."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Float, Int

from mcgrad.program import Draw, Estimator, SignedPoints, Site, zero_with_derivative_of


class FiniteSupportEstimator(Estimator):
    """Base of estimators that go through the values of a draw."""

    def why_not(self, site: Site) -> str | None:
        known = site.facts.support is not None
        return None if known else "the distribution has no finite support that is known beforehand"


def each_value(draw: Draw, fn: Callable[[Array], Array]) -> Array:
    """`fn` of a value of the draw's shape, at every value of the support; `[*plates, n]` for one of shape `plates`."""
    support = jnp.asarray(draw.facts.support)  # [n, *event]
    rows = jnp.expand_dims(support, tuple(range(1, 1 + draw.num_plates)))
    points = jnp.broadcast_to(rows, (len(support), *draw.plates, *support.shape[1:]))
    return jnp.moveaxis(jax.vmap(fn)(points), 0, -1)


def log_derivative(p: Array) -> Array:
    """Zeros with the derivatives of `log p`, of none where `p` is zero."""
    inside = stop(p) > 0
    return jnp.where(inside, zero_with_derivative_of(p) / jnp.where(inside, stop(p), 1), 0)


def differences_from_first(
    draw: Draw, positions: Int[Array, "*plates k"], coefficients: Float[Array, "*plates n"]
) -> SignedPoints:
    """`sum_j c_j (f(x_j) - f(x_0))` for values at positions in the support, all entries of a draw together."""
    points = jnp.asarray(draw.facts.support)[jnp.moveaxis(positions, -1, 0)]
    return SignedPoints(points[0], points[1:], jnp.moveaxis(coefficients, -1, 0), relative=True, joint=True)
