"""A case of draws with a derivative in the shape of their law, of any library on JAX."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Case

NUM_DRAWS = 20_000


@functools.cache
def _compiled(sample: Callable[[jax.Array, jax.Array], jax.Array]) -> tuple[Any, float]:
    """Value and gradient of a weighted sum of draws, and the seconds that compiling it took."""
    concentrations, key = jnp.ones(NUM_DRAWS), jax.random.key(0)
    shape = jax.eval_shape(sample, key, concentrations).shape
    weights = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)

    def estimate(concentrations: jax.Array, key: jax.Array) -> Any:
        return jax.value_and_grad(lambda c: jnp.sum(weights * sample(key, c)))(concentrations)

    began = time.perf_counter()
    return jax.jit(estimate).lower(concentrations, key).compile(), time.perf_counter() - began


def draws_case(sample: Callable[[jax.Array, jax.Array], jax.Array], concentration: float) -> Case:
    """Value and gradient of a weighted sum of draws, in a concentration of each draw.

    Args:
        sample: of a key and concentrations `[NUM_DRAWS]`; returns `[NUM_DRAWS, ...]`. It is compiled once.
    """
    estimate, compile_seconds = _compiled(sample)
    concentrations = jnp.full(NUM_DRAWS, concentration)

    def draw(count: int, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(seed), count)
        return np.array([np.append(*map(np.asarray, estimate(concentrations, key))) for key in keys])

    row = draw(1, 1)[0]
    facts = {
        "compile_seconds": compile_seconds,
        "not_finite": int((~np.isfinite(row)).sum()),
        "zero": int((row[1:] == 0).sum()),
    }
    key = jax.random.key(0)
    return Case(lambda: jax.block_until_ready(estimate(concentrations, key)), draw, facts)
