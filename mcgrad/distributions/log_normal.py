"""The log-normal distribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.location_scale import LocationScale
from mcgrad.distributions.normal import Normal
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, with_ends


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
        return with_ends(lambda u: bounded_exp(self._logarithm.icdf(u)), u, 0.0, jnp.inf)

    def moments(self) -> tuple[Array, Array]:
        loc, scale = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.loc, self.scale))
        mean = jnp.exp(loc + scale**2 / 2)
        return mean, (mean * jnp.sqrt(jnp.expm1(scale**2)))[None]

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in both parameters: those of the logarithm, mapped."""
        logarithm = jnp.log(jnp.maximum(x, jnp.finfo(self.dtype).tiny))
        return mapped(self._logarithm.weak_derivative(key, logarithm, how), jnp.exp, x)
