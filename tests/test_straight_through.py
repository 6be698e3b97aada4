"""Biased estimators: what they estimate, exactly; where they are right; and that they say what they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BIASED, assert_unbiased, gradient_draws

import mcgrad

TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
LOGITS = jnp.array([0.4, -0.3, 0.8])


@pytest.fixture(autouse=True)
def runs_share_keys() -> Any:
    """Runs on one key are compared on purpose here; JAX's reuse checker stays on in the other files."""
    with jax.debug_key_reuse(False):
        yield


def linear(x: Any) -> Any:
    return TABLE[0] @ x


def quadratic(x: Any) -> Any:
    return 4.0 * x @ TABLE @ x + TABLE[0] @ x


def cubic(x: Any) -> Any:
    return jnp.sum(TABLE[1] * x**3) + (TABLE[0] @ x) ** 3


def of_classes(cost: Callable[[Any], Any], estimator: Any) -> Callable[..., Any]:
    return lambda logits, key: cost(mcgrad.sample(key, mcgrad.OneHotCategorical(logits=logits), estimator))


def exact(cost: Callable[[Any], Any]) -> Any:
    return jax.grad(lambda logits: jax.nn.softmax(logits) @ jax.vmap(cost)(jnp.eye(3)))(LOGITS)


def covariance(p: Any) -> Any:
    return jnp.diag(p) - jnp.outer(p, p)


def mean_of_straight_through(cost: Callable[[Any], Any]) -> Any:
    p = jax.nn.softmax(LOGITS)
    return covariance(p) @ jnp.einsum("k,kj->j", p, jax.vmap(jax.grad(cost))(jnp.eye(3)))


def mean_of_reinmax(cost: Callable[[Any], Any], temperature: float) -> Any:
    p, warm = jax.nn.softmax(LOGITS), jax.nn.softmax(LOGITS / temperature)
    slopes = jax.vmap(jax.grad(cost))(jnp.eye(3))
    each = [(2 * covariance((warm + x) / 2) - covariance(p) / 2) @ d for x, d in zip(jnp.eye(3), slopes, strict=True)]
    return p @ jnp.stack(each)


@pytest.mark.parametrize("cost", [linear, quadratic, cubic])
@pytest.mark.parametrize("name", ["straight-through", "reinmax", "reinmax, warm"])
def test_the_mean_is_what_the_formula_says(name: str, cost: Callable[[Any], Any]) -> None:
    wanted = (
        mean_of_straight_through(cost)
        if name == "straight-through"
        else mean_of_reinmax(cost, 1 + 0.5 * ("warm" in name))
    )
    gradient = mcgrad.grad(of_classes(cost, BIASED[name]))
    found = gradient_draws(lambda key: {"gradient": gradient(LOGITS, key)}, {"gradient": wanted}, jax.random.key(1))
    assert_unbiased(found["gradient"], wanted)


def test_where_they_are_right() -> None:
    """Straight-through for linear costs, ReinMax for quadratic ones; not so one order further."""
    np.testing.assert_allclose(mean_of_straight_through(linear), exact(linear), rtol=1e-6)
    np.testing.assert_allclose(mean_of_reinmax(quadratic, 1.0), exact(quadratic), rtol=1e-6)
    assert np.abs(mean_of_straight_through(quadratic) - exact(quadratic)).max() > 0.05
    assert np.abs(mean_of_reinmax(cubic, 1.0) - exact(cubic)).max() > 0.05


def bit_cost(b: Any) -> Any:
    return (b - 0.45) ** 3 + jnp.sin(b)


@pytest.mark.parametrize("hard", [False, True])
def test_the_mean_of_relaxed_bits_by_quadrature(hard: bool) -> None:
    logit, temperature = 0.4, 0.7
    points, weights = np.polynomial.legendre.leggauss(4001)
    u = jnp.asarray((points + 1) / 2)
    z = logit + jnp.log(u) - jnp.log1p(-u)
    relaxed = jax.nn.sigmoid(z / temperature)
    at = (z > 0) * 1.0 if hard else relaxed
    slopes = jax.vmap(jax.grad(bit_cost))(at) * relaxed * (1 - relaxed) / temperature
    wanted = jnp.asarray(weights / 2) @ slopes
    estimator = mcgrad.GumbelSoftmax(temperature, hard=hard)
    draws = draws_of_bits(estimator, wanted)
    assert_unbiased(draws, wanted)
    if hard:  # the same mean with less variance
        averaged = draws_of_bits(mcgrad.GumbelRao(temperature, 8), wanted)
        assert_unbiased(averaged, wanted)
        assert averaged.var() < 0.8 * draws.var()


