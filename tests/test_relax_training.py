"""RELAX and REBAR on the published toy: variances, and surrogates trained for less of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mcgrad

TARGET = 0.499  # the toy of Grathwohl et al. 2018, figure 1


def toy(logits, key, estimator):
    return (mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator) - TARGET) ** 2


def toy_gradients(control, keys, logits=0.0, coupled=False):
    gradient = mcgrad.grad(functools.partial(toy, estimator=mcgrad.RELAX(control, coupled=coupled)))
    return jax.vmap(gradient, (None, 0))(logits, keys)


def test_the_published_variances_of_rebar_and_its_best_coefficient():
    """Log variances at p = 1/2 for eta = 1: -2.48, -3.80, -4.00, -4.10 at temperatures 0.1, 0.5, 1, 2; the score's is -4.159."""

    def rebar(eta, temperature, keys):
        return toy_gradients(lambda z: eta * (jax.nn.sigmoid(z / temperature) - TARGET) ** 2, keys)

    keys = jax.random.split(jax.random.key(3), 400_000)
    temperatures = jnp.asarray([0.1, 0.5, 1.0, 2.0])
    score, full = jax.jit(lambda keys: jax.lax.map(lambda t: (rebar(0.0, t, keys), rebar(1.0, t, keys)), temperatures))(
        keys
    )
    np.testing.assert_allclose(jnp.log(jnp.var(score, axis=1)), np.log((0.25 / 2) ** 2), atol=0.01)
    np.testing.assert_allclose(jnp.log(jnp.var(full, axis=1)), [-2.48, -3.80, -4.00, -4.10], atol=0.02)
    # The gradient is affine in eta: the coefficient of least variance is that of a regression.
    slope = full - score
    centered = slope - slope.mean(1, keepdims=True)
    best = -jnp.sum(centered * score, axis=1) / jnp.sum(centered**2, axis=1)
    np.testing.assert_allclose(best, 0.0, atol=0.01)


def free(phi, z, target):
    bit = jax.nn.sigmoid(2.0 * z)
    return phi[0] + phi[1] * bit + phi[2] * bit**2


def rebar(phi, z, target):
    return phi[0] * (jax.nn.sigmoid(2.0 * z) - target) ** 2


@pytest.mark.parametrize(
    ("control", "start", "logits", "target", "log_variance"),
    [
        (free, [0.0, 0.0, 0.0], 0.8, 0.3, -9.0),  # the score: -4.6
        (free, [0.0, 0.0, 0.0], 0.0, TARGET, -15.0),  # the score: -4.159; published curves end between -9.5 and -20.5
        (rebar, [1.0], 0.0, TARGET, -4.15),  # eta to zero: no better than the score
    ],
)
def test_a_surrogate_is_trained(control, start, logits, target, log_variance):
    """By the derivative of the squared gradient, of one sample a step."""

    def gradient(phi, key):
        def loss(logits, key):
            relax = mcgrad.RELAX(lambda z: control(phi, z, target))
            return (mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), relax) - target) ** 2

        return mcgrad.grad(loss)(logits, key)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 4000))

    def step(state, key):
        phi, moments = state
        updates, moments = optimizer.update(jax.grad(lambda phi: gradient(phi, key) ** 2)(phi), moments)
        return (optax.apply_updates(phi, updates), moments), None

    phi = jnp.asarray(start)
    keys = jax.random.split(jax.random.key(4), 4000)
    (phi, _), _ = jax.jit(lambda keys: jax.lax.scan(step, (phi, optimizer.init(phi)), keys))(keys)
    draws = jax.jit(jax.vmap(gradient, (None, 0)))(phi, jax.random.split(jax.random.key(5), 100_000))
    p = float(jax.nn.sigmoid(logits))
    exact = p * (1 - p) * (1 - 2 * target)
    assert abs(draws.mean() - exact) < 5 * draws.std() / 100_000**0.5 + 1e-12
    assert np.log(draws.var()) < log_variance
    if control is rebar:
        np.testing.assert_allclose(phi, 0.0, atol=0.05)
        np.testing.assert_allclose(np.log(draws.var()), np.log((0.25 / 2) ** 2), atol=0.01)


def test_the_best_surrogate_of_the_toy_leaves_no_variance():
    """At p = 1/2 it is the constant `E[c]`: the gain of a baseline, of which the score with one has all."""
    keys = jax.random.split(jax.random.key(6), 1000)
    mean = 0.5 * TARGET**2 + 0.5 * (1 - TARGET) ** 2
    np.testing.assert_allclose(
        jax.jit(functools.partial(toy_gradients, lambda z: mean + 0.0 * z))(keys), 0.25 * (1 - 2 * TARGET), atol=1e-12
    )
