"""Programs whose path is blind, by the default estimator: counts, cut derivatives, searches, signs, against exact values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

T = 0.3
LINE = jnp.linspace(-9.0, 9.0, 40_001)


def normal(t: Any, key: Any) -> Any:
    return mcgrad.sample(key, mcgrad.Normal(t, 1.0))


def mean(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`E[fn(x)]` for a normal `x`, by quadrature."""
    return lambda t: jnp.trapezoid(fn(LINE) * jax.scipy.stats.norm.pdf(LINE - t), LINE)


def below(t: Any) -> Any:
    return jax.scipy.stats.norm.cdf(1.0 - t)


def keys(key: Any) -> Any:
    return jax.random.split(key, 3)


def counted(t: Any, key: Any) -> Any:
    return jax.lax.scan(lambda n, key: (n + (normal(t, key) > 1.0), None), 0, keys(key))[0] * 1.0


def counted_by_a_branch(t: Any, key: Any) -> Any:
    def step(i: Any, n: Any) -> Any:
        return jax.lax.cond(normal(t, jax.random.fold_in(key, i)) > 1.0, lambda n: n + 1.0, lambda n: n, n)

    return jax.lax.fori_loop(0, 3, step, 0.0)


def survived(t: Any, key: Any) -> Any:
    return jnp.where(jax.lax.scan(lambda a, key: (a & (normal(t, key) < 1.0), None), True, keys(key))[0], 2.0, 0.0)


def held(t: Any, key: Any) -> Any:
    return jax.lax.stop_gradient(normal(t, key)) ** 2


@jax.custom_jvp
def without_derivative(x: Any) -> Any:
    return x**2


without_derivative.defjvp(lambda primals, tangents: (primals[0] ** 2, jnp.zeros_like(primals[0])))


@jax.custom_vjp
def without_cotangent(x: Any) -> Any:
    return x**2


without_cotangent.defvjp(lambda x: (x**2, None), lambda _, g: (jnp.zeros_like(g),))


def environment(t: Any, key: Any) -> Any:
    def step(state: Any, key: Any) -> Any:
        state = jax.lax.stop_gradient(0.5 * state + normal(t, key))
        return state, state

    return jax.lax.scan(step, 0.0, keys(key))[1].sum()


TABLE = jnp.array([0.0, 3.0, 1.0])
EDGES = jnp.array([-0.5, 1.0])


def table(x: Any) -> Any:
    return TABLE[jnp.searchsorted(EDGES, x)]


def digits(x: Any) -> Any:
    return 1.0 * jnp.digitize(x, EDGES) ** 2


def rank(t: Any, key: Any) -> Any:
    x = jnp.stack([normal(t, key), jnp.asarray(0.0), jnp.asarray(1.0)])
    return 1.0 * jnp.argsort(jnp.argsort(x))[0]


def whole(x: Any) -> Any:
    return jnp.trunc(2 * x).astype(int) * 1.0


def far_steps(x: Any) -> Any:
    return jnp.maximum(jnp.floor(2 * x) - 1.0, 0.0)


def rewarded_at_the_end(t: Any, key: Any) -> Any:
    def step(x: Any, inputs: Any) -> Any:
        i, key = inputs
        x = x + normal(t, key)
        return x, jnp.where(i == 19, jnp.where(x > 5, 1.0, 0.0), 0.0)

    return jax.lax.scan(step, 0.0, (jnp.arange(20), jax.random.split(key, 20)))[1].sum()


def rewarded_at_times(t: Any, key: Any) -> Any:
    def step(total: Any, inputs: Any) -> Any:
        i, key = inputs
        return total + jnp.where(i % 5 == 4, jnp.where(normal(t, key) > 1.0, 1.0, 0.0), 0.0), None

    return jax.lax.scan(step, 0.0, (jnp.arange(10), jax.random.split(key, 10)))[0]


def far_away(t: Any, key: Any) -> Any:
    return jnp.where(mcgrad.sample(key, mcgrad.Normal(5e4 + 1e4 * t, 1e4)) > 6e4, 2.0, 0.0)


def beside_a_large_cost(t: Any, key: Any) -> Any:
    return jnp.stack([1e5 * jnp.cos(t), jnp.where(normal(t, key) > 1.0, 1.0, 0.0)]).sum() - 1e5 * jnp.cos(t)


def of_small_steps(t: Any, key: Any) -> Any:
    return 200.0 * (5e3 + 1.0 * (normal(t, key) > 1.0)) - 1e6


def finite_by_other_draws(t: Any, key: Any) -> Any:
    of_x, of_y, of_z = jax.random.split(key, 3)
    y = mcgrad.sample(of_y, mcgrad.Beta(2.0 * jnp.ones(4), 3.0))
    z = mcgrad.sample(of_z, mcgrad.Gamma(2.0 * jnp.ones(4), 1.0))
    return jnp.where(normal(t, of_x) > 1.0, jnp.sum(jnp.log1p(-y) - jnp.log(z) * jnp.sqrt(y)), 5.0)


def mean_of_finite() -> Any:
    digamma = jax.scipy.special.digamma
    root = jnp.exp(jax.scipy.special.betaln(2.5, 3.0) - jax.scipy.special.betaln(2.0, 3.0))
    return 4 * (digamma(3.0) - digamma(5.0) - digamma(2.0) * root)


