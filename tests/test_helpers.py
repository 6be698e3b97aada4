"""The statistical check can fail, and the exact expectations agree with closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LOOP_PROGRAMS, PROGRAMS, assert_unbiased, derivatives, exact_derivatives, gradient_draws
from programs.loops import expect_sequence
from programs.program import expect_bernoulli, expect_categorical, expect_normal


@pytest.fixture
def random():
    return np.random.default_rng(7)


def test_accepts_unbiased_draws_of_a_pytree(random):
    exact = {"a": np.array([1.0, -2.0]), "b": np.array(0.5)}
    draws = jax.tree.map(lambda x: x + random.normal(size=(10_000, *x.shape)), exact)
    assert_unbiased(draws, exact)


def test_rejects_a_bias_of_one_coordinate(random):
    exact = {"a": np.array([1.0, -2.0]), "b": np.array(0.5)}
    draws = jax.tree.map(lambda x: x + random.normal(size=(10_000, *x.shape)), exact)
    draws["b"] = draws["b"] + 0.1
    with pytest.raises(AssertionError, match="biased: coordinate 2"):
        assert_unbiased(draws, exact)


def test_rejects_draws_too_noisy_to_tell(random):
    exact = np.array([1.0, -2.0])
    with pytest.raises(AssertionError, match="too few draws"):
        assert_unbiased(exact + 10 * random.normal(size=(10_000, 2)), exact)


def test_rejects_noise_around_zero(random):
    with pytest.raises(AssertionError, match="too few draws"):
        assert_unbiased(random.normal(size=(10_000, 2)), np.zeros(2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accepts_an_exact_estimator_up_to_rounding(dtype):
    exact = np.array([1 / 3, -2 / 7])
    assert_unbiased(np.tile(exact.astype(dtype), (100, 1)), exact)


def test_rejects_an_exact_estimator_of_something_else():
    exact = np.array([1.0, -2.0])
    with pytest.raises(AssertionError, match="biased: coordinate 1"):
        assert_unbiased(np.tile(exact + [0.0, 1e-6], (100, 1)), exact)


def test_rejects_draws_that_are_silently_zero():
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(np.zeros((100, 2)), np.array([1.0, -2.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rejects_draws_that_are_not_finite(random, bad):
    exact = np.array([1.0, -2.0])
    draws = exact + random.normal(size=(10_000, 2))
    draws[3, 0] = bad
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match="not finite"):
        assert_unbiased(draws, exact)


def test_rejects_another_structure_and_another_shape():
    with pytest.raises(AssertionError, match="structure"):
        assert_unbiased({"a": np.ones(10)}, {"b": np.ones(())})
    with pytest.raises(AssertionError, match="shape"):
        assert_unbiased(np.ones((10, 3)), np.ones(2))


def test_gradient_draws_are_means_of_the_estimate():
    exact = {"x": np.array([0.25, 2.0])}
    draws = gradient_draws(lambda key: {"x": jax.random.normal(key, (2,)) + exact["x"]}, exact, jax.random.key(3))
    assert_unbiased(draws, exact)
    np.testing.assert_allclose(draws["x"].std(0), 1 / 8, rtol=0.2)  # of 64 draws each


def test_derivatives_of_a_polynomial():
    params = {"x": jnp.asarray(2.0), "y": jnp.asarray(3.0)}
    for mode in ("reverse", "forward"):
        found = derivatives(lambda p: p["x"] ** 2 * p["y"], params, 2, mode)
        np.testing.assert_allclose(found["value"], [12.0])
        np.testing.assert_allclose(found["gradient"], [12.0, 4.0])
        np.testing.assert_allclose(found["hessian"], [6.0, 4.0, 4.0, 0.0])


def test_exact_expectations_agree_with_closed_forms():
    logits = jnp.array([0.3, -0.7])
    probs = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(expect_bernoulli(logits, lambda b: b[0] * b[1] + b[0]), probs[0] * probs[1] + probs[0])
    table = jnp.array([[1.0, 2.0, -0.5], [0.0, 0.4, 0.1]])
    found = expect_categorical(table, lambda x: (x[0] == 1) * (x[1] == 2) * 1.0)
    np.testing.assert_allclose(found, jax.nn.softmax(table[0])[1] * jax.nn.softmax(table[1])[2])
    np.testing.assert_allclose(expect_normal(0.4, 0.8, jnp.exp), jnp.exp(0.4 + 0.32))
    uniform = expect_sequence(3, 2, lambda s: (-3 * jnp.log(2.0), jnp.sum(s) * 1.0))
    np.testing.assert_allclose(uniform, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("program", [*PROGRAMS.values(), *LOOP_PROGRAMS], ids=lambda program: program.name)
def test_exact_derivatives_can_be_resolved(program):
    """A derivative that is zero, or far below the value, could not be told from noise."""
    exact = exact_derivatives(program)
    assert all(np.isfinite(x).all() for x in exact.values())
    assert np.linalg.norm(exact["gradient"]) > 0.02
    assert program.order == 1 or np.linalg.norm(exact["hessian"]) > 0.02
