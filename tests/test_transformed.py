"""Transformed laws against laws with a name, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased

import mcgrad

Exp = mcgrad.bijection(jnp.exp, jnp.log)
Power = mcgrad.bijection(lambda x, k: x**k, lambda y, k: jnp.where(y > 0, y, jnp.nan) ** (1 / k), keeps_support=True)
Affine = mcgrad.bijection(
    lambda x, tril: jnp.einsum("ij,...j->...i", tril, x),
    lambda y, tril: jnp.einsum("ij,...j->...i", jnp.linalg.inv(tril), y),
    event_ndim=1,
    keeps_support=True,
)
# Rising, falling on the half line, falling with a moved bound.
CASES = {
    "log-normal": (
        lambda: mcgrad.Transformed(mcgrad.Normal(0.3, 0.8), Exp()),
        scipy.stats.lognorm(0.8, scale=np.exp(0.3)),
    ),
    "weibull": (lambda: mcgrad.Transformed(mcgrad.Exponential(1.0), Power(0.5)), scipy.stats.weibull_min(2.0)),
    "inverse": (lambda: mcgrad.Transformed(mcgrad.Exponential(1.5), Power(-1.0)), scipy.stats.invgamma(1.0, scale=1.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_densities_and_distribution_functions_are_scipys(name: str) -> None:
    make, frozen = CASES[name]
    dist, u = make(), np.array([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
    y = frozen.ppf(u)

    @jax.jit
    def all_of(y: Any, u: Any) -> Any:
        one = lambda y, u: (dist.log_prob(y), dist.cdf(y), dist.survival(y), dist.icdf(u))  # noqa: E731
        return jax.vmap(one)(y, u)

    for got, expected in zip(all_of(y, u), (frozen.logpdf(y), frozen.cdf(y), frozen.sf(y), y), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert dist.cdf(-1.0) == 0 and dist.survival(-1.0) == 1
    value, gradient = jax.value_and_grad(lambda dist: dist.log_prob(-1.0))(dist)
    assert value == -np.inf and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_vectors_and_sums_over_event_axes() -> None:
    tril = jnp.asarray([[1.0, 0.0], [-0.5, 2.0]])
    standard = mcgrad.Independent(mcgrad.Normal(jnp.zeros((3, 2)), 1.0), 1)
    dist = mcgrad.Transformed(standard, Affine(tril))
    y = jnp.asarray([[0.3, -4.0], [1.0, 1.0], [2.0, 2.0]])
    named = mcgrad.MultivariateNormal(jnp.zeros(2), scale_tril=tril)
    np.testing.assert_allclose(dist.log_prob(y), named.log_prob(y), rtol=1e-12)
    assert dist.cdf is None and dist.icdf is None and dist.support_parameters == () and dist.event_ndim == 1
    elementwise = mcgrad.Transformed(standard, Exp())
    np.testing.assert_allclose(
        elementwise.log_prob(jnp.abs(y)), mcgrad.LogNormal(0.0, 1.0).log_prob(jnp.abs(y)).sum(-1)
    )


def test_expectations_by_every_representation() -> None:
    """Pathwise to second order, score, and measure-valued for a bijection without parameters: the mean of a log-normal law."""
    params = jnp.asarray([0.2, 0.3])
    exact = lambda p: jnp.exp(p[0] + p[1] ** 2 / 2)  # noqa: E731
    fixed = lambda p, key: mcgrad.sample(key, mcgrad.Transformed(mcgrad.Normal(p[0], p[1]), Exp()))  # noqa: E731
    shifted = mcgrad.bijection(lambda x, loc: jnp.exp(x + loc), lambda y, loc: jnp.log(y) - loc, keeps_support=True)
    moved = lambda p, key: mcgrad.sample(key, mcgrad.Transformed(mcgrad.Normal(0.0, p[1]), shifted(p[0])))  # noqa: E731

    @jax.jit
    def draws(keys: Any) -> Any:
        path = jax.grad(mcgrad.expectation(moved, estimator=mcgrad.Pathwise()))
        firsts = [path] + [mcgrad.grad(fixed, estimator=e) for e in (mcgrad.Score(), mcgrad.MeasureValued())]
        return [jax.vmap(fn, (None, 0))(params, keys) for fn in (*firsts, jax.jacfwd(path))]

    *firsts, second = draws(jax.random.split(jax.random.key(0), 110_000))
    for first in firsts:
        assert_unbiased(first, jax.grad(exact)(params))
    assert_unbiased(second, jax.hessian(exact)(params))


def test_what_a_bijection_does_not_say_is_not_assumed() -> None:
    shift = mcgrad.bijection(lambda x, loc: jnp.exp(x) + loc, lambda y, loc: jnp.log(y - loc))
    dist = mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), shift(0.5))
    assert dist.support_parameters == ("bijection.params[0]",) and dist.reparameterized and dist.weak_derivative is None
    program = lambda loc, key: mcgrad.sample(key, mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), shift(loc)))  # noqa: E731
    with pytest.raises(ValueError, match=r"the support moves with `bijection.params\[0\]`"):
        mcgrad.score_grad(program)(0.5, jax.random.key(0))
    silent = mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), mcgrad.bijection(jnp.exp)())
    assert silent.log_prob is None and silent.cdf is None and silent.icdf is not None
    stuck = mcgrad.bijection(lambda x, n: x + jnp.floor(n), keeps_support=True)
    assert (
        "derivative in `bijection.params[0]`"
        in mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), stuck(1.5)).pathwise_obstacle
    )
    opaque = mcgrad.distribution(lambda key, n: jnp.floor(n) + jax.random.normal(key))(1.5)
    assert "depends on `params[0]`" in mcgrad.Transformed(opaque, Exp()).pathwise_obstacle


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: mcgrad.bijection(3.0), TypeError, r"bijection\(forward=...\)` must be a function, got 3.0"),
        (lambda: mcgrad.bijection(jnp.exp, event_ndim=2), ValueError, r"event_ndim=...\)` must be 0 or 1, got 2"),
        (
            lambda: mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), jnp.exp),
            TypeError,
            r"must have `forward`, got .*Make one",
        ),
        (lambda: mcgrad.Transformed(mcgrad.Poisson(1.0), Exp()), ValueError, r"must be continuous, got Poisson"),
        (
            lambda: mcgrad.Transformed(mcgrad.Normal(jnp.zeros(2), 1.0), Affine(jnp.eye(2))),
            ValueError,
            r"must have 1 event axis for this bijection, got event shape \(\)",
        ),
        (
            lambda: mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), Power(jnp.ones(3))),
            ValueError,
            r"must keep the shape \(\) of a draw of the base, got \(3,\)",
        ),
    ],
)
def test_refusals(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()
