"""Transformed programs inside loops, reverse mode through them, and every way to call a function: right, or refused."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

HERE = os.path.basename(__file__)


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


def stopped_walk(logits, key):
    def step(state):
        position, num_steps, key = state
        key, key_move = jax.random.split(key)
        return position + 2 * mcgrad.sample(key_move, mcgrad.Bernoulli(logits=logits)) - 1, num_steps + 1, key

    return jax.lax.while_loop(lambda s: (s[0] < 2) & (s[1] < 7), step, (0, 0, key))[1].astype(float)


def test_what_has_no_way_through_a_while_loop_says_what_to_do():
    assert jnp.isfinite(jax.jacfwd(mcgrad.expectation(stopped_walk))(0.4, jax.random.key(0)))
    with pytest.raises(NotImplementedError, match=f"while_loop.*{HERE}.*jacfwd.*scan"):
        mcgrad.grad(stopped_walk)(0.4, jax.random.key(0))
    with pytest.raises(NotImplementedError, match=f"while_loop.*{HERE}"):
        mcgrad.grad(stopped_walk, estimator=mcgrad.SmoothedPerturbation())(0.4, jax.random.key(0))


def first_success(p, key):
    def step(state):
        number, key, _ = state
        key, own = jax.random.split(key)
        return number + 1, key, mcgrad.sample(own, mcgrad.Bernoulli(probs=p))

    return jax.lax.while_loop(lambda s: (s[2] < 1) & (s[0] < 60), step, (0, key, 0))[0].astype(float)


def test_loops_under_vmap_stop_each_by_its_own_condition():
    p = jnp.array([0.5, 0.7, 0.9])

    def program(p, key):
        each = lambda key: jax.vmap(first_success)(p, jax.random.split(key, 3))  # noqa: E731
        return jnp.mean(jax.vmap(each)(jax.random.split(key, 2)), axis=0)

    fn = mcgrad.expectation(program)
    draws = jax.jit(jax.vmap(lambda key: (fn(p, key), jax.jacfwd(fn)(p, jax.random.clone(key)))))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    assert_unbiased(draws[0], 1 / p)
    assert_unbiased(draws[1], -jnp.diag(1 / p**2))


def test_a_loop_under_a_vmap_that_its_condition_does_not_see_is_refused():
    def program(p, key):
        def one(bound, key):
            def step(state):
                key, own = jax.random.split(state[1])
                return state[0] + 1, key, state[2] + mcgrad.sample(own, mcgrad.Bernoulli(probs=p))

            return jax.lax.while_loop(lambda s: s[0] < bound, step, (0, key, 0))[2]

        return jnp.sum(jax.vmap(lambda key: jax.vmap(one)(jnp.arange(3), jax.random.split(key, 3)))(key)) * 1.0

    refused = pytest.raises(NotImplementedError, match=f"while_loop` at .*{HERE}.* some map over the loop and not over")
    with jax.debug_key_reuse(False), refused:  # which some versions of JAX check first
        jax.jit(mcgrad.expectation(lambda p, key: program(p, jax.random.split(key))))(0.3, jax.random.key(0))


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
REFUSED = {"custom_jvp", "custom_vjp", "custom_linear_solve", "custom_root", "custom_vmap"}


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


def test_a_loop_may_compute_the_same_cost_in_each_step():
    def program(theta, key):
        v = theta * mcgrad.sample(key, mcgrad.Bernoulli(logits=theta))
        _, costs = jax.lax.scan(lambda carry, _: (carry, jnp.fft.rfft(v).imag), 0.0, jnp.arange(4.0))
        return jnp.sum(costs)

    theta = jnp.array([0.3, -0.4, 1.2])
    # the costs are linear in the draws, by the weights of the transform
    weights = np.fft.rfft(np.eye(3)).imag.sum(1) * 4
    got = jax.jit(mcgrad.grad(program, estimator=mcgrad.Enumerate()))(theta, jax.random.key(0))
    exact = jax.grad(lambda theta: jnp.sum(weights * theta * jax.nn.sigmoid(theta)))(theta)
    np.testing.assert_allclose(got, exact, atol=1e-12)
