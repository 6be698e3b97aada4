"""Credit: nothing annotated, and the variance of what an expert would have written by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

BATCH, LATENTS, OUTPUTS = 16, 8, 5
NUM_KEYS = 20_000

_key_logits, _key_weights, _key_targets = jax.random.split(jax.random.key(5), 3)
LOGITS = jax.random.normal(_key_logits, (BATCH, LATENTS), jnp.float64)
WEIGHTS = jax.random.normal(_key_weights, (LATENTS, OUTPUTS), jnp.float64)
TARGETS = jax.random.normal(_key_targets, (BATCH, OUTPUTS), jnp.float64)


def reconstruction(b, targets):
    return jnp.sum((jnp.tanh(b @ WEIGHTS) - targets) ** 2, axis=-1)


def divergence(b, logits):
    """One number per latent."""
    return b * logits - jax.nn.softplus(logits)


def log_prob(b, logits):
    return b * logits - jax.nn.softplus(logits)


def unit(log_weight):
    return jnp.exp(log_weight - jax.lax.stop_gradient(log_weight))


def program(logits, key):
    """The loss as a user writes it."""
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(logits.dtype)
    kl = divergence(b, logits)
    return jnp.mean(reconstruction(b, TARGETS)) + 0.1 * jnp.mean(kl.sum(-1))


def vmapped_program(logits, key):
    """The same, as the mean of a function of one example."""

    def example(logits, targets, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(logits.dtype)
        return reconstruction(b, targets) + 0.1 * divergence(b, logits).sum()

    return jnp.mean(jax.vmap(example)(logits, TARGETS, jax.random.split(key, BATCH)))


def draw(logits, key):
    return jax.lax.stop_gradient(mcgrad.Bernoulli(logits=logits).sample(key).astype(logits.dtype))


def draw_vmapped(logits, key):
    return jax.vmap(draw)(logits, jax.random.split(key, BATCH))


def by_hand(logits, b):
    """The surrogate per example: a reconstruction is credited to its 8 latents, a divergence to its own."""
    log_probs = log_prob(b, logits)
    recon = reconstruction(b, TARGETS) * unit(log_probs.sum(-1))
    kl = divergence(b, logits) * unit(log_probs)
    return jnp.mean(recon) + 0.1 * jnp.mean(kl.sum(-1))


def plain_reinforce(logits, b):
    """The whole loss, times the weight of all draws."""
    loss = jnp.mean(reconstruction(b, TARGETS)) + 0.1 * jnp.mean(divergence(b, logits).sum(-1))
    return loss * unit(log_prob(b, logits).sum())


def gradients(estimate, logits, num_keys=NUM_KEYS):
    """Gradients `[num_keys, size]` of a function of logits and key."""
    keys = jax.random.split(jax.random.key(11), num_keys)
    gradient = jax.jit(lambda keys: jax.lax.map(lambda key: jax.grad(estimate)(logits, key), keys, batch_size=1000))
    return np.asarray(gradient(keys)).reshape(num_keys, -1)


def total_variance(draws, num_blocks=20):
    """Total variance in each of 20 blocks of the draws, for intervals of their ratios."""
    return np.stack([block.var(0, ddof=1).sum() for block in np.split(draws, num_blocks)])


def interval_of_ratio(above, below):
    """Interval of three standard errors for a ratio of total variances over the same keys."""
    above, below = total_variance(above), total_variance(below)
    ratio = above.mean() / below.mean()
    # Delta method, on the residuals of the ratio.
    error = np.std(above - ratio * below, ddof=1) / (below.mean() * np.sqrt(len(above)))
    return ratio - 3 * error, ratio + 3 * error


@pytest.mark.parametrize(("loss", "draws"), [(program, draw), (vmapped_program, draw_vmapped)], ids=["batch", "vmap"])
def test_variance_is_that_of_the_surrogate_per_example(loss, draws):
    found = gradients(mcgrad.expectation(loss, estimator=mcgrad.Score(baseline=None)), LOGITS)
    expert = gradients(lambda logits, key: by_hand(logits, draws(logits, key)), LOGITS)
    plain = gradients(lambda logits, key: plain_reinforce(logits, draws(logits, key)), LOGITS)

    low, high = interval_of_ratio(found, expert)
    assert low > 0.95 and high < 1.05, (low, high)
    low, _ = interval_of_ratio(plain, found)
    assert low > 100, low
    for draw_of in (found, plain):  # the same mean
        difference = draw_of.mean(0) - expert.mean(0)
        error = np.sqrt(draw_of.var(0) + expert.var(0)) / np.sqrt(NUM_KEYS)
        assert (np.abs(difference) < 5 * error).all()


def test_sixty_four_summed_latents_have_the_variance_of_each_alone():
    places = jnp.linspace(-1.0, 1.0, 64)
    logits = 0.8 * places + 0.2

    def cost(b):
        return (b - 0.3 - 0.4 * places) ** 2 + 0.5 * jnp.sin(b + places)

    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(logits.dtype)
        return jnp.sum((b - 0.3 - 0.4 * places) ** 2) + 0.5 * jnp.sum(jnp.sin(b + places))

    # Each latent alone: c(b) (b - q) has its mean and variance over the two states of b.
    q = jax.nn.sigmoid(logits)
    at_zero, at_one = cost(jnp.zeros(64)) * -q, cost(jnp.ones(64)) * (1 - q)
    mean = (1 - q) * at_zero + q * at_one
    optimum = jnp.sum((1 - q) * (at_zero - mean) ** 2 + q * (at_one - mean) ** 2)

    found = gradients(mcgrad.expectation(loss, estimator=mcgrad.Score(baseline=None)), logits)
    blocks = total_variance(found) / optimum
    error = 3 * blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert blocks.mean() - error > 0.95 and blocks.mean() + error < 1.05, (blocks.mean(), error)
    assert (np.abs(found.mean(0) - mean) < 5 * found.std(0) / np.sqrt(NUM_KEYS)).all()


def test_what_is_drawn_can_be_printed(capfd):
    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        jax.debug.print("drew {}", b)
        return (b - 0.4) ** 2

    value = mcgrad.grad(loss, estimator=mcgrad.Score())(0.0, jax.random.key(0))
    jax.effects_barrier()
    assert np.isfinite(value) and capfd.readouterr().out.startswith("drew ")


COUNTS = {
    "sum": (lambda b: 1.0 * b.sum(), lambda b: (1.0 * b).sum()),
    "comparisons": (
        lambda b: (b == jnp.arange(12) % 2).sum() / 12,
        lambda b: jnp.mean(1.0 * (b == jnp.arange(12) % 2)),
    ),
    "differences": (lambda b: 2.0 * (b[1:] - b[:-1]).sum() + b.sum() / 4, lambda b: 2.0 * (b[-1] - b[0]) + b.sum() / 4),
    "rows, cumulated": (
        lambda b: jnp.sum(jnp.cumsum(b.reshape(3, 4).sum(1)) * jnp.array([1.0, -2.0, 3.0])),
        lambda b: jnp.sum(jnp.cumsum((1.0 * b).reshape(3, 4).sum(1)) * jnp.array([1.0, -2.0, 3.0])),
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_sums_of_integers_are_credited_as_sums_of_numbers(name):
    def draws(cost):
        def loss(logits, key):
            return cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)))

        gradient = mcgrad.value_and_grad(loss, estimator=mcgrad.Score(baseline=None))
        return jax.jit(jax.vmap(gradient, (None, 0)))(jnp.linspace(-1, 1, 12), jax.random.split(jax.random.key(0), 500))

    with jax.debug_key_reuse(False):
        (value, found), (by_numbers, expected) = map(draws, COUNTS[name])
    np.testing.assert_allclose(value, by_numbers, atol=1e-9)
    np.testing.assert_allclose(found.var(0), expected.var(0), rtol=0.05, atol=1e-9)


def test_integers_that_are_multiplied_stay_one_cost():
    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return 1.0 * (b.sum() * b.sum())

    (cost,) = mcgrad.explain(loss)(jnp.zeros(4), jax.random.key(0)).costs
    assert cost.credits[0].axes == ("mixed",)


def test_a_long_chain_of_counts_needs_no_recursion():
    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        total = b[0]
        for _ in range(300):
            total = total + total - b[1]
        return 1.0 * (total * 0 + b.sum())

    assert mcgrad.explain(loss)(jnp.zeros(4), jax.random.key(0)).costs


def test_sums_with_large_integers_keep_their_digits():
    def loss(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return 1.0 * ((16777217 + b).sum() - 3 * 16777217)

    with jax.enable_x64(False):
        value = mcgrad.expectation(loss)(jnp.full(3, 30.0, jnp.float32), jax.random.key(0))
    assert value == 3.0
