"""Densities and draws at the edges: of a domain, of a support, of floating numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from distributions import ORDINARY, call

import mcgrad


@pytest.mark.parametrize(
    ("make", "x", "value", "slope"),
    [
        (lambda p: mcgrad.Bernoulli(probs=p), 1, 0.0, 1.0),
        (lambda p: mcgrad.Bernoulli(probs=1 - p), 0, 0.0, 1.0),
        (lambda p: mcgrad.Bernoulli(probs=p), 0, -np.inf, -np.inf),
        (lambda p: mcgrad.Bernoulli(logits=p * 800.0), 1, 0.0, 0.0),
        (lambda p: mcgrad.Bernoulli(logits=p * jnp.inf), 1, 0.0, None),
        (lambda p: mcgrad.Bernoulli(logits=-p * jnp.inf), 1, -np.inf, None),
        (lambda p: mcgrad.Binomial(3, probs=p), 3, 0.0, 3.0),
        (lambda p: mcgrad.Binomial(3, probs=1 - p), 0, 0.0, 3.0),
        (lambda p: mcgrad.Binomial(3, logits=p * jnp.inf), 3, 0.0, None),
        (lambda p: mcgrad.Binomial(0, probs=p), 0, 0.0, 0.0),
        (lambda p: mcgrad.Multinomial(3, probs=jnp.stack([p, 1 - p])), jnp.asarray([3, 0]), 0.0, 3.0),
        (lambda p: mcgrad.Multinomial(0, probs=jnp.stack([p, 1 - p])), jnp.asarray([0, 0]), 0.0, 0.0),
        (lambda p: mcgrad.Geometric(probs=p), 0, 0.0, 1.0),
        (lambda p: mcgrad.Geometric(logits=p * jnp.inf), 0, 0.0, None),
        (lambda p: mcgrad.NegativeBinomial(2.5, probs=1 - p), 0, 0.0, 2.5),
        (lambda p: mcgrad.NegativeBinomial(2.5, logits=-p * jnp.inf), 0, 0.0, None),
        (lambda p: mcgrad.NegativeBinomial(p, logits=-jnp.inf), 0, 0.0, 0.0),
        (lambda p: mcgrad.NegativeBinomial(p, probs=0.0), 3, -np.inf, 0.0),
        (lambda p: mcgrad.Poisson(1 - p), 0, 0.0, 1.0),
        (lambda p: mcgrad.Exponential(p), 0.0, 0.0, 1.0),
        (lambda p: mcgrad.Weibull(p, 1.0), 0.0, 0.0, None),
        (lambda p: mcgrad.Uniform(0.0, p), 1.0, 0.0, -1.0),
    ],
)
def test_log_prob_and_its_derivative_at_the_edge_of_a_domain(
    make: Any, x: Any, value: float, slope: float | None
) -> None:
    log_prob = lambda p: make(p).log_prob(x)  # noqa: E731
    got, got_slope, curvature = jax.jit(lambda p: (*jax.value_and_grad(log_prob)(p), jax.grad(jax.grad(log_prob))(p)))(
        1.0
    )
    np.testing.assert_allclose(got, value, atol=1e-15)
    if slope is not None:
        np.testing.assert_allclose(got_slope, slope)
    assert slope is None or not np.isnan(curvature)


@pytest.mark.parametrize(
    ("dist", "x", "value"),
    [
        (mcgrad.F(1.5, 4.0), 0.0, np.inf),
        (mcgrad.F(2.0, 4.0), 0.0, 0.0),
        (mcgrad.F(3.0, 4.0), 0.0, -np.inf),
        (mcgrad.NoncentralChi2(1.0, 1.3), 0.0, np.inf),
        (mcgrad.NoncentralChi2(2.0, 1.3), 0.0, np.log(0.5) - 0.65),
        (mcgrad.NoncentralChi2(3.0, 1.3), 0.0, -np.inf),
        (mcgrad.Kumaraswamy(1.0, 1.0), 0.0, 0.0),
        (mcgrad.Kumaraswamy(1.0, 1.0), 1.0, 0.0),
        (mcgrad.Kumaraswamy(1.0, 2.5), 0.0, np.log(2.5)),
        (mcgrad.Kumaraswamy(2.5, 1.0), 1.0, np.log(2.5)),
        (mcgrad.Kumaraswamy(0.5, 2.0), 0.0, np.inf),
        (mcgrad.Kumaraswamy(0.5, 2.0), 1.0, -np.inf),
        (mcgrad.Kumaraswamy(2.0, 0.5), 0.0, -np.inf),
        (mcgrad.Kumaraswamy(2.0, 0.5), 1.0, np.inf),
    ],
    ids=lambda value: getattr(value, "law", None),
)
def test_the_density_at_an_end_is_its_limit(dist: Any, x: float, value: float) -> None:
    np.testing.assert_allclose(call(dist, "log_prob", x), value, atol=1e-12)


INFINITE = ["HalfNormal", "Exponential", "Weibull", "Geometric, logits", "Geometric, probs"]


@pytest.mark.parametrize("x", [np.inf, -np.inf])
@pytest.mark.parametrize("name", INFINITE)
def test_at_infinity_the_density_has_no_derivative_that_is_nan(name: str, x: float) -> None:
    dist = ORDINARY[name].dist()
    value, gradient = jax.jit(jax.value_and_grad(lambda dist: jnp.sum(dist.log_prob(x))))(dist)
    assert value == -np.inf
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_weibull_density_at_zero() -> None:
    # Only to first order: the second derivative of a power of zero is NaN in JAX. Draws are never zero.
    np.testing.assert_allclose(jax.grad(lambda scale: mcgrad.Weibull(scale, 1.0).log_prob(0.0))(2.0), -0.5)


@pytest.mark.parametrize(
    ("make", "x", "slope"),
    [
        (lambda p: mcgrad.Bernoulli(probs=p), 1, 1.0),
        (lambda p: mcgrad.Bernoulli(probs=1 - p), 0, 1.0),
        (lambda p: mcgrad.Binomial(3, probs=p), 1, 3.0),
        (lambda p: mcgrad.Binomial(3, probs=p), 2, 0.0),
        (lambda p: mcgrad.Categorical(probs=jnp.stack([p, 1 - p])), 0, 1.0),
        (lambda p: mcgrad.OneHotCategorical(probs=jnp.stack([p, 1 - p])), jnp.asarray([1, 0]), 1.0),
    ],
)
def test_prob_has_a_finite_derivative_where_it_is_zero(make: Any, x: Any, slope: float) -> None:
    value, got = jax.jit(jax.value_and_grad(lambda p: make(p).prob(x)))(0.0)
    assert value == 0.0
    np.testing.assert_allclose(got, slope)


@pytest.mark.parametrize(
    ("dist", "x"),
    [
        (mcgrad.HalfNormal(1.0), -1.0),
        (mcgrad.LogNormal(0.0, 1.0), 0.0),
        (mcgrad.LogNormal(0.0, 1.0), -1.0),
        (mcgrad.Uniform(0.0, 1.0), 1.5),
        (mcgrad.Exponential(1.0), -1.0),
        (mcgrad.Weibull(1.0, 2.0), -1.0),
        (mcgrad.Pareto(1.0, 2.0), 0.5),
        (mcgrad.Kumaraswamy(1.0, 2.0), 1.5),
        (mcgrad.TruncatedNormal(0.0, 1.0, -np.inf, 3.0), 4.0),
        (mcgrad.Bernoulli(logits=0.0), 2),
        (mcgrad.Bernoulli(probs=0.5), 0.5),
        (mcgrad.Categorical(logits=jnp.zeros(3)), 3),
        (mcgrad.Categorical(probs=jnp.ones(2) / 2), -1),
        (mcgrad.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([1, 1, 0])),
        (mcgrad.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([0, 0, 0])),
        (mcgrad.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([2, -1, 1])),
        (mcgrad.Multinomial(3, probs=jnp.ones(2) / 2), jnp.asarray([1, 1])),
        (mcgrad.Multinomial(3, logits=jnp.zeros(2)), jnp.asarray([4, -1])),
        (mcgrad.Multinomial(3, logits=jnp.zeros(2)), jnp.asarray([1.5, 1.5])),
        (mcgrad.Multinomial(3, logits=jnp.asarray([0.0, -jnp.inf])), jnp.asarray([1, 2])),
        (mcgrad.Binomial(3, probs=0.5), 4),
        (mcgrad.Binomial(3, logits=0.5), -1),
        (mcgrad.Geometric(probs=0.5), -1),
        (mcgrad.Geometric(logits=0.5), 1.5),
        (mcgrad.NegativeBinomial(1.5, probs=0.5), -1),
        (mcgrad.NegativeBinomial(1.5, logits=0.5), 1.5),
        (mcgrad.NegativeBinomial(1.5, probs=0.0), 1),
        (mcgrad.NegativeBinomial(1.5, logits=-jnp.inf), 2),
        (mcgrad.Poisson(1.0), -1),
        (mcgrad.Poisson(1.0), 0.5),
    ],
    ids=lambda value: getattr(value, "law", None),
)
def test_outside_the_support_there_is_no_probability(dist: Any, x: Any) -> None:
    value, gradient = jax.jit(jax.value_and_grad(lambda d: d.log_prob(x), allow_int=True))(dist)
    assert value == -jnp.inf
    leaves = [leaf for leaf in map(np.asarray, jax.tree.leaves(gradient)) if leaf.dtype == np.float64]
    assert not any(np.isnan(leaf).any() for leaf in leaves)
    if getattr(dist, "prob", None) is not None:
        assert call(dist, "prob", x) == 0.0


def test_tails_in_float32() -> None:
    far = np.float32
    assert mcgrad.Normal(far(0), far(1e-25)).log_prob(far(0)) == pytest.approx(-0.918939 + 57.564628, rel=1e-6)
    assert mcgrad.Normal(far(0), far(1)).cdf(far(-12)) == pytest.approx(scipy.stats.norm.cdf(-12), rel=1e-4)
    assert mcgrad.Cauchy(far(0), far(1)).cdf(far(-1e8)) == pytest.approx(scipy.stats.cauchy.cdf(-1e8), rel=1e-5)
    assert mcgrad.Cauchy(far(0), far(1)).icdf(far(1e-9)) == pytest.approx(scipy.stats.cauchy.ppf(1e-9), rel=1e-5)
    assert mcgrad.Logistic(far(0), far(1)).log_prob(far(80)) == pytest.approx(-80, rel=1e-6)
    assert mcgrad.Laplace(far(0), far(1)).icdf(far(1e-30)) == pytest.approx(scipy.stats.laplace.ppf(1e-30), rel=1e-5)
    assert mcgrad.Bernoulli(logits=far(-80)).log_prob(1) == pytest.approx(-80, rel=1e-6)
    assert mcgrad.Bernoulli(probs=far(1e-9)).log_prob(0) == pytest.approx(-1e-9, rel=1e-6)


class _Zeros:
    """`jax.random.uniform` at its lowest value."""

    def __call__(self, key: Any, shape: Any = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
        return jnp.full(shape, minval, dtype)


@pytest.mark.parametrize("law", [mcgrad.Logistic, mcgrad.Cauchy, mcgrad.Weibull, mcgrad.Pareto, mcgrad.Kumaraswamy])
def test_the_lowest_uniform_number_gives_a_finite_draw(law: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.random, "uniform", _Zeros())
    dist = law(np.float32(1), np.float32(1))
    x, tangent = jax.jvp(lambda d: d.sample(jax.random.key(0)), (dist,), (dist,))
    assert np.isfinite(x) and np.isfinite(tangent) and np.isfinite(dist.log_prob(x))
    if law is not mcgrad.Cauchy:
        assert abs(x) < 18  # no outlier: float32 resolves probabilities of 6e-8, and -log of that is 16.6


def test_geometric_draws_that_do_not_fit_are_cut() -> None:
    draws = mcgrad.Geometric(probs=jnp.full(100, 1e-12, jnp.float32)).sample(jax.random.key(0))
    assert (draws > 0).all()


def test_large_poisson_rates_keep_their_digits_in_float32() -> None:
    """Terms of the size of the rate cancel; JAX's `gammaincc` gives -0.37 for 0.500 at a rate of 1e6."""
    rate = np.logspace(1, 6, 6).astype(np.float32)[:, None]
    x = np.round(rate + np.sqrt(rate) * np.linspace(-2, 2, 5))
    law = mcgrad.Poisson(jnp.asarray(rate))
    exact = scipy.stats.poisson(rate.astype(np.float64))
    np.testing.assert_allclose(call(law, "cdf", jnp.asarray(x, jnp.float32)), exact.cdf(x), rtol=3e-6)
    np.testing.assert_allclose(call(law, "log_prob", jnp.asarray(x, jnp.int32)), exact.logpmf(x), rtol=2e-6)
    slope = jax.jit(jax.grad(lambda rate: mcgrad.Poisson(rate).cdf(jnp.asarray(x, jnp.float32)).sum()))(
        jnp.asarray(rate)
    )
    np.testing.assert_allclose(slope[:, 0], -exact.pmf(x).sum(1), rtol=3e-6)


