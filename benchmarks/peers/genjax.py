"""GenJAX's ADEV estimators on the programs of the JAX libraries. It has no value beside a gradient: the gradient alone is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from genjax import adev, seed

from benchmarks import inputs
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case, serve

FLIPS = {"enumeration": adev.flip_enum, "score": adev.flip_reinforce, "measure-valued": adev.flip_mvd}
NORMALS = {"pathwise": adev.normal_reparam, "score": adev.normal_reinforce}


def _case(program: Callable[[jax.Array], jax.Array], params: Any) -> Case:
    gradient = seed(adev.expectation(program).grad_estimate)
    return jax_case(lambda params, key: (None, gradient(key, params)), params)


def mixed(bit: str, normal: str) -> Case:
    flip, gaussian = FLIPS[bit], NORMALS[normal]

    def program(params: jax.Array) -> jax.Array:
        b = flip(jax.nn.sigmoid(params[0]))
        x = gaussian(jnp.where(b, params[1], -params[1]), jnp.exp(params[2]))
        return (x - 1) ** 2 + 0.5 * b

    return _case(program, inputs.MIXED)


def bits(estimator: str, num: int, joint: bool) -> Case:
    w, flip = inputs.bits_weights(num), FLIPS[estimator]

    def program(logits: jax.Array) -> jax.Array:
        b = [flip(jax.nn.sigmoid(logits[i])) for i in range(num)]
        if joint:
            return (sum(w[i] * b[i] for i in range(num)) - jnp.sum(w) / 3) ** 2
        return sum((w[i] * b[i] - 1 / 3) ** 2 for i in range(num))

    return _case(program, inputs.bits(num))


def gaussian_chain(estimator: str, num_steps: int) -> Case:
    gaussian = NORMALS[estimator]

    def program(loc: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + gaussian(loc[0], 0.3)
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.float32(0.0), None, length=num_steps)[1])

    return _case(program, jnp.full(1, inputs.CHAIN))


def bernoulli_chain(estimator: str, num_steps: int) -> Case:
    flip = FLIPS[estimator]

    def program(logit: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + 0.1 * (2 * flip(jax.nn.sigmoid(logit[0])) - 1)
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.float32(0.0), None, length=num_steps)[1])

    return _case(program, jnp.full(1, inputs.CHAIN))


if __name__ == "__main__":
    builders = {fn.__name__: fn for fn in (mixed, bits, gaussian_chain, bernoulli_chain)}
    serve(builders, ("genjax", "jax", "jaxlib"))
