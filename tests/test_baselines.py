"""Baselines that learn: unbiased at every step, of every order, and fitted to what is subtracted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from programs.program import expect_bernoulli

import mcgrad

STATES = jnp.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def cost(b):
    return (b @ jnp.asarray([1.0, -1.7]) + 4.0) ** 2


def expected_cost(logits):
    return expect_bernoulli(logits, cost)


LOGITS = jnp.asarray([0.3, -0.6])


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_a_moving_average_is_unbiased_in_every_step(num_samples):
    """Over all histories, at steps one to three, with the derivative of second order."""
    average = mcgrad.moving_average(0.6)

    def loss(logits, baseline, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score(baseline))
        return cost(b.astype(logits.dtype))

    expected = mcgrad.expectation(loss, num_samples=num_samples)

    def step(state, key):
        value, gradient = jax.value_and_grad(expected)(LOGITS, state.mean, key)
        return average.update(value, state), (gradient, jax.hessian(expected)(LOGITS, state.mean, key))

    def training(key):
        return jax.lax.scan(step, average.init(), jax.random.split(key, 3))[1]

    with jax.debug_key_reuse(False):
        gradients, hessians = jax.jit(jax.vmap(training))(jax.random.split(jax.random.key(num_samples), 60_000))
    for t in range(1, 3):  # without a baseline, at the first step, there is little to see for so few draws
        assert_unbiased(gradients[:, t], jax.grad(expected_cost)(LOGITS))
        assert_unbiased(hessians[:, t], jax.hessian(expected_cost)(LOGITS))
    assert jnp.var(gradients[:, 2]) < 0.5 * jnp.var(gradients[:, 0])


def test_the_mean_of_a_moving_average():
    average = mcgrad.moving_average(0.9)
    state = average.init((2,))
    np.testing.assert_array_equal(state.mean, 0)
    for value in ([1.0, 5.0], [2.0, 5.0], [4.0, 5.0]):
        state = average.update(jnp.asarray(value), state)
    np.testing.assert_allclose(state.mean, [(0.81 + 1.8 + 4) / 2.71, 5.0], rtol=1e-6)
    of_last = mcgrad.moving_average(0.0)
    assert float(of_last.update(3.0, of_last.update(2.0, of_last.init())).mean) == 3.0
    tangent = jax.grad(lambda v: average.update(v, average.init()).mean)(1.0)
    assert tangent == 0.0


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_a_fitted_baseline_changes_no_other_derivative(num_samples):
    params = {"logits": LOGITS, "critic": jnp.asarray([18.0, 3.0])}

    def loss(params, key):
        baseline = mcgrad.fitted(params["critic"][0] + params["critic"][1] * jnp.asarray([0.0, 1.0]))
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params["logits"]), mcgrad.Score(baseline))
        return -cost(b.astype(params["logits"].dtype))  # whose sign may be split off

    surrogate = mcgrad.expectation(loss, num_samples=num_samples)

    def of_key(key):
        value, gradient = jax.value_and_grad(surrogate)(params, key)
        second = jax.hessian(lambda logits: surrogate({**params, "logits": logits}, key))(LOGITS)
        return value, gradient, second

    with jax.debug_key_reuse(False):
        value, gradient, hessian = jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(0), 100_000))
    assert_unbiased(value, -expected_cost(LOGITS))
    assert_unbiased(gradient["logits"], -jax.grad(expected_cost)(LOGITS))
    assert_unbiased(hessian, -jax.hessian(expected_cost)(LOGITS))
    # that of the squared error, in units in which the baseline is subtracted: those of the output, or of its negative
    with_one_sign, with_other = [
        jax.grad(
            lambda c, s=s: (
                (s * expected_cost(LOGITS) - c[0]) ** 2 / 2 + (s * expected_cost(LOGITS) - c[0] - c[1]) ** 2 / 2
            )
        )(params["critic"])
        for s in (1, -1)
    ]
    found = jnp.mean(gradient["critic"], axis=0)
    assert min(jnp.max(jnp.abs(found - exact)) for exact in (with_one_sign, with_other)) < 0.2


# A walk with a discount, written in four ways: the critic must learn to take the variance away, whatever the units are.
GAMMA, STEPS = 0.9, 6


def walk(params, key, ending, beside=None):
    def step(state, inputs):
        t, key = inputs
        if beside is not None:  # which needs the rest of the program, so that the steps become part of it
            key, key_beside = jax.random.split(key)
            state += 0.0 * mcgrad.sample(key_beside, mcgrad.Bernoulli(logits=params["logits"]), beside)
        baseline = mcgrad.fitted(params["critic"][t, 0] + params["critic"][t, 1] * state)
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params["logits"] + 0.2 * state), mcgrad.Score(baseline))
        state = 0.8 * state + b
        return state, 5.0 + state

    _, rewards = jax.lax.scan(step, 0.0, (jnp.arange(STEPS), jax.random.split(key, STEPS)))
    return ending(rewards)


ENDINGS = {
    "costs": lambda r: jnp.sum(GAMMA ** jnp.arange(STEPS) * r),
    "rewards": lambda r: -jnp.sum(GAMMA ** jnp.arange(STEPS) * r),
    "scaled": lambda r: jnp.mean(r) * 0.1,
    "discounted costs": lambda r: -jnp.sum((GAMMA ** jnp.arange(STEPS) * r) ** 2) / 10,
}


@pytest.mark.parametrize(
    "ending", ["rewards", *(pytest.param(n, marks=pytest.mark.slow) for n in ENDINGS if n != "rewards")]
)
def test_a_critic_in_a_loop_learns_in_the_units_of_the_output(ending):
    loss = lambda params, key: walk(params, key, ENDINGS[ending])  # noqa: E731
    gradient = mcgrad.grad(loss)
    params = {"logits": jnp.asarray(0.2), "critic": jnp.zeros((STEPS, 2))}

    def batch(params, key, number):
        return jax.vmap(gradient, (None, 0))(params, jax.random.split(key, number))

    def fit(critic, key):
        found = batch({**params, "critic": critic}, key, 64)["critic"].mean(0)
        return critic - 0.1 * found / jnp.maximum(jnp.std(found), 1e-9), None

    @jax.jit
    def learned(key):
        key_fit, key_before, key_after = jax.random.split(key, 3)
        critic, _ = jax.lax.scan(fit, params["critic"], jax.random.split(key_fit, 1500))
        before = batch(params, key_before, 4000)["logits"]
        return before, batch({**params, "critic": critic}, key_after, 4000)["logits"]

    before, after = learned(jax.random.key(1))
    assert jnp.var(after) < 0.1 * jnp.var(before)
    error = jnp.sqrt(jnp.var(before) / 4000 + jnp.var(after) / 4000)
    assert jnp.abs(jnp.mean(before) - jnp.mean(after)) < 5 * error


@pytest.mark.slow
def test_a_loop_that_is_unrolled_fits_the_same():
    params = {"logits": jnp.asarray(0.2), "critic": jnp.ones((STEPS, 2))}

    def means(beside, number):
        loss = lambda params, key: walk(params, key, ENDINGS["rewards"], beside)  # noqa: E731
        keys = jax.random.split(jax.random.key(2), number)
        found = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(params, keys)["critic"]
        return jnp.mean(found, axis=0), jnp.std(found, axis=0) / jnp.sqrt(number)

    with jax.debug_key_reuse(False):
        (one, error), (other, further) = means(None, 20_000), means(mcgrad.DisARM(), 5000)
    np.testing.assert_array_less(jnp.abs(one - other), 5 * jnp.hypot(error, further) + 1e-12)


def test_refusals():
    for decay, kind in (
        (1.0, ValueError),
        (-0.1, ValueError),
        (float("nan"), ValueError),
        ("0.9", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(kind, match=r"`mcgrad.moving_average\(decay=...\)` must be"):
            mcgrad.moving_average(decay)
    average = mcgrad.moving_average(0.5)
    with pytest.raises(ValueError, match=r"value of shape \(\), got \(3,\)"):
        average.update(jnp.zeros(3), average.init())
    for value in ("critic", 3, jnp.arange(3), None):
        with pytest.raises(TypeError, match=r"`mcgrad.fitted\(value=...\)` must be a floating-point array"):
            mcgrad.fitted(value)
    with pytest.raises(ValueError, match="must come with one sample of the draw"):
        mcgrad.Score(mcgrad.fitted(1.0), num_samples=2)

    def loss(p, key):
        return 3.0 * mcgrad.sample(key, mcgrad.Normal(p, 1.0), mcgrad.Score(mcgrad.fitted(jnp.zeros(3))))

    with pytest.raises(ValueError, match="baseline.*broadcasts"):
        mcgrad.grad(loss)(0.5, jax.random.key(0))
