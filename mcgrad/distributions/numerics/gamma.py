"""The gamma distribution: densities, probabilities, and how quantiles move with the concentration."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array

from mcgrad._compat import custom_jvp
from mcgrad.distributions.numerics.arithmetic import expm1_minus_linear, log_ratio_to, polynomial
from mcgrad.distributions.numerics.gamma_function import LARGE, digamma_remainder, digamma_series, log_peak
from mcgrad.distributions.numerics.quadrature import negligible_drop, per_node, unit_rule


def log_density_of_log(x: Array, log_x: Array, a: Array) -> Array:
    """Log density `a log(x) - x - log Gamma(a)` of the logarithm of a draw `x` for rate one; elementwise, of arrays of one shape.

    Nothing cancels: neither in what it is at the mode, nor in what is lost from there.
    """
    return log_peak(a) - drop_from_mean(x, log_x, a)


@custom_jvp
def drop_from_mean(x: Array, log_x: Array, a: Array) -> Array:
    """`x - a - a log(x / a)`. Of `log_x`, of which `x` is a function, its derivative is `x - a`, and of `a` it is `-log(x / a)`."""
    near, log_ratio = jnp.abs(x - a) < 0.5 * a, log_ratio_to(x, log_x, a)
    far = (
        x - a - a * jnp.minimum(log_ratio, 1e4)
    )  # of an infinite draw infinite; no log ratio of finite numbers is above 1e4
    return jnp.where(near, a * expm1_minus_linear(jnp.where(near, log_ratio, 0.0), a.dtype), far)


@drop_from_mean.defjvp
def _drop_from_mean_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, log_x, a), (_, log_x_dot, a_dot) = primals, tangents
    x = jnp.minimum(x, jnp.finfo(x.dtype).max)  # no infinite derivative, for a weight of zero may multiply it
    return drop_from_mean(*primals), (x - a) * log_x_dot - log_ratio_to(x, log_x, a) * a_dot


def log_density(x: Array, a: Array) -> Array:
    """Log density at `x > 0` for rate one."""
    log_x = jnp.log(x)
    return log_density_of_log(x, log_x, a) - log_x


def log_poisson(k: Array, rate: Array, log_rate: Array | None = None) -> Array:
    """Log probability `k log(rate) - rate - log(k!)` of a Poisson distribution; elementwise. Nothing cancels.

    With the logarithm of a rate that underflows; a count of zero meets none.
    """
    # not `jax.scipy.stats.poisson.logpmf`: its derivative at rate 0 is NaN
    some = k > 0
    one, x = jnp.where(some, k, 1.0), jnp.where(some, rate, 1.0)
    log_x = jnp.log(x) if log_rate is None else jnp.where(some, log_rate, 0.0)
    return jnp.where(some, log_density_of_log(x, log_x, one) - jnp.log(one), -rate)


def probabilities(x: Array, a: Array) -> tuple[Array, Array]:
    """The probabilities below and above `x`, for rate one; for large `a` with the integrals of `log_gamma_velocity`.

    With the density `p` of `log x` that is `p (1 + x J0) / a` below, and `p K0` above. (JAX's `gammainc` is off by a tenth at
    concentrations of 1e5 in float32, by more at larger ones, and takes long.)
    """
    large = a > LARGE
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


def log_gamma_velocity(x: Array, log_x: Array, a: Array) -> Array:
    """`d log(x) / da` at a fixed quantile of the gamma distribution of concentration `a`; elementwise, branch-free.

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
    """The parts of the formulas of `log_gamma_velocity`: `L`, whether it is positive, nodes, and weights times integrands."""
    surplus = _log_mean(x, log_x, a)
    lower = surplus >= 0
    slope = jnp.where(lower, (a - x) + 1, x - a)  # a + 1 would lose the one in float32
    return surplus, lower, *_quadrature(x, slope, jnp.where(lower, a + 1, a), lower)


def log_ratio_velocity(log_ratio: Array, a: Array) -> Array:
    """`d log(x / a) / da` at a fixed quantile of the gamma distribution of concentration `a`; elementwise, branch-free.

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
    s, integrand = _quadrature(x, jnp.where(more, slope + 1, slope), jnp.where(more, a + 1, a), lower)

    first, second = jnp.sum(integrand, -1), jnp.sum(s * integrand, -1)
    below = excess + x * (first * (1 + excess) + second)
    above = first * (1 - a * (1 + excess)) + a * second - 1

    t = jnp.where(per_node(large), per_node(log_ratio) + per_node(sign) * s, 0.0)
    near = jnp.abs(t) < 1
    inside, beyond = jnp.where(near, t, 0.0), jnp.where(near, 1.0, t)
    # the first term that is left out, 2e-19 or 9e-10 at t = 1, is a rounding error of the leading 1 / 12
    series = polynomial(
        inside, [(1 - k / 2) / math.factorial(k) for k in range(3, 21 if t.dtype == jnp.float64 else 13)]
    )
    c = jnp.where(near, inside**3 * series, jnp.exp(beyond) * (1 - beyond / 2) - (1 + beyond / 2))
    e = digamma_remainder(jnp.maximum(a, 1))
    rest = jnp.sum((c - per_node(e)) * integrand, -1)
    velocity = jnp.where(large, -log_ratio / 2 - sign * a * rest, jnp.where(lower, below, above)) / a
    return jnp.minimum(velocity, jnp.finfo(a.dtype).max)


def _quadrature(x: Array, slope: Array, b: Array, lower: Array) -> tuple[Array, Array]:
    """Nodes `s`, and weights times `exp(-slope s - x phi(s))` or, below, `exp(-slope s - x phi(-s))`; `[..., node]`.

    The slope is `x - b`, below `b - x`. The numbers of nodes are enough for `tests/test_gamma.py`, at all concentrations.
    """
    dtype = jnp.result_type(x, b)
    fall = negligible_drop(dtype)
    # phi(-s) >= s^2 / (s + 2) and phi(s) >= s^2 / 2 bound where the exponent has fallen so far: roots of quadratics.
    twice = fall - 2 * slope
    root = jnp.hypot(twice, math.sqrt(8 * fall) * jnp.sqrt(b))
    # two forms of one root of b s^2 - twice s - 2 fall, each without cancellation on its side
    end_lower = jnp.where(twice > 0, (twice + root) / (2 * b), 4 * fall / jnp.where(twice > 0, 1.0, root - twice))
    end_upper = 2 * fall / (jnp.abs(slope) + jnp.hypot(slope, math.sqrt(2 * fall) * jnp.sqrt(x)))
    end_upper = jnp.minimum(end_upper, jnp.log1p((fall + b * end_upper) / jnp.maximum(x, 0.25)))
    end = jax.lax.stop_gradient(jnp.where(lower, end_lower, end_upper))

    nodes, weights = unit_rule(end, 40, 18)
    s = per_node(end) * nodes
    sign = per_node(jnp.where(lower, -1.0, 1.0).astype(dtype))
    integrand = weights * jnp.exp(-per_node(slope) * s - per_node(x) * expm1_minus_linear(sign * s, dtype))
    return s, per_node(end) * integrand


def _log_mean(x: Array, log_x: Array, a: Array) -> Array:
    """`psi(a + 1) - log x`, also where the two nearly agree."""
    large = a > LARGE
    inverse = 1 / jnp.where(large, a, LARGE)
    series = inverse / 2 - digamma_series(1 / inverse)
    small = special.digamma(jnp.where(large, 1.0, a) + 1) - log_x
    return jnp.where(large, series - log_ratio_to(x, log_x, a), small)
