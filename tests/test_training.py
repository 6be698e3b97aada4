"""Training loops as they are written at scale: donated arguments, accumulated gradients, parameters of 16 bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mcgrad

PARAMS = {"logits": jnp.asarray([0.3, -0.8, 0.1], jnp.float32), "scale": jnp.asarray(1.5, jnp.float32)}


def loss(params, x, key):
    bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=params["logits"]))
    return jnp.mean((params["scale"] * bits - x) ** 2)


def test_donated_arguments_and_one_compilation():
    traced = []
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))

    def step(carry, x, key):
        traced.append(1)
        params, state, average = carry
        value, grads = mcgrad.value_and_grad(loss, num_samples=4)(params, x, key)
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        return (params, state, optax.incremental_update(params, average, 0.1)), value

    def run(step):
        carry = jax.tree.map(jnp.array, (PARAMS, optimizer.init(PARAMS), PARAMS))
        for i in range(4):
            carry, value = step(carry, jnp.ones(3, jnp.float32), jax.random.key(i))
        return carry, value

    kept = run(jax.jit(step))
    donated = run(jax.jit(step, donate_argnums=0))
    jax.tree.map(np.testing.assert_array_equal, kept, donated)
    assert len(traced) == 1


def test_accumulated_gradients_are_those_of_the_whole_batch():
    batches = jnp.linspace(-1.0, 1.0, 12, dtype=jnp.float32).reshape(4, 3)
    keys = jax.random.split(jax.random.key(1), 4)
    gradient = mcgrad.grad(loss, num_samples=2)
    optimizer = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=4)

    @jax.jit
    def accumulated():
        def step(carry, given):
            params, state = carry
            updates, state = optimizer.update(gradient(params, *given), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), (batches, jax.random.clone(keys)))[0][0]

    @jax.jit
    def at_once():
        grads = jax.vmap(gradient, (None, 0, 0))(PARAMS, batches, keys)
        return jax.tree.map(lambda p, g: p - 0.1 * g.mean(0), PARAMS, grads)

    first = accumulated()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), first, at_once())


def test_parameters_of_16_bits():
    """Gradients have their dtype, and are those in float32 up to rounding."""
    x, key = jnp.ones(3, jnp.bfloat16), jax.random.key(2)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    gradient = jax.jit(mcgrad.grad(loss, estimator=mcgrad.Enumerate()))
    found, exact = gradient(halves, x, key), gradient(PARAMS, x.astype(jnp.float32), key)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(found))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.03, atol=0.01), found, exact)
