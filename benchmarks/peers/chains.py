"""Chains of random walk Metropolis, by `mcgrad.mcmc` and by hand, for a normal target."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case
from mcgrad import mcmc

PROPOSALS = {
    "reflection": mcgrad.Pathwise(coupling="reflection"),
    "maximal": mcgrad.Pathwise(coupling="maximal"),
    "shared": mcgrad.Pathwise(),
    "score": mcgrad.Score(),
}
SCALE = 2.38


def _start(dim: int) -> tuple[jax.Array, jax.Array]:
    return jnp.full(1, SCALE / dim**0.5), jnp.zeros(dim)


def metropolis(estimator: str, num_steps: int, dim: int = 1, batch: int = 100) -> Case:
    """The gradient in the step size of the mean product of neighbors."""
    acceptance = mcgrad.Score() if estimator == "score" else mcgrad.SmoothedPerturbation()
    kernel = mcmc.random_walk(lambda x: -jnp.sum(x**2) / 2, proposal=PROPOSALS[estimator], acceptance=acceptance)
    program = mcmc.chain_mean(kernel, mcmc.lag_one, num_steps=num_steps)
    step_size, position = _start(dim)
    estimate = mcgrad.value_and_grad(lambda s, key: program(s[0], position, key) / dim)
    return jax_case(estimate, step_size, batch=batch)


def metropolis_by_hand(num_steps: int, dim: int = 1) -> Case:
    """One simulation, without any gradient."""
    step_size, position = _start(dim)

    def simulate(s: jax.Array, key: jax.Array) -> Any:
        def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key_y, key_u = jax.random.split(key)
            y = x + s[0] * jax.random.normal(key_y, (dim,))
            accepted = jnp.log(jax.random.uniform(key_u)) < (jnp.sum(x**2) - jnp.sum(y**2)) / 2
            new = jnp.where(accepted, y, x)
            return new, jnp.sum(x * new)

        return jnp.mean(jax.lax.scan(step, position, jax.random.split(key, num_steps))[1]) / dim, None

    return jax_case(simulate, step_size)


BUILDERS = {fn.__name__: fn for fn in (metropolis, metropolis_by_hand)}
