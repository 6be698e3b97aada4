"""Loops and branches: credit through time, hidden sums, the alternative path, and what is refused."""

from __future__ import annotations

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

HERE = os.path.basename(__file__)
POLICY = np.array([0.5, -0.8])
DISCOUNT = 0.9
stop = jax.lax.stop_gradient


# ---------------------------------------------------------------- one rollout, written in many ways


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


# ---------------------------------------------------------------- the alternative path


def bernoulli_chain(logits, key, num_steps, estimator):
    def step(x, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)
        x = 0.9 * x + 0.1 * (2 * b - 1)
        return x, x**2

    return jnp.sum(jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, num_steps))[1])


def exact_bernoulli_chain(logits, num_steps):
    p = jax.nn.sigmoid(logits)
    mean = variance = total = 0.0
    for _ in range(num_steps):
        mean, variance = 0.9 * mean + 0.1 * (2 * p - 1), 0.81 * variance + 0.04 * p * (1 - p)
        total = total + mean**2 + variance
    return total


def squared_chain(logits, key, num_steps, estimator):
    """A cost that mixes all steps, so that nothing can be banked when the paths merge."""
    return bernoulli_chain(logits, key, num_steps, estimator) ** 2


def walk(p, key, num_steps, estimator):
    """Arya et al. 2022, section 5.1: `X` goes up with probability `exp(-X / p)`, else down."""

    def step(x, key):
        return x + 2 * mcgrad.sample(key, mcgrad.Bernoulli(probs=jnp.exp(-x / p)), estimator) - 1, None

    return jax.lax.scan(step, 0, jax.random.split(key, num_steps))[0].astype(float) ** 2


def exact_walk(p, num_steps):
    """`E[X^2]` from the law of `X`, step by step."""
    places = jnp.arange(num_steps + 1)
    up = jnp.exp(-places / p)

    def step(law, _):
        return jnp.roll(law * up, 1) + jnp.roll(law * (1 - up), -1), None

    law, _ = jax.lax.scan(step, jnp.zeros(num_steps + 1).at[0].set(1.0), length=num_steps)
    return law @ places**2


def draws_of(program, parameter, num_draws, seed=11):
    keys = jax.random.split(jax.random.key(seed), num_draws)
    gradient = mcgrad.grad(program)
    with jax.debug_key_reuse(False):
        return jax.jit(lambda keys: jax.lax.map(lambda key: gradient(parameter, key), keys, batch_size=1000))(keys)


SMOOTHED = mcgrad.SmoothedPerturbation()


A_THOUSAND_STEPS = pytest.param(1000, marks=pytest.mark.slow)


@pytest.mark.parametrize("num_steps", [10, 100, A_THOUSAND_STEPS])
def test_alternative_path_on_the_bernoulli_chain(num_steps):
    program = functools.partial(bernoulli_chain, num_steps=num_steps, estimator=SMOOTHED)
    draws = draws_of(program, 0.4, 20_000)
    assert_unbiased(draws, jax.jvp(lambda logits: exact_bernoulli_chain(logits, num_steps), (0.4,), (1.0,))[1])
    score = draws_of(functools.partial(bernoulli_chain, num_steps=num_steps, estimator=mcgrad.Score()), 0.4, 4000)
    assert np.var(draws) < np.var(score) / {10: 3, 100: 5, 1000: 50}[num_steps]


@pytest.mark.parametrize("sides", ["both", "right", "left"])
@pytest.mark.parametrize("num_steps", [10, 100, A_THOUSAND_STEPS])
def test_alternative_path_on_a_walk(num_steps, sides):
    estimator = mcgrad.SmoothedPerturbation(sides)
    draws = draws_of(functools.partial(walk, num_steps=num_steps, estimator=estimator), 2.0 * num_steps, 8000)
    assert_unbiased(draws, jax.grad(exact_walk)(2.0 * num_steps, num_steps))
    if sides == "right" and num_steps < 1000:  # the published standard deviations
        assert np.std(draws) < 1.05 * {10: 1.0, 100: 6.5}[num_steps]


