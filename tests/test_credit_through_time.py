"""One rollout, written in many ways: each is credited as by hand."""

from __future__ import annotations

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

HERE = os.path.basename(__file__)
POLICY = np.array([0.5, -0.8])
DISCOUNT = 0.9
stop = jax.lax.stop_gradient


def act(policy, position, key):
    logits = policy[0] + policy[1] * position
    action = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="action").astype(position.dtype)
    return move(position, action)


def move(position, action):
    return 0.8 * position + 0.7 * (2 * action - 1)


def reward(position):
    return -((position - 0.5) ** 2)


def start(num_envs):
    return jnp.linspace(-0.5, 1.0, num_envs)


def discounts(num_steps):
    return DISCOUNT ** jnp.arange(num_steps)


def stacked(policy, key, num_steps, num_envs):
    def step(position, key):
        position = act(policy, position, key)
        return position, reward(position)

    _, rewards = jax.lax.scan(step, start(num_envs), jax.random.split(key, num_steps))
    return jnp.mean(discounts(num_steps) @ rewards)


def stacked_means(policy, key, num_steps, num_envs):
    def step(position, key):
        position = act(policy, position, key)
        return position, jnp.mean(reward(position))

    _, rewards = jax.lax.scan(step, start(num_envs), jax.random.split(key, num_steps))
    return discounts(num_steps) @ rewards


def accumulated(policy, key, num_steps, num_envs):
    def step(carry, key):
        position, (total, discount) = carry
        position = act(policy, position, key)
        return (position, (total + discount * jnp.mean(reward(position)), DISCOUNT * discount)), None

    begin = (start(num_envs), (jnp.zeros(()), jnp.ones(())))
    return jax.lax.scan(step, begin, jax.random.split(key, num_steps))[0][1][0]


def accumulated_in_a_checkpoint(policy, key, num_steps, num_envs):
    @jax.checkpoint
    def step(carry, inputs):
        position, total = carry
        key, discount = inputs
        position = act(policy, position, key)
        return (position, total + discount * jnp.mean(reward(position))), None

    inputs = (jax.random.split(key, num_steps), discounts(num_steps))
    return jax.lax.scan(step, (start(num_envs), jnp.zeros(())), inputs)[0][1]


def accumulated_by_fori_loop(policy, key, num_steps, num_envs):
    keys = jax.random.split(key, num_steps)

    def step(t, carry):
        position, total = carry
        position = act(policy, position, keys[t])
        return position, total + DISCOUNT**t * jnp.mean(reward(position))

    return jax.lax.fori_loop(0, num_steps, step, (start(num_envs), jnp.zeros(())))[1]


def accumulated_unless_done(policy, key, num_steps, num_envs):
    """The sum stops at a flag that a draw could raise, though none does."""

    def step(carry, inputs):
        position, total, done = carry
        key, discount = inputs
        position = act(policy, position, key)
        total = jnp.where(done, total, total + discount * reward(position))
        return (position, total, done | (position > 100)), None

    begin = (start(num_envs), jnp.zeros(num_envs), jnp.zeros(num_envs, bool))
    inputs = (jax.random.split(key, num_steps), discounts(num_steps))
    return jnp.mean(jax.lax.scan(step, begin, inputs)[0][1])


def accumulated_by_a_factor_of_the_loop(policy, key, num_steps, num_envs):
    """What multiplies the total is carried by the loop with the draws, though none reaches it."""

    def step(carry, key):
        position, total, discount = carry
        position = act(policy, position, key)
        later = DISCOUNT * discount
        return (position, total * (discount / later) + reward(position), later), None

    begin = (start(num_envs), jnp.zeros(num_envs), jnp.ones(()))
    _, total, discount = jax.lax.scan(step, begin, jax.random.split(key, num_steps))[0]
    return jnp.mean(total) * discount / DISCOUNT


def returns_by_a_second_scan(policy, key, num_steps, num_envs):
    def step(position, key):
        position = act(policy, position, key)
        return position, reward(position)

    _, rewards = jax.lax.scan(step, start(num_envs), jax.random.split(key, num_steps))
    value, _ = jax.lax.scan(lambda value, r: (r + DISCOUNT * value, None), jnp.zeros(num_envs), rewards, reverse=True)
    return jnp.mean(value)