def draws_of_bits(estimator: Any, wanted: Any) -> Any:
    def loss(logit: Any, key: Any) -> Any:
        return bit_cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), estimator))

    found = gradient_draws(
        lambda key: {"gradient": mcgrad.grad(loss)(0.4, key)}, {"gradient": wanted}, jax.random.key(2)
    )
    return found["gradient"]


@pytest.mark.parametrize("name", BIASED)
def test_the_value_is_the_draw_unless_relaxed(name: str) -> None:
    law, key = mcgrad.OneHotCategorical(logits=LOGITS), jax.random.key(3)
    fn = mcgrad.expectation(lambda logits, key: TABLE @ mcgrad.sample(key, law, BIASED[name]) + 0.0 * logits)
    same = np.allclose(fn(LOGITS, key), TABLE @ law.sample(key), atol=1e-3)
    assert same == (name != "gumbel-softmax")


@pytest.mark.parametrize("name", BIASED)
def test_under_vmap_in_a_scan_and_of_independent_bits(name: str) -> None:
    """The same as one after another, and the types that came in."""

    def loss(logits: Any, key: Any) -> Any:
        def step(total: Any, key: Any) -> Any:
            law = mcgrad.Independent(mcgrad.Bernoulli(logits=logits - 0.1 * total), 1)
            b = mcgrad.sample(key, law, BIASED[name])
            return total + bit_cost(b).sum(), None

        return jax.lax.scan(step, jnp.zeros((), logits.dtype), jax.random.split(key, 3))[0]

    gradient = jax.jit(mcgrad.grad(loss))
    keys = jax.random.split(jax.random.key(4), 3)
    found = jax.vmap(gradient, (None, 0))(LOGITS, keys)
    np.testing.assert_allclose(found, jnp.stack([gradient(LOGITS, key) for key in keys]), rtol=1e-6)
    assert np.abs(found).max() > 0.01
    assert gradient(LOGITS.astype(jnp.float32), keys[0]).dtype == jnp.float32


def test_the_temperature_may_be_computed() -> None:
    @jax.jit
    def gradient(temperature: Any, key: Any) -> Any:
        return mcgrad.grad(of_classes(cubic, mcgrad.GumbelSoftmax(temperature)))(LOGITS, key)

    key = jax.random.key(5)
    np.testing.assert_allclose(
        gradient(0.7, key), mcgrad.grad(of_classes(cubic, mcgrad.GumbelSoftmax(0.7)))(LOGITS, key), rtol=1e-6
    )


def test_in_the_transform_the_draws_must_be_floats() -> None:
    def loss(logits: Any, key: Any, dtype: Any = jnp.float32) -> Any:
        return linear(mcgrad.sample(key, mcgrad.OneHotCategorical(logits=logits, dtype=dtype)))

    gradient = mcgrad.grad(loss, estimator=mcgrad.StraightThrough())
    named = mcgrad.grad(of_classes(linear, mcgrad.StraightThrough()))
    key = jax.random.key(6)
    np.testing.assert_allclose(gradient(LOGITS, key), named(LOGITS, key), rtol=1e-5)
    integers = mcgrad.grad(functools.partial(loss, dtype=jnp.int32), estimator=mcgrad.StraightThrough())
    with pytest.raises(ValueError, match=r"its draws are int32.*dtype=jnp.float32"):
        integers(LOGITS, key)
    of_integers = mcgrad.sample(key, mcgrad.Categorical(logits=LOGITS), mcgrad.StraightThrough())
    assert of_integers.dtype == jnp.int32  # classes stay integers, and so
    with pytest.raises(ValueError, match=r"its draws are int32.*OneHotCategorical"):
        mcgrad.grad(lambda p: 1.0 * mcgrad.sample(key, mcgrad.Categorical(logits=p), mcgrad.StraightThrough()))(LOGITS)


