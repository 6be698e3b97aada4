"""Checks of values while compiled programs run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

KEY = jax.random.key(0)


def normal(scale, key):
    return mcgrad.sample(key, mcgrad.Normal(0.0, scale)) ** 2


def in_scan(scale, key):
    def step(total, key):
        return total + mcgrad.sample(key, mcgrad.Gamma(scale, 1.0)) ** 2, None

    return jax.lax.scan(step, 0.0, jax.random.split(key, 3))[0]


def interval(width, key):
    return mcgrad.sample(key, mcgrad.Uniform(0.0, width))


def infinite(x, key):
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=x))
    return jnp.log(0.0 * (b + 1.0 + x**2)) + x


CASES = {
    "a scale": (normal, -1.0, r"mcgrad.Normal\(scale=...\)` must be positive and finite, got -1.0"),
    "in a scan": (in_scan, -1.0, r"mcgrad.Gamma\(concentration=...\)` must be positive"),
    "an interval": (interval, -1.0, r"mcgrad.Uniform\(high=...\)` must be above `low`"),
    "a cost": (infinite, 1.0, r"The cost of `.*` at .*test_debug.py:\d+.* must be finite, got -inf"),
}


@pytest.mark.parametrize("mapped", [False, True], ids=["jit", "vmap"])
@pytest.mark.parametrize("name", CASES)
def test_values_that_are_known_at_run_time_are_checked(name, mapped):
    program, argument, message = CASES[name]
    gradient = mcgrad.grad(program)
    if mapped:
        gradient, argument = jax.vmap(gradient, (0, None)), jnp.full(2, argument)
    with mcgrad.debug_checks(), pytest.raises(Exception, match=message):
        jax.block_until_ready(jax.jit(gradient)(argument, KEY))


@pytest.mark.parametrize("program", [normal, in_scan, interval])
def test_what_is_right_is_the_same_with_checks(program):
    plain = jax.jit(mcgrad.grad(program))(1.5, KEY)
    with mcgrad.debug_checks():
        checked = jax.jit(mcgrad.grad(program))(1.5, jax.random.clone(KEY))
    np.testing.assert_allclose(plain, checked)


def test_nothing_is_compiled_in_where_checks_are_off():
    def is_checked():
        gradient = mcgrad.grad(lambda scale, key: normal(scale, key))  # a new function: JAX keeps what it has traced
        return "debug_callback" in str(jax.make_jaxpr(gradient)(1.0, jax.random.clone(KEY)))

    with mcgrad.debug_checks():
        assert is_checked()
        with mcgrad.debug_checks(False):
            assert not is_checked()
    assert not is_checked()


def joint(draw):
    def loss(parameter, key):
        x = draw(parameter, key).astype(float)
        return jnp.sum(x + 1.0) ** 2 * (1.0 + x[0])

    return loss


def bits(estimator, **parameter):
    (name,) = parameter
    return joint(lambda p, key: mcgrad.sample(key, mcgrad.Bernoulli(**{name: parameter[name](p)}), estimator))


MISSED = {
    "score": bits(mcgrad.Score(), probs=jnp.asarray),
    "default": bits(None, probs=jnp.asarray),
    "sure": bits(mcgrad.DisARM(), probs=lambda p: 1 - p),
    "classes": joint(
        lambda p, key: mcgrad.sample(key, mcgrad.Categorical(probs=jnp.stack([p, 1 - p], -1)), mcgrad.CARMS(3))
    ),
    "counts": joint(lambda p, key: mcgrad.sample(key, mcgrad.Poisson(p), mcgrad.Score())),
    "mapped": lambda p, key: (
        jnp.sum(
            jax.vmap(lambda p, key: mcgrad.sample(key, mcgrad.Bernoulli(probs=p), mcgrad.Score()))(
                p, jax.random.split(key, 2)
            )
        )
        ** 2.0
    ),
}


@pytest.mark.parametrize("program", MISSED.values(), ids=MISSED)
def test_probabilities_of_zero_that_move_are_refused_where_draws_alone_are_seen(program):
    gradient = jax.jit(mcgrad.grad(program))
    with mcgrad.debug_checks():
        jax.block_until_ready(gradient(jnp.array([0.5, 0.3]), jax.random.key(1)))
        with pytest.raises(
            Exception, match=r"would be wrong at the draw .*test_debug.py.* a value of probability zero"
        ):
            jax.block_until_ready(gradient(jnp.array([0.0, 0.3]), jax.random.key(2)))


def test_probabilities_of_zero_that_stay_or_that_are_evaluated_pass_the_checks():
    right = [
        bits(mcgrad.Score(), logits=lambda p: jnp.array([-jnp.inf, 0.3]) + p),
        bits(mcgrad.MeasureValued(), probs=jnp.asarray),
        bits(mcgrad.Enumerate(), probs=jnp.asarray),
    ]
    for program in right:
        with mcgrad.debug_checks():
            jax.block_until_ready(jax.jit(mcgrad.grad(program))(jnp.array([0.0, 0.3]), jax.random.key(2)))
