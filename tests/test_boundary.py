"""Pathwise derivatives of costs that jump: exact with the term that each threshold adds, biased without it."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from jax.scipy.stats import norm

import mcgrad

BOUNDARY = mcgrad.PathwiseWithBoundary()
GRID = np.arange(-90_000, 90_001) * 1e-4


def draws_of(program, params, num_draws=40_000):
    keys = jax.random.split(jax.random.key(0), num_draws)
    return jax.jit(lambda keys: jax.lax.map(lambda key: mcgrad.grad(program)(params, key), keys, batch_size=4000))(keys)


def expected(cost, loc):
    """`E[cost(x)]` for a normal draw: the trapezoidal rule, with the thresholds halfway between the points of the grid."""
    return jnp.trapezoid(cost(GRID) * norm.pdf(GRID, loc), GRID)


COSTS = {
    "two pieces": lambda x: jnp.where(2.0 - 3.0 * x < 0.50015, jnp.cos(x), x**2),
    "an interval": lambda x: jnp.where((x > -0.40005) & (x <= 0.60005), 2.0, 0.1 * x),
    "thresholds at one place": lambda x: (x > 0.20005) * jnp.where(0.5 * x >= 0.100025, 3.0 + x, x),
    "opposite ways at one place": lambda x: jnp.exp(x * (x > 0.20005) + (-x > -0.20005)),
    "sign": lambda x: jnp.sign(x - 0.70005) * x,
    "out of reach": lambda x: jnp.where(x > 60.0, 1e6, x**2),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_that_jump(name):
    def program(loc, key):
        return COSTS[name](mcgrad.sample(key, mcgrad.Normal(loc, 1.0), BOUNDARY))

    assert_unbiased(draws_of(program, 0.4), jax.grad(lambda loc: expected(COSTS[name], loc))(0.4))


def test_a_branch_taken_on_the_draw():
    def branches(x):
        return jax.lax.cond(x > 0.30005, jnp.sin, lambda x: 2.0 + x, x)

    draws = draws_of(lambda loc, key: branches(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), BOUNDARY)), 0.4)
    assert_unbiased(draws, jax.grad(lambda loc: expected(jax.vmap(branches), loc))(0.4))


def test_a_step_has_no_variance_and_the_plain_path_is_biased():
    def program(loc, key, estimator):
        return 3.0 * (mcgrad.sample(key, mcgrad.Normal(loc, 2.0), estimator) > 0.5 * loc + 0.3)

    key, exact = jax.random.key(0), jax.grad(lambda loc: 3.0 * norm.sf(0.5 * loc + 0.3, loc, 2.0))(0.4)
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.float64, 1e-13)):
        found = jax.jit(mcgrad.grad(program))(jnp.asarray(0.4, dtype), jax.random.clone(key), BOUNDARY)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, exact, rtol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mcgrad.JumpWarning)
        assert jax.jit(mcgrad.grad(program))(0.4, jax.random.clone(key), mcgrad.Pathwise()) == 0.0


def test_where_nothing_jumps_the_term_is_zero():
    def program(loc, key, estimator):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0), estimator)
        return jnp.where(x > 0.5, x - 0.25, x**2 / 2 + 0.125)

    keys = jax.random.split(jax.random.key(0), 100)
    path, both = (
        jax.jit(jax.vmap(mcgrad.grad(program), (None, 0, None)))(0.4, jax.random.clone(keys), estimator)
        for estimator in (mcgrad.Pathwise(), BOUNDARY)
    )
    np.testing.assert_allclose(path, both, rtol=1e-12)


def test_batches_that_stay_apart_and_that_mix_and_later_draws():
    """Entries with their own thresholds; a cost of all entries; a later draw that both sides share."""
    thresholds = jnp.asarray([0.2, -0.3, 0.5])

    def program(params, key, estimator, later):
        keys = jax.random.split(key, 2)
        x = mcgrad.sample(keys[0], mcgrad.Normal(params["loc"], jnp.exp(params["log_scale"])), estimator)
        apart = jnp.where(x > thresholds * params["edge"], x, 2.0)
        bit = mcgrad.sample(keys[1], mcgrad.Bernoulli(logits=apart - 1.0), later)
        return jnp.sum(apart**2) + jnp.sum(jnp.where(bit == 1, apart, 0.5)) + jnp.prod(1.0 * (x > 0.1))

    params = {
        "loc": jnp.asarray([0.3, -0.1, 0.6]),
        "log_scale": jnp.asarray([-0.2, 0.1, 0.0]),
        "edge": jnp.asarray(0.8),
    }

    def exact(params):
        nodes = jnp.linspace(-1, 1, 4001)

        def one(loc, log_scale, threshold):
            scale = jnp.exp(log_scale)

            def cost(apart):
                return apart**2 + jax.nn.sigmoid(apart - 1) * (apart - 0.5) + 0.5

            x = threshold + 10.0 * (1 + nodes) / 2
            above = jnp.trapezoid(cost(x) * norm.pdf(x, loc, scale), x)
            return above + cost(2.0) * norm.cdf(threshold, loc, scale)

        apart = jnp.sum(jax.vmap(one)(params["loc"], params["log_scale"], thresholds * params["edge"]))
        return apart + jnp.prod(norm.sf(0.1, params["loc"], jnp.exp(params["log_scale"])))

    for later in (mcgrad.Score(), mcgrad.Enumerate()):
        draws = draws_of(lambda params, key: program(params, key, BOUNDARY, later), params, 60_000)  # noqa: B023
        assert_unbiased(draws, jax.grad(exact)(params))


def test_a_law_with_bounds():
    """Thresholds inside, at which the density is positive, and outside."""

    def program(high, key):
        x = mcgrad.sample(key, mcgrad.Uniform(0.0, high), BOUNDARY)
        return jnp.where(x > 0.3, x**2, 2.0) + jnp.log(jnp.where(x > -1.0, x + 1.0, 1.0))

    def exact(high):
        above = (high**3 - 0.3**3) / 3 + 0.6
        return (above + (1 + high) * jnp.log1p(high) - high) / high

    assert_unbiased(draws_of(program, 1.2), jax.grad(exact)(1.2))


REFUSED = {
    "floor": (jnp.floor, "`floor` at .* jumps other than by a comparison"),
    "a square": (lambda x: 1.0 * (x**2 > 0.3), "the comparison at .* is not of something affine in the draw"),
    "each other": (lambda x: jnp.sum(jnp.array([1.0, 2.0]) * (x > x[::-1])), "is not of something affine in the draw"),
    "in a loop": (lambda x: jax.lax.scan(lambda c, x: (c + (x > 0.3), None), 0.0, x)[0], "test_boundary.*other than"),
    "later draw": (
        lambda x: 1.0 * (x > mcgrad.sample(jax.random.key(3), mcgrad.Normal(jnp.zeros(2), 1.0))),
        "involves something that is drawn later: draw that first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_jumps_are_refused(name):
    cost, message = REFUSED[name]

    def program(loc, key):
        return jnp.sum(cost(mcgrad.sample(key, mcgrad.Normal(jnp.stack([loc, -loc]), 1.0), BOUNDARY)))

    with pytest.raises(ValueError, match=f"PathwiseWithBoundary` would be wrong at .*test_boundary.*{message}.*Score"):
        mcgrad.grad(program)(0.3, jax.random.key(0))


def test_laws_and_orders_that_are_refused():
    def program(loc, key, dist):
        return jnp.sum(1.0 * (mcgrad.sample(key, dist(loc), BOUNDARY) > 0))

    with pytest.raises(ValueError, match="scalars with a `cdf`"):
        mcgrad.grad(program)(
            0.3, jax.random.key(0), lambda p: mcgrad.MultivariateNormal(p * jnp.ones(2), scale_diag=jnp.ones(2))
        )
    with pytest.raises(ValueError, match="discrete.*Score"):
        mcgrad.grad(program)(0.3, jax.random.key(0), lambda p: mcgrad.Bernoulli(probs=p))
    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.grad(mcgrad.grad(program))(0.3, jax.random.key(0), lambda p: mcgrad.Normal(p, 1.0))


@pytest.mark.parametrize(
    ("program", "exact"),
    [
        (
            lambda t, key: jnp.where(mcgrad.sample(key, mcgrad.Uniform(0.0, 1.0)) < jax.nn.sigmoid(t), 2.0, 0.0),
            lambda t: 2 * jax.nn.sigmoid(t),
        ),
        (
            lambda t, key: jnp.where(mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)) > t, 1.0, 0.0) * t,
            lambda t: t * jax.scipy.stats.norm.sf(t),
        ),
        (
            lambda t, key: jnp.sum(
                1.0 * (mcgrad.sample(key, mcgrad.Exponential(jnp.ones(3))) < jnp.arange(1.0, 4.0) * t)
            ),
            lambda t: jnp.sum(1 - jnp.exp(-jnp.arange(1.0, 4.0) * t)),
        ),
    ],
    ids=["uniform", "normal", "exponentials"],
)
def test_named_by_the_transform_it_reaches_draws_from_constant_distributions(program, exact):
    keys = jax.random.split(jax.random.key(0), 50_000)
    found = jax.jit(jax.vmap(mcgrad.grad(program, estimator=mcgrad.PathwiseWithBoundary()), (None, 0)))(0.5, keys)
    assert_unbiased(found, jax.grad(exact)(0.5))
