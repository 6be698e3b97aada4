"""The factor by which a beta draw is multiplied in its weak derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import open_uniform
from mcgrad.distributions.levels import crossing

_SHIFT = 16


def mean_log_factor(a: Float[Array, "*batch"], b: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`psi(a + b) - psi(a) = sum_k b / ((a + k) (a + b + k))`, by terms that are positive or small: nothing cancels."""
    first = sum((b / ((a + k) * (a + b + k)) for k in range(_SHIFT)), jnp.zeros_like(a + b))
    a = a + _SHIFT

    def rest(x: Array) -> Array:  # log(x) - psi(x)
        square = 1 / x**2
        return 0.5 / x + square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))

    return first + jnp.log1p(b / a) + rest(a) - rest(a + b)


def beta_factor(key: PRNGKey, a: Float[Array, "*batch"], b: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A factor `v` for which `x v`, for `x` from `Beta(a, b)`, has the density `-log(x) p(x) / (psi(a + b) - psi(a))`.

    `-log(x)` has the law of a sum of independent jumps, and is infinitely divisible; weighted in proportion to its size, it
    becomes its own sum with one more jump, `-log(v)`, of density `exp(-a s) (1 - exp(-b s)) / (1 - exp(-s))` up to its constant.
    That is a mixture over `k = 0, 1, ...`, with weights `b / ((a + k) (a + b + k))`, of sums of two exponential draws of
    rates `a + k` and `a + b + k`. What is left from `k` on is `psi(a + b + k) - psi(a + k)`.
    """
    keys = jax.random.split(key, 3)
    shape, dtype = jnp.broadcast_shapes(a.shape, b.shape), jnp.result_type(a, b)
    u, first, second = (open_uniform(key, shape, dtype) for key in keys)
    target = u * mean_log_factor(a, b)
    # Terms up to 2 / eps: by then the factor rounds to 1.
    most = jnp.full(shape, 2 / jnp.finfo(dtype).eps, dtype)
    low, _ = crossing(lambda k: target - mean_log_factor(a + k, b), jnp.zeros(shape, dtype), most)
    k = jnp.floor(low)
    return jnp.exp(jnp.log(first) / (a + k) + jnp.log(second) / (a + b + k))
