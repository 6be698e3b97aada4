"""Mixtures: densities, draws, pathwise derivatives in components and weights, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased

import mcgrad

LOGITS, LOC, SCALE = np.array([0.3, -0.5, 1.0]), np.array([-2.0, 0.5, 3.0]), np.array([0.5, 2.0, 1.0])
WEIGHTS = np.exp(LOGITS) / np.exp(LOGITS).sum()


def normals(params: Any) -> Any:
    logits, loc, scale = params
    return mcgrad.Mixture(mcgrad.Categorical(logits=logits), mcgrad.Normal(loc, scale))


def arrays(dtype: Any = np.float64) -> Any:
    return tuple(jnp.asarray(value, dtype) for value in (LOGITS, LOC, SCALE))


def test_densities_are_scipys() -> None:
    dist, x = normals(arrays()), np.linspace(-8, 9, 23)
    frozen = scipy.stats.norm(LOC, SCALE)
    got = jax.jit(jax.vmap(lambda x: (dist.log_prob(x), dist.cdf(x), dist.survival(x))))(x)
    expected = (
        np.log(frozen.pdf(x[:, None]) @ WEIGHTS),
        frozen.cdf(x[:, None]) @ WEIGHTS,
        frozen.sf(x[:, None]) @ WEIGHTS,
    )
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    draws = jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 4_000))
    assert scipy.stats.kstest(draws, lambda x: frozen.cdf(x[:, None]) @ WEIGHTS).pvalue > 1e-4


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_derivative_of_a_draw_is_exact(dtype: Any, bound: float) -> None:
    """`-dF / p` in weights, locations and scales, by SciPy from the nearer tail."""
    keys = jax.random.split(jax.random.key(1), 2_000)
    draw = lambda params, key: normals(params).sample(key)  # noqa: E731
    x = jax.jit(jax.vmap(draw, (None, 0)))(arrays(dtype), keys)
    velocity = jax.jit(jax.vmap(jax.grad(draw), (None, 0)))(arrays(dtype), jax.random.clone(keys))
    assert x.dtype == velocity[0].dtype == dtype
    values = np.asarray(x, float)[:, None]
    frozen = scipy.stats.norm(LOC, SCALE)
    part = WEIGHTS * frozen.pdf(values)
    density = part.sum(1, keepdims=True)
    below, above = frozen.cdf(values), frozen.sf(values)
    of_weights = np.where(values < 0, -below, above)
    of_weights = WEIGHTS * (of_weights - of_weights @ WEIGHTS[:, None]) / density
    exact = of_weights, part / density, part / density * (values - LOC) / SCALE
    for got, expected in zip(velocity, exact, strict=True):
        largest = np.abs(expected).max(1, keepdims=True)
        np.testing.assert_allclose(got / largest, expected / largest, rtol=bound, atol=bound)


def test_expectations_and_their_derivatives_to_second_order() -> None:
    """Pathwise and score, against quadrature."""
    nodes, weights = np.linspace(-14, 16, 4001), 30 / 4000
    cost = lambda x: jnp.sin(x) + 0.1 * x**2  # noqa: E731
    exact = lambda params: weights * jnp.sum(cost(nodes) * jnp.exp(jax.vmap(normals(params).log_prob)(nodes)))  # noqa: E731
    program = lambda params, key: cost(mcgrad.sample(key, normals(params)))  # noqa: E731
    # components that overlap: where the density is low a draw moves fast with the weights, and the Hessian has a heavy tail
    flat = jnp.asarray([0.3, -0.5, 1.0, -0.8, 0.0, 0.7, 1.0, 1.5, 1.2])
    unflat = lambda flat: tuple(jnp.split(flat, 3))  # noqa: E731

    estimate = lambda estimator: lambda flat, key: mcgrad.expectation(program, estimator=estimator)(unflat(flat), key)  # noqa: E731

    @jax.jit
    def derivatives(flat: Any, keys: Any) -> Any:
        score, path = jax.grad(estimate(mcgrad.Score())), jax.grad(estimate(mcgrad.Pathwise()))
        draws = [jax.vmap(fn, (None, 0))(flat, keys) for fn in (score, path, jax.jacfwd(path))]
        of_exact = jax.grad(lambda flat: exact(unflat(flat)))
        return draws, of_exact(flat), jax.jacfwd(of_exact)(flat)

    (score, path, second), gradient, hessian = derivatives(flat, jax.random.split(jax.random.key(2), 20_000))
    assert_unbiased(score, gradient)
    assert_unbiased(path, gradient)
    assert_unbiased(second, hessian)


def test_vectors_move_with_the_weights_of_their_mixture() -> None:
    """A mixture of laws of two independent numbers, in one of two batch entries, against quadrature on a grid."""
    loc = jnp.asarray([[[-1.0, 0.5], [1.5, -0.5]]] * 2)

    def law(params: Any) -> Any:
        logits, shift = params
        components = mcgrad.Independent(mcgrad.Logistic(loc + shift, 0.4), 1)
        return mcgrad.Mixture(mcgrad.Categorical(logits=logits), components)

    cost = lambda x: jnp.sin(x[..., 0]) * jnp.tanh(x[..., 1]) + x[..., 0]  # noqa: E731
    program = lambda params, key: jnp.sum(cost(mcgrad.sample(key, law(params))) * jnp.asarray([1.0, 2.0]))  # noqa: E731
    params = jnp.asarray([[0.2, -0.3], [1.0, 0.0]]), 0.1
    assert law(params).batch_shape == (2,) and law(params).event_shape == (2,) and law(params).reparameterized
    side = np.linspace(-12, 12, 241)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 1, 2)

    def exact(params: Any) -> Any:
        density = jnp.exp(jax.vmap(law(params).log_prob)(jnp.broadcast_to(grid, (len(grid), 2, 2))))
        return 0.1**2 * jnp.sum(density * cost(grid) * jnp.asarray([[1.0, 2.0]]))

    gradients = jax.jit(jax.vmap(mcgrad.pathwise_grad(program), (None, 0)))(
        params, jax.random.split(jax.random.key(3), 10_000)
    )
    assert_unbiased(gradients, jax.grad(exact)(params))


def test_discrete_components() -> None:
    dist = mcgrad.Mixture(
        mcgrad.Categorical(probs=jnp.asarray([0.4, 0.6])), mcgrad.Poisson(jnp.asarray([[1.0, 4.0]] * 3))
    )
    assert dist.batch_shape == (3,) and jax.eval_shape(dist.sample, jax.random.key(0)).dtype == jnp.int32
    expected = np.log(scipy.stats.poisson.pmf(2, [1.0, 4.0]) @ [0.4, 0.6])
    np.testing.assert_allclose(jax.jit(dist.log_prob)(jnp.full(3, 2)), expected, rtol=1e-12)
    assert dist.pathwise_obstacle == "Mixture(Poisson) is discrete"
    coins = mcgrad.Mixture(mcgrad.Categorical(logits=jnp.zeros(2)), mcgrad.Bernoulli(probs=jnp.asarray([0.1, 0.4])))
    program = lambda p, key: 3.0 * mcgrad.sample(key, jax.tree.map(lambda leaf: leaf * p, coins))  # noqa: E731
    gradient = mcgrad.grad(program, estimator=mcgrad.Enumerate())(1.0, jax.random.key(0))
    np.testing.assert_allclose(gradient, 3 * 0.25, rtol=1e-12)


def test_corners() -> None:
    """A weight of zero has a derivative; saturated logits, points outside the support and float32 give no NaN."""
    density = lambda p: mcgrad.Mixture(mcgrad.Categorical(probs=p), mcgrad.Normal(LOC, SCALE)).log_prob(0.2)  # noqa: E731
    slope = jax.jit(jax.grad(density))(jnp.asarray([0.0, 1.0, 0.0]))
    pdf = scipy.stats.norm(LOC, SCALE).pdf(0.2)
    np.testing.assert_allclose(slope, pdf / pdf[1] - 1, rtol=1e-10)
    saturated = normals((jnp.asarray([0.0, 200.0, -np.inf], np.float32), *arrays(np.float32)[1:]))
    of_both = lambda law: law.log_prob(np.float32(0.3)) + law.sample(jax.random.key(0))  # noqa: E731
    grads = jax.jit(jax.grad(of_both))(saturated)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    halves = mcgrad.Mixture(mcgrad.Categorical(logits=jnp.zeros(2)), mcgrad.Exponential(jnp.asarray([1.0, 2.0])))
    value, grads = jax.jit(jax.value_and_grad(lambda law: law.log_prob(-1.0)))(halves)
    assert value == -np.inf and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@dataclasses.dataclass(frozen=True)
class _Opaque(mcgrad.Distribution):
    loc: Any
    domains: ClassVar = {"loc": mcgrad.distributions.checks.REAL}

    def sample(self, key: Any) -> Any:
        return self.loc + jax.random.normal(key, self.batch_shape)

    def log_prob(self, x: Any) -> Any:
        return -0.5 * (x - self.loc) ** 2


@pytest.mark.parametrize(
    ("components", "match"),
    [
        (lambda: _Opaque(jnp.zeros(2)), r"_Opaque has no `cdf`, which says how a draw moves with the weights"),
        (
            lambda: mcgrad.MultivariateNormal(jnp.zeros((2, 3)), scale_tril=jnp.eye(3)),
            r"draws of MultivariateNormal are vectors that `mcgrad.Independent` did not make of single numbers",
        ),
        (lambda: mcgrad.Independent(mcgrad.Uniform(jnp.zeros((2, 3)), 1.0), 1), r"the support of Uniform moves"),
        (lambda: mcgrad.Poisson(jnp.ones(2)), r"Mixture\(Poisson\) is discrete"),
    ],
)
def test_pathwise_is_refused_where_it_would_be_wrong(components: Any, match: str) -> None:
    def program(logits: Any, key: Any) -> Any:
        return jnp.sum(1.0 * mcgrad.sample(key, mcgrad.Mixture(mcgrad.Categorical(logits=logits), components())))

    with pytest.raises(ValueError, match=match):
        mcgrad.pathwise_grad(program)(jnp.zeros(2), jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: mcgrad.Mixture(jnp.ones(2), mcgrad.Normal(LOC, SCALE)),
            TypeError,
            r"mixing=...\)` must be a `mcgrad.Cat",
        ),
        (
            lambda: mcgrad.Mixture(mcgrad.Categorical(logits=jnp.zeros(2)), mcgrad.Normal(LOC, SCALE)),
            ValueError,
            r"one axis of 2 components behind it, got batch shape \(3,\) for weights of batch shape \(\)",
        ),
        (
            lambda: mcgrad.Mixture(mcgrad.Categorical(logits=jnp.zeros((2, 3))), mcgrad.Normal(LOC, SCALE)),
            ValueError,
            r"got batch shape \(3,\) for weights of batch shape \(2,\)",
        ),
    ],
)
def test_refusals(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("law", "params"),
    [
        (mcgrad.Normal, ((0.0, 1e30), 1e-10)),
        (mcgrad.Gumbel, ((0.0, 200.0), 1.0)),
        (mcgrad.ExpGamma, (1.0, (1e-30, 1e30))),
        (mcgrad.Weibull, ((1.0, 1e-3), (1.0, 20.0))),
        (mcgrad.StudentT, (2.0, (0.0, 1e30), 1e-10)),
    ],
)
def test_a_component_far_from_a_draw_gives_no_nan(law: Any, params: Any) -> None:
    """Its log density is minus infinity in float32, and has infinite derivatives, which its weight of zero must not meet."""
    params = tuple(jnp.asarray(value, jnp.float32) for value in params)

    def log_prob(params: Any, x: Any) -> Any:
        return mcgrad.Mixture(mcgrad.Categorical(logits=jnp.zeros(2, jnp.float32)), law(*params)).log_prob(x)

    x = law(*params).sample(jax.random.key(1))[0]
    value, gradients = jax.value_and_grad(log_prob, (0, 1))(params, x)
    single = jax.value_and_grad(lambda params: law(*params).log_prob(x))(tuple(jnp.atleast_1d(v)[0] for v in params))
    np.testing.assert_allclose(value, single[0] - np.log(2), rtol=1e-5, atol=1e-5)
    for gradient, exact in zip(gradients[0], single[1], strict=True):
        np.testing.assert_allclose(np.atleast_1d(gradient)[0], exact, rtol=1e-5)
        assert np.isfinite(gradient).all()
