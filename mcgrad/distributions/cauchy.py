"""The Cauchy distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.numerics.arithmetic import open_uniform


@dataclasses.dataclass(frozen=True)
class Cauchy(LocationScale):
    """Cauchy distribution: `p(x) = 1 / (pi scale (1 + z^2))`, `z = (x - loc) / scale`. **It has no mean.**

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    keeps_nan: ClassVar[bool] = False

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return self._standard_icdf(open_uniform(key, shape, self.dtype))

    def _standard_log_prob(self, z: Array) -> Array:
        size = jnp.abs(z)
        far = size > 1  # where the square may overflow
        beyond = jnp.where(far, size, 1)
        inside = jnp.where(far, 1 / beyond, z)
        return -jnp.log1p(inside * inside) - 2 * jnp.log(beyond) - math.log(math.pi)

    def _standard_cdf(self, z: Array) -> Array:
        # = 1/2 + arctan(z) / pi, without cancellation in the lower tail
        return jnp.arctan2(jnp.ones_like(z), -z) / math.pi

    def _standard_icdf(self, u: Array) -> Array:
        # = tan(pi (u - 1/2)), without loss of digits in either tail
        distance = 1 / jnp.tan(math.pi * jnp.where(u < 0.5, u, 1 - u))
        return jnp.where(u < 0.5, -distance, distance)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        # 1 + z^2 grows by the factor exp(drop)
        return side * jnp.sqrt(z * z * jnp.exp(drop) + jnp.expm1(drop))

    _scale_weight: ClassVar[float | None] = 1 / math.pi

    def _standard_level(self, side: Array, drop: Array) -> Array:
        # 2 z / (1 + z^2) = exp(-drop), whose two solutions are inverse to each other
        return jnp.exp(side * drop) * jnp.power(1 + jnp.sqrt(-jnp.expm1(-2 * drop)), side)
