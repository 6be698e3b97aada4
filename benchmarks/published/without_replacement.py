"""Three bits of one parameter, summed and drawn without replacement: Liu et al. 2019 and Kool et al. 2020."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients, variance
from benchmarks.runner import Session

TITLE = "Liu et al. 2019 and Kool et al. 2020"
SET_UP = (
    "Three bits with one logit η as one draw of 8 states, cost the squared distance from (0.6, 0.51, 0.48), derivative in "
    "η. Liu et al. sum k states and draw one more, each term of the score with an independent draw as baseline (printed in "
    "their notebook; k at which no two sets are as probable). Kool et al. take k draws (values by enumeration, which the "
    "points of their figure agree with)."
)
NUM_GRADIENTS = 200_000
STATES = np.array(list(itertools.product((0.0, 1.0), repeat=3)), np.float32)
COSTS = jnp.asarray(((STATES - np.array([0.6, 0.51, 0.48])) ** 2).sum(-1), jnp.float32)

SUMMED = {0.0: {0: 0.01274582, 7: 0.000998911}, -4.0: {0: 7.7027787e-4, 1: 3.284858e-5, 4: 2.6875323e-6}}
SETS = {0.0: (6.112e-3, 2.263e-3, 1.131e-3, 6.10e-4), -4.0: (2.98e-5, 8.07e-6, 1.06e-6, 7.97e-8)}
LEAVE_ONE_OUT = {0.0: (7.275e-3, 3.20e-3, 1.987e-3, 1.43e-3), -4.0: (3.81e-4, 2.46e-4, 1.82e-4, 1.45e-4)}


def loss(eta: jax.Array, key: jax.Array, estimator: Any) -> jax.Array:
    return COSTS[mcgrad.sample(key, mcgrad.Categorical(logits=eta * STATES.sum(-1)), estimator)]


def gradient(key: jax.Array, eta: jax.Array, estimator: Any) -> jax.Array:
    return mcgrad.grad(loss)(eta, key, estimator)


def found(eta: float, estimator: Any, count: int) -> tuple[float, float]:
    return variance(gradients(gradient, count, jnp.float32(eta), estimator))


def measure(session: Session) -> list[Figure]:
    count, figures = session.draws(NUM_GRADIENTS), []
    for eta in (0.0, -4.0):
        for k, published in SUMMED[eta].items():
            ours = found(eta, mcgrad.SumAndSample(k + 1, baseline="independent"), count)
            # theirs is the variance of 10,000 gradients
            figures.append(Figure(f"η = {eta:g}, {k} summed, one drawn", *ours, published, "same", 0.07 * published))
        for name, estimator, values in (
            ("unordered set", mcgrad.UnorderedSet, SETS),
            ("leave-one-out", lambda k: mcgrad.Score(num_samples=k), LEAVE_ONE_OUT),
        ):
            for k, published in enumerate(values[eta], 2):
                ours = found(eta, estimator(k), count)
                figures.append(Figure(f"η = {eta:g}, {name} of {k}", *ours, published, "same", 0.005 * published))
    return figures
