"""The multinomial law against SciPy, and gradients of its expectations against sums over all vectors of counts."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased

import mcgrad

P = np.array([[0.5, 0.2, 0.3], [0.6, 0.4, 0.0]])
TRIALS = np.array([4, 7])


def _counts(n: int) -> np.ndarray:
    """All vectors of three counts that add up to `n`."""
    return np.array([x for x in itertools.product(range(n + 1), repeat=3) if sum(x) == n])


def test_probabilities_are_scipys() -> None:
    for given in ({"probs": jnp.asarray(P)}, {"logits": jnp.log(P) + 1.0}):
        law = mcgrad.Multinomial(jnp.asarray(TRIALS), **given)
        for n, (i, p) in zip(TRIALS, enumerate(P), strict=True):
            x = _counts(n)
            log_prob = jax.vmap(law.log_prob)(jnp.asarray(x)[:, None])[:, i]
            np.testing.assert_allclose(log_prob, scipy.stats.multinomial(n, p).logpmf(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_follow_the_law(dtype: Any) -> None:
    law = mcgrad.Multinomial(jnp.asarray(TRIALS), probs=jnp.asarray(P, dtype))
    draws = np.asarray(jax.jit(jax.vmap(law.sample))(jax.random.split(jax.random.key(0), 5_000)))
    assert (draws.sum(-1) == TRIALS).all() and draws.min() == 0
    for i, (n, p) in enumerate(zip(TRIALS, P, strict=True)):
        x = _counts(n)
        expected = 5_000 * scipy.stats.multinomial(n, p).pmf(x)
        observed = (draws[:, i, None] == x).all(-1).sum(0)
        possible = expected > 0
        assert expected[possible].min() > 5 and not observed[~possible].any()
        assert scipy.stats.chisquare(observed[possible], expected[possible]).pvalue > 1e-4


WEIGHTS = jnp.array([1.0, -0.6, 0.3])
LOGITS = jnp.array([[0.4, -0.5, 0.1], [0.0, 1.0, -0.7]])


def _cost(x: Any) -> Any:
    return jnp.tanh(0.5 * (x @ WEIGHTS)) + 0.2 * (x[..., 0] > 1)


def _law(params: Any, spelling: str) -> Any:
    return mcgrad.Multinomial(3, **{spelling: params})


@pytest.mark.parametrize("spelling", ["logits", "probs"])
@pytest.mark.parametrize(
    "estimator",
    [
        mcgrad.Score(),
        mcgrad.MeasureValued(),
        pytest.param(mcgrad.MeasureValued(coupling="independent"), marks=pytest.mark.slow),
    ],
    ids=["score", "measure valued", "independent"],
)
def test_gradients_are_those_of_sums(estimator: Any, spelling: str) -> None:
    """Of a batch of two."""
    params = LOGITS if spelling == "logits" else jax.nn.softmax(LOGITS)
    support = jnp.asarray(_counts(3))

    def program(params: Any, key: Any) -> Any:
        return jnp.sum(_cost(1.0 * mcgrad.sample(key, _law(params, spelling), estimator)))

    def expectation(params: Any) -> Any:
        log_prob = jax.vmap(lambda x: _law(params, spelling).log_prob(x[None]))(support)
        return jnp.sum(_cost(1.0 * support) @ jnp.exp(log_prob))

    keys = jax.random.split(jax.random.key(1), 20_000)
    draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(params, keys)
    wanted = jax.jit(jax.grad(expectation))(params)
    assert_unbiased(draws.reshape(len(keys), -1), wanted.ravel())
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(1.1 * draws.reshape(len(keys), -1), wanted.ravel())


def test_weak_derivatives_put_one_trial_elsewhere() -> None:
    """Class by class, and none where there is no trial or no other class."""
    law = mcgrad.Multinomial(jnp.asarray([0, 5]), logits=jnp.asarray([[0.4, -jnp.inf, 0.1], [0.0, 1.0, -0.7]]))
    x = law.sample(jax.random.key(0))
    (term,) = law.weak_derivative(jax.random.key(1), x, mcgrad.Coupling(True, False))
    assert (term.positive.sum(-1) == jnp.asarray([[0, 5]])).all() and (term.positive >= 0).all()
    assert (jnp.abs(term.positive - term.negative).sum(-1) <= 2).all()
    np.testing.assert_array_equal(term.negative, jnp.broadcast_to(x, term.negative.shape))
    np.testing.assert_allclose(term.weight.sum(0), [0, 5], rtol=1e-12)
