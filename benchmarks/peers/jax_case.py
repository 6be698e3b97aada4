"""A case of any library on JAX: compile, step, draw."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Case

# A step is waited for, so let it run in the thread that asks for it, as torch's do: waking another takes longer than a small step.
jax.config.update("jax_cpu_enable_async_dispatch", False)

SLOW_TO_COMPILE = 3.0  # seconds; such a program draws with the step that there is, since `rows` would be compiled again


def flat(value: Any, gradient: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves((value, gradient))])


def _equations(jaxpr: Any) -> int:
    """Equations of a program and of the programs inside it."""
    inside = [jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")) for eqn in jaxpr.eqns]
    return sum(1 + sum(_equations(x) for x in found if hasattr(x, "eqns")) for found in inside)


def jax_case(
    estimate: Callable[[Any, jax.Array], tuple[Any, Any]],
    params: Any,
    report: Callable[[Any, Any], jax.Array] = flat,
    *,
    batch: int = 1000,
    in_a_row: int = 1,
) -> Case:
    """The case of `estimate(params, key)`, which returns a value and a gradient.

    Args:
        report: the vector of them that is drawn: the value, then the gradient.
        batch: draws that run at once.
        in_a_row: gradients that one step computes, one after another in one program.
    """
    params, key = jax.tree.map(jnp.asarray, params), jax.random.key(0)
    jax.clear_caches()
    began, worked = time.perf_counter(), time.process_time()
    if in_a_row > 1:
        key = jax.random.split(key, in_a_row)
        step = jax.jit(lambda params, keys: jax.lax.map(lambda key: estimate(params, key), keys))
    else:
        step = jax.jit(estimate)
    traced = step.trace(params, key)
    planned = time.process_time()
    step = traced.lower().compile()
    facts = {"compile_seconds": time.perf_counter() - began, "equations": _equations(traced.jaxpr)}
    facts |= {
        "trace_work": planned - worked,
        "compile_work": time.process_time() - planned,
    }  # of the processor, all threads
    analysis = step.cost_analysis()
    facts["flops"] = (analysis[0] if isinstance(analysis, list) else analysis or {}).get("flops", float("nan"))
    facts["kernels"] = step.as_text().count(" fusion(")  # loops that XLA runs one after another
    memory = step.memory_analysis()
    if memory is not None:
        facts["bytes"] = memory.temp_size_in_bytes + memory.output_size_in_bytes

    @jax.jit
    def rows(keys: jax.Array) -> jax.Array:
        return jax.lax.map(lambda key: report(*estimate(params, key)), keys, batch_size=min(batch, len(keys)))

    def draw(count: int, seed: int) -> np.ndarray:
        keys = jax.random.split(jax.random.key(seed), count)
        if facts["compile_seconds"] < SLOW_TO_COMPILE:
            return np.asarray(rows(keys))
        return np.array([np.asarray(report(*step(params, key))) for key in keys])

    return Case(lambda: jax.block_until_ready(step(params, key)), draw, facts)
