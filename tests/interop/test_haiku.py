"""Haiku: old-style keys, sequences of them, and transformed functions that are programs themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipe import ROWS, Recipe, assert_mean, assert_same

import mcgrad

hk = pytest.importorskip("haiku")


def networks():
    def both():
        hidden, out, decoder = hk.Linear(16), hk.Linear(4), hk.Linear(6)
        encode = lambda x: out(jax.nn.relu(hidden(x)))  # noqa: E731
        return lambda x: decoder(encode(x)), (encode, decoder)

    return hk.without_apply_rng(hk.multi_transform(both))


def recipe():
    made = networks()
    encode, decode = made.apply
    return made.init(jax.random.PRNGKey(0), ROWS), Recipe(encode, decode)


def test_a_discrete_model_learns():
    params, made = recipe()
    optimizer, sequence = optax.adam(0.03), hk.PRNGSequence(0)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, rng):
        gradient = mcgrad.grad(made.loss, num_samples=4)(params, ROWS, rng)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    def train(_):
        nonlocal params, state
        params, state = step(params, state, next(sequence))

    made.check_trained(train, lambda: made.exact(params, ROWS))


def test_gradients_are_those_by_enumeration():
    params, made = recipe()
    exact = jax.grad(made.exact)(params, ROWS)
    assert_same(mcgrad.grad(made.loss, estimator=mcgrad.Enumerate())(params, ROWS, jax.random.PRNGKey(1)), exact)
    statistics = mcgrad.gradient_statistics(made.loss, 4_000, estimator=mcgrad.DisARM())
    assert_mean(statistics(params, ROWS, jax.random.PRNGKey(1)), exact)
    tree = {**params, "counter": {"calls": np.int32(3)}}
    of_tree = lambda tree, x, rng: made.loss({n: tree[n] for n in params}, x, rng)  # noqa: E731
    found = mcgrad.grad(of_tree, estimator=mcgrad.Enumerate())(tree, ROWS, jax.random.PRNGKey(1))
    assert found["counter"]["calls"] is None
    assert_same({n: found[n] for n in params}, exact)


def test_a_sequence_of_keys_may_be_the_randomness():
    params, made = recipe()

    def loss(params, x, rng):
        return made.loss(params, x, next(rng))

    sequence, same = hk.PRNGSequence(5), hk.PRNGSequence(5)
    for num_samples in (1, 3):
        found = mcgrad.expectation(loss, num_samples=num_samples)(params, ROWS, sequence)
        keys = jax.random.split(next(same), num_samples) if num_samples > 1 else next(same)[None]
        each = [made.loss(params, ROWS, next(hk.PRNGSequence(key))) for key in keys]
        np.testing.assert_allclose(found, np.mean(each), rtol=1e-5)
    assert (next(sequence) == next(same)).all()
    with pytest.raises(TypeError, match="PRNGSequence`. Pass `next.sequence.`"):
        mcgrad.gradient_statistics(loss, 10)(params, ROWS, sequence)


def test_a_transformed_function_may_be_the_program():
    def loss(x):
        hidden = hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(4)(x))
        b = mcgrad.sample(hk.next_rng_key(), mcgrad.Bernoulli(logits=hidden))
        return jnp.mean((b - 0.2) ** 2)

    program = hk.transform(loss)
    params, key = program.init(jax.random.PRNGKey(0), ROWS), jax.random.PRNGKey(1)
    gradient = mcgrad.grad(program.apply, estimator=mcgrad.Enumerate(), num_samples=2)(params, key, ROWS)

    def by_hand(params, key):
        def expected(x):
            chances = jax.nn.sigmoid(hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(4)(x)))
            return jnp.mean(0.64 * chances + 0.04 * (1 - chances))

        return hk.transform(expected).apply(params, key, ROWS)

    keys = jax.random.split(key)
    assert_same(gradient, jax.grad(lambda params: (by_hand(params, keys[0]) + by_hand(params, keys[1])) / 2)(params))
