"""One estimator on one program of the tests' tables: how far its means are from the exact values, and its variances."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

# As in the tests: nearly all of the time is compiling programs that then run for milliseconds.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import jax
import jax.numpy as jnp
import numpy as np
from helpers import (
    BIASED,
    ESTIMATORS,
    LOOP_PROGRAMS,
    PROGRAMS,
    RESOLUTION,
    STANDARD_ERRORS,
    derivatives,
    exact_derivatives,
)

import mcgrad
from benchmarks.contract_programs import MORE
from benchmarks.worker import Case, serve

CHECKED = {**PROGRAMS, **{program.name: program for program in (*LOOP_PROGRAMS, *MORE)}}
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


def bias(program: str, estimator: str, num_batches: int) -> Case:
    """Of a biased estimator, named at every draw of a program: how far the mean of its gradient is from the exact one.

    Both in units of the norm of the exact gradient, by the program's enumeration: the distance, and its standard error.
    """
    program = CHECKED[program]
    params = program.typed_params(jnp.float64)
    exact = np.asarray(exact_derivatives(program)["gradient"])
    plain, named = mcgrad.sample, BIASED[estimator]

    def sample(key: Any, dist: Any, own: Any = None, **options: Any) -> Any:
        return plain(key, dist, named, **options)

    with mock.patch.object(mcgrad, "sample", sample):  # draws of an estimator that is named are floats

        @jax.jit
        def moments(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            value = lambda params, key: program.call(mcgrad.expectation(program.fn), params, key)  # noqa: E731
            draws = jax.vmap(lambda key: derivatives(lambda p: value(p, key), params, 1, program.mode)["gradient"])(
                jax.random.split(key, BATCH)
            )
            return jnp.mean(draws - exact, axis=0), jnp.mean((draws - exact) ** 2, axis=0)

        found = [
            jax.tree.map(np.asarray, moments(jax.random.fold_in(jax.random.key(0), i))) for i in range(num_batches)
        ]
    mean, square = np.mean([each[0] for each in found], axis=0), np.mean([each[1] for each in found], axis=0)
    variance, norm = np.maximum(square - mean**2, 0.0), float(np.linalg.norm(exact))
    facts = {
        "bias": float(np.linalg.norm(mean)) / norm,
        "error": float(np.sqrt(np.sum(variance) / (BATCH * len(found)))) / norm,
        "variance": float(np.sum(variance)),
    }
    return Case(lambda: None, lambda count, seed: np.zeros((count, 1)), facts)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    serve({"pair": pair, "bias": bias}, ("jax", "jaxlib", "numpy"))
