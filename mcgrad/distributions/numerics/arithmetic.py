"""Elementary functions of arrays, without loss of digits, overflow, or NaN in their derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad._types import PRNGKey, Shape


def align(*arrays: Any) -> tuple[Array, ...]:
    """Arrays with leading axes of size one added, so that all have the same rank; scalars stay scalars.

    Under `jax_numpy_rank_promotion="raise"` JAX refuses to add those axes by itself.
    """
    ndim = max(jnp.ndim(array) for array in arrays)
    return tuple(
        jnp.asarray(array)
        if jnp.ndim(array) in (0, ndim)
        else jnp.expand_dims(array, tuple(range(ndim - jnp.ndim(array))))
        for array in arrays
    )


@jax.custom_jvp
def quotient(x: Array, y: Array) -> Array:
    """`x / y`, whose derivative `(dx - (x / y) dy) / y` has no square of `y` that overflows or underflows."""
    return x / y


@functools.partial(quotient.defjvp, symbolic_zeros=True)
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (_, y), (x_dot, y_dot) = primals, tangents
    z = quotient(*primals)
    fixed = [isinstance(tangent, jax.custom_derivatives.SymbolicZero) for tangent in tangents]
    if all(fixed):
        return z, jnp.zeros_like(z)
    if fixed[1]:
        return z, x_dot / y
    # an infinite quotient, or in reverse mode an infinite factor of the quotient zero, would give NaN
    largest = jnp.finfo(z.dtype).max
    along_y = jnp.where(z == 0, jnp.zeros_like(z), jnp.clip(z, -largest, largest) * y_dot)
    return z, (-along_y if fixed[0] else x_dot - along_y) / y


@jax.custom_jvp
def log_quotient(x: Array, y: Array) -> Array:
    """`log(x / y)` of positive numbers, with all digits where they nearly agree, and for every size of the two."""
    return log_ratio_to(x, jnp.log(x), y)


@log_quotient.defjvp
def _log_quotient_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, y), (x_dot, y_dot) = primals, tangents
    return log_quotient(x, y), x_dot / x - y_dot / y


def log_ratio_to(x: Array, log_x: Array, y: Array) -> Array:
    """`log(x / y)`, also where the two nearly agree, and where `x` underflows and its logarithm does not."""
    near = jnp.abs(x - y) < 0.5 * y
    return jnp.where(near, jnp.log1p(jnp.where(near, (x - y) / y, 0.0)), log_x - jnp.log(y))


def bounded_exp(y: Array) -> Array:
    """`exp(y)` held between the smallest and the largest positive number, with derivative zero there."""
    info = jnp.finfo(y.dtype)
    low, high = jnp.log(info.tiny) + 1, jnp.log(info.max) - 1
    return jnp.exp(jnp.clip(y, low.astype(y.dtype), high.astype(y.dtype)))


def polynomial(x: Array, coefficients: Sequence[float]) -> Array:
    """`sum_k coefficients[k] x^k`."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = coefficient + x * total
    return total


def log_one_minus_exp(y: Array) -> Array:
    """`log(1 - exp(y))` for negative `y`, without loss of digits at either end; where it underflows, at the next number."""
    # exp(y) below the smallest normal number makes no difference to 1; -0.0 stands for a y too small for the dtype
    y = jnp.minimum(y, -jnp.finfo(y.dtype).tiny)
    near = y > -math.log(2)
    by_expm1 = jnp.log(-jnp.expm1(jnp.where(near, y, -1.0)))
    return jnp.where(near, by_expm1, jnp.log1p(-jnp.exp(jnp.where(near, -1.0, y))))


def expm1_minus_linear(t: Array, dtype: Any) -> Array:
    """`exp(t) - 1 - t`, by its series where that is shorter than the cancellation."""
    near = jnp.abs(t) < 0.5
    inside = jnp.where(near, t, 0.0)
    series = jnp.ones_like(inside)
    # the first term that is left out, t^15 / 15! or t^9 / 9!, is a rounding error of t^2 / 2 at t = 1 / 2
    for k in range(14 if dtype == jnp.float64 else 8, 2, -1):
        series = 1 + inside / k * series
    return jnp.where(near, inside**2 / 2 * series, jnp.expm1(t) - t)


def log1p_minus_cubic(t: Array) -> Array:
    """`log(1 + t) - t + t^2 / 2 - t^3 / 3`, by its series where that is shorter than the cancellation."""
    near = jnp.abs(t) < 0.1
    inside = jnp.where(near, t, 0.0)
    # at 0.1 what is left out, 2e-14 or 4e-7 of the value, is less than what cancels in the other form
    series = polynomial(inside, [(-1) ** (k + 1) / k for k in range(4, 17 if t.dtype == jnp.float64 else 10)])
    return jnp.where(near, inside**4 * series, jnp.log1p(t) - t * (1 - t * (1 / 2 - t / 3)))


def log1p_over(u: Array) -> Array:
    """`log(1 + u) / u`, one where `u` underflows."""
    some = u > 0
    return jnp.where(some, jnp.log1p(u) / jnp.where(some, u, 1.0), 1.0)


def log1p_remainder(log1p_u: Array, part: Array) -> Array:
    """`log(1 + u) - u / (1 + u)` of these two, by its series where that is shorter than the cancellation."""
    series = part * part * (1 / 2 + part / 3) - log1p_minus_cubic(-jnp.minimum(part, 0.5))
    return jnp.where(part < 0.1, series, log1p_u - part)


def with_ends(quantile: Callable[[Array], Array], u: Any, least: Any, most: Any) -> Array:
    """A quantile function that is right inside (0, 1), with its values at 0 and 1, and no NaN in its derivative there."""
    u = jnp.asarray(u)
    end = (u == 0) | (u == 1)
    inside, end, u, least = align(quantile(jnp.where(end, 0.5, u)), end, u, least)
    return jnp.where(end, jnp.where(u == 0, least, most), inside)


def open_uniform(key: PRNGKey, shape: Shape, dtype: Any) -> Array:
    """Uniform draws that are never 0 or 1.

    `jax.random.uniform` draws multiples of `eps`, zero included. Half a step added gives a grid that is symmetric
    around one half, and exact in floating point; a smallest positive number in place of zero would, with probability
    `eps`, throw `log(u)` from -16 to -87.
    """
    return jax.random.uniform(key, shape, dtype) + jnp.asarray(jnp.finfo(dtype).eps / 2, dtype)


def largest_log_odds(dtype: Any) -> float:
    """Log odds beyond which the less likely value does not come up; its probability is the smallest normal number."""
    return -math.log(float(jnp.finfo(dtype).tiny))


stop = jax.lax.stop_gradient


def room_for_factor(scale: Array) -> tuple[Array, Array]:
    """The logarithms that a factor of `scale` may have so that the product is neither too small nor too large for the dtype."""
    info, log_scale = jnp.finfo(scale.dtype), jnp.log(stop(scale))
    least = np.log(info.tiny) + 1 - jnp.minimum(log_scale, 0)
    return least.astype(scale.dtype), (np.log(info.max) - 1 - jnp.maximum(log_scale, 0)).astype(scale.dtype)


LARGEST_COUNT = 2**31 - 128
"""Draws are cut to it: the last float32 below 2^31."""


def is_count(x: Array) -> Array:
    """True where a value is one of 0, 1, ...; elementwise."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x >= 0
    return (x >= 0) & (x < jnp.inf) & (x == jnp.floor(x))
