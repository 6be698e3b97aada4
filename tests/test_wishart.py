"""The Wishart law: derivatives of draws and densities against exact ones, moments, corners."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import assert_unbiased, central_difference

from mcgrad import distributions as laws

TRIL = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 1.2]])
CHANGE = np.array([[0.5, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.2, 0.6, -0.3]])


def quantiles_kept(draw: np.ndarray, concentration: float) -> Any:
    """The draw as a function of the concentration and of the factor, from SciPy's quantiles of Bartlett's decomposition."""
    bartlett = np.linalg.solve(TRIL, np.linalg.cholesky(draw))
    halves = lambda concentration: (concentration - np.arange(3)) / 2  # noqa: E731
    lower = scipy.special.gammainc(halves(concentration), np.diag(bartlett) ** 2 / 2)
    upper = scipy.special.gammaincc(halves(concentration), np.diag(bartlett) ** 2 / 2)

    def at(concentration: float, tril: np.ndarray) -> np.ndarray:
        a = halves(concentration)
        half = np.where(
            lower < 0.5, scipy.special.gammaincinv(a, lower), scipy.special.gammainccinv(a, np.minimum(upper, 0.5))
        )
        factor = tril @ (np.tril(bartlett, -1) + np.diag(np.sqrt(2 * half)))
        return factor @ factor.T

    return at


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float64, 1e-10), pytest.param(np.float32, 1e-5, marks=pytest.mark.slow)]
)
def test_derivatives_of_draws_are_exact(dtype: Any, bound: float) -> None:
    concentrations = np.array([2.75, 4.0, 30.0, 1000.0])

    @jax.jit
    @jax.vmap
    def found(concentration: Any, key: Any) -> Any:
        def draw(c: Any, t: Any) -> Any:
            return laws.Wishart(c, jnp.asarray(TRIL, dtype) + t * jnp.asarray(CHANGE, dtype)).sample(
                jax.random.clone(key)
            )

        zero = jnp.zeros_like(concentration)
        value = draw(concentration, zero)
        return value, jax.jacfwd(draw, (0, 1))(concentration, zero)

    keys = jax.random.split(jax.random.key(0), len(concentrations))
    draws, slopes = found(jnp.asarray(concentrations, dtype), keys)
    assert draws.dtype == dtype
    for concentration, draw, in_concentration, in_factor in zip(concentrations, draws, *slopes, strict=True):
        at = quantiles_kept(np.asarray(draw, float), concentration)
        room = min(0.1 * concentration, concentration - 2)
        exact = central_difference(lambda c: at(c, TRIL), concentration, room / 40)  # noqa: B023
        scale = np.linalg.norm(exact)
        np.testing.assert_allclose(in_concentration, exact, rtol=0, atol=bound * scale)
        exact = central_difference(lambda t: at(concentration, TRIL + t * CHANGE), 0.0, 0.1)  # noqa: B023
        np.testing.assert_allclose(in_factor, exact, rtol=0, atol=bound * np.linalg.norm(exact))


def test_log_prob_is_scipys() -> None:
    x = np.array(
        [TRIL @ TRIL.T, 4 * np.eye(3), CHANGE @ CHANGE.T + 0.1 * np.eye(3), -np.eye(3), np.diag([1.0, -1.0, 1.0])]
    )

    @jax.jit
    def log_prob(concentration: Any, tril: Any, x: Any) -> Any:
        total = lambda c, x: (lambda p: (jnp.sum(p), p))(laws.Wishart(c, tril).log_prob(x))  # noqa: E731
        slopes, values = jax.grad(total, (0, 1), has_aux=True)(concentration, x)
        return values, slopes

    found, slopes = log_prob(7.0, TRIL, x)
    np.testing.assert_allclose(
        found[:3], [scipy.stats.wishart(7.0, TRIL @ TRIL.T).logpdf(m) for m in x[:3]], rtol=1e-12
    )
    assert (found[3:] == -np.inf).all() and all(np.isfinite(slope).all() for slope in slopes)
    single, _ = log_prob(*(np.asarray(value, np.float32) for value in (7.0, TRIL, x[:3])))
    np.testing.assert_allclose(single, found[:3], rtol=1e-5)
    # for one dimension, a gamma law
    found, _ = log_prob(0.3, np.full((1, 1), 2.0), x[:2, :1, :1])
    np.testing.assert_allclose(found, scipy.stats.gamma(0.15, scale=8).logpdf(x[:2, 0, 0]), rtol=1e-12)


@pytest.mark.slow
def test_moments_to_second_order() -> None:
    """`E[x] = c S`, `E[x_00 x_11] = c^2 S_00 S_11 + 2 c S_01^2` and `E[log det x] = log det S + sum psi + d log 2`, `d = 2`."""
    params, direction = (3.5, jnp.asarray(TRIL[:2, :2])), (1.0, jnp.asarray(CHANGE[:2, :2]))

    def along(function: Any) -> Any:
        return lambda t, *args: function(jax.tree.map(lambda p, d: p + t * d, params, direction), *args)

    def costs(params: Any, key: Any) -> Any:
        x = laws.Wishart(*params).sample(jax.random.clone(key))
        return jnp.stack([x[1, 0], x[0, 0] * x[1, 1], jnp.linalg.slogdet(x)[1]])

    def exact(params: Any) -> Any:
        c, tril = params
        s = tril @ tril.T
        psi = jax.scipy.special.digamma(c / 2) + jax.scipy.special.digamma((c - 1) / 2)
        log_det = jnp.linalg.slogdet(s)[1] + psi + 2 * jnp.log(2)
        return jnp.stack([c * s[1, 0], c**2 * s[0, 0] * s[1, 1] + 2 * c * s[1, 0] ** 2, log_det])

    def both(fn: Any) -> Any:
        return lambda *args: (fn(0.0, *args), jax.jacfwd(fn)(0.0, *args), jax.jacfwd(jax.jacrev(fn))(0.0, *args))

    keys = jax.random.split(jax.random.key(1), 40_000)
    draws = jax.jit(jax.vmap(both(along(costs))))(keys)
    for found, wanted in zip(draws, jax.jit(both(along(exact)))(), strict=True):
        assert_unbiased(found, wanted)


@pytest.mark.slow
def test_nothing_is_nan_in_float32() -> None:
    concentration = jnp.asarray([1.0001, 1.01, 3.0, 1e3, 1e6], jnp.float32)

    def draw(c: Any, key: Any) -> Any:
        dist = laws.Wishart(c, jnp.asarray(TRIL[:2, :2], jnp.float32))
        x = dist.sample(key)
        return jnp.sum(x), (x, jnp.where(c > 2, dist.log_prob(x), 0.0))

    gradient = jax.jit(
        jax.vmap(jax.value_and_grad(lambda c, k: jax.tree.map(jnp.sum, draw(c, k)), has_aux=True), (None, 0))
    )
    (total, (x, log_prob)), slopes = gradient(concentration, jax.random.split(jax.random.key(2), 200))
    for leaf in (total, x, log_prob, slopes):
        assert np.isfinite(leaf).all() and leaf.dtype == np.float32
