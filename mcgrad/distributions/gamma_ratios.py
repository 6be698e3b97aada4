"""Laws made of gamma draws: beta, Dirichlet, F, inverse gamma, chi-squared."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import (
    POSITIVE,
    Coupling,
    Distribution,
    WeakDerivative,
    align,
    log_ratio_to,
    mapped,
    open_uniform,
    quotient,
)
from mcgrad.distributions.beta_factor import beta_factor, beta_parts, mean_log_factor
from mcgrad.distributions.beta_velocity import log_odds_cdf, log_odds_log_prob
from mcgrad.distributions.gamma import (
    ExpGamma,
    Gamma,
    bounded_exp,
    exp_beyond_linear,
    log_density_of_log,
    log_peak,
    sample_log_ratio,
)
from mcgrad.distributions.optimal_transport import simplex_change, transport_beta, transport_dirichlet


@dataclasses.dataclass(frozen=True)
class InverseGamma(Distribution):
    """The law of `1 / y` for a gamma draw `y`: `p(x) = rate^a x^(-a - 1) exp(-rate / x) / Gamma(a)` for `x > 0`.

    Draws are differentiable in both parameters, to every order, as those of `Gamma`. **A draw that overflows is the
    largest number**, with derivative zero. **The derivative of the log density in `x` is infinite where
    `concentration / x` overflows.**

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
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        inside = jnp.where(x > 0, x, 1.0)
        log_x = jnp.log(inside)
        log_prob = log_density_of_log(quotient(rate, inside), jnp.log(rate) - log_x, a) - log_x
        return jnp.where(x > 0, log_prob, -jnp.inf)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Those of minus the logarithm, mapped."""
        logarithm = ExpGamma(self.concentration, self.rate)
        return mapped(logarithm.weak_derivative(key, -jnp.log(x), how), lambda y: bounded_exp(-y), x)


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

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """That of the gamma law in its concentration, Hahn-Jordan."""
        return mapped(self._gamma().weak_derivative(key, x, how), lambda y: y, x, concentration="df")

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
        return jnp.maximum(_softmax(logits), jnp.finfo(self.dtype).tiny)

    def optimal_transport(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The draw `x`, with the derivative that keeps the quantile of an entry and the proportions of the others."""
        return transport_dirichlet(x, jnp.broadcast_to(self.concentration, x.shape))

    def log_prob(self, x: Float[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        """Log density in the first `n - 1` entries; `x` must add up to one."""
        x, a = jnp.broadcast_arrays(*align(x, self.concentration))
        log_x = jnp.log(jnp.where(x > 0, x, 1.0))
        at_zero = special.xlogy(a - 1, jnp.where(x > 0, 1.0, x))
        n = jnp.sum(a, -1)
        return jnp.sum(log_peak(a) + at_zero - log_x, -1) - log_peak(n) - _lost(x, log_x, a)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """In each entry: one part where it is large and one where it is small, or the draw itself and one in which that entry is
        multiplied by a factor (see `Beta`). The others are scaled: the entry has a beta law, of which they are independent in
        relation to each other.
        """
        a = self.concentration
        rest = jnp.sum(a, -1, keepdims=True) - a
        a, rest = (jnp.moveaxis(jnp.broadcast_to(array, x.shape), -1, 0) for array in (a, rest))  # [n, *batch]
        fixed = jax.lax.stop_gradient((a, rest))
        entry = jnp.eye(x.shape[-1], dtype=bool)
        entry = jnp.moveaxis(entry.reshape(*entry.shape, *[1] * (x.ndim - 1)), 1, -1)  # [n, *1, n]
        others = jnp.maximum(jnp.sum(jnp.where(entry, 0, x[None]), -1, keepdims=True), jnp.finfo(x.dtype).tiny)
        own = jnp.moveaxis(x, -1, 0)

        def moved(entries: Array, left: Array) -> Array:
            scaled = x[None] * (left[..., None] / others)
            return jnp.maximum(jnp.where(entry, entries[..., None], scaled), jnp.finfo(x.dtype).tiny)

        if how.hahn_jordan:
            weight, *parts = beta_parts(key, jnp.log(own) - jnp.log(others[..., 0]), *fixed, how)
            positive, negative = (moved(jax.nn.sigmoid(y), jax.nn.sigmoid(-y)) for y in parts)
            return (WeakDerivative(("concentration",), weight * a, positive, negative),)
        less = own * beta_factor(key, *fixed)
        drawn = jnp.broadcast_to(x[None], (len(own), *x.shape))
        weight = mean_log_factor(*fixed) * a
        return (WeakDerivative(("concentration",), weight, drawn, moved(less, 1 - less), jnp.ones(weight.shape, bool)),)


@dataclasses.dataclass(frozen=True)
class Beta(Distribution):
    """Beta law on the unit interval: `p(x)` proportional to `x^(concentration1 - 1) (1 - x)^(concentration0 - 1)`.

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
        """One draw."""
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

    def optimal_transport(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The draw `x`, with the derivative that keeps its quantile."""
        return transport_beta(x, *(jnp.broadcast_to(a, x.shape) for a in (self.concentration1, self.concentration0)))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` outside the unit interval."""
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
        """One minus the distribution function."""
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
        """In each concentration the Hahn-Jordan parts, or the draw itself and one multiplied by a factor (`1 - x` for
        `concentration0`).

        `d log p / d concentration1 = log(x) + psi(a + b) - psi(a)`, so the parts are on the two sides of the point where this is
        zero. Or the negative part has the density `-log(x) p(x)`, up to its constant, which is that of the product of a draw
        with an independent factor: see `beta_factor`.
        """
        a, b = (jnp.broadcast_to(value, self.batch_shape) for value in (self.concentration1, self.concentration0))
        own, info = jnp.stack([a, b]), jnp.finfo(self.dtype)
        fixed = jax.lax.stop_gradient((own, own[::-1]))
        sign = jnp.asarray([1, -1], self.dtype).reshape(2, *[1] * x.ndim)
        log_odds = sign * (jnp.log(x) - jnp.log1p(-x))[None]
        if how.hahn_jordan:
            weight, *parts = beta_parts(key, log_odds, *fixed, how)
            positive, negative = (jax.nn.sigmoid(sign * part) for part in parts)
        else:
            factor = beta_factor(key, *fixed)
            weight, positive = mean_log_factor(*fixed), jnp.broadcast_to(x[None], own.shape)
            negative = jnp.stack([x * factor[0], 1 - (1 - x) * factor[1]])
        positive, negative = (jnp.clip(part, info.tiny, 1 - info.epsneg) for part in (positive, negative))
        weight, is_draw = weight * own, None if how.hahn_jordan else jnp.ones((1, *x.shape), bool)
        return tuple(
            WeakDerivative((name,), weight[i : i + 1], positive[i : i + 1], negative[i : i + 1], is_draw)
            for i, name in enumerate(self.domains)
        )


@dataclasses.dataclass(frozen=True)
class F(Distribution):
    """Fisher's F law: that of `(y1 / df1) / (y2 / df2)` for chi-squared draws `y1` and `y2` of `df1` and `df2` degrees of freedom.

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
        """One draw."""
        halves = (jnp.broadcast_to(df, self.batch_shape) / 2 for df in (self.df1, self.df2))
        y1, y2 = (sample_log_ratio(key, half) for half, key in zip(halves, jax.random.split(key), strict=True))
        return bounded_exp(y1 - y2)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` at zero and below."""
        x, log_odds, a, b = self._odds(x)
        log_prob = log_odds_log_prob(log_odds, a, b) - jnp.log(jnp.where(x > 0, x, 1.0))
        return jnp.where(x > 0, log_prob, -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, with exact derivatives in both parameters."""
        x, log_odds, a, b = self._odds(x)
        return jnp.where(x > 0, log_odds_cdf(log_odds, a, b), jnp.where(x <= 0, 0.0, jnp.nan))

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """One minus the distribution function."""
        x, log_odds, a, b = self._odds(x)
        return jnp.where(x > 0, log_odds_cdf(-log_odds, b, a), jnp.where(x <= 0, 1.0, jnp.nan))

    def _odds(self, x: ArrayLike) -> tuple[Array, ...]:
        """`x`, the log odds of `df1 x / (df1 x + df2)`, a draw of `Beta(a, b)`, and `a` and `b`."""
        x, df1, df2 = jnp.broadcast_arrays(*align(x, self.df1, self.df2))
        inside = jnp.minimum(jnp.where(x > 0, x, 1.0), jnp.finfo(self.dtype).max)
        return x, jnp.log(inside) + jnp.log(df1) - jnp.log(df2), df1 / 2, df2 / 2

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """In each parameter two terms with the draw itself, one of the beta law and one of the scale `df2 / df1`.

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
        is_draw = jnp.ones((1, *self.batch_shape), bool)
        terms = []
        sides = (("df1", df1, a, b, 1), ("df2", df2, b, a, -1))
        for (name, df, own, other, sign), key in zip(sides, jax.random.split(key_factors), strict=True):
            log_factor = jnp.log(beta_factor(key, own, other))
            # w or 1 - w is multiplied by the factor
            log_part = log_factor - jnp.logaddexp(-sign * log_odds, 0.0)
            moved = sign * (log_part - jnp.log(-jnp.expm1(log_part)))
            other_x = bounded_exp(moved + jnp.log(b) - jnp.log(a))
            weight = mean_log_factor(own, other) * df / 2
            terms.append(WeakDerivative((name,), weight[None], x[None], other_x[None], is_draw))
            terms.append(WeakDerivative((name,), (-sign * a * jnp.log(df))[None], larger[None], x[None], ~is_draw))
        return tuple(terms)


@custom_jvp
def _lost(x: Array, log_x: Array, a: Array) -> Array:
    """By how much the Dirichlet density of the logarithms is lower than at its mode: `sum_i a_i phi(log(n x_i / a_i))`.

    With `phi(t) = exp(t) - 1 - t` and `n = sum a`. Zeros are left out. `log_x` is a function of `x`, which adds up to one.
    """
    n = jnp.sum(a, -1, keepdims=True)
    some = exp_beyond_linear(log_ratio_to(n * x, jnp.log(n) + log_x, a), a.dtype)
    none = jnp.log(a) - jnp.log(n) - 1  # without the logarithm of zero
    return jnp.sum(a * jnp.where(x > 0, some, none), -1)


@_lost.defjvp
def _lost_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, log_x, a), (_, log_x_dot, a_dot) = primals, tangents
    n = jnp.sum(a, -1, keepdims=True)
    in_a = -log_ratio_to(n * x, jnp.log(n) + log_x, a)
    return _lost(x, log_x, a), jnp.sum((n * x - a) * log_x_dot + in_a * a_dot, -1)


@custom_jvp
def _softmax(y: Array) -> Array:
    """Softmax over the last axis whose derivative `x_i (1 - x_i)` keeps its digits where `x_i` is nearly one."""
    return jax.nn.softmax(y, -1)


@_softmax.defjvp
def _softmax_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (y,), (y_dot,) = primals, tangents
    x = _softmax(y)
    return x, simplex_change(x, y_dot)
