"""The chi-squared distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.gamma import Gamma


@dataclasses.dataclass(frozen=True)
class Chi2(Distribution):
    """Chi-squared distribution: that of a sum of `df` squared standard normal draws, `Gamma(df / 2, 1 / 2)`.

    Draws are differentiable in `df`, to every order, as those of `Gamma`.

    Args:
        df: degrees of freedom, need not be whole; any shape; positive.

    Raises:
        ValueError: if a concrete `df` is not positive.
    """

    df: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return self._gamma().sample(key)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._gamma().log_prob(x)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in `df`: that of the gamma distribution in its concentration, Hahn-Jordan."""
        return mapped(self._gamma().weak_derivative(key, x, how), lambda y: y, x, concentration="df")

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._gamma().cdf(x)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._gamma().survival(x)

    def _gamma(self) -> Gamma:
        return Gamma(jnp.asarray(self.df) / 2, jnp.asarray(0.5, self.dtype))
