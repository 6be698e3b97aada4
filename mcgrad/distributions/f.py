"""Fisher's F distribution."""

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
from mcgrad.distributions.gamma import ExpGamma, sample_log_ratio
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, open_uniform
from mcgrad.distributions.numerics.beta import log_odds_log_prob


@dataclasses.dataclass(frozen=True)
class F(Distribution):
    """Fisher's F distribution, of `(y1 / df1) / (y2 / df2)` for chi-squared draws of `df1` and `df2` degrees of freedom.

    Draws are differentiable in both parameters, to every order, as those of `Gamma`. **A draw that overflows or underflows is
    close to the largest or smallest number**, with derivative zero: degrees of freedom below 0.2 in float32 reach it. **In
    float32 the distribution function loses digits for degrees of freedom below 1e-30 or above 1e36.**

    Args:
        df1: degrees of freedom above; any shape; positive.
        df2: degrees of freedom below; any shape that broadcasts with `df1`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    df1: Float[ArrayLike, "*batch"]
    df2: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df1": POSITIVE, "df2": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        halves = (jnp.broadcast_to(df, self.batch_shape) / 2 for df in (self.df1, self.df2))
        y1, y2 = (sample_log_ratio(key, half) for half, key in zip(halves, jax.random.split(key), strict=True))
        return bounded_exp(y1 - y2)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero; at zero finite for `df1 = 2`, infinite for less."""
        x, log_odds, a, b = self._odds(x)
        log_prob = log_odds_log_prob(log_odds, a, b) - jnp.log(jnp.where(x > 0, x, 1.0))
        at_zero = special.xlogy(a - 1, jnp.where(x == 0, 0.0, 1.0))
        return jnp.where(x > 0, log_prob, jnp.where(x == 0, at_zero, -jnp.inf))

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, with exact derivatives in both parameters."""
        x, log_odds, a, b = self._odds(x)
        return jnp.where(x > 0, log_odds_cdf(log_odds, a, b), jnp.where(x <= 0, 0.0, jnp.nan))

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, log_odds, a, b = self._odds(x)
        above = jnp.where(x == jnp.inf, 0.0, log_odds_cdf(-log_odds, b, a))
        return jnp.where(x > 0, above, jnp.where(x <= 0, 1.0, jnp.nan))

    def _odds(self, x: ArrayLike) -> tuple[Array, ...]:
        """`x`, the log odds of `df1 x / (df1 x + df2)`, a draw of `Beta(a, b)`, and `a` and `b`."""
        x, df1, df2 = jnp.broadcast_arrays(*align(x, self.df1, self.df2))
        inside = jnp.minimum(jnp.where(x > 0, x, 1.0), jnp.finfo(self.dtype).max)
        return x, jnp.log(inside) + jnp.log(df1) - jnp.log(df2), df1 / 2, df2 / 2

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in both parameters: two terms each with the draw itself, of a beta distribution and of a scale.

        `w = a x / (a x + b)`, for `a = df1 / 2` and `b = df2 / 2`, has the law `Beta(a, b)` of `y1 / (y1 + y2)` for gamma draws of
        these concentrations, and `y1 + y2` is independent of it: so `y2` is drawn, and the derivative in the logarithm of the
        scale is that of `y1`, to which an exponential draw is added.
        """
        key_sum, key_more, key_factors = jax.random.split(key, 3)
        df1, df2 = (jnp.broadcast_to(df, self.batch_shape) for df in (self.df1, self.df2))
        a, b = jax.lax.stop_gradient((df1 / 2, df2 / 2))
        log_odds = jnp.log(a) - jnp.log(b) + jnp.log(x)  # of w
        total = ExpGamma(a + b, jnp.ones_like(a)).sample(key_sum)
        log_y2 = total - jnp.logaddexp(log_odds, 0.0)
        more = jnp.log(-jnp.log(open_uniform(key_more, self.batch_shape, self.dtype)))
        larger = bounded_exp(jnp.logaddexp(jnp.log(x), jnp.log(b) - jnp.log(a) + more - log_y2))
        terms = []
        sides = (("df1", df1, a, b, 1), ("df2", df2, b, a, -1))
        for (name, df, own, other, sign), key in zip(sides, jax.random.split(key_factors), strict=True):
            mass, _, less = beta_parts(key, sign * log_odds, own, other, how._replace(hahn_jordan=False))
            other_x = bounded_exp(sign * less + jnp.log(b) - jnp.log(a))
            terms.append(WeakDerivative.single(name, mass * df / 2, x, other_x, True))
            terms.append(WeakDerivative.single(name, -sign * a * jnp.log(df), larger, x, False))
        return tuple(terms)
