"""Randomized series: known limits with their derivatives, bounds of many samples, and what a report says of them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives

import mcgrad

FORMS = ("single", "sum")


def term(n, x, key):
    """Of the exponential series."""
    return x**n / float(math.factorial(n))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_known_series_and_its_derivatives(form, dtype):
    program = mcgrad.debias(term, rate=0.5, max_level=12, form=form)
    x = jnp.asarray(0.7, dtype)

    @jax.jit
    @jax.vmap
    def draw(key):
        return derivatives(lambda x: program(x, jax.random.clone(key)), x, 2)

    with jax.debug_key_reuse(False):
        draws = draw(jax.random.split(jax.random.key(0), 100_000))
    assert draws["value"].dtype == dtype
    assert_unbiased(draws, jax.tree.map(np.asarray, derivatives(jnp.exp, jnp.float64(0.7), 2)))


def log_weight(loc, x, key):
    """Its mean weight is the density of `x` under `N(loc, 2)`."""
    q = mcgrad.Normal(x / 2 + 0.4, 0.9)
    z = mcgrad.sample(key, q)
    return mcgrad.Normal(loc, 1.0).log_prob(z) + mcgrad.Normal(z, 1.0).log_prob(x) - q.log_prob(z)


def bound_level(n, loc, x, key):
    """Of the bound of `2^n` samples, less the mean of the bounds of both halves of them."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2**n))
    weights = jax.vmap(log_weight, (None, None, 0))(loc, x, keys)
    whole = jax.nn.logmeanexp(weights)
    return whole - jnp.mean(jax.nn.logmeanexp(weights.reshape(2, -1), axis=1)) if n else whole


def test_the_limit_of_importance_weighted_bounds():
    """The marginal log likelihood, where the bound of one sample is seen to be off."""
    keys = jax.random.split(jax.random.key(1), 20_000)
    exact = jax.value_and_grad(lambda loc: mcgrad.Normal(loc, math.sqrt(2)).log_prob(1.3))(0.4)
    program = mcgrad.debias(bound_level, rate=0.35, max_level=4)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(mcgrad.value_and_grad(program), (None, None, 0)))(0.4, 1.3, keys)
    assert_unbiased(draws, exact)
    elbo = jax.jit(jax.vmap(log_weight, (None, None, 0)))(0.4, 1.3, keys)
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(elbo, exact[0])


@pytest.mark.parametrize("form", FORMS)
def test_levels_that_draw_by_score(form):
    def level(n, logit, key):
        bit = mcgrad.sample(jax.random.fold_in(key, n), mcgrad.Bernoulli(logits=logit), mcgrad.Score())
        return (bit + 0.3) / 2.0**n

    program = mcgrad.debias(level, rate=0.6, max_level=3, form=form)
    keys = jax.random.split(jax.random.key(2), 40_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(mcgrad.value_and_grad(program), (None, 0)))(0.4, keys)
    assert_unbiased(draws, jax.value_and_grad(lambda logit: 1.875 * (jax.nn.sigmoid(logit) + 0.3))(0.4))


def test_a_report_predicts_the_variance():
    def level(n, key):
        e = jax.vmap(jax.random.normal)(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2**n)))
        whole = jnp.log(jnp.mean(jnp.exp(0.5 * e)))
        return whole - jnp.mean(jnp.log(jnp.mean(jnp.exp(0.5 * e.reshape(2, -1)), axis=1))) if n else whole

    report = mcgrad.debias_report(level, rate=0.35, max_level=4, num_samples=4000)(jax.random.key(3))
    keys = jax.random.split(jax.random.key(4), 20_000)
    for form in FORMS:
        program = mcgrad.debias(level, rate=0.35, max_level=4, form=form)
        with jax.debug_key_reuse(False):
            values = jax.jit(jax.vmap(program))(keys)
        assert np.var(values) == pytest.approx(report.variance[form], rel=0.2)
    assert 0.1 < report.decay < 0.4 and 1.5 < report.growth < 2.5
    assert report.finite_variance and report.finite_cost
    assert report.decay < report.best_rate < 1 / report.growth
    assert "keeps both finite" in str(report)