def running_totals(policy, key, num_steps, num_envs):
    """The total is stacked too; the last entry of the stack is what counts."""

    def step(carry, inputs):
        position, total = carry
        key, discount = inputs
        position = act(policy, position, key)
        total = total + discount * reward(position)
        return (position, total), total

    inputs = (jax.random.split(key, num_steps), discounts(num_steps))
    return jnp.mean(jax.lax.scan(step, (start(num_envs), jnp.zeros(num_envs)), inputs)[1][-1])


def by_hand(policy, key, num_steps, num_envs):
    """The surrogate that an expert would write: each environment's reward times the weight of its actions so far."""

    def step(carry, key):
        position, log_weight = carry
        logits = policy[0] + policy[1] * position
        action = mcgrad.Bernoulli(logits=stop(logits)).sample(key).astype(logits.dtype)
        log_weight = log_weight + action * logits - jax.nn.softplus(logits)
        position = move(position, action)
        return (position, log_weight), reward(position) * jnp.exp(log_weight - stop(log_weight))

    _, rewards = jax.lax.scan(step, (start(num_envs), jnp.zeros(num_envs)), jax.random.split(key, num_steps))
    return jnp.mean(discounts(num_steps) @ rewards)


WAYS = (
    stacked,
    stacked_means,
    accumulated,
    accumulated_in_a_checkpoint,
    accumulated_by_fori_loop,
    accumulated_unless_done,
    accumulated_by_a_factor_of_the_loop,
    returns_by_a_second_scan,
    running_totals,
)


@pytest.mark.parametrize(("num_steps", "num_envs"), [(10, 1), (10, 4), (100, 4)])
@pytest.mark.parametrize("rollout", WAYS)
def test_every_way_to_add_rewards_up_is_credited_as_by_hand(rollout, num_steps, num_envs):
    """Not only the same variance: the same gradient on each key."""
    keys = jax.random.split(jax.random.key(7), 20)
    policy = jnp.asarray(POLICY)
    ours = mcgrad.value_and_grad(
        functools.partial(rollout, num_steps=num_steps, num_envs=num_envs), estimator=mcgrad.Score()
    )
    hand = jax.value_and_grad(functools.partial(by_hand, num_steps=num_steps, num_envs=num_envs))
    with jax.debug_key_reuse(False):
        value, gradient = jax.jit(jax.vmap(ours, (None, 0)))(policy, keys)
        expected_value, expected = jax.jit(jax.vmap(hand, (None, 0)))(policy, keys)
    np.testing.assert_allclose(value, expected_value, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9)


def test_the_program_does_not_grow_with_the_number_of_steps():
    def count(num_steps):
        surrogate = mcgrad.grad(
            functools.partial(accumulated, num_steps=num_steps, num_envs=2), estimator=mcgrad.Score()
        )
        return str(jax.make_jaxpr(surrogate)(jnp.asarray(POLICY), jax.random.key(0))).count("\n")

    assert count(10) == count(1000)


def test_explain_shows_time_and_accumulators():
    report = mcgrad.explain(functools.partial(accumulated, num_steps=10, num_envs=4), estimator=mcgrad.Score())(
        jnp.asarray(POLICY), jax.random.key(0)
    )
    (cost,) = report.costs
    assert cost.shape == (10, 4)
    assert cost.credits[0].axes == ("earlier", "same")
    assert len(report.accumulators) == 1 and HERE in report.accumulators[0]
    assert "credited one by one" in str(report)


def test_a_carry_that_is_used_is_no_accumulator():
    def program(theta, key):
        def step(total, key):
            total = total + mcgrad.sample(key, mcgrad.Bernoulli(logits=theta - total))
            return total, jnp.sin(total)

        _, costs = jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 4))
        return jnp.sum(costs)

    report = mcgrad.explain(program, estimator=mcgrad.Score())(0.3, jax.random.key(0))
    assert report.accumulators == ()


def test_a_checkpoint_keeps_its_policy():
    policy = jax.checkpoint_policies.dots_saveable

    def program(w, key):
        @functools.partial(jax.checkpoint, policy=policy)
        def cost(w):
            b = mcgrad.sample(key, mcgrad.Bernoulli(logits=jnp.tanh(w @ w)))
            return jnp.mean((b - 0.3) ** 2)

        return cost(w)

    jaxpr = jax.make_jaxpr(mcgrad.expectation(program, estimator=mcgrad.Score()))(jnp.eye(3), jax.random.key(0))
    found = [eqn.params["policy"] for eqn in jaxpr.eqns if "policy" in eqn.params]
    assert found == [policy]
