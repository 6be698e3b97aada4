"""The negative binomial law where its parameters are large or small, and gradients of its expectations against sums."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased, central_difference

import mcgrad


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 1e-5)])
def test_digits_are_kept_where_gamma_functions_cancel(dtype: Any, bound: float) -> None:
    """SciPy itself has nine digits here."""
    r, p, x = np.meshgrid([1e-3, 0.7, 4.0, 1e4, 1e7], [1e-6, 0.1, 0.5, 0.999], [0.0, 1.0, 3.0, 50.0, 1000.0])
    r, p = (np.float64(np.asarray(v, dtype)) for v in (r, p))
    exact = scipy.stats.nbinom(r, 1 - p)
    law = mcgrad.NegativeBinomial(jnp.asarray(r, dtype), probs=jnp.asarray(p, dtype))
    log_prob, cdf = jax.jit(lambda law, x: (law.log_prob(x), law.cdf(x)))(law, x.astype(dtype))
    np.testing.assert_allclose(log_prob, exact.logpmf(x), rtol=bound)
    np.testing.assert_allclose(cdf, exact.cdf(x), atol=bound)


def test_distribution_function_moves_with_both_parameters() -> None:
    points = jnp.asarray([-1.0, 0.0, 1.5, 7.0, jnp.inf])

    def cdf(r: Any, logits: Any) -> Any:
        return mcgrad.NegativeBinomial(r, logits=logits).cdf(points)

    def reference(r: Any, logits: Any) -> Any:
        return scipy.stats.nbinom.cdf(points, r, scipy.special.expit(-logits))

    found = jax.jit(jax.jacfwd(cdf, (0, 1)))(1.7, 0.4)
    exact = [
        central_difference(lambda r: reference(r, 0.4), 1.7, 1e-2),
        central_difference(lambda logits: reference(1.7, logits), 0.4, 1e-2),
    ]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-11)
    np.testing.assert_array_equal(mcgrad.NegativeBinomial(1.7, probs=0.0).cdf(points), [0, 1, 1, 1, 1])
    assert np.isnan(mcgrad.NegativeBinomial(1.7, probs=0.5).cdf(jnp.nan))


def test_draws_of_a_batch_are_independent_and_those_that_do_not_fit_are_cut() -> None:
    law = mcgrad.NegativeBinomial(0.5, probs=jnp.full(20_000, 0.9))  # most of the variance is that of the rate
    sample = jax.jit(lambda law, key: law.sample(key))
    x = np.asarray(sample(law, jax.random.key(0)), float)
    assert abs(np.corrcoef(x[::2], x[1::2])[0, 1]) < 5 / np.sqrt(10_000)
    assert abs(x.mean() - 4.5) < 5 * np.sqrt(45 / 20_000)
    extremes = jnp.where(jnp.arange(100) < 50, 60.0, -jnp.inf)
    for dtype in (jnp.float32, jnp.float64):
        law = mcgrad.NegativeBinomial(jnp.asarray(3.0, dtype), logits=extremes.astype(dtype))
        x = np.asarray(sample(law, jax.random.key(2)))
        assert (x[:50] > 2**31 - 2**19).all() and (x[50:] == 0).all()


# measure-valued derivatives are tested with those of all laws
ESTIMATORS = {
    "score": mcgrad.Score(),
    "smoothed perturbation": mcgrad.SmoothedPerturbation(),
}


def _cost(x: Any) -> Any:
    return jnp.log1p(x) + 0.3 * (x > 1.5)


@functools.cache
def _exact() -> Any:
    x = jnp.arange(2_000)

    def expectation(r: Any, logits: Any) -> Any:
        return _cost(1.0 * x) @ jnp.exp(mcgrad.NegativeBinomial(r, logits=logits).log_prob(x))

    return jax.jit(jax.grad(lambda p: jnp.sum(jax.vmap(expectation)(*p))))(POINT)


# two entries of a batch
POINT = (jnp.array([0.8, 3.0]), jnp.array([-0.4, 0.5]))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_are_those_of_sums(name: str) -> None:
    def program(params: Any, key: Any) -> Any:
        r, logits = params
        return jnp.sum(_cost(1.0 * mcgrad.sample(key, mcgrad.NegativeBinomial(r, logits=logits), ESTIMATORS[name])))

    keys = jax.random.split(jax.random.key(0), 6_000 if name == "smoothed perturbation" else 30_000)
    draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(POINT, keys)
    assert_unbiased(jnp.concatenate(draws, -1), jnp.concatenate(_exact()))
