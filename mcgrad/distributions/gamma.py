"""Gamma laws, with exact pathwise derivatives in the concentration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey
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
from mcgrad.distributions.gamma_rejection import log_ratio_to_mean, standard_gamma
from mcgrad.distributions.levels import derivative_by_levels
from mcgrad.distributions.location_scale import log_exponential_outward
from mcgrad.distributions.velocity import distribution_function, moving_draw


@dataclasses.dataclass(frozen=True)
class Gamma(Distribution):
    """Gamma law: `p(x) = rate^a x^(a - 1) exp(-rate x) / Gamma(a)` for `x > 0`, with `a = concentration`.

    Draws are differentiable in both parameters, to every order, in forward and reverse mode; in the concentration the
    derivative is the implicit one, `-(dF/da) / p`, by quadrature to the precision of the dtype. **A draw that underflows or
    overflows is the smallest or largest positive number**, with derivative zero: for concentrations below 0.1 in float32, or
    0.01 in float64, take `ExpGamma`, the law of `log x`.

    Args:
        concentration: any shape; positive.
        rate: any shape that broadcasts with `concentration`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(concentration, key):
        ...     return mcgrad.sample(key, mcgrad.Gamma(concentration, 2.0))
        >>> keys = jax.random.split(jax.random.key(0), 4000)
        >>> gradients = jax.vmap(mcgrad.pathwise_grad(cost), (None, 0))(3.0, keys)
        >>> bool(abs(gradients.mean() - 1 / 2.0) < 0.02)  # the mean is concentration / rate
        True

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6.
    """

    concentration: Float[ArrayLike, "*batch"]
    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration": POSITIVE, "rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        concentration = jnp.broadcast_to(self.concentration, self.batch_shape)
        frozen = jax.lax.stop_gradient(concentration)
        x = jnp.maximum(standard_gamma(key, frozen)[0], jnp.finfo(self.dtype).tiny)
        x, rate = align(_gamma_draw(x, concentration), self.rate)
        info = jnp.finfo(self.dtype)
        overflows = jnp.minimum(rate, 1) * info.max <= x  # and not where one of them is NaN
        scaled = quotient(x, jnp.where(overflows, 1, rate))
        return jnp.where(overflows, info.max, jnp.maximum(scaled, info.tiny))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero."""
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        inside = jnp.where(x > 0, x, 1.0)
        log_x = jnp.log(inside)
        some = log_density_of_log(rate * inside, jnp.log(rate) + log_x, a) - log_x
        none = special.xlogy(a - 1, jnp.where(x == 0, 0.0, 1.0)) + jnp.log(rate)
        return jnp.where(x > 0, some, jnp.where(x == 0, none, -jnp.inf))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Those of the logarithm, mapped."""
        logarithm = ExpGamma(self.concentration, self.rate)
        return mapped(logarithm.weak_derivative(key, jnp.log(x), how), bounded_exp, x)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, with exact derivatives in the concentration too."""
        return self._mass(_below, 0.0, x)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """One minus the distribution function."""
        return -self._mass(_minus_above, -1.0, x)

    def _mass(self, function: Callable[..., Array], before: float, x: ArrayLike) -> Array:
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        info = jnp.finfo(self.dtype)
        reduced = jnp.clip(jnp.where(x > 0, x, 1.0) * rate, info.tiny, info.max)
        return jnp.where(x > 0, function(reduced, a), before)


