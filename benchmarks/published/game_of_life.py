"""A noisy game of life, differentiated in the chance of a cell to be alive at first: Arya et al. 2022 (StochasticAD)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.published.figures import Figure, gradients, mean
from benchmarks.runner import Session

TITLE = "Arya et al. 2022 (StochasticAD), game of life"
SET_UP = (
    "25 x 25 cells, each alive with probability p = 0.5, ten rounds in which a cell flips with probability θ or 1 - θ by "
    "the number of its four neighbors, θ = 0.1; the derivative in p of the mean number alive (theirs: central differences "
    "with common random numbers, ± 1.0)."
)
SIDE, ROUNDS, P, THETA = 25, 10, 0.5, 0.1
NUM_GRADIENTS = 2_000


def alive(p: jax.Array, key: jax.Array) -> jax.Array:
    """The number alive at the end. Cells that differ at first meet the same uniforms later, as with common random numbers."""
    key_board, key_turns = jax.random.split(key)
    board = mcgrad.sample(key_board, mcgrad.Bernoulli(probs=jnp.full((SIDE, SIDE), p)), mcgrad.LocalExpectation())

    def turn(board: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        padded = jnp.pad(board, 1)
        neighbors = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        born, dies = neighbors == 3, (neighbors < 2) | (neighbors == 4)
        flip = jnp.where(jnp.where(board == 0, born, dies), 1 - THETA, THETA)
        return jnp.where(jax.random.uniform(key, board.shape) < flip, 1 - board, board), None

    board = jax.lax.scan(turn, board, jax.random.split(key_turns, ROUNDS))[0]
    return jnp.sum(board).astype(jnp.float32)


def measure(session: Session) -> list[Figure]:
    rows = gradients(lambda key: mcgrad.grad(alive)(jnp.float32(P), key), session.draws(NUM_GRADIENTS), batch=1)
    return [
        Figure("derivative, every cell the other way", *mean(rows), 149.0, "same", 4.0),
        Figure("its deviation", float(rows.std())),
    ]
