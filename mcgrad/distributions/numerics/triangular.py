"""Lower triangular factors of positive definite matrices, `S = L L^T`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def inverse_of(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """`L^-1`.

    For densities: once for each matrix, where a triangular solve would need the matrix repeated for every entry of the batch.
    Both are backward stable for a triangular matrix.

    References:
        Higham 2002, "Accuracy and stability of numerical algorithms", section 14.2, https://doi.org/10.1137/1.9780898718027.
    """
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)


def log_det_of(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:
    """`log det L`."""
    return jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


# In full precision: a density from products in the tensor cores' format would be off in the third digit.


def matmul(a: Float[Array, "*batch i j"], b: Float[Array, "*batch j k"]) -> Float[Array, "*batch i k"]:
    """`A B`."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def matvec(matrix: Float[Array, "*batch i j"], vector: Float[Array, "*batch j"]) -> Float[Array, "*batch i"]:
    """`A x`."""
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=jax.lax.Precision.HIGHEST)


def transposed(matrix: Float[Array, "*batch i j"]) -> Float[Array, "*batch j i"]:
    """`A^T`."""
    return jnp.swapaxes(matrix, -1, -2)
