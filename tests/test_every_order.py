"""Signed points with the higher orders of the score: the same first derivative, the right second one, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad


@pytest.fixture(autouse=True)
def runs_share_keys():
    """Runs on one key are compared on purpose here; JAX's reuse checker stays on in the other files."""
    with jax.debug_key_reuse(False):
        yield


PARAMS = jnp.array([0.3, -0.4, 0.8])
INNER = {
    "disarm": mcgrad.DisARM(),
    "arms": mcgrad.ARMS(3),
    "tree": mcgrad.TreeDisARM(),
    "local": mcgrad.LocalExpectation(),
    "measure-valued": mcgrad.MeasureValued(),
}


def layers(params, key):
    first, second = jax.random.split(key)
    bits = mcgrad.sample(first, mcgrad.Bernoulli(logits=2.0 * jnp.sin(params)))
    more = mcgrad.sample(second, mcgrad.Bernoulli(logits=0.5 * bits[:1] * params[0]))
    return (jnp.arange(1.0, 4.0) @ bits - 2.0 * params[1]) ** 2 + jnp.sum(more * bits[0]) * params[2]


@pytest.mark.parametrize("name", INNER)
def test_the_first_derivative_is_that_of_the_estimator(name):
    keys = jax.random.split(jax.random.key(0), 20)
    found, wanted = (
        jax.jit(jax.vmap(mcgrad.grad(layers, estimator=e), (None, 0)))(PARAMS, keys)
        for e in (INNER[name], mcgrad.EveryOrder(INNER[name]))
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "num_samples"), [("disarm", 1), ("tree", 2), ("local", 5)])
def test_the_second_derivative_is_unbiased(name, num_samples):
    """Through two layers, where the first moves the parameters of the second."""
    hessian = jax.jacfwd(jax.jacrev(mcgrad.expectation(layers, estimator=mcgrad.Enumerate())))(
        PARAMS, jax.random.key(0)
    )
    fn = mcgrad.expectation(layers, estimator=mcgrad.EveryOrder(INNER[name]), num_samples=num_samples)
    keys = jax.random.split(jax.random.key(num_samples), 100_000 // num_samples)
    draws = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(fn)), (None, 0)))(PARAMS, keys)
    assert_unbiased(draws, hessian)


def counts(params, key):
    rate = jnp.exp(params[:2])
    return jnp.sum(jnp.sin(1.0 * mcgrad.sample(key, mcgrad.Poisson(rate))) + rate**2)


def test_measure_valued_derivatives_of_counts_to_second_order():
    k = np.arange(60.0)

    def exact(params):
        rate = jnp.exp(params[:2, None])
        p = jnp.exp(k[None] * jnp.log(rate) - rate - jax.scipy.special.gammaln(k + 1)[None])
        return jnp.sum(p @ jnp.sin(k)) + jnp.sum(rate**2)

    fn = mcgrad.expectation(counts, estimator=mcgrad.EveryOrder(mcgrad.MeasureValued()))
    keys = jax.random.split(jax.random.key(0), 100_000)
    draws = jax.jit(jax.vmap(jax.jacfwd(jax.jacrev(fn)), (None, 0)))(PARAMS, keys)
    assert_unbiased(draws, jax.hessian(exact)(PARAMS))


def test_refusals():
    with pytest.raises(TypeError, match="EveryOrder.estimator=.*must be an estimator, got"):
        mcgrad.EveryOrder("disarm")
    with pytest.raises(TypeError, match="must make `SignedPoints`, got `WeightedPoint` of `mcgrad.Score`"):
        mcgrad.grad(layers, estimator=mcgrad.EveryOrder(mcgrad.Score()))(PARAMS, jax.random.key(0))
    with pytest.raises(ValueError, match="must be one of 0 and 1"):
        mcgrad.grad(counts, estimator=mcgrad.EveryOrder(mcgrad.DisARM()))(PARAMS, jax.random.key(0))
