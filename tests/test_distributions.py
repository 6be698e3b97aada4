"""Every distribution against SciPy, and densities against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from distributions import ORDINARY, Ordinary, call
from distributions.vectors import TRIL

from mcgrad.distributions import pathwise_obstacle

SCALAR = {name: case for name, case in ORDINARY.items() if callable(case.reference)}
DISCRETE = {name: case for name, case in SCALAR.items() if case.discrete}
CONTINUOUS = {name: case for name, case in SCALAR.items() if not case.discrete}
# Distributions whose own files check their densities too.
HEAVY = {"LKJCholesky", "MultivariateStudentT", "NoncentralChi2", "VonMisesFisher", "Wishart"}
LIGHT = [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in sorted(ORDINARY)]
U = np.array([1e-6, 0.03, 0.21, 0.49, 0.77, 0.99])  # no ties with the parameters above


def points(case: Ordinary) -> np.ndarray:
    """Values all over the law, `[n, *batch]`."""
    return case.scipy().ppf(np.broadcast_to(U.reshape(-1, 1, 1), (len(U), 2, 3)))


@pytest.mark.parametrize("name", sorted(SCALAR))
def test_log_prob_is_scipys(name: str) -> None:
    case = SCALAR[name]
    dist, frozen, x = case.dist(), case.scipy(), points(case)
    expected = frozen.logpmf(x) if dist.discrete else frozen.logpdf(x)
    np.testing.assert_allclose(call(dist, "log_prob", x), expected, rtol=1e-10, atol=1e-12)
    single = call(case.dist(np.float32), "log_prob", x.astype(np.float32))
    np.testing.assert_allclose(single, expected, rtol=2e-4, atol=2e-5)
    if getattr(dist, "prob", None) is not None:
        np.testing.assert_allclose(call(dist, "prob", x), np.exp(expected), rtol=1e-10)


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_cdf_and_icdf_are_scipys(name: str) -> None:
    case = CONTINUOUS[name]
    dist, x = case.dist(), points(case)
    u = np.broadcast_to(U.reshape(-1, 1, 1), x.shape)
    np.testing.assert_allclose(call(dist, "cdf", x), u, rtol=1e-9)
    quantiles = call(dist, "icdf", u)
    np.testing.assert_allclose(quantiles, x, rtol=1e-8)
    if getattr(dist, "survival", None) is not None:
        np.testing.assert_allclose(call(dist, "survival", x), case.scipy().sf(x), rtol=1e-9)
        np.testing.assert_allclose(call(dist, "survival", -1e9), 1.0)
    np.testing.assert_allclose(call(dist, "cdf", quantiles), u, rtol=1e-9)
    outside = np.array([-1e9, 1e9])
    with np.errstate(over="ignore"):  # inside SciPy's Gumbel law
        expected = np.stack([case.scipy().cdf(value) for value in outside])
    got = np.stack([call(dist, "cdf", value) for value in outside])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("name", sorted(DISCRETE))
def test_discrete_cdf_and_icdf_are_scipys(name: str) -> None:
    case = DISCRETE[name]
    dist, frozen = case.dist(), case.scipy()
    for x in (-1, 0, 1, 3, 50):
        np.testing.assert_allclose(call(dist, "cdf", x), np.broadcast_to(frozen.cdf(x), dist.batch_shape), rtol=1e-10)
    if getattr(dist, "icdf", None) is not None:
        for u in U:
            np.testing.assert_array_equal(call(dist, "icdf", u), frozen.ppf(u))


@pytest.mark.parametrize("name", sorted(SCALAR))
def test_draws_follow_the_law(name: str) -> None:
    case, num = SCALAR[name], 5_000
    dist, frozen = case.dist(np.float32), case.scipy()
    keys = jax.random.split(jax.random.key(3), num)
    draws = np.asarray(jax.jit(jax.vmap(dist.sample))(keys))
    assert np.isfinite(draws).all()
    for index in np.ndindex(dist.batch_shape):
        x = draws[(slice(None), *index)]
        # 1e-4 over some 80 tests: right laws pass them all with probability 99 %, and the seed is fixed
        if dist.discrete:
            values, counts = np.unique(x, return_counts=True)
            expected = num * np.broadcast_to(frozen.pmf(values.reshape(-1, 1, 1)), (len(values), 2, 3))
            column = tuple(i if n > 1 else 0 for i, n in zip(index, dist.batch_shape, strict=True))
            column = (0,) * (2 - len(column)) + column
            of_entry = expected[(slice(None), *column)]
            common = of_entry > 5
            rest = num - of_entry[common].sum()
            observed = np.append(counts[common], num - counts[common].sum())
            wanted = np.append(of_entry[common], rest)
            if wanted[-1] < 5:
                observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
            assert scipy.stats.chisquare(observed, wanted, sum_check=False).pvalue > 1e-4
        else:
            one = case.scipy_entry(index)
            assert scipy.stats.kstest(x, one.cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_pathwise_derivative_keeps_the_quantile(name: str) -> None:
    """Per draw, `dx/dtheta = -(dF/dtheta) / p(x)`, exactly."""
    case = CONTINUOUS[name]
    dist = case.dist()
    direction = jax.tree.map(lambda leaf: 0.3 + 0.1 * jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), dist)

    @jax.jit
    def velocities(dist: Any, direction: Any) -> tuple[Any, Any]:
        x, velocity = jax.jvp(lambda d: d.sample(jax.random.key(1)), (dist,), (direction,))
        _, of_theta = jax.jvp(lambda d: d.cdf(x), (dist,), (direction,))
        return velocity, -of_theta / jnp.exp(dist.log_prob(x))

    np.testing.assert_allclose(*velocities(dist, direction), rtol=1e-8)
    assert dist.reparameterized and pathwise_obstacle(dist) is None


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_density_is_the_derivative_of_the_cdf(name: str) -> None:
    case = CONTINUOUS[name]
    dist, x = case.dist(), points(case)
    _, density = jax.jit(lambda dist, x: jax.jvp(dist.cdf, (x,), (jnp.ones_like(x),)))(dist, x)
    np.testing.assert_allclose(density, np.exp(call(dist, "log_prob", x)), rtol=1e-8)


@pytest.mark.parametrize("name", LIGHT)
def test_derivatives_of_log_prob_are_finite_differences(name: str) -> None:
    dist = ORDINARY[name].dist()
    x = call(dist, "sample", jax.random.key(5))
    floats, rebuild = split_floats(dist)
    total = jax.jit(lambda leaves: jnp.sum(rebuild(leaves).log_prob(x)))
    gradient = jax.jit(jax.grad(total))(floats)
    step = 1e-6
    for i, leaf in enumerate(floats):
        for index in np.ndindex(leaf.shape):
            if np.shape(leaf) == (2, 2) and index == (0, 1) and np.array_equal(leaf, TRIL):
                continue  # above the diagonal: not read
            moved = lambda sign: np.asarray(leaf) + sign * step * one_at(leaf.shape, index)  # noqa: E731, B023
            up, down = (total([*floats[:i], moved(sign), *floats[i + 1 :]]) for sign in (1, -1))
            np.testing.assert_allclose(gradient[i][index], (up - down) / (2 * step), rtol=1e-5, atol=1e-5)
    if not dist.discrete:
        slope = np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(dist.log_prob(x))))(x))
        up, down = (call(dist, "log_prob", x + sign * step) for sign in (1, -1))
        summed = slope.sum(tuple(range(len(dist.batch_shape), x.ndim)))
        np.testing.assert_allclose(summed, (up - down) / (2 * step), rtol=1e-4, atol=1e-5)


def one_at(shape: tuple[int, ...], index: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(shape)
    array[index] = 1
    return array


def split_floats(dist: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    leaves, tree = jax.tree.flatten(dist)
    where = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def rebuild(floats: list[Any]) -> Any:
        new = list(leaves)
        for i, leaf in zip(where, floats, strict=True):
            new[i] = leaf
        return jax.tree.unflatten(tree, new)

    return [leaves[i] for i in where], rebuild
