"""Double control variates: exact for linear costs, unbiased for others to every order, of less variance; refused where wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad


@pytest.fixture(autouse=True)
def runs_share_keys():
    """Estimators are compared on the same keys on purpose; JAX's reuse checker stays on in the other files."""
    with jax.debug_key_reuse(False):
        yield


TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
PARAMS = jnp.array([0.3, -0.4, 0.8])


def layers(estimator, params, key):
    """Bits, then a class whose log odds they give, and a cost that is not linear in either and keeps what it can apart."""
    first, second = jax.random.split(key)
    bits = mcgrad.sample(first, mcgrad.Bernoulli(logits=2.0 * jnp.sin(params)), estimator)
    one_hot = mcgrad.sample(second, mcgrad.OneHotCategorical(logits=0.5 * bits * params[0]), estimator)
    together = (jnp.arange(1.0, 4.0) @ bits - 2.0 * params[1]) ** 2
    return together + jnp.sin(one_hot @ TABLE @ bits) * params[2] + jnp.sum(bits**3 * params)


def derivative_of(estimator, order, num_samples=1):
    fn = mcgrad.expectation(functools.partial(layers, estimator), num_samples=num_samples)
    return jax.jacrev(fn) if order == 1 else jax.jacfwd(jax.jacrev(fn))


@pytest.mark.parametrize(
    ("estimator", "order", "num_samples"),
    [
        (mcgrad.DoubleControl(2), 1, 1),
        (mcgrad.DoubleControl(5, 0.7), 1, 1),
        (mcgrad.DoubleControl(2), 1, 2),
        (mcgrad.DoubleControl(2, -0.5), 2, 1),
    ],
)
def test_unbiased(estimator, order, num_samples):
    wanted = derivative_of(mcgrad.Enumerate(), order)(PARAMS, jax.random.key(0))
    keys = jax.random.split(jax.random.key(order), 20_000)
    draws = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: derivative_of(estimator, order, num_samples)(PARAMS, key), keys, batch_size=5_000
        )
    )(keys)
    assert_unbiased(draws, wanted)


def linear(estimator, params, key):
    bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=params), estimator)
    return jnp.arange(1.0, 4.0) @ bits * params[0] + 5.0


def test_nothing_varies_for_linear_costs_and_less_for_others():
    p = jax.nn.sigmoid(PARAMS)
    wanted = jnp.arange(1.0, 4.0) * p * (1 - p) * PARAMS[0]
    keys = jax.random.split(jax.random.key(1), 4_000)
    gradients = {
        name: jax.jit(jax.vmap(mcgrad.grad(functools.partial(fn, e)), (None, 0)))(PARAMS, keys)
        for name, fn, e in (
            ("linear", linear, mcgrad.DoubleControl(2)),
            ("ours", layers, mcgrad.DoubleControl(2)),
            ("leave-one-out", layers, mcgrad.Score(num_samples=2)),
        )
    }
    # what is left is the value's own derivative, of the mean of two costs
    np.testing.assert_allclose(gradients["linear"][:, 1:], jnp.broadcast_to(wanted[1:], (4_000, 2)), atol=1e-12)
    variances = {name: float(jnp.sum(jnp.var(found, axis=0))) for name, found in gradients.items()}
    assert variances["ours"] < 0.3 * variances["leave-one-out"]


def test_refusals():
    with pytest.raises(ValueError, match="num_samples=.*at least 2"):
        mcgrad.DoubleControl(1)
    with pytest.raises(ValueError, match="coefficient=.*must be a finite number"):
        mcgrad.DoubleControl(2, float("nan"))
    for law, reason in (
        (lambda t: mcgrad.Bernoulli(logits=t), "int32"),
        (lambda t: mcgrad.Normal(t, 1.0), "no finite"),
    ):
        program = functools.partial(of_a_law, law)
        with pytest.raises(ValueError, match=reason):
            mcgrad.grad(program, estimator=mcgrad.DoubleControl())(PARAMS, jax.random.key(0))


def of_a_law(law, params, key):
    return jnp.sum(1.0 * mcgrad.sample(key, law(params)))
