"""Estimators that evaluate the rest of a program at several values of one draw."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

COUPLED = (
    mcgrad.ARM(),
    mcgrad.DisARM(),
    mcgrad.LocalExpectation(),
    mcgrad.SmoothedPerturbation(),
    mcgrad.ARMS(3),
    mcgrad.CARMS(3),
    mcgrad.TreeDisARM(),
    mcgrad.ARSM(),
)
TARGET = 0.499


def toy(logits, key, estimator):
    """The toy of Tucker et al. 2017 with a term that mixes the entries, and an offset that must cancel."""
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)
    return jnp.maximum(
        jnp.sum((b - TARGET) ** 2) + jnp.sum(b) ** 2 / b.size + 100.0, 0.0
    )  # so that it is not split off


def exact(logits):
    p = jax.nn.sigmoid(logits)
    return jnp.sum(p * (1 - 2 * TARGET)) + (jnp.sum(p) ** 2 + jnp.sum(p * (1 - p))) / p.size


def draws_of(program, parameter, num_draws):
    keys = jax.random.split(jax.random.key(5), num_draws)
    with jax.debug_key_reuse(False):
        return jax.jit(
            lambda keys: jax.lax.map(lambda key: mcgrad.grad(program)(parameter, key), keys, batch_size=100)
        )(keys)


@pytest.mark.parametrize("size", [1, 200])
@pytest.mark.parametrize("estimator", COUPLED, ids=lambda e: type(e).__name__)
def test_the_bernoulli_toy_with_an_offset(estimator, size):
    logits = jnp.linspace(-0.5, 1.5, size)
    one_by_one = isinstance(estimator, (mcgrad.LocalExpectation, mcgrad.SmoothedPerturbation)) and size > 1
    draws = draws_of(functools.partial(toy, estimator=estimator), logits, 300 if one_by_one else 4000)
    assert_unbiased(draws, jax.grad(exact)(logits))


@pytest.mark.parametrize(
    "estimator",
    [
        mcgrad.ARM(),
        mcgrad.DisARM(),
        mcgrad.ARMS(3),
        mcgrad.ARMS(4, copula="gaussian"),
        mcgrad.CARMS(3),
        mcgrad.TreeDisARM(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_the_first_of_several_draws_is_that_of_a_plain_run(estimator):
    """Common noise for an earlier draw, whose other values are tried in plain runs."""
    logits, key = jnp.linspace(-2.0, 2.0, 64), jax.random.key(5)

    def program(logits, key):
        return jnp.arange(64.0) @ mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))

    value = mcgrad.expectation(program, estimator=estimator)(logits, jax.random.clone(key))
    np.testing.assert_array_equal(value, program(logits, key))


@pytest.mark.parametrize("estimator", [mcgrad.DisARM(), mcgrad.ARMS(3)], ids=lambda e: type(e).__name__)
def test_bits_may_be_floats(estimator):
    def program(dtype, logits, key):
        bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits, dtype=dtype), estimator)
        return jnp.sum(jnp.arange(3.0) * bits) ** 2

    logits, key = jnp.array([0.3, -0.4, 0.8]), jax.random.key(5)
    floats, integers = (
        mcgrad.grad(functools.partial(program, dtype))(logits, jax.random.clone(key))
        for dtype in (jnp.float32, jnp.int32)
    )
    np.testing.assert_allclose(floats, integers, rtol=1e-6)


def test_disarm_integrates_noise_of_arm_out():
    logits = jnp.linspace(-1.0, 2.0, 8)
    arm, disarm = (
        np.var(draws_of(functools.partial(toy, estimator=e), logits, 4000), axis=0).sum()
        for e in (mcgrad.ARM(), mcgrad.DisARM())
    )
    assert disarm < 0.95 * arm


@pytest.mark.parametrize("estimator", COUPLED, ids=lambda e: type(e).__name__)
def test_saturated_logits_give_finite_gradients(estimator):
    for logits in ([-200.0, 0.3, 200.0], [-jnp.inf, 0.3, jnp.inf]):
        gradient = jax.jit(mcgrad.grad(functools.partial(toy, estimator=estimator)))(
            jnp.array(logits), jax.random.key(0)
        )
        assert np.isfinite(gradient).all(), gradient


@pytest.mark.parametrize("estimator", COUPLED, ids=lambda e: type(e).__name__)
def test_other_laws_and_second_derivatives_are_refused(estimator):
    def normal(loc, key):
        return mcgrad.sample(key, mcgrad.Normal(loc, 1.0), estimator)

    with pytest.raises(ValueError, match=f"{type(estimator).__name__}.*test_coupled.py.*mcgrad.Score"):
        mcgrad.grad(normal)(0.3, jax.random.key(0))
    with pytest.raises(NotImplementedError, match="second derivative"):
        hessian = jax.hessian(mcgrad.expectation(functools.partial(toy, estimator=estimator)))
        jax.eval_shape(hessian, jnp.zeros(2), jax.random.key(0))


def test_more_negatively_dependent_draws_beat_as_many_independent_ones():
    logits = jnp.array([-3.0, -0.5, 0.1, 2.0])  # both rare and likely ones
    estimators = (
        mcgrad.ARMS(2, "gaussian"),
        mcgrad.ARMS(4),
        mcgrad.ARMS(4, "gaussian"),
        mcgrad.DisARM(),
        mcgrad.Score(num_samples=4),
    )

    def estimate(logits, key):
        return [mcgrad.grad(toy)(logits, key, e) for e in estimators]

    keys = jax.random.split(jax.random.key(5), 20_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(estimate, (None, 0)))(logits, keys)
    for gradient in draws:
        assert_unbiased(gradient, jax.grad(exact)(logits))
    pair, dirichlet, gaussian, disarm, independent = (float(np.var(d, axis=0).sum()) for d in draws)
    assert 0.9 < pair / disarm < 1.1  # the same estimator, from other noise
    assert dirichlet < 0.9 * independent and gaussian < 0.9 * independent


def test_variances_of_the_toy_are_as_published():
    """`(b - 0.49)^2` with two evaluations (Dimitriev and Zhou 2021, toy problem): exact, and what the figure shows."""

    def loss(logit, key, estimator):
        return (mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), estimator) - 0.49) ** 2

    def estimate(logit, key):
        return [mcgrad.grad(loss)(logit, key, e) for e in (mcgrad.Score(num_samples=2), mcgrad.ARM(), mcgrad.DisARM())]

    p = jnp.array([0.5, 0.25, 0.1])
    keys = jax.random.split(jax.random.key(5), 50_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(jax.vmap(estimate, (0, None)), (None, 0)))(jnp.log(p / (1 - p)), keys)
    published = ([2.500e-5, 2.344e-5, 1.476e-5], [8.333e-6, 1.510e-5, 1.303e-5], [0, 1.406e-5, 1.296e-5])
    for found, variance in zip(draws, published, strict=True):
        np.testing.assert_allclose(np.var(found, axis=0), variance, rtol=0.05, atol=1e-12)


def categories(logits, key, estimator):
    x = mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator)
    return jnp.sum((x - 0.7) ** 2) + 1.0 * x[0] * x[1]


def test_pairs_of_categories_that_one_cost_mixes():
    logits = jnp.array([[0.3, -1.8, 0.5, 1.0], [-jnp.inf, 0.9, 0.1, 0.2]])
    estimators = (
        mcgrad.CARMS(3),
        mcgrad.TreeDisARM("stick_breaking"),
        mcgrad.TreeDisARM(),
        mcgrad.ARSM(),
        mcgrad.Score(num_samples=3),
    )

    def estimate(logits, key):
        return [mcgrad.grad(categories)(logits, key, e) for e in estimators]

    with jax.debug_key_reuse(False):
        keys = jax.random.split(jax.random.key(5), 40_000)
        draws = jax.jit(jax.vmap(estimate, (None, 0)))(logits, keys)
        exact = jax.jit(lambda x, key: mcgrad.grad(categories)(x, key, mcgrad.Enumerate()))(logits, keys[0])
    for gradient in draws:
        assert_unbiased(gradient, exact)
    assert np.var(draws[0], axis=0).sum() < 0.85 * np.var(draws[-1], axis=0).sum()


def test_carms_of_two_values_is_arms_and_trees_of_two_are_disarm():
    logits = jnp.array([1.5, 0.2, 0.9])  # the rarer value is the first one
    pairs = ((mcgrad.CARMS(4), mcgrad.ARMS(4)), (mcgrad.TreeDisARM(), mcgrad.DisARM()))

    def estimate(logits, key):
        return [[mcgrad.grad(toy)(logits, key, e) for e in pair] for pair in pairs]

    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(estimate, (None, 0)))(logits, jax.random.split(jax.random.key(5), 20_000))
    for first, second in draws:
        np.testing.assert_allclose(np.var(first, axis=0), np.var(second, axis=0), rtol=0.1)


@pytest.mark.parametrize(
    "estimator", [mcgrad.TreeDisARM(), mcgrad.ARSM(), mcgrad.CARMS(3)], ids=lambda e: type(e).__name__
)
def test_values_are_those_of_a_plain_run(estimator):
    def program(logits, key):
        return 1.0 * mcgrad.sample(key, mcgrad.Categorical(logits=logits)) @ 7.0 ** jnp.arange(6)

    logits = jnp.tile(jnp.array([0.3, -1.8, 0.5, 1.0, -jnp.inf]), (6, 1))
    key = jax.random.key(3)
    value = jax.jit(mcgrad.expectation(program, estimator=estimator))(logits, key)
    assert value == program(logits, jax.random.clone(key))


def test_single_precision_stays_and_resolves_rare_values():
    logits = jnp.array([[0.3, -1.8, 0.5, 1.0], [-20.0, 0.9, -17.0, 15.0]], jnp.float32)
    estimators = (mcgrad.CARMS(3), mcgrad.CARMS(2), mcgrad.TreeDisARM(), mcgrad.ARSM())

    def estimate(key):
        return [mcgrad.grad(categories)(logits, key, e) for e in estimators]

    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(5), 10_000))
    for gradient in draws:
        assert gradient.dtype == jnp.float32
        assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e3


@pytest.mark.parametrize("estimator", [mcgrad.ARM(), mcgrad.DisARM(), mcgrad.ARMS()], ids=lambda e: type(e).__name__)
def test_binary_estimators_name_what_would_work_for_categories(estimator):
    would_work = "LocalExpectation.*TreeDisARM.*UnorderedSet.*Enumerate.*Score.*SmoothedPerturbation"
    with pytest.raises(ValueError, match=f"mcgrad.{type(estimator).__name__}.*one of 0 and 1.*{would_work}"):
        mcgrad.grad(categories)(jnp.zeros((2, 3)), jax.random.key(0), estimator)


def test_options_are_checked():
    with pytest.raises(ValueError, match="ARMS.num_samples=.*at least 2, got 1. Pass"):
        mcgrad.ARMS(1)
    with pytest.raises(ValueError, match='ARMS.copula=.*"dirichlet" or "gaussian", got \'clayton\''):
        mcgrad.ARMS(3, "clayton")
    with pytest.raises(ValueError, match="CARMS.num_samples=.*at least 2, got 1.5"):
        mcgrad.CARMS(1.5)
    with pytest.raises(ValueError, match="TreeDisARM.tree=.*\"stick_breaking\", got 'oak'"):
        mcgrad.TreeDisARM("oak")


class Even(mcgrad.Categorical):
    """The values 0, 2, 4: between them lie integers that are never drawn, whose terms neighbours would leave out."""

    def sample(self, key):
        return 2 * super().sample(key)

    def log_prob(self, x):
        return super().log_prob(x // 2)

    def cdf(self, x):
        return super().cdf(x // 2)

    def support(self):
        return 2 * super().support()


def test_neighbours_need_consecutive_integers():
    def program(logits, key):
        return 1.0 * mcgrad.sample(key, Even(logits=logits), mcgrad.SmoothedPerturbation())

    with pytest.raises(ValueError, match=r"test_coupled.*consecutive integers, and are \[0, 2, 4\].*mcgrad.Score"):
        mcgrad.grad(program)(jnp.zeros(3), jax.random.key(0))


def test_a_neighbour_may_have_no_probability():
    """At a probability of zero the draw is always 0, and its right neighbour still counts."""

    def program(p, key):
        return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(probs=p), mcgrad.SmoothedPerturbation("right")) ** 2

    assert mcgrad.grad(program)(0.0, jax.random.key(0)) == 3.0
