"""Gauss-Legendre quadrature, elementwise over arrays: nodes along one more axis behind those of the array."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def negligible_drop(dtype: Any) -> float:
    """Minus the logarithm of an integrand, relative to its maximum, where it is cut off.

    `exp(-42)` and `exp(-19)` are a hundredth and a tenth of a rounding error: room for the length of what is left out.
    """
    return 42.0 if dtype == jnp.float64 else 19.0


def gauss_legendre(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in the unit interval, and weights that add up to one."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return (1 + nodes) / 2, weights / 2


def unit_rule(
    like: Float[Array, "*batch"], double: int, single: int
) -> tuple[Float[Array, "*ones node"], Float[Array, "*ones node"]]:
    """Nodes and weights, `double` for float64 or `single` for float32, in the dtype of `like` and with its rank plus one."""
    row = lambda values: jnp.asarray(values, like.dtype).reshape((1,) * like.ndim + (-1,))  # noqa: E731
    nodes, weights = gauss_legendre(double if like.dtype == jnp.float64 else single)
    return row(nodes), row(weights)


def per_node(array: Float[Array, "*batch"]) -> Float[Array, "*batch 1"]:
    """An array that is the same at all nodes."""
    return jnp.expand_dims(array, -1)
