"""Distribution functions of the beta, F and Student laws: values, both tails, derivatives, and what is made of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import assert_unbiased, central_difference

import mcgrad
from mcgrad import distributions as laws
from mcgrad.distributions.derivatives.beta import log_odds_cdf

SHAPES = np.array([0.01, 0.5, 1.0, 5.0, 100.0, 1e4])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_both_tails_of_the_log_odds_are_exact(dtype: Any, bound: float) -> None:
    a, b, away = (v.ravel() for v in np.meshgrid(SHAPES, SHAPES, [-4.0, -1.0, 0.3, 3.0], indexing="ij"))
    a, b, y = (v.astype(dtype) for v in (a, b, np.log(a / b) + away * np.sqrt(1 / a + 1 / b)))
    a, b, y = (v[y < 7] for v in (a, b, y))  # beyond, scipy is given too few digits of one minus the draw
    below, above = jax.jit(lambda y, a, b: (log_odds_cdf(y, a, b), log_odds_cdf(-y, b, a)))(y, a, b)
    y, a, b = (np.asarray(v, float) for v in (y, a, b))
    exact = [function(a, b, scipy.special.expit(y)) for function in (scipy.special.betainc, scipy.special.betaincc)]
    # to the rounding of the log odds too, and of the logarithms that say how far they are from the mode
    density = np.exp(a * scipy.special.log_expit(y) + b * scipy.special.log_expit(-y) - scipy.special.betaln(a, b))
    rounding = np.finfo(dtype).eps * (np.abs(y) + np.abs(np.log(a)) + np.abs(np.log(b)))
    for found, wanted in zip((below, above), exact, strict=True):
        assert found.dtype == dtype
        assert (np.abs(found - wanted) <= bound * wanted + 2 * rounding * density + np.finfo(dtype).tiny).all()


CASES = {
    "Beta": ((2.4, 0.7), [1e-3, 0.3, -0.5, 0.9, 1.0, 2.0, np.nan], scipy.stats.beta),
    "F": ((3.1, 1.2), [1e-3, 0.8, -1.0, 40.0, np.inf, np.nan], scipy.stats.f),
    "StudentT": ((2.6, 0.3, 0.8), [-1.0, 0.4, -50.0, 0.3, 6.0, -np.inf, np.inf, np.nan], scipy.stats.t),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "F")) for name in CASES])
def test_distribution_functions_are_scipys_with_their_derivatives(name: str) -> None:
    params, points, reference = CASES[name]
    x = jnp.asarray(points)

    @jax.jit
    def found(params: Any, x: Any) -> Any:
        moving = lambda params: getattr(laws, name)(*params).cdf(x)  # noqa: E731
        law = getattr(laws, name)(*params)
        slope = jax.jvp(law.cdf, (x,), (jnp.ones_like(x),))[1]
        return moving(params), law.survival(x), law.log_prob(x), slope, jax.jacfwd(moving)(params)

    cdf, survival, log_prob, slope, in_params = found(params, x)
    np.testing.assert_allclose(cdf, reference.cdf(points, *params), rtol=1e-12, atol=1e-100)
    np.testing.assert_allclose(survival, reference.sf(points, *params), rtol=1e-12, atol=1e-100)
    # at the ends of the beta law the distribution function is constant from outside
    interior = (cdf > 0) & (cdf < 1)
    np.testing.assert_allclose(slope[interior], jnp.exp(log_prob)[interior], rtol=1e-12)
    for i, value in enumerate(params):

        def at(v: Any, i: int = i) -> np.ndarray:
            return reference.cdf(points, *params[:i], v, *params[i + 1 :])

        exact = central_difference(at, value, 1e-2 * value)
        number = ~np.isnan(points)
        np.testing.assert_allclose(in_params[i][number], exact[number], rtol=1e-8, atol=1e-11)


@pytest.mark.slow
def test_second_derivatives_are_those_of_first_ones() -> None:
    for name, (params, points, _) in CASES.items():
        x = jnp.asarray(points[:2])
        first = jax.jit(jax.jacfwd(lambda *p, name=name, x=x: getattr(laws, name)(*p).cdf(x).sum(), range(len(params))))
        second = jax.jit(jax.jacrev(lambda *p, first=first: jnp.stack(first(*p)), range(len(params))))(*params)
        for i, value in enumerate(params):

            def at(v: Any, i: int = i, first: Any = first, params: Any = params) -> np.ndarray:
                return np.asarray(first(*params[:i], v, *params[i + 1 :]))

            np.testing.assert_allclose(second[i], central_difference(at, value, 1e-2 * value), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_mixtures_of_them_move_and_costs_that_jump_have_their_boundary() -> None:
    """The derivative of a probability, and of a mean, exact by the weights of the mixture."""
    components = {
        "Beta": lambda p: laws.Beta(jnp.stack([p, 3.0 * p]), 2.0),
        "F": lambda p: laws.F(3.0, jnp.stack([6.0 * p, 9.0 * p])),
        "StudentT": lambda p: laws.StudentT(9.0, jnp.stack([p, -2.0 * p]), 1.0),
    }
    means = {
        "Beta": lambda p: jnp.stack([p / (p + 2), 3 * p / (3 * p + 2)]),
        "F": lambda p: jnp.stack([6 * p / (6 * p - 2), 9 * p / (9 * p - 2)]),
        "StudentT": lambda p: jnp.stack([p, -2 * p]),
    }
    point = jnp.asarray([1.3, 0.4])
    for name, build in components.items():

        def cost(v: Any, key: Any, build: Any = build) -> Any:
            mixing = laws.Categorical(logits=jnp.stack([0.0 * v[1], v[1]]))
            return mcgrad.sample(key, laws.Mixture(mixing, build(v[0])), mcgrad.Pathwise())

        def exact(v: Any, name: str = name) -> Any:
            return jax.nn.softmax(jnp.stack([0.0 * v[1], v[1]])) @ means[name](v[0])

        keys = jax.random.split(jax.random.key(0), 40_000)
        found = jax.jit(jax.vmap(mcgrad.grad(cost), (None, 0)))(point, keys)
        wanted = jax.grad(exact)(point)
        assert_unbiased(found, wanted)

        def jumps(p: Any, key: Any, build: Any = build) -> Any:
            return jnp.where(mcgrad.sample(key, build(p), mcgrad.PathwiseWithBoundary()) < 0.4, 1.0, 0.0).sum()

        found = jax.jit(jax.vmap(mcgrad.grad(jumps), (None, 0)))(point[0], keys[:100])
        wanted = jax.grad(lambda p, build=build: build(p).cdf(0.4).sum())(point[0])
        np.testing.assert_allclose(found, jnp.full(100, wanted), rtol=1e-9)
