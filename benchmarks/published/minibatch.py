"""What a library costs over a gradient by hand, on images: Becker et al. 2024, table 1."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure
from benchmarks.runner import Session

TITLE = "Becker et al. 2024, table 1 (time over by hand)"
SET_UP = (
    "Autoencoder of 28 x 28 images, 784-200-10-200-784, a normal code, gradient of the ELBO of each image by a vmap (their "
    "script's set-up, on random images; ours on this machine's cores, theirs on a graphics card). Ratio of the times of a "
    "step, mcgrad's over by hand, medians of alternating rounds with their standard error; theirs is of two printed times. "
    "Operations are XLA's count."
)
PIXELS, HIDDEN, CODE = 784, 200, 10
PUBLISHED = {64: 0.11 / 0.09, 128: 0.22 / 0.16, 256: 0.31 / 0.29}
ROUNDS = 15


def parameters() -> Any:
    sizes = {"in": (PIXELS, HIDDEN), "code": (HIDDEN, 2 * CODE), "out": (CODE, HIDDEN), "image": (HIDDEN, PIXELS)}
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return {
        name: (jax.random.normal(key, size) / np.sqrt(size[0]), jnp.zeros(size[1]))
        for (name, size), key in zip(sizes.items(), keys, strict=True)
    }


def linear(params: Any, name: str, x: jax.Array) -> jax.Array:
    weights, bias = params[name]
    return x @ weights + bias


def guide(params: Any, image: jax.Array) -> mcgrad.Normal:
    code = linear(params, "code", jax.nn.leaky_relu(linear(params, "in", image)))
    return mcgrad.Normal(code[:CODE], jax.nn.softplus(code[CODE:]))


def elbo(params: Any, image: jax.Array, law: mcgrad.Normal, z: jax.Array) -> jax.Array:
    logits = linear(params, "image", jax.nn.leaky_relu(linear(params, "out", z)))
    likelihood = jnp.sum(image * logits - jax.nn.softplus(logits))
    return likelihood + jnp.sum(mcgrad.Normal(0.0, 1.0).log_prob(z)) - jnp.sum(law.log_prob(z))


def program(params: Any, image: jax.Array, key: jax.Array) -> jax.Array:
    law = guide(params, image)
    return elbo(params, image, law, mcgrad.sample(key, law))


def by_hand(params: Any, image: jax.Array, key: jax.Array) -> jax.Array:
    law = guide(params, image)
    return elbo(params, image, law, law.loc + law.scale * jax.random.normal(key, (CODE,)))


def ratios(ours: Callable[[], Any], hand: Callable[[], Any], rounds: int) -> list[float]:
    """Of the times of a step, one of each in every round."""

    def seconds(step: Callable[[], Any]) -> float:
        began = time.perf_counter()
        jax.block_until_ready(step())
        return time.perf_counter() - began

    for step in (ours, hand):
        seconds(step)
    return [seconds(ours) / seconds(hand) for _ in range(rounds)]


def measure(session: Session) -> list[Figure]:
    figures, params = [], parameters()
    for batch, published in PUBLISHED.items():
        images = (jax.random.uniform(jax.random.key(1), (batch, PIXELS)) < 0.3).astype(jnp.float32)
        arguments = params, images, jax.random.split(jax.random.key(2), batch)
        ours, hand = (
            jax.jit(jax.vmap(gradient, (None, 0, 0))).lower(*arguments).compile()
            for gradient in (mcgrad.grad(program), jax.grad(by_hand))
        )
        steps = functools.partial(ours, *arguments), functools.partial(hand, *arguments)
        rounds = ratios(*steps, 3 if session.quick else ROUNDS)
        error = 1.25 * float(np.std(rounds, ddof=1) / np.sqrt(len(rounds)))  # of a median of normal values
        figures.append(Figure(f"batch of {batch}, time", float(np.median(rounds)), error, published, "at most"))
        operations = ours.cost_analysis()["flops"] / hand.cost_analysis()["flops"]
        figures.append(Figure(f"batch of {batch}, operations", operations, 0.0, 1.0, "at most", 0.001))
    return figures
