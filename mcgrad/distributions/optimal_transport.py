"""Draws that move along the path of least kinetic energy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad._compat import custom_jvp
from mcgrad.distributions.factors import matmul, matvec, transposed


@custom_jvp
def transport_gaussian(
    x: Float[Array, "*batch d"], loc: Float[Array, "*batch d"], factor: Float[Array, "*batch d d"]
) -> Float[Array, "*batch d"]:
    """A draw `x` of `N(loc, S)`, `S = L L^T` with `L = factor`, as a function of the parameters.

    Its derivative is `d loc + A (x - loc)` with the symmetric `A` that solves `A S + S A = dS`: of all velocity fields that
    move the law so, the gradient of a potential, whose mean square is least (Jankowiak and Obermeyer 2018, section 5). The
    equation is solved once for each `L`, not for each draw, also in reverse mode. Right to every order.
    """
    return x


@transport_gaussian.defjvp
def _transport_gaussian_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, loc, factor), (_, loc_dot, factor_dot) = primals, tangents
    x = transport_gaussian(x, loc, factor)
    half = matmul(factor_dot, transposed(factor))
    stretch = _lyapunov(matmul(factor, transposed(factor)), half + transposed(half))
    moved = matvec(stretch, x - loc)
    return x, loc_dot + moved


def _lyapunov(covariance: Array, change: Array) -> Array:
    """The `A` of `A S + S A = C` for a positive definite `S`."""

    def both_sides(a: Array) -> Array:
        return matmul(a, covariance) + matmul(covariance, a)

    def solve(_: Any, change: Array) -> Array:
        values, vectors = jnp.linalg.eigh(covariance)
        inner = matmul(matmul(transposed(vectors), change), vectors)
        inner = inner / (values[..., :, None] + values[..., None, :])
        return matmul(matmul(vectors, inner), transposed(vectors))

    # So that no derivative goes through the eigenvectors, which have none where eigenvalues agree.
    return jax.lax.custom_linear_solve(both_sides, change, solve, symmetric=True)
