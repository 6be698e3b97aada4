"""Distributions that close over what the program computes: derivatives, credit and batches are those of parameters."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad


def gradients(program, t, num=100_000):
    keys = jax.random.split(jax.random.key(0), num)
    return jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(t, keys)


def shifted(shift):
    """A normal draw around `p + shift`, the shift closed over by both functions."""
    return mcgrad.distribution(
        sampler=lambda key, p: p + shift + jax.random.normal(key),
        log_prob=lambda x, p: -0.5 * (x - p - shift) ** 2,
    )(0.5)


@pytest.mark.parametrize("estimator", [mcgrad.Pathwise(), mcgrad.Score(), mcgrad.Score(num_samples=2)])
def test_a_sampler_over_what_was_computed(estimator):
    def program(t, key):
        return mcgrad.sample(key, shifted(jnp.exp(t)), estimator) ** 2

    # E = (0.5 + e^t)^2 + 1
    assert_unbiased(gradients(program, 0.4), 2 * (0.5 + np.exp(0.4)) * np.exp(0.4))


def test_only_the_log_density_closes_over_it():
    def program(t, key):
        biased = mcgrad.distribution(
            sampler=lambda key, p: jax.random.bernoulli(key, p).astype(float),
            log_prob=lambda x, p: jnp.where(x > 0, jnp.log(0.5 + t), jnp.log(0.5 - t)),
        )
        return 3.0 * mcgrad.sample(key, biased(0.5), mcgrad.Score())

    assert_unbiased(gradients(program, 0.0), 3.0)


@pytest.mark.parametrize("estimator", [mcgrad.Pathwise(), mcgrad.Score()])
def test_in_the_steps_of_a_scan_over_what_they_carry(estimator):
    def program(t, key):
        def step(x, k):
            x = mcgrad.sample(k, shifted(t * x), estimator)
            return x, x

        return jnp.sum(jax.lax.scan(step, 1.0, jax.random.split(key, 3))[1])

    def mean(t):
        first = t + 0.5
        second = t * first + 0.5
        return first + second + t * second + 0.5

    assert_unbiased(gradients(program, 0.4), jax.grad(mean)(0.4))


@pytest.mark.parametrize("estimator", [mcgrad.Pathwise(), mcgrad.Score()])
def test_under_vmap_jit_and_cond(estimator):
    def program(t, key):
        def one(scale, k):
            draw = jax.jit(lambda s: mcgrad.sample(k, shifted(jnp.sin(s * t)), estimator))
            return jax.lax.cond(t > 0, draw, lambda s: s, scale)

        return jnp.sum(jax.vmap(one)(jnp.arange(1.0, 4.0), jax.random.split(key, 3)))

    assert_unbiased(gradients(program, 0.4), np.cos(0.4) + 2 * np.cos(0.8) + 3 * np.cos(1.2))


def test_entries_are_credited_with_their_own_costs():
    def program(shift, key, closed):
        base = mcgrad.Normal(jnp.zeros(8) if closed else shift, 1.0)
        bijection = mcgrad.bijection(lambda x: x + shift, lambda y: y - shift)
        dist = mcgrad.Transformed(base, bijection()) if closed else base
        return jnp.sum(mcgrad.sample(key, dist, mcgrad.Score()) ** 2)

    def variance(closed):
        return gradients(lambda shift, key: program(shift, key, closed), jnp.linspace(0.0, 1.0, 8), 10_000).var(0).sum()

    np.testing.assert_allclose(variance(True), variance(False), rtol=0.05)


def test_a_bijection_over_what_was_computed_to_second_order():
    def program(t, key):
        scale = jnp.exp(t)
        bijection = mcgrad.bijection(lambda x: x * scale, lambda y: y / scale)
        return mcgrad.sample(key, mcgrad.Transformed(mcgrad.Normal(1.0, 1.0), bijection())) ** 2

    # E = 2 e^(2t)
    keys = jax.random.split(jax.random.key(0), 20_000)
    hessians = jax.jit(jax.vmap(jax.hessian(mcgrad.expectation(program)), (None, 0)))(0.2, keys)
    assert_unbiased(hessians, 8 * np.exp(0.4))


@pytest.mark.parametrize("estimator", [mcgrad.Pathwise(), mcgrad.Score()])
def test_parameters_of_16_bits(estimator):
    def program(t, key):
        shift = 3 * t
        bijection = mcgrad.bijection(lambda x: x + shift, lambda y: y - shift)
        base = mcgrad.Normal(jnp.bfloat16(0.5), jnp.bfloat16(1.0))
        return mcgrad.sample(key, mcgrad.Transformed(base, bijection()), estimator).astype(jnp.float32)

    # Sixteen bits have 8 digits of a draw: a mean of their gradients is right to about a hundredth.
    np.testing.assert_allclose(gradients(program, jnp.bfloat16(0.4)).astype(np.float32).mean(), 3.0, atol=0.1)


def test_a_jump_of_what_is_closed_over_is_no_path():
    def program(t, key):
        mixed = mcgrad.distribution(
            sampler=lambda key, p: jnp.where(jax.random.uniform(key) < jax.nn.sigmoid(t), p, 3.0)
        )
        return mcgrad.sample(key, mixed(0.0))

    with pytest.raises(ValueError, match="closes over.*identically zero"):
        mcgrad.pathwise_grad(program)(0.4, jax.random.key(0))


def library(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_distributions_of_other_libraries_around_parameters():
    distrax, tfp = library("distrax"), library("tensorflow_probability.substrates.jax")

    def program(t, key, estimator):
        dist = distrax.as_distribution(tfp.distributions.Normal(jnp.sin(t), 1.0))
        return mcgrad.sample(key, dist, estimator) ** 2

    def uniform(t, key):
        return mcgrad.sample(key, distrax.as_distribution(tfp.distributions.Uniform(0.0, t)), mcgrad.Score())

    for estimator in (mcgrad.Pathwise(), mcgrad.Score()):
        found = gradients(lambda t, key, e=estimator: program(t, key, e), 0.4)
        assert_unbiased(found, 2 * np.sin(0.4) * np.cos(0.4))
    with pytest.raises(ValueError, match="support moves with `what it closes over`"):
        mcgrad.grad(uniform)(0.4, jax.random.key(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_masks_of_log_densities_do_not_reach_draws():
    numpyro = library("numpyro.distributions")
    with jax.debug_key_reuse(False):
        found = gradients(
            lambda t, key: mcgrad.sample(key, numpyro.Normal(t, 1.0).mask(False), mcgrad.Score()) ** 2, 1.0
        )
        assert_unbiased(found, 2.0)
        bit = lambda t, key: 1.0 * mcgrad.sample(key, numpyro.Bernoulli(logits=t).mask(False))  # noqa: E731
        value = mcgrad.expectation(bit, estimator=mcgrad.Enumerate())
        np.testing.assert_allclose(jax.jit(value)(0.3, jax.random.key(0)), jax.nn.sigmoid(0.3), rtol=1e-6)
        inside = numpyro.Independent(numpyro.Normal(jnp.zeros(2), 1.0).mask(jnp.array([True, False])), 1)
        with pytest.raises(TypeError, match="MaskedDistribution in it. Draw without the mask"):
            mcgrad.sample(jax.random.key(0), inside)
