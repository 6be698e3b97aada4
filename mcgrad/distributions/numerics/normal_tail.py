"""Integrals of the normal density relative to its value at a point, to the precision of the dtype."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad.distributions.numerics.quadrature import negligible_drop, per_node, unit_rule


def tail_moments(
    z: Float[Array, "*batch"], length: Float[Array, "*batch"], count: int = 3
) -> tuple[Float[Array, "*batch"], ...]:
    """`int_0^length s^k exp(-z s - s^2 / 2) ds` for `k = 0 ... count - 1`; elementwise, branch-free.

    With the standard normal density `phi`, this is the integral of `(t - z)^k phi(t) / phi(z)` over `t` from `z` to
    `z + length`: sums of positive terms, so no digits are lost in the tails or in short intervals, and their derivatives
    are right to every order. `length` may be infinite. For negative `z` the integrals grow as `exp(z^2 / 2)`. The numbers of nodes
    are enough for `tests/test_truncated_normal.py`.
    """
    fall = negligible_drop(jnp.result_type(z, length))
    # The exponent is -(z + s)^2 / 2, largest at `peak`, with the slope `steep` there, and falls by
    # `slope d + d^2 / 2` at the distance `d`.
    peak = jnp.clip(-z, 0, length)
    steep = z + peak
    reach = lambda slope: 2 * fall / (slope + jnp.hypot(slope, math.sqrt(2 * fall)))  # noqa: E731
    start = jax.lax.stop_gradient(jnp.maximum(peak - reach(jnp.maximum(-steep, 0)), 0))
    stop = jax.lax.stop_gradient(peak + reach(jnp.maximum(steep, 0)))
    width = jnp.where(length < stop, length, stop) - start

    # [..., node]
    nodes, weights = unit_rule(width, 56, 24)
    s = per_node(start) + per_node(width) * nodes
    integrand = weights * jnp.exp(-per_node(z) * s - s * s / 2)
    moments = []
    for _ in range(count):
        moments.append(width * jnp.sum(integrand, -1))
        integrand = integrand * s
    return tuple(moments)
