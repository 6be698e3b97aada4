"""The multivariate Student law: derivatives of draws and densities against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased
from jax.scipy import special

from mcgrad import distributions as laws
from mcgrad.distributions.numerics.gamma import log_ratio_velocity
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean

TRIL = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 1.2]])
CHANGE = np.array([[0.5, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.2, 0.6, -0.3]])


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float64, 1e-10), pytest.param(np.float32, 1e-5, marks=pytest.mark.slow)]
)
def test_derivatives_of_draws_are_exact(dtype: Any, bound: float) -> None:
    """In `df`, those of the logarithm of the gamma draw over its mean; they keep their digits for many degrees of freedom."""
    dfs = np.array([0.3, 1.0, 7.5, 40.0, 1e6])

    @jax.jit
    @jax.vmap
    def found(df: Any, key: Any) -> Any:
        def draw(df: Any, t: Any) -> Any:
            tril, loc = jnp.asarray(TRIL, dtype) + t * jnp.asarray(CHANGE, dtype), jnp.zeros(3, dtype)
            return laws.MultivariateStudentT(df, loc, tril).sample(jax.random.clone(key))

        zero = jnp.zeros_like(df)
        log_ratio = log_ratio_to_mean(jax.random.split(jax.random.clone(key))[1], df / 2)
        return draw(df, zero), log_ratio, jax.jacfwd(draw, (0, 1))(df, zero)

    draws, log_ratios, (in_df, in_factor) = found(
        jnp.asarray(dfs, dtype), jax.random.split(jax.random.key(0), len(dfs))
    )
    assert draws.dtype == dtype
    for i, df in enumerate(dfs):
        draw = np.asarray(draws[i], float)
        z = np.linalg.solve(TRIL, draw)
        rate = log_ratio_velocity(jnp.float64(log_ratios[i]), jnp.float64(df / 2)) / 2
        np.testing.assert_allclose(in_df[i], -draw / 2 * rate, rtol=bound)
        np.testing.assert_allclose(in_factor[i], CHANGE @ z, rtol=bound, atol=bound)


def test_log_prob_is_scipys() -> None:
    x = np.array([[0.3, -4.0, 1.0], [1.0, 1.0, -0.5], [90.0, 2.0, 0.0]])
    loc = np.array([0.5, -1.0, 0.2])
    log_prob = jax.jit(lambda df, loc, tril, x: laws.MultivariateStudentT(df, loc, tril).log_prob(x))
    for df in (0.4, 3.0, 50.0):
        expected = scipy.stats.multivariate_t(loc, TRIL @ TRIL.T, df).logpdf(x)
        np.testing.assert_allclose(log_prob(df, loc, TRIL, x), expected, rtol=1e-12)
        single = log_prob(*(np.asarray(value, np.float32) for value in (df, loc, TRIL, x)))
        np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.slow
def test_draws_and_moments_to_second_order() -> None:
    """`|z|^2 / d ~ F(d, df)`, and `E[log |scale z|^2] = log df + psi(d / 2) - psi(df / 2) + 2 log scale`, for `d = 2`."""
    params = jnp.asarray([2.5, 1.4])

    def cost(p: Any, key: Any) -> Any:
        law = laws.MultivariateStudentT(p[0], jnp.zeros(2), p[1] * jnp.eye(2))
        return jnp.log(jnp.sum(law.sample(jax.random.clone(key)) ** 2)) ** 2 / 2

    def exact(p: Any) -> Any:
        half = p[0] / 2
        mean = jnp.log(p[0]) + special.digamma(1.0) - special.digamma(half) + 2 * jnp.log(p[1])
        return (mean**2 + special.polygamma(1, 1.0) + special.polygamma(1, half)) / 2

    def both(fn: Any) -> Any:
        return lambda p, *args: (fn(p, *args), jax.grad(fn)(p, *args), jax.hessian(fn)(p, *args))

    keys = jax.random.split(jax.random.key(1), 40_000)
    values, *draws = jax.jit(jax.vmap(both(cost), (None, 0)))(params, keys)
    value, *wanted = both(exact)(params)
    assert_unbiased(values, value)
    for found, exactly in zip(draws, wanted, strict=True):
        assert_unbiased(found, exactly)
    draw = jax.jit(jax.vmap(lambda key: laws.MultivariateStudentT(3.0, jnp.ones(3), jnp.asarray(TRIL)).sample(key)))
    z = np.linalg.solve(TRIL, np.asarray(draw(jax.random.split(jax.random.key(2), 4_000))).T - 1)
    assert scipy.stats.kstest(np.sum(z**2, 0) / 3, scipy.stats.f(3, 3).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_nothing_is_nan_in_float32() -> None:
    df = jnp.asarray([1e-4, 0.1, 1.0, 1e4, 1e8], jnp.float32)

    def draw(df: Any, key: Any) -> Any:
        dist = laws.MultivariateStudentT(df, jnp.zeros(2, jnp.float32), jnp.eye(2, dtype=jnp.float32))
        x = dist.sample(key)
        return jnp.sum(x), (x, dist.log_prob(x))

    keys = jax.random.split(jax.random.key(3), 200)
    slopes, others = jax.jit(jax.vmap(jax.grad(draw, has_aux=True), (None, 0)))(df, keys)
    for leaf in (slopes, *others):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32
