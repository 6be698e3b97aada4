"""Probability vectors and their derivatives, with all digits where one entry is nearly one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._compat import custom_jvp


def simplex_change(x: Float[Array, "*batch n"], log_change: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """`x_i (u_i - sum_j x_j u_j)` for probabilities `x` and `u = log_change`, with all digits also where one is nearly one."""
    # for the largest, the only one that may be above a half, the sum over the others
    largest = jnp.argmax(x, -1, keepdims=True)
    is_largest = jnp.arange(x.shape[-1]).reshape((1,) * (x.ndim - 1) + (-1,)) == largest
    others = jnp.where(is_largest, 0, x)
    of_largest = jnp.sum(others * (jnp.take_along_axis(log_change, largest, -1) - log_change), -1, keepdims=True)
    return x * jnp.where(is_largest, of_largest, log_change - jnp.sum(x * log_change, -1, keepdims=True))


@custom_jvp
def softmax(y: Array) -> Array:
    """Softmax over the last axis whose derivative `x_i (1 - x_i)` keeps its digits where `x_i` is nearly one."""
    return jax.nn.softmax(y, -1)


@softmax.defjvp
def _softmax_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (y,), (y_dot,) = primals, tangents
    x = softmax(y)
    return x, simplex_change(x, y_dot)
