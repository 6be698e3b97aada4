"""The beta distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.beta import beta_parts, log_odds_cdf
from mcgrad.distributions.derivatives.optimal_transport import transport_beta
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.beta import log_odds_log_prob


@dataclasses.dataclass(frozen=True)
class Beta(Distribution):
    """Beta distribution on the unit interval: `p(x)` proportional to `x^(concentration1 - 1) (1 - x)^(concentration0 - 1)`.

    A draw is `sigmoid(y1 - y0)` for two log-gamma draws: unbiased, and right to every order. The derivative that keeps
    the quantile of `x`, that of `mcgrad.Pathwise(path="optimal_transport")`, has somewhat less variance. **Draws that round to
    0 or 1 are the numbers next to these**, with derivative zero. **In float32 the distribution function loses digits for
    concentrations below 1e-30 or above 1e36.**

    Args:
        concentration1: any shape; positive.
        concentration0: any shape that broadcasts with `concentration1`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    concentration1: Float[ArrayLike, "*batch"]
    concentration0: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration1": POSITIVE, "concentration0": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        one = jnp.ones((), self.dtype)
        shape = self.batch_shape
        keys = jax.random.split(key)
        y1, y0 = (
            ExpGamma(jnp.broadcast_to(a, shape), one).sample(key)
            for a, key in zip((self.concentration1, self.concentration0), keys, strict=True)
        )
        info = jnp.finfo(self.dtype)
        # the derivative of `sigmoid` is x (1 - x), without the digits of 1 - x near one; that of `log_sigmoid` has them
        return jnp.clip(jnp.exp(jax.nn.log_sigmoid(y1 - y0)), info.tiny, 1 - info.epsneg)

    def moments(self) -> tuple[Array, Array]:
        a, b = (
            jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.concentration1, self.concentration0)
        )
        mean = a / (a + b)
        return mean, jnp.sqrt(mean * (b / (a + b)) / (a + b + 1))[None]

    def optimal_transport(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The draw `x`, with the derivative that keeps its quantile."""
        return transport_beta(x, *(jnp.broadcast_to(a, x.shape) for a in (self.concentration1, self.concentration0)))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, inside, log_odds, a, b = self._odds(x)
        within = jnp.where(inside, x, 0.5)
        some = log_odds_log_prob(log_odds, a, b) - jnp.log(within) - jnp.log1p(-within)
        at_zero, at_one = (jnp.where(x == end, 0.0, 1.0) for end in (0, 1))
        none = special.xlogy(a - 1, at_zero) + special.xlogy(b - 1, at_one) + jnp.log(jnp.where(x == 0, b, a))
        return jnp.where(inside, some, jnp.where((x == 0) | (x == 1), none, -jnp.inf))

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, with exact derivatives in both concentrations."""
        x, inside, log_odds, a, b = self._odds(x)
        below = log_odds_cdf(log_odds, a, b)
        return jnp.where(inside, below, jnp.where(x <= 0, 0.0, jnp.where(x >= 1, 1.0, jnp.nan)))

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, inside, log_odds, a, b = self._odds(x)
        above = log_odds_cdf(-log_odds, b, a)
        return jnp.where(inside, above, jnp.where(x <= 0, 1.0, jnp.where(x >= 1, 0.0, jnp.nan)))

    def _odds(self, x: ArrayLike) -> tuple[Array, ...]:
        """`x`, whether it is in the open unit interval, its log odds there, and the concentrations."""
        x, a, b = jnp.broadcast_arrays(*align(x, self.concentration1, self.concentration0))
        inside = (x > 0) & (x < 1)
        within = jnp.where(inside, x, 0.5)
        return x, inside, jnp.log(within) - jnp.log1p(-within), a, b

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in each concentration: Hahn-Jordan, or the draw itself against the draw times a factor.

        (For `concentration0` the factor multiplies `1 - x`.)
        `d log p / d concentration1 = log(x) + psi(a + b) - psi(a)`, so the parts are on the two sides of the point where this is
        zero. Or the negative part has the density `-log(x) p(x)`, up to its constant, which is that of the product of a draw
        with an independent factor: see `beta_factor`.
        """
        a, b = (jnp.broadcast_to(value, self.batch_shape) for value in (self.concentration1, self.concentration0))
        own, info = jnp.stack([a, b]), jnp.finfo(self.dtype)
        fixed = jax.lax.stop_gradient((own, own[::-1]))
        sign = jnp.asarray([1, -1], self.dtype).reshape(2, *[1] * x.ndim)
        log_odds = sign * (jnp.log(x) - jnp.log1p(-x))[None]
        mass, *parts = beta_parts(key, log_odds, *fixed, how)
        positive, negative = (
            jnp.broadcast_to(x[None], own.shape)
            if part is None
            else jnp.clip(jax.nn.sigmoid(sign * part), info.tiny, 1 - info.epsneg)
            for part in parts
        )
        terms = zip(self.domains, mass * own, positive, negative, strict=True)
        return tuple(WeakDerivative.single(*term, None if how.hahn_jordan else True) for term in terms)
