"""Measure-valued derivatives: every weak derivative of every law against quadrature and sums, and what is promised of them."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import WEAK, Weak
from helpers import assert_unbiased, tanhs

import mcgrad

COUPLINGS = ("shared", "comonotone", "independent")
CONFIGURATIONS = [(d, c) for d in ("hahn_jordan", "size_bias") for c in COUPLINGS]

# of integers, or with a distribution function in closed form; the others are in test_weak_derivatives.py
CASES = {name: case for name, case in WEAK.items() if isinstance(case, Weak) and case.interval is None}


def cost(x):
    """A cost that is neither even nor odd, nor monotone, and jumps."""
    x = 1.0 * x
    return jnp.cos(0.7 * x + 0.3) + 2 * jnp.tanh(x - 0.5) + (x > 0.6) + jnp.exp(-0.5 * x**2)


def expectation(make, p):
    """The exact expectation of the cost: a sum over integers, or `int f dF` by parts on a fine grid."""
    law = make(*p)
    if law.discrete:
        values = law.support() if callable(getattr(law, "support", None)) else None
        points = jnp.arange(200) if values is None else values
        return cost(points) @ jax.vmap(lambda k: jnp.exp(law.log_prob(k)))(points)
    # nodes that do not depend on the parameters, in tan-spaced cells that reach far into both tails
    edges = jnp.concatenate([jnp.tan(jnp.linspace(-1.5705, 1.5705, 400_001)), jnp.array([-0.4, 0.6, 1.1])]).sort()
    inside = jnp.diff(law.cdf(edges))
    middle = 0.5 * (edges[1:] + edges[:-1])
    tails = cost(edges[0]) * law.cdf(edges[0]) + cost(edges[-1]) * (1 - law.cdf(edges[-1]))
    return cost(middle) @ inside + tails


@functools.cache
def exact(name):
    case = CASES[name]
    return np.asarray(jax.jit(jax.jacfwd(functools.partial(expectation, case.make)))(jnp.array(case.params)))


def gradient_draws(make, p, estimator):
    def program(p, key):
        return cost(mcgrad.sample(key, make(*p), estimator))

    keys = jax.random.split(jax.random.key(0), 100_000)
    return np.asarray(jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(jnp.array(p), keys))


def _cases():
    """The default on every law, other configurations on one law of a kind; all of them with `-m slow`."""
    for name in CASES:
        for configuration in CONFIGURATIONS:
            default = configuration == ("hahn_jordan", "shared") or name == "Normal"
            yield pytest.param(name, *configuration, marks=() if default else pytest.mark.slow)


@pytest.mark.parametrize(("name", "decomposition", "coupling"), list(_cases()))
def test_weak_derivatives_of_every_law(name, decomposition, coupling):
    case = CASES[name]
    draws = gradient_draws(case.make, case.params, mcgrad.MeasureValued(decomposition, coupling))
    if draws.std(axis=0).max() < 1e-9:
        np.testing.assert_allclose(draws[0], exact(name), rtol=1e-9)
    else:
        assert_unbiased(draws, exact(name))


def test_a_wrong_weak_derivative_fails():
    class Wrong(mcgrad.Poisson):
        def weak_derivative(self, key, x, how):
            (term,) = super().weak_derivative(key, x, how)
            return (term._replace(positive=term.positive + 1),)

    draws = gradient_draws(Wrong, [0.7], mcgrad.MeasureValued())
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(draws, exact("Poisson"))


@pytest.mark.parametrize(
    ("decomposition", "coupling", "diagonal"),
    [
        pytest.param(*c, diagonal, marks=() if c == ("hahn_jordan", "shared") else pytest.mark.slow)
        for c in CONFIGURATIONS
        for diagonal in (False, True)
    ],
)
def test_multivariate_normal(decomposition, coupling, diagonal):
    """Mean and factor, against the closed form of `E[cos(w.x + 0.4)]`."""
    w = jnp.array([0.7, -0.5, 0.9])
    factor = jnp.array([[0.8, 0.0, 0.0], [0.3, 0.6, 0.0], [-0.4, 0.5, 0.7]])
    params = (jnp.array([0.2, -0.1, 0.4]), jnp.diagonal(factor) if diagonal else factor)

    def law(params):
        name = "scale_diag" if diagonal else "scale_tril"
        return mcgrad.MultivariateNormal(params[0], **{name: params[1]})

    def program(params, key):
        return jnp.cos(mcgrad.sample(key, law(params)) @ w + 0.4)

    def expectation(params):
        loc, scale = params
        scale = jnp.diag(scale) if diagonal else jnp.tril(scale)
        return jnp.cos(loc @ w + 0.4) * jnp.exp(-0.5 * jnp.sum((w @ scale) ** 2))

    keys = jax.random.split(jax.random.key(1), 40_000 if coupling == "shared" else 150_000)
    gradient = mcgrad.measure_valued_grad(program, decomposition=decomposition, coupling=coupling)
    draws = jax.jit(jax.vmap(gradient, (None, 0)))(params, keys)
    for found, wanted in zip(draws, jax.grad(expectation)(params), strict=True):
        assert_unbiased(found.reshape(len(keys), -1), wanted.ravel())


SURVEY = json.loads((Path(__file__).parent / "survey_variances.json").read_text())["rows"]
SURVEY_COSTS = {
    "square": lambda x, k: (x - k) ** 2,
    "exp": lambda x, k: jnp.exp(-k * x**2),
    "cos": lambda x, k: jnp.cos(k * x),
}
# configuration: places of its variances in the mean and in the scale, in the rows of the file
SURVEY_PLACES = {
    ("size_bias", "independent"): (0, 0),
    ("size_bias", "shared"): (1, 1),
    ("size_bias", "comonotone"): (2, 1),
    ("hahn_jordan", "independent"): (0, 2),
    ("hahn_jordan", "comonotone"): (2, 3),
    ("hahn_jordan", "shared"): (1, 4),
}


@functools.cache
def survey_draws(cost, configuration, num_draws):
    """Deviations of the means of the gradient and of its squared deviations from exact ones, in standard errors."""
    estimator = mcgrad.MeasureValued(*configuration)

    def program(params, k, key):
        return SURVEY_COSTS[cost](mcgrad.sample(key, mcgrad.Normal(params[0], params[1]), estimator), k)

    @jax.jit
    def one(k, params, gradient, variance, key):
        def batch(key):
            keys = jax.random.split(key, num_draws // 100)
            g = jax.vmap(jax.grad(mcgrad.expectation(program)), (None, None, 0))(params, k, keys)
            v = (g - gradient[None]) ** 2
            return jnp.stack([g.mean(0), (g**2).mean(0), v.mean(0), (v**2).mean(0)])

        g, g2, v, v2 = jax.lax.map(batch, jax.random.split(key, 100)).mean(0)
        errors = [jnp.sqrt(jnp.maximum(b - a**2, 0) / num_draws) for a, b in ((g, g2), (v, v2))]
        return jnp.stack([g - gradient, v - variance]) / jnp.maximum(jnp.stack(errors), 1e-12)

    return one


def survey_statistics(cost, configuration, rows, num_draws, key):
    """For each row, parameter by parameter, `z` of the mean and of the variance of one draw."""
    one = survey_draws(cost, configuration, num_draws)
    in_mean, in_scale = SURVEY_PLACES[configuration]
    found = []
    for (_, k, mean, scale, *of_mean, in_scale_gradient, in_scale_variances), own in zip(
        rows, jax.random.split(key, len(rows)), strict=True
    ):
        gradient = jnp.array([of_mean[0], in_scale_gradient])
        variance = jnp.array([of_mean[1][in_mean], in_scale_variances[in_scale]])
        found.append(one(k, jnp.array([mean, scale]), gradient, variance, own))
    return np.asarray(found)


def assert_variances(cost, configuration, rows, num_draws):
    """Every `|z|` below 4; the rows with a larger one are drawn once more, from another key, eight times as often.

    Where most of a variance comes from rare draws its estimate is skewed: at `exp(-10 x^2)` around 2 with the scale 0.3 the mean
    of 2e6 squared deviations has a skewness of 2, by quadrature (elsewhere at most 0.1), and a `z` of four is not rare. A wrong
    variance is as wrong the second time, in standard errors nearly three times as small.
    """
    rows = [row for row in rows if row[0] == cost]
    z = np.abs(survey_statistics(cost, configuration, rows, num_draws, jax.random.key(4))).max((1, 2))
    doubtful = [row for row, found in zip(rows, z, strict=True) if not found < 4]
    if doubtful:
        again = np.abs(survey_statistics(cost, configuration, doubtful, 8 * num_draws, jax.random.key(5)))
        assert again.max() < 4, f"|z| is {z.max():.2f}, and again {again.max():.2f}, in {[row[:4] for row in doubtful]}"


def wrong(row, factor):
    """A row with other variances."""
    return [*row[:5], [factor * v for v in row[5]], row[6], [factor * v for v in row[7]]]


@pytest.mark.parametrize("configuration", [c for c in SURVEY_PLACES if c[1] == "shared"], ids=" ".join)
def test_variances_are_those_of_quadrature(configuration):
    """The whole grid with `-m slow`."""
    for cost in SURVEY_COSTS:
        assert_variances(cost, configuration, SURVEY[2:19:6], 100_000)


def test_a_wrong_variance_fails():
    with pytest.raises(AssertionError, match="and again"):
        assert_variances("cos", ("hahn_jordan", "shared"), [wrong(row, 1.02) for row in SURVEY[2:19:6]], 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", SURVEY_PLACES, ids=" ".join)
@pytest.mark.parametrize("cost", SURVEY_COSTS)
def test_variances_over_the_whole_grid(cost, configuration):
    assert_variances(cost, configuration, SURVEY, 2_000_000)


@pytest.mark.slow
def test_a_wrong_variance_of_rare_draws_is_seen():
    """There a standard error is half of the variance, so that it takes a large factor."""
    (rare,) = [row for row in SURVEY if row[:4] == ["exp", 10.0, 2.0, 0.3]]
    with pytest.raises(AssertionError, match="and again"):
        assert_variances("exp", ("hahn_jordan", "shared"), [wrong(rare, 4.0)], 2_000_000)


OWN = mcgrad.distribution(
    sampler=lambda key, s: s * jax.random.logistic(key, s.shape), cdf=lambda x, s: jax.nn.sigmoid(x / s)
)


@pytest.mark.parametrize(
    ("law", "params", "points"),
    [
        (lambda p: mcgrad.Poisson(p), jnp.full((64, 5), 1.5), 5),
        (lambda p: mcgrad.Normal(p, 1.0), jnp.zeros((64, 5)), 10),
        (lambda p: mcgrad.Exponential(p), jnp.ones((64, 5)), 10),
        (lambda p: mcgrad.Beta(p, 2.0), jnp.ones((64, 5)), 10),
        (lambda p: OWN(p), jnp.ones((64, 5)), 10),
    ],
)
def test_evaluations_grow_with_what_a_cost_mixes_only(law, params, points):
    """A batch of 64 examples with 5 latents each: what the rest is run on is counted as it is compiled."""
    w = jnp.linspace(-1.0, 1.0, 5)

    def program(p, key):
        x = mcgrad.sample(key, law(p), mcgrad.MeasureValued())
        return jnp.mean(jnp.tanh(1.0 * x @ w))

    # `tanh` once at the draw, and once at the points of each latent, for all examples together
    assert tanhs(mcgrad.grad(program), params) == [64, 64 * points]


def test_variance_does_not_grow_with_entries_and_an_offset_cancels():
    def total(p, key, size, estimator):
        x = mcgrad.sample(key, mcgrad.Normal(jnp.zeros(size), p), estimator)
        # not an addend of the output, which no estimator would weight
        return jnp.exp(jnp.log(jnp.sum(x**2) + 100.0))

    def variance(size, estimator):
        keys = jax.random.split(jax.random.key(2), 4000)
        gradient = mcgrad.grad(functools.partial(total, size=size, estimator=estimator))
        return np.asarray(jax.jit(jax.vmap(gradient, (None, 0)))(1.0, keys)).var() / size

    few, many = (variance(size, mcgrad.MeasureValued()) for size in (1, 50))
    assert many == pytest.approx(few, rel=0.2)
    assert few < 0.01 * variance(1, mcgrad.Score())


def test_constant_parameters_cost_nothing():
    def program(loc, key):
        return jnp.tanh(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.MeasureValued()))

    assert tanhs(mcgrad.grad(program), 0.3) == [1, 2]  # the two parts of `loc`; none of `scale`


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_extreme_parameters_give_finite_gradients(dtype):
    for make, params in (
        (lambda p: mcgrad.Bernoulli(logits=p), [-jnp.inf, -300.0, 0.0, 300.0, jnp.inf]),
        (lambda p: mcgrad.Bernoulli(probs=p), [0.0, 1e-30, 1.0]),
        (lambda p: mcgrad.Geometric(probs=p), [1e-7, 1.0]),
        (lambda p: mcgrad.NegativeBinomial(1.5, logits=p), [-jnp.inf, -300.0, 300.0]),
        (lambda p: mcgrad.NegativeBinomial(p + 0.1, probs=p), [0.0, 1e-30, 1 - 1e-7]),
        (lambda p: mcgrad.Poisson(p), [1e-30, 1e6]),
        (lambda p: mcgrad.Normal(0.0, p), [1e-30, 1e30]),
        (lambda p: mcgrad.Weibull(p, 0.1), [1e-20, 1e20]),
        (lambda p: mcgrad.Weibull(1.0, p), [0.05, 50.0]),
    ):

        def loss(p, key, make=make):
            return jnp.sum(jnp.tanh(1.0 * mcgrad.sample(key, make(p)).astype(dtype)))

        gradient = jax.jit(mcgrad.measure_valued_grad(loss))(jnp.array(params, dtype), jax.random.key(0))
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all(), (make(jnp.array(params, dtype)), gradient)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(
        ValueError, match=r'MeasureValued\(coupling=...\)` must be "shared", "comonotone" or "independent"'
    ):
        mcgrad.MeasureValued(coupling="best")
    with pytest.raises(ValueError, match=r'MeasureValued\(decomposition=...\)` must be "hahn_jordan" or "size_bias"'):
        mcgrad.MeasureValued("best")

    with pytest.raises(ValueError, match=r"MeasureValued\(chunk_size=...\)` must be a number of points, at least 1"):
        mcgrad.MeasureValued(chunk_size=0)

    def own(p, key, **functions):
        law = mcgrad.distribution(sampler=lambda key, p: jnp.sum(p) + jax.random.normal(key), **functions)
        return mcgrad.sample(key, law(p)) ** 2

    refused = r"MeasureValued` would be wrong at .*test_measure_valued.py.*{}.*Use `mcgrad.Pathwise\(\)` here"
    with pytest.raises(ValueError, match=refused.format("no `weak_derivative`, and is not one of .* with a `cdf`")):
        mcgrad.measure_valued_grad(own)(0.3, jax.random.key(0))

    class Rough(mcgrad.Normal):
        weak_derivative = None

        def cdf(self, x):
            return jax.scipy.special.betainc(self.scale, 2.0, x)

    with pytest.raises(ValueError, match=r"its `cdf` cannot be differentiated \(.*not supported.*Score"):
        mcgrad.measure_valued_grad(lambda p, key: mcgrad.sample(key, Rough(0.0, p)))(0.3, jax.random.key(0))
    wide = functools.partial(own, cdf=lambda x, p: jax.scipy.special.ndtr(x - jnp.sum(p)))
    with pytest.raises(ValueError, match=refused.format(r"may depend on 300 parameters.*at most 256")):
        mcgrad.measure_valued_grad(wide)(jnp.zeros(300), jax.random.key(0))

    def loss(rate, key):
        return 1.0 * mcgrad.sample(key, mcgrad.Poisson(rate), mcgrad.MeasureValued())

    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.hessian(mcgrad.expectation(loss))(1.0, jax.random.key(0))


def test_samples_chunks_and_auxiliary_output():
    def loss(rate, key):
        x = mcgrad.sample(key, mcgrad.Poisson(rate))
        return jnp.sin(1.0 * x), x

    key = jax.random.key(0)
    whole, aux = mcgrad.measure_valued_grad(loss, num_samples=8, has_aux=True)(1.5, key)
    chunked, _ = mcgrad.measure_valued_grad(loss, num_samples=8, chunk_size=2, has_aux=True)(1.5, key)
    np.testing.assert_allclose(whole, chunked, rtol=1e-12)
    assert aux.shape == (8,)


def test_perturbed_points_in_chunks_take_the_memory_of_one():
    def compiled(size, chunk_size):
        grid = jnp.linspace(0.0, 1.0, 500)

        def program(p, key):
            x = mcgrad.sample(key, mcgrad.Normal(p, 1.0), mcgrad.MeasureValued(chunk_size=chunk_size))
            return jnp.mean(jnp.prod(jnp.cos(x[:, None] * grid[None]), axis=0))

        with jax.default_device(jax.devices("cpu")[0]):  # others fuse much of what is held in memory
            p, key = jnp.linspace(-1, 1, size), jax.random.key(0)
            run = jax.jit(mcgrad.grad(program)).lower(p, key).compile()
            return run(p, key), run.memory_analysis().temp_size_in_bytes

    (whole, most), (chunked, least) = compiled(60, None), compiled(60, 7)
    np.testing.assert_allclose(chunked, whole, rtol=1e-9, atol=1e-15)
    assert most > 5 * least
    assert compiled(180, 7)[1] < 4 * least  # three times as many points, each three times as large


def test_a_weak_derivative_by_hand_is_exact():
    """`dp = dp1 (delta_1 - delta_0)` for a coin: both points whatever the draw, so no variance. Other names are ignored."""

    class Coin(mcgrad.Bernoulli):
        def weak_derivative(self, key, x, how):
            one = jnp.ones_like(x)
            return (mcgrad.WeakDerivative(("probs", "no field"), self.probs[None], one[None], 0 * one[None]),)

    def loss(p, key):
        return jnp.exp(1.0 * mcgrad.sample(key, Coin(probs=p), mcgrad.MeasureValued()))

    draws = jax.vmap(mcgrad.grad(loss), (None, 0))(0.3, jax.random.split(jax.random.key(0), 50))
    np.testing.assert_allclose(draws, jnp.e - 1, rtol=1e-12)
