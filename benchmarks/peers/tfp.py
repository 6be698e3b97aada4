"""Draws of TFP-on-JAX with a derivative in the shape of their law."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from tensorflow_probability.substrates.jax import distributions as tfd

from benchmarks.peers.draws_case import draws_case
from benchmarks.worker import Case, serve

LAWS = {
    "Gamma": lambda c: tfd.Gamma(c, 1.0),
    "Beta": lambda c: tfd.Beta(c, 2.0),
    "Dirichlet": lambda c: tfd.Dirichlet(c[:, None] * jnp.ones(3)),
    "StudentT": lambda c: tfd.StudentT(c, 0.0, 1.0),
    "VonMises": lambda c: tfd.VonMises(0.0, c),
}


@functools.cache
def _sampler(law: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda key, concentrations: LAWS[law](concentrations).sample(seed=key)


def draws(law: str, concentration: float) -> Case:
    return draws_case(_sampler(law), concentration)


if __name__ == "__main__":
    serve({"draws": draws}, ("tfp-nightly", "jax", "jaxlib"))
