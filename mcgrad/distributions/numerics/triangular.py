"""Lower triangular factors of positive definite matrices, `S = L L^T`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad import _compat, _mesh


def tril(matrix: Float[ArrayLike, "*batch d d"], diagonal: int = 0) -> Float[Array, "*batch d d"]:
    """`jnp.tril`, also of matrices that are spread over devices by the type of their array."""
    matrix = jnp.asarray(matrix)
    aval = jax.typeof(matrix)
    if not _mesh.is_explicit(aval):
        return jnp.tril(matrix, diagonal)
    below = jnp.broadcast_to(jnp.tri(*matrix.shape[-2:], diagonal, dtype=bool), matrix.shape)
    return jax.lax.select(_mesh.typed(below, aval), matrix, jnp.zeros_like(matrix))


def inverse_of(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """`L^-1`.

    For densities: once for each matrix, where a triangular solve would need the matrix repeated for every entry of the batch.
    Both are backward stable for a triangular matrix.

    References:
        Higham 2002, "Accuracy and stability of numerical algorithms", section 14.2, https://doi.org/10.1137/1.9780898718027.
    """
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    if _mesh.is_explicit(jax.typeof(factor)):
        return _inverse_on_mesh(*_mesh.with_whole_events((factor, 2)))
    return jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)


@_compat.custom_jvp
def _inverse_on_mesh(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """`L^-1` of matrices that are spread over devices by the type of their array: JAX's own rule selects by a mask that is not."""
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    identity = _mesh.typed(identity, jax.typeof(factor))
    return jax.lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)


@_inverse_on_mesh.defjvp
def _inverse_on_mesh_jvp(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[Array, Array]:
    (factor,), (factor_dot,) = primals, tangents
    inverse = _inverse_on_mesh(factor)
    return inverse, -matmul(inverse, matmul(tril(factor_dot), inverse))


def log_det_of(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:
    """`log det L`."""
    (factor,) = _mesh.with_whole_events((factor, 2))
    return jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


# In full precision: a density from products in the tensor cores' format would be off in the third digit.


def matmul(a: Float[Array, "*batch i j"], b: Float[Array, "*batch j k"]) -> Float[Array, "*batch i k"]:
    """`A B`."""
    a, b = _mesh.with_whole_events((a, 2), (b, 2))
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def matvec(matrix: Float[Array, "*batch i j"], vector: Float[Array, "*batch j"]) -> Float[Array, "*batch i"]:
    """`A x`."""
    matrix, vector = _mesh.with_whole_events((matrix, 2), (vector, 1))
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision=jax.lax.Precision.HIGHEST)


def transposed(matrix: Float[Array, "*batch i j"]) -> Float[Array, "*batch j i"]:
    """`A^T`."""
    return jnp.swapaxes(matrix, -1, -2)
