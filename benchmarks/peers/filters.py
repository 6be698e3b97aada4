"""A particle filter of real size, next to the same filter with stop-gradients that one writes by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.peers.by_hand import case_by_hand, stop
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case

PARTICLES, STEPS, SIZE = 1000, 20, 2
MOVED, SEEN = 0.5, 0.7  # standard deviations of moves and of observations
OBSERVED = np.random.default_rng(0).normal(size=(STEPS, SIZE)).astype(np.float32)
PARAMS = jnp.asarray([[0.8, 0.1], [-0.2, 0.7]])


def _log_normal(x: jax.Array, loc: jax.Array, scale: float) -> jax.Array:
    return jnp.sum(-0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)


def particle_filter() -> Case:
    def log_likelihood(matrix: jax.Array, key: jax.Array) -> jax.Array:
        def normal(loc: jax.Array) -> mcgrad.Distribution:
            return mcgrad.Independent(mcgrad.Normal(loc, MOVED), 1)

        model = mcgrad.smc.Model(
            initial=normal(jnp.zeros(SIZE)),
            transition=lambda x: normal(x @ matrix.T),
            log_observation=lambda x, y: _log_normal(y, x, SEEN),
        )
        observed = jnp.asarray(OBSERVED)
        found = mcgrad.smc.bootstrap_filter(model, observed, key, num_particles=PARTICLES, gradient="stop_gradient")
        return found.log_likelihood

    return jax_case(mcgrad.value_and_grad(log_likelihood), PARAMS)


def particle_filter_by_hand() -> Case:
    def log_mean(log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = jax.nn.logsumexp(log_weights)
        return log_weights - total, total - np.log(PARTICLES)

    def log_likelihood(matrix: jax.Array, key: jax.Array) -> jax.Array:
        key_first, key_steps = jax.random.split(key)

        def step(carry: tuple[jax.Array, jax.Array], given: tuple[jax.Array, jax.Array]) -> tuple:
            (x, log_weights), (key, y) = carry, given
            key_ancestors, key_move = jax.random.split(key)
            ticks = (jnp.arange(PARTICLES) + jax.random.uniform(key_ancestors)) / PARTICLES
            ancestors = jnp.searchsorted(jnp.cumsum(stop(jnp.exp(log_weights))), ticks)
            ancestors = jnp.minimum(ancestors, PARTICLES - 1)
            kept = log_weights[ancestors]
            x = x[ancestors] @ matrix.T + MOVED * jax.random.normal(key_move, x.shape)
            log_weights, increment = log_mean(kept - stop(kept) + _log_normal(y, x, SEEN))
            return (x, log_weights), increment

        observed = jnp.asarray(OBSERVED)
        x = MOVED * jax.random.normal(key_first, (PARTICLES, SIZE))
        log_weights, first = log_mean(_log_normal(observed[0], x, SEEN))
        given = jax.random.split(key_steps, STEPS - 1), observed[1:]
        return first + jnp.sum(jax.lax.scan(step, (x, log_weights), given)[1])

    return case_by_hand(log_likelihood, PARAMS)


BUILDERS = {fn.__name__: fn for fn in (particle_filter, particle_filter_by_hand)}
