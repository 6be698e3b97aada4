"""Lower triangular factors of positive definite matrices, `S = L L^T`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mcgrad import _compat


def check_factor(law: str, scale_tril: Array) -> None:
    """Refuse a concrete `scale_tril` that is not square, lower triangular and with a positive diagonal."""
    if scale_tril.shape[-1] != scale_tril.shape[-2]:
        raise ValueError(
            f"`mcgrad.{law}(scale_tril=...)` must be square, got shape {scale_tril.shape}. "
            "Pass `jnp.linalg.cholesky(covariance)`."
        )
    if isinstance(scale_tril, _compat.Tracer):
        return
    concrete = np.asarray(scale_tril)
    if (np.triu(concrete, 1) != 0).any() or not (np.diagonal(concrete, axis1=-2, axis2=-1) > 0).all():
        raise ValueError(
            f"`mcgrad.{law}(scale_tril=...)` must be lower triangular with a positive diagonal, "
            f"got {concrete.tolist() if concrete.size <= 16 else 'another matrix'}. "
            "Pass `jnp.linalg.cholesky(covariance)`."
        )


def inverse_of(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """`L^-1`.

    For densities: once for each matrix, where a triangular solve would need the matrix repeated for every entry of the batch.
    Both are backward stable for a triangular matrix (Higham 2002, section 14.2).
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
