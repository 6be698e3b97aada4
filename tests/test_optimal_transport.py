"""Draws along other paths than that of the sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import assert_unbiased, central_difference

import mcgrad
from mcgrad.distributions.derivatives.optimal_transport import transport_beta, transport_dirichlet, transport_gaussian

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
    # in the mean there is one path; the two programs are compiled apart, and may round differently
    np.testing.assert_allclose(optimal[0], plain[0], rtol=1e-9, atol=1e-12)
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
    with pytest.raises(
        ValueError, match='Pathwise.path=.*must be "sampler", "optimal_transport" or a .*, got \'straight\''
    ):
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


def test_the_dirichlet_velocities_move_the_law_exactly():
    """`dp/da_j + div(p v_j) = 0` in the first entries, divided by `p`: to rounding, anywhere on the simplex."""
    a = np.array([[0.3, 2.0, 1.2, 0.05], [30.0, 4.0, 700.0, 1.0]])
    y = np.array([[0.2, 0.5, 0.2999], [0.05, 0.0001, 0.9]])

    @jax.jit
    @jax.vmap
    def velocity(y, a):
        return jax.jacfwd(lambda a: transport_dirichlet(jnp.append(y, 1 - jnp.sum(y)), a))(a)[:-1]  # [entry, j]

    @jax.jit
    @jax.vmap
    def score(y, a):
        return jax.grad(lambda y, a: mcgrad.Dirichlet(a).log_prob(jnp.append(y, 1 - jnp.sum(y))), (0, 1))(y, a)

    (in_y, in_a), rate = score(y, a), np.asarray(velocity(y, a))
    terms = [in_a, *np.moveaxis(np.asarray(in_y)[..., None] * rate, 1, 0)]
    step = 1e-2 * np.minimum(y, 1 - y.sum(-1, keepdims=True))
    for i in range(3):
        # the rule drops what moves the draw from outside, so the divergence is one of differences
        moved = lambda t, i=i: np.asarray(velocity(y + t * step * np.eye(3)[i], a))[:, i]  # noqa: E731
        terms.append(central_difference(moved, 0.0, 1.0) / step[:, i, None])
    assert (np.abs(sum(terms)) < 1e-9 * sum(map(np.abs, terms))).all()


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_dirichlet_derivatives_and_less_variance_than_the_samplers_path(order):
    a, keys = jnp.asarray([0.4, 1.5, 3.0]), jax.random.split(jax.random.key(5), 40_000)

    def draws(estimator):
        def cost(a, key):
            x = mcgrad.sample(key, mcgrad.Dirichlet(a), estimator)
            return x[0] * x[1] - x[2] ** 2

        derivative = mcgrad.grad(cost)
        derivative = derivative if order == 1 else jax.jacfwd(derivative)
        return jax.jit(jax.vmap(derivative, (None, 0)))(a, jax.random.clone(keys))

    def exact(a):
        total = jnp.sum(a)
        return (a[0] * a[1] - a[2] * (a[2] + 1)) / (total * (total + 1))

    optimal = draws(OPTIMAL)
    assert_unbiased(optimal, (jax.grad if order == 1 else jax.hessian)(exact)(a))
    if order == 1:
        assert np.sum(np.var(optimal, 0)) < 0.95 * np.sum(np.var(draws(mcgrad.Pathwise()), 0))


@pytest.mark.slow
def test_the_beta_path_keeps_the_quantile():
    a, b = np.array([0.4, 2.0, 50.0]), np.array([3.0, 0.7, 20.0])
    x = scipy.stats.beta.ppf([0.2, 0.9, 0.01], a, b)
    u = scipy.special.betainc(a, b, x)
    slopes = jax.jacfwd(lambda a, b: transport_beta(jnp.asarray(x), a, b), (0, 1))(jnp.asarray(a), jnp.asarray(b))
    for slope, at, value in (
        (slopes[0], lambda a: scipy.special.betaincinv(a, b, u), a),
        (slopes[1], lambda b: scipy.special.betaincinv(a, b, u), b),
    ):
        exact = central_difference(lambda t: at(value * (1 + t)), 0.0, 1 / 40) / value  # noqa: B023
        np.testing.assert_allclose(np.diagonal(slope), exact, rtol=1e-9)  # SciPy's quantiles have some twelve digits
    corner = jnp.asarray([np.finfo(np.float32).tiny, 0.5, 1 - 6e-8], jnp.float32)
    for value in (1e-4, 1.0, 1e6):
        path = lambda p: mcgrad.Beta(p, p).optimal_transport(corner)  # noqa: E731
        assert np.isfinite(jax.jvp(path, (jnp.float32(value),), (jnp.float32(1),))[1]).all()
    assert (mcgrad.Dirichlet(jnp.ones((2, 1))).optimal_transport(jnp.ones((2, 1))) == 1).all()
