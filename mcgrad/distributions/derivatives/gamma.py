"""Gamma draws and their distribution function, with derivatives in the concentration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.numerics.gamma import log_density, log_gamma_velocity, log_ratio_velocity, probabilities
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean


def _velocity(x: Array, a: Array) -> tuple[Array]:
    return (x * log_gamma_velocity(x, jnp.log(x), a),)


gamma_cdf = distribution_function(lambda x, a: probabilities(x, a)[0], log_density, _velocity)
gamma_minus_survival = distribution_function(lambda x, a: -probabilities(x, a)[1], log_density, _velocity)


# The rules are in terms of the draw that moves, not of the constant that it was made of, so that the derivative of a
# derivative is total, through the draw too.
@custom_jvp
def move_gamma(x: Array, a: Array) -> Array:
    return x


@move_gamma.defjvp
def _gamma_draw_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, a), (_, a_dot) = primals, tangents
    x = move_gamma(x, a)
    return x, x * log_gamma_velocity(x, jnp.log(x), a) * a_dot


@custom_jvp
def move_log_gamma(y: Array, a: Array) -> Array:
    return y


@move_log_gamma.defjvp
def _log_gamma_draw_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (y, a), (_, a_dot) = primals, tangents
    y = move_log_gamma(y, a)
    return y, log_gamma_velocity(jnp.exp(y), y, a) * a_dot


def sample_log_ratio(key: PRNGKey, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A differentiable draw of `log(x / a)` for the gamma law of concentration `a` and rate one."""
    return _log_ratio_draw(log_ratio_to_mean(key, jax.lax.stop_gradient(a)), a)


_log_ratio_draw = moving_draw(lambda log_ratio, a: (log_ratio_velocity(log_ratio, a),))
