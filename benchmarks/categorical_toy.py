"""A published toy for gradients of categorical draws: variance times evaluations, estimators side by side.

Three categorical draws of ten classes each, and a random table of costs for their 1000 joint states. Run with
`python -m benchmarks.categorical_toy`. The exact gradient is by enumeration; the mean of every row is compared with it.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mcgrad

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


def measure(estimator: Any, toy: Toy, key: jax.Array, num_gradients: int = NUM_GRADIENTS) -> Row:
    """Mean and variance over many gradients, in one compiled run."""
    gradient = mcgrad.grad(functools.partial(cost, estimator=estimator))

    @jax.jit
    def run(toy: Toy, keys: jax.Array) -> jax.Array:
        return jax.lax.map(lambda key: gradient(toy.logits, toy.table, key), keys, batch_size=1000)

    keys = jax.random.split(key, num_gradients)
    compiled = run.lower(toy, keys).compile()
    start = time.perf_counter()
    draws = np.asarray(compiled(toy, keys), np.float64)
    seconds = (time.perf_counter() - start) / num_gradients
    variance = float(draws.var(axis=0).sum())
    deviation = np.linalg.norm(draws.mean(axis=0) - np.asarray(exact(toy))) / np.sqrt(variance / num_gradients)
    return Row(variance, float(deviation), seconds)


def results(sharpness: float, estimators: Estimators) -> Table:
    table = Table(title=f"3 x 10 classes, random table of costs, logits of standard deviation {sharpness}")
    table.add_column("estimator", no_wrap=True)
    for heading in ("evaluations", "variance", "x evaluations", "error / s.e.", "us a gradient"):
        table.add_column(heading, justify="right")
    key_toy, key_draws = jax.random.split(jax.random.key(0))
    problem = toy(sharpness, key_toy)
    for name, (estimator, evaluations) in track(estimators.items(), description="estimators", transient=True):
        row = measure(estimator, problem, key_draws)
        numbers = (f"{row.variance:.4g}", f"{row.variance * evaluations:.4g}", f"{row.deviation:.1f}")
        table.add_row(name, str(evaluations), *numbers, f"{1e6 * row.seconds:.1f}")
    return table


def main() -> None:
    console = Console(width=100)
    for sharpness in (1.0, 3.0):
        console.print(results(sharpness, ESTIMATORS))


if __name__ == "__main__":
    main()
