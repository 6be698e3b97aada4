"""Programs of any size: more samples, steps, dimensions, examples or draws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case

ESTIMATORS = {"score": mcgrad.Score, "pathwise": mcgrad.Pathwise}


def _law(estimator: str, params: jax.Array) -> Any:
    """A discrete law for the score, a continuous one for the path."""
    return mcgrad.Bernoulli(logits=params) if estimator == "score" else mcgrad.Normal(params, 1.0)


def _case(estimator: str, program: Any, params: Any, num_samples: int = 1) -> Case:
    return jax_case(mcgrad.value_and_grad(program, estimator=ESTIMATORS[estimator](), num_samples=num_samples), params)


def vector(estimator: str, size: int, num_samples: int = 1) -> Case:
    """One draw of `size` dimensions that one cost mixes."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        x = mcgrad.sample(key, _law(estimator, params))
        return jnp.tanh(jnp.sum(x) / size)

    return _case(estimator, program, jnp.zeros(size), num_samples)


def samples(estimator: str, size: int) -> Case:
    """`size` samples of a draw of 100 dimensions."""
    return vector(estimator, 100, num_samples=size)


def steps(estimator: str, size: int) -> Case:
    """A chain of 32 dimensions, `size` steps in a scan, with a cost at each."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + 0.1 * mcgrad.sample(key, _law(estimator, params + x))
            return x, jnp.sum(x**2)

        return jnp.sum(jax.lax.scan(step, jnp.zeros(32), jax.random.split(key, size))[1])

    return _case(estimator, program, jnp.zeros(32))


def examples(estimator: str, size: int) -> Case:
    """A batch of `size` examples, 64 latents each, through a decoder to 256 numbers."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (size, 256))
    params = {
        "encoder": 0.1 * jax.random.normal(keys[1], (256, 64)),
        "decoder": 0.1 * jax.random.normal(keys[2], (64, 256)),
    }

    def program(params: Any, key: jax.Array) -> jax.Array:
        z = mcgrad.sample(key, _law(estimator, x @ params["encoder"]))
        return jnp.mean(jnp.sum((jnp.tanh(z @ params["decoder"]) - x) ** 2, axis=-1))

    return _case(estimator, program, params)


def lines(estimator: str, size: int) -> Case:
    """`size` scalar draws, each a line of its own, each from the sum of those before, with a cost each."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        keys, total, cost = jax.random.split(key, size), jnp.float32(0.0), jnp.float32(0.0)
        for i in range(size):
            total = total + mcgrad.sample(keys[i], _law(estimator, params[i] + 0.1 * total)) / size
            cost = cost + total**2
        return cost

    return _case(estimator, program, jnp.zeros(size))


BUILDERS = {fn.__name__: fn for fn in (samples, steps, vector, examples, lines)}
