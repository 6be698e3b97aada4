"""Perturbed maximizers against closed forms, in the inputs and in the scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives, gradient_draws
from jax.scipy.stats import norm

import mcgrad

W = jnp.asarray([1.3, -0.4, 0.8])
PARAMS = {"theta": jnp.asarray([0.2, 0.7, -0.1]), "scale": jnp.asarray(0.8)}


def largest(x: Any) -> Any:
    return jax.nn.one_hot(jnp.argmax(x), len(x))


def by_softmax(p: Any) -> Any:
    return W @ jax.nn.softmax(p["theta"] / p["scale"])


def by_a_normal(p: Any) -> Any:
    gap = (p["theta"][0] - p["theta"][1]) / (jnp.sqrt(2) * p["scale"])
    return W[0] * norm.cdf(gap) + W[1] * norm.cdf(-gap)


@pytest.mark.parametrize(
    ("noise", "exact", "order"),
    [
        (mcgrad.Gumbel, by_softmax, 1),
        (mcgrad.Normal, by_a_normal, 1),
        pytest.param(mcgrad.Gumbel, by_softmax, 2, marks=pytest.mark.slow),
        pytest.param(mcgrad.Normal, by_a_normal, 2, marks=pytest.mark.slow),
    ],
)
def test_derivatives_in_inputs_and_scale(noise: Any, exact: Any, order: int) -> None:
    num = 3 if noise is mcgrad.Gumbel else 2
    params = {**PARAMS, "theta": PARAMS["theta"][:num]}
    y = mcgrad.expectation(mcgrad.perturbed(largest, noise), num_samples=4)

    def value(p: Any, key: Any) -> Any:
        return W[:num] @ y(p["theta"], p["scale"], key)

    wanted = jax.tree.map(np.asarray, jax.jit(lambda p: derivatives(exact, p, order))(params))
    draws = gradient_draws(lambda key: derivatives(lambda p: value(p, key), params, order), wanted, jax.random.key(0))
    for name in wanted:
        assert_unbiased(draws[name], wanted[name])


def test_inputs_of_several_arrays() -> None:
    """Each gets noise of its own; the solver sees the same tree."""

    def solver(x: Any) -> Any:
        return {"first": 1.0 * (x["a"] > x["b"][0]), "rest": 1.0 * (x["b"] > 0)}

    inputs = {"a": jnp.asarray(0.3), "b": jnp.asarray([0.1, -0.2])}
    y = jax.jit(jax.jacrev(mcgrad.expectation(mcgrad.perturbed(solver), num_samples=2_000)))
    found = y(inputs, 0.5, jax.random.key(0))
    slope = norm.pdf(0.2 / (jnp.sqrt(2) * 0.5)) / (jnp.sqrt(2) * 0.5)
    np.testing.assert_allclose(found["first"]["a"], slope, atol=0.1)
    np.testing.assert_allclose(found["rest"]["b"], jnp.diag(norm.pdf(inputs["b"] / 0.5) / 0.5), atol=0.1)
    np.testing.assert_allclose(found["rest"]["a"], 0, atol=0.1)


def test_a_negative_scale_is_seen_when_the_program_runs() -> None:
    gradient = jax.jit(jax.jacrev(mcgrad.expectation(mcgrad.perturbed(largest, mcgrad.Gumbel)), argnums=1))
    with (
        mcgrad.debug_checks(),
        pytest.raises(Exception, match=r"Gumbel\(scale=...\)` must be positive and finite, got -0.5"),
    ):
        jax.block_until_ready(gradient(PARAMS["theta"], -0.5, jax.random.key(0)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(TypeError, match=r"perturbed\(argmax_fn=...\)` must be a function, got float"):
        mcgrad.perturbed(0.5)
    with pytest.raises(TypeError, match=r"perturbed\(noise=...\)` must be a function, got str"):
        mcgrad.perturbed(largest, "gumbel")
    with pytest.raises(TypeError, match=r"perturbed\(estimator=...\)` must be an estimator"):
        mcgrad.perturbed(largest, estimator="score")
    with pytest.raises(ValueError, match=r"Normal\(scale=...\)` must be positive"):
        mcgrad.perturbed(largest)(PARAMS["theta"], 0.0, jax.random.key(0))
