"""Every estimator beside every other in one program of two layers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

BESIDE = {
    "pathwise": mcgrad.Pathwise(),
    "score": mcgrad.Score(),
    "score, 2 points": mcgrad.Score(num_samples=2),
    "enumerate": mcgrad.Enumerate(),
    "smoothed perturbation": mcgrad.SmoothedPerturbation(),
    "arm": mcgrad.ARM(),
    "disarm": mcgrad.DisARM(),
    "arms": mcgrad.ARMS(3),
    "local expectation": mcgrad.LocalExpectation(),
    "carms": mcgrad.CARMS(2),
    "tree disarm": mcgrad.TreeDisARM(),
    "arsm": mcgrad.ARSM(),
    "unordered set": mcgrad.UnorderedSet(2),
    "importance": mcgrad.ImportanceWithoutReplacement(2),
    "sum and sample": mcgrad.SumAndSample(enumerated="drawn"),
    "importance sampling": mcgrad.ImportanceSampling(lambda law: mcgrad.Bernoulli(logits=0.7 * law.logits)),
    "relax": mcgrad.RELAX(lambda z: 0.6 + 0.2 * jnp.tanh(jnp.sum(z))),
    "lax": mcgrad.LAX(lambda x: (0.9 * x[0] + 0.4 * x[1] - 0.6) ** 2),
    "measure-valued": mcgrad.MeasureValued(),
    "measure-valued, size bias": mcgrad.MeasureValued("size_bias", "comonotone"),
}
NAMES = list(BESIDE)
PARAMS = jnp.array([0.4, -0.3, 0.8])


def law(estimator, location):
    """A law that the estimator is for, two entries of it."""
    return mcgrad.Normal(location, scale(location)) if is_normal(estimator) else mcgrad.Bernoulli(logits=location)


def is_normal(estimator):
    return isinstance(estimator, (mcgrad.Pathwise, mcgrad.LAX, mcgrad.MeasureValued))


def scale(location):
    return 0.5 * jnp.exp(0.3 * location)


def cost(x, y):
    return (y[0] + 0.7 * y[1] + 0.6 * x[0] - 0.4 * x[1] - 0.8) ** 2  # mixes everything


def program(params, key, first, second):
    key_x, key_y = jax.random.split(key)
    x = mcgrad.sample(key_x, law(first, params[0] * jnp.array([1.0, -0.5])), first) * 1.0
    y = mcgrad.sample(key_y, law(second, params[1] + params[2] * x), second) * 1.0
    return cost(x, y)


def nodes_of(normal, location):
    """Values `[n, 2]` of two entries and their probabilities."""
    if normal:
        nodes, weights = np.polynomial.hermite_e.hermegauss(12)
        values = location[None] + scale(location)[None] * jnp.asarray(np.stack([nodes, nodes], 1))
        weights = jnp.asarray(np.stack([weights, weights], 1) / weights.sum())
    else:
        values, p = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jax.nn.sigmoid(location)
        weights = jnp.stack([1 - p, p])
    i, j = (index.ravel() for index in np.indices((len(values),) * 2))
    return jnp.stack([values[i, 0], values[j, 1]], 1), weights[i, 0] * weights[j, 1]


@functools.cache
def exact(first_is_normal, second_is_normal):
    def expectation(params):
        def given(x):
            y, q = nodes_of(second_is_normal, params[1] + params[2] * x)
            return q @ jax.vmap(lambda y: cost(x, y))(y)

        x, p = nodes_of(first_is_normal, params[0] * jnp.array([1.0, -0.5]))
        return p @ jax.vmap(given)(x)

    return np.asarray(jax.jit(jax.grad(expectation))(PARAMS))


def check(pairs, num_draws):
    """All pairs in one compilation."""

    @jax.jit
    def run(params, keys):
        def each(key):
            return [mcgrad.grad(program)(params, key, BESIDE[first], BESIDE[second]) for first, second in pairs]

        return jax.lax.map(each, keys, batch_size=2000)

    with jax.debug_key_reuse(False):  # all pairs run on the same keys
        gradients = run(PARAMS, jax.random.split(jax.random.key(7), num_draws))
    for (first, second), gradient in zip(pairs, gradients, strict=True):
        try:
            assert_unbiased(gradient, exact(*(is_normal(BESIDE[name]) for name in (first, second))))
        except AssertionError as error:
            raise AssertionError(f"{first} and then {second}: {error}") from error


# One of each way to run the rest of the program; all 400 pairs are marked slow.
OF_EACH_KIND = ("pathwise", "score", "enumerate", "disarm", "unordered set")


def test_each_kind_stands_before_one_and_after_another():
    check([(name, OF_EACH_KIND[(i + 2) % len(OF_EACH_KIND)]) for i, name in enumerate(OF_EACH_KIND)], 24_000)


@pytest.mark.slow
@pytest.mark.parametrize("first", NAMES)
def test_all_pairs(first):
    check([(first, second) for second in NAMES], 60_000)


# ---------------------------------------------------------------- draws that no cost mixes, run beside each other

MANY = 80
"""Draws of their own, each of which needs the rest of the program; one within another they would be too deep for Python."""


def many_bits(logits, key):
    bits = [
        mcgrad.sample(k, mcgrad.Bernoulli(logits=logits[i])) for i, k in enumerate(jax.random.split(key, len(logits)))
    ]
    return sum((0.1 * i + b) ** 2 for i, b in enumerate(bits)), sum(bits)


def test_draws_that_no_cost_mixes_are_enumerated_beside_each_other():
    transform = mcgrad.value_and_grad(many_bits, estimator=mcgrad.Enumerate(), has_aux=True)
    jax.make_jaxpr(transform)(jnp.zeros(MANY), jax.random.key(0))
    logits = jnp.linspace(-1.0, 1.0, 4)
    (value, aux), gradient = transform(logits, jax.random.key(0))
    p, i = jax.nn.sigmoid(logits), 0.1 * jnp.arange(4)
    np.testing.assert_allclose(value, jnp.sum((1 - p) * i**2 + p * (i + 1) ** 2), rtol=1e-10)
    np.testing.assert_allclose(gradient, p * (1 - p) * (2 * i + 1), rtol=1e-10)
    assert aux == many_bits(logits, jax.random.key(0))[1]  # that of one plain run


def two_parts(params, key, first, second):
    """Two draws that need the rest, each in a cost of its own; a scored draw before and one between are in both costs."""
    keys = jax.random.split(key, 4)
    shared = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=params[0]), mcgrad.Score(baseline=1.0))
    x = mcgrad.sample(keys[1], mcgrad.Bernoulli(logits=params[1] + shared), first)
    between = mcgrad.sample(keys[2], mcgrad.Bernoulli(logits=params[2]), mcgrad.Score(baseline=1.5))
    y = mcgrad.sample(keys[3], mcgrad.Bernoulli(logits=params[1] - between), second)
    return (x - 0.3 * shared + between) ** 2 + 2.0 * (y * shared + 0.5 * between), (shared, x, between, y)


def exact_two_parts(params):
    def both(value):
        return lambda logits: jnp.where(value, jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits))

    total = 0.0
    for s, x, b, y in np.ndindex(2, 2, 2, 2):
        probability = both(s)(params[0]) * both(x)(params[1] + s) * both(b)(params[2]) * both(y)(params[1] - b)
        total += probability * ((x - 0.3 * s + b) ** 2 + 2.0 * (y * s + 0.5 * b))
    return total


@pytest.mark.parametrize("num_samples", [1, 2])
def test_a_draw_between_two_parts_is_credited_once_with_each(num_samples):
    def of(first, second):
        transform = mcgrad.value_and_grad(two_parts, num_samples=num_samples, has_aux=True)
        return lambda key: transform(PARAMS, key, first, second)

    keys = jax.random.split(jax.random.key(3), 20_000)
    (value, aux), gradient = jax.jit(jax.vmap(of(mcgrad.Enumerate(), mcgrad.DisARM())))(keys)
    exact_value, exact_gradient = jax.value_and_grad(exact_two_parts)(PARAMS)
    assert_unbiased(value, exact_value)
    assert_unbiased(gradient, exact_gradient)
    assert all(0.05 < np.mean(part) < 0.95 for part in aux)
