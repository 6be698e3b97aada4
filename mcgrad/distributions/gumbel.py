"""The Gumbel distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.numerics.exponential import (
    log_exponential_density,
    log_exponential_outward,
)


@dataclasses.dataclass(frozen=True)
class Gumbel(LocationScale):
    """Gumbel distribution (of maxima): `F(x) = exp(-exp(-(x - loc) / scale))`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    _standard_moments: ClassVar[tuple[float, float] | None] = (0.5772156649015329, math.pi / math.sqrt(6))

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.gumbel(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        return log_exponential_density(-z)

    def _standard_cdf(self, z: Array) -> Array:
        return jnp.exp(-jnp.exp(jnp.minimum(-z, 8.0)))  # zero beyond, in every precision; no infinity to differentiate

    def _standard_survival(self, z: Array) -> Array:
        return -jnp.expm1(-jnp.exp(jnp.minimum(-z, 8.0)))

    def _standard_icdf(self, u: Array) -> Array:
        return -jnp.log(-jnp.log(u))

    _scale_turns: ClassVar[tuple[float, ...]] = (-0.8064659942363268, 1.3499764854011256)  # z (1 - exp(-z)) = 1

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return -log_exponential_outward(-z, -side, drop)
