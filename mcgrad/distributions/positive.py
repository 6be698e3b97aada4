"""Laws on the positive half line: exponential and Weibull."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import POSITIVE, Distribution, align, open_uniform


@dataclasses.dataclass(frozen=True)
class Exponential(Distribution):
    """Exponential law: `p(x) = rate exp(-rate x)` for `x >= 0`.

    Args:
        rate: any shape; positive.

    Raises:
        ValueError: if a concrete `rate` is not positive.
    """

    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        return jax.random.exponential(key, self.batch_shape, self.dtype) / self.rate

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero."""
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, jnp.log(rate) - rate * x, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function."""
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, -jnp.expm1(-rate * jnp.where(x >= 0, x, 0.0)), 0.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Quantile function."""
        u, rate = align(u, self.rate)
        return -jnp.log1p(-u) / rate


@dataclasses.dataclass(frozen=True)
class Weibull(Distribution):
    """Weibull law: `F(x) = 1 - exp(-(x / scale)^concentration)` for `x >= 0`.

    Args:
        scale: any shape; positive.
        concentration: the shape parameter; any shape that broadcasts with `scale`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    scale: Float[ArrayLike, "*batch"]
    concentration: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"scale": POSITIVE, "concentration": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        # never 0, where the log density and the derivative in the concentration are infinite
        return self.icdf(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero."""
        x, scale, k = align(x, self.scale, self.concentration)
        inside = jnp.where(x >= 0, x, scale)
        # log x and log(scale) apart: at x = 0 the derivative in the scale would be 0 / 0
        log_prob = jnp.log(k) - k * jnp.log(scale) + special.xlogy(k - 1, inside) - jnp.power(inside / scale, k)
        return jnp.where(x >= 0, log_prob, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function."""
        x, scale, k = align(x, self.scale, self.concentration)
        z = jnp.where(x > 0, x, scale) / scale
        return jnp.where(x > 0, -jnp.expm1(-jnp.power(z, k)), 0.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Quantile function."""
        u, scale, k = align(u, self.scale, self.concentration)
        return scale * jnp.power(-jnp.log1p(-u), 1 / k)
