"""Plackett-Luce rankings, of all items and of the first places, against all of them."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from distributions import call
from helpers import assert_unbiased, derivatives, gradient_draws

import mcgrad

LOGITS = jnp.asarray([0.4, -0.5, 0.1, 0.9])
W = jnp.asarray([0.7, -0.4, 1.3, 0.2])


def by_hand(logits: Any, x: Any) -> Any:
    """One place after the other."""
    weights = jnp.exp(logits)
    left, total = jnp.sum(weights), 0.0
    for item in x:
        total, left = total + jnp.log(weights[item] / left), left - weights[item]
    return total


def rankings(k: int | None) -> Any:
    return jnp.asarray(list(itertools.permutations(range(4), k or 4)))


def cost(x: Any, k: int | None) -> Any:
    return jnp.sin(x @ W[: k or 4] + 0.3 * x[..., 0] * x[..., -1])


@pytest.mark.parametrize("k", [None, 2, 1])
def test_probabilities_are_those_of_place_after_place(k: int | None) -> None:
    dist, every = mcgrad.PlackettLuce(LOGITS, k), rankings(k)
    np.testing.assert_array_equal(dist.support(), every)
    value, slope = jax.jit(
        jax.vmap(jax.value_and_grad(lambda logits, x: mcgrad.PlackettLuce(logits, k).log_prob(x)), (None, 0))
    )(LOGITS, every)
    by_places = jax.vmap(jax.value_and_grad(by_hand), (None, 0))(LOGITS, every)
    np.testing.assert_allclose(value, by_places[0], rtol=1e-12)
    np.testing.assert_allclose(slope, by_places[1], atol=1e-12)
    draws = np.asarray(jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 5_000)))
    observed = (draws[:, None] == np.asarray(every)).all(-1).sum(0)
    assert scipy.stats.chisquare(observed, 5_000 * np.exp(value)).pvalue > 1e-4


def test_what_is_no_ranking_has_no_probability() -> None:
    dist = mcgrad.PlackettLuce(jnp.asarray([0.0, 1.0, -jnp.inf]), 2)
    x = jnp.asarray([[0, 1], [1, 1], [0, 2], [0, 3], [-1, 0]])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda d, x: d.log_prob(x)), (None, 0)))(dist, x)
    np.testing.assert_allclose(value, [-np.log1p(np.e), *[-np.inf] * 4], rtol=1e-6)
    assert np.isfinite(slope.logits).all()
    assert call(dist, "log_prob", jnp.asarray([0.5, 1.0])) == -jnp.inf


def test_extreme_weights() -> None:
    dist = mcgrad.PlackettLuce(jnp.asarray([1000.0, 0.0, -1000.0, 0.0], np.float32))
    x = jnp.asarray([0, 1, 3, 2])
    value, slope = jax.jit(jax.value_and_grad(lambda d: d.log_prob(x)))(dist)
    np.testing.assert_allclose(value, np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(slope.logits, [0, 0.5, 0, -0.5], atol=1e-6)
    drawn = call(dist, "sample", jax.random.key(0))
    assert drawn[0] == 0 and drawn[3] == 2
    relaxation = jax.jit(lambda x: dist.relaxation(jax.random.key(1), x, False))
    for of in (x, x[::-1]):
        relaxed = relaxation(of)
        np.testing.assert_array_equal(jnp.argsort(-relaxed.given), of)


def _relax(k: int | None) -> Any:
    return mcgrad.RELAX(lambda z: jnp.sin(0.5 * z[..., 0] - z[..., 3]) * jax.nn.sigmoid(z[..., 1]))


ESTIMATORS = {
    "score": (lambda k: mcgrad.Score(num_samples=2), 2),
    "enumerate": (lambda k: mcgrad.Enumerate(), 2),
    "unordered set": (lambda k: mcgrad.UnorderedSet(3), 2),
    "measure-valued": (lambda k: mcgrad.MeasureValued(), 1),
    "relax": (_relax, 2),
    "relax, coupled": (lambda k: mcgrad.RELAX(_relax(k).control, coupled=True), 2),
}
BY_DEFAULT = {("enumerate", None), ("measure-valued", 2)}


@pytest.mark.parametrize(
    ("name", "k"),
    [
        pytest.param(*pair, marks=() if pair in BY_DEFAULT else pytest.mark.slow)
        for pair in itertools.product(ESTIMATORS, (None, 2))
    ],
)
def test_derivatives_are_those_of_all_rankings(name: str, k: int | None) -> None:
    make, order = ESTIMATORS[name]

    def expectation(logits: Any) -> Any:
        return jnp.exp(jax.vmap(by_hand, (None, 0))(logits, rankings(k))) @ cost(rankings(k), k)

    def program(logits: Any, key: Any) -> Any:
        return cost(1.0 * mcgrad.sample(key, mcgrad.PlackettLuce(logits, k)), k)

    of = mcgrad.expectation(program, estimator=make(k))
    exact = jax.tree.map(np.asarray, jax.jit(lambda logits: derivatives(expectation, logits, order))(LOGITS))
    draws = gradient_draws(
        lambda key: derivatives(lambda logits: of(logits, key), LOGITS, order), exact, jax.random.key(3)
    )
    for each, wanted in exact.items():
        assert_unbiased(draws[each], wanted)


def test_relaxed_draws_given_a_ranking_are_perturbed_logits() -> None:
    """Over rankings, of the distribution of `log p + Gumbel`, in both moments; and each gives its ranking."""
    dist = mcgrad.PlackettLuce(LOGITS, 2)

    @jax.jit
    @jax.vmap
    def draws(key: Any) -> Any:
        one, two = jax.random.split(key)
        x = dist.sample(one)
        return x, dist.relaxation(two, x, False)

    x, relaxed = draws(jax.random.split(jax.random.key(0), 20_000))
    for z in (relaxed.free, relaxed.given):
        np.testing.assert_array_equal(jnp.argsort(-z, axis=-1)[:, :2], x)
        centered = z - jax.nn.log_softmax(LOGITS)[None]
        for i in range(4):
            assert scipy.stats.kstest(centered[:, i], scipy.stats.gumbel_r.cdf).pvalue > 1e-4
        np.testing.assert_allclose(jnp.cov(centered.T), np.eye(4) * np.pi**2 / 6, atol=0.1)


def test_what_is_no_number_of_places_is_refused() -> None:
    for k in (0, 5, 2.0):
        with pytest.raises(ValueError, match=r"PlackettLuce\(k=...\)` must be a number of places, from 1 to the 4"):
            mcgrad.PlackettLuce(LOGITS, k)
    with pytest.raises(ValueError, match="must leave at least k = 3 possible"):
        mcgrad.PlackettLuce(jnp.asarray([0.0, 1.0, -jnp.inf]))

    def program(logits: Any, key: Any) -> Any:
        return jnp.sum(1.0 * mcgrad.sample(key, mcgrad.PlackettLuce(logits), mcgrad.StraightThrough()))

    with pytest.raises(ValueError, match="its draws are int32, which have no derivative"):
        jax.eval_shape(mcgrad.grad(program), LOGITS, jax.random.key(0))