NOT_A_NUMBER = ["Normal", "Exponential", "Uniform", "Bernoulli, probs", "Multinomial, logits"]


@pytest.mark.parametrize("name", NOT_A_NUMBER)
def test_nan_is_no_value_outside_of_the_support(name: str) -> None:
    dist = ORDINARY[name].dist()
    shape = (*dist.batch_shape, *dist.event_shape)
    x = jnp.full(shape, 1.0).at[(0,) * len(shape)].set(jnp.nan)
    of_draws, of_numbers = ("log_prob", "prob"), ("cdf", "survival")
    known = [m for m in of_draws + (() if dist.event_shape else of_numbers) if getattr(dist, m, None) is not None]
    for value in jax.jit(lambda dist, x: [getattr(dist, method)(x) for method in known])(dist, x):
        assert np.isnan(value).ravel().tolist() == [True] + [False] * (value.size - 1)


@pytest.mark.parametrize("name", ["Normal", "HalfNormal", "LogNormal", "Cauchy", "Weibull", "Pareto", "Kumaraswamy"])
def test_quantiles_are_those_of_probabilities(name: str) -> None:
    case = ORDINARY[name]
    u = np.array([0.0, 1.0, np.nan, -0.5, 1.5, -np.inf, np.inf])
    dist, index = case.dist(), (0,) * len(case.dist().batch_shape)
    got = call(dist, "icdf", jnp.asarray(u).reshape(-1, *[1] * len(index)))[(slice(None), *index)]
    np.testing.assert_allclose(got, case.scipy_entry(index).ppf(u))
    slope = jax.jit(jax.grad(lambda dist: jnp.sum(dist.icdf(jnp.full(dist.batch_shape, 0.0)))))(dist)
    assert name in ("Normal", "Cauchy") or not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(slope))


def test_integers_have_minus_one_for_the_quantile_of_what_is_no_probability() -> None:
    u = jnp.asarray([0.5, jnp.nan, -0.5, 1.5])
    assert mcgrad.Bernoulli(probs=0.9).icdf(u).tolist() == [1, -1, -1, -1]
    assert mcgrad.Geometric(probs=0.5).icdf(u).tolist() == [0, -1, -1, -1]


@pytest.mark.parametrize("name", ["Exponential", "Weibull", "Pareto", "Geometric, logits"])
def test_at_infinity_the_distribution_function_has_no_derivative_that_is_nan(name: str) -> None:
    dist = ORDINARY[name].dist()
    value, gradient = jax.jit(jax.value_and_grad(lambda dist: jnp.mean(dist.cdf(jnp.inf))))(dist)
    assert value == 1.0
    assert all((np.abs(leaf) < 1e-50).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_distribution_functions_of_counts_of_any_size() -> None:
    assert call(mcgrad.NegativeBinomial(2.5, probs=0.5), "cdf", 1e308) == 1.0
