"""One estimator on one program of the tests' tables: how far its means are from the exact values, and its variances."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# As in the tests: nearly all of the time is compiling programs that then run for milliseconds.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import jax
import jax.numpy as jnp
import numpy as np
from helpers import ESTIMATORS, LOOP_PROGRAMS, PROGRAMS, RESOLUTION, STANDARD_ERRORS, derivatives, exact_derivatives

from benchmarks.worker import Case, serve

CHECKED = {**PROGRAMS, **{program.name: program for program in LOOP_PROGRAMS}}
BATCH, MOST_SECONDS = 1024, 3.0
ORDERS = ("value", "gradient", "hessian")
TIMED = 64  # gradients at once, of which one takes this part of the time
OPTIMIZED = {"xla_backend_optimization_level": 3}  # for what is timed


def pair(program: str, estimator: str, num_batches: int) -> Case:
    """Of each claimed order: deviation in standard errors, total variance, whether it can be told. A step is 64 gradients.

    Args:
        num_batches: of 1024 draws, at most; no more are begun after a few seconds.
    """
    program, row = CHECKED[program], ESTIMATORS[estimator]
    params = program.typed_params(jnp.float64)
    exact = {name: exact_derivatives(program)[name] for name in ORDERS[: row.order_on(program) + 1]}

    @jax.jit
    def moments(key: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        draws = jax.vmap(lambda key: row.estimate(program, params, key))(jax.random.split(key, BATCH))
        errors = {name: draws[name] - exact[name] for name in exact}
        return {name: (jnp.mean(error, axis=0), jnp.mean(error**2, axis=0)) for name, error in errors.items()}

    found, began = [], time.monotonic()
    for i in range(num_batches):
        found.append(jax.tree.map(np.asarray, moments(jax.random.fold_in(jax.random.key(0), i))))
        if time.monotonic() - began > MOST_SECONDS:
            break
    count = BATCH * len(found)
    facts: dict[str, object] = {"draws": count}
    for name in exact:
        mean, square = np.mean([each[name] for each in found], axis=0)
        variance = np.maximum(square - mean**2, 0.0)
        error, norm = np.sqrt(variance / count), float(np.linalg.norm(exact[name]))
        rounding = 1e3 * np.finfo(np.float64).eps * max(norm, 1e-3)  # what is left where there is no variance
        facts[name] = {
            "deviation": float(np.max(np.maximum(np.abs(mean) - rounding, 0) / np.maximum(error, rounding))),
            "variance": float(np.sum(np.where(error > rounding, variance, 0.0))),
            "told": bool(STANDARD_ERRORS * error.max() < max(RESOLUTION * norm, rounding)),
        }

    @jax.jit
    def gradients(keys: jax.Array) -> jax.Array:
        value = row.value
        one = lambda key: derivatives(lambda params: value(program, params, key), params, 1, program.mode)  # noqa: E731
        return jax.vmap(lambda key: one(key)["gradient"])(keys)

    keys = jax.random.split(jax.random.key(1), TIMED)
    step = gradients.lower(keys).compile(compiler_options=OPTIMIZED)
    analysis = step.cost_analysis()
    facts["operations"] = (analysis[0] if isinstance(analysis, list) else analysis).get("flops", 0.0) / TIMED
    facts["bytes"] = step.memory_analysis().temp_size_in_bytes / TIMED
    return Case(lambda: jax.block_until_ready(step(keys)), lambda count, seed: np.zeros((count, 1)), facts)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    serve({"pair": pair}, ("jax", "jaxlib", "numpy"))
