"""Subsets of a given size, against all of them."""

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
from mcgrad.distributions.numerics import sums_of_bits

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=10) * 1.5)
SUBSETS = jnp.asarray([[i in chosen for i in range(10)] for chosen in itertools.combinations(range(10), 5)], float)
W = jnp.asarray(np.random.default_rng(1).normal(size=10))


def cost(x: Any) -> Any:
    return jnp.tanh(x @ W) + 0.3 * x[..., 0] * x[..., 1]


def arrays(dist: Any, x: Any) -> Any:
    return [t._replace(parameters=()) for t in dist.weak_derivative(jax.random.key(2), x, mcgrad.Coupling(True, False))]


def expectation(logits: Any) -> Any:
    return jax.nn.softmax(SUBSETS @ logits) @ cost(SUBSETS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_and_marginals_are_those_of_all_subsets(dtype: Any) -> None:
    digits = {np.float32: 2e-6, np.float64: 1e-13}[dtype]
    log_p = np.asarray(jax.nn.log_softmax(SUBSETS @ LOGITS))
    mean = np.exp(log_p) @ SUBSETS
    covariance = (np.asarray(SUBSETS).T * np.exp(log_p)) @ np.asarray(SUBSETS) - np.outer(mean, mean)

    @jax.jit
    def found(logits: Any) -> Any:
        of_all = jax.vmap(mcgrad.Subset(logits, 5).log_prob)(SUBSETS)
        moved = jax.jacfwd(lambda logits: mcgrad.Subset(logits, 5).marginals())(logits)
        score = jax.grad(lambda logits: mcgrad.Subset(logits, 5).log_prob(SUBSETS[7]))(logits)
        return of_all, mcgrad.Subset(logits, 5).marginals(), moved, score

    for shift in (0.0, -40.0):  # which changes nothing
        got = found(jnp.asarray(LOGITS + shift, dtype))
        assert all(x.dtype == dtype for x in got)
        for x, wanted in zip(got, (log_p, mean, covariance, SUBSETS[7] - mean), strict=True):
            np.testing.assert_allclose(x, wanted, atol=digits * (10 if shift and dtype == np.float32 else 1))
    np.testing.assert_array_equal(mcgrad.Subset(LOGITS, 5).support(), SUBSETS)


def test_draws_follow_the_law() -> None:
    dist = mcgrad.Subset(jnp.stack([LOGITS[:5], jnp.zeros(5)]).astype(np.float32), 2)
    draws = np.asarray(jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 5_000)))
    assert (draws.sum(-1) == 2).all() and set(np.unique(draws)) == {0, 1}
    values = np.asarray(dist.support())
    for i, logits in enumerate(np.asarray(dist.logits, np.float64)):
        expected = 5_000 * np.asarray(jax.nn.softmax(values @ logits))
        observed = (draws[:, i, None] == values).all(-1).sum(0)
        assert expected.min() > 5 and scipy.stats.chisquare(observed, expected).pvalue > 1e-4


ESTIMATORS = {
    "score": (mcgrad.Score(num_samples=2), 2),
    "enumerate": (mcgrad.Enumerate(), 2),
    "unordered set": (mcgrad.UnorderedSet(3), 2),
    "local expectation": (mcgrad.LocalExpectation(), 1),
    "measure-valued": (mcgrad.MeasureValued(), 1),
    "auto": (mcgrad.Auto(), 2),
}
BY_DEFAULT = ("score", "enumerate", "measure-valued")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow) for name in ESTIMATORS]
)
def test_derivatives_are_those_of_all_subsets(name: str) -> None:
    estimator, order = ESTIMATORS[name]

    def program(logits: Any, key: Any) -> Any:
        return cost(1.0 * mcgrad.sample(key, mcgrad.Subset(logits, 5)))

    of = mcgrad.expectation(program, estimator=estimator)
    exact = jax.jit(lambda logits: derivatives(expectation, logits, order))(LOGITS)
    exact = jax.tree.map(np.asarray, exact)
    draws = gradient_draws(
        lambda key: derivatives(lambda logits: of(logits, key), LOGITS, order), exact, jax.random.key(3)
    )
    for each, wanted in exact.items():
        assert_unbiased(draws[each], wanted)


@pytest.mark.slow
def test_a_batch_is_moved_all_at_once() -> None:
    """Measure-valued, of a batch of two: an evaluation an item; and each exchange is of one item for another."""
    batch = jnp.stack([LOGITS, LOGITS[::-1]])

    def program(logits: Any, key: Any) -> Any:
        return jnp.sum(cost(1.0 * mcgrad.sample(key, mcgrad.Subset(logits, 5), mcgrad.MeasureValued())))

    draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(batch, jax.random.split(jax.random.key(0), 4_000))
    wanted = jnp.stack([jax.grad(expectation)(row) for row in batch])
    assert_unbiased(draws.reshape(len(draws), -1), wanted.ravel())
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(1.15 * draws.reshape(len(draws), -1), wanted.ravel())
    dist = mcgrad.Subset(batch, 5)
    (term,) = jax.jit(lambda x: arrays(dist, x))(call(dist, "sample", jax.random.key(1)))
    assert (term.positive.sum(-1) == 5).all() and (term.negative.sum(-1) == 5).all()
    np.testing.assert_array_equal(jnp.abs(term.positive - term.negative).sum(-1), 2)


