"""The half-normal distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.normal import _LOG_SQRT_2PI, Normal
from mcgrad.distributions.numerics.arithmetic import align, quotient
from mcgrad.distributions.numerics.error_function import erf, erfc


@dataclasses.dataclass(frozen=True)
class HalfNormal(Distribution):
    """Distribution of `scale * |z|` with standard normal `z`: `p(x) = 2 N(x; 0, scale)` for `x >= 0`.

    Args:
        scale: any shape; positive. (The standard deviation of the normal distribution, not of this one.)

    Raises:
        ValueError: if a concrete `scale` is not positive.
    """

    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"scale": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return jnp.asarray(self.scale) * jnp.abs(jax.random.normal(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale = align(x, self.scale)
        z = quotient(jnp.where(x >= 0, x, 0.0), scale)
        return jnp.where(x >= 0, -0.5 * z * z - jnp.log(scale) + math.log(2) - _LOG_SQRT_2PI, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale = align(x, self.scale)
        return jnp.where(x >= 0, erf(quotient(x, scale) / math.sqrt(2)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale = align(x, self.scale)
        return jnp.where(x >= 0, erfc(quotient(x, scale) / math.sqrt(2)), 1.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, scale = align(u, self.scale)
        return scale * math.sqrt(2) * special.erfinv(u)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in `scale`: a chi draw of three degrees of freedom against the draw itself; or Hahn-Jordan."""
        normal = Normal(jnp.zeros_like(x), jnp.broadcast_to(self.scale, self.batch_shape))
        return mapped(normal.weak_derivative(key, x, how), jnp.abs, x, scale="scale")
