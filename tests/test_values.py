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
