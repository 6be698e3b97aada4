"""Gamma draws and their distribution function, with derivatives in the concentration."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.numerics.gamma import log_density, log_gamma_velocity, log_ratio_velocity, probabilities
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean


def _velocity(x: Array, a: Array) -> tuple[Array]:
    return (x * log_gamma_velocity(x, jnp.log(x), a),)


gamma_cdf = distribution_function(lambda x, a: probabilities(x, a)[0], log_density, _velocity)
gamma_minus_survival = distribution_function(lambda x, a: -probabilities(x, a)[1], log_density, _velocity)


move_gamma = moving_draw(_velocity)
"""A gamma draw of rate one, as a function of it and of its concentration."""

move_log_gamma = moving_draw(lambda y, a: (log_gamma_velocity(jnp.exp(y), y, a),))
"""The logarithm of a gamma draw of rate one, as a function of it and of the concentration."""


def sample_log_ratio(key: PRNGKey, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A differentiable draw of `log(x / a)` for the gamma distribution of concentration `a` and rate one."""
    return _log_ratio_draw(log_ratio_to_mean(key, jax.lax.stop_gradient(a)), a)


_log_ratio_draw = moving_draw(lambda log_ratio, a: (log_ratio_velocity(log_ratio, a),))
