"""Five of ten items: bias, variance and error of the direction of a gradient, as in Ahmed et al. 2023 (SIMPLE)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Ahmed et al. 2023 (SIMPLE), 5 of 10 items"
SET_UP = (
    "Subset(logits, 5) with the logits θ and the target |b| of their ten seeds, cost the squared distance of the subset "
    "from |b|, 10,000 gradients in θ: bias is 1 - cos(mean, exact), variance that of cos(g, mean), error the mean of 1 - "
    "cos(g, exact); means over the seeds (read off their figure)."
)
SEEDS = (1234, 1067, 9198, 9453, 6240, 7044, 1755, 7898, 3131, 1277)
NUM_GRADIENTS = 10_000
MEASURES = ("bias", "variance", "error")
ESTIMATORS: dict[str, Any] = {
    "SIMPLE (`StraightThrough`)": mcgrad.StraightThrough(),
    "score": mcgrad.Score(),
    "leave-one-out of 2": mcgrad.Score(num_samples=2),
    "leave-one-out of 10": mcgrad.Score(num_samples=10),
    "measure-valued": mcgrad.MeasureValued(),
}
PUBLISHED = {"SIMPLE (`StraightThrough`)": (0.035, 0.012, 0.24), "score": (0.003, 0.131, 0.99)}
READ = (0.01, 0.004, 0.03)  # off the figure


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)  # theirs
    return rng.randn(10).astype(np.float32), np.abs(rng.randn(10)).astype(np.float32)


def cosines(rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Of the angles between rows and a direction; zero for a row of zeros."""
    sizes = np.linalg.norm(rows, axis=-1) * np.linalg.norm(direction)
    return rows @ direction / np.where(sizes > 0, sizes, 1.0)


def loss(logits: jax.Array, target: jax.Array, key: jax.Array, estimator: Any) -> jax.Array:
    x = mcgrad.sample(key, mcgrad.Subset(logits, 5, dtype=jnp.float32), estimator)
    return jnp.sum((x - target) ** 2)


def gradient(key: jax.Array, logits: jax.Array, target: jax.Array, estimator: Any) -> jax.Array:
    return mcgrad.grad(loss)(logits, target, key, estimator)


def told(estimator: Any, logits: jax.Array, target: jax.Array, count: int) -> tuple[float, float, float]:
    exact = gradients(gradient, 1, logits, target, mcgrad.Enumerate())[0]
    rows = gradients(gradient, count, logits, target, estimator)
    average = rows.mean(0)
    bias, error = float(1 - cosines(average, exact)), float(1 - cosines(rows, exact).mean())
    return bias, float(cosines(rows, average).var()), error


def measure(session: Session) -> list[Figure]:
    figures = []
    for name, estimator in ESTIMATORS.items():
        found = np.array(
            [told(estimator, *map(jnp.asarray, problem(seed)), session.draws(NUM_GRADIENTS)) for seed in SEEDS]
        )
        for i, what in enumerate(MEASURES):
            published = PUBLISHED[name][i] if name in PUBLISHED else None
            error = float(found[:, i].std(ddof=1) / np.sqrt(len(SEEDS)))
            claim = {} if published is None else {"published": published, "claim": "same", "slack": READ[i]}
            # the seeds are the same: what is left is the noise of 10,000 gradients, far below how well the figure is read
            figures.append(Figure(f"{name}, {what}", float(found[:, i].mean()), 0.0 if claim else error, **claim))
    return figures