def test_alternative_path_where_a_cost_mixes_all_steps():
    exact = mcgrad.grad(functools.partial(squared_chain, num_steps=4, estimator=mcgrad.Enumerate()))
    draws = draws_of(functools.partial(squared_chain, num_steps=4, estimator=SMOOTHED), 0.4, 40_000)
    assert_unbiased(draws, exact(0.4, jax.random.key(0)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(SMOOTHED, SMOOTHED, marks=pytest.mark.slow),
        pytest.param(SMOOTHED, mcgrad.Score(), marks=pytest.mark.slow),
        (mcgrad.Score(), SMOOTHED),
        pytest.param(SMOOTHED, mcgrad.Enumerate(), marks=pytest.mark.slow),
        pytest.param(mcgrad.Score(baseline=0.5), mcgrad.Enumerate(), marks=pytest.mark.slow),
        (mcgrad.Enumerate(), mcgrad.Score()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_meet_in_one_step(first, second):
    def program(params, key, first, second):
        def step(x, key):
            key_b, key_c = jax.random.split(key)
            b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=params[0] + params[1] * x), first)
            c = mcgrad.sample(key_c, mcgrad.Bernoulli(logits=params[1] * b - x), second)
            x = 0.5 * x + b - 0.7 * c
            return x, x**2

        x, costs = jax.lax.scan(step, jnp.asarray(0.3), jax.random.split(key, 3))
        return jnp.sum(costs) + x**3

    params = jnp.array([0.4, 0.6])
    everything = functools.partial(program, first=mcgrad.Enumerate(), second=mcgrad.Enumerate())
    exact = mcgrad.grad(everything)(params, jax.random.key(0))
    assert_unbiased(draws_of(functools.partial(program, first=first, second=second), params, 40_000), exact)


def test_alternative_path_is_first_order_and_not_for_while_loops():
    program = functools.partial(bernoulli_chain, num_steps=3, estimator=SMOOTHED)
    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.hessian(mcgrad.expectation(program))(0.4, jax.random.key(0))
    with pytest.raises(NotImplementedError, match=f"while_loop.*{HERE}"):
        mcgrad.grad(stopped_walk, estimator=SMOOTHED)(0.4, jax.random.key(0))


# ---------------------------------------------------------------- a transformed program inside a loop


def of_score(theta, key):
    return (mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), mcgrad.Score()) - 0.3) ** 2


def of_implicit_path(theta, key):
    law = mcgrad.distribution(
        sampler=lambda key, rate: jax.random.exponential(key) / rate, cdf=lambda x, rate: -jnp.expm1(-rate * x)
    )
    return mcgrad.sample(key, law(theta), mcgrad.Pathwise()) ** 3


@pytest.mark.parametrize("program", [of_score, of_implicit_path])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_second_derivatives_inside_a_loop_are_those_outside(program, inner, outer):
    """JAX 0.10 drops the rule of a `jax.custom_jvp` here, silently; ours must stay."""
    keys = jax.random.split(jax.random.key(0), 3)

    def looped(theta):
        return jnp.mean(jax.lax.map(lambda key: mcgrad.expectation(program)(theta, key), keys))

    def mapped(theta):
        return jnp.mean(jax.vmap(lambda key: mcgrad.expectation(program)(theta, key))(keys))

    with jax.debug_key_reuse(False):
        np.testing.assert_allclose(outer(inner(looped))(0.4), jax.hessian(mapped)(0.4), rtol=1e-9)


# ---------------------------------------------------------------- reverse mode, and every way to call a function


def stopped_walk(logits, key):
    def step(state):
        position, num_steps, key = state
        key, key_move = jax.random.split(key)
        return position + 2 * mcgrad.sample(key_move, mcgrad.Bernoulli(logits=logits)) - 1, num_steps + 1, key

    return jax.lax.while_loop(lambda s: (s[0] < 2) & (s[1] < 7), step, (0, 0, key))[1].astype(float)


def test_reverse_mode_through_a_while_loop_says_what_to_do():
    assert jnp.isfinite(jax.jacfwd(mcgrad.expectation(stopped_walk))(0.4, jax.random.key(0)))
    with pytest.raises(NotImplementedError, match=f"while_loop.*{HERE}.*jacfwd.*scan"):
        mcgrad.grad(stopped_walk)(0.4, jax.random.key(0))


def coin(logits, key):
    return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))


@jax.custom_jvp
def under_custom_jvp(logits, key):
    return coin(logits, key)


