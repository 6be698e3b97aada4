"""Values that were wrong without a word: of 16 bits, of many trials, beside masked classes, at infinity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased

import mcgrad

NUM = 20_000
HALVES = (jnp.bfloat16, jnp.float16)


def _keys(num: int = NUM) -> jax.Array:
    return jax.random.split(jax.random.key(0), num)


# ---- parameters of 16 bits


LAWS = {
    "rare event": (lambda h: mcgrad.Bernoulli(probs=h(2**-10)), 2**-10, None),
    "log odds": (lambda h: mcgrad.Bernoulli(logits=h(-6.0)), scipy.special.expit(-6.0), None),
    "classes": (lambda h: mcgrad.Categorical(probs=jnp.full(512, h(2**-9))), 255.5, None),
    "counts": (lambda h: mcgrad.Binomial(1000, probs=h(0.25)), 250.0, 187.5),
    "geometric": (lambda h: mcgrad.Geometric(probs=h(2**-7)), 127.0, 127 * 128.0),
    "exponential": (lambda h: mcgrad.Exponential(h(0.5)), 2.0, 4.0),
    "normal": (lambda h: mcgrad.Normal(h(0.0), h(2.0)), 0.0, 4.0),
    "gamma": (lambda h: mcgrad.Gamma(h(1.0), h(1.0)), 1.0, 1.0),
    "uniform": (lambda h: mcgrad.Uniform(h(0.0), h(1.0)), 0.5, 1 / 12),
    "mixture": (
        lambda h: mcgrad.Mixture(
            mcgrad.Categorical(probs=jnp.full(256, h(2**-8))), mcgrad.Normal(jnp.arange(256).astype(h(0).dtype), h(1.0))
        ),
        127.5,
        (256**2 - 1) / 12 + 1,
    ),
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("law", LAWS)
def test_draws_of_16_bits_follow_their_distribution(law, half):
    make, mean, variance = LAWS[law]
    dist = make(lambda value: jnp.asarray(value, half))
    x = jax.jit(jax.vmap(dist.sample))(_keys())
    assert dist.discrete or x.dtype == half
    x = np.asarray(x, np.float64)
    assert abs(x.mean() - mean) < 5 * x.std() / NUM**0.5
    if variance is not None:
        squares = (x - mean) ** 2
        assert abs(squares.mean() - variance) < 5 * squares.std() / NUM**0.5


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "make",
    [
        lambda a: mcgrad.Beta(a, a),
        lambda a: mcgrad.Kumaraswamy(a, a),
        lambda a: mcgrad.Gamma(a, 1.0),
        lambda a: mcgrad.Dirichlet(jnp.stack([a, a])),
    ],
)
def test_draws_are_not_rounded_out_of_their_support(make, half):
    dist = make(jnp.asarray(0.125, half))
    x = jax.jit(jax.vmap(dist.sample))(_keys())
    assert x.dtype == half
    assert (x > 0).all() and jnp.isfinite(x).all()
    assert not isinstance(dist, (mcgrad.Beta, mcgrad.Kumaraswamy)) or (x < 1).all()


@pytest.mark.parametrize("half", HALVES)
def test_densities_of_16_bits_have_the_digits_of_their_dtype(half):
    a = jnp.asarray(200.0, half)
    got = mcgrad.Gamma(a, 1.0).log_prob(jnp.asarray(200.0, half))  # terms of 860 cancel
    assert got.dtype == half
    np.testing.assert_allclose(np.float64(got), scipy.stats.gamma.logpdf(200.0, 200.0), rtol=float(jnp.finfo(half).eps))
    np.testing.assert_allclose(
        np.float64(mcgrad.Normal(jnp.asarray(0.0, half), 1.0).cdf(jnp.float32(1.0))), scipy.stats.norm.cdf(1), rtol=1e-6
    )


@pytest.mark.parametrize("estimator", [mcgrad.Score(), mcgrad.Pathwise(), mcgrad.MeasureValued()])
def test_gradients_of_16_bits(estimator):
    def program(t, key):
        return mcgrad.sample(key, mcgrad.Normal(t, jnp.ones_like(t)), estimator) ** 2

    gradients = jax.jit(jax.vmap(lambda key: mcgrad.grad(program)(jnp.asarray(0.75, jnp.bfloat16), key)))(
        _keys(2 * NUM)
    )
    assert gradients.dtype == jnp.bfloat16
    assert_unbiased(np.asarray(gradients, np.float64), 1.5)


def test_leave_one_out_of_16_bits_leaves_out_the_own_cost():
    def program(t, key):
        return jnp.asarray(1.0, t.dtype) + mcgrad.sample(key, mcgrad.Bernoulli(logits=t), mcgrad.Score())

    def replicates(t, key):
        return jnp.asarray(1.0, t.dtype) + mcgrad.sample(key, mcgrad.Bernoulli(logits=t), mcgrad.Score(num_samples=512))

    t = jnp.asarray(0.0, jnp.bfloat16)
    for gradient in (mcgrad.grad(program, num_samples=512), mcgrad.grad(replicates)):
        found = np.asarray(jax.jit(jax.vmap(gradient, (None, 0)))(t, _keys(200)), np.float64)
        assert abs(found.mean() - 0.25) < 2**-9
        # the own cost in its baseline makes the costs of one and two look alike; stuck sums leave 0.25 / 22
        assert found.std() < 0.25 * 2**-7


def test_values_and_gradients_of_many_chunks_do_not_get_stuck():
    def program(t, key):
        return t * mcgrad.sample(key, mcgrad.Normal(jnp.ones_like(t), 0 * t + 0.125))

    one = jnp.asarray(1.0, jnp.bfloat16)
    value, gradient = jax.jit(mcgrad.value_and_grad(program, num_samples=2048, chunk_size=2))(one, jax.random.key(0))
    assert value.dtype == gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray([value, gradient], np.float64), 1.0, atol=2**-6)


def test_importance_weights_of_16_bits_keep_their_digits():
    """Log densities of some hundred, of which only the difference matters."""

    def program(t, key):
        dist = mcgrad.Independent(mcgrad.Normal(t * jnp.ones(400, t.dtype), jnp.ones(400, t.dtype)), 1)
        proposal = mcgrad.Independent(mcgrad.Normal(jnp.zeros(400, t.dtype), jnp.ones(400, t.dtype)), 1)
        return jnp.float32(1.0) + 0 * mcgrad.sample(key, dist, proposal=proposal)[0].astype(jnp.float32)

    weights = jax.jit(jax.vmap(lambda key: mcgrad.expectation(program)(jnp.asarray(0.0, jnp.bfloat16), key)))(_keys(50))
    np.testing.assert_allclose(weights, 1.0)
    shifted = jax.jit(jax.vmap(lambda key: mcgrad.expectation(program)(jnp.asarray(2**-6, jnp.bfloat16), key)))(_keys())
    assert_unbiased(np.asarray(shifted, np.float64), 1.0)


# ---- smoothed perturbation beside classes without probability

COSTS = jnp.asarray([1.0, -2.0, 5.0, 0.5, 3.0, 2.0])
MASKS = {
    "inside": [1, 0, 0, 1, 1, 1],
    "several": [1, 0, 1, 0, 1, 0],
    "ends": [0, 0, 1, 1, 0, 0],
    "one left": [0, 0, 0, 1, 0, 0],
}


def masked_by_logits(t, key, mask):
    return COSTS[mcgrad.sample(key, mcgrad.Categorical(logits=jnp.where(mask, t, -jnp.inf)))]


def masked_by_probs(t, key, mask):
    p = jnp.where(mask, jax.nn.softmax(t), 0.0)
    return COSTS[mcgrad.sample(key, mcgrad.Categorical(probs=p / p.sum()))]


def masked_in_a_loop(t, key, mask):
    def step(last, key):
        x = mcgrad.sample(key, mcgrad.Categorical(logits=jnp.where(mask, t + 0.1 * last, -jnp.inf)))
        return COSTS[x], COSTS[x]

    return jnp.sum(jax.lax.scan(step, 0.0, jax.random.split(key, 3))[1])


def masks_of_a_batch(t, key, mask):
    logits = jnp.where(jnp.stack([mask, mask[::-1]]), t[None], -jnp.inf)
    return jnp.sum(COSTS[mcgrad.sample(key, mcgrad.Categorical(logits=logits))])


@pytest.mark.parametrize(
    ("mask", "sides"),
    [("inside", "both"), ("several", "right"), ("several", "left"), ("ends", "both"), ("one left", "both")],
)
@pytest.mark.parametrize("program", [masked_by_logits, masked_by_probs, masked_in_a_loop, masks_of_a_batch])
def test_smoothed_perturbation_steps_over_classes_without_probability(mask, program, sides):
    mask = jnp.asarray(MASKS[mask], bool)
    t = jnp.asarray([0.3, -0.2, 0.1, -0.5, 0.4, 0.2])
    fn = lambda t, key: program(t, key, mask)  # noqa: E731
    exact = mcgrad.grad(fn, estimator=mcgrad.Enumerate())(t, jax.random.key(0))
    estimate = mcgrad.grad(fn, estimator=mcgrad.SmoothedPerturbation(sides=sides))
    with jax.debug_key_reuse(False):  # the alternative path runs on the keys of the real one
        draws = np.asarray(jax.jit(jax.vmap(estimate, (None, 0)))(t, _keys()), np.float64)
    error = draws.std(0) / NUM**0.5
    assert (np.abs(draws.mean(0) - exact) <= 5 * error + 1e-6).all()
    assert 5 * error.max() <= 0.2 * np.linalg.norm(exact) + 1e-12


def test_smoothed_perturbation_steps_over_gaps_of_a_mixture():
    def program(t, key):
        rows = mcgrad.Categorical(probs=jnp.asarray([[0.5, 0.0, 0.0, 0.5], [0.2, 0.0, 0.0, 0.8]]))
        dist = mcgrad.Mixture(mcgrad.Categorical(logits=jnp.stack([t, 0.0 * t])), rows)
        return COSTS[mcgrad.sample(key, dist)]

    estimate = mcgrad.grad(program, estimator=mcgrad.SmoothedPerturbation())
    draws = jax.jit(jax.vmap(estimate, (None, 0)))(0.5, _keys())
    exact = -0.3 * (0.5 - 1.0) * jax.nn.sigmoid(0.5) * jax.nn.sigmoid(-0.5)
    assert_unbiased(np.asarray(draws, np.float64), exact)


# ---- counts of many trials, in float32

TRIALS = [1, 2, 30, 200, 10_000, 1_000_000]


@pytest.mark.parametrize("by", ["probs", "logits"])
@pytest.mark.parametrize("n", TRIALS)
def test_binomial_of_many_trials(n, by):
    given = np.float32([1e-4, 0.01, 0.3, 0.5, 0.9] if by == "probs" else [-9.0, -4.5, -0.8, 0.0, 2.2])
    exact = scipy.stats.binom(n, np.float64(given) if by == "probs" else scipy.special.expit(np.float64(given)))
    x = np.clip(np.round(exact.mean() + exact.std() * np.linspace(-4, 4, 9)[:, None]), 0, n).astype(np.int32)

    @jax.jit
    def found(given, x):
        dist = mcgrad.Binomial(n, **{by: given})
        return dist.log_prob(x), dist.prob(x), dist.cdf(x.astype(jnp.float32))

    log_prob, prob, cdf = found(given, x)
    np.testing.assert_allclose(log_prob, exact.logpmf(x), rtol=1e-5, atol=5e-5)
    np.testing.assert_allclose(prob, exact.pmf(x), rtol=2e-4)
    np.testing.assert_allclose(cdf, exact.cdf(x), rtol=2e-4, atol=1e-4)


def test_binomial_of_more_trials_still():
    exact = scipy.stats.binom(2 * 10**6, 0.25)
    assert abs(mcgrad.Binomial(2 * 10**6, probs=np.float32(0.25)).log_prob(501_000) - exact.logpmf(501_000)) < 1e-4
    exact = scipy.stats.binom(3 * 10**6, float(np.float32(1e-3)))
    found = mcgrad.Binomial(3 * 10**6, probs=np.float32(1e-3)).cdf(np.float32(3010))
    assert abs(found - exact.cdf(3010)) < 1e-4


@pytest.mark.parametrize("by", ["probs", "logits"])
@pytest.mark.parametrize("n", [7, 500, 100_000])
def test_derivatives_of_binomial_probabilities(n, by):
    p = 0.3
    given = p if by == "probs" else float(np.log(p / (1 - p)))
    scale = 1.0 if by == "probs" else p * (1 - p)
    x = int(n * p) + 1

    def functions(given):
        dist = mcgrad.Binomial(n, **{by: given})
        return jnp.stack([dist.log_prob(x), dist.prob(x), dist.cdf(float(x))])

    log_slope, slope, cdf_slope = jax.jit(jax.jacrev(functions))(given)
    np.testing.assert_allclose(log_slope, scale * (x - n * p) / (p * (1 - p)), rtol=1e-8)
    np.testing.assert_allclose(slope, scale * scipy.stats.binom(n, p).pmf(x) * (x - n * p) / (p * (1 - p)), rtol=1e-8)
    np.testing.assert_allclose(cdf_slope, -scale * n * scipy.stats.binom(n - 1, p).pmf(x), rtol=1e-8)


@pytest.mark.parametrize(("p", "k", "slope"), [(0.0, 0, -40.0), (0.0, 1, 0.0), (1.0, 39, -40.0), (1.0, 3, 0.0)])
def test_cdf_of_a_binomial_without_chance(p, k, slope):
    value, got = jax.value_and_grad(lambda p: mcgrad.Binomial(40, probs=p).cdf(float(k)))(p)
    assert (value, got) == (1.0 - p, slope)


def test_enumeration_of_a_binomial_of_many_trials():
    def program(p, key):
        return (mcgrad.sample(key, mcgrad.Binomial(700, probs=p)) / 700 - 0.2) ** 2

    value, slope = mcgrad.value_and_grad(program, estimator=mcgrad.Enumerate())(jnp.float32(0.4), jax.random.key(0))
    np.testing.assert_allclose(value, 0.04 + 0.24 / 700, rtol=1e-5)
    np.testing.assert_allclose(slope, 0.4 + 0.2 / 700, rtol=1e-4)


@pytest.mark.parametrize("by", ["probs", "logits"])
@pytest.mark.parametrize("n", TRIALS)
def test_multinomial_of_many_trials(n, by):
    p = np.float32([0.2, 0.5, 0.2999, 1e-4])
    exact = scipy.stats.multinomial(n, np.float64(p) / np.float64(p).sum())
    x = np.random.default_rng(0).multinomial(n, exact.p, 5)
    dist = mcgrad.Multinomial(n, **{by: p if by == "probs" else np.log(p)})
    np.testing.assert_allclose(jax.jit(dist.log_prob)(jnp.asarray(x, jnp.int32)), exact.logpmf(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("total_count", [0.5, 20.0])
@pytest.mark.parametrize("mean", [10.0, 10_000.0, 1_000_000.0])
def test_negative_binomial_of_large_counts(total_count, mean):
    p = np.float32(mean / (mean + total_count))
    exact = scipy.stats.nbinom(total_count, 1 - np.float64(p))
    x = np.round(exact.mean() + exact.std() * np.linspace(-1, 3, 5)).clip(0).astype(np.int32)
    dist = mcgrad.NegativeBinomial(np.float32(total_count), probs=p)
    np.testing.assert_allclose(jax.jit(dist.log_prob)(x), exact.logpmf(x), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(jax.jit(dist.cdf)(x.astype(np.float32)), exact.cdf(x), atol=1e-4)


# ---- at infinity, and at an end with a finite density


AT_INFINITY = {
    "NoncentralChi2": lambda: mcgrad.NoncentralChi2(jnp.asarray([2.0, 5.0]), 3.0),
    "F": lambda: mcgrad.F(jnp.asarray([2.0, 5.0]), 3.0),
    "VonMises": lambda: mcgrad.VonMises(jnp.asarray([0.5, 1.0]), 2.0),
    "InverseGaussian": lambda: mcgrad.InverseGaussian(jnp.asarray([0.5, 2.0]), 1.5),
    "NegativeBinomial": lambda: mcgrad.NegativeBinomial(jnp.asarray([0.5, 2.0]), logits=0.3),
    "Poisson": lambda: mcgrad.Poisson(jnp.asarray([0.5, 40.0])),
    "Geometric": lambda: mcgrad.Geometric(probs=jnp.asarray([0.5, 0.1])),
    "Binomial": lambda: mcgrad.Binomial(jnp.asarray([3, 400]), probs=0.3),
    "Bernoulli": lambda: mcgrad.Bernoulli(logits=jnp.asarray([0.5, 0.1])),
    "Gamma": lambda: mcgrad.Gamma(jnp.asarray([0.5, 2.0]), 1.0),
    "Normal": lambda: mcgrad.Normal(jnp.asarray([0.5, 2.0]), 1.0),
    "StudentT": lambda: mcgrad.StudentT(jnp.asarray([0.5, 2.0]), 1.0, 1.0),
}


@pytest.mark.parametrize("name", AT_INFINITY)
def test_at_infinity_there_is_no_density(name):
    dist = AT_INFINITY[name]()
    for x in (-np.inf, np.inf):
        for method, exact in (("log_prob", -np.inf), ("prob", 0.0), ("cdf", x > 0), ("survival", x < 0)):
            if getattr(dist, method, None) is not None:
                found = getattr(dist, method)(x)
                np.testing.assert_allclose(found, np.full(2, float(exact)), atol=1e-60, err_msg=method)


def test_densities_at_an_end_where_they_are_finite():
    np.testing.assert_allclose(mcgrad.F(2.0, 3.0).log_prob(0.0), scipy.stats.f(2, 3).logpdf(0.0), atol=1e-12)
    np.testing.assert_allclose(mcgrad.NoncentralChi2(2.0, 3.0).log_prob(0.0), scipy.stats.ncx2(2, 3).logpdf(0.0))
    assert mcgrad.F(3.0, 3.0).log_prob(0.0) == mcgrad.NoncentralChi2(3.0, 3.0).log_prob(0.0) == -np.inf
    assert jax.grad(lambda c: mcgrad.NoncentralChi2(2.0, c).log_prob(0.0))(3.0) == -0.5


@pytest.mark.parametrize(
    "estimator", [mcgrad.Auto(), mcgrad.Enumerate(), mcgrad.SumAndSample(1), mcgrad.UnorderedSet(2)]
)
def test_what_cannot_be_drawn_may_cost_anything(estimator):
    """The entropy of a masked distribution: its cost is infinite where its probability is zero."""
    logits, mask = jnp.array([0.0, 0.7, 0.0]), jnp.array([True, True, False])

    def cost(logits, key):
        actions = mcgrad.Categorical(logits=jnp.where(mask, logits, -jnp.inf))
        return -actions.log_prob(mcgrad.sample(key, actions))

    def entropy(logits):
        p = jax.nn.softmax(logits[:2])
        return -jnp.sum(p * jnp.log(p))

    draws = jax.vmap(mcgrad.grad(cost, estimator=estimator), (None, 0))(
        logits, jax.random.split(jax.random.key(0), 4000)
    )
    np.testing.assert_allclose(draws.mean(0), jax.grad(entropy)(logits), atol=5 * draws.std() / 4000**0.5 + 1e-6)
