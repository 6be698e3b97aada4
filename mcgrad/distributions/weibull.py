"""The Weibull distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.exponential import exponential_parts, stop
from mcgrad.distributions.numerics.arithmetic import align, log_quotient, open_uniform, room_for_factor, with_ends
from mcgrad.distributions.numerics.exponential import (
    log_exponential_density,
    log_exponential_outward,
)


@dataclasses.dataclass(frozen=True)
class Weibull(Distribution):
    """Weibull distribution: `F(x) = 1 - exp(-(x / scale)^concentration)` for `x >= 0`.

    **A draw that overflows or underflows is close to the largest or smallest number**, with derivative zero in the
    concentration: small concentrations reach it, below 0.2 in float32. **The derivative of the log density in the scale is
    infinite where `concentration / scale` overflows.**

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
        # never 0, where the log density and the derivative in the concentration are infinite
        return self._quantile(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        tiny = jnp.finfo(self.dtype).tiny  # below it numbers may compare as positive and have the logarithm of zero
        possible = (x >= tiny) & (x < jnp.inf)
        inside = jnp.where(possible, x, scale)
        some = jnp.log(k) - jnp.log(inside) + log_exponential_density(k * log_quotient(inside, scale))
        none = special.xlogy(k - 1, jnp.where(jnp.abs(x) < tiny, 0.0, 1.0)) + jnp.log(k) - jnp.log(scale)
        return jnp.where(possible, some, jnp.where(jnp.abs(x) < tiny, none, -jnp.inf))

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        return jnp.where(x > 0, -jnp.expm1(-_exponential_draw(x, scale, k)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        return jnp.where(x > 0, jnp.exp(-_exponential_draw(x, scale, k)), 1.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return with_ends(self._quantile, u, 0.0, jnp.inf)

    def _quantile(self, u: ArrayLike) -> Array:
        u, scale, k = align(u, self.scale, self.concentration)
        least, most = room_for_factor(scale)
        log_e = jnp.log(-jnp.log1p(-u))
        held = (log_e < k * least) | (log_e > k * most)
        return scale * jnp.exp(jnp.clip(log_e / jnp.where(held, 1, k), least, most))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `scale` and `concentration`, with the draw itself as one part; in `scale` also Hahn-Jordan.

        `e = (x / scale)^k` is a standard exponential draw. Its distribution's derivative in a scale of its own is that of
        `Exponential`; the concentration is an inverse scale of `log e`, whose density is unimodal (see `LocationScale`).
        """
        key_scale, key_concentration = jax.random.split(key)
        shape = self.batch_shape
        scale, k = (jnp.broadcast_to(parameter, shape) for parameter in (self.scale, self.concentration))
        another, drop = (-jnp.log(open_uniform(key, shape, self.dtype)) for key in (key_scale, key_concentration))
        if how.hahn_jordan:
            inner, outer = exponential_parts(another, how)
            weight, parts = stop(k) * jnp.log(scale) / math.e, [scale * jnp.power(e, 1 / k) for e in (outer, inner)]
            in_scale = WeakDerivative.single("scale", weight, *parts)
        else:
            longer = scale * jnp.power(jnp.power(x / scale, k) + another, 1 / k)
            in_scale = WeakDerivative.single("scale", stop(k) * jnp.log(scale), longer, x, False)
        log_e = k * jnp.log(jnp.maximum(x, jnp.finfo(self.dtype).tiny) / scale)
        further = log_exponential_outward(log_e, jnp.where(log_e < 0, -1, 1), drop)
        return in_scale, WeakDerivative.single("concentration", jnp.log(k), x, scale * jnp.exp(further / k), True)


_HIGHEST = 7.0
"""The logarithm of an exponential draw beyond which there is nothing: `exp(-exp(7))` is zero in every precision."""


def _exponential_draw(x: Array, scale: Array, k: Array) -> Array:
    """`(x / scale)^k`, at most `exp(7)`; 1 where `x` is not positive."""
    inside = jnp.where(x > 0, jnp.minimum(x, jnp.finfo(scale.dtype).max), scale)
    return jnp.exp(jnp.minimum(k * log_quotient(inside, scale), _HIGHEST))
