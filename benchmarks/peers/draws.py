"""Draws with a derivative in the shape of their law: mcgrad's laws and JAX's own samplers; TFP's are in `tfp`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.draws_case import draws_case
from benchmarks.worker import Case

JAX_SAMPLERS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "Gamma": lambda key, c: jax.random.gamma(key, c),
    "Beta": lambda key, c: jax.random.beta(key, c, 2.0),
    "Dirichlet": lambda key, c: jax.random.dirichlet(key, c[:, None] * jnp.ones(3)),
    "StudentT": lambda key, c: jax.random.t(key, c),
}
LAWS: dict[str, Callable[[jax.Array], Any]] = {
    "Gamma": lambda c: mcgrad.Gamma(c, 1.0),
    "Beta": lambda c: mcgrad.Beta(c, 2.0),
    "Dirichlet": lambda c: mcgrad.Dirichlet(c[:, None] * jnp.ones(3)),
    "StudentT": lambda c: mcgrad.StudentT(c, 0.0, 1.0),
    "VonMises": lambda c: mcgrad.VonMises(0.0, c),
}


@functools.cache
def _sampler(law: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda key, concentrations: LAWS[law](concentrations).sample(key)


def draws(library: str, law: str, concentration: float) -> Case:
    if library == "jax":
        if law not in JAX_SAMPLERS:
            raise LookupError("not in jax.random")
        return draws_case(JAX_SAMPLERS[law], concentration)
    if not hasattr(mcgrad, law):
        raise LookupError("not in mcgrad")
    return draws_case(_sampler(law), concentration)
