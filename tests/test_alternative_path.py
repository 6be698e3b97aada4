"""The alternative path of smoothed perturbation through loops: against exact values, with others, and what is refused."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad
from mcgrad.program import zero_with_derivative_of


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


@dataclasses.dataclass(frozen=True)
class Flip(mcgrad.Estimator):
    """The other value of a bit, as its only alternative: an estimator of one's own that a `scan` carries along."""

    follows_alternatives = True

    def alternatives(self, draw, x):
        there = draw.prob(1 - x)
        size = jax.lax.stop_gradient(there * (1 - there))
        return mcgrad.Alternatives((1 - x)[None], zero_with_derivative_of(there)[None], size[None])

    def represent(self, draw):
        x = draw.sample()
        found = self.alternatives(draw, x)
        return mcgrad.SignedPoints(x, found.values, found.coefficients, relative=True)


def test_alternatives_of_an_estimator_of_ones_own():
    num_steps = 100  # more than are unrolled
    draws = draws_of(functools.partial(bernoulli_chain, num_steps=num_steps, estimator=Flip()), 0.4, 20_000)
    assert_unbiased(draws, jax.jvp(lambda logits: exact_bernoulli_chain(logits, num_steps), (0.4,), (1.0,))[1])


@pytest.mark.parametrize("decomposition", ["hahn_jordan", "size_bias"])
def test_parts_of_a_weak_derivative_in_a_long_loop(decomposition):
    """Continuous draws, one of several parts of which is followed: `x <- 0.7 x + N(loc, scale)`, and the sum of `x^2`."""

    def program(params, key):
        def step(x, key):
            x = 0.7 * x + mcgrad.sample(key, mcgrad.Normal(params[0], params[1]), mcgrad.MeasureValued(decomposition))
            return x, x**2

        return jnp.mean(jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 60))[1])

    def exact(params):
        mean = variance = total = 0.0
        for _ in range(60):
            mean, variance = 0.7 * mean + params[0], 0.49 * variance + params[1] ** 2
            total = total + mean**2 + variance
        return total / 60

    params = jnp.array([0.4, 0.5])
    assert_unbiased(draws_of(program, params, 40_000), jax.grad(exact)(params))


def test_a_weak_derivative_of_counts_in_a_long_loop():
    def program(rate, key):
        def step(x, key):
            x = x // 2 + mcgrad.sample(key, mcgrad.Poisson(rate), mcgrad.MeasureValued())
            return x, 1.0 * x

        return jnp.mean(jax.lax.scan(step, 0, jax.random.split(key, 40))[1])

    def exact(rate):
        counts = jnp.arange(60)
        arrivals = jnp.exp(counts * jnp.log(rate) - rate - jax.scipy.special.gammaln(counts + 1.0))
        kernel = (
            jnp.zeros((60, 60))
            .at[counts[:, None], jnp.minimum(counts[:, None] // 2 + counts[None], 59)]
            .add(arrivals[None])
        )
        law, total = jnp.zeros(60).at[0].set(1.0), 0.0
        for _ in range(40):
            law = law @ kernel
            total = total + law @ counts
        return total / 40

    assert_unbiased(draws_of(program, 1.5, 20_000), jax.grad(exact)(1.5))


def test_independent_parts_are_not_followed():
    def program(rate, key):
        def step(x, key):
            return x + mcgrad.sample(key, mcgrad.Poisson(rate), mcgrad.MeasureValued(coupling="independent")), None

        return 1.0 * jax.lax.scan(step, 0, jax.random.split(key, 40))[0]

    with pytest.raises(NotImplementedError, match="the limit is 32 steps"):
        mcgrad.grad(program)(1.5, jax.random.key(0))


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


def test_alternative_path_is_first_order():
    program = functools.partial(bernoulli_chain, num_steps=3, estimator=SMOOTHED)
    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.hessian(mcgrad.expectation(program))(0.4, jax.random.key(0))
