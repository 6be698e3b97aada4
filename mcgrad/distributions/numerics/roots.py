"""Roots of monotone functions, all entries of an array at once."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mcgrad import _mesh

stop = jax.lax.stop_gradient
Function = Callable[[Array], Array]


def bracket_root(fn: Function, low: Array, high: Array) -> tuple[Array, Array]:
    """Numbers next to each other, up to rounding, between which `fn`, at most zero at `low` and above it at `high`, crosses zero.

    By Chandrupatla's method: inverse quadratic interpolation where the last three points allow it, and bisection elsewhere,
    here of the floating-point numbers in their order, so that neither the scale nor the ends matter. Ten evaluations or so for
    smooth functions, and never many more than the dtype has bits. **What is below a rounding error of `fn` at the ends counts as
    zero**: it must not be huge there.
    """
    info = jnp.finfo(low.dtype)
    f_low, f_high = fn(low), fn(high)
    negligible = info.eps / 4 * jnp.maximum(jnp.abs(f_low), jnp.abs(f_high))

    def rounded(x: Array) -> Array:
        f = fn(x)
        return jnp.where(jnp.abs(f) <= negligible, 0, f)

    def going_on(state: tuple[Array, ...]) -> Array:
        n, _, x1, x2, _, f1, *_ = state
        return (n < 3 * info.bits) & jnp.any((jnp.abs(x1 - x2) > 2 * info.eps * jnp.abs(x1)) & (f1 != 0))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        n, guess, x1, x2, x3, f1, f2, f3 = state
        f = rounded(guess)
        same = (f > 0) == (f1 > 0)
        x3, f3 = jnp.where(same, x1, x2), jnp.where(same, f1, f2)
        x2, f2 = jnp.where(same, x2, x1), jnp.where(same, f2, f1)
        x1, f1 = guess, f
        # As in Chandrupatla 1997: x1 is the last point, x2 that on the other side of the crossing, x3 the one dropped last.
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        fits = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        part = f1 / (f2 - f1) * (f3 / (f2 - f3)) + (x3 - x1) / (x2 - x1) * (f1 / (f3 - f1)) * (f2 / (f3 - f2))
        least = jnp.minimum(info.eps * jnp.abs(x1) / jnp.abs(x2 - x1), 0.5)
        interpolated = x1 + jnp.clip(part, least, 1 - least) * (x2 - x1)
        guess = jnp.where(fits & jnp.isfinite(interpolated), interpolated, _between(x1, x2))
        guess = jnp.where(f1 == 0, x1, guess)
        return n + 1, guess, x1, x2, x3, f1, f2, f3

    state = (jnp.zeros((), int), _between(low, high), low, high, low, f_low, f_high, f_low)
    _, _, x1, x2, _, f1, *_ = _mesh.while_loop(going_on, step, state)
    x2 = jnp.where(f1 == 0, x1, x2)
    return stop(jnp.minimum(x1, x2)), stop(jnp.maximum(x1, x2))


def _between(low: Array, high: Array) -> Array:
    """The number in the middle of two in the order of floating-point numbers."""
    low, high, dtype = _ordinal(low), _ordinal(high), low.dtype
    middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
    bits = jnp.where(middle < 0, jnp.iinfo(middle.dtype).min - middle, middle)
    return jax.lax.bitcast_convert_type(bits, dtype)


def _ordinal(x: Array) -> Int[Array, "*shape"]:
    """The place of a number among the floating-point numbers."""
    kind = jnp.dtype(f"int{jnp.finfo(x.dtype).bits}")
    bits = jax.lax.bitcast_convert_type(x, kind)
    return jnp.where(bits < 0, jnp.iinfo(kind).min - bits, bits)
