"""Three draws of three classes, three samples: the toy of Dimitriev and Zhou 2021 (CARMS)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Dimitriev and Zhou 2021, the toy of CARMS"
SET_UP = (
    "Three draws of three classes, cost the sum of entries 3, 6, ..., 27 of a table, as one number (no credit, as in "
    "theirs), probabilities from Dirichlet(α, α, α), three evaluations; the median over the 9 logits of the logarithm of "
    "the variance, mean over 10 draws of the probabilities. Their plot has no printed numbers; of its claims the one held "
    "here is that CARMS lies below leave-one-out at every α. Beside it what credit alone gives to leave-one-out."
)
NUM_GRADIENTS, NUM_PROBLEMS = 20_000, 10
ALPHAS = (1, 10, 100, 1000)
TABLE = 3.0 * np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3)
JOINT = jnp.asarray(TABLE[0][:, None, None] + TABLE[1][:, None] + TABLE[2])


def together(x: jax.Array) -> jax.Array:
    return JOINT[x[0], x[1], x[2]]


def apart(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.take_along_axis(jnp.asarray(TABLE), x[:, None], axis=1))


ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "CARMS": (mcgrad.CARMS(3), together),
    "unordered set": (mcgrad.UnorderedSet(3), together),
    "leave-one-out": (mcgrad.Score(num_samples=3), together),
    "leave-one-out with credit": (mcgrad.Score(num_samples=3), apart),
}


def loss(logits: jax.Array, key: jax.Array, estimator: Any, cost: Any) -> jax.Array:
    return cost(mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator))


def gradient(key: jax.Array, problems: jax.Array, estimator: Any, cost: Any) -> jax.Array:
    """Of all problems, with the same noise."""
    return jax.vmap(lambda logits: mcgrad.grad(loss)(logits, key, estimator, cost))(problems)


GRADIENTS = {cost: functools.partial(gradient, cost=cost) for cost in (together, apart)}


def measure(session: Session) -> list[Figure]:
    figures, count = [], session.draws(NUM_GRADIENTS)
    for alpha in ALPHAS:
        laws = mcgrad.Dirichlet(jnp.full((NUM_PROBLEMS, 3, 3), float(alpha)))
        problems = jnp.log(laws.sample(jax.random.key(alpha)))
        medians: dict[str, float] = {}
        for name, (estimator, cost) in ESTIMATORS.items():
            rows = gradients(GRADIENTS[cost], count, problems, estimator, batch=500)
            spread = rows.var(axis=0).reshape(NUM_PROBLEMS, 9)
            medians[name] = float(np.median(np.log(spread + 1e-12), axis=1).mean())
        for name, ours in medians.items():
            figures.append(Figure(f"α = {alpha}, {name}", ours))
        less = medians["CARMS"] - medians["leave-one-out"]
        figures.append(Figure(f"α = {alpha}, CARMS less leave-one-out", less, 0.0, 0.0, "at most"))
    return figures
