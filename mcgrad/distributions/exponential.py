"""The exponential distribution, and those of powers and of exponentials of its draws."""

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
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.numerics.arithmetic import align, log_quotient, open_uniform, room_for_factor
from mcgrad.distributions.numerics.exponential import (
    exponential_level,
    log_exponential_density,
    log_exponential_outward,
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
        return jnp.where(x >= 0, jnp.log(rate) - rate * x, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, -jnp.expm1(-rate * jnp.where(x >= 0, x, 0.0)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, rate = align(x, self.rate)
        return jnp.where(x >= 0, jnp.exp(-rate * jnp.where(x >= 0, x, 0.0)), 1.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, rate = align(u, self.rate)
        return -jnp.log1p(-u) / rate

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
        return self.icdf(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        inside = jnp.where(x > 0, x, scale)
        some = jnp.log(k) - jnp.log(inside) + log_exponential_density(k * log_quotient(inside, scale))
        none = special.xlogy(k - 1, jnp.where(x == 0, 0.0, 1.0)) + jnp.log(k) - jnp.log(scale)
        return jnp.where(x > 0, some, jnp.where(x == 0, none, -jnp.inf))

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        return jnp.where(x > 0, -jnp.expm1(-_exponential_draw(x, scale, k)), 0.0)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, k = align(x, self.scale, self.concentration)
        return jnp.where(x > 0, jnp.exp(-_exponential_draw(x, scale, k)), 1.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
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
    return jnp.exp(jnp.minimum(k * log_quotient(jnp.where(x > 0, x, scale), scale), _HIGHEST))


@dataclasses.dataclass(frozen=True)
class Pareto(Distribution):
    """Pareto distribution: `F(x) = 1 - (scale / x)^concentration` for `x >= scale`. **Its mean is infinite up to concentration 1.**

    A draw is `scale exp(e / concentration)` for a standard exponential draw `e`, differentiable to every order. **A draw
    that overflows is close to the largest number**, with derivative zero in the concentration: small concentrations reach
    it, below 0.2 in float32.

    **Its support moves with `scale`**, so a score function would be biased for that; pathwise is right.

    Args:
        scale: the least value; any shape; positive.
        concentration: the exponent of the tail; any shape that broadcasts with `scale`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    scale: Float[ArrayLike, "*batch"]
    concentration: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"scale": POSITIVE, "concentration": POSITIVE}
    reparameterized: ClassVar[bool] = True
    support_parameters: ClassVar[tuple[str, ...]] = ("scale",)

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return self.icdf(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, a = align(x, self.scale, self.concentration)
        inside = jnp.where(x >= scale, x, scale)
        log_prob = jnp.log(a) - a * log_quotient(inside, scale) - jnp.log(inside)
        return jnp.where(x >= scale, log_prob, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, a = align(x, self.scale, self.concentration)
        log_ratio = log_quotient(jnp.where(x >= scale, x, scale), scale)
        return jnp.where(x >= scale, -jnp.expm1(-a * log_ratio), 0.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, scale, a = align(u, self.scale, self.concentration)
        _, most = room_for_factor(scale)
        e = -jnp.log1p(-u)
        return scale * jnp.exp(jnp.minimum(e / jnp.where(e > a * most, 1, a), most))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives: in `scale` the draw against the end that moves; in `concentration` that of the logarithm."""
        scale, a = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.scale, self.concentration))
        in_scale = WeakDerivative.single("scale", stop(a) * jnp.log(scale), x, scale, True)
        _, most = room_for_factor(scale)
        above = lambda e: scale * jnp.exp(jnp.minimum(e, most))  # noqa: E731
        terms = Exponential(a).weak_derivative(key, jnp.log(x / scale), how)
        return in_scale, *mapped(terms, above, x, rate="concentration")
