"""Laws made of gamma draws: beta, Dirichlet, Student's t, F, inverse gamma, chi-squared."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import POSITIVE, REAL, Distribution, align
from mcgrad.distributions.gamma import ExpGamma, Gamma
from mcgrad.distributions.optimal_transport import transport_beta, transport_dirichlet


@dataclasses.dataclass(frozen=True)
class InverseGamma(Distribution):
    """The law of `1 / y` for a gamma draw `y`: `p(x) = rate^a x^(-a - 1) exp(-rate / x) / Gamma(a)` for `x > 0`.

    Draws are differentiable in both parameters, to every order, as those of `Gamma`. **A draw that overflows is the
    largest number**, with derivative zero.

    Args:
        concentration: any shape; positive.
        rate: any shape that broadcasts with `concentration`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    concentration: Float[ArrayLike, "*batch"]
    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration": POSITIVE, "rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        return bounded_exp(-ExpGamma(self.concentration, self.rate).sample(key))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` at zero and below."""
        x, a, rate = align(x, self.concentration, self.rate)
        inside = jnp.where(x > 0, x, 1.0)
        log_prob = a * jnp.log(rate) - (a + 1) * jnp.log(inside) - rate / inside - special.gammaln(a)
        return jnp.where(x > 0, log_prob, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Chi2(Distribution):
    """Chi-squared law: that of a sum of `df` squared standard normal draws, `Gamma(df / 2, 1 / 2)`.

    Draws are differentiable in `df`, to every order, as those of `Gamma`.

    Args:
        df: degrees of freedom, need not be whole; any shape; positive.

    Raises:
        ValueError: if a concrete `df` is not positive.
    """

    df: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        return self._gamma().sample(key)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero."""
        return self._gamma().log_prob(x)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function."""
        return self._gamma().cdf(x)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """One minus the distribution function."""
        return self._gamma().survival(x)

    def _gamma(self) -> Gamma:
        return Gamma(jnp.asarray(self.df) / 2, jnp.asarray(0.5, self.dtype))


@dataclasses.dataclass(frozen=True)
class Dirichlet(Distribution):
    """Dirichlet law on probability vectors: `p(x)` proportional to `prod_i x_i^(a_i - 1)`.

    A draw is the softmax of log-gamma draws, so its derivative in the concentrations is exact, to every order, and
    entries near zero keep their digits; that of `mcgrad.Pathwise(path="optimal_transport")` has less variance. **An entry that
    underflows is the smallest positive number**, with derivative zero: for small concentrations that biases costs in the
    logarithm of such an entry.

    Args:
        concentration: `[*batch, n]`; positive.

    Raises:
        ValueError: if a concrete `concentration` is not positive, or has no axis.
    """

    concentration: Float[ArrayLike, "*batch n"]

    domains: ClassVar = {"concentration": dataclasses.replace(POSITIVE, event_ndim=1)}
    event_ndim: ClassVar[int] = 1
    reparameterized: ClassVar[bool] = True

    @property
    def event_shape(self) -> Shape:
        """Shape of one entry: `[n]`."""
        return jnp.shape(self.concentration)[-1:]

    def sample(self, key: PRNGKey) -> Float[Array, "*batch n"]:
        """One draw."""
        logits = ExpGamma(self.concentration, jnp.ones((), self.dtype)).sample(key)
        # an entry that underflows has no log density
        return jnp.maximum(jax.nn.softmax(logits, -1), jnp.finfo(self.dtype).tiny)

    def optimal_transport(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The draw `x`, with the derivative that keeps the quantile of an entry and the proportions of the others."""
        return transport_dirichlet(x, jnp.broadcast_to(self.concentration, x.shape))

    def log_prob(self, x: Float[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        """Log density in the first `n - 1` entries; `x` must add up to one."""
        x, a = align(x, self.concentration)
        normalizer = jnp.sum(special.gammaln(a), -1) - special.gammaln(jnp.sum(a, -1))
        return jnp.sum(special.xlogy(a - 1, x), -1) - normalizer


@dataclasses.dataclass(frozen=True)
class Beta(Distribution):
    """Beta law on the unit interval: `p(x)` proportional to `x^(concentration1 - 1) (1 - x)^(concentration0 - 1)`.

    A draw is `sigmoid(y1 - y0)` for two log-gamma draws: unbiased, and right to every order. The derivative that keeps
    the quantile of `x`, that of `mcgrad.Pathwise(path="optimal_transport")`, has somewhat less variance. **Draws that round to
    0 or 1 are the numbers next to these**, with derivative zero.

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
        """One draw."""
        one = jnp.ones((), self.dtype)
        shape = self.batch_shape
        keys = jax.random.split(key)
        y1, y0 = (
            ExpGamma(jnp.broadcast_to(a, shape), one).sample(key)
            for a, key in zip((self.concentration1, self.concentration0), keys, strict=True)
        )
        info = jnp.finfo(self.dtype)
        return jnp.clip(jax.nn.sigmoid(y1 - y0), info.tiny, 1 - info.epsneg)

    def optimal_transport(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The draw `x`, with the derivative that keeps its quantile."""
        return transport_beta(x, *(jnp.broadcast_to(a, x.shape) for a in (self.concentration1, self.concentration0)))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` outside the unit interval."""
        x, a, b = align(x, self.concentration1, self.concentration0)
        inside = jnp.where((x >= 0) & (x <= 1), x, 0.5)
        normalizer = special.gammaln(a) + special.gammaln(b) - special.gammaln(a + b)
        log_prob = special.xlogy(a - 1, inside) + special.xlog1py(b - 1, -inside) - normalizer
        return jnp.where((x >= 0) & (x <= 1), log_prob, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class StudentT(Distribution):
    """Student's t law: `loc + scale z / sqrt(y / df)` for a standard normal draw `z` and a chi-squared draw `y`.

    Draws are differentiable in all parameters, to every order, as those of `Gamma`. **The factor `1 / sqrt(y / df)` is at
    most the square root of the largest number**, and has derivative zero there: small `df` in float32 reach it.

    Args:
        df: degrees of freedom; any shape; positive.
        loc: any shape that broadcasts with `df`; finite.
        scale: any shape that broadcasts with both; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    df: Float[ArrayLike, "*batch"]
    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df": POSITIVE, "loc": REAL, "scale": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        key_normal, key_gamma = jax.random.split(key)
        z = jax.random.normal(key_normal, self.batch_shape, self.dtype)
        half = jnp.broadcast_to(self.df, self.batch_shape) / 2
        log_ratio = ExpGamma(half, half).sample(key_gamma)
        # room for the factors z and scale below the largest number
        limit = jnp.asarray(jnp.log(jnp.finfo(self.dtype).max) / 2, self.dtype)
        z, loc, scale = align(z * jnp.exp(jnp.minimum(-log_ratio / 2, limit)), self.loc, self.scale)
        return loc + scale * z

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density."""
        x, df, loc, scale = align(x, self.df, self.loc, self.scale)
        z = (x - loc) / scale
        normalizer = special.gammaln(df / 2) - special.gammaln((df + 1) / 2) + jnp.log(np.pi * df) / 2 + jnp.log(scale)
        return -(df + 1) / 2 * jnp.log1p(z / df * z) - normalizer


@dataclasses.dataclass(frozen=True)
class F(Distribution):
    """Fisher's F law: that of `(y1 / df1) / (y2 / df2)` for chi-squared draws `y1` and `y2` of `df1` and `df2` degrees of freedom.

    Draws are differentiable in both parameters, to every order, as those of `Gamma`. **A draw that overflows or underflows is
    close to the largest or smallest number**, with derivative zero: degrees of freedom below 0.2 in float32 reach it.

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
        """One draw."""
        halves = (jnp.broadcast_to(df, self.batch_shape) / 2 for df in (self.df1, self.df2))
        y1, y2 = (ExpGamma(half, half).sample(key) for half, key in zip(halves, jax.random.split(key), strict=True))
        return bounded_exp(y1 - y2)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` at zero and below."""
        x, df1, df2 = align(x, self.df1, self.df2)
        a, b = df1 / 2, df2 / 2
        inside = jnp.where(x > 0, x, 1.0)
        normalizer = special.gammaln(a) + special.gammaln(b) - special.gammaln(a + b)
        log_ratio = jnp.log(df1) - jnp.log(df2) + jnp.log(inside)
        log_prob = a * log_ratio - jnp.log(inside) - (a + b) * jnp.logaddexp(log_ratio, 0.0) - normalizer
        return jnp.where(x > 0, log_prob, -jnp.inf)


def bounded_exp(y: Array) -> Array:
    """`exp(y)` held between the smallest and the largest positive number, with derivative zero there."""
    info = jnp.finfo(y.dtype)
    low, high = jnp.log(info.tiny) + 1, jnp.log(info.max) - 1
    return jnp.exp(jnp.clip(y, low.astype(y.dtype), high.astype(y.dtype)))