def test_straight_through_is_exact_for_linear_costs() -> None:
    """SIMPLE: a draw that moves as its marginals do."""

    def program(logits: Any, key: Any) -> Any:
        return W @ mcgrad.sample(key, mcgrad.Subset(logits, 5), mcgrad.StraightThrough())

    got = jax.jit(mcgrad.grad(program))(LOGITS, jax.random.key(0))
    np.testing.assert_allclose(
        got, jax.grad(lambda logits: jax.nn.softmax(SUBSETS @ logits) @ (SUBSETS @ W))(LOGITS), rtol=1e-12
    )
    assert mcgrad.StraightThrough.biased

    def heun(logits: Any, key: Any) -> Any:
        return W @ mcgrad.sample(key, mcgrad.Subset(logits, 5), mcgrad.ReinMax())

    with pytest.raises(ValueError, match="no relaxation"):
        jax.eval_shape(mcgrad.grad(heun), LOGITS, jax.random.key(0))


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_certain_and_impossible_items(dtype: Any) -> None:
    dist = mcgrad.Subset(jnp.asarray([1000.0, 0.0, 0.0, -1000.0, -jnp.inf], dtype), 2)
    half = np.log(0.5)
    x = jnp.asarray([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1], [1, 1, 1, 0, 0]])
    log_prob, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda d, x: d.log_prob(x)), (None, 0)))(dist, x)
    np.testing.assert_allclose(log_prob, [half, half - 1000, half - 1000, -np.inf, -np.inf], rtol=1e-6)
    assert np.isfinite(slopes.logits).all()
    np.testing.assert_allclose(call(dist, "marginals"), [1, 0.5, 0.5, 0, 0], atol=1e-6)
    draws = jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 20))
    np.testing.assert_array_equal(draws @ jnp.asarray([2, 1, 1, 9, 9]), 3)
    (term,) = jax.jit(lambda x: arrays(dist, x))(x[0])
    assert (term.positive.sum(-1) == 2).all() and (term.negative[:, 4] == 0).all() and np.isfinite(term.weight).all()
    wide = mcgrad.Subset(jnp.asarray([1e30, 0.0, 0.5, -1e30], dtype), 2)
    np.testing.assert_allclose(call(wide, "marginals"), [1, *jax.nn.softmax(jnp.asarray([0.0, 0.5])), 0], atol=1e-6)
    assert np.isnan(
        jax.jit(lambda logits: mcgrad.Subset(logits, 2).log_prob(x[0]))(jnp.log(jnp.eye(5, dtype=dtype)[0]))
    )
    everything = mcgrad.Subset(jnp.asarray([1.0, -300.0], dtype), 2)
    assert call(everything, "sample", jax.random.key(0)).tolist() == [1, 1]
    np.testing.assert_allclose(call(everything, "log_prob", jnp.ones(2)), 0, atol=1e-6)


def test_many_items() -> None:
    """A thousand, in single precision: the marginals add up, and are those of double precision."""
    logits = jnp.asarray(3 * np.random.default_rng(2).normal(size=1000))
    exact = jax.jit(lambda logits: mcgrad.Subset(logits, 50).marginals())
    np.testing.assert_allclose(exact(logits).sum(), 50, rtol=1e-12)
    np.testing.assert_allclose(exact(logits.astype(np.float32)), exact(logits), atol=2e-5)
    # by another way: one item after the other
    p = np.asarray(jax.nn.sigmoid(logits - sums_of_bits.tilt(logits, 50)))
    counts = np.zeros(51)
    counts[0] = 1
    for chance in p:
        counts[1:] = counts[1:] * (1 - chance) + counts[:-1] * chance
        counts[0] *= 1 - chance
    q = jnp.asarray(1 - p)
    np.testing.assert_allclose(sums_of_bits.tree_of_sums(jnp.asarray(p), q, 50)[-1][0], counts, rtol=1e-11, atol=1e-300)


def test_what_is_no_subset_is_refused() -> None:
    for k in (0, 11, 2.0, True):
        with pytest.raises(ValueError, match=r"Subset\(k=...\)` must be a number of items, from 1 to the 10"):
            mcgrad.Subset(LOGITS, k)
    with pytest.raises(ValueError, match=r"must leave at least k = 2 possible, got a row with 1 above -inf"):
        mcgrad.Subset(jnp.asarray([[0.0, 1.0], [-jnp.inf, 1.0]]), 2)
    with pytest.raises(TypeError, match=r"Subset\(dtype=...\)` must be of numbers"):
        mcgrad.Subset(LOGITS, 2, dtype=bool)

    def program(logits: Any, key: Any) -> Any:
        return cost(1.0 * mcgrad.sample(key, mcgrad.Subset(logits, 5), mcgrad.RELAX(lambda z: jnp.sum(z))))

    with pytest.raises(ValueError, match=r"RELAX` would be wrong at the draw from Subset.*no relaxation"):
        jax.eval_shape(mcgrad.grad(program), LOGITS, jax.random.key(0))
