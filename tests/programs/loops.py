"""Programs with loops and branches: sequences, policies, and choices between laws."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from programs.program import (
    CATEGORICAL,
    CONTINUOUS,
    DISCRETE,
    MIXED,
    Table,
    constant,
    every_state,
    expect_bernoulli,
    expect_categorical,
    expect_normal,
)

LOOP_PROGRAMS = Table(in_loop=True)


def _bernoulli(key, logits, name="b"):
    return mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name=name).astype(logits.dtype)


def expect_sequence(num_steps, num_values, log_prob_and_cost):
    """Exact mean over all sequences: `log_prob_and_cost(sequence)` for integer sequences `[num_steps]`."""
    sequences = jnp.asarray(every_state(num_values, num_steps), jnp.int32)
    log_probs, costs = jax.vmap(log_prob_and_cost)(sequences)
    return jnp.tensordot(jnp.exp(log_probs), costs, axes=1)


def _log_bernoulli(b, logits):
    return b * logits - jax.nn.softplus(logits)


# Chains.

_GAUSSIAN_STEPS = 50


def _gaussian_chain_exact(params):
    mean = variance = total = jnp.zeros(())
    for _ in range(_GAUSSIAN_STEPS):
        mean, variance = 0.9 * mean + params[0], 0.81 * variance + 0.09
        total = total + mean**2 + variance
    return total


@LOOP_PROGRAMS.add(
    params=np.array([0.15]),
    exact=_gaussian_chain_exact,
    kinds=("score", "pathwise", "partly pathwise", "auto"),
    baseline=lambda p: 20.0 + jnp.sin(p[0]),
)
def gaussian_chain(params, key):
    def step(x, key):
        x = 0.9 * x + mcgrad.sample(key, mcgrad.Normal(params[0], 0.3), name="push")
        return x, x**2

    _, costs = jax.lax.scan(step, jnp.zeros((), params.dtype), jax.random.split(key, _GAUSSIAN_STEPS))
    return jnp.sum(costs)


def _bernoulli_chain_exact(params):
    def one(sequence):
        x, log_prob, total = 1.0, 0.0, 0.0
        for b in sequence:
            log_prob = log_prob + _log_bernoulli(b, params[0] + params[1] * x)
            x = 0.9 * x + 0.1 * (2.0 * b - 1.0)
            total = total + x**2
        return log_prob, total

    return expect_sequence(10, 2, one)


@LOOP_PROGRAMS.add(params=np.array([0.4, -0.6]), exact=_bernoulli_chain_exact, kinds=DISCRETE)
def bernoulli_chain(params, key):
    def step(x, key):
        b = _bernoulli(key, params[0] + params[1] * x)
        x = 0.9 * x + 0.1 * (2.0 * b - 1.0)
        return x, x**2

    _, costs = jax.lax.scan(step, jnp.ones((), params.dtype), jax.random.split(key, 10))
    return jnp.sum(costs)


_EMISSIONS = np.array([0.2, 1.5, -1.0])
_OBSERVED = np.array([0.1, 1.2, 1.6, -0.8, 0.3, 1.4])


def _hidden_markov_exact(transitions):
    rows = jax.nn.log_softmax(transitions)

    def one(sequence):
        state, log_prob, total = 0, 0.0, 0.0
        for t in range(6):
            log_prob = log_prob + rows[state, sequence[t]]
            state = sequence[t]
            total = total + (jnp.asarray(_EMISSIONS)[state] - _OBSERVED[t]) ** 2
        return log_prob, total

    return expect_sequence(6, 3, one)


@LOOP_PROGRAMS.add(
    params=np.array([[0.2, 0.9, -0.4], [-0.5, 0.3, 0.6], [0.8, -0.1, 0.0]]),
    exact=_hidden_markov_exact,
    kinds=CATEGORICAL,
)
def hidden_markov_chain(params, key):
    def step(state, inputs):
        key, observed = inputs
        state = mcgrad.sample(key, mcgrad.Categorical(logits=params[state]), name="state")
        return state, (constant(_EMISSIONS, params)[state] - observed) ** 2

    inputs = (jax.random.split(key, 6), constant(_OBSERVED, params))
    _, costs = jax.lax.scan(step, jnp.zeros((), jnp.int32), inputs)
    return jnp.mean(costs) * 6


# Policies: an action pushes a position; the reward is for being near a goal.

_DISCOUNT = 0.9
_POLICY = np.array([0.5, -0.8])
_STEPS = 5


def _move(position, action):
    return 0.8 * position + 0.7 * (2.0 * action - 1.0)


def _reward(position):
    return -((position - 0.5) ** 2)


def _rollout_exact(params, start=1.0, discount=_DISCOUNT):
    def one(actions):
        position, log_prob, total = start, 0.0, 0.0
        for t in range(_STEPS):
            log_prob = log_prob + _log_bernoulli(actions[t], params[0] + params[1] * position)
            position = _move(position, actions[t])
            total = total + discount**t * _reward(position)
        return log_prob, total

    return expect_sequence(_STEPS, 2, one)


def _act(params, position, key):
    return _move(position, _bernoulli(key, params[0] + params[1] * position, name="action"))


_ROLLOUT = {"params": _POLICY, "exact": _rollout_exact, "kinds": DISCRETE, "baseline": lambda p: -2.0 + jnp.sin(p[0])}


@LOOP_PROGRAMS.add(**_ROLLOUT)
def rollout_accumulated_in_the_carry(params, key):
    def step(carry, key):
        position, total, discount = carry
        position = _act(params, position, key)
        return (position, total + discount * _reward(position), _DISCOUNT * discount), None

    start = tuple(constant(x, params) for x in (1.0, 0.0, 1.0))
    (_, total, _), _ = jax.lax.scan(step, start, jax.random.split(key, _STEPS))
    return total


@LOOP_PROGRAMS.add(**_ROLLOUT)
def rollout_stacked(params, key):
    def step(position, key):
        position = _act(params, position, key)
        return position, _reward(position)

    _, rewards = jax.lax.scan(step, constant(1.0, params), jax.random.split(key, _STEPS))
    return jnp.sum(rewards * constant(_DISCOUNT ** np.arange(_STEPS), params))


@LOOP_PROGRAMS.add(**_ROLLOUT)
def rollout_scanned_in_reverse(params, key):
    def step(position, inputs):
        key, weight = inputs
        position = _act(params, position, key)
        return position, weight * _reward(position)

    weights = constant(_DISCOUNT ** np.arange(_STEPS)[::-1], params)
    inputs = (jax.random.split(key, _STEPS), weights)
    _, rewards = jax.lax.scan(step, constant(1.0, params), inputs, reverse=True)
    return jnp.sum(rewards)


@LOOP_PROGRAMS.add(**_ROLLOUT)
def rollout_by_fori_loop(params, key):
    keys = jax.random.split(key, _STEPS)

    def step(t, carry):
        position, total = carry
        position = _act(params, position, keys[t])
        return position, total + constant(_DISCOUNT ** np.arange(_STEPS), params)[t] * _reward(position)

    start = (constant(1.0, params), constant(0.0, params))
    return jax.lax.fori_loop(0, _STEPS, step, start)[1]


_STARTS = np.array([1.0, -0.5, 0.3])


@LOOP_PROGRAMS.add(
    params=_POLICY,
    exact=lambda p: sum(_rollout_exact(p, start) for start in _STARTS) / 3,
    kinds=DISCRETE,
    baseline=lambda p: -2.0 + jnp.sin(p[0]),
)
def rollout_of_a_vmapped_environment(params, key):
    def step(positions, key):
        positions = jax.vmap(functools.partial(_act, params))(positions, jax.random.split(key, 3))
        return positions, _reward(positions)

    _, rewards = jax.lax.scan(step, constant(_STARTS, params), jax.random.split(key, _STEPS))
    return jnp.mean(constant(_DISCOUNT ** np.arange(_STEPS), params) @ rewards)


@LOOP_PROGRAMS.add(
    params=_POLICY,
    exact=lambda p: sum(_rollout_exact(p, start) for start in _STARTS) / 3,
    kinds=DISCRETE,
    baseline=lambda p: -2.0 + jnp.sin(p[0]),
)
def vmap_of_a_rollout(params, key):
    def episode(start, key):
        def step(carry, key):
            position, discount = carry
            position = _act(params, position, key)
            return (position, _DISCOUNT * discount), discount * _reward(position)

        _, rewards = jax.lax.scan(step, (start, jnp.ones_like(start)), jax.random.split(key, _STEPS))
        return jnp.sum(rewards)

    return jnp.mean(jax.vmap(episode)(constant(_STARTS, params), jax.random.split(key, 3)))


def _nested_exact(params):
    def one(actions):
        position, log_prob, total = 1.0, 0.0, 0.0
        for episode in range(2):
            for t in range(3):
                action = actions[3 * episode + t]
                log_prob = log_prob + _log_bernoulli(action, params[0] + params[1] * position)
                position = _move(position, action)
                total = total + _reward(position)
            position = 0.5 * position
        return log_prob, total

    return expect_sequence(6, 2, one)


@LOOP_PROGRAMS.add(params=_POLICY, exact=_nested_exact, kinds=DISCRETE, baseline=lambda p: -3.0 + jnp.sin(p[0]))
def nested_scans(params, key):
    def episode(position, key):
        def step(position, key):
            position = _act(params, position, key)
            return position, _reward(position)

        position, rewards = jax.lax.scan(step, position, jax.random.split(key, 3))
        return 0.5 * position, jnp.sum(rewards)

    _, totals = jax.lax.scan(episode, constant(1.0, params), jax.random.split(key, 2))
    return jnp.sum(totals)


def _scan_with_cond_exact(params):
    def one(sequence):
        x, log_prob, total = 0.5, 0.0, 0.0
        for b in sequence:
            log_prob = log_prob + _log_bernoulli(b, params[0] + params[1] * x)
            x = jnp.where(b == 1, jnp.sin(2.0 * x) + params[1], 0.5 * x - 1.0)
            total = total + x**2
        return log_prob, total

    return expect_sequence(4, 2, one)


@LOOP_PROGRAMS.add(params=np.array([0.4, 0.7]), exact=_scan_with_cond_exact, kinds=DISCRETE)
def scan_with_a_cond_on_a_draw(params, key):
    def step(x, key):
        b = _bernoulli(key, params[0] + params[1] * x)
        x = jax.lax.cond(b == 1, lambda x: jnp.sin(2.0 * x) + params[1], lambda x: 0.5 * x - 1.0, x)
        return x, x**2

    _, costs = jax.lax.scan(step, constant(0.5, params), jax.random.split(key, 4))
    return jnp.sum(costs)


@LOOP_PROGRAMS.add(**_ROLLOUT)
def rollout_with_a_checkpointed_jitted_step(params, key):
    @jax.checkpoint
    @jax.jit
    def step(position, key):
        position = _act(params, position, key)
        return position, _reward(position)

    _, rewards = jax.lax.scan(step, constant(1.0, params), jax.random.split(key, _STEPS))
    return rewards @ constant(_DISCOUNT ** np.arange(_STEPS), params)


# The sites around a scan: before, inside, after.


def _around_exact(params):
    def one(draws):
        before, *inside, after = draws
        x, log_prob = 2.0 * before - 1.0, _log_bernoulli(before, params[0])
        for b in inside:
            log_prob = log_prob + _log_bernoulli(b, params[1] * x)
            x = 0.5 * x + b
        log_prob = log_prob + _log_bernoulli(after, params[2] + x)
        return log_prob, (x + after - 1.0) ** 2

    return expect_sequence(5, 2, one)


@LOOP_PROGRAMS.add(params=np.array([0.3, -0.6, 0.2]), exact=_around_exact, kinds=DISCRETE)
def sites_before_inside_and_after_a_scan(params, key):
    key_before, key_scan, key_after = jax.random.split(key, 3)
    start = 2.0 * _bernoulli(key_before, params[0], "before") - 1.0

    def step(x, key):
        return 0.5 * x + _bernoulli(key, params[1] * x, "inside"), None

    x, _ = jax.lax.scan(step, start, jax.random.split(key_scan, 3))
    after = _bernoulli(key_after, params[2] + x, "after")
    return (x + after - 1.0) ** 2


@LOOP_PROGRAMS.add(
    params=np.array([0.4, -0.5]),
    exact=lambda p: jnp.sum(
        jnp.stack([expect_bernoulli(p[0] + p[1] * x, lambda b, x=x: (b + x) ** 2) for x in (0.5, -1.0, 2.0)])
    ),
    kinds=DISCRETE,
)
def map_over_examples(params, key):
    def example(inputs):
        x, key = inputs
        return (_bernoulli(key, params[0] + params[1] * x) + x) ** 2

    return jnp.sum(jax.lax.map(example, (constant([0.5, -1.0, 2.0], params), jax.random.split(key, 3))))


# Branches.


@LOOP_PROGRAMS.add(
    params=np.array([0.6, 0.8]),
    exact=lambda p: expect_normal(p[1], 0.7, lambda x: x**2) + p[0],
    kinds=CONTINUOUS,
)
def cond_on_a_parameter_with_a_site_in_one_branch(params, key):
    def drawn(key):
        return mcgrad.sample(key, mcgrad.Normal(params[1], 0.7), name="x") ** 2

    return jax.lax.cond(params[0] > 0, drawn, lambda key: 2.0 * params[1], key) + params[0]


@LOOP_PROGRAMS.add(params=np.array([-0.6, 0.8]), exact=lambda p: 2.0 * p[1] + p[0] ** 2, kinds=CONTINUOUS)
def cond_on_a_parameter_without_the_site(params, key):
    def drawn(key):
        return mcgrad.sample(key, mcgrad.Normal(params[1], 0.7), name="x") ** 2

    return jax.lax.cond(params[0] > 0, drawn, lambda key: 2.0 * params[1], key) + params[0] ** 2


@LOOP_PROGRAMS.add(
    params=np.array([0.3, 0.9, -0.2]),
    # E[x^2] is m^2 + 0.25 for the normal and 2 / rate^2 for the exponential law.
    exact=lambda p: jax.nn.sigmoid(p[0]) * (p[1] ** 2 + 0.25) + jax.nn.sigmoid(-p[0]) * 2 * jnp.exp(-2 * p[2]),
    kinds=MIXED,
)
def cond_on_a_draw_with_different_laws(params, key):
    key_b, key_x = jax.random.split(key)
    b = _bernoulli(key_b, params[0])
    x = jax.lax.cond(
        b == 1,
        lambda key: mcgrad.sample(key, mcgrad.Normal(params[1], 0.5), name="normal"),
        lambda key: mcgrad.sample(key, mcgrad.Exponential(jnp.exp(params[2])), name="exponential"),
        key_x,
    )
    return x**2


@LOOP_PROGRAMS.add(
    params=np.array([0.3, 0.9, -0.2, 0.5]),
    exact=lambda p: expect_bernoulli(p[0], lambda b: jnp.where(b == 1, *_cond_discrete_exact(p))),
    kinds=CATEGORICAL,
)
def cond_on_a_draw_with_discrete_laws(params, key):
    key_b, key_x = jax.random.split(key)
    b = _bernoulli(key_b, params[0])
    x = jax.lax.cond(
        b == 1,
        lambda key: _bernoulli(key, params[1], "coin") + 1.0,
        lambda key: mcgrad.sample(key, mcgrad.Categorical(logits=params[1:]), name="die").astype(params.dtype),
        key_x,
    )
    return (x - 0.5) ** 2


def _cond_discrete_exact(params):
    coin = expect_bernoulli(params[1], lambda b: (b + 0.5) ** 2)
    die = expect_categorical(params[1:], lambda x: (x - 0.5) ** 2)
    return coin, die


@LOOP_PROGRAMS.add(
    params={"logits": np.array([0.2, -0.3, 0.5]), "loc": np.array(0.9), "log_rate": np.array(0.4)},
    exact=lambda p: (
        jax.nn.softmax(p["logits"])
        @ jnp.stack([p["loc"] ** 2 + 0.25, jnp.exp(p["log_rate"]) + jnp.exp(2 * p["log_rate"]), p["loc"] + 3.0])
    ),
    kinds=MIXED,
)
def switch_of_three(params, key):
    key_which, key_x = jax.random.split(key)
    which = mcgrad.sample(key_which, mcgrad.Categorical(logits=params["logits"]), name="which")
    branches = [
        lambda key: mcgrad.sample(key, mcgrad.Normal(params["loc"], 0.5), name="normal") ** 2,
        lambda key: mcgrad.sample(key, mcgrad.Poisson(jnp.exp(params["log_rate"])), name="count").astype(key_type) ** 2,
        lambda key: params["loc"] + 3.0,
    ]
    key_type = params["loc"].dtype
    return jax.lax.switch(which, branches, key_x)


# A loop whose length is drawn: one step up or down, until 2 is reached, at most 7 steps.

_MOST_STEPS, _GOAL = 7, 2


def _walk_exact(params):
    total = 0.0
    for moves in itertools.product((1, -1), repeat=_MOST_STEPS):
        position, num_steps, ups = 0, 0, 0
        while position < _GOAL and num_steps < _MOST_STEPS:
            ups += moves[num_steps] == 1
            position += moves[num_steps]
            num_steps += 1
        # The moves after the stop sum out; each stopped walk is met 2^(7 - num_steps) times.
        downs = num_steps - ups
        up = jax.nn.sigmoid(params[0])
        total = total + up**ups * (1 - up) ** downs * num_steps / math.exp2(_MOST_STEPS - num_steps)
    return total


@LOOP_PROGRAMS.add(
    params=np.array([-0.5]), exact=_walk_exact, kinds=("score", "relaxed", "auto"), mode="forward", baseline=None
)
def random_walk_stopped_by_a_while_loop(params, key):
    def unfinished(state):
        position, num_steps, _ = state
        return (position < _GOAL) & (num_steps < _MOST_STEPS)

    def step(state):
        position, num_steps, key = state
        key, key_move = jax.random.split(key)
        move = 2 * mcgrad.sample(key_move, mcgrad.Bernoulli(logits=params[0]), name="move") - 1
        return position + move, num_steps + 1, key

    start = (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), key)
    _, num_steps, _ = jax.lax.while_loop(unfinished, step, start)
    return num_steps.astype(params.dtype)


# Common random numbers on purpose: the two costs are separate, so sharing the noise biases nothing.


@LOOP_PROGRAMS.add(
    params=np.array([1.1, 0.4]),
    exact=lambda p: p[0] ** 2 + 0.25 - jnp.exp(-0.5 * 0.25) * jnp.cos(p[1]),
    kinds=CONTINUOUS,
)
def two_passes_over_a_cloned_key(params, key):
    first = mcgrad.sample(key, mcgrad.Normal(params[0], 0.5), name="first")
    second = mcgrad.sample(jax.random.clone(key), mcgrad.Normal(params[1], 0.5), name="second")
    return first**2 - jnp.cos(second)