under_custom_jvp.defjvp(lambda primals, tangents: (coin(*primals), tangents[0]))


@jax.custom_vjp
def under_custom_vjp(logits, key):
    return coin(logits, key)


under_custom_vjp.defvjp(lambda logits, key: (coin(logits, key), None), lambda _, g: (g, None))


def under_shard_map(logits, key):
    mesh = jax.make_mesh((1,), ("devices",))
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(coin, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(logits, key)


def under_linear_solve(logits, key):
    return jax.lax.custom_linear_solve(
        lambda x: 2.0 * x, 2.0 * logits, lambda _, b: 0.0 * b + coin(logits, key), symmetric=True
    )


def under_root(logits, key):
    return jax.lax.custom_root(
        lambda x: x - logits, logits, lambda f, x: coin(logits, key), lambda g, y: y / g(jnp.ones_like(y))
    )


def under_custom_vmap(logits, key):
    fn = jax.custom_batching.custom_vmap(coin)
    fn.def_vmap(lambda size, batched, logits, key: (jax.vmap(coin, batched)(logits, key), True))
    return fn(logits, key)


def under_grad(logits, key):
    """A derivative taken inside the program."""
    return jax.grad(lambda x: x * coin(logits, key))(1.0)


def under_associative_scan(logits, key):
    draws = jax.vmap(coin, (None, 0))(logits, jax.random.split(key, 4))
    return jax.lax.associative_scan(jnp.add, draws)[-1] / 4


CALLS = {
    "jit": jax.jit(coin),
    "nested jit": jax.jit(lambda logits, key: jax.jit(coin)(logits, key)),
    "checkpoint": jax.checkpoint(coin),
    "vmap": lambda logits, key: jnp.mean(jax.vmap(coin, (None, 0))(logits, jax.random.split(key, 3))),
    "cond": lambda logits, key: jax.lax.cond(logits > -9, coin, lambda logits, _: logits, logits, key),
    "switch": lambda logits, key: jax.lax.switch(1, [lambda logits, _: logits, coin], logits, key),
    "scan": lambda logits, key: jax.lax.scan(lambda c, k: (c, coin(logits, k)), 0, jax.random.split(key, 3))[1].mean(),
    "map": lambda logits, key: jnp.mean(jax.lax.map(lambda k: coin(logits, k), jax.random.split(key, 3))),
    "fori_loop": lambda logits, key: (
        jax.lax.fori_loop(0, 3, lambda i, c: c + coin(logits, jax.random.fold_in(key, i)), 0.0) / 3
    ),
    "associative_scan": under_associative_scan,
    "named_call": jax.named_call(coin, name="coin"),
    "custom_jvp": under_custom_jvp,
    "custom_vjp": under_custom_vjp,
    "shard_map": under_shard_map,
    "custom_linear_solve": under_linear_solve,
    "custom_root": under_root,
    "custom_vmap": under_custom_vmap,
    "grad": under_grad,
    "pmap": lambda logits, key: jax.pmap(coin, in_axes=(None, 0))(logits, jax.random.split(key, 1))[0],
    "platform_dependent": lambda logits, key: jax.lax.platform_dependent(logits, key, cpu=coin, default=coin),
    "pure_callback": lambda logits, key: jax.pure_callback(
        np.asarray, jax.ShapeDtypeStruct((), jnp.float64), coin(logits, key), vmap_method="expand_dims"
    ),
}
REFUSED = {"custom_jvp", "custom_vjp", "shard_map", "custom_linear_solve", "custom_root", "custom_vmap", "pmap"}


@pytest.mark.parametrize("name", CALLS)
def test_every_higher_order_primitive_is_right_or_refused(name):
    program = CALLS[name]
    gradient = mcgrad.grad(program, estimator=mcgrad.Score())
    keys = jax.random.split(jax.random.key(3), 20_000)

    def draws():
        return jax.lax.map(lambda key: gradient(0.4, key), keys, batch_size=2000)

    with jax.debug_key_reuse(False):
        if name in REFUSED:
            with pytest.raises(NotImplementedError, match=HERE):
                gradient(0.4, keys[0])
        else:
            assert_unbiased(jax.jit(draws)(), 3.0 * jax.grad(jax.nn.sigmoid)(0.4))
