"""The gamma function, its logarithmic derivative, and their differences, without cancellation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, Float

from mcgrad._compat import custom_jvp
from mcgrad.distributions.numerics.arithmetic import log1p_over, log1p_remainder, polynomial

DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
"""`B_2k / (2 k)`, with the Bernoulli numbers `B_2k`: the asymptotic series of `log a - 1 / (2 a) - psi(a)` in `1 / a^2`."""


LARGE = 16.0
"""From here on series in `DIGAMMA` are used: the first term that is left out is 1e-16 of the leading one."""


def log_peak(a: Array) -> Array:
    """`a log(a) - a - log Gamma(a)`, by Stirling's series where that is short."""
    large = a > LARGE
    safe = jnp.where(large, a, LARGE)
    small = jnp.where(large, 1.0, a)
    series = 0.5 * jnp.log(safe / (2 * np.pi)) - stirling_remainder(safe)
    # the logarithm of Gamma(a) = Gamma(a + 1) / a, which loses digits itself for small concentrations
    return jnp.where(large, series, (small + 1) * jnp.log(small) - small - special.gammaln(small + 1))


def digamma_remainder(a: Array) -> Array:
    """`log a - 1 / (2 a) - psi(a)` for `a >= 1`, by its series at `a + n` and the differences of neighbors where `a` is small.

    With `u = 1 / (2 a + 1)`, that of `a` and `a + 1` is `2 (u / (1 - u^2) - atanh(u))`, a sum of positive terms.
    """
    double = a.dtype == jnp.float64
    few = 8 if double else 3  # where what is left out of the series is 2e-15, or 1e-8
    small = jnp.minimum(a, few)
    steps = jnp.zeros_like(a)
    for n in range(few - 1):
        u = 1 / (2 * (small + n) + 1)
        square, total = u * u, jnp.zeros_like(a)
        for k in range(17 if double else 8, 0, -1):  # up to rounding, for u at most 1 / 3
            total = square * (4 * k / (2 * k + 1) + total)
        steps = steps + u * total
    shift = jnp.where(a < few, few - 1, 0)
    return digamma_series(a + shift) + jnp.where(a < few, steps, 0)


def digamma_series(a: Array) -> Array:
    """`log a - 1 / (2 a) - psi(a) = sum_k B_2k / (2 k a^2k)`, for large `a`."""
    inverse = 1 / a  # its square does not overflow
    return inverse**2 * polynomial(inverse**2, DIGAMMA)


def stirling_remainder(a: Array) -> Array:
    """`log Gamma(a) - (a - 1 / 2) log a + a - log(2 pi) / 2 = sum_k B_2k / (2 k (2 k - 1) a^(2k - 1))`, for large `a`."""
    inverse = 1 / a
    return inverse * polynomial(inverse**2, [c / (2 * k + 1) for k, c in enumerate(DIGAMMA)])


def digamma_increment(a: Float[Array, "*batch"], b: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`psi(a + b) - psi(a) = sum_k b / ((a + k) (a + b + k))`, by terms that are positive or small: nothing cancels."""
    first = sum((b / ((a + k) * (a + b + k)) for k in range(int(LARGE))), jnp.zeros_like(a + b))
    a = a + LARGE

    def rest(x: Array) -> Array:  # log(x) - psi(x)
        return 0.5 / x + digamma_series(x)

    return first + jnp.log1p(b / a) + rest(a) - rest(a + b)


@custom_jvp
def log_gamma_increment_remainder(a: Array, h: Array) -> Array:
    """`log Gamma(a + h) - log Gamma(a) - h log(a)` of arrays of one shape, of which `h` is a constant; zero for large `a`."""
    return log_peak(a) - log_peak(a + h) + (h + h * (h / a)) * log1p_over(h / a) - h


@log_gamma_increment_remainder.defjvp
def _log_gamma_increment_remainder_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a, h), (a_dot, _) = primals, tangents
    return log_gamma_increment_remainder(a, h), digamma_increment_remainder(a, h) * a_dot


def digamma_increment_remainder(a: Array, h: Array) -> Array:
    """`psi(a + h) - psi(a) - h / a`, where nothing cancels.

    With `v = h / a`, `k(v) = log(1 + v) - v / (1 + v)` and `r(a) = log a - 1 / (2 a) - psi(a)` it is for large `a`

        k(v) - (1 - 1 / (2 h)) v^2 / (1 + v) + r(a) - r(a + h).
    """
    v = h / a
    part, many = v / (1 + v), a > 1
    one = jnp.where(many, a, 1.0)
    large = (
        log1p_remainder(jnp.log1p(v), part)
        - (1 - 1 / (2 * h)) * v * part
        + digamma_remainder(one)
        - digamma_remainder(one + h)
    )
    few = digamma_increment(jnp.where(many, 1.0, a), h) - jnp.where(many, 1.0, v)
    return jnp.where(many, large, few)
