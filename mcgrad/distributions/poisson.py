"""The Poisson distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import Domain
from mcgrad.distributions.derivatives.quantile_rules import distribution_function
from mcgrad.distributions.numerics.arithmetic import align, is_count
from mcgrad.distributions.numerics.counts import poisson
from mcgrad.distributions.numerics.gamma import log_density, log_poisson, probabilities

# 2^31 is 3000 standard deviations above.
_RATE = Domain(
    "be at least zero and at most 2e9",
    lambda v: (v >= 0) & (v <= 2e9),
    "Pass `jax.nn.softplus(x)` where it may be negative; for larger means draw from `mcgrad.Normal(rate, jnp.sqrt(rate))`.",
)


@dataclasses.dataclass(frozen=True)
class Poisson(Distribution):
    """Poisson distribution: `P(x) = rate^x exp(-rate) / x!` for `x` in `{0, 1, ...}`.

    **JAX draws from it with the default (threefry) keys only.**

    Args:
        rate: the mean; any shape; at least zero, and at most 2e9, since draws are integers of 32 bits, in which JAX has the
            largest one for all that do not fit.

    Raises:
        ValueError: if a concrete `rate` is below zero or above 2e9.
    """

    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"rate": _RATE}
    discrete: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        return poisson(key, jnp.asarray(self.rate))

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        inside = is_count(x)
        return jnp.where(inside, log_poisson(jnp.where(inside, x, 0).astype(self.dtype), rate), -jnp.inf)

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        """Distribution function, by the incomplete gamma function."""
        x, rate = align(x, self.rate)
        k = jnp.where(x == jnp.inf, 0, jnp.maximum(jnp.floor(x), 0))
        k, rate = jnp.broadcast_arrays(k.astype(self.dtype), rate)
        rate = jnp.where(rate > 0, rate, rate + jnp.finfo(self.dtype).tiny)  # its derivative is not zero at zero
        return jnp.where(x < 0, 0.0, jnp.where(x == jnp.inf, 1.0, -_minus_above(rate, k + 1)))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in `rate`: one more than the draw against the draw itself."""
        rate = jnp.broadcast_to(self.rate, self.batch_shape)
        return (WeakDerivative.single("rate", rate, x + 1, x, False),)


_minus_above = distribution_function(
    lambda x, a: -probabilities(x, a)[1], log_density, lambda x, a: (jnp.zeros_like(a),)
)
"""Minus the probability that a gamma draw of the constant concentration `a` is above `x`."""