@dataclasses.dataclass(frozen=True)
class ExpGamma(Distribution):
    """The law of `y = log x` for a gamma draw `x`: `p(y) = rate^a exp(a y - rate exp(y)) / Gamma(a)`.

    For small concentrations, where `x` itself underflows. Draws are differentiable as those of `Gamma`.

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
        concentration = jnp.broadcast_to(self.concentration, self.batch_shape)
        frozen = jax.lax.stop_gradient(concentration)
        _, y = standard_gamma(key, frozen)
        y, rate = align(_log_gamma_draw(y, concentration), self.rate)
        return y - jnp.log(rate)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density."""
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        shifted = x + jnp.log(rate)
        return log_density_of_log(jnp.exp(shifted), shifted, a)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """In `concentration`, Hahn-Jordan; in `rate`, Hahn-Jordan, or the draw itself against one of a concentration more by one.

        The density grows with the concentration beyond the mean `psi(a)` of the logarithm, and shrinks before it. The
        derivative of the distribution function in `log(rate)` is the density `p` of the logarithm, with its maximum where
        `rate exp(x) = a`; `log p` is lower by `a (exp(t) - 1 - t)` at the distance `t`. And `a` times the difference of the laws
        of concentrations `a` and `a + 1` is the derivative in `log(rate)` too.
        """
        key_concentration, key_rate = jax.random.split(key)
        a, rate = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.concentration, self.rate))
        fixed, shift = map(jax.lax.stop_gradient, (a, jnp.log(rate)))

        def growth(y: Array) -> Array:
            return -log_gamma_velocity(jnp.exp(y + shift), y + shift, fixed) * jnp.exp(
                log_density_of_log(jnp.exp(y + shift), y + shift, fixed)
            )

        turn = (special.digamma(fixed) - shift)[None]
        in_concentration = derivative_by_levels("concentration", a, growth, turn, key_concentration, x, how)
        drop = -jnp.log(open_uniform(key_rate, self.batch_shape, self.dtype))
        if how.hahn_jordan:
            below = -jnp.log(-jnp.expm1(-drop)) if how.comonotone else drop
            zero, right, mode = jnp.zeros_like(drop), jnp.ones_like(drop), jnp.log(fixed) - shift
            in_rate = WeakDerivative(
                parameters=("rate",),
                weight=(jnp.exp(log_peak(fixed)) * jnp.log(rate))[None],
                positive=(mode + log_exponential_outward(zero, -right, below / fixed))[None],
                negative=(mode + log_exponential_outward(zero, right, drop / fixed))[None],
            )
        else:
            more = jnp.logaddexp(x, jnp.log(drop) - shift)
            is_draw = jnp.ones((1, *self.batch_shape), bool)
            in_rate = WeakDerivative(("rate",), (fixed * jnp.log(rate))[None], x[None], more[None], is_draw)
        return in_concentration, in_rate


def bounded_exp(y: Array) -> Array:
    """`exp(y)` held between the smallest and the largest positive number, with derivative zero there."""
    info = jnp.finfo(y.dtype)
    low, high = jnp.log(info.tiny) + 1, jnp.log(info.max) - 1
    return jnp.exp(jnp.clip(y, low.astype(y.dtype), high.astype(y.dtype)))


def log_density_of_log(x: Array, log_x: Array, a: Array) -> Array:
    """Log density `a log(x) - x - log Gamma(a)` of the logarithm of a draw `x` for rate one; elementwise, of arrays of one shape.

    Nothing cancels: neither in what it is at the mode, nor in what is lost from there.
    """
    return log_peak(a) - _lost(x, log_x, a)


@custom_jvp
def _lost(x: Array, log_x: Array, a: Array) -> Array:
    """`x - a - a log(x / a)`. Of `log_x`, of which `x` is a function, its derivative is `x - a`, and of `a` it is `-log(x / a)`."""
    near, log_ratio = jnp.abs(x - a) < 0.5 * a, log_ratio_to(x, log_x, a)
    far = x - a - a * jnp.minimum(log_ratio, 1e4)  # of an infinite draw infinite
    return jnp.where(near, a * exp_beyond_linear(jnp.where(near, log_ratio, 0.0), a.dtype), far)


@_lost.defjvp
def _lost_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, log_x, a), (_, log_x_dot, a_dot) = primals, tangents
    x = jnp.minimum(x, jnp.finfo(x.dtype).max)  # no infinite derivative, for a weight of zero may multiply it
    return _lost(*primals), (x - a) * log_x_dot - log_ratio_to(x, log_x, a) * a_dot


def log_peak(a: Array) -> Array:
    """`a log(a) - a - log Gamma(a)`, by Stirling's series where that is short."""
    large = a > 16
    safe = jnp.where(large, a, 16.0)
    inverse = 1 / safe
    square = inverse**2
    rest = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
    small = jnp.where(large, 1.0, a)
    series = 0.5 * jnp.log(safe / (2 * np.pi)) - rest
    # the logarithm of Gamma(a) = Gamma(a + 1) / a, which loses digits itself for small concentrations
    return jnp.where(large, series, (small + 1) * jnp.log(small) - small - special.gammaln(small + 1))