def test_a_report_of_what_is_known():
    make = lambda rate, growth=1.0: mcgrad.debias_report(  # noqa: E731
        lambda n, key: 0.5**n, rate=rate, max_level=6, num_samples=2, cost=lambda n: growth**n
    )(key=jax.random.key(0))
    report = make(0.5)
    assert isinstance(report, mcgrad.DebiasReport)
    assert report.decay == pytest.approx(0.25) and report.growth == pytest.approx(1.0)
    np.testing.assert_allclose(report.means, 0.5 ** np.arange(7))
    chances = np.array([0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125])
    corrections = 0.5 ** np.arange(1, 7)
    variance = np.sum(corrections**2 / chances) - np.sum(corrections) ** 2
    assert report.variance["single"] == pytest.approx(variance)
    assert report.cost == {"single": pytest.approx(2.0), "sum": pytest.approx(sum(0.5**n for n in range(7)))}
    assert not make(0.2).finite_variance and "0.2 does not" in str(make(0.2))
    assert not make(0.6, 2.0).finite_cost
    assert np.isnan(make(0.6, 8.0).best_rate) and "no rate" in str(make(0.6, 8.0))


def test_only_one_level_is_run_besides_the_first():
    runs = []

    def level(n, key):
        jax.debug.callback(lambda: runs.append(n))
        return jnp.float64(1.0)

    program = jax.jit(mcgrad.debias(level, rate=0.5, max_level=4))
    for seed in range(20):
        runs.clear()
        program(key=jax.random.key(seed)).block_until_ready()
        jax.effects_barrier()
        assert len(runs) == 2 and 0 in runs


def test_what_is_refused():
    key = jax.random.key(0)
    for rate in (0.0, 1.0, "a half", True):
        with pytest.raises(ValueError, match=r"`mcgrad.debias\(rate=...\)` must be a number between 0 and 1"):
            mcgrad.debias(term, rate=rate, max_level=3)
    with pytest.raises(ValueError, match="a traced value"):
        jax.jit(lambda rate: mcgrad.debias(term, rate=rate, max_level=3)(0.1, key))(0.5)
    with pytest.raises(ValueError, match=r"`mcgrad.debias\(max_level=...\)` must be a positive int"):
        mcgrad.debias(term, rate=0.5, max_level=0)
    with pytest.raises(ValueError, match=r"`mcgrad.debias\(form=...\)` must be"):
        mcgrad.debias(term, rate=0.5, max_level=3, form="both")
    with pytest.raises(TypeError, match=r"`mcgrad.debias_report\(level=...\)` must be a function"):
        mcgrad.debias_report(0.5, rate=0.5, max_level=3)
    with pytest.raises(ValueError, match=r"`mcgrad.debias_report\(num_samples=...\)` must be an int of at least 2"):
        mcgrad.debias_report(term, rate=0.5, max_level=3, num_samples=1)
    with pytest.raises(TypeError, match="must return floating-point numbers, got int"):
        mcgrad.debias(lambda n, key: n, rate=0.5, max_level=3)(key=key)
    with pytest.raises(TypeError, match=r"the same shapes and dtypes at every level, got float64\[2\] at level 1"):
        mcgrad.debias(lambda n, key: jnp.ones(n + 1), rate=0.5, max_level=3)(key=key)
    with pytest.raises(ValueError, match="must find the argument named `key`"):
        mcgrad.debias(lambda n, x: x, rate=0.5, max_level=3)(0.1)


@pytest.mark.parametrize("form", FORMS)
def test_a_series_of_series_draws_two_numbers_of_levels(form):
    """The same key is handed on: with one number of levels for both, the value would be 16.4 in the form of sums."""
    inner = mcgrad.debias(lambda n, x, key: x * 0.8**n, rate=0.5, max_level=3, form="sum")
    outer = mcgrad.debias(lambda n, x, key: inner(x, key) * 0.8**n, rate=0.5, max_level=3, form=form)
    keys = jax.random.split(jax.random.key(1), 50_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(lambda key: jnp.stack(jax.value_and_grad(outer)(1.0, key))))(keys)
    exact = sum(0.8**n for n in range(4)) ** 2
    assert_unbiased(draws, jnp.array([exact, exact]))
