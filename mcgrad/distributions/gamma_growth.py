"""How the gamma function grows: `log Gamma(a + h) - log Gamma(a)` beyond its large part, and the derivative."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._compat import custom_jvp
from mcgrad.distributions.beta_factor import mean_log_factor
from mcgrad.distributions.gamma import beyond_half, log_peak
from mcgrad.distributions.gamma_rejection import log_beyond_cubic


@custom_jvp
def log_gamma_growth(a: Array, h: Array) -> Array:
    """`log Gamma(a + h) - log Gamma(a) - h log(a)` of arrays of one shape, of which `h` is a constant; zero for large `a`."""
    return log_peak(a) - log_peak(a + h) + (h + h * (h / a)) * log1p_over(h / a) - h


@log_gamma_growth.defjvp
def _log_gamma_growth_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, h), (a_dot, _) = primals, tangents
    return log_gamma_growth(a, h), digamma_growth(a, h) * a_dot


def digamma_growth(a: Array, h: Array) -> Array:
    """`psi(a + h) - psi(a) - h / a`, where nothing cancels.

    With `v = h / a`, `k(v) = log(1 + v) - v / (1 + v)` and `r(a) = log a - 1 / (2 a) - psi(a)` it is for large `a`

        k(v) - (1 - 1 / (2 h)) v^2 / (1 + v) + r(a) - r(a + h).
    """
    v = h / a
    part, many = v / (1 + v), a > 1
    one = jnp.where(many, a, 1.0)
    large = log1p_beyond(jnp.log1p(v), part) - (1 - 1 / (2 * h)) * v * part + beyond_half(one) - beyond_half(one + h)
    few = mean_log_factor(jnp.where(many, 1.0, a), h) - jnp.where(many, 1.0, v)
    return jnp.where(many, large, few)


def log1p_over(u: Array) -> Array:
    """`log(1 + u) / u`, one where `u` underflows."""
    some = u > 0
    return jnp.where(some, jnp.log1p(u) / jnp.where(some, u, 1.0), 1.0)


def log1p_beyond(log_growth: Array, part: Array) -> Array:
    """`log(1 + u) - u / (1 + u)` of these two, by its series where that is shorter than the cancellation."""
    series = part * part * (1 / 2 + part / 3) - log_beyond_cubic(-jnp.minimum(part, 0.5))
    return jnp.where(part < 0.1, series, log_growth - part)