def log_density(x: Array, a: Array) -> Array:
    """Log density at `x > 0` for rate one."""
    log_x = jnp.log(x)
    return log_density_of_log(x, log_x, a) - log_x


def probabilities(x: Array, a: Array) -> tuple[Array, Array]:
    """What is below `x` and what is above, for rate one; for large `a` with the integrals of `log_gamma_velocity`.

    With the density `p` of `log x` that is `p (1 + x J0) / a` below, and `p K0` above. (JAX's `gammainc` is off by a tenth at
    concentrations of 1e5 in float32, by more at larger ones, and takes long.)
    """
    large = a > 16
    log_x = jnp.log(x)
    _, lower, _, integrand = _integrals(x, log_x, a)
    total = jnp.sum(integrand, -1)
    part = jnp.exp(log_density_of_log(x, log_x, a)) * jnp.where(lower, (1 + x * total) / a, total)
    part = jnp.minimum(part, 1)
    small, x = jnp.where(large, 1.0, a), jnp.where(large, 1.0, x)
    return (
        jnp.where(large, jnp.where(lower, part, 1 - part), special.gammainc(small, x)),
        jnp.where(large, jnp.where(lower, 1 - part, part), special.gammaincc(small, x)),
    )


def _velocity(x: Array, a: Array) -> tuple[Array]:
    return (x * log_gamma_velocity(x, jnp.log(x), a),)


@custom_jvp
def probability_above(x: Array, a: Array) -> Array:
    """What is above `x` for rate one, as a function of `x`; `a` is a constant."""
    return probabilities(x, a)[1]


@probability_above.defjvp
def _probability_above_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, a), (x_dot, _) = primals, tangents
    return probability_above(x, a), -jnp.exp(log_density(x, a)) * x_dot


_below = distribution_function(lambda x, a: probabilities(x, a)[0], log_density, _velocity)
_minus_above = distribution_function(lambda x, a: -probabilities(x, a)[1], log_density, _velocity)


# The rules are in terms of the draw that moves, not of the constant that it was made of, so that the derivative of a
# derivative is total, through the draw too.
@custom_jvp
def _gamma_draw(x: Array, a: Array) -> Array:
    return x


@_gamma_draw.defjvp
def _gamma_draw_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, a), (_, a_dot) = primals, tangents
    x = _gamma_draw(x, a)
    return x, x * log_gamma_velocity(x, jnp.log(x), a) * a_dot


@custom_jvp
def _log_gamma_draw(y: Array, a: Array) -> Array:
    return y


@_log_gamma_draw.defjvp
def _log_gamma_draw_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (y, a), (_, a_dot) = primals, tangents
    y = _log_gamma_draw(y, a)
    return y, log_gamma_velocity(jnp.exp(y), y, a) * a_dot


