"""Chunks of samples, statistics of gradients, and comparisons of estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

LOGITS = np.linspace(-1.0, 1.0, 3)


def squared_count(logits, key):
    """One cost of several draws, skewed: `E = sum p (1 - p) + (sum p - 1.3)**2`."""
    return (jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))) - 1.3) ** 2


def smooth(loc, key):
    return jnp.sum(jnp.tanh(mcgrad.sample(key, mcgrad.Normal(loc, 1.0))) ** 2)


def exact_gradient(logits):
    p = jax.nn.sigmoid(logits)
    return p * (1 - p) * (1 - 2 * p + 2 * (jnp.sum(p) - 1.3))


def test_chunks_change_memory_and_nothing_else():
    loc = jnp.linspace(-1.0, 1.0, 32)

    def compiled(**options):
        gradient = jax.jit(mcgrad.value_and_grad(smooth, **options))
        return gradient.lower(loc, jax.random.key(0)).compile()

    def memory(executable):
        return executable.memory_analysis().temp_size_in_bytes

    whole, chunked = compiled(num_samples=2048), compiled(num_samples=2048, chunk_size=128)
    for expected, got in zip(whole(loc, jax.random.key(0)), chunked(loc, jax.random.key(0)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    one_chunk = memory(compiled(num_samples=128))
    assert memory(whole) > 10 * one_chunk
    assert memory(chunked) < 1.2 * one_chunk
    assert memory(compiled(num_samples=100_096, chunk_size=128)) < 1.2 * one_chunk


def test_leave_one_out_is_among_the_samples_of_a_chunk():
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))

    def by_hand(logits, key):
        """The mean over chunks of the leave-one-out estimate of each chunk."""
        keys = fold_in(key, jnp.arange(12)).reshape(3, 4)
        b = jax.vmap(jax.vmap(lambda k: mcgrad.sample(k, mcgrad.Bernoulli(logits=logits))))(keys)  # [3, 4, 3]
        cost = (b.sum(-1) - 1.3) ** 2
        others = (cost.sum(1, keepdims=True) - cost) / 3
        return jnp.mean((cost - others)[..., None] * (b - jax.nn.sigmoid(logits)[None, None, :]), axis=(0, 1))

    key = jax.random.key(1)
    gradient = mcgrad.score_grad(squared_count, num_samples=12, chunk_size=4)
    np.testing.assert_allclose(gradient(LOGITS, key), by_hand(LOGITS, jax.random.clone(key)), rtol=1e-12)


def test_chunks_have_second_derivatives_and_auxiliary_output():
    def with_draws(logits, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        return (jnp.sum(b) - 1.3) ** 2, b

    value = mcgrad.expectation(with_draws, estimator=mcgrad.Enumerate(), num_samples=6, chunk_size=2, has_aux=True)
    hessian, draws = jax.hessian(value, has_aux=True)(LOGITS, jax.random.key(0))
    np.testing.assert_allclose(hessian, jax.jacfwd(exact_gradient)(LOGITS), rtol=1e-9)
    assert draws.shape == (6, 3) and len(np.unique(draws, axis=0)) > 1


def test_chunks_must_divide_the_samples():
    with pytest.raises(ValueError, match="must divide `num_samples`, got 4 for 10. Take 12 samples"):
        mcgrad.pathwise_grad(smooth, num_samples=10, chunk_size=4)
    with pytest.raises(ValueError, match=r"chunk_size=...\)` must be a positive int, got 0"):
        mcgrad.expectation(smooth, chunk_size=0)
