"""Cholesky factors of correlation matrices: derivatives of draws and densities against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import assert_unbiased, central_difference
from jax.scipy import special

from mcgrad import distributions as laws


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float64, 1e-10), pytest.param(np.float32, 1e-5, marks=pytest.mark.slow)]
)
def test_derivatives_of_draws_keep_the_quantiles_of_the_radii(dtype: Any, bound: float) -> None:
    concentrations = np.array([0.4, 1.0, 30.0, 1e4])

    @jax.jit
    @jax.vmap
    def found(concentration: Any, key: Any) -> Any:
        return jax.jvp(lambda c: laws.LKJCholesky(4, c).sample(key), (concentration,), (jnp.ones_like(concentration),))

    draws, slopes = found(jnp.asarray(concentrations, dtype), jax.random.split(jax.random.key(0), 4))
    assert draws.dtype == dtype
    np.testing.assert_allclose(np.sum(draws**2, -1), 1, rtol=10 * np.finfo(dtype).eps)
    for concentration, draw, slope in zip(concentrations, np.asarray(draws, float), slopes, strict=True):
        assert (np.triu(draw, 1) == 0).all() and (slope[0] == 0).all()
        for i in range(1, 4):
            square, rest = np.sum(draw[i, :i] ** 2), draw[i, i] ** 2
            low = square < rest  # the smaller one has all digits
            concentrations_at = lambda c: (i / 2, c + (3 - i) / 2) if low else (c + (3 - i) / 2, i / 2)  # noqa: E731, B023
            u = scipy.special.betainc(*concentrations_at(concentration), min(square, rest))

            def row(c: float) -> np.ndarray:
                part = scipy.special.betaincinv(*concentrations_at(c), u)  # noqa: B023
                square_at, rest_at = (part, 1 - part) if low else (1 - part, part)  # noqa: B023
                return np.append(draw[i, :i] * np.sqrt(square_at / square), np.sqrt(rest_at))  # noqa: B023

            # the differences have an error of 40 units in the last place over the concentration
            exact = central_difference(row, concentration, concentration / 40)
            np.testing.assert_allclose(slope[i, : i + 1], exact, rtol=bound, atol=2e-14 / concentration)


def test_log_prob_against_other_forms() -> None:
    """For two rows, a beta law of the correlation; the constant by the multivariate gamma function."""
    r = np.array([-0.9, 0.1, 0.6])
    factors = np.stack([np.array([[1.0, 0.0], [c, np.sqrt(1 - c * c)]]) for c in r])
    log_prob = jax.jit(lambda dist, x: dist.log_prob(x))
    for concentration in (0.3, 1.0, 5.0):
        frozen = scipy.stats.beta(concentration, concentration, loc=-1, scale=2)
        np.testing.assert_allclose(log_prob(laws.LKJCholesky(2, concentration), factors), frozen.logpdf(r), rtol=1e-12)
        last = concentration + 1.5  # of four rows
        constant = 1.5 * np.log(np.pi) + scipy.special.multigammaln(last - 0.5, 3) - 3 * scipy.special.gammaln(last)
        factor = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
        powers = 2 * concentration - 2 + np.array([2, 1, 0])
        expected = powers @ np.log(np.diag(factor)[1:]) - constant
        np.testing.assert_allclose(log_prob(laws.LKJCholesky(4, concentration), factor), expected, rtol=1e-12)
    assert log_prob(laws.LKJCholesky(2, 1.5), np.diag([1.0, -1.0])) == -np.inf


@pytest.mark.slow
def test_moments_to_second_order() -> None:
    """`E[r_ij^2] = 1 / (2 c + d - 1)` and `E[log det L L^T] = sum_i psi(b_i) - psi(c + (d - 1) / 2)`, for `d = 3`."""

    def costs(c: Any, key: Any) -> Any:
        factor = laws.LKJCholesky(3, c).sample(jax.random.clone(key))
        correlation = factor @ factor.T
        return jnp.stack([correlation[1, 0] ** 2, correlation[2, 1] ** 2, 2 * jnp.sum(jnp.log(jnp.diag(factor)))])

    def exact(c: Any) -> Any:
        mean = 1 / (2 * c + 2)
        psi = special.digamma(jnp.stack([c, c + 0.5])) - special.digamma(c + 1)
        return jnp.stack([mean, mean, jnp.sum(psi)])

    def both(fn: Any) -> Any:
        return lambda c, *args: (fn(c, *args), jax.jacrev(fn)(c, *args), jax.jacrev(jax.jacrev(fn))(c, *args))

    keys = jax.random.split(jax.random.key(1), 40_000)
    draws = jax.jit(jax.vmap(both(costs), (None, 0)))(0.8, keys)
    for found, wanted in zip(draws, both(exact)(0.8), strict=True):
        assert_unbiased(found, wanted)


@pytest.mark.slow
def test_nothing_is_nan_in_float32() -> None:
    concentration = jnp.asarray([1e-4, 0.1, 1.0, 1e4, 1e8], jnp.float32)

    def draw(c: Any, key: Any) -> Any:
        dist = laws.LKJCholesky(3, c)
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x))

    keys = jax.random.split(jax.random.key(2), 200)
    slopes, others = jax.jit(jax.vmap(jax.grad(draw, has_aux=True), (None, 0)))(concentration, keys)
    for leaf in (slopes, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32
