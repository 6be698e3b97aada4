"""The log odds of a beta draw: their distribution function, and how they move with the concentrations at a fixed quantile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mcgrad.distributions.gamma import exp_beyond_linear, log_peak
from mcgrad.distributions.gamma_rejection import log_beyond_cubic
from mcgrad.distributions.velocity import distribution_function, moving_draw


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
    lower, surplus, log_ratio, integrand, w, divisor = _tail(y, a, b)
    n = a + b
    pick = lambda one, two: jnp.where(lower, one, two)  # noqa: E731
    surplus = jnp.abs(surplus)
    total = jnp.sum((jnp.expand_dims(surplus + pick(0.0, 1 / a), -1) + log_ratio) * integrand, -1)
    return (surplus + pick(1 / n, b / a / n) + n * w * total) / divisor


move_log_odds = moving_draw(lambda y, a, b: (jnp.zeros_like(y), -log_odds_velocity(-y, b, a)))
"""The log odds of a beta draw as a function of them and of both concentrations, of which the first is a constant."""


def _probability(y: Array, a: Array, b: Array) -> Array:
    """The probability below `y`: with the integrals of `log_odds_velocity`, where `p` is the density at `y`,

    `p / a (1 + n x int_0^inf exp(-g(r)) dr)`, or, above the mean, one minus `p / b (1 + n (1 - x) int_0^inf exp(-g(r)) dr)`.
    """
    lower, _, _, integrand, w, divisor = _tail(y, a, b)
    mass = jnp.exp(log_odds_log_prob(y, a, b)) / divisor * (1 + (a + b) * w * jnp.sum(integrand, -1))
    return jnp.where(lower, mass, 1 - mass)


def log_odds_log_prob(y: Array, a: Array, b: Array) -> Array:
    """Of the log odds: at the mode, where terms of the size of the concentrations have canceled, less what is lost from there."""
    n = a + b
    t = y - (jnp.log(a) - jnp.log(b))
    w, other = a / n, b / n
    far = jnp.abs(t) > 20  # beyond, exponentials of it may overflow
    w_far, other_far = jnp.where(t < 0, w, other), jnp.where(t < 0, other, w)
    distance = jnp.where(far, jnp.abs(t), 20.0)
    small = w_far < 0.5
    mean = jnp.log(other_far + jnp.where(small, 0.5, w_far) * jnp.exp(-distance))
    mean = jnp.where(small, jnp.log1p(jnp.where(small, w_far, 0.0) * jnp.expm1(-distance)), mean)
    lost = mean + w_far * distance
    lost = jnp.where(far, lost, bend(jnp.where(far, 0.0, -t), w, other))
    return log_peak(a) + log_peak(b) - log_peak(n) - n * lost


def _velocities(y: Array, a: Array, b: Array) -> tuple[Array, Array]:
    return log_odds_velocity(y, a, b), -log_odds_velocity(-y, b, a)


log_odds_cdf = distribution_function(_probability, log_odds_log_prob, _velocities)
"""The distribution function of the log odds, of them and both concentrations; of minus them, and the concentrations exchanged, what
is above, with all its digits. Elementwise, arguments of one shape; differentiable in all, to every order."""


def _tail(y: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """For the integrals of `log_odds_velocity`: whether the first case holds; `L`; how far `log s(z)` is from `log x`,
    and weights times `exp(-g)`, `[..., node]`; `w`, and its concentration.
    """
    dtype = y.dtype
    double = dtype == jnp.float64
    nodes, weights = np.polynomial.legendre.leggauss(48 if double else 20)
    fall = 42.0 if double else 19.0  # minus the logarithm of the integrand at the last node
    n = a + b
    x, rest = jax.nn.sigmoid(y), jax.nn.sigmoid(-y)
    from_mode = y - (jnp.log(a) - jnp.log(b))
    surplus = _surplus(y, from_mode, a, b)
    lower = surplus >= 0
    pick = lambda one, two: jnp.where(lower, one, two)  # noqa: E731
    w, other, divisor = pick(x, rest), pick(rest, x), pick(a, b)
    rise = jnp.expm1(jnp.minimum(pick(from_mode, -from_mode), 10.0))  # where it is larger the other case holds
    slope = other * (1 - divisor * rise)
    end = jax.lax.stop_gradient(_end(slope, w, other, divisor, n, fall))

    # [..., node]
    at = lambda array: jnp.expand_dims(array, -1)  # noqa: E731
    along = lambda row: jnp.asarray(row, dtype).reshape((1,) * end.ndim + (-1,))  # noqa: E731
    r = at(end) * along((1 + nodes) / 2)
    beyond = bend(r, at(w), at(other))
    log_ratio = jnp.where(at(lower), at(other) * r + beyond, at(w) * r - beyond)
    integrand = at(end) * along(weights / 2) * jnp.exp(-at(slope) * r - at(n + 1) * beyond)
    return lower, surplus, log_ratio, integrand, w, divisor


def _end(slope: Array, w: Array, other: Array, divisor: Array, n: Array, fall: float) -> Array:
    """Where `g` has reached `fall`: by Newton's method for its logarithm as a function of that of `r`, from beyond."""
    # g >= (divisor + 1) r + (n + 1) log(1 - w), and g >= slope r + quadratic r^2 up to one
    beyond = (fall - (n + 1) * jnp.log(jnp.maximum(other, jnp.finfo(w.dtype).tiny))) / (divisor + 1)
    quadratic = (n + 1) * w * other / (2 * np.e)
    near = 2 * fall / (slope + jnp.sqrt(slope * slope + 4 * quadratic * fall))
    end = jnp.where(near <= 1, jnp.minimum(near, beyond), beyond)
    for _ in range(8):
        left = w * jnp.exp(-end)
        steepness = slope + (n + 1) * w * other * -jnp.expm1(-end) / (other + left)
        value = slope * end + (n + 1) * bend(end, w, other)
        end = end * jnp.exp(-value / (end * steepness) * jnp.log(value / fall))
    return end


