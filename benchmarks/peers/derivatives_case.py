"""Draws of a law on a grid of parameters, from the lowest of many to the highest, with their derivatives; of any library on JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Case

NUM_DRAWS = 512
RANKS = (0, 5, 128, 256, 384, 506, 511)  # of the draws that are kept, in order of size


class Sampler(NamedTuple):
    """A law of one library.

    Attributes:
        sample: `sample(key, **params)`, one draw for each entry of the parameters.
        parts: what the draw of the same key is a smooth function of, as the exact derivative needs it.
    """

    sample: Callable[..., jax.Array]
    parts: Callable[..., tuple[jax.Array, ...]] = lambda key, **params: ()


def derivatives_case(sampler: Sampler, params: Mapping[str, Sequence[float]], dtype: str, fast: bool = True) -> Case:
    """Facts: `params`, as represented, and `[rank, grid point]` values of draws, parts and derivatives, by reverse mode.

    Args:
        sampler: the law.
        params: the grid, one point a column.
        dtype: "float32" or "float64".
        fast: whether draws are so fast that they need no optimized program.
    """
    with jax.enable_x64(dtype == "float64"):
        values = {name: jnp.asarray(column, dtype) for name, column in params.items()}

        def draw(key: jax.Array) -> jax.Array:
            return sampler.sample(key, **values)

        def differentiate(key: jax.Array) -> Any:
            x, pull = jax.vjp(lambda values: sampler.sample(key, **values), values)
            return x, sampler.parts(jax.random.clone(key), **values), pull(jnp.ones_like(x))[0]

        def for_each(fn: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
            # compiling is what takes the time, and the digits do not depend on how well it is done
            options = {"xla_backend_optimization_level": 0} if fast else None
            return jax.jit(jax.vmap(fn)).lower(keys).compile(options)(keys)

        keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
        x = for_each(draw, keys)
        if x.dtype != dtype:
            raise TypeError(f"draws of {dtype} parameters are {x.dtype}")
        # each kept draw is that of one key at one grid point: its key draws the whole grid again, with derivatives
        order = np.argsort(np.asarray(x), axis=0)[list(RANKS)]
        found = for_each(differentiate, keys[order.reshape(-1)])
        x, parts, derivatives = jax.tree.map(
            lambda leaf: np.einsum("rgg->rg", np.asarray(leaf, np.float64).reshape(*order.shape, -1)).tolist(), found
        )
        kept = {name: np.asarray(column, np.float64).tolist() for name, column in values.items()}
    return Case(
        lambda: None, lambda *_: np.zeros((0, 1)), {"params": kept, "x": x, "parts": parts, "derivatives": derivatives}
    )
