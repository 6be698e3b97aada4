"""A gradient of many samples, in chunks or at once; each run in a process of its own, whose peak it is."""

from __future__ import annotations

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.worker import Case, serve

DIMENSIONS = 300


def _peak() -> float:
    """The largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def chunks(estimator: str, num_samples: int, chunk_size: int, run: bool) -> Case:
    """Facts of a draw of 300 dimensions that one cost mixes: compiled memory and, if it is to run, peak and seconds.

    An array of 4000 samples of it takes 5 MB.
    """
    chosen = {"score": mcgrad.Score(), "pathwise": mcgrad.Pathwise()}[estimator]

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        law = mcgrad.Bernoulli(logits=params) if estimator == "score" else mcgrad.Normal(params, 1.0)
        return jnp.tanh(jnp.sum(mcgrad.sample(key, law)) / DIMENSIONS)

    gradient = mcgrad.value_and_grad(
        program, estimator=chosen, num_samples=num_samples, chunk_size=chunk_size if chunk_size < num_samples else None
    )
    arguments = jnp.zeros(DIMENSIONS), jax.random.key(0)
    step = jax.jit(gradient).lower(*arguments).compile()
    memory = step.memory_analysis()
    facts = {"bytes": memory.temp_size_in_bytes}
    if run:
        before, began = _peak(), time.perf_counter()
        value, _ = jax.block_until_ready(step(*arguments))
        facts |= {"seconds": time.perf_counter() - began, "peak": _peak(), "before": before, "value": float(value)}
    return Case(lambda: None, lambda count, seed: np.zeros((count, 1)), facts)


if __name__ == "__main__":
    serve({"chunks": chunks}, ("jax", "jaxlib", "numpy"))