@pytest.mark.parametrize("name", BIASED)
def test_they_say_that_they_are_biased_and_refuse_a_second_derivative(name: str) -> None:
    loss = of_classes(cubic, BIASED[name])
    assert "(biased)" in str(mcgrad.explain(loss)(LOGITS, jax.random.key(0)))
    assert not any(estimator.biased for estimator in mcgrad.estimators.auto.CANDIDATES)
    with pytest.raises(NotImplementedError, match="second derivative through a biased estimator"):
        jax.hessian(mcgrad.expectation(loss))(LOGITS, jax.random.key(0))


def test_compare_finds_the_bias() -> None:
    def loss(logits: Any, key: Any) -> Any:
        return cubic(mcgrad.sample(key, mcgrad.OneHotCategorical(logits=logits, dtype=jnp.float64)))

    found = mcgrad.compare(loss, [mcgrad.Score(), mcgrad.StraightThrough()])(LOGITS, jax.random.key(7))
    assert {name: report.verdict for name, report in found.reports.items()} == {
        "Score": "agrees",
        "StraightThrough": "biased",
    }
    bias = np.linalg.norm(mean_of_straight_through(cubic) - exact(cubic))
    np.testing.assert_allclose(found.reports["StraightThrough"].distance, bias, rtol=0.1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"GumbelSoftmax\(temperature=...\)` must be one number above zero, got 0.0"):
        mcgrad.GumbelSoftmax(0.0)
    with pytest.raises(TypeError, match="hard"):
        mcgrad.GumbelSoftmax(1.0, hard=1)  # ty: ignore
    with pytest.raises(ValueError, match="num_samples"):
        mcgrad.GumbelRao(1.0, 0)
    with pytest.raises(TypeError, match=r"Bernoulli\(dtype=...\)` must be of numbers"):
        mcgrad.Bernoulli(logits=0.0, dtype=bool)
    with pytest.raises(ValueError, match="no relaxation"):
        mcgrad.grad(lambda p, key: mcgrad.sample(key, mcgrad.Poisson(p), mcgrad.StraightThrough()) * 1.0)(
            2.0, jax.random.key(0)
        )

    def of_counts(rate: Any, key: Any) -> Any:
        counts = mcgrad.Independent(mcgrad.Poisson(rate * jnp.ones(2)), 1)
        return 1.0 * mcgrad.sample(key, counts, mcgrad.StraightThrough()).sum()

    with pytest.raises(ValueError, match="no relaxation"):
        mcgrad.grad(of_counts)(2.0, jax.random.key(0))


@pytest.mark.parametrize("law", [mcgrad.Bernoulli, mcgrad.OneHotCategorical])
def test_draws_of_another_dtype(law: Any) -> None:
    """The same draws, and all that is known of them, in the dtype that was asked for."""
    own, other = law(logits=LOGITS), law(logits=LOGITS, dtype=jnp.float32)
    key = jax.random.key(8)
    x = other.sample(key)
    assert x.dtype == jnp.float32 and other.support().dtype == jnp.float32
    np.testing.assert_array_equal(x, own.sample(key))
    np.testing.assert_allclose(other.log_prob(x), own.log_prob(own.sample(key)))
    np.testing.assert_array_equal(other.support(), own.support())


def test_other_estimators_at_draws_in_floats() -> None:
    def loss(logits: Any, key: Any) -> Any:
        return cubic(mcgrad.sample(key, mcgrad.OneHotCategorical(logits=logits, dtype=jnp.float64)))

    for estimator in (mcgrad.Enumerate(), mcgrad.Score(num_samples=3), mcgrad.MeasureValued(), mcgrad.TreeDisARM()):
        gradient = mcgrad.grad(loss, estimator=estimator)
        found = gradient_draws(
            lambda key, gradient=gradient: {"gradient": gradient(LOGITS, key)},
            {"gradient": exact(cubic)},
            jax.random.key(9),
        )
        assert_unbiased(found["gradient"], exact(cubic))
