"""Gradient and Hessian of the iterated prisoner's dilemma: the check of Foerster et al. 2018 (DiCE)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Foerster et al. 2018 (DiCE)"
SET_UP = (
    "Iterated prisoner's dilemma, two policies of five logits each (the joint action before, or the start), discount 0.96, "
    "150 steps; correlation of the estimated gradient (10 entries) and Hessian (100) of one player's value with the exact "
    "ones. Theirs from 100,000 games of the plain score (printed under their figure), ours from 10,000."
)
STEPS, DISCOUNT, GAMES = 150, 0.96, 10_000
PAYOFF = jnp.array([-1.0, -3.0, 0.0, -2.0])  # both cooperate, I do, the other does, none does
PUBLISHED = {"gradient": 0.999, "Hessian": 0.97}
LOGITS = jax.random.normal(jax.random.key(3), (2, 5))


def exact(logits: jax.Array) -> jax.Array:
    first, other = jax.nn.sigmoid(logits)  # chances to cooperate, by what each has seen
    second = other[jnp.array([0, 2, 1, 3, 4])]
    moves = jnp.stack([first * second, first * (1 - second), (1 - first) * second, (1 - first) * (1 - second)], -1)
    law, value = moves[4], 0.0
    for t in range(STEPS):
        value, law = value + DISCOUNT**t * law @ PAYOFF, law @ moves[:4]
    return value


def game(logits: jax.Array, key: jax.Array) -> jax.Array:
    def step(state: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        key, discount = xs
        seen = jnp.stack([state, jnp.where((state == 1) | (state == 2), 3 - state, state)])  # each sees itself first
        cooperates = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits[jnp.arange(2), seen]))
        state = 3 - 2 * cooperates[0] - cooperates[1]
        return state, discount * PAYOFF[state]

    steps = jax.random.split(key, STEPS), DISCOUNT ** jnp.arange(STEPS)
    return jnp.sum(jax.lax.scan(step, jnp.int32(4), steps)[1])


def measure(session: Session) -> list[Figure]:
    wanted = {"gradient": np.ravel(jax.grad(exact)(LOGITS)), "Hessian": np.ravel(jax.hessian(exact)(LOGITS))}
    figures = []
    for name, num_samples in (("leave-one-out of 4", 4), ("score, as in DiCE", 1)):
        gradient = mcgrad.grad(game, estimator=mcgrad.Score(), num_samples=num_samples)

        def both(key: jax.Array, gradient: Any = gradient) -> tuple[jax.Array, jax.Array]:
            return gradient(LOGITS, key), jax.jacfwd(gradient)(LOGITS, key)

        average = gradients(both, session.draws(GAMES) // num_samples, batch=250).mean(0)
        for part, found in (("gradient", average[:10]), ("Hessian", average[10:])):
            claim = {"published": PUBLISHED[part], "claim": "at least"} if num_samples > 1 else {}
            figures.append(Figure(f"{part}, {name}", float(np.corrcoef(found, wanted[part])[0, 1]), **claim))
    return figures
