"""The Pareto distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.exponential import Exponential, stop
from mcgrad.distributions.numerics.arithmetic import align, log_quotient, open_uniform, room_for_factor, with_ends


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
        return self._quantile(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, a = align(x, self.scale, self.concentration)
        inside = jnp.where(x >= scale, x, scale)
        log_prob = jnp.log(a) - a * log_quotient(inside, scale) - jnp.log(inside)
        return jnp.where(x >= scale, log_prob, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, scale, a = align(x, self.scale, self.concentration)
        log_ratio = log_quotient(jnp.where(x >= scale, jnp.minimum(x, jnp.finfo(self.dtype).max), scale), scale)
        return jnp.where(x >= scale, -jnp.expm1(-a * log_ratio), 0.0)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return with_ends(self._quantile, u, self.scale, jnp.inf)

    def _quantile(self, u: ArrayLike) -> Array:
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
