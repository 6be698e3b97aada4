"""Categorical distributions, of numbers and one-hot, against their tables of probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import ORDINARY
from distributions.discrete import WEIGHTS, sigmoid
from helpers import assert_unbiased

import mcgrad


@pytest.mark.parametrize("name", [name for name in sorted(ORDINARY) if "Categorical" in name])
def test_categorical_against_its_table(name: str) -> None:
    dist = ORDINARY[name].dist()
    one_hot = dist.event_ndim == 1
    for k in range(3):
        x = jax.nn.one_hot(jnp.full(2, k), 3, dtype=jnp.int32) if one_hot else jnp.full(2, k)
        np.testing.assert_allclose(dist.log_prob(x), np.log(WEIGHTS[:, k]), rtol=1e-12)
        np.testing.assert_allclose(dist.prob(x), WEIGHTS[:, k], rtol=1e-12)
        if not one_hot:
            np.testing.assert_allclose(dist.cdf(x), WEIGHTS[:, : k + 1].sum(-1), rtol=1e-12)
    num = 20_000
    draws = jax.vmap(dist.sample)(jax.random.split(jax.random.key(4), num))
    counts = np.stack([np.mean(draws == k, axis=0) for k in range(3)], -1) if not one_hot else np.mean(draws, axis=0)
    np.testing.assert_array_less(np.abs(counts - WEIGHTS), 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / num))
    if not one_hot:
        np.testing.assert_array_equal(dist.icdf(jnp.asarray([0.1, 0.1])), [0, 0])
        np.testing.assert_array_equal(dist.icdf(jnp.asarray([0.71, 0.15])), [2, 1])
        np.testing.assert_array_equal(dist.icdf(1.0), [2, 2])


def test_categorical_probs_score_has_mean_zero() -> None:
    p = jnp.asarray(WEIGHTS[0])
    score = jax.vmap(jax.grad(lambda p, k: mcgrad.Categorical(probs=p).log_prob(k)), (None, 0))(p, jnp.arange(3))
    np.testing.assert_allclose(p @ score, np.zeros(3), atol=1e-12)


def test_excluded_classes() -> None:
    logits = jnp.asarray([0.0, -jnp.inf, 1.0])
    dist = mcgrad.Categorical(logits=logits)
    assert dist.log_prob(1) == -jnp.inf
    gradient = jax.grad(lambda logits: mcgrad.Categorical(logits=logits).log_prob(0))(logits)
    np.testing.assert_allclose(gradient, [1 - sigmoid(-1.0), 0.0, -sigmoid(1.0)], rtol=1e-12)
    draws = jax.vmap(dist.sample)(jax.random.split(jax.random.key(0), 500))
    assert set(np.unique(draws)) == {0, 2}
    hot = mcgrad.OneHotCategorical(logits=logits)
    assert hot.log_prob(jnp.asarray([0, 1, 0])) == -jnp.inf
    gradient = jax.grad(lambda logits: mcgrad.OneHotCategorical(logits=logits).log_prob(jnp.asarray([1, 0, 0])))(logits)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("estimator", [mcgrad.Enumerate(), mcgrad.LocalExpectation(), mcgrad.MeasureValued()], ids=repr)
@pytest.mark.parametrize("cost", ["surprise", "root"])
def test_what_an_excluded_class_costs_is_nobodys_concern(estimator, cost):
    """Its cost may be infinite, or have an infinite derivative."""

    def of(p, x):
        return jnp.sqrt(p[x]) if cost == "root" else -jnp.log(jax.lax.stop_gradient(p)[x])

    def loss(logits, key):
        logits = jnp.where(jnp.arange(3) < 2, logits, -jnp.inf)
        keys = jax.random.split(key)
        xs = [mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator) for key in keys]
        return of(jax.nn.softmax(logits), xs[0]) * of(jax.nn.softmax(logits), xs[1])

    def exact(logits):
        p = jax.nn.softmax(logits[:2])
        return jnp.sum(p * of(p, jnp.arange(2))) ** 2

    logits = jnp.array([0.1, 0.9, 0.4])
    draws = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(logits, jax.random.split(jax.random.key(0), 20_000))
    if isinstance(estimator, mcgrad.Enumerate):
        np.testing.assert_allclose(draws[0], jax.grad(exact)(logits), rtol=1e-6)
        second = jax.jacfwd(mcgrad.grad(loss))(logits, jax.random.key(0))
        np.testing.assert_allclose(second, jax.hessian(exact)(logits), rtol=1e-6, atol=1e-12)
    else:
        assert_unbiased(draws[:, :2], jax.grad(exact)(logits)[:2])
