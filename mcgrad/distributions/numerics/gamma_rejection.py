"""Gamma draws by rejection, all entries of an array at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad import _mesh
from mcgrad._types import PRNGKey
from mcgrad.distributions.numerics.arithmetic import log1p_minus_cubic


def standard_gamma(key: PRNGKey, a: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """A draw of the gamma distribution of concentration `a` and rate one, and its logarithm, right where the draw underflows.

    With a normal draw `z`, `d = a - 1/3` and `t = z / sqrt(9 d)`, `d (1 + t)^3` is accepted with probability

        exp(3 d r(t)),   r(t) = log(1 + t) - t + t^2 / 2 - t^3 / 3 < 0,

    above 0.95 for `a >= 1`. Below, a draw for `a + 1` is multiplied by `u^(1 / a)` with a uniform `u`. All entries are
    proposed anew until the last is accepted, about five rounds for 20,000; `jax.random.gamma` goes through the entries one by
    one on CPU. NaN where `a` is not positive.

    References:
        Marsaglia and Tsang 2000, "A simple method for generating gamma variables", https://doi.org/10.1145/358407.358414.
    """
    d, t, log_boost = _accepted(key, a)
    return d * (1 + t) ** 3 * jnp.exp(log_boost), jnp.log(d) + 3 * jnp.log1p(t) + log_boost


def log_ratio_to_mean(key: PRNGKey, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`log(x / a)` for a gamma draw `x` of concentration `a`, whose mean is `a`; with all digits where it is small."""
    d, t, log_boost = _accepted(key, a)
    log_d = jnp.where(a < 1, jnp.log(d) - jnp.log(a), jnp.log1p(-1 / (3 * jnp.maximum(a, 1))))
    return log_d + 3 * jnp.log1p(t) + log_boost


def _accepted(key: PRNGKey, a: Float[Array, "*batch"]) -> tuple[Array, Array, Array]:
    """`d`, an accepted `t`, and the logarithm of the factor for `a < 1`."""
    boosted = a < 1
    d = jnp.where(a > 0, jnp.where(boosted, a + 1, a) - 1 / 3, jnp.nan)
    width = 1 / (3 * jnp.sqrt(d))
    key, key_boost = jax.random.split(key)

    def propose(state: tuple[PRNGKey, Array, Array]) -> tuple[PRNGKey, Array, Array]:
        key, t, rejected = state
        key, key_normal, key_uniform = jax.random.split(key, 3)
        proposed = width * jax.random.normal(key_normal, a.shape, a.dtype)
        log_u = -jax.random.exponential(key_uniform, a.shape, a.dtype)
        # No comparison holds for NaN, which is so accepted.
        rejects = (proposed <= -1) | (log_u > 3 * d * log1p_minus_cubic(jnp.where(proposed > -1, proposed, 0.0)))
        return key, jnp.where(rejected, proposed, t), rejected & rejects

    start = (key, jnp.zeros_like(a), jnp.ones(a.shape, bool))
    _, t, _ = _mesh.while_loop(lambda state: jnp.any(state[2]), propose, start)
    return d, t, jnp.where(boosted, -jax.random.exponential(key_boost, a.shape, a.dtype) / a, 0.0)