PROGRAMS = {
    "beside a large cost": (beside_a_large_cost, lambda t: 1 - below(t)),
    "one more of many": (of_small_steps, lambda t: 200 * (1 - below(t))),
    "finite by other draws": (finite_by_other_draws, lambda t: 5 * below(t) + mean_of_finite() * (1 - below(t))),
    "a reward at the last step": (rewarded_at_the_end, lambda t: jax.scipy.stats.norm.sf(5.0, 20 * t, 20**0.5)),
    "a reward at some steps": (rewarded_at_times, lambda t: 2 * (1 - below(t))),
    "a threshold far away": (far_away, lambda t: 2 * (1 - below(t))),
    "events counted": (counted, lambda t: 3 * (1 - below(t))),
    "events counted by a branch": (counted_by_a_branch, lambda t: 3 * (1 - below(t))),
    "a flag that is carried": (survived, lambda t: 2 * below(t) ** 3),
    "a draw that is held": (held, mean(jnp.square)),
    "a rule without a derivative": (lambda t, key: without_derivative(normal(t, key)), mean(jnp.square)),
    "a rule without a cotangent": (lambda t, key: without_cotangent(normal(t, key)), mean(jnp.square)),
    "an environment that stops derivatives": (environment, lambda t: 4.25 * t),
    "a search and a table": (lambda t, key: table(normal(t, key)), mean(table)),
    "digits": (lambda t, key: digits(normal(t, key)), mean(digits)),
    "a rank": (rank, mean(lambda x: (x > 0) * 1.0 + (x > 1) * 1.0)),
    "whole numbers": (lambda t, key: whole(normal(t, key)), mean(whole)),
    "steps above a threshold": (lambda t, key: far_steps(normal(t, key)), mean(far_steps)),
    "a sign": (lambda t, key: jnp.sign(normal(t, key)) * 2.0, mean(lambda x: 2 * jnp.sign(x))),
    "a copied sign": (lambda t, key: jnp.copysign(1.5, normal(t, key)), mean(lambda x: 1.5 * jnp.sign(x))),
    "a sign bit": (lambda t, key: 1.0 - jnp.signbit(normal(t, key)), mean(lambda x: (x > 0) * 1.0)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_default_is_right_where_a_path_is_blind(name: str) -> None:
    program, expected = PROGRAMS[name]
    draws = jax.jit(jax.vmap(mcgrad.value_and_grad(program), (None, 0)))(
        T, jax.random.split(jax.random.key(0), 200_000)
    )
    for found, exact in zip(draws, jax.value_and_grad(expected)(T), strict=True):
        assert_unbiased(found, np.asarray(exact))


THRESHOLDS = {
    "uniform": (lambda t, key: 1.0 * (mcgrad.sample(key, mcgrad.Uniform(0.0, 1.0)) < t), lambda t: t),
    "exponential": (
        lambda t, key: jnp.where(mcgrad.sample(key, mcgrad.Exponential(1.0)) > t, 2.0, 0.0),
        lambda t: 2 * jnp.exp(-t),
    ),
    "normal": (
        lambda t, key: 1.0 * (mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)) + t > 1.0) * t,
        lambda t: t * (1 - below(t)),
    ),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_an_estimator_of_the_whole_program_reaches_draws_from_constant_distributions(name: str) -> None:
    program, expected = THRESHOLDS[name]
    gradient = mcgrad.value_and_grad(program, estimator=mcgrad.PathwiseWithBoundary())
    draws = jax.jit(jax.vmap(gradient, (None, 0)))(T, jax.random.split(jax.random.key(0), 20_000))
    for found, exact in zip(draws, jax.value_and_grad(expected)(T), strict=True):
        np.testing.assert_allclose(found.mean(), exact, atol=5 * found.std() / len(found) ** 0.5 + 1e-6)


RAW = {
    "bernoulli": lambda t, key: 1.0 * jax.random.bernoulli(key, t),
    "categorical": lambda t, key: 1.0 * jax.random.categorical(key, t * jnp.arange(3.0)),
    "a comparison of uniform numbers": lambda t, key: jnp.where(jax.random.uniform(key) < t, 1.0, 0.0),
    "choice": lambda t, key: 1.0 * jax.random.choice(key, 2, p=jnp.stack([t, 1.0 - t])),
    "a search": lambda t, key: 1.0 * jnp.searchsorted(jnp.stack([0.0, t]), jax.random.uniform(key)),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_draws_that_move_with_a_parameter_are_warned_of(name: str) -> None:
    with pytest.warns(mcgrad.JumpWarning, match=r"at .*test_blind_ways.py:\d+.* moves with what is differentiated"):
        mcgrad.grad(RAW[name])(T, jax.random.key(0))


def test_raw_draws_that_do_not_are_silent() -> None:
    def program(t: Any, key: Any) -> Any:
        dropout, noise, sign = jax.random.split(key, 3)
        kept = jax.random.bernoulli(dropout, 0.8, (3,))
        return jnp.sum(kept * t * 2.0) + jax.random.normal(noise) * t + jax.random.rademacher(sign) * t

    assert np.isfinite(mcgrad.grad(program)(T, jax.random.key(0)))
