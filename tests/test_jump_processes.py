"""Jump processes against their master equations, what is not complete, and a queue."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from jax.scipy.linalg import expm

import mcgrad

UP_DOWN = [[1.0], [-1.0]]


def draws_of(program, params, num_draws, seed=5):
    keys = jax.random.split(jax.random.key(seed), num_draws)
    gradient = mcgrad.value_and_grad(program)
    with jax.debug_key_reuse(False):
        return jax.jit(lambda keys: jax.lax.map(lambda key: gradient(params, key), keys, batch_size=2000))(keys)


def population(params, key, until=3.0, max_events=80, **options):
    """Births at a rate of their own, deaths at a rate a head."""

    def rates(x):
        return jnp.stack([jnp.exp(params[0]), jnp.exp(params[1]) * x[0]])

    x0 = jnp.zeros(1, params.dtype)
    return mcgrad.simulate(key, rates, UP_DOWN, x0, until=until, max_events=max_events, **options)


def population_exact(params, until=3.0):
    birth, death = jnp.exp(params)
    return birth / death * (1 - jnp.exp(-death * until))


BIRTH_DEATH = jnp.log(jnp.array([5.0, 1.0]))
BOUNDS = np.array([5.0, 22.0])  # births come at their bound


@pytest.mark.parametrize(("until", "num_draws"), [(0.7, 30_000), pytest.param(3.0, 150_000, marks=pytest.mark.slow)])
def test_births_and_deaths_event_by_event(until, num_draws):
    """The horizon has a derivative too: what the next event does, times its rate."""

    def program(params, key):
        return population(params[:2], key, params[2], 25 + 18 * int(until)).state[0]

    def exact(params):
        return population_exact(params[:2], params[2])

    params = jnp.append(BIRTH_DEATH, until)
    values, slopes = draws_of(program, params, num_draws)
    assert_unbiased(values, exact(params))
    assert_unbiased(slopes, jax.grad(exact)(params))


def test_births_and_deaths_by_thinning():
    """In single precision, and with a fraction of the variance of the score, which is 24 squared for the first parameter."""
    params = BIRTH_DEATH.astype(jnp.float32)
    program = lambda p, key: population(p, key, max_events=140, bounds=BOUNDS).state[0]  # noqa: E731
    values, slopes = draws_of(program, params, 15_000)
    assert values.dtype == slopes.dtype == jnp.float32
    np.testing.assert_allclose(population_exact(BIRTH_DEATH), 4.751, atol=1e-3)
    assert_unbiased(values, population_exact(BIRTH_DEATH))
    assert_unbiased(slopes, jax.grad(population_exact)(BIRTH_DEATH))
    assert np.std(slopes[:, 0]) < 13


@pytest.mark.slow
def test_the_score_of_births_and_deaths():
    score = {"times": mcgrad.Score(), "reactions": mcgrad.Score()}
    slopes = draws_of(lambda p, key: population(p, key, **score).state[0], BIRTH_DEATH, 100_000)[1]
    assert_unbiased(slopes, jax.grad(population_exact)(BIRTH_DEATH))
    assert np.std(slopes[:, 0]) > 20


HEADS, TIME = 8, 2.0
EPIDEMIC = jnp.array([2.0, 0.8])
INFECTION_RECOVERY = [[-1.0, 1.0], [0.0, -1.0]]


def epidemic(params, key, **options):
    """Susceptible and infected heads; how many were never infected, and how long all were ill."""

    def rates(x):
        return jnp.stack([params[0] * x[0] * x[1] / HEADS, params[1] * x[1]])

    options = {"max_events": 20, "running": lambda x: x[1]} | options
    end = mcgrad.simulate(key, rates, INFECTION_RECOVERY, [HEADS - 2.0, 2.0], until=TIME, **options)
    return end.state[0] - 0.25 * end.integral


def epidemic_exact(params):
    states = [(s, i) for s, i in itertools.product(range(HEADS + 1), repeat=2) if s + i <= HEADS]
    place = {state: n for n, state in enumerate(states)}
    # one more state gathers the integral of those infected
    infection, recovery, gathered = np.zeros((3, len(states) + 1, len(states) + 1))
    for (s, i), n in place.items():
        gathered[n, -1] = i
        if s and i:
            infection[n, [place[s - 1, i + 1], n]] = np.array([1, -1]) * s * i / HEADS
        if i:
            recovery[n, [place[s, i - 1], n]] = i, -i
    after = expm(TIME * (params[0] * infection + params[1] * recovery + gathered))[place[HEADS - 2, 2]]
    return after[:-1] @ np.array([s for s, _ in states]) - 0.25 * after[-1]


@pytest.mark.parametrize("bounds", [None, pytest.param((2.0 * HEADS / 4, 0.8 * HEADS), marks=pytest.mark.slow)])
def test_an_epidemic_that_may_die_out(bounds):
    program = epidemic
    if bounds is not None:
        program = functools.partial(epidemic, bounds=np.array(bounds) * 1.001, max_events=60)
    values, slopes = draws_of(program, EPIDEMIC, 30_000)
    exact, gradient = jax.jit(jax.value_and_grad(epidemic_exact))(EPIDEMIC)
    assert_unbiased(values, exact)
    assert_unbiased(slopes, gradient)


def test_what_is_not_complete_is_not_a_number():
    def of(params, **options):
        end = population(jnp.asarray(params), jax.random.key(0), **options)
        assert np.isnan(end.state[0]) == (not end.complete)
        return bool(end.complete)

    for options in ({}, {"bounds": BOUNDS, "max_events": 140}):
        assert of(BIRTH_DEATH, **options)
        assert not of(BIRTH_DEATH, **options | {"max_events": 5})
    assert not of(jnp.log(jnp.array([7.0, 1.0])), bounds=BOUNDS, max_events=140)
    negative = mcgrad.simulate(
        jax.random.key(0), lambda x: jnp.array([1.0, -0.1]), UP_DOWN, [0.0], until=1.0, max_events=20
    )
    assert not negative.complete
    nothing = mcgrad.simulate(
        jax.random.key(0), lambda x: 0 * jnp.array([x[0], 1.0]), UP_DOWN, [2.0], until=1.0, max_events=1,
        running=lambda x: x[0],
    )  # fmt: skip
    assert isinstance(nothing, mcgrad.Simulation)
    assert nothing.complete and nothing.state[0] == 2.0 and nothing.integral == 2.0
    gradient = mcgrad.grad(lambda p, key: population(p, key, max_events=5).state[0])(BIRTH_DEATH, jax.random.key(0))
    assert np.all(np.isnan(gradient))


def test_tau_leaping():
    """Against the mean of the approximation, which is linear in the state."""

    def program(params, key):
        rates = lambda x: jnp.stack([jnp.exp(params[0]), jnp.exp(params[1]) * x[0]])  # noqa: E731
        end = mcgrad.tau_leap(key, rates, UP_DOWN, [20.0], until=1.0, num_steps=10, running=lambda x: x[0])
        return end.state[0] + end.integral

    def exact(params):
        x, total = 20.0, 0.0
        for _ in range(10):
            total = total + 0.1 * x
            x = x + 0.1 * (jnp.exp(params[0]) - jnp.exp(params[1]) * x)
        return x + total

    params = jnp.log(jnp.array([15.0, 0.8]))
    values, slopes = draws_of(program, params, 8000)
    assert_unbiased(values, exact(params))
    assert_unbiased(slopes, jax.grad(exact)(params))


def queue(params, key, estimator):
    """Waiting times of customers, and how many are served before the end: gaps and services are sums of two stages each."""
    num, stages = 12, 2.0

    def customer(carry, keys):
        arrival, departure, count, waited = carry
        arrival = arrival + mcgrad.sample(keys[0], mcgrad.Gamma(stages, stages * jnp.exp(params[0])), estimator)
        begin = jnp.maximum(arrival, departure)
        departure = begin + mcgrad.sample(keys[1], mcgrad.Gamma(stages, stages * jnp.exp(params[1])), estimator)
        count = jnp.where(departure < 3.0, count + 1, count)
        return (arrival, departure, count, waited + begin - arrival), None

    keys = jax.random.split(key, (num, 2))
    _, _, served, waited = jax.lax.scan(customer, (0.0, 0.0, 0.0, 0.0), keys)[0]
    return served, waited


def served_exact(params):
    """By stages: customers in the system, the stage of the next gap, the stage of the service; and all that were served."""
    index = np.arange(12 * 4).reshape(12, 2, 2)
    arrivals, services = np.zeros((2, 49, 49))
    for n, gap, service in itertools.product(range(12), range(2), range(2)):
        here = index[n, gap, service]
        to = index[n, 1, service] if gap == 0 else index[min(n + 1, 11), 0, service]
        arrivals[here, here] -= 2
        arrivals[here, to] += 2
        if n:
            to = index[n, gap, 1] if service == 0 else index[n - 1, gap, 0]
            services[here, here] -= 2
            services[here, to] += 2
            services[here, 48] = 2 * service  # a customer is served at the end of the second stage
    rates = jnp.exp(params)
    return expm(3.0 * (rates[0] * arrivals + rates[1] * services))[index[0, 0, 0], 48]


@pytest.mark.slow
def test_customers_that_a_queue_serves():
    params = jnp.array([0.3, 0.4])
    boundary = mcgrad.PathwiseWithBoundary("right")
    values, slopes = draws_of(lambda p, key: queue(p, key, boundary)[0], params, 10_000)
    exact, gradient = jax.jit(jax.value_and_grad(served_exact))(params)
    assert_unbiased(values, exact)
    assert_unbiased(slopes, gradient)
    with pytest.warns(mcgrad.JumpWarning, match="jumps"):
        jax.eval_shape(mcgrad.grad(lambda p, key: queue(p, key, mcgrad.Pathwise())[0]), params, jax.random.key(0))


@pytest.mark.slow
def test_waiting_times_of_a_queue_are_right_along_the_path():
    """Against the score; there is no warning, since a maximum is continuous."""
    params = jnp.array([0.3, 0.4])
    of = {
        name: draws_of(lambda p, key, estimator=estimator: queue(p, key, estimator)[1], params, number)[1]
        for name, estimator, number in (("path", mcgrad.Pathwise(), 4000), ("score", mcgrad.Score(), 40_000))
    }
    mean, error = (
        np.asarray([f(x, axis=0) for x in of.values()]) for f in (np.mean, lambda x, axis: x.std(axis) / len(x) ** 0.5)
    )
    assert np.all(np.abs(mean[0] - mean[1]) < 4 * np.hypot(*error))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": 3.0}, r"simulate\(rates=...\)` must be a function"),
        (
            {"rates": lambda x: x},
            r"simulate\(rates=...\)` must return a floating-point rate for each of the 2 reactions",
        ),
        ({"changes": [1.0, -1.0]}, r"simulate\(changes=..., x0=...\)` must be of shapes"),
        ({"until": 0.0}, r"simulate\(until=...\)` must be a positive number, got 0.0"),
        ({"until": [1.0, 2.0]}, r"simulate\(until=...\)` must be a positive number, got shape"),
        ({"max_events": 0}, r"simulate\(max_events=...\)` must be a positive int"),
        ({"bounds": [1.0]}, r"simulate\(bounds=...\)` must be 2 positive numbers"),
        ({"bounds": [1.0, 0.0]}, r"simulate\(bounds=...\)` must be 2 positive numbers"),
        ({"key": 3}, r"simulate\(key=...\)` must be a key"),
    ],
)
def test_refusals(change, message):
    given = {
        "key": jax.random.key(0),
        "rates": lambda x: jnp.stack([1.0, x[0]]),
        "changes": UP_DOWN,
        "x0": [0.0],
        "until": 1.0,
        "max_events": 10,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        mcgrad.simulate(**given | change)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=["event by event", "thinning"])
def test_one_simulation_after_another_is_one_simulation(bounds):
    def program(params, key):
        rates = lambda x: jnp.stack([jnp.exp(params[0]), jnp.exp(params[1]) * x[0]])  # noqa: E731
        x = jnp.zeros(1)
        for here in jax.random.split(key):
            x = mcgrad.simulate(here, rates, UP_DOWN, x, until=0.5, max_events=50, bounds=bounds).state
        return x[0]

    slopes = draws_of(program, BIRTH_DEATH, 40_000)[1]
    assert_unbiased(slopes, jax.grad(functools.partial(population_exact, until=1.0))(BIRTH_DEATH))
