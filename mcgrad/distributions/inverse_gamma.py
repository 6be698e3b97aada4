"""The inverse gamma distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, quotient
from mcgrad.distributions.numerics.gamma import (
    log_density_of_log,
)


@dataclasses.dataclass(frozen=True)
class InverseGamma(Distribution):
    """The distribution of `1 / y` for a gamma draw `y`: `p(x) = rate^a x^(-a - 1) exp(-rate / x) / Gamma(a)` for `x > 0`.

    Draws are differentiable in both parameters, to every order, as those of `Gamma`. **A draw that overflows is the
    largest number**, with derivative zero. **The derivative of the log density in `x` is infinite where
    `concentration / x` overflows.**

    Args:
        concentration: any shape; positive.
        rate: any shape that broadcasts with `concentration`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    concentration: Float[ArrayLike, "*batch"]
    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration": POSITIVE, "rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return bounded_exp(-ExpGamma(self.concentration, self.rate).sample(key))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        inside = jnp.where(x > 0, x, 1.0)
        log_x = jnp.log(inside)
        log_prob = log_density_of_log(quotient(rate, inside), jnp.log(rate) - log_x, a) - log_x
        return jnp.where(x > 0, log_prob, -jnp.inf)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in both parameters: those of minus the logarithm, mapped."""
        logarithm = ExpGamma(self.concentration, self.rate)
        return mapped(logarithm.weak_derivative(key, -jnp.log(x), how), lambda y: bounded_exp(-y), x)
