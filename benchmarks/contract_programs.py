"""Programs of the contract beside those of the tests: of subsets, rankings, a particle filter and a jump process."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from programs.program import Table

import mcgrad
from mcgrad import smc

MORE = Table()

_SUBSETS = np.array([[float(i in chosen) for i in range(4)] for chosen in itertools.combinations(range(4), 2)])
_RANKINGS = np.array(list(itertools.permutations(range(3))))
_WEIGHTS = np.array([1.0, -0.7, 0.4, 1.3])


def _subset_cost(x: Any) -> jax.Array:
    return jnp.sin(x @ jnp.asarray(_WEIGHTS, x.dtype)) + x[..., 0] * x[..., 3]


@MORE.add(
    params=np.array([0.4, -0.5, 0.1, 0.9]),
    exact=lambda logits: jax.nn.softmax(_SUBSETS @ logits) @ _subset_cost(jnp.asarray(_SUBSETS)),
    kinds=("score", "enumerate", "measure-valued", "auto"),
)
def subset_of_two(params: jax.Array, key: jax.Array) -> jax.Array:
    return _subset_cost(mcgrad.sample(key, mcgrad.Subset(params, 2), name="subset").astype(params.dtype))


def _ranking_cost(x: Any) -> jax.Array:
    return jnp.sin(x @ jnp.asarray(_WEIGHTS[:3]) + 0.3 * x[..., 0] * x[..., -1])


def _ranking_exact(logits: jax.Array) -> jax.Array:
    log_p = sum(logits[_RANKINGS[:, i]] - jax.nn.logsumexp(logits[_RANKINGS[:, i:]], axis=1) for i in range(3))
    return jnp.exp(log_p) @ _ranking_cost(jnp.asarray(_RANKINGS, logits.dtype))


@MORE.add(params=np.array([0.4, -0.5, 0.1]), exact=_ranking_exact, kinds=("score", "enumerate", "auto"))
def ranking_of_three(params: jax.Array, key: jax.Array) -> jax.Array:
    return _ranking_cost(mcgrad.sample(key, mcgrad.PlackettLuce(params), name="ranking").astype(params.dtype))


_SEEN = np.array([0, 1, 1])


def _chain(t: jax.Array) -> smc.Model:
    def bit(logits: jax.Array) -> mcgrad.Bernoulli:
        return mcgrad.Bernoulli(logits=logits, dtype=t.dtype)

    def log_observation(x: jax.Array, y: jax.Array) -> jax.Array:
        logit = (2 * x - 1) * (1.0 + t) + 0.3 * t
        return jnp.where(y == 1, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))

    return smc.Model(bit(0.4 * t), lambda x: bit(1.5 * x - 0.7 + t), log_observation)


def _chain_exact(params: jax.Array) -> jax.Array:
    model, total = _chain(params[0]), jnp.zeros(())
    for path in itertools.product([0.0, 1.0], repeat=len(_SEEN)):
        x = jnp.array(path)
        moves = jax.vmap(lambda x, then: model.transition(x).log_prob(then))(x[:-1], x[1:])
        seen = jax.vmap(model.log_observation)(x, jnp.asarray(_SEEN))
        total = total + jnp.exp(model.initial.log_prob(x[0]) + jnp.sum(moves) + jnp.sum(seen))
    return total


@MORE.add(params=np.array([0.3]), exact=_chain_exact, kinds=("score", "auto"), in_loop=True, baseline=None)
def particle_filter_of_three(params: jax.Array, key: jax.Array) -> jax.Array:
    """The likelihood of a chain of two states, by three particles."""
    model, seen = _chain(params[0]), jnp.asarray(_SEEN)
    found = smc.bootstrap_filter(model, seen, key, num_particles=3, gradient="stop_gradient")
    return jnp.exp(found.log_likelihood)


def _population_exact(params: jax.Array) -> jax.Array:
    birth, death = jnp.exp(params)
    return birth / death * (1 - jnp.exp(-death * 0.7))


@MORE.add(params=np.log([5.0, 1.0]), exact=_population_exact, kinds=("auto",), order=1, in_loop=True, baseline=None)
def births_and_deaths(params: jax.Array, key: jax.Array) -> jax.Array:
    """The mean of a population, event by event."""

    def rates(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.exp(params[0]), jnp.exp(params[1]) * x[0]])

    start = jnp.zeros(1, params.dtype)
    return mcgrad.simulate(key, rates, [[1.0], [-1.0]], start, until=0.7, max_events=37).state[0]
