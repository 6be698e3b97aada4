"""Samplers of counts of JAX, on a mesh too: they do not know how explicit axes go."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mcgrad import _mesh
from mcgrad._types import PRNGKey


def poisson(key: PRNGKey, rate: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """One draw for each rate."""

    def draw(key: PRNGKey, rate: Array) -> Array:
        return jax.random.poisson(key, rate, rate.shape, jnp.int32)

    return _mesh.entry_by_entry(draw, key, rate)


def binomial(key: PRNGKey, n: Float[Array, "*batch"], p: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """One draw for each number of trials and each probability, as floats."""

    def draw(key: PRNGKey, n: Array, p: Array) -> Array:
        return jax.random.binomial(key, n, p, p.shape, p.dtype)

    return _mesh.entry_by_entry(draw, key, n, p)
