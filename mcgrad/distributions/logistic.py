"""The logistic distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.numerics.arithmetic import open_uniform


@dataclasses.dataclass(frozen=True)
class Logistic(LocationScale):
    """Logistic distribution: `F(x) = sigmoid((x - loc) / scale)`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    _standard_moments: ClassVar[tuple[float, float] | None] = (0.0, math.pi / math.sqrt(3))

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        # `jax.random.logistic` draws -87 in place of -16 where its uniform is 0.
        return special.logit(open_uniform(key, shape, self.dtype))

    def _standard_log_prob(self, z: Array) -> Array:
        return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)

    def _standard_cdf(self, z: Array) -> Array:
        return jax.nn.sigmoid(z)

    def _standard_icdf(self, u: Array) -> Array:
        return special.logit(u)

    _scale_turns: ClassVar[tuple[float, ...]] = (-1.5434046384182085, 1.5434046384182085)  # z tanh(z / 2) = 1

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        # p(z) = 1 / (4 cosh^2(z / 2)): log cosh(z / 2) rises by drop / 2, and arccosh(exp(a)) = a + log(1 + sqrt(1 - exp(-2 a)))
        half = jnp.abs(z) / 2
        a = half + jnp.log1p(jnp.exp(-2 * half)) - math.log(2) + drop / 2
        return 2 * side * (a + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * a))))
