"""Laws given by their log density alone: derivatives of draws, draws, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import mcgrad
from mcgrad.distributions import distribution, implicit_reparameterization
from mcgrad.distributions.numerics.gamma import log_gamma_velocity

LINE = (-math.inf, math.inf)
# Standardized draws in the bulk and in both tails, one row a law: normal, logistic, Cauchy (heavy tails), Laplace (a kink).
Z = np.array(
    [
        [-6.0, -0.3, 0.0, 1.0, 4.5],
        [-18.0, -1.0, 0.1, 2.0, 15.0],
        [-50.0, -1.0, 0.1, 3.0, 30.0],
        [-8.0, -0.3, 0.2, 1.0, 5.0],
    ]
)
LOC, SCALE = np.array([[3.0], [-20.0], [0.5], [0.5]]), np.array([[0.01], [1.5], [2.0], [2.0]])


def unnormalized(x: Any, params: Any) -> Any:
    """The logarithm of `density((x - loc) / scale)`, its constant left out, one law a row."""
    loc, scale = params
    z = (x - loc) / scale
    logs = -0.5 * z * z, -z - 2 * jax.nn.softplus(-z), -jnp.log1p(z * z), -jnp.abs(z)
    return sum(jnp.where(jnp.arange(4)[:, None] == row, log, 0.0) for row, log in enumerate(logs)) + 7.0 * loc


@pytest.mark.parametrize(
    ("dtype", "bounds"), [(np.float64, (1e-10, 1e-10, 1e-10, 1e-6)), (np.float32, (1e-5, 1e-4, 1e-3, 1e-2))]
)
def test_derivatives_of_draws(dtype: Any, bounds: tuple[float, ...]) -> None:
    """`x = loc + scale z` moves by 1 with `loc` and by `z` with `scale`; second derivatives are zero."""
    params = tuple(jnp.broadcast_to(jnp.asarray(value, dtype), Z.shape) for value in (LOC, SCALE))
    x = jnp.asarray(LOC + SCALE * Z, dtype)
    z = (np.asarray(x, float) - LOC.astype(dtype)) / SCALE.astype(dtype)
    draw = lambda *params: implicit_reparameterization(x, params, log_prob=unnormalized)  # noqa: E731
    ones, zeros = (jnp.full(Z.shape, value, dtype) for value in (1, 0))

    @jax.jit
    def derivatives(*params: Any) -> Any:
        along = lambda *direction: jax.jvp(draw, params, direction)[1]  # noqa: E731
        return draw(*params), along(ones, zeros), along(zeros, ones)

    value, of_loc, of_scale = derivatives(*params)
    np.testing.assert_array_equal(value, x)
    assert of_loc.dtype == dtype
    for row, bound in enumerate(bounds):
        np.testing.assert_allclose(of_loc[row], np.ones(5), rtol=bound)
        np.testing.assert_allclose(of_scale[row], z[row], rtol=bound, atol=bound)


MODES = [(jax.jacfwd, jax.jacrev)] + [
    pytest.param(*modes, marks=pytest.mark.slow)
    for modes in [(jax.jacfwd, jax.jacfwd), (jax.jacrev, jax.jacfwd), (jax.jacrev, jax.jacrev)]
]


@pytest.mark.parametrize(("outer", "inner"), MODES)
def test_second_derivatives_on_the_half_line(outer: Any, inner: Any) -> None:
    """In the concentration of a gamma law, unbounded at zero for the first; against the exact rule of `mcgrad.Gamma`."""
    a = jnp.asarray([0.3, 6.0])
    x = scipy.stats.gamma.ppf(np.array([[1e-4, 0.3, 0.999]]).T, a)
    log_prob = lambda x, a: (a[None] - 1) * jnp.log(x) - x  # noqa: E731
    velocity = lambda x, a: x * log_gamma_velocity(x, jnp.log(x), jnp.broadcast_to(a, x.shape))  # noqa: E731
    draw = lambda a: implicit_reparameterization(x, a, log_prob=log_prob, support=(0, math.inf))  # noqa: E731

    @jax.jit
    def derivatives(a: Any) -> Any:
        slope, of_a = jax.jvp(velocity, (x, a), (velocity(x, a), jnp.ones_like(a)))
        return inner(draw)(a), outer(inner(draw))(a), slope, of_a

    first, second, expected, expected_second = derivatives(a)
    np.testing.assert_allclose(jnp.sum(first, -1), expected, rtol=1e-10)
    np.testing.assert_allclose(jnp.sum(second, (-1, -2)), expected_second, rtol=1e-9)


def skewed(x: Any, params: Any) -> Any:
    """A skewed generalized Gaussian density, not normalized: a kink of its curvature at `loc`, a loc far from zero."""
    z = (x - params["loc"]) / params["scale"]
    return -(jnp.abs(z) ** 1.5) * jnp.where(z < 0, jnp.exp(params["skew"]), jnp.exp(-params["skew"]))


def test_a_log_density_and_nothing_else_draws_and_trains() -> None:
    params, num = {"loc": 300.0, "scale": 0.5, "skew": 0.4}, 1_000
    cost = lambda params, x: jnp.sin(x - 300.0) + 0.1 * (x - 300.0) ** 2  # noqa: E731
    gradient = mcgrad.pathwise_grad(lambda params, x: (cost(params, x), x), log_prob=skewed, has_aux=True)
    gradients, draws = jax.jit(jax.vmap(gradient, (None, 0)))(params, jax.random.split(jax.random.key(0), num))

    x = np.linspace(290, 310, 200_001)

    def moments(params: Any) -> Any:
        density = jnp.exp(skewed(x, params))
        return jnp.sum(density * cost(params, x)) / jnp.sum(density)

    exact = jax.grad(moments)(params)
    for name, of_name in gradients.items():
        error = np.std(of_name) / np.sqrt(num)
        assert abs(np.mean(of_name) - exact[name]) < 5 * error and 5 * error < 0.2 * np.linalg.norm(
            list(exact.values())
        )
    cdf = scipy.integrate.cumulative_trapezoid(np.exp(skewed(x, params)), x, initial=0)
    assert scipy.stats.kstest(draws, lambda value: np.interp(value, x, cdf / cdf[-1])).pvalue > 1e-4


def test_quantiles_are_exact() -> None:
    """A draw is the quantile of its uniform number: gamma draws from 1e-57 to 60."""
    keys = jax.random.split(jax.random.key(1), 100)
    a = jnp.asarray([0.05, 30.0])
    law = distribution(log_prob=lambda x, a: (a - 1) * jnp.log(x) - x, support=(0, math.inf))(a)
    draws = jax.jit(jax.vmap(law.sample))(keys)
    u = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(jax.random.clone(keys))
    np.testing.assert_allclose(draws, scipy.stats.gamma.ppf(u, a), rtol=1e-8)


def test_a_sampler_without_derivatives_with_its_log_density() -> None:
    """The maximum of a categorical choice and noise has no derivative in the weights; its density has."""

    def sampler(key: Any, logit: Any) -> Any:
        key_side, key_size = jax.random.split(key)
        side = jnp.where(jax.random.bernoulli(key_side, jax.nn.sigmoid(logit)), 1.0, -1.0)
        return side * jax.random.exponential(key_size)

    def log_prob(x: Any, logit: Any) -> Any:
        return jax.nn.log_sigmoid(jnp.where(x > 0, 1.0, -1.0) * logit) - jnp.abs(x)

    gradient = mcgrad.pathwise_grad(lambda logit, x: jnp.tanh(x), sampler=sampler, log_prob=log_prob)
    keys = jax.random.split(jax.random.key(2), 600)
    gradients = jax.jit(jax.vmap(gradient, (None, 0)))(0.3, keys)
    mean = scipy.integrate.quad(lambda x: math.tanh(x) * math.exp(-x), 0, 40)[0]
    p = 1 / (1 + math.exp(-0.3))
    error = np.std(gradients) / np.sqrt(len(keys))
    assert abs(np.mean(gradients) - 2 * p * (1 - p) * mean) < 5 * error and 5 * error < 0.2 * 2 * p * (1 - p) * mean
    silent = distribution(sampler, log_prob)(0.3)
    assert not silent.reparameterized  # without `support=` nothing asks for the quadrature
    asked = distribution(sampler, log_prob, support=LINE)(0.3)
    assert asked.reparameterized and asked.log_prob(1.0) == log_prob(1.0, 0.3)


def test_a_density_that_jumps_inside_the_support_has_no_derivative() -> None:
    """Its end may move with the parameters: better no number than a wrong one."""
    log_prob = lambda x, high: jnp.where((x > 0) & (x < high), -jnp.log(high), -jnp.inf)  # noqa: E731
    draw = lambda high: implicit_reparameterization(jnp.asarray(0.7), high, log_prob=log_prob)  # noqa: E731
    assert np.isnan(jax.jit(jax.grad(draw))(2.0))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: distribution(log_prob=skewed),
            r"something to draw with, .* or `log_prob=` and `support=` for single numbers",
        ),
        (
            lambda: distribution(jax.random.normal, support=LINE),
            r"support=...\)` must come with a `log_prob` .* got none",
        ),
        (
            lambda: distribution(jax.random.normal, skewed, event_ndim=1, support=LINE),
            r"of single numbers, got event_ndim=1\. For vectors pass `standardization=`",
        ),
        (
            lambda: distribution(log_prob=skewed, support=(0.0, math.nan)),
            r"distribution\(support=...\)` must be two numbers",
        ),
        (
            lambda: distribution(jax.random.normal, skewed, cdf=skewed, support=LINE),
            r"one way to differentiate draws, got `cdf= or icdf=` and `support=`",
        ),
    ],
)
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
