"""gymnax: rollouts of environments as programs; credit, masks and baselines as an agent by hand has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mcgrad

gymnax = pytest.importorskip("gymnax")

STEPS, DISCOUNT = 60, 0.97
STEP = jnp.arange(STEPS)


def network(params, observation):
    return jnp.tanh(observation @ params["in"]) @ params["out"]


def init(observations, outputs, seed=0):
    k_in, k_out = jax.random.split(jax.random.key(seed))
    return {
        "in": jax.random.normal(k_in, (observations, 16)) / 2,
        "out": jax.random.normal(k_out, (16, outputs)) / 4,
    }


class Agent:
    """Rollouts in an environment under a policy, `act(params, observation, key)`."""

    def __init__(self, name):
        self.env, self.params = gymnax.make(name)

    def rollout(self, params, key, act):
        """What `act` returns beside the action, the rewards, and whether an episode has ended, of each step."""
        k_reset, k_steps = jax.random.split(key)

        def step(carry, key):
            k_action, k_env = jax.random.split(key)
            action, beside = act(params, carry[0], k_action)
            observation, state, reward, terminated, truncated, _ = self.env.step(k_env, carry[1], action, self.params)
            return (observation, state), (
                beside,
                jnp.asarray(reward, jnp.float32),
                terminated | truncated,
            )

        return jax.lax.scan(step, self.env.reset(k_reset, self.params), jax.random.split(k_steps, STEPS))[1]


def distribution(params, observation, discrete):
    out = network(params, observation)
    return mcgrad.Categorical(logits=out) if discrete else mcgrad.Normal(out, 0.5)


def loss(agent, discrete, costs, baseline=None):
    """A program: its action is a draw, and nothing else is said about credit."""

    def act(params, observation, key):
        estimator = None if baseline is None else mcgrad.Score(baseline=baseline(observation))
        return mcgrad.sample(key, distribution(params, observation, discrete), estimator), ()

    return lambda params, key: jnp.sum(costs(*agent.rollout(params, key, act)[1:]))


def by_hand(agent, discrete, costs, baseline=lambda observation: 0.0):
    """Its surrogate: for each action the log probability times the costs from there on, less the baseline."""

    def act(params, observation, key):
        dist = distribution(params, observation, discrete)
        action = jax.lax.stop_gradient(dist.sample(key))
        return action, (action, jnp.sum(dist.log_prob(action)), baseline(observation))

    def surrogate(params, key):
        (actions, log_probs, baselines), rewards, ended = agent.rollout(params, key, act)
        found = costs(rewards, ended)
        to_go = jax.lax.cumsum(found, reverse=True) - found
        if discrete:  # CartPole moves by the speeds of the step before: no cost of a step depends on its own action
            log_probs = log_probs.at[-1].set(0.0)
        else:  # the reward of Pendulum is of the state before the action, but for a cost of the torque
            to_go += 0.001 * jnp.clip(jnp.ravel(actions), -2.0, 2.0) ** 2 * DISCOUNT**STEP
        return jnp.sum(jax.lax.stop_gradient(to_go - jnp.ravel(baselines)) * log_probs)

    return surrogate


def of_window(rewards, ended):
    """A fixed number of steps with resets on the way: a cost for each."""
    return ended * DISCOUNT**STEP


def of_episode(rewards, ended):
    """The rewards up to the end of the first episode."""
    going_on = jnp.cumsum(ended) - ended == 0
    return jnp.where(going_on, -rewards * DISCOUNT**STEP, 0.0)


def of_pendulum(rewards, ended):
    return -rewards * DISCOUNT**STEP


@pytest.mark.parametrize("costs", [of_window, of_episode, of_pendulum])
def test_gradients_are_those_of_an_agent_by_hand(costs):
    """Costs to go, found by itself, also over resets; what comes after the end of an episode is masked.

    Which costs of a step depend on its own action is seen too: few agents by hand know it. A Gaussian action has no path through
    the transitions, which stop derivatives; its credit is not lost.
    """
    discrete = costs is not of_pendulum
    agent = Agent("CartPole-v1" if discrete else "Pendulum-v1")
    params = init(4, 2) if discrete else init(3, 1)

    @jax.jit
    def both(params, key):
        ours = mcgrad.grad(loss(agent, discrete, costs))(params, key)
        return ours, jax.grad(by_hand(agent, discrete, costs))(params, key)

    for key in jax.random.split(jax.random.key(1), 3):
        ours, other = both(params, key)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * jnp.abs(b).max()),
            ours,
            other,
        )


def test_a_baseline_that_depends_on_the_observation():
    agent = Agent("CartPole-v1")
    params = init(4, 2)

    def value(observation):
        return -10.0 + 3.0 * observation[2]

    @jax.jit
    def both(params, key):
        ours = mcgrad.grad(loss(agent, True, of_episode, value))(params, key)
        return ours, jax.grad(by_hand(agent, True, of_episode, value))(params, key)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
        *both(params, jax.random.key(5)),
    )


def test_generalized_advantages_of_every_reward_are_a_baseline():
    """At lambda 1 the critic's predictions cancel but for the first; what is left is the baseline of `mcgrad.Score`."""
    agent = Agent("CartPole-v1")
    params = init(4, 2)

    def value(observation):
        return -10.0 + 3.0 * observation[2]

    def act(params, observation, key):
        dist = distribution(params, observation, True)
        action = jax.lax.stop_gradient(dist.sample(key))
        return action, (dist.log_prob(action), value(observation))

    def generalized(params, key, decay):
        (log_probs, values), rewards, ended = agent.rollout(params, key, act)
        costs = of_window(rewards, ended)
        # CartPole moves by the speeds of the step before: the cost of a step is none of its own action.
        errors = jnp.append(costs[1:] + values[1:], 0.0) - values
        _, advantages = jax.lax.scan(lambda later, error: (error + decay * later,) * 2, 0.0, errors, reverse=True)
        return jnp.sum(jax.lax.stop_gradient(advantages) * log_probs.at[-1].set(0.0))

    @jax.jit
    def three(params, key):
        ours = mcgrad.grad(loss(agent, True, of_window, value))(params, key)
        return [ours, *(jax.grad(generalized)(params, key, decay) for decay in (1.0, 0.9))]

    ours, every, fewer = three(params, jax.random.key(5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), ours, every)
    assert jnp.abs(ours["out"] - fewer["out"]).max() > 0.1


def test_a_policy_learns():
    agent = Agent("CartPole-v1")
    params = init(4, 2)
    optimizer = optax.adam(0.02)

    def length(rewards, ended):
        return jnp.where(jnp.cumsum(ended) - ended == 0, -1.0, 0.0)

    gradient = mcgrad.value_and_grad(loss(agent, True, length), num_samples=16)

    def step(carry, key):
        params, state = carry
        value, grads = gradient(params, key)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), -value

    keys = jax.random.split(jax.random.key(2), 40)
    lengths = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimizer.init(params)))[1]
    assert lengths[0] < 40 and lengths[-10:].mean() > 58, lengths