def bend(r: Array, w: Array, other: Array) -> Array:
    """`log(1 + w (exp(-r) - 1)) + w r` for `other = 1 - w`: the logarithm of a mean of two exponentials beyond linear."""
    # the same function of r, w and of -r, 1 - w
    flip = w > other
    p, t = jnp.where(flip, other, w), jnp.where(flip, r, -r)
    z = p * jnp.expm1(t)
    near = jnp.abs(z) < 0.1
    inside = jnp.where(near, z, 0.0)
    by_parts = log_beyond_cubic(inside) - inside * inside * (1 / 2 - inside / 3) + p * exp_beyond_linear(t, r.dtype)
    return jnp.where(near, by_parts, jnp.log1p(jnp.where(near, 1.0, z)) - p * t)


_SHIFT = 10
_STIRLING = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)


def _surplus(y: Array, from_mode: Array, a: Array, b: Array) -> Array:
    """`psi(a + 1) - psi(a + b + 1) - log x`, with all digits also for small `b`, and where it is small for large `a`.

    From Stirling's series at `a` or, for small `a`, at `a + 11`, in terms of `u^-p - (u + b)^-p`.
    """
    large = a > 16
    u = jnp.where(large, a, a + (1 + _SHIFT))
    growth = jnp.log1p(b / u)
    drop = lambda p: -jnp.expm1(-p * growth) * u**-p  # noqa: E731
    series = sum(c * drop(2 * k + 2) for k, c in enumerate(_STIRLING))
    steps = sum(b / (a + k) / (a + k + b) for k in range(1, 1 + _SHIFT))
    by_steps = jax.nn.softplus(-y) - (steps + growth + drop(1) / 2 + series)
    share = b / (a + b)
    far = from_mode < -80  # where exp(-from_mode) overflows in float32
    apart = jnp.where(far, jnp.log(share) - from_mode, jnp.log1p(share * jnp.expm1(-jnp.where(far, 0.0, from_mode))))
    return jnp.where(large, drop(1) / 2 - series + apart, by_steps)
