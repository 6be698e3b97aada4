"""The normal distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.error_function import ndtr, ndtri
from mcgrad.distributions.numerics.exponential import exponential_level

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@custom_jvp
def _minus_half_square(z: Array) -> Array:
    return -0.5 * z * z


@_minus_half_square.defjvp
def _minus_half_square_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (z,), (z_dot,) = primals, tangents
    # no derivative that a weight of zero, in a mixture, would make NaN
    return _minus_half_square(z), jnp.where(jnp.abs(z) < jnp.inf, -z, 0) * z_dot


@dataclasses.dataclass(frozen=True)
class Normal(LocationScale):
    """Normal distribution: `p(x) = exp(-z^2 / 2) / (scale sqrt(2 pi))`, `z = (x - loc) / scale`.

    Args:
        loc: the mean; any shape; finite.
        scale: the standard deviation; any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
        TypeError: if a parameter is no real array.

    Example:
        >>> import mcgrad
        >>> mcgrad.Normal(0.0, 1.0).batch_shape
        ()
    """

    def noise_of(self, x: Array) -> Array:
        x, loc, scale = align(x, self.loc, self.scale)
        return (x - loc) / scale

    def of_noise(self, z: Array) -> Array:
        loc, scale, z = align(self.loc, self.scale, z)
        return loc + scale * z

    _standard_moments: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.normal(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        # not `jax.scipy.stats.norm.logpdf`: it squares the scale, which underflows in float32 below 1e-19
        return _minus_half_square(z) - _LOG_SQRT_2PI

    def _standard_cdf(self, z: Array) -> Array:
        return ndtr(z)

    def _standard_icdf(self, u: Array) -> Array:
        return ndtri(u)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return side * jnp.sqrt(z * z + 2 * drop)

    _scale_weight: ClassVar[float | None] = 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)

    def _standard_level(self, side: Array, drop: Array) -> Array:
        return jnp.sqrt(exponential_level(side, 2 * drop))
