"""Draws that move along other paths than their sampler's: with less kinetic energy, or less variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcgrad.distributions.derivatives.quantile_rules import moving, moving_draw
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.beta import log_odds_velocity
from mcgrad.distributions.numerics.simplex import simplex_change
from mcgrad.distributions.numerics.triangular import matmul, matvec, transposed


@moving
def transport_gaussian(
    x: Float[Array, "*batch d"], loc: Float[Array, "*batch d"], factor: Float[Array, "*batch d d"]
) -> Callable[..., Float[Array, "*batch d"]]:
    """A draw `x` of `N(loc, S)`, `S = L L^T` with `L = factor`, as a function of the parameters.

    Its derivative is `d loc + A (x - loc)` with the symmetric `A` that solves `A S + S A = dS`: of all velocity fields that
    move the distribution so, the gradient of a potential, whose mean square is least. The equation is solved once for each `L`,
    not for each draw, also in reverse mode. Right to every order.

    References:
        Jankowiak and Obermeyer 2018, "Pathwise derivatives beyond the reparameterization trick", section 5,
        https://arxiv.org/abs/1806.01851.
    """

    def along(loc_dot: Array, factor_dot: Array) -> Array:
        half = matmul(factor_dot, transposed(factor))
        stretch = _lyapunov(matmul(factor, transposed(factor)), half + transposed(half))
        return loc_dot + matvec(stretch, x - loc)

    return along


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


@moving
def rotated_gaussian(
    z: Float[Array, "*batch d"],
    factor: Float[Array, "*batch d d"],
    rows: Float[Array, "m d"],
    columns: Float[Array, "m d"],
) -> Callable[..., Float[Array, "*batch d"]]:
    """Standard normal noise `z`, as a function of the factor `L` of the distribution that it serves: it turns with `L`.

    Its derivative is `W z` with the antisymmetric `W = A - A^T`, `A_ij = sum_m rows_mi columns_mj dL_ij`. A rotation leaves the
    standard normal distribution as it is, `div(p W z) = p (tr W - z^T W z) = 0`, so all coefficients are right; that they depend on
    parameters themselves changes no mean either. Right to every order.
    """

    def along(factor_dot: Array, *_: Array) -> Array:
        coefficients, change = align(matmul(transposed(rows), columns), factor_dot)
        rates = coefficients * change
        return matvec(rates - transposed(rates), z)

    return along


@moving
def transport_dirichlet(
    x: Float[Array, "*batch n"], concentration: Float[Array, "*batch n"]
) -> Callable[..., Float[Array, "*batch n"]]:
    """A draw `x` of a Dirichlet distribution as a function of its concentrations `a`.

    A change of `a_j` leaves the law of the other entries' proportions as it is, and that of `x_j` is a beta law: with the
    derivative `V_j` of its log odds at a fixed quantile,

        dx_i / da_j = (1 if i = j else 0 - x_i) x_j V_j,   V_j = -dF_j/da_j / (x_j (1 - x_j) p_j),

    solves the transport equation exactly. Of a draw made of gamma variates it is the mean derivative given the draw, so it never
    has more variance, whatever the cost is. Right to every order.
    """

    def along(a_dot: Array) -> Array:
        if x.shape[-1] == 1:  # the number one
            return jnp.zeros_like(x)
        log_odds = jnp.log(x) - jnp.log(_sum_of_others(x))
        return simplex_change(x, log_odds_velocity(log_odds, concentration, _sum_of_others(concentration)) * a_dot)

    return along


def _sum_of_others(v: Array) -> Array:
    """The sum over the last axis but for each entry, by additions alone."""
    before = jnp.cumsum(v, -1)[..., :-1]
    after = jnp.flip(jnp.cumsum(jnp.flip(v, -1), -1), -1)[..., 1:]
    pad = [(0, 0)] * (v.ndim - 1)
    return jnp.pad(before, [*pad, (1, 0)]) + jnp.pad(after, [*pad, (0, 1)])


def _velocity_of_beta(x: Array, a: Array, b: Array) -> tuple[Array, Array]:
    log_odds, slope = jnp.log(x) - jnp.log1p(-x), x * (1 - x)
    return slope * log_odds_velocity(log_odds, a, b), -slope * log_odds_velocity(-log_odds, b, a)


transport_beta = moving_draw(_velocity_of_beta)
"""A draw of a beta distribution as a function of it and of its concentrations at one and at zero, with its quantile fixed."""
