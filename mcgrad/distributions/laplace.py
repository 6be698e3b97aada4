"""The Laplace distribution."""

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
    exponential_level,
)


@dataclasses.dataclass(frozen=True)
class Laplace(LocationScale):
    """Laplace distribution: `p(x) = exp(-|x - loc| / scale) / (2 scale)`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    _standard_moments: ClassVar[tuple[float, float] | None] = (0.0, math.sqrt(2))

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.laplace(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        return -jnp.abs(z) - math.log(2)

    def _standard_cdf(self, z: Array) -> Array:
        tail = 0.5 * jnp.exp(jnp.where(z < 0, z, -z))  # no `abs`: its derivative at 0 is 0, that of the cdf is 1/2
        return jnp.where(z < 0, tail, 1 - tail)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return z + side * drop

    _scale_weight: ClassVar[float | None] = math.exp(-1)

    def _standard_level(self, side: Array, drop: Array) -> Array:
        return exponential_level(side, drop)

    def _standard_icdf(self, u: Array) -> Array:
        z = jnp.log(2 * jnp.where(u < 0.5, u, 1 - u))
        return jnp.where(u < 0.5, z, -z)
