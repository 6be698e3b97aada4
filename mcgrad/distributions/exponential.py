"""The exponential distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.exponential import (
    exponential_level,
)

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Exponential(Distribution):
    """Exponential distribution: `p(x) = rate exp(-rate x)` for `x >= 0`.

    Args:
        rate: any shape; positive.

    Raises:
        ValueError: if a concrete `rate` is not positive.
    """

    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return jax.random.exponential(key, self.batch_shape, self.dtype) / self.rate

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, jnp.log(rate) - rate * jnp.where(x >= 0, x, 0.0), -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, -jnp.expm1(-rate * self._finite(x)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, jnp.exp(-rate * self._finite(x)), 1.0)

    def _finite(self, x: Array) -> Array:
        return jnp.minimum(jnp.where(x >= 0, x, 0.0), jnp.finfo(self.dtype).max)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, rate = align(u, self.rate)
        return -jnp.log1p(-u) / rate

    def moments(self) -> tuple[Array, Array]:
        mean = jnp.broadcast_to(1 / jnp.asarray(self.rate), self.batch_shape)
        return mean, mean[None]

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in `rate`: the draw itself against the draw plus another, an Erlang draw; or Hahn-Jordan."""
        rate = jnp.broadcast_to(self.rate, self.batch_shape)
        drop = -jnp.log(open_uniform(key, self.batch_shape, self.dtype))
        if how.hahn_jordan:
            inner, outer = exponential_parts(drop, how)
            return (WeakDerivative.single("rate", jnp.log(rate) / math.e, inner / rate, outer / rate),)
        return (WeakDerivative.single("rate", jnp.log(rate), x, x + drop / rate, True),)


def exponential_parts(drop: Array, how: Coupling) -> tuple[Array, Array]:
    """Draws from the Hahn-Jordan parts, positive and negative, of the standard exponential distribution in its rate.

    That of its distribution function is `z exp(-z)`, with its maximum `1 / e` at 1.
    """
    one = jnp.ones_like(drop)
    return exponential_level(-one, how.other(drop)), exponential_level(one, drop)
