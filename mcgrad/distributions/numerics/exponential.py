"""The density of the logarithm of an exponential draw, and where it takes given values."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array


def exponential_level(side: Array, drop: Array) -> Array:
    """The `z` beyond (1) or before (-1) the maximum of `z exp(-z)` where its logarithm is lower by `drop`."""
    return jnp.exp(log_exponential_outward(jnp.zeros_like(drop), side, drop))


def log_exponential_density(y: Array) -> Array:
    """`y - exp(y)`, the log density of the logarithm of a standard exponential draw.

    Where the exponential overflows its derivative is zero and not infinite, for in a mixture a weight of zero may multiply it.
    """
    most = math.log(jnp.finfo(y.dtype).max) - 1
    return jnp.where(y > most, -jnp.inf, y - jnp.exp(jnp.minimum(y, most)))


def log_exponential_outward(y: Array, side: Array, drop: Array) -> Array:
    """On the side (1 or -1) of `y`, the point where `y - exp(y)` is lower by `drop`.

    `y - exp(y)` is the log density of the logarithm of a standard exponential draw, whose negative is a Gumbel draw. The
    point solves `exp(y) - 1 - y = height`, by Newton's method from bounds on the Lambert function, from which it
    converges on one side: four steps reach rounding error.

    References:
        Chatzigeorgiou 2013, "Bounds on the Lambert function and their application to the outage analysis of user cooperation",
        theorem 1, https://arxiv.org/abs/1601.04895.
    """
    height = jnp.expm1(y) - y + drop
    root = jnp.sqrt(2 * height)
    y = jnp.where(side > 0, jnp.log1p(root + height), -(root + height))
    for _ in range(4):
        slope = jnp.expm1(y)
        y = y - (slope - y - height) / jnp.where(slope == 0, 1, slope)
    return y
