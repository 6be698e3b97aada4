"""The log odds of a beta draw: their density, and how they move with the concentrations at a fixed quantile."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mcgrad._compat import custom_jvp
from mcgrad.distributions.numerics.arithmetic import expm1_minus_linear, log1p_minus_cubic
from mcgrad.distributions.numerics.gamma_function import DIGAMMA, LARGE, log_peak
from mcgrad.distributions.numerics.quadrature import negligible_drop, per_node, unit_rule


@jax.jit
def log_odds_velocity(
    y: Float[Array, "*batch"], a: Float[Array, "*batch"], b: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """`dy/da` at a fixed quantile of the log odds `y = log(x / (1 - x))` of a beta draw `x`; elementwise, branch-free.

    `a` is the concentration at one, `b` that at zero; `dy/db` is minus this of `(-y, b, a)`.

    It is `-F_a / p`, with `F_a = E[log t - m; t < x]` and `m = psi(a) - psi(a + b)`, the mean of `log t`.

    With the logistic function `s`, `x = s(y)` and `h(z) = a log s(z) + b log s(-z)`, the log density of `z` but for a constant,

        dy/da = int_-inf^y (m - log s(z)) exp(h(z) - h(y)) dz = int_y^inf (log s(z) - m) exp(h(z) - h(y)) dz.

    Integrations by parts that take out a factor `s(z)` or `s(-z)` leave sums of positive terms only: where
    `L = psi(a + 1) - psi(a + b + 1) - log x >= 0`, from the first integral with `z = y - r`, and `n = a + b`,

        a dy/da = L + 1 / n + n x int_0^inf (L + log x - log s(z)) exp(-g(r)) dr,

    and otherwise, from the second one with `z = y + r`,

        b dy/da = -L + b / (a n) + n (1 - x) int_0^inf (-L + 1 / a - log x + log s(z)) exp(-g(r)) dr.

    With `w = x` in the first and `w = 1 - x` in the second case, `g(r) = slope r + (n + 1) (log(1 + w (exp(-r) - 1)) + w r)`
    increases from zero on, and is convex: nothing cancels, and Gauss-Legendre nodes up to where `exp(-g)` is below the
    rounding error give all digits. For large concentrations `L` and the slope are taken from the distance of `y` to the
    mode `log(a / b)`, since both are small there.
    """
    lower, surplus, log_ratio, integrand, w, divisor = _quadrature(y, a, b)
    n = a + b
    surplus = jnp.abs(surplus)
    total = jnp.sum((jnp.expand_dims(surplus + jnp.where(lower, 0.0, 1 / a), -1) + log_ratio) * integrand, -1)
    # at most the largest number, and no product of a zero with what has overflowed
    velocity = (surplus + n * jnp.where(w == 0, 0.0, w * total)) / divisor + 1 / n / a
    return jnp.minimum(velocity, jnp.finfo(y.dtype).max)


def log_odds_probability(y: Array, a: Array, b: Array) -> Array:
    """The probability below `y`: with the integrals of `log_odds_velocity`, where `p` is the density at `y`,

    `p / a (1 + n x int_0^inf exp(-g(r)) dr)`, or, above the mean, one minus `p / b (1 + n (1 - x) int_0^inf exp(-g(r)) dr)`.
    """
    lower, _, _, integrand, w, divisor = _quadrature(y, a, b)
    mass = jnp.exp(log_odds_log_prob(y, a, b)) / divisor * (1 + (a + b) * w * jnp.sum(integrand, -1))
    return jnp.where(lower, mass, 1 - mass)


@custom_jvp
def log_odds_log_prob(y: Array, a: Array, b: Array) -> Array:
    """Log density `a log(x) + b log(1 - x) - log B(a, b)` of the log odds `y`; elementwise, of arrays of one shape.

    With `phi(t) = exp(t) - 1 - t` and `n = a + b`, what is lost from the mode `log(a / b)` is
    `a phi(log(n x / a)) + b phi(log(n (1 - x) / b))`: nothing cancels, neither in that nor in what the density is there. Its
    derivatives are `a - n x` in `y`, and `log(x) + psi(n) - psi(a)` in `a`.
    """
    t = y - _log_ratio_of(a, b)
    lost1, lost0 = expm1_minus_linear(_log_share(t, a, b), y.dtype), expm1_minus_linear(_log_share(-t, b, a), y.dtype)
    return log_peak(a) + log_peak(b) - log_peak(a + b) - (a * lost1 + b * lost0)


@log_odds_log_prob.defjvp
def _log_odds_log_prob_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (y, a, b), (y_dot, a_dot, b_dot) = primals, tangents
    t, n = y - _log_ratio_of(a, b), a + b
    near = jnp.abs(t) < 1
    rise = jnp.expm1(jnp.where(near, t, 0.0))
    fall = jnp.where(near, a * (b / n) * rise / (1 + a / n * rise), b * jax.nn.sigmoid(y) - a * jax.nn.sigmoid(-y))
    in_a, in_b = b / n / a - _surplus(y, t, a, b), a / n / b - _surplus(-y, -t, b, a)
    return log_odds_log_prob(y, a, b), in_a * a_dot + in_b * b_dot - fall * y_dot


def _log_ratio_of(a: Array, b: Array) -> Array:
    """`log(a / b)`, the mode of the log odds."""
    return jnp.log(a) - jnp.log(b)


def _log_share(t: Array, a: Array, b: Array) -> Array:
    """`log(n x / a)` of the draw `x` whose log odds are `t` beyond the mode."""
    far = jnp.abs(t) > 20  # beyond, exponentials of it may overflow
    inside = jnp.where(far, 0.0, t)
    n = a + b
    change = b / n * jnp.expm1(-inside)
    small = change > -0.5
    inside = jnp.where(
        small,
        jnp.log1p(jnp.where(small, change, 0.0)),
        jnp.log(jnp.where(small, 1.0, a / n + b / n * jnp.exp(-inside))),
    )
    log_odds = _log_ratio_of(a, b)
    beyond = jnp.logaddexp(-jax.nn.softplus(-log_odds), -jax.nn.softplus(log_odds) - jnp.where(far, t, 0.0))
    return -jnp.where(far, beyond, inside)


_WIDTH = 3.0
"""Of the step of `sigmoid(z)^a`, the scale of the nodes around it; enough for `tests/test_beta_velocity.py`."""


def _quadrature(y: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """The parts of the integrals of `log_odds_velocity`: whether the first case holds; `L`; how far `log s(z)` is from `log x`,
    and weights times `exp(-g)`, `[..., node]`; `w`, and its concentration.
    """
    dtype = y.dtype
    fall = negligible_drop(dtype)
    n = a + b
    x, rest = jax.nn.sigmoid(y), jax.nn.sigmoid(-y)
    from_mode = y - _log_ratio_of(a, b)
    surplus = _surplus(y, from_mode, a, b)
    lower = jnp.where(surplus == 0, from_mode < 0, surplus > 0)
    pick = lambda one, two: jnp.where(lower, one, two)  # noqa: E731
    w, other, divisor = pick(x, rest), pick(rest, x), pick(a, b)
    log_x, log_rest = -jax.nn.softplus(-y), -jax.nn.softplus(y)
    logs = (pick(log_x, log_rest), pick(log_rest, log_x))  # also where one of the two underflows
    rise = jnp.expm1(jnp.minimum(pick(from_mode, -from_mode), 10.0))  # where it is larger the other case holds
    slope = other * (1 - divisor * rise)
    end = jax.lax.stop_gradient(_end(slope, w, other, logs, divisor, n, fall))

    # [..., node]
    at, (nodes, weights) = per_node, unit_rule(end, 48, 20)
    r, weight = at(end) * nodes, at(end) * weights
    # for small `b` the density is flat from `y` down to a step: nodes in the inverse hyperbolic sine of the distance to it
    step = jax.lax.stop_gradient(y - jnp.log1p(a))
    flat = lower & (step > 2 * _WIDTH)
    step = jnp.where(flat, step, 0.0)
    low, high = (jax.lax.stop_gradient(jnp.arcsinh(distance / _WIDTH)) for distance in (-step, end - step))
    v = at(low) + at(high - low) * nodes
    r = jnp.where(at(flat), at(step) + _WIDTH * jnp.sinh(v), r)
    weight = jnp.where(at(flat), _WIDTH * at(high - low) * weights * jnp.cosh(v), weight)
    beyond = log_mean_exp_remainder(r, at(w), at(other), (at(logs[0]), at(logs[1])))
    log_ratio = jnp.where(at(lower), at(other) * r + beyond, at(w) * r - beyond)
    integrand = weight * jnp.exp(-at(slope) * r - at(n + 1) * beyond)
    return lower, surplus, log_ratio, integrand, w, divisor


def _end(
    slope: Array, w: Array, other: Array, logs: tuple[Array, Array], divisor: Array, n: Array, fall: float
) -> Array:
    """The point where `g` has reached `fall`: by Newton's method for its logarithm as a function of that of `r`, from beyond."""
    # g >= (divisor + 1) r + (n + 1) log(1 - w), and g >= slope r + quadratic r^2 up to one
    log_w, log_other = logs
    beyond = fall / (divisor + 1) - (n + 1) / (divisor + 1) * log_other
    quadratic = (n + 1) * w * other / (2 * np.e)
    near = 2 * fall / (slope + jnp.hypot(slope, math.sqrt(4 * fall) * jnp.sqrt(quadratic)))
    end = jnp.where(near <= 1, jnp.minimum(near, beyond), beyond)
    tiny = jnp.finfo(w.dtype).tiny
    for _ in range(8):  # enough for `tests/test_beta_velocity.py`
        steepness = slope + (n + 1) * w * jax.nn.sigmoid(end + log_other - log_w) * -jnp.expm1(-end)
        value = jnp.maximum(slope * end + (n + 1) * log_mean_exp_remainder(end, w, other, logs), tiny)
        end = end * jnp.exp(-value / jnp.maximum(end * steepness, tiny) * jnp.log(value / fall))
    return end


