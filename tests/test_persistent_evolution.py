"""Evolution strategies along long episodes: against exact gradients, with ends inside of windows, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

METHODS = ("persistent", "noise_reuse")


def chain(length, noise=0.0):
    """`x <- 0.9 x + theta + noise`, cost `x^2`: quadratic, so that smoothing changes no gradient."""

    def step(theta, state, key):
        x, t = state
        x = 0.9 * x + theta + noise * jax.random.normal(key)
        return (x, t + 1), x**2, t == length - 1

    return step, lambda key: (0.0, 0)


def exact(theta, length):
    """The gradient of the mean loss of a step."""

    def loss(theta):
        x = total = 0.0
        for _ in range(length):
            x = 0.9 * x + theta
            total = total + x**2
        return total / length

    return jax.grad(loss)(theta)


def gradients(step, reset, theta, num_updates, num_runs, **options):
    """The gradient and the loss of each update, `[num_runs, num_updates]`."""
    online = mcgrad.persistent_evolution(step, reset, **options)

    def run(key):
        key_init, key_updates = jax.random.split(key)

        def update(state, key):
            loss, gradient, state = online.update(theta, state, key)
            return state, (gradient, loss)

        return jax.lax.scan(update, online.init(theta, key_init), jax.random.split(key_updates, num_updates))[1]

    with jax.debug_key_reuse(False):
        return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_runs))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("window", [10, 7])
def test_a_hundred_steps_with_restarts(method, window):
    """With a window of 7 steps all of 7 episodes end inside of one but the last."""
    num_updates = 100 if window == 7 else 10
    options = {"scale": 0.1, "num_pairs": 10, "window": window, "method": method}
    found = gradients(*chain(100), 0.3, num_updates, 1000, **options)[0]
    assert_unbiased(jnp.mean(found, axis=1), exact(0.3, 100))


@pytest.mark.parametrize("method", METHODS)
def test_noisy_episodes(method):
    options = {"scale": 0.1, "num_pairs": 20, "window": 5, "method": method}
    found, losses = gradients(*chain(20, noise=0.5), 0.3, 4, 1000, **options)
    assert_unbiased(jnp.mean(found, axis=1), exact(0.3, 20))
    assert np.all(losses > 0)


def test_truncation_is_biased_and_reused_noise_has_the_least_variance_in_an_update():
    options = {"scale": 0.1, "num_pairs": 20, "window": 5}
    found = {m: gradients(*chain(20), 0.3, 4, 1000, method=m, **options)[0] for m in (*METHODS, "truncated")}
    assert np.mean(found["truncated"]) < 0.6 * exact(0.3, 20)
    of_update = {method: np.mean(np.var(each, axis=0)) for method, each in found.items()}
    assert of_update["noise_reuse"] < 0.9 * of_update["persistent"]


def test_episodes_that_end_with_the_state_of_each_side():
    """In a window as long as the longer of both sides, the losses of each side count until its own end."""
    scale = 0.1

    def step(theta, x, key):
        return x + 1, jnp.cos(x + theta), x + 1 + 10 * theta > 3

    def losses(theta):
        total, length = 0.0, 0
        while length == 0 or length + 10 * theta <= 3:
            total, length = total + np.cos(length + theta), length + 1
        return total, length

    for seed in range(5):
        key_init, key_update = jax.random.split(jax.random.key(seed))
        options = {"scale": scale, "num_pairs": 1, "method": "noise_reuse"}
        state = mcgrad.persistent_evolution(step, lambda key: 0.0, window=1, **options).init(0.0, key_init)
        e = float(state.noise[0, 0])
        (above, steps_above), (below, steps_below) = losses(scale * e), losses(-scale * e)
        window = max(steps_above, steps_below)
        online = mcgrad.persistent_evolution(step, lambda key: 0.0, window=window, **options)
        loss, gradient, after = online.update(0.0, state, key_update)
        assert steps_above != steps_below
        np.testing.assert_allclose(gradient, e * (above - below) / (2 * scale) / window, rtol=1e-10)
        np.testing.assert_allclose(loss, (above + below) / (steps_above + steps_below), rtol=1e-10)
        assert not np.any(after.ended)
        np.testing.assert_array_equal(after.states[0], 0.0)
        assert after.noise[0, 0] != e


def test_parameters_of_any_structure_in_single_precision():
    def step(params, state, key):
        state = state + params["a"].sum() + params["b"]
        return state, state**2, state > 100

    params = {"a": jnp.ones(3, jnp.float32), "b": jnp.float32(0.5)}
    online = mcgrad.persistent_evolution(step, lambda key: jnp.zeros((), jnp.float32), scale=0.1, num_pairs=4, window=3)
    loss, gradient, state = jax.jit(online.update)(params, online.init(params, jax.random.key(0)), jax.random.key(1))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), gradient) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )
    assert loss.dtype == jnp.float32
    assert state.states.shape == (4, 2)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scale": 0.0}, "scale"),
        ({"num_pairs": 0}, "num_pairs"),
        ({"window": 0}, "window"),
        ({"method": "pes"}, "method"),
    ],
)
def test_what_is_refused(options, name):
    with pytest.raises(ValueError, match=rf"`mcgrad.persistent_evolution\({name}=...\)` must"):
        mcgrad.persistent_evolution(*chain(10), **({"scale": 0.1, "num_pairs": 2, "window": 2} | options))


def test_a_key_is_asked_for():
    online = mcgrad.persistent_evolution(*chain(10), scale=0.1, num_pairs=2, window=2)
    with pytest.raises(TypeError, match="must be a key"):
        online.init(0.3, 0)
    with pytest.raises(TypeError, match="must be a key"):
        online.update(0.3, online.init(0.3, jax.random.key(0)), 0)


def test_states_of_any_structure_with_keys_and_counts():
    def step(theta, state, key):
        own, draw = jax.random.split(state["key"])
        x = 0.5 * state["x"] + theta + jax.random.normal(draw, (3,))
        return {"key": own, "x": x, "t": state["t"] + 1}, jnp.mean(x**2), state["t"] == 3

    reset = lambda key: {"key": key, "x": jnp.zeros(3), "t": 0}  # noqa: E731
    with jax.debug_key_reuse(False):
        found, _ = gradients(step, reset, 0.3, 2, 4000, scale=0.1, num_pairs=4, window=2)
    theta_sums = sum((2 - 0.5**t) ** 2 for t in range(4))  # of E[x^2] = (theta (2 - 0.5^t))^2 + a constant
    assert_unbiased(jnp.mean(found, axis=1), jnp.asarray(2 * 0.3 * theta_sums / 4))


def test_what_a_step_must_return():
    def init(step, params=0.3):
        options = {"scale": 0.1, "num_pairs": 2, "window": 2}
        return mcgrad.persistent_evolution(step, lambda key: 0.0, **options).init(params, jax.random.key(0))

    with pytest.raises(TypeError, match="must get floating-point parameters, got int"):
        init(lambda theta, x, key: (x, x, x > 1), 3)
    with pytest.raises(
        ValueError, match="must return the next state, the loss and whether the episode ends, got one array"
    ):
        init(lambda theta, x, key: x)
    with pytest.raises(ValueError, match="must return a state like that of `reset`"):
        init(lambda theta, x, key: (x[None], x, x > 1))
    with pytest.raises(TypeError, match="a loss that is one floating-point number, got int"):
        init(lambda theta, x, key: (x, 1, x > 1))
    with pytest.raises(TypeError, match=r"an end that is one boolean, got float64\[\]"):
        init(lambda theta, x, key: (x, x, x))


def test_it_has_no_derivative():
    online = mcgrad.persistent_evolution(*chain(10), scale=0.1, num_pairs=2, window=2)
    state = online.init(0.3, jax.random.key(0))
    for part in (0, 1):
        with pytest.raises(NotImplementedError, match="derivative of a black-box gradient"):
            jax.grad(lambda theta, part=part: online.update(theta, state, jax.random.key(1))[part])(0.3)