def sample_log_ratio(key: PRNGKey, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A differentiable draw of `log(x / a)` for the gamma law of concentration `a` and rate one."""
    return _log_ratio_draw(log_ratio_to_mean(key, jax.lax.stop_gradient(a)), a)


def log_gamma_velocity(x: Array, log_x: Array, a: Array) -> Array:
    """`d log(x) / da` at a fixed quantile of the gamma law of concentration `a` and rate one; elementwise, branch-free.

    It is `-F_a / (x p)`, and with `F_a = E[log t - psi(a); t < x]` and `t = x exp(-s)`

        v = int_0^inf exp(-a s + x (1 - exp(-s))) (psi(a) - log x + s) ds.

    Two integrations by parts, with `L = psi(a + 1) - log x`, leave for `L >= 0` a sum of positive terms only:

        a v = (1 + x J0) L + x J1,   Ji = int_0^inf s^i exp(-(a + 1 - x) s - x phi(-s)) ds,   phi(t) = exp(t) - 1 - t.

    For `L < 0` the upper tail, `t = x exp(s)` and `F_a = -E[log t - psi(a); t > x]`, does the same:

        a v = (1 - a L) K0 + a K1,   Ki = int_0^inf s^i exp(-(x - a) s - x phi(s)) ds.

    So nothing cancels. The integrands are entire functions that fall from one on, and Gauss-Legendre nodes up to where
    they are below the rounding error give all digits.
    """
    surplus, lower, s, integrand = _integrals(x, log_x, a)
    first, second = jnp.sum(integrand, -1), jnp.sum(s * integrand, -1)
    below = (1 + x * first) * surplus + x * second
    above = (1 - a * surplus) * first + a * second
    # for concentrations below 1e-19 in float32 infinite, which would give NaN where a draw is held at an end
    return jnp.minimum(jnp.where(lower, below, above) / a, jnp.finfo(a.dtype).max)


def _integrals(x: Array, log_x: Array, a: Array) -> tuple[Array, Array, Array, Array]:
    """For the formulas of `log_gamma_velocity`: `L`, whether it is positive, nodes, and weights times integrands."""
    surplus = _log_mean(x, log_x, a)
    lower = surplus >= 0
    slope = jnp.where(lower, (a - x) + 1, x - a)  # a + 1 would lose the one in float32
    return surplus, lower, *_tail(x, slope, jnp.where(lower, a + 1, a), lower)


def log_ratio_velocity(log_ratio: Array, a: Array) -> Array:
    """`d log(x / a) / da` at a fixed quantile of the gamma law of concentration `a` and rate one; elementwise, branch-free.

    That is `log_gamma_velocity - 1 / a`, whose terms nearly agree for large `a`. The log density of `r = log(x / a)` has the
    derivative `d - phi(r)` in `a`, with `phi(t) = exp(t) - 1 - t` and `d = log a - psi(a)`; one integration by parts leaves,
    with the density `p` of `r`,

        -r / (2 a) + int_-inf^r (c(t) - e) p(t) dt / p(r),   c(t) = phi(t) - t (exp(t) - 1) / 2,   e = d - 1 / (2 a),

    and minus the integral over the upper tail does as well: `c` and `e` are of third and fourth order in `1 / sqrt(a)`. For
    `a < 1` it is the other formula less one.
    """
    large = a >= 1
    x = a * jnp.exp(log_ratio)
    excess = special.digamma(jnp.where(large, 1.0, a) + 1) - jnp.log(jnp.where(large, 1.0, a)) - 1 - log_ratio  # L - 1
    lower = jnp.where(large, log_ratio < 0, excess >= -1)
    sign = jnp.where(lower, -1, 1).astype(log_ratio.dtype)
    slope = sign * a * jnp.expm1(log_ratio)
    more = lower & ~large
    s, integrand = _tail(x, jnp.where(more, slope + 1, slope), jnp.where(more, a + 1, a), lower)

    first, second = jnp.sum(integrand, -1), jnp.sum(s * integrand, -1)
    below = excess + x * (first * (1 + excess) + second)
    above = first * (1 - a * (1 + excess)) + a * second - 1

    t = jnp.where(jnp.expand_dims(large, -1), jnp.expand_dims(log_ratio, -1) + jnp.expand_dims(sign, -1) * s, 0.0)
    near = jnp.abs(t) < 1
    inside, beyond = jnp.where(near, t, 0.0), jnp.where(near, 1.0, t)
    series = jnp.zeros_like(inside)
    for k in range(20 if t.dtype == jnp.float64 else 12, 2, -1):
        series = (1 - k / 2) / math.factorial(k) + inside * series
    c = jnp.where(near, inside**3 * series, jnp.exp(beyond) * (1 - beyond / 2) - (1 + beyond / 2))
    e = beyond_half(jnp.maximum(a, 1))
    rest = jnp.sum((c - jnp.expand_dims(e, -1)) * integrand, -1)
    velocity = jnp.where(large, -log_ratio / 2 - sign * a * rest, jnp.where(lower, below, above)) / a
    return jnp.minimum(velocity, jnp.finfo(a.dtype).max)


_log_ratio_draw = moving_draw(lambda log_ratio, a: (log_ratio_velocity(log_ratio, a),))


def _tail(x: Array, slope: Array, b: Array, lower: Array) -> tuple[Array, Array]:
    """Nodes `s`, and weights times `exp(-slope s - x phi(s))` or, below, `exp(-slope s - x phi(-s))`; `[..., node]`.

    The slope is `x - b`, below `b - x`.
    """
    dtype = jnp.result_type(x, b)
    double = dtype == jnp.float64
    nodes, weights = np.polynomial.legendre.leggauss(40 if double else 18)
    fall = 42.0 if double else 19.0  # minus the logarithm of the integrand at the last node
    # phi(-s) >= s^2 / (s + 2) and phi(s) >= s^2 / 2 bound where the exponent has fallen so far: roots of quadratics.
    twice = fall - 2 * slope
    root = jnp.hypot(twice, math.sqrt(8 * fall) * jnp.sqrt(b))
    # two forms of one root of b s^2 - twice s - 2 fall, each without cancellation on its side
    end_lower = jnp.where(twice > 0, (twice + root) / (2 * b), 4 * fall / jnp.where(twice > 0, 1.0, root - twice))
    end_upper = 2 * fall / (jnp.abs(slope) + jnp.hypot(slope, math.sqrt(2 * fall) * jnp.sqrt(x)))
    end_upper = jnp.minimum(end_upper, jnp.log1p((fall + b * end_upper) / jnp.maximum(x, 0.25)))
    end = jax.lax.stop_gradient(jnp.where(lower, end_lower, end_upper))

    at = lambda array: jnp.expand_dims(array, -1)  # noqa: E731
    along = lambda row: jnp.asarray(row, dtype).reshape((1,) * end.ndim + (-1,))  # noqa: E731
    s = at(end) * along((1 + nodes) / 2)
    sign = at(jnp.where(lower, -1.0, 1.0).astype(dtype))
    integrand = along(weights / 2) * jnp.exp(-at(slope) * s - at(x) * exp_beyond_linear(sign * s, dtype))
    return s, at(end) * integrand


def _log_mean(x: Array, log_x: Array, a: Array) -> Array:
    """`psi(a + 1) - log x`, also where the two nearly agree."""
    large = a > 16
    inverse = 1 / jnp.where(large, a, 16.0)
    series = inverse / 2 - _digamma_series(1 / inverse)
    small = special.digamma(jnp.where(large, 1.0, a) + 1) - log_x
    return jnp.where(large, series - log_ratio_to(x, log_x, a), small)


def beyond_half(a: Array) -> Array:
    """`log a - 1 / (2 a) - psi(a)` for `a >= 1`, by its series at `a + n` and the differences of neighbors where `a` is small.

    With `u = 1 / (2 a + 1)`, that of `a` and `a + 1` is `2 (u / (1 - u^2) - atanh(u))`, a sum of positive terms.
    """
    double = a.dtype == jnp.float64
    few = 8 if double else 3
    small = jnp.minimum(a, few)
    steps = jnp.zeros_like(a)
    for n in range(few - 1):
        u = 1 / (2 * (small + n) + 1)
        square, total = u * u, jnp.zeros_like(a)
        for k in range(17 if double else 8, 0, -1):
            total = square * (4 * k / (2 * k + 1) + total)
        steps = steps + u * total
    shift = jnp.where(a < few, few - 1, 0)
    return _digamma_series(a + shift) + jnp.where(a < few, steps, 0)


def _digamma_series(a: Array) -> Array:
    """`log a - 1 / (2 a) - psi(a) = sum_k B_2k / (2 k a^2k)`, for large `a`."""
    inverse = 1 / a
    square = inverse**2
    series = 1 / 240 - square * (1 / 132 - square * (691 / 32760 - square / 12))
    return square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * series)))


def exp_beyond_linear(t: Array, dtype: Any) -> Array:
    """`exp(t) - 1 - t`, by its series where that is shorter than the cancellation."""
    near = jnp.abs(t) < 0.5
    inside = jnp.where(near, t, 0.0)
    series = jnp.ones_like(inside)
    for k in range(14 if dtype == jnp.float64 else 8, 2, -1):
        series = 1 + inside / k * series
    return jnp.where(near, inside**2 / 2 * series, jnp.expm1(t) - t)