def log_mean_exp_remainder(r: Array, w: Array, other: Array, logs: tuple[Array, Array] | None = None) -> Array:
    """`log(1 + w (exp(-r) - 1)) + w r` for `other = 1 - w`: the logarithm of a mean of two exponentials beyond linear.

    With the logarithms of both also where one of them underflows.
    """
    # the same function of r, w and of -r, 1 - w
    flip = w > other
    p, t = jnp.where(flip, other, w), jnp.where(flip, r, -r)
    z, linear = p * jnp.expm1(t), p * t
    remainder = p * expm1_minus_linear(t, r.dtype)
    if logs is not None:  # where `p` nearly underflows and the exponential overflows
        least = -700.0 if r.dtype == jnp.float64 else -80.0  # exponentials below nearly underflow
        log_p = jnp.where(flip, logs[1], logs[0])
        apart = (log_p < least) & (t > 1)
        z = jnp.where(apart, jnp.exp(jnp.where(apart, t + log_p, 0.0)) - p, z)
        remainder = jnp.where(apart, z - linear, remainder)
    near = jnp.abs(z) < 0.1  # as in `log1p_minus_cubic`
    inside = jnp.where(near, z, 0.0)
    by_parts = log1p_minus_cubic(inside) - inside * inside * (1 / 2 - inside / 3) + remainder
    return jnp.where(near, by_parts, jnp.log1p(jnp.where(near, 1.0, z)) - linear)


_SHIFT = 10
"""At `a + 11` the first term that is left out of the series, `B_16 / (16 a^16)`, is 1e-17."""


def _surplus(y: Array, from_mode: Array, a: Array, b: Array) -> Array:
    """`psi(a + 1) - psi(a + b + 1) - log x`, with all digits also for small `b`, and where it is small for large `a`.

    From Stirling's series at `a` or, for small `a`, at `a + 11`, in terms of `u^-p - (u + b)^-p`.
    """
    large = a > LARGE
    u = jnp.where(large, a, a + (1 + _SHIFT))
    log_ratio = jnp.log1p(b / u)
    drop = lambda p: -jnp.expm1(-p * log_ratio) * u**-p  # noqa: E731
    series = sum(c * drop(2 * k + 2) for k, c in enumerate(DIGAMMA))
    steps = sum(b / (a + k) / (a + k + b) for k in range(1, 1 + _SHIFT))
    by_steps = jax.nn.softplus(-y) - (steps + log_ratio + drop(1) / 2 + series)
    return jnp.where(large, drop(1) / 2 - series - _log_share(from_mode, a, b), by_steps)
