"""`num_samples`: every draw must differ from sample to sample."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import mcgrad

OTHER = jax.random.key(7)


def bit(t, key):
    return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=t), mcgrad.Score())


def a_scan_that_carries_its_key(t, key):
    def step(carry, _):
        x, k = carry
        k, own = jax.random.split(k)
        return (x + bit(t * x, own), k), None

    return jax.lax.scan(step, (0.0, key), None, length=4)[0][0]


def keys_made_of_data(t, key):
    words = jax.random.key_data(key)
    return jnp.sum(jax.vmap(jax.jit(lambda k: bit(t, k)))(jax.random.split(jax.random.wrap_key_data(words), 3)))


def in_a_branch(t, key):
    return jax.lax.cond(t > 0, lambda t: bit(t, key), lambda t: t, t)


def a_key_made_of_a_draw(t, key):
    seed = mcgrad.sample(key, mcgrad.Bernoulli(logits=0.0))
    return bit(t, jax.random.fold_in(OTHER, seed))


def another_key(t, key):
    return bit(t, jax.random.key(7))


def one_of_two_draws(t, key):
    return bit(t, key) * mcgrad.sample(jax.random.clone(OTHER), mcgrad.Normal(t, 1.0))


def in_a_scan(t, key):
    step = lambda x, k: (x + bit(t * x, k), None)  # noqa: E731
    return jax.lax.scan(step, 0.0, jax.random.split(jax.random.clone(OTHER), 4))[0] + bit(t, key)


def in_another_branch(t, key):
    return jax.lax.cond(t > 0, lambda t: bit(t, jax.random.key(1)), lambda t: bit(t, key), t)


OPTIONS = [{"num_samples": 4}, {"num_samples": 4, "chunk_size": 2}, {"num_samples": 2, "chunk_size": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("program", [a_scan_that_carries_its_key, keys_made_of_data, in_a_branch, a_key_made_of_a_draw])
def test_keys_made_of_the_key_are_fine(program, options):
    with jax.debug_key_reuse(False):
        assert jnp.isfinite(mcgrad.grad(program, **options)(0.3, jax.random.key(0)))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("program", [another_key, one_of_two_draws, in_a_scan, in_another_branch])
def test_a_draw_that_samples_share_is_refused(program, options):
    with pytest.raises(ValueError, match=r"test_samples.py:\d+.*a key that is not made of the argument `key`"):
        mcgrad.grad(program, **options)(0.3, jax.random.key(0))


@pytest.mark.parametrize("program", [another_key, one_of_two_draws, in_a_scan, in_another_branch])
def test_diagnostics_refuse_it_too(program):
    for estimate in (
        mcgrad.diagnostics.gradient_statistics(program, num_samples=8),
        mcgrad.diagnostics.compare(program, [mcgrad.Pathwise()], num_samples=8),
    ):
        with pytest.raises(ValueError, match="a key that is not made of the argument `key`"):
            estimate(0.3, jax.random.key(0))


@pytest.mark.parametrize("bound", [mcgrad.vimco, mcgrad.vargrad])
def test_bounds_of_many_samples_refuse_it_too(bound):
    def log_weight(t, key, other):
        x = mcgrad.sample(key, mcgrad.Bernoulli(logits=t))
        y = mcgrad.sample(other, mcgrad.Bernoulli(logits=t))
        return 0.3 * x - 0.2 * y

    with pytest.raises(ValueError, match="a key that is not made of the argument `key`"):
        jax.grad(bound(log_weight, num_samples=4))(0.3, jax.random.key(0), jax.random.key(1))


def test_noise_that_samples_share_may_be_fixed():
    def program(t, key):
        noise = mcgrad.sample(jax.random.clone(OTHER), mcgrad.Normal(0.0, 1.0))  # no parameter reaches it
        return bit(t, key) * noise

    assert jnp.isfinite(mcgrad.grad(program, num_samples=4)(0.3, jax.random.key(0)))
