"""The normal distribution, and those of the size and of the exponential of its draws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, quotient
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

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.normal(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        # not `jax.scipy.stats.norm.logpdf`: it squares the scale, which underflows in float32 below 1e-19
        return _minus_half_square(z) - _LOG_SQRT_2PI

    def _standard_cdf(self, z: Array) -> Array:
        return special.ndtr(z)

    def _standard_icdf(self, u: Array) -> Array:
        return special.ndtri(u)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return side * jnp.sqrt(z * z + 2 * drop)

    _scale_weight: ClassVar[float | None] = 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)

    def _standard_level(self, side: Array, drop: Array) -> Array:
        return jnp.sqrt(exponential_level(side, 2 * drop))


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
        z = quotient(x, scale)
        return jnp.where(x >= 0, -0.5 * z * z - jnp.log(scale) + math.log(2) - _LOG_SQRT_2PI, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale = align(x, self.scale)
        return jnp.where(x >= 0, special.erf(quotient(x, scale) / math.sqrt(2)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale = align(x, self.scale)
        return jnp.where(x >= 0, special.erfc(quotient(x, scale) / math.sqrt(2)), 1.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, scale = align(u, self.scale)
        return scale * math.sqrt(2) * special.erfinv(u)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in `scale`: a chi draw of three degrees of freedom against the draw itself; or Hahn-Jordan."""
        normal = Normal(jnp.zeros_like(x), jnp.broadcast_to(self.scale, self.batch_shape))
        return mapped(normal.weak_derivative(key, x, how), jnp.abs, x, scale="scale")


@dataclasses.dataclass(frozen=True)
class LogNormal(Distribution):
    """Distribution of `exp(y)` with `y` from `Normal(loc, scale)`.

    **A draw that overflows or underflows is close to the largest or smallest number**, with derivative zero.

    Args:
        loc: mean of the logarithm; any shape; finite.
        scale: standard deviation of the logarithm; any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = LocationScale.domains
    reparameterized: ClassVar[bool] = True

    @property
    def _logarithm(self) -> Normal:
        return jax.tree.unflatten(jax.tree.structure(Normal(0.0, 1.0)), (self.loc, self.scale))  # no second check

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return bounded_exp(self._logarithm.sample(key))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        positive = jnp.asarray(x) > 0
        y = jnp.log(jnp.where(positive, x, 1.0))
        (log_prob, y, positive) = align(self._logarithm.log_prob(y), y, positive)
        return jnp.where(positive, log_prob - y, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._at_logarithm(self._logarithm.cdf, x, 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._at_logarithm(self._logarithm.survival, x, 1.0)

    def _at_logarithm(self, function: Callable[[Array], Array], x: ArrayLike, below: float) -> Array:
        positive = jnp.asarray(x) > 0
        value, positive = align(function(jnp.log(jnp.where(positive, x, 1.0))), positive)
        return jnp.where(positive, value, below)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return bounded_exp(self._logarithm.icdf(u))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in both parameters: those of the logarithm, mapped."""
        logarithm = jnp.log(jnp.maximum(x, jnp.finfo(self.dtype).tiny))
        return mapped(self._logarithm.weak_derivative(key, logarithm, how), jnp.exp, x)
