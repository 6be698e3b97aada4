"""Paths of a multivariate normal: Jankowiak and Obermeyer 2018 (optimal transport), Jankowiak and Karaletsos 2019 (learned)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Jankowiak and Obermeyer 2018, Jankowiak and Karaletsos 2019"
SET_UP = (
    "N(0, L L^T) in 50 dimensions, L of ones on the diagonal and entries of size r / √50 below; variance of the "
    "derivatives in the entries below the diagonal, over that of the sampler's path (theirs are curves in r without "
    "numbers: below one for costs that mix the dimensions). The costs: sum of cosines of mixtures, a quadratic and a "
    "quartic form. The learned path has one pair of vectors, 500 steps of Adam on the square of the gradient."
)
DIMENSION, SIZES, NUM_GRADIENTS, STEPS = 50, (0.0, 1.0, 3.0), 4000, 500
MIXING = jnp.asarray(np.random.default_rng(0).normal(size=(DIMENSION, DIMENSION)) / np.sqrt(DIMENSION), jnp.float32)
COSTS = {
    "cosine": lambda z: jnp.sum(jnp.cos(MIXING @ z)),
    "quadratic": lambda z: z @ MIXING @ z,
    "quartic": lambda z: (z @ MIXING @ z) ** 2 / DIMENSION,
}
BELOW = np.tril_indices(DIMENSION, -1)


def loss(tril: jax.Array, estimator: mcgrad.Pathwise, key: jax.Array, cost: str) -> jax.Array:
    law = mcgrad.MultivariateNormal(jnp.zeros(DIMENSION), scale_tril=tril)
    return COSTS[cost](mcgrad.sample(key, law, estimator))


@functools.partial(jax.jit, static_argnames="cost")
def learned(tril: jax.Array, cost: str) -> mcgrad.Pathwise:
    optimizer, start = optax.adam(0.01), mcgrad.AdaptiveVelocity.init(jax.random.key(1), dimension=DIMENSION)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        path, state = carry

        def size(path: mcgrad.AdaptiveVelocity) -> jax.Array:
            return jnp.sum(jnp.tril(mcgrad.grad(loss)(tril, mcgrad.Pathwise(path=path), key, cost), -1) ** 2)

        updates, state = optimizer.update(jax.grad(size)(path), state)
        return (optax.apply_updates(path, updates), state), None

    keys = jax.random.split(jax.random.key(2), STEPS)
    return mcgrad.Pathwise(path=jax.lax.scan(step, (start, optimizer.init(start)), keys)[0][0])


def below(key: jax.Array, tril: jax.Array, estimator: mcgrad.Pathwise, cost: str) -> jax.Array:
    return mcgrad.grad(loss)(tril, estimator, key, cost)[BELOW]


def measure(session: Session) -> list[Figure]:
    figures, count = [], session.draws(NUM_GRADIENTS)
    for cost in COSTS:
        of_cost = functools.partial(below, cost=cost)
        for size in SIZES:
            entries = size / np.sqrt(DIMENSION) * np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION))
            tril = jnp.eye(DIMENSION) + jnp.tril(jnp.asarray(entries, jnp.float32), -1)
            paths = {
                "sampler": mcgrad.Pathwise(),
                "transport": mcgrad.Pathwise(path="optimal_transport"),
                "learned": learned(tril, cost),
            }
            found = {
                name: gradients(of_cost, count, tril, path, batch=200).var(axis=0).sum() for name, path in paths.items()
            }
            for name in ("transport", "learned"):
                ours = float(found[name] / found["sampler"])
                claim = {"published": 1.0, "claim": "at most", "slack": 0.02} if name == "transport" else {}
                figures.append(Figure(f"{cost}, r = {size:g}, {name}", ours, 0.0, **claim))
    return figures
