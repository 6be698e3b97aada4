"""Draws of a normal law along the path of least kinetic energy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad
from mcgrad.distributions.optimal_transport import transport_gaussian

OPTIMAL = mcgrad.Pathwise(path="optimal_transport")
TRIL = jnp.asarray([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 1.2]])


def law_of(params):
    loc, tril = params
    return mcgrad.MultivariateNormal(loc, scale_tril=jnp.tril(tril))


def cost(x):
    return jnp.exp(0.3 * x[..., 0] - 0.2 * x[..., 1]) + x[..., 0] * x[..., 2] ** 2


def exact(params):
    """From the moments of the normal law."""
    loc, tril = params
    covariance = jnp.tril(tril) @ jnp.tril(tril).T
    a = jnp.asarray([0.3, -0.2, 0.0])
    second = loc[2] ** 2 + covariance[2, 2]
    return jnp.exp(a @ loc + a @ covariance @ a / 2) + loc[0] * second + 2 * loc[2] * covariance[0, 2]


def test_first_and_second_derivative_and_variance():
    params = (jnp.asarray([0.3, -0.5, 0.8]), TRIL)
    direction = (jnp.asarray([0.2, 0.1, -0.3]), jnp.asarray([[0.5, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.2, 0.6, -0.3]]))

    def along(function):
        return lambda t, *args: function(jax.tree.map(lambda p, d: p + t * d, params, direction), *args)

    keys = jax.random.split(jax.random.key(0), 100_000)
    program = along(lambda params, key: cost(mcgrad.sample(key, law_of(params), OPTIMAL)))
    slope = mcgrad.grad(program)
    first, second = jax.jit(jax.vmap(jax.value_and_grad(slope), (None, 0)))(0.0, keys)
    assert_unbiased(first, jax.grad(along(exact))(0.0))
    assert_unbiased(second, jax.grad(jax.grad(along(exact)))(0.0))


def test_every_entry_and_less_variance_than_the_samplers_path():
    params = (jnp.asarray([0.3, -0.5, 0.8]), TRIL)
    keys = jax.random.split(jax.random.key(1), 40_000)

    def draws(estimator):
        gradient = mcgrad.grad(lambda params, key: cost(mcgrad.sample(key, law_of(params), estimator)))
        return jax.jit(jax.vmap(gradient, (None, 0)))(params, jax.random.clone(keys))

    optimal, plain = draws(OPTIMAL), draws(mcgrad.Pathwise())
    jax.tree.map(assert_unbiased, optimal, jax.grad(exact)(params))
    np.testing.assert_array_equal(optimal[0], plain[0])  # in the mean there is one path
    assert np.sum(np.var(optimal[1], 0)) < 0.95 * np.sum(np.var(plain[1], 0))


def test_equal_eigenvalues_and_one_equation_for_all_draws():
    """At the identity eigenvectors have no derivative; the path has."""

    def program(tril, key):
        x = mcgrad.sample(key, mcgrad.MultivariateNormal(jnp.zeros((7, 2)), scale_tril=tril), OPTIMAL)
        return jnp.sum(x[:, 0] ** 2 * x[:, 1])

    assert np.isfinite(jax.jacfwd(mcgrad.grad(program))(jnp.eye(2), jax.random.key(0))).all()
    compiled = jax.jit(mcgrad.grad(program, num_samples=5)).lower(jnp.eye(2), jax.random.key(0)).as_text()
    solved = [line for line in compiled.splitlines() if "syevd" in line and "custom_call" in line]
    assert solved and all(
        "tensor<2x2xf64>" in line and "x2x2xf64" not in line.replace("<2x2xf64>", "") for line in solved
    )


def test_the_velocity_is_a_gradient():
    """The velocity is linear in the draw, and its matrix symmetric."""
    change = jnp.asarray([[0.5, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.2, 0.6, -0.3]])

    def velocity(x):
        return jax.jvp(lambda tril: transport_gaussian(x, jnp.zeros(3), tril), (TRIL,), (change,))[1]

    stretch = jnp.stack([velocity(x) for x in jnp.eye(3)], -1)
    covariance = TRIL @ TRIL.T
    np.testing.assert_allclose(stretch, stretch.T, atol=1e-12)
    np.testing.assert_allclose(
        stretch @ covariance + covariance @ stretch, change @ TRIL.T + TRIL @ change.T, atol=1e-12
    )


def test_refusals():
    with pytest.raises(ValueError, match='Pathwise.path=.*must be "sampler" or "optimal_transport", got \'straight\''):
        mcgrad.Pathwise(path="straight")
    with pytest.raises(ValueError, match="test_optimal_transport.*Laplace knows no path of optimal transport. Use"):
        mcgrad.grad(lambda p, key: mcgrad.sample(key, mcgrad.Laplace(p, 1.0), OPTIMAL))(0.0, jax.random.key(0))
    diagonal = lambda p, key: jnp.sum(  # noqa: E731
        mcgrad.sample(key, mcgrad.MultivariateNormal(jnp.zeros(2), scale_diag=p), OPTIMAL) ** 2
    )
    plain = lambda p, key: jnp.sum(  # noqa: E731
        mcgrad.sample(key, mcgrad.MultivariateNormal(jnp.zeros(2), scale_diag=p)) ** 2
    )
    p, key = jnp.asarray([0.5, 2.0]), jax.random.key(3)
    with jax.debug_key_reuse(False):
        np.testing.assert_allclose(mcgrad.grad(diagonal)(p, key), mcgrad.grad(plain)(p, key))
