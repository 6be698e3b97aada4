"""The uniform distribution on an interval."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import REAL, check_interval
from mcgrad.distributions.numerics.arithmetic import align, quotient


@dataclasses.dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform distribution: `p(x) = 1 / (high - low)` for `low <= x <= high`.

    **Its support moves with its parameters**, so a score function would be biased; pathwise is right.

    Args:
        low: any shape; finite.
        high: any shape that broadcasts with `low`; above `low`.

    Raises:
        ValueError: if a concrete `high` is not above `low`, or the shapes do not broadcast.
    """

    low: Float[ArrayLike, "*batch"]
    high: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"low": REAL, "high": REAL}
    reparameterized: ClassVar[bool] = True
    support_parameters: ClassVar[tuple[str, ...]] = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.law, self.low, self.high)

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return self._quantile(jax.random.uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, low, high = align(x, self.low, self.high)
        return jnp.where((x >= low) & (x <= high), -jnp.log(high - low), -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, low, high = align(x, self.low, self.high)
        inside = quotient(x - low, high - low)
        return jnp.where(x < low, 0.0, jnp.where(x > high, 1.0, inside))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._quantile(u)

    def _quantile(self, u: ArrayLike) -> Array:
        u, low, high = align(u, self.low, self.high)
        return low + (high - low) * u

    def moments(self) -> tuple[Array, Array]:
        low, high = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.low, self.high))
        return (low + high) / 2, ((high - low) / math.sqrt(12))[None]

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `low` and `high`: the draw itself against the end of the interval that moves."""
        low, high = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.low, self.high))
        density = jax.lax.stop_gradient(1 / (high - low))
        return (
            WeakDerivative.single("low", density * low, x, low, True),
            WeakDerivative.single("high", density * high, high, x, False),
        )
