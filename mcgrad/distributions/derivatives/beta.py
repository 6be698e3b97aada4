"""Beta draws: how their log odds move, and weak derivatives in a concentration by parts, or by a factor on the draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_parts
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.derivatives.weak_derivative import Coupling
from mcgrad.distributions.numerics.arithmetic import log_one_minus_exp, open_uniform
from mcgrad.distributions.numerics.beta import log_odds_log_prob, log_odds_probability, log_odds_velocity
from mcgrad.distributions.numerics.gamma_function import digamma_increment
from mcgrad.distributions.numerics.roots import bracket_root

move_log_odds = moving_draw(lambda y, a, b: (jnp.zeros_like(y), -log_odds_velocity(-y, b, a)))
"""The log odds of a beta draw as a function of them and of both concentrations, of which the first is a constant."""


def _velocities(y: Array, a: Array, b: Array) -> tuple[Array, Array]:
    return log_odds_velocity(y, a, b), -log_odds_velocity(-y, b, a)


log_odds_cdf = distribution_function(log_odds_probability, log_odds_log_prob, _velocities)
"""The distribution function of the log odds, of them and both concentrations; of minus them, and the concentrations exchanged, what
is above, with all its digits. Elementwise, arguments of one shape; differentiable in all, to every order."""

log_odds_cdf_of_constants = distribution_function(
    log_odds_probability, log_odds_log_prob, lambda y, a, b: (jnp.zeros_like(y), jnp.zeros_like(y))
)
"""The same for concentrations that are constants."""


def beta_factor(key: PRNGKey, a: Float[Array, "*batch"], b: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A factor `v` for which `x v`, for `x` from `Beta(a, b)`, has the density `-log(x) p(x) / (psi(a + b) - psi(a))`.

    `-log(x)` has the law of a sum of independent jumps, and is infinitely divisible; weighted in proportion to its size, it
    becomes its own sum with one more jump, `-log(v)`, of density `exp(-a s) (1 - exp(-b s)) / (1 - exp(-s))` up to its constant.
    That is a mixture over `k = 0, 1, ...`, with weights `b / ((a + k) (a + b + k))`, of sums of two exponential draws of
    rates `a + k` and `a + b + k`. What is left from `k` on is `psi(a + b + k) - psi(a + k)`.
    """
    keys = jax.random.split(key, 3)
    shape, dtype = jnp.broadcast_shapes(a.shape, b.shape), jnp.result_type(a, b)
    u, first, second = (open_uniform(key, shape, dtype) for key in keys)
    target = u * digamma_increment(a, b)
    # Terms up to 2 / eps: by then the factor rounds to 1.
    most = jnp.full(shape, 2 / jnp.finfo(dtype).eps, dtype)
    low, _ = bracket_root(lambda k: target - digamma_increment(a + k, b), jnp.zeros(shape, dtype), most)
    k = jnp.floor(low)
    return jnp.exp(jnp.log(first) / (a + k) + jnp.log(second) / (a + b + k))


def beta_parts(key: PRNGKey, y: Array, a: Array, b: Array, how: Coupling) -> tuple[Array, Array | None, Array]:
    """The parts of the derivative in `a`, for log odds `y` of a `Beta(a, b)` draw: their mass, and log odds of each.

    Hahn-Jordan: the density grows with `a` beyond where the draw is `exp(psi(a) - psi(a + b))`, and shrinks before it. Or the draw
    itself, for which `None` stands, against the draw times a factor.
    """
    apart = digamma_increment(a, b)
    if not how.hahn_jordan:
        log_less = jnp.log(beta_factor(key, a, b)) - jax.nn.softplus(-y)
        return apart, None, log_less - jnp.log(-jnp.expm1(log_less))
    turn = -apart - log_one_minus_exp(-apart)

    def rate(y: Array) -> Array:
        return -log_odds_velocity(y, a, b) * jnp.exp(log_odds_log_prob(y, a, b))

    # More points do no harm, and leave less to search.
    around = jnp.asarray([-32, -8, -4, -2, -1, -0.25, 0, 0.25, 1, 2, 4, 8, 32], y.dtype).reshape(-1, *[1] * y.ndim)
    return hahn_jordan_parts(rate, turn[None] + around * jnp.sqrt(1 / a + 1 / b)[None], key, y, how)
