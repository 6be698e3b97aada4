"""A published toy for gradients of categorical draws: variance times evaluations, estimators side by side.

Three categorical draws of ten classes each, and a random table of costs for their 1000 joint states. The exact gradient is
by enumeration; the mean of every row is compared with it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.report import Hold, Table
from benchmarks.runner import Session

TITLE = "A published toy of categorical draws"
BUDGET = 80.0
NUM_DRAWS, NUM_CLASSES = 3, 10
NUM_GRADIENTS = 40_000

Estimators = dict[str, tuple[Any, int]]
"""By name, an estimator and its evaluations of the cost."""

ESTIMATORS: Estimators = {
    "score": (mcgrad.Score(), 1),
    **{f"leave-one-out, {k}": (mcgrad.Score(num_samples=k), k) for k in (2, 4, 8)},
    **{f"CARMS, {k}": (mcgrad.CARMS(k), k) for k in (2, 4, 8)},
    **{f"unordered set, {k}": (mcgrad.UnorderedSet(k), k) for k in (2, 4, 8)},
    **{f"importance, {k}": (mcgrad.ImportanceWithoutReplacement(k), k) for k in (2, 4, 8)},
    **{f"sum and sample, {k}": (mcgrad.SumAndSample(k), k) for k in (2, 4, 8)},
    **{f"drawn sum and sample, {k}": (mcgrad.SumAndSample(k, "drawn"), k) for k in (2, 4, 8)},
    "tree DisARM": (mcgrad.TreeDisARM(), 2),
    "stick-breaking DisARM": (mcgrad.TreeDisARM("stick_breaking"), 2),
    "ARSM": (mcgrad.ARSM(), NUM_CLASSES * (NUM_CLASSES - 1) // 2 + 1),
    "local expectation": (mcgrad.LocalExpectation(), NUM_DRAWS * NUM_CLASSES + 1),
}


class Toy(NamedTuple):
    """Logits of the draws, and the cost of each joint state."""

    logits: jax.Array
    table: jax.Array


class Row(NamedTuple):
    """What was measured of one estimator: total variance, error of the mean over its standard error, time of a gradient."""

    variance: float
    deviation: float
    seconds: float


def toy(sharpness: float, key: jax.Array) -> Toy:
    """A random toy; `sharpness` is the standard deviation of the logits."""
    key_logits, key_table = jax.random.split(key)
    logits = sharpness * jax.random.normal(key_logits, (NUM_DRAWS, NUM_CLASSES))
    return Toy(logits, jax.random.normal(key_table, (NUM_CLASSES,) * NUM_DRAWS))


def cost(logits: jax.Array, table: jax.Array, key: jax.Array, estimator: Any) -> jax.Array:
    x = mcgrad.sample(key, mcgrad.Categorical(logits=logits), estimator)
    return table[x[0], x[1], x[2]]


def exact(toy: Toy) -> jax.Array:
    """The gradient over all joint states."""

    def expectation(logits: jax.Array) -> jax.Array:
        return jnp.einsum("a,b,c,abc->", *jax.nn.softmax(logits), toy.table)

    return jax.grad(expectation)(toy.logits)


def measurement(estimator: Any, num_gradients: int = NUM_GRADIENTS) -> Callable[[Toy, jax.Array], Row]:
    """What measures mean and variance over many gradients of a toy, in one compiled run."""
    gradient = mcgrad.grad(functools.partial(cost, estimator=estimator))

    @jax.jit
    def run(toy: Toy, keys: jax.Array) -> jax.Array:
        return jax.lax.map(lambda key: gradient(toy.logits, toy.table, key), keys, batch_size=1000)

    compiled: Any = None

    def measured(toy: Toy, key: jax.Array) -> Row:
        nonlocal compiled
        keys = jax.random.split(key, num_gradients)
        compiled = compiled or run.lower(toy, keys).compile()
        start = time.perf_counter()
        draws = np.asarray(compiled(toy, keys), np.float64)
        seconds = (time.perf_counter() - start) / num_gradients
        variance = float(draws.var(axis=0).sum())
        deviation = np.linalg.norm(draws.mean(axis=0) - np.asarray(exact(toy))) / np.sqrt(variance / num_gradients)
        return Row(variance, float(deviation), seconds)

    return measured


SHARPNESS = (1.0, 3.0)  # standard deviations of the logits


def measure(session: Session) -> dict[str, Any]:
    """Every estimator on both toys."""
    key_toy, key_draws = jax.random.split(jax.random.key(0))
    toys = {str(sharpness): toy(sharpness, key_toy) for sharpness in SHARPNESS}
    rows: dict[str, dict[str, Row]] = {sharpness: {} for sharpness in toys}
    for name, (estimator, _) in ESTIMATORS.items():
        if session.left > 0:
            measured = measurement(estimator, session.draws(NUM_GRADIENTS))
            for sharpness, problem in toys.items():
                rows[sharpness][name] = measured(problem, key_draws)
    return {"rows": rows}


def report(data: dict[str, Any]) -> list[Any]:
    """A table for each toy, and the holds."""
    blocks: list[Any] = [
        "The variance is the total over the 30 logits; the error is the norm of the mean's deviation from the exact gradient."
    ]
    headings = ("estimator", "evaluations", "variance", "x evaluations", "error / s.e.", "us a gradient")
    biased, told = [], []
    for sharpness, rows in data["rows"].items():
        table = Table(f"3 x 10 classes, random table of costs, logits of standard deviation {sharpness}", headings)
        found = {name: Row(*row) for name, row in rows.items()}
        for name, (_, evaluations) in ESTIMATORS.items():
            if name not in found:
                table.rows.append(
                    (name, str(evaluations), "", "", "", f"not measured: the {BUDGET:.0f} s were used up")
                )
                continue
            row = found[name]
            numbers = (f"{row.variance:.4g}", f"{row.variance * evaluations:.4g}", f"{row.deviation:.1f}")
            table.rows.append((name, str(evaluations), *numbers, f"{1e6 * row.seconds:.1f}"))
        biased += [f"{name} ({sharpness})" for name, row in found.items() if row.deviation > 5]
        if {"unordered set, 4", "leave-one-out, 4"} <= found.keys():
            told.append(found["unordered set, 4"].variance / found["leave-one-out, 4"].variance)
        blocks.append(table)
    return [
        *blocks,
        Hold(
            "no mean is more than 5 standard errors off the exact gradient",
            not biased,
            f"Off: {', '.join(biased) or 'none'}.",
        ),
        Hold(
            "at four evaluations, the unordered set has less variance than leave-one-out",
            max(told) < 1 if told else None,
            f"Ratios {', '.join(f'{value:.3g}' for value in told)} for logits of deviation {', '.join(data['rows'])}.",
        ),
    ]
