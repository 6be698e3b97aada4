"""Estimators that draw values without replacement."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives

import mcgrad
from mcgrad.estimators.without_replacement import set_weights

VARIANTS = {
    "sum and sample, drawn": mcgrad.SumAndSample(3, "drawn"),
    "set of 3": mcgrad.UnorderedSet(3),
}
MORE_VARIANTS = {
    "importance, own baseline": mcgrad.ImportanceWithoutReplacement(3, baseline="importance"),
    "importance of 3": mcgrad.ImportanceWithoutReplacement(3),
    "sum and sample, buffer": mcgrad.SumAndSample(enumerated=jnp.array([[0, 2, 0, 1], [1, 1, 1, 2]])),
    "set of 2": mcgrad.UnorderedSet(2),
    "set of 3, no baseline": mcgrad.UnorderedSet(3, baseline=None),
    "importance of 2, no baseline": mcgrad.ImportanceWithoutReplacement(2, baseline=None),
    "sum and sample": mcgrad.SumAndSample(3),
    "sum and sample, independent": mcgrad.SumAndSample(baseline="independent"),
    "sum and sample, no baseline": mcgrad.SumAndSample(baseline=None),
    "one sample": mcgrad.SumAndSample(1),
}
LOGITS = jnp.array([[0.3, -0.8, 0.5], [-0.2, 0.9, 0.1]])


@pytest.fixture(autouse=True)
def runs_share_keys():
    with jax.debug_key_reuse(False):
        yield


def draws_of(estimate, num_draws, seed=0, batch_size=1000):
    keys = jax.random.split(jax.random.key(seed), num_draws)
    return jax.jit(lambda keys: jax.lax.map(estimate, keys, batch_size=batch_size))(keys)


def credited(params, key, estimator):
    """Costs of single entries, with a parameter of their own, beside one that mixes the entries."""
    x = mcgrad.sample(key, mcgrad.Categorical(logits=params["logits"]), estimator)
    alone = (x - 0.7) ** 2 * jnp.exp(params["scale"] * jnp.arange(2.0))
    return jnp.sum(alone) + jnp.maximum(x[0] * x[1] - x[1] + 0.3, -0.4)


@pytest.mark.parametrize(
    ("variants", "num_draws"), [(VARIANTS, 8000), pytest.param(MORE_VARIANTS, 200_000, marks=pytest.mark.slow)]
)
def test_every_variant_is_right_to_second_order_with_credit_for_each_entry(variants, num_draws):
    params = {"logits": LOGITS, "scale": jnp.array(0.3)}

    def estimate(estimator, key):
        return derivatives(lambda p: mcgrad.expectation(credited)(p, key, estimator), params, 2)

    exact = jax.jit(lambda key: estimate(mcgrad.Enumerate(), key))(jax.random.key(0))
    found = draws_of(lambda key: {name: estimate(e, key) for name, e in variants.items()}, num_draws)
    for name in variants:
        for what in exact:
            assert_unbiased(found[name][what], exact[what])


def mixing(shift, key, estimator, size):
    """A cost that mixes all entries, with an offset that cannot be split off, in single precision."""
    logits = shift + jnp.linspace(-1.0, 1.0, size, dtype=jnp.float32)
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)
    return jnp.maximum(jnp.sum((b - 0.499) ** 2) + jnp.sum(b) ** 2 / b.size + 100.0, 0.0)


def mixing_exact(shift, size):
    p = jax.nn.sigmoid(shift + jnp.linspace(-1.0, 1.0, size))
    return jnp.sum(p * 0.002 + 0.499**2) + (jnp.sum(p) ** 2 + jnp.sum(p * (1 - p))) / size + 100.0


MIXING = (
    mcgrad.UnorderedSet(2),
    mcgrad.ImportanceWithoutReplacement(2),
    mcgrad.SumAndSample(),
    mcgrad.SumAndSample(enumerated="drawn"),
)


def gradients_of_mixing(estimator, size, num_draws):
    def estimate(key):
        return mcgrad.grad(mixing)(jnp.float32(0.2), key, estimator, size)

    return np.asarray(draws_of(estimate, num_draws, batch_size=1000)), jax.grad(mixing_exact)(0.2, size)


@pytest.mark.parametrize("estimator", MIXING, ids=repr)
def test_with_two_hundred_entries_and_an_offset_the_variance_stays_small(estimator):
    gradient, exact = gradients_of_mixing(estimator, 200, 2000)
    assert gradient.dtype == np.float32
    error = gradient.std() / np.sqrt(len(gradient))
    assert abs(gradient.mean() - exact) < 5 * error < 0.35 * exact


@pytest.mark.slow
@pytest.mark.parametrize(("size", "num_draws"), [(1, 100), (200, 40_000)])
@pytest.mark.parametrize("estimator", MIXING, ids=repr)
def test_one_and_two_hundred_entries_with_an_offset(estimator, size, num_draws):
    gradient, exact = gradients_of_mixing(estimator, size, num_draws)
    assert_unbiased(gradient[:, None], exact[None])


@pytest.mark.slow
def test_with_two_hundred_entries_a_set_is_as_good_as_leave_one_out():
    of_set, _ = gradients_of_mixing(mcgrad.UnorderedSet(4), 200, 4000)
    of_independent, _ = gradients_of_mixing(mcgrad.Score(num_samples=4), 200, 4000)
    assert 0.85 < of_set.var() / of_independent.var() < 1.18


# The problem of Liu et al. 2019, section 5.1 and Kool et al. 2020, section 6.1: three bits that share a logit.

BITS = np.array(list(itertools.product([0, 1], repeat=3)))
COSTS = ((BITS - np.array([0.6, 0.51, 0.48])) ** 2).sum(1)
TRUE = {0.0: -0.045, -4.0: -0.003179287118392396}


def bits(eta, key, estimator):
    law = mcgrad.Independent(mcgrad.Bernoulli(logits=jnp.broadcast_to(eta, (3,))), 1)
    return jnp.sum((mcgrad.sample(key, law, estimator) - jnp.array([0.6, 0.51, 0.48])) ** 2)


KOOL = {  # k = 2, ..., 7: unordered set with its baseline, exact, which the points of the figure agree with
    0.0: [6.11e-3, 2.26e-3, 1.13e-3, 6.10e-4, 3.17e-4, 1.29e-4],
    -4.0: [2.98e-5, 8.07e-6, 1.06e-6, 7.97e-8, 1.03e-8, 2.86e-10],
}


@pytest.mark.parametrize("k", [pytest.param(k, marks=() if k in (4, 7) else pytest.mark.slow) for k in range(2, 8)])
def test_the_variance_of_unordered_sets_is_as_published(k):
    """Over every set of states, with its probability from all orders of drawing it."""
    ones = BITS.sum(1)
    sets = np.array(list(itertools.combinations(range(8), k)))
    others = np.array([np.setdiff1d(range(8), members) for members in sets])
    weigh = jax.jit(jax.vmap(set_weights))
    for eta, published in KOOL.items():
        p = np.exp(eta * ones) / (1 + np.exp(eta)) ** 3
        orders = p[np.array([list(itertools.permutations(members)) for members in sets])]  # [sets, k!, k]
        probability = np.prod(orders / (1 - np.cumsum(orders, -1) + orders), -1).sum(1)
        weights, baseline = map(np.asarray, weigh(np.log(p[sets]), np.log(p[others].sum(1))))
        advantage = COSTS[sets] - np.einsum("sij,sj->si", baseline, COSTS[sets])
        gradient = np.sum(weights * advantage * (ones[sets] - 3 / (1 + np.exp(-eta))), 1)
        np.testing.assert_allclose(probability @ gradient, TRUE[eta], rtol=1e-9)
        np.testing.assert_allclose(probability @ (gradient - TRUE[eta]) ** 2, published[k - 2], rtol=0.01)


LIU = {  # (eta, states that are summed over): the variance, exact; the printed ones agree up to their own error
    (0.0, 0): 1.2525e-2,
    (0.0, 7): 9.84375e-4,
    (0.0, 8): 9.84375e-4,
    (-4.0, 0): 7.519415e-4,
    (-4.0, 1): 3.312778e-5,
    (-4.0, 4): 2.575329e-6,
    (-4.0, 7): 2.537106e-6,
    (-4.0, 8): 2.537106e-6,
}
CHEAP = [(0.0, 7)]


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in CHEAP else pytest.mark.slow) for c in LIU])
def test_the_variance_of_sum_and_sample_is_as_published(case):
    eta, num_summed = case
    estimator = mcgrad.SumAndSample(num_summed + 1, baseline="independent")
    num_draws = 20_000 if case in CHEAP else 1_000_000
    draws = np.asarray(draws_of(lambda key: mcgrad.grad(bits)(eta, key, estimator), num_draws, batch_size=10_000))
    assert abs(draws.mean() - TRUE[eta]) < 5 * draws.std() / np.sqrt(num_draws)
    np.testing.assert_allclose(draws.var(), LIU[case], rtol=0.05)


# Corners.


@pytest.mark.parametrize("estimator", [*MIXING[:3], mcgrad.SumAndSample(3, "drawn")], ids=repr)
def test_impossible_and_certain_values_give_finite_derivatives(estimator):
    def loss(logits, key):
        x = mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator)
        return jnp.sum((x - 1.2) ** 2) + x[0] * x[1] * 1.0

    def both(row):
        logits = jnp.stack([row, jnp.array([0.0, 0.3, -0.2], row.dtype)])
        return mcgrad.value_and_grad(loss)(logits, jax.random.key(0))

    rows = [[-jnp.inf, 0.0, -jnp.inf], [200.0, 0.0, -200.0], [-jnp.inf, 0.4, 0.1]]
    value, gradient = jax.jit(jax.vmap(both))(jnp.array(rows, jnp.float32))
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_more_samples_than_states_are_exact():
    def loss(logits, key, estimator):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)
        return jnp.maximum(b[0] + 2.0 * b[1] * b[0], 0.3 + b[1])

    @jax.jit
    def all_of_them(logits, key):
        estimators = (
            mcgrad.UnorderedSet(6),
            mcgrad.ImportanceWithoutReplacement(6),
            mcgrad.SumAndSample(6),
            mcgrad.Enumerate(),
        )
        return [mcgrad.value_and_grad(loss)(logits, key, e) for e in estimators]

    *found, exact = all_of_them(jnp.array([0.3, -1.0]), jax.random.key(3))
    for one in found:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), one, exact)


def chain(logits, key, estimator):
    def step(x, key):
        x = mcgrad.sample(key, mcgrad.Categorical(logits=logits * (1.0 + 0.5 * x)), estimator)
        return x, (x - 0.5) ** 2

    return jnp.sum(jax.lax.scan(step, jnp.array(1, jnp.int32), jax.random.split(key, 2))[1])


def mapped(logits, key, estimator):
    def one(logits, key):
        return mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator)

    return jnp.prod(jax.vmap(one)(logits, jax.random.split(key, 2)) - 0.4)


@pytest.mark.parametrize(
    ("program", "logits", "estimator"),
    [
        (chain, LOGITS[0], mcgrad.UnorderedSet(2)),
        (mapped, LOGITS, mcgrad.SumAndSample(enumerated=jnp.array([0, 2]))),
        pytest.param(chain, LOGITS[0], mcgrad.SumAndSample(enumerated=jnp.array([0])), marks=pytest.mark.slow),
        pytest.param(mapped, LOGITS, mcgrad.ImportanceWithoutReplacement(3), marks=pytest.mark.slow),
    ],
)
def test_in_a_scan_and_under_vmap(program, logits, estimator):
    exact = jax.jit(lambda x: mcgrad.grad(program)(x, jax.random.key(0), mcgrad.Enumerate()))(logits)
    assert_unbiased(draws_of(lambda key: mcgrad.grad(program)(logits, key, estimator), 8000), exact)


# Refusals.


@pytest.mark.parametrize("estimator", MIXING, ids=repr)
def test_laws_without_finite_support_are_refused_with_what_would_work(estimator):
    for law, way_out in (
        (lambda p: mcgrad.Normal(p, 1.0), "Pathwise\\(\\)`, `mcgrad.Score\\(\\)` or `mcgrad.MeasureValued\\(\\)`"),
        (
            lambda p: mcgrad.Poisson(p),
            "`mcgrad.Score\\(\\)`, `mcgrad.SmoothedPerturbation\\(\\)` or `mcgrad.MeasureValued",
        ),
        (lambda p: mcgrad.Uniform(0.0, p), "Use `mcgrad.Pathwise\\(\\)` or `mcgrad.MeasureValued\\(\\)` here"),
    ):
        name = type(estimator).__name__
        with pytest.raises(ValueError, match=f"mcgrad.{name}.*test_without_replacement.*finite support.*{way_out}"):
            mcgrad.grad(lambda p, key, law=law: 1.0 * mcgrad.sample(key, law(p), estimator))(0.5, jax.random.key(0))


def test_options_that_cannot_be_are_refused():
    for build, message in (
        (lambda: mcgrad.UnorderedSet(0), "UnorderedSet.num_samples=.*between 1 and 12, got 0"),
        (lambda: mcgrad.UnorderedSet(13), "got 13. .*ImportanceWithoutReplacement"),
        (lambda: mcgrad.UnorderedSet(2, baseline="mean"), "UnorderedSet.baseline=.*\"built_in\" or None, got 'mean'"),
        (lambda: mcgrad.ImportanceWithoutReplacement(1), "at least 2|between 2 and 12, got 1"),
        (lambda: mcgrad.ImportanceWithoutReplacement(2, baseline="mean"), '"importance" or None'),
        (lambda: mcgrad.SumAndSample(0), "SumAndSample.num_samples=.*at least 1, got 0"),
        (lambda: mcgrad.SumAndSample(2, "all"), "SumAndSample.enumerated=.*got 'all'"),
        (lambda: mcgrad.SumAndSample(2, jnp.zeros((1, 3), int)), "left out with a buffer, got 2"),
        (lambda: mcgrad.SumAndSample(baseline="mean"), '"independent" or None'),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    for buffer in (jnp.zeros((3, 1), int), jnp.zeros((2, 1)), jnp.zeros((1, 2, 1), int)):
        with pytest.raises(ValueError, match=r"SumAndSample.enumerated=.*integers of shape `\[\*batch_shape, m\]`"):
            estimator = mcgrad.SumAndSample(enumerated=buffer)
            mcgrad.grad(credited)({"logits": LOGITS, "scale": jnp.array(0.3)}, jax.random.key(0), estimator)
