"""Particle filters against sums over every path of a small model, and against Kalman's filter."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad
from mcgrad import smc

CHAIN = jnp.array([0, 1, 1])
"""Observations of a chain of two states."""


def chain_model(t: Any) -> smc.Model:
    """States 0 and 1, as floats; the parameter is in everything."""
    bit = lambda logits: mcgrad.Bernoulli(logits=logits, dtype=float)  # noqa: E731
    chance = lambda x: jax.nn.sigmoid((2 * x - 1) * (1.0 + t) + 0.3 * t)  # noqa: E731
    return smc.Model(
        bit(0.4 * t),
        lambda x: bit(1.5 * x - 0.7 + t),
        lambda x, y: jnp.log(jnp.where(y == 1, chance(x), 1 - chance(x))),
    )


def chain_likelihood(t: Any) -> Any:
    """By a sum over all paths."""
    model, total = chain_model(t), 0.0
    for path in itertools.product([0.0, 1.0], repeat=len(CHAIN)):
        x = jnp.array(path)
        moves = model.transition(x[:-1]).log_prob(x[1:])
        seen = jax.vmap(model.log_observation)(x, CHAIN)
        total += jnp.exp(model.initial.log_prob(x[0]) + jnp.sum(moves) + jnp.sum(seen))
    return total


@pytest.mark.parametrize(
    ("gradient", "resampling"),
    [
        ("stop_gradient", mcgrad.Residual),
        pytest.param("stop_gradient", mcgrad.Systematic, marks=pytest.mark.slow),
        pytest.param("marginal", mcgrad.Stratified, marks=pytest.mark.slow),
        pytest.param(mcgrad.Score(), mcgrad.WithReplacement, marks=pytest.mark.slow),
    ],
)
def test_the_likelihood_of_a_discrete_model_is_unbiased_to_the_second_order(gradient: Any, resampling: Any) -> None:
    def likelihood(t: Any, key: Any) -> Any:
        found = smc.bootstrap_filter(
            chain_model(t), CHAIN, key, num_particles=3, gradient=gradient, resampling=resampling
        )
        return jnp.exp(found.log_likelihood)

    expectation = mcgrad.expectation(likelihood)
    first = jax.grad(expectation)
    orders = lambda key: (expectation(0.3, key), first(0.3, key), jax.grad(first)(0.3, key))  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 200_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(lambda keys: jax.lax.map(orders, keys, batch_size=20_000))(keys)
    exact = chain_likelihood
    assert_unbiased(draws, (exact(0.3), jax.grad(exact)(0.3), jax.grad(jax.grad(exact))(0.3)))


A, PROCESS, OBSERVED = jnp.array([[0.9, 0.2], [-0.1, 0.8]]), 0.5, 0.7
Y = jnp.asarray(np.random.default_rng(3).normal(size=(20, 2)) * [1.2, 0.9])
THETA = jnp.array([1.0, 0.0, 0.0])


def linear_model(theta: Any, *, normal: Any = mcgrad.MultivariateNormal) -> smc.Model:
    process, observed = jnp.exp(theta[1]) * PROCESS * jnp.eye(2), jnp.exp(theta[2]) * OBSERVED * jnp.eye(2)
    return smc.Model(
        normal(jnp.zeros(2), scale_tril=jnp.eye(2)),
        lambda x: normal(theta[0] * x @ A.T, scale_tril=process),
        lambda x, y: mcgrad.MultivariateNormal(x, scale_tril=observed).log_prob(y),
    )


def optimal(theta: Any) -> smc.Proposal:
    """The distribution of the next state given the observation, at a scale that is a little larger."""
    q, r = (jnp.exp(theta[1]) * PROCESS) ** 2, (jnp.exp(theta[2]) * OBSERVED) ** 2
    gain = lambda p: p / (p + r)  # noqa: E731
    draw = lambda loc, p: mcgrad.MultivariateNormal(loc, scale_tril=1.1 * jnp.sqrt(p * (1 - gain(p))) * jnp.eye(2))  # noqa: E731
    return smc.Proposal(
        lambda y: draw(gain(1.0) * y, 1.0),
        lambda x, y: draw((mean := theta[0] * x @ A.T) + gain(q) * (y[None] - mean), q),
    )


def kalman(theta: Any, y: Any = Y) -> Any:
    """The log likelihood."""
    process, observed = ((jnp.exp(theta[i]) * scale) ** 2 * jnp.eye(2) for i, scale in ((1, PROCESS), (2, OBSERVED)))
    mean, covariance, total = jnp.zeros(2), jnp.eye(2), 0.0
    for t in range(len(y)):
        if t:
            mean, covariance = theta[0] * A @ mean, theta[0] ** 2 * A @ covariance @ A.T + process
        total += jax.scipy.stats.multivariate_normal.logpdf(y[t], mean, covariance + observed)
        gain = covariance @ jnp.linalg.inv(covariance + observed)
        mean, covariance = mean + gain @ (y[t] - mean), covariance - gain @ covariance
    return total


def filtered(theta: Any, key: Any, *, guided: bool, y: Any = Y, **options: Any) -> smc.Filtered:
    model = linear_model(theta)
    if guided:
        return smc.guided_filter(model, optimal(theta), y, key, **options)
    return smc.bootstrap_filter(model, y, key, **options)


def gradients(count: int, **options: Any) -> tuple[Any, Any]:
    """`Z` over the exact likelihood and its gradient, of many runs."""
    exact = kalman(THETA, options.get("y", Y))

    def likelihood(theta: Any, key: Any) -> Any:
        return jnp.exp(filtered(theta, key, **options).log_likelihood - exact)

    run = jax.jit(
        lambda keys: jax.lax.map(lambda key: mcgrad.value_and_grad(likelihood)(THETA, key), keys, batch_size=4)
    )
    with jax.debug_key_reuse(False):
        return run(jax.random.split(jax.random.key(1), count))


@pytest.mark.parametrize("guided", [pytest.param(False, marks=pytest.mark.slow), True], ids=["bootstrap", "guided"])
def test_a_filter_and_kalmans(guided: bool) -> None:
    """With few observations and particles, so that many runs are cheap; the biased form is off."""
    short = {"y": Y[:5], "num_particles": 50, "guided": guided}
    exact = jax.grad(kalman)(THETA, Y[:5])
    assert_unbiased(gradients(4000, gradient="stop_gradient", **short), (jnp.ones(()), exact))
    _, ignoring = gradients(4000, gradient="ignore", **short)
    off = (ignoring.mean(0) - exact) / (ignoring.std(0) / np.sqrt(len(ignoring)))
    assert abs(off).max() > 20


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, True], ids=["bootstrap", "guided"])
def test_a_thousand_particles_and_kalmans(guided: bool) -> None:
    """Twenty steps in two dimensions: the gradient of the likelihood, and its biased form."""
    exact = jax.grad(kalman)(THETA)
    found = {
        how: gradients(400, gradient=how, num_particles=1000, guided=guided) for how in ("stop_gradient", "ignore")
    }
    z = {
        how: (draws.mean(0) - exact) / (draws.std(0, ddof=1) / np.sqrt(len(draws))) for how, (_, draws) in found.items()
    }
    assert abs(z["stop_gradient"]).max() < 4 < 10 < abs(z["ignore"]).max()


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, True], ids=["bootstrap", "guided"])
def test_the_marginal_form_and_kalmans(guided: bool) -> None:
    short = {"y": Y[:5], "num_particles": 30, "guided": guided}
    draws = gradients(16_000, gradient="marginal", **short)
    assert_unbiased(draws, (jnp.ones(()), jax.grad(kalman)(THETA, Y[:5])))


def test_plain_jax_is_refused_and_vmap_maps_filters() -> None:
    keys = jax.random.split(jax.random.key(0), 2)

    def log_likelihood(theta: Any, key: Any) -> Any:
        found = filtered(theta, key, guided=False, y=Y[:3], num_particles=7, gradient="stop_gradient")
        assert [jnp.shape(part) for part in found] == [(), (3,), (3, 7, 2), (3, 7)]
        return found.log_likelihood

    with jax.debug_key_reuse(False):
        mapped = jax.jit(jax.vmap(mcgrad.grad(log_likelihood), (None, 0)))(THETA, keys)
        np.testing.assert_allclose(mapped[1], jax.jit(mcgrad.grad(log_likelihood))(THETA, keys[1]), rtol=1e-6)
        with pytest.raises(TypeError, match="JAX by itself cannot differentiate the draw from Systematic"):
            jax.grad(log_likelihood)(THETA, keys[0])


def test_explain_says_what_is_biased() -> None:
    def log_likelihood(theta: Any, key: Any, gradient: Any) -> Any:
        return filtered(theta, key, guided=False, y=Y[:3], num_particles=7, gradient=gradient).log_likelihood

    for gradient, words in (("ignore", "held fixed (biased)"), ("stop_gradient", "held fixed, at")):
        text = str(mcgrad.explain(functools.partial(log_likelihood, gradient=gradient))(THETA, jax.random.key(0)))
        assert f"ancestors: Systematic, plates (2,), {words}" in text


def test_one_step_one_particle_and_no_weight_at_all() -> None:
    def likelihood(a: Any, y: Any, num_particles: int, key: Any) -> Any:
        observed = lambda x, y: jnp.where(y > 0, -(x**2), -jnp.inf)  # noqa: E731
        model = smc.Model(mcgrad.Normal(a, 1.0), lambda x: mcgrad.Normal(x, 1.0), observed)
        found = smc.bootstrap_filter(model, y, key, num_particles=num_particles, gradient="stop_gradient")
        return jnp.exp(found.log_likelihood)

    keys = jax.random.split(jax.random.key(0), 2)
    assert np.isfinite(mcgrad.grad(lambda a, key: likelihood(a, jnp.ones(1), 1, key))(0.3, keys[0]))
    value, slope = mcgrad.value_and_grad(lambda a, key: likelihood(a, jnp.array([1.0, -1.0, 1.0]), 4, key))(
        0.3, keys[1]
    )
    assert value == 0 and slope == 0


def test_what_is_refused() -> None:
    model, key = linear_model(THETA), jax.random.key(0)
    how = {"num_particles": 5, "gradient": "ignore"}
    wide = model._replace(transition=lambda x: mcgrad.Normal(x, 1.0))
    summed = model._replace(log_observation=lambda x, y: jnp.sum(x))
    for call, message in (
        (
            lambda: smc.bootstrap_filter(model, Y, key, num_particles=0, gradient="ignore"),
            r"\(num_particles=...\)` must",
        ),
        (lambda: smc.bootstrap_filter(model, Y, key, num_particles=5, gradient="none"), r"\(gradient=...\)` must"),
        (
            lambda: smc.bootstrap_filter(model, Y[:0], key, **how),
            r"\(observations=...\)` must be arrays with one time axis",
        ),
        (lambda: smc.bootstrap_filter(wide, Y, key, **how), r"Model\(transition=...\)` must be .* batch shape \(5,\)"),
        (lambda: smc.bootstrap_filter(summed, Y, key, **how), r"Model\(log_observation=...\)` must return"),
        (lambda: smc.resample(key, jnp.zeros(3), gradient="marginal"), r"resample\(gradient=...\)` must"),
        (
            lambda: smc.resample(
                key, jnp.zeros(3), gradient="ignore", resampling=lambda w: mcgrad.Categorical(logits=w)
            ),
            "must get as many ancestors as log weights",
        ),
    ):
        with jax.debug_key_reuse(False), pytest.raises(ValueError, match=message):
            call()
