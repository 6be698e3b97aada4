"""One bit, two samples: the toy of Dimitriev and Zhou 2021 (ARMS)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.published.figures import Figure, gradients, variance
from benchmarks.runner import Session

TITLE = "Dimitriev and Zhou 2021, the toy of ARMS"
SET_UP = (
    "One bit of probability p, cost (b - 0.49)², two evaluations, variance of the derivative in the logit (their curves, "
    "exact)."
)
NUM_GRADIENTS = 400_000
ESTIMATORS = {
    "leave-one-out of 2": mcgrad.Score(num_samples=2),
    "ARM": mcgrad.ARM(),
    "DisARM": mcgrad.DisARM(),
}
PUBLISHED = {0.5: (2.5e-5, 8.333e-6, 0.0), 0.25: (2.344e-5, 1.510e-5, 1.406e-5), 0.1: (1.476e-5, 1.303e-5, 1.296e-5)}


def loss(logit: jax.Array, key: jax.Array, estimator: mcgrad.Estimator) -> jax.Array:
    return (mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), estimator) - 0.49) ** 2


def gradient(key: jax.Array, logit: jax.Array, estimator: mcgrad.Estimator) -> jax.Array:
    return mcgrad.grad(loss)(logit, key, estimator)


def measure(session: Session) -> list[Figure]:
    figures, count = [], session.draws(NUM_GRADIENTS)
    for p, values in PUBLISHED.items():
        for (name, estimator), published in zip(ESTIMATORS.items(), values, strict=True):
            ours = variance(gradients(gradient, count, jnp.log(p / (1 - p)), estimator))
            # zero up to the rounding of single precision
            figures.append(Figure(f"p = {p:g}, {name}", *ours, published, "same", max(1e-3 * published, 1e-15)))
    return figures
