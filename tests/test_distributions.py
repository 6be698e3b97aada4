"""Every law against SciPy: densities, distribution functions, draws, derivatives, shapes, dtypes, edges, refusals."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mcgrad import distributions as laws


@dataclasses.dataclass(frozen=True)
class Case:
    """A law, parameters (broadcasting `[2, 1]` with `[3]`), and SciPy's law with the same."""

    make: Callable[..., Any]
    params: dict[str, Any]
    reference: Callable[..., Any]

    def dist(self, dtype: Any = np.float64) -> Any:
        return self.make(**{name: jnp.asarray(value, dtype) for name, value in self.params.items()})

    def scipy(self) -> Any:
        return self.reference(**{name: np.asarray(value) for name, value in self.params.items()})


class _Kumaraswamy(scipy.stats.rv_continuous):
    """SciPy has none."""

    def _pdf(self, x: Any, a: Any, b: Any) -> Any:
        return a * b * x ** (a - 1) * (1 - x**a) ** (b - 1)

    def _cdf(self, x: Any, a: Any, b: Any) -> Any:
        return 1 - (1 - x**a) ** b

    def _ppf(self, u: Any, a: Any, b: Any) -> Any:
        return (1 - (1 - u) ** (1 / b)) ** (1 / a)


LOC = [[0.5], [-2.0]]
SCALE = [0.5, 1.0, 3.0]
CONTINUOUS = {
    "Normal": Case(laws.Normal, {"loc": LOC, "scale": SCALE}, scipy.stats.norm),
    "HalfNormal": Case(laws.HalfNormal, {"scale": SCALE}, lambda scale: scipy.stats.halfnorm(scale=scale)),
    "LogNormal": Case(
        laws.LogNormal,
        {"loc": LOC, "scale": [0.5, 1.0, 0.2]},
        lambda loc, scale: scipy.stats.lognorm(scale, scale=np.exp(loc)),
    ),
    "Uniform": Case(
        laws.Uniform, {"low": LOC, "high": SCALE}, lambda low, high: scipy.stats.uniform(low, np.asarray(high) - low)
    ),
    "Exponential": Case(laws.Exponential, {"rate": SCALE}, lambda rate: scipy.stats.expon(scale=1 / rate)),
    "Laplace": Case(laws.Laplace, {"loc": LOC, "scale": SCALE}, scipy.stats.laplace),
    "Logistic": Case(laws.Logistic, {"loc": LOC, "scale": SCALE}, scipy.stats.logistic),
    "Cauchy": Case(laws.Cauchy, {"loc": LOC, "scale": SCALE}, scipy.stats.cauchy),
    "Gumbel": Case(laws.Gumbel, {"loc": LOC, "scale": SCALE}, scipy.stats.gumbel_r),
    "Weibull": Case(
        laws.Weibull,
        {"scale": [[0.5], [2.0]], "concentration": [0.7, 1.0, 2.5]},
        lambda scale, concentration: scipy.stats.weibull_min(concentration, scale=scale),
    ),
    "Kumaraswamy": Case(
        laws.Kumaraswamy,
        {"concentration1": [[0.5], [2.0]], "concentration0": [0.7, 1.0, 2.5]},
        lambda concentration1, concentration0: _Kumaraswamy(0, 0, 1, shapes="a, b")(concentration1, concentration0),
    ),
    "Pareto": Case(
        laws.Pareto,
        {"scale": [[0.5], [2.0]], "concentration": [0.7, 1.0, 2.5]},
        lambda scale, concentration: scipy.stats.pareto(concentration, scale=scale),
    ),
}
CONTINUOUS["Uniform"] = dataclasses.replace(CONTINUOUS["Uniform"], params={"low": [[0.25], [-2.0]], "high": SCALE})


def sigmoid(x: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x)))


PROBS = [0.1, 0.5, 0.8]
LOGITS = [[-1.0], [2.0]]
COUNT = jnp.asarray([[4], [9]])
DISCRETE = {
    "Bernoulli-logits": Case(laws.Bernoulli, {"logits": LOGITS}, lambda logits: scipy.stats.bernoulli(sigmoid(logits))),
    "Bernoulli-probs": Case(laws.Bernoulli, {"probs": PROBS}, lambda probs: scipy.stats.bernoulli(probs)),
    "Binomial-logits": Case(
        lambda logits: laws.Binomial(COUNT, logits=logits),
        {"logits": LOGITS},
        lambda logits: scipy.stats.binom(np.asarray(COUNT), sigmoid(logits)),
    ),
    "Binomial-probs": Case(
        lambda probs: laws.Binomial(COUNT, probs=probs),
        {"probs": PROBS},
        lambda probs: scipy.stats.binom(np.asarray(COUNT), probs),
    ),
    "Geometric-logits": Case(
        laws.Geometric, {"logits": LOGITS}, lambda logits: scipy.stats.geom(sigmoid(logits), loc=-1)
    ),
    "Geometric-probs": Case(laws.Geometric, {"probs": PROBS}, lambda probs: scipy.stats.geom(probs, loc=-1)),
    "NegativeBinomial-logits": Case(
        laws.NegativeBinomial,
        {"total_count": [0.7, 1.0, 4.0], "logits": LOGITS},
        lambda total_count, logits: scipy.stats.nbinom(total_count, sigmoid(-logits)),
    ),
    "NegativeBinomial-probs": Case(
        laws.NegativeBinomial,
        {"total_count": [[0.3], [20.0]], "probs": PROBS},
        lambda total_count, probs: scipy.stats.nbinom(total_count, 1 - probs),
    ),
    "Poisson": Case(laws.Poisson, {"rate": SCALE}, lambda rate: scipy.stats.poisson(rate)),
}
SCALAR = CONTINUOUS | DISCRETE
WEIGHTS = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
TRIL = np.array([[1.0, 0.0], [-0.5, 2.0]])
VECTOR_PARAMS = {
    "Categorical-logits": (laws.Categorical, {"logits": np.log(WEIGHTS) + 1.0}),
    "Categorical-probs": (laws.Categorical, {"probs": WEIGHTS}),
    "OneHotCategorical-logits": (laws.OneHotCategorical, {"logits": np.log(WEIGHTS) + 1.0}),
    "OneHotCategorical-probs": (laws.OneHotCategorical, {"probs": WEIGHTS}),
    "Multinomial-logits": (functools.partial(laws.Multinomial, 5), {"logits": np.log(WEIGHTS) + 1.0}),
    "Multinomial-probs": (functools.partial(laws.Multinomial, jnp.asarray([4, 30])), {"probs": WEIGHTS}),
    "MultivariateNormal-tril": (laws.MultivariateNormal, {"loc": np.ones((3, 2)), "scale_tril": TRIL}),
    "MultivariateNormal-diag": (laws.MultivariateNormal, {"loc": np.ones((3, 2)), "scale_diag": np.array([0.5, 2.0])}),
    "Gamma": (laws.Gamma, {"concentration": np.array([[0.6], [4.0]]), "rate": np.array(SCALE)}),
    "ExpGamma": (laws.ExpGamma, {"concentration": np.array([[0.6], [4.0]]), "rate": np.array(SCALE)}),
    "InverseGamma": (laws.InverseGamma, {"concentration": np.array([[0.6], [4.0]]), "rate": np.array(SCALE)}),
    "StudentT": (laws.StudentT, {"df": np.array([[1.5], [4.0]]), "loc": np.array(SCALE), "scale": np.array(SCALE)}),
    "Chi2": (laws.Chi2, {"df": np.array(SCALE)}),
    "Beta": (laws.Beta, {"concentration1": np.array([[0.6], [4.0]]), "concentration0": np.array(SCALE)}),
    "TruncatedNormal": (
        laws.TruncatedNormal,
        {"loc": np.array(LOC), "scale": np.array(SCALE), "low": -3.0, "high": 0.7},
    ),
    "VonMises": (laws.VonMises, {"loc": np.array(LOC), "concentration": np.array(SCALE)}),
    "InverseGaussian": (laws.InverseGaussian, {"mean": np.array(SCALE), "concentration": np.array(SCALE)}),
    "F": (laws.F, {"df1": np.array([[1.5], [4.0]]), "df2": np.array(SCALE)}),
    "Dirichlet": (laws.Dirichlet, {"concentration": np.array([[0.6, 2.0, 1.0], [4.0, 0.5, 3.0]])}),
    "MultivariateStudentT": (
        laws.MultivariateStudentT,
        {"df": np.array([1.5, 4.0, 9.0]), "loc": np.ones((3, 2)), "scale_tril": TRIL},
    ),
    "NoncentralChi2": (laws.NoncentralChi2, {"df": np.array([[0.6], [4.0]]), "noncentrality": np.array(SCALE)}),
    "VonMisesFisher": (
        laws.VonMisesFisher,
        {"mean_direction": np.array([[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]]), "concentration": np.array([0.5, 3.0])},
    ),
    "Wishart": (laws.Wishart, {"concentration": np.array([1.5, 4.0]), "scale_tril": TRIL}),
    "LKJCholesky": (functools.partial(laws.LKJCholesky, 3), {"concentration": np.array([0.6, 3.0])}),
}


@functools.cache
def every_dist(dtype: Any = np.float64) -> dict[str, Any]:
    made = {name: case.dist(dtype) for name, case in SCALAR.items()}
    for name, (make, params) in VECTOR_PARAMS.items():
        made[name] = make(**{key: jnp.asarray(value, dtype) for key, value in params.items()})
    made["Independent"] = laws.Independent(laws.Normal(jnp.zeros((2, 3), dtype), 1.0), 1)
    made["Independent-Bernoulli"] = laws.Independent(laws.Bernoulli(logits=jnp.ones((2, 3), dtype)), 1)
    made["Mixture"] = laws.Mixture(
        laws.Categorical(probs=jnp.ones(2, dtype) / 2), laws.Normal(jnp.zeros((3, 2), dtype), 1.0)
    )
    made["Transformed"] = laws.Transformed(
        laws.Normal(jnp.zeros((2, 3), dtype), 1.0), laws.bijection(jnp.exp, jnp.log)()
    )
    return made


ALL = sorted(every_dist())
# What is the same for every law, and slow for its many small operations: every third by default, all with `-m slow`.
SOME = [pytest.param(name, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, name in enumerate(ALL)]
# Laws whose own files check their densities too.
HEAVY = {"LKJCholesky", "MultivariateStudentT", "NoncentralChi2", "VonMisesFisher", "Wishart"}
LIGHT = [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in ALL]
U = np.array([1e-6, 0.03, 0.21, 0.49, 0.77, 0.99])  # no ties with the parameters above


def points(case: Case) -> np.ndarray:
    """Values all over the law, `[n, *batch]`."""
    return case.scipy().ppf(np.broadcast_to(U.reshape(-1, 1, 1), (len(U), 2, 3)))


@pytest.mark.parametrize("name", sorted(SCALAR))
def test_log_prob_is_scipys(name: str) -> None:
    case = SCALAR[name]
    dist, frozen, x = case.dist(), case.scipy(), points(case)
    expected = frozen.logpmf(x) if dist.discrete else frozen.logpdf(x)
    np.testing.assert_allclose(dist.log_prob(x), expected, rtol=1e-10, atol=1e-12)
    single = case.dist(np.float32).log_prob(x.astype(np.float32))
    np.testing.assert_allclose(single, expected, rtol=2e-4, atol=2e-5)
    if laws.knows(dist, laws.HasProb):
        np.testing.assert_allclose(dist.prob(x), np.exp(expected), rtol=1e-10)


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_cdf_and_icdf_are_scipys(name: str) -> None:
    case = CONTINUOUS[name]
    dist, x = case.dist(), points(case)
    u = np.broadcast_to(U.reshape(-1, 1, 1), x.shape)
    np.testing.assert_allclose(dist.cdf(x), u, rtol=1e-9)
    np.testing.assert_allclose(dist.icdf(u), x, rtol=1e-8)
    if laws.knows(dist, laws.HasSurvival):
        np.testing.assert_allclose(dist.survival(x), case.scipy().sf(x), rtol=1e-9)
        np.testing.assert_allclose(dist.survival(-1e9), 1.0)
    np.testing.assert_allclose(dist.cdf(dist.icdf(u)), u, rtol=1e-9)
    outside = np.array([-1e9, 1e9])
    with np.errstate(over="ignore"):  # inside SciPy's Gumbel law
        expected = np.stack([case.scipy().cdf(value) for value in outside])
    got = jnp.stack([dist.cdf(value) for value in outside])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("name", sorted(DISCRETE))
def test_discrete_cdf_and_icdf_are_scipys(name: str) -> None:
    case = DISCRETE[name]
    dist, frozen = case.dist(), case.scipy()
    for x in (-1, 0, 1, 3, 50):
        np.testing.assert_allclose(dist.cdf(x), np.broadcast_to(frozen.cdf(x), dist.batch_shape), rtol=1e-10)
    if laws.knows(dist, laws.HasIcdf):
        for u in U:
            np.testing.assert_array_equal(dist.icdf(u), frozen.ppf(u))


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
            one = laws_entry(case, index)
            assert scipy.stats.kstest(x, one.cdf).pvalue > 1e-4


def laws_entry(case: Case, index: tuple[int, ...]) -> Any:
    shape = np.broadcast_shapes(*(np.shape(value) for value in case.params.values()))
    return case.reference(**{name: np.broadcast_to(value, shape)[index] for name, value in case.params.items()})


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_pathwise_derivative_keeps_the_quantile(name: str) -> None:
    """Per draw, `dx/dtheta = -(dF/dtheta) / p(x)`, exactly."""
    case = CONTINUOUS[name]
    dist = case.dist()
    direction = jax.tree.map(lambda leaf: 0.3 + 0.1 * jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), dist)
    x, velocity = jax.jvp(lambda d: d.sample(jax.random.key(1)), (dist,), (direction,))
    _, of_theta = jax.jvp(lambda d: d.cdf(x), (dist,), (direction,))
    np.testing.assert_allclose(velocity, -of_theta / jnp.exp(dist.log_prob(x)), rtol=1e-8)
    assert dist.reparameterized and laws.pathwise_obstacle(dist) is None


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_density_is_the_derivative_of_the_cdf(name: str) -> None:
    case = CONTINUOUS[name]
    dist, x = case.dist(), points(case)
    _, density = jax.jvp(dist.cdf, (x,), (np.ones_like(x),))
    np.testing.assert_allclose(density, np.exp(dist.log_prob(x)), rtol=1e-8)


@pytest.mark.parametrize("name", LIGHT)
def test_derivatives_of_log_prob_are_finite_differences(name: str) -> None:
    dist = every_dist()[name]
    x = dist.sample(jax.random.key(5))
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
        slope = jax.grad(lambda x: jnp.sum(dist.log_prob(x)))(x)
        up, down = (dist.log_prob(x + sign * step) for sign in (1, -1))
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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtypes(name: str, dtype: Any) -> None:
    dist = every_dist(dtype)[name]
    x = jax.eval_shape(dist.sample, jax.random.key(0))
    assert x.shape == dist.batch_shape + dist.event_shape and len(dist.event_shape) == dist.event_ndim
    assert x.dtype == (jnp.int32 if dist.discrete else dtype)
    log_prob = jax.eval_shape(dist.log_prob, x)
    assert log_prob.shape == dist.batch_shape and log_prob.dtype == dtype


@pytest.mark.parametrize("name", SOME)
def test_jit_vmap_and_pytree(name: str) -> None:
    dist = every_dist(np.float32)[name]
    x = jax.jit(lambda d, key: d.sample(key))(dist, jax.random.key(0))
    log_prob = dist.log_prob(x)
    assert np.isfinite(log_prob).all()
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), dist)
    mapped = jax.jit(jax.vmap(lambda d: d.log_prob(x)))(twice)
    np.testing.assert_allclose(mapped, jnp.stack([log_prob, log_prob]), rtol=1e-4)

    leaves, tree = jax.tree.flatten(dist)
    again = jax.tree.unflatten(tree, leaves)
    np.testing.assert_array_equal(again.log_prob(x), log_prob)
    jax.tree.map(lambda leaf: -leaf, dist)  # a gradient is no distribution, and is not checked as one
    jax.tree.map(lambda leaf: None, dist)


@pytest.mark.parametrize("name", SOME)
def test_traced_parameters_build_the_law_under_jit_and_vmap(name: str) -> None:
    if name in SCALAR:
        case = SCALAR[name]
        make, params = case.make, {key: jnp.asarray(value) for key, value in case.params.items()}
    elif name in VECTOR_PARAMS:
        make, params = VECTOR_PARAMS[name]
    else:
        make, params = lambda p: laws.Independent(laws.Laplace(p, 1.0), 1), {"p": jnp.ones((2, 3))}
    x = make(**params).sample(jax.random.key(2))
    expected = make(**params).log_prob(x)
    np.testing.assert_allclose(jax.jit(lambda params: make(**params).log_prob(x))(params), expected, rtol=1e-9)
    stacked = jax.tree.map(lambda value: jnp.stack([value] * 2), params)
    mapped = jax.vmap(lambda params: make(**params).log_prob(x))(stacked)
    np.testing.assert_allclose(mapped, jnp.stack([expected] * 2), rtol=1e-9)


def test_python_and_integer_parameters_become_floats_of_the_common_dtype() -> None:
    assert laws.Normal(0, 1).loc.dtype == jnp.float64  # the default under x64
    mixed = laws.Normal(np.float32(0), 1)
    assert mixed.loc.dtype == mixed.scale.dtype == mixed.sample(jax.random.key(0)).dtype == jnp.float32
    assert laws.Normal(jnp.zeros(2, jnp.float32), np.float64(1)).dtype == jnp.float64
    assert laws.Bernoulli(probs=1).probs.dtype == jnp.float64
    assert laws.Normal(jnp.zeros(3), jnp.ones((2, 1))).batch_shape == (2, 3)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in ALL
        if laws.knows(every_dist()[name], laws.HasSupport) and every_dist()[name].support() is not None
    ],
)
def test_support_holds_all_probability(name: str) -> None:
    dist = every_dist()[name]
    values = dist.support()
    assert values.dtype == jnp.int32 and values.shape[1:] == dist.event_shape
    shape = (values.shape[0], *dist.batch_shape, *dist.event_shape)
    spread = values.reshape(values.shape[0], *(1,) * len(dist.batch_shape), *dist.event_shape)
    log_prob = jax.vmap(dist.log_prob)(jnp.broadcast_to(spread, shape))
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), np.ones(dist.batch_shape), rtol=1e-12)
    prob = jax.vmap(dist.prob)(jnp.broadcast_to(spread, shape))
    np.testing.assert_allclose(prob, jnp.exp(log_prob), rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in ALL if name.split("-")[0] in ("Categorical", "OneHotCategorical")])
def test_categorical_against_its_table(name: str) -> None:
    dist = every_dist()[name]
    one_hot = dist.event_ndim == 1
    for k in range(3):
        x = jax.nn.one_hot(jnp.full(2, k), 3, dtype=jnp.int32) if one_hot else jnp.full(2, k)
        np.testing.assert_allclose(dist.log_prob(x), np.log(WEIGHTS[:, k]), rtol=1e-12)
        np.testing.assert_allclose(dist.prob(x), WEIGHTS[:, k], rtol=1e-12)
        if not one_hot:
            np.testing.assert_allclose(dist.cdf(x), WEIGHTS[:, : k + 1].sum(-1), rtol=1e-12)
    num = 20_000
    draws = jax.vmap(dist.sample)(jax.random.split(jax.random.key(4), num))
    counts = np.stack([np.mean(draws == k, axis=0) for k in range(3)], -1) if not one_hot else np.mean(draws, axis=0)
    np.testing.assert_array_less(np.abs(counts - WEIGHTS), 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / num))
    if not one_hot:
        np.testing.assert_array_equal(dist.icdf(jnp.asarray([0.1, 0.1])), [0, 0])
        np.testing.assert_array_equal(dist.icdf(jnp.asarray([0.71, 0.15])), [2, 1])
        np.testing.assert_array_equal(dist.icdf(1.0), [2, 2])


def test_categorical_probs_score_has_mean_zero() -> None:
    p = jnp.asarray(WEIGHTS[0])
    score = jax.vmap(jax.grad(lambda p, k: laws.Categorical(probs=p).log_prob(k)), (None, 0))(p, jnp.arange(3))
    np.testing.assert_allclose(p @ score, np.zeros(3), atol=1e-12)


@pytest.mark.parametrize("kind", ["tril", "diag"])
def test_multivariate_normal_is_scipys(kind: str) -> None:
    dist = every_dist()[f"MultivariateNormal-{kind}"]
    scale = TRIL if kind == "tril" else np.diag([0.5, 2.0])
    frozen = scipy.stats.multivariate_normal(np.ones(2), scale @ scale.T)
    x = np.array([[0.3, -4.0], [1.0, 1.0], [9.0, 2.0]])
    np.testing.assert_allclose(dist.log_prob(x), frozen.logpdf(x), rtol=1e-12)
    draws = np.asarray(jax.vmap(dist.sample)(jax.random.split(jax.random.key(1), 20_000)))[:, 0]
    whitened = np.linalg.solve(scale, (draws - 1).T)
    for row in whitened:
        assert scipy.stats.kstest(row, scipy.stats.norm.cdf).pvalue > 1e-4
    assert abs(np.mean(whitened[0] * whitened[1])) < 5 / np.sqrt(20_000)


def test_multivariate_normal_batches_of_matrices_and_what_is_above_the_diagonal() -> None:
    tril = jnp.stack([jnp.asarray(TRIL), jnp.eye(2)])
    loc = jnp.ones((3, 1, 2))
    dist = laws.MultivariateNormal(loc, scale_tril=tril)
    x = dist.sample(jax.random.key(0))
    assert dist.batch_shape == (3, 2) and x.shape == (3, 2, 2)
    for i, j in itertools.product(range(3), range(2)):
        frozen = scipy.stats.multivariate_normal(np.ones(2), np.asarray(tril[j] @ tril[j].T))
        np.testing.assert_allclose(dist.log_prob(x)[i, j], frozen.logpdf(x[i, j]), rtol=1e-10)
    full = jnp.asarray(TRIL) + jnp.asarray([[0.0, 7.0], [0.0, 0.0]])
    use = lambda L: laws.MultivariateNormal(jnp.ones(2), scale_tril=L)  # noqa: E731, N806
    drawn = [jax.jit(lambda L: use(L).sample(jax.random.key(1)))(L) for L in (full, jnp.asarray(TRIL))]  # noqa: N803
    np.testing.assert_array_equal(*drawn)
    densities = [jax.jit(lambda L: use(L).log_prob(jnp.zeros(2)))(L) for L in (full, jnp.asarray(TRIL))]  # noqa: N803
    np.testing.assert_array_equal(*densities)


def test_independent_sums_the_axes_it_takes() -> None:
    base = laws.Bernoulli(logits=jnp.arange(6.0).reshape(2, 3))
    dist = laws.Independent(base, 1)
    x = dist.sample(jax.random.key(0))
    assert (dist.batch_shape, dist.event_shape, dist.event_ndim) == ((2,), (3,), 1)
    np.testing.assert_allclose(dist.log_prob(x), base.log_prob(x).sum(-1))
    np.testing.assert_allclose(dist.prob(x), jnp.exp(dist.log_prob(x)), rtol=1e-12)
    assert dist.support().shape == (8, 3) and len(np.unique(dist.support(), axis=0)) == 8
    assert laws.Independent(base, 0).log_prob(x).shape == (2, 3)
    nested = laws.Independent(laws.OneHotCategorical(logits=jnp.zeros((2, 3))), 1)
    assert nested.event_shape == (2, 3) and nested.support().shape == (9, 2, 3) and nested.event_ndim == 2
    assert laws.Independent(laws.Bernoulli(logits=jnp.zeros(13)), 1).support() is None  # 8192 values
    assert laws.Independent(laws.Bernoulli(logits=jnp.zeros((2, 0))), 1).support().shape == (1, 0)
    assert laws.Independent(laws.Poisson(jnp.ones(2)), 1).support() is None
    uniform = laws.Independent(laws.Uniform(jnp.zeros(3), 1.0), 1)
    assert uniform.support_parameters == ("low", "high") and uniform.reparameterized and not uniform.discrete
    assert laws.pathwise_obstacle(dist) == "Bernoulli is discrete" and dist.law == "Independent(Bernoulli)"
    silent = laws.Independent(
        laws.distribution(sampler=lambda key, a: a + jax.random.normal(key, a.shape))(jnp.ones(2)), 1
    )
    assert silent.log_prob is None and silent.prob is None


# Edges


@pytest.mark.parametrize(
    ("make", "x", "value", "slope"),
    [
        (lambda p: laws.Bernoulli(probs=p), 1, 0.0, 1.0),
        (lambda p: laws.Bernoulli(probs=1 - p), 0, 0.0, 1.0),
        (lambda p: laws.Bernoulli(probs=p), 0, -np.inf, -np.inf),
        (lambda p: laws.Bernoulli(logits=p * 800.0), 1, 0.0, 0.0),
        (lambda p: laws.Bernoulli(logits=p * jnp.inf), 1, 0.0, None),
        (lambda p: laws.Bernoulli(logits=-p * jnp.inf), 1, -np.inf, None),
        (lambda p: laws.Binomial(3, probs=p), 3, 0.0, 3.0),
        (lambda p: laws.Binomial(3, probs=1 - p), 0, 0.0, 3.0),
        (lambda p: laws.Binomial(3, logits=p * jnp.inf), 3, 0.0, None),
        (lambda p: laws.Binomial(0, probs=p), 0, 0.0, 0.0),
        (lambda p: laws.Multinomial(3, probs=jnp.stack([p, 1 - p])), jnp.asarray([3, 0]), 0.0, 3.0),
        (lambda p: laws.Multinomial(0, probs=jnp.stack([p, 1 - p])), jnp.asarray([0, 0]), 0.0, 0.0),
        (lambda p: laws.Geometric(probs=p), 0, 0.0, 1.0),
        (lambda p: laws.Geometric(logits=p * jnp.inf), 0, 0.0, None),
        (lambda p: laws.NegativeBinomial(2.5, probs=1 - p), 0, 0.0, 2.5),
        (lambda p: laws.NegativeBinomial(2.5, logits=-p * jnp.inf), 0, 0.0, None),
        (lambda p: laws.NegativeBinomial(p, logits=-jnp.inf), 0, 0.0, 0.0),
        (lambda p: laws.NegativeBinomial(p, probs=0.0), 3, -np.inf, 0.0),
        (lambda p: laws.Poisson(1 - p), 0, 0.0, 1.0),
        (lambda p: laws.Exponential(p), 0.0, 0.0, 1.0),
        (lambda p: laws.Weibull(p, 1.0), 0.0, 0.0, None),
        (lambda p: laws.Uniform(0.0, p), 1.0, 0.0, -1.0),
    ],
)
def test_log_prob_and_its_derivative_at_the_edge_of_a_domain(
    make: Any, x: Any, value: float, slope: float | None
) -> None:
    got, got_slope = jax.value_and_grad(lambda p: make(p).log_prob(x))(1.0)
    np.testing.assert_allclose(got, value, atol=1e-15)
    if slope is not None:
        np.testing.assert_allclose(got_slope, slope)
    curvature = jax.grad(jax.grad(lambda p: make(p).log_prob(x)))(1.0)
    assert slope is None or not np.isnan(curvature)


def test_weibull_density_at_zero() -> None:
    # Only to first order: the second derivative of a power of zero is NaN in JAX. Draws are never zero.
    np.testing.assert_allclose(jax.grad(lambda scale: laws.Weibull(scale, 1.0).log_prob(0.0))(2.0), -0.5)


def test_excluded_classes() -> None:
    logits = jnp.asarray([0.0, -jnp.inf, 1.0])
    dist = laws.Categorical(logits=logits)
    assert dist.log_prob(1) == -jnp.inf
    gradient = jax.grad(lambda logits: laws.Categorical(logits=logits).log_prob(0))(logits)
    np.testing.assert_allclose(gradient, [1 - sigmoid(-1.0), 0.0, -sigmoid(1.0)], rtol=1e-12)
    draws = jax.vmap(dist.sample)(jax.random.split(jax.random.key(0), 500))
    assert set(np.unique(draws)) == {0, 2}
    hot = laws.OneHotCategorical(logits=logits)
    assert hot.log_prob(jnp.asarray([0, 1, 0])) == -jnp.inf
    gradient = jax.grad(lambda logits: laws.OneHotCategorical(logits=logits).log_prob(jnp.asarray([1, 0, 0])))(logits)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("make", "x", "slope"),
    [
        (lambda p: laws.Bernoulli(probs=p), 1, 1.0),
        (lambda p: laws.Bernoulli(probs=1 - p), 0, 1.0),
        (lambda p: laws.Binomial(3, probs=p), 1, 3.0),
        (lambda p: laws.Binomial(3, probs=p), 2, 0.0),
        (lambda p: laws.Categorical(probs=jnp.stack([p, 1 - p])), 0, 1.0),
        (lambda p: laws.OneHotCategorical(probs=jnp.stack([p, 1 - p])), jnp.asarray([1, 0]), 1.0),
    ],
)
def test_prob_has_a_finite_derivative_where_it_is_zero(make: Any, x: Any, slope: float) -> None:
    value, got = jax.value_and_grad(lambda p: make(p).prob(x))(0.0)
    assert value == 0.0
    np.testing.assert_allclose(got, slope)


@pytest.mark.parametrize(
    ("dist", "x"),
    [
        (laws.HalfNormal(1.0), -1.0),
        (laws.LogNormal(0.0, 1.0), 0.0),
        (laws.LogNormal(0.0, 1.0), -1.0),
        (laws.Uniform(0.0, 1.0), 1.5),
        (laws.Exponential(1.0), -1.0),
        (laws.Weibull(1.0, 2.0), -1.0),
        (laws.Pareto(1.0, 2.0), 0.5),
        (laws.Kumaraswamy(1.0, 2.0), 1.5),
        (laws.TruncatedNormal(0.0, 1.0, -np.inf, 3.0), 4.0),
        (laws.Bernoulli(logits=0.0), 2),
        (laws.Bernoulli(probs=0.5), 0.5),
        (laws.Categorical(logits=jnp.zeros(3)), 3),
        (laws.Categorical(probs=jnp.ones(2) / 2), -1),
        (laws.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([1, 1, 0])),
        (laws.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([0, 0, 0])),
        (laws.OneHotCategorical(logits=jnp.zeros(3)), jnp.asarray([2, -1, 1])),
        (laws.Multinomial(3, probs=jnp.ones(2) / 2), jnp.asarray([1, 1])),
        (laws.Multinomial(3, logits=jnp.zeros(2)), jnp.asarray([4, -1])),
        (laws.Multinomial(3, logits=jnp.zeros(2)), jnp.asarray([1.5, 1.5])),
        (laws.Multinomial(3, logits=jnp.asarray([0.0, -jnp.inf])), jnp.asarray([1, 2])),
        (laws.Binomial(3, probs=0.5), 4),
        (laws.Binomial(3, logits=0.5), -1),
        (laws.Geometric(probs=0.5), -1),
        (laws.Geometric(logits=0.5), 1.5),
        (laws.NegativeBinomial(1.5, probs=0.5), -1),
        (laws.NegativeBinomial(1.5, logits=0.5), 1.5),
        (laws.NegativeBinomial(1.5, probs=0.0), 1),
        (laws.NegativeBinomial(1.5, logits=-jnp.inf), 2),
        (laws.Poisson(1.0), -1),
        (laws.Poisson(1.0), 0.5),
    ],
    ids=lambda value: getattr(value, "law", None),
)
def test_outside_the_support_there_is_no_probability(dist: Any, x: Any) -> None:
    assert dist.log_prob(x) == -jnp.inf
    gradient = jax.tree.leaves(jax.grad(lambda d: d.log_prob(x), allow_int=True)(dist))
    assert not any(
        np.isnan(leaf) for leaf in map(np.asarray, gradient) if leaf.dtype == np.float64 for leaf in leaf.ravel()
    )
    if laws.knows(dist, laws.HasProb):
        assert dist.prob(x) == 0.0


def test_tails_in_float32() -> None:
    far = np.float32
    assert laws.Normal(far(0), far(1e-25)).log_prob(far(0)) == pytest.approx(-0.918939 + 57.564628, rel=1e-6)
    assert laws.Normal(far(0), far(1)).cdf(far(-12)) == pytest.approx(scipy.stats.norm.cdf(-12), rel=1e-4)
    assert laws.Cauchy(far(0), far(1)).cdf(far(-1e8)) == pytest.approx(scipy.stats.cauchy.cdf(-1e8), rel=1e-5)
    assert laws.Cauchy(far(0), far(1)).icdf(far(1e-9)) == pytest.approx(scipy.stats.cauchy.ppf(1e-9), rel=1e-5)
    assert laws.Logistic(far(0), far(1)).log_prob(far(80)) == pytest.approx(-80, rel=1e-6)
    assert laws.Laplace(far(0), far(1)).icdf(far(1e-30)) == pytest.approx(scipy.stats.laplace.ppf(1e-30), rel=1e-5)
    assert laws.Bernoulli(logits=far(-80)).log_prob(1) == pytest.approx(-80, rel=1e-6)
    assert laws.Bernoulli(probs=far(1e-9)).log_prob(0) == pytest.approx(-1e-9, rel=1e-6)


class _Zeros:
    """`jax.random.uniform` at its lowest value."""

    def __call__(self, key: Any, shape: Any = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
        return jnp.full(shape, minval, dtype)


@pytest.mark.parametrize("law", [laws.Logistic, laws.Cauchy, laws.Weibull, laws.Pareto, laws.Kumaraswamy])
def test_the_lowest_uniform_number_gives_a_finite_draw(law: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.random, "uniform", _Zeros())
    dist = law(np.float32(1), np.float32(1))
    x, tangent = jax.jvp(lambda d: d.sample(jax.random.key(0)), (dist,), (dist,))
    assert np.isfinite(x) and np.isfinite(tangent) and np.isfinite(dist.log_prob(x))
    if law is not laws.Cauchy:
        assert abs(x) < 18  # no outlier: float32 resolves probabilities of 6e-8, and -log of that is 16.6


def test_geometric_draws_that_do_not_fit_are_cut() -> None:
    draws = laws.Geometric(probs=jnp.full(100, 1e-12, jnp.float32)).sample(jax.random.key(0))
    assert (draws > 0).all()


def test_binomial_support_is_known_where_the_count_is_concrete() -> None:
    assert laws.Binomial(jnp.asarray([2, 3]), probs=0.5).support().shape == (4,)
    seen = []
    jax.jit(lambda n: (seen.append(laws.Binomial(n, probs=0.5).support()), n)[1])(jnp.asarray(3))
    assert seen == [None]


# Refusals


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: laws.Normal(0.0, -1.0),
            ValueError,
            r"`mcgrad.Normal\(scale=...\)` must be positive .* got -1.0\. Pass",
        ),
        (lambda: laws.Normal(0.0, jnp.asarray([1.0, 0.0])), ValueError, r"got 0.0 at index \(1,\)"),
        (lambda: laws.Normal(0.0, np.nan), ValueError, r"scale=...\)` must be positive .* got nan"),
        (lambda: laws.Normal(np.inf, 1.0), ValueError, r"loc=...\)` must be finite, got inf"),
        (lambda: laws.Normal("0", 1.0), TypeError, r"loc=...\)` must be a real number or array, got str"),
        (lambda: laws.Normal([0.0], 1.0), TypeError, r"must be a real number or array, got list"),
        (lambda: laws.Normal(1j, 1.0), TypeError, r"must be a real number or array, got complex"),
        (lambda: laws.Normal(jnp.ones(2) * 1j, 1.0), TypeError, r"must be a real number or array"),
        (
            lambda: laws.Normal(jnp.ones(2), jnp.ones(3)),
            ValueError,
            r"batch shapes broadcast, got loc \(2,\), scale \(3,\)",
        ),
        (lambda: laws.HalfNormal(0), ValueError, r"HalfNormal\(scale=...\)"),
        (lambda: laws.LogNormal(0.0, -1), ValueError, r"LogNormal\(scale=...\)"),
        (lambda: laws.Exponential(-1.0), ValueError, r"Exponential\(rate=...\)"),
        (lambda: laws.Weibull(1.0, 0.0), ValueError, r"Weibull\(concentration=...\)"),
        (
            lambda: laws.Uniform(1.0, 1.0),
            ValueError,
            r"Uniform\(high=...\)` must be above `low`, got low 1.0 and high 1.0",
        ),
        (lambda: laws.Pareto(1.0, 0.0), ValueError, r"Pareto\(concentration=...\)` must be positive"),
        (lambda: laws.Kumaraswamy(1.0, np.inf), ValueError, r"Kumaraswamy\(concentration0=...\)` must be positive"),
        (
            lambda: laws.TruncatedNormal(0.0, 1.0, 2.0, 2.0),
            ValueError,
            r"TruncatedNormal\(high=...\)` must be above `low`, got low 2.0 and high 2.0",
        ),
        (lambda: laws.TruncatedNormal(0.0, 1.0, np.nan, 2.0), ValueError, r"low=...\)` must not be NaN"),
        (lambda: laws.Poisson(-1.0), ValueError, r"Poisson\(rate=...\)` must be at least zero"),
        (lambda: laws.Bernoulli(probs=1.5), ValueError, r"Bernoulli\(probs=...\)` must lie between 0 and 1, got 1.5"),
        (lambda: laws.Bernoulli(logits=np.nan), ValueError, r"Bernoulli\(logits=...\)` must not be NaN"),
        (lambda: laws.Bernoulli(), ValueError, r"exactly one of `logits=` or `probs=`, got neither"),
        (lambda: laws.Bernoulli(logits=0.0, probs=0.5), ValueError, r"got `logits=` and `probs=`"),
        (lambda: laws.Geometric(probs=0.0), ValueError, r"Geometric\(probs=...\)` must lie above 0"),
        (lambda: laws.Geometric(logits=-np.inf), ValueError, r"Geometric\(logits=...\)` must be above -inf"),
        (lambda: laws.Geometric(), ValueError, r"Geometric\(...\)` must get exactly one of"),
        (lambda: laws.Binomial(2), ValueError, r"Binomial\(...\)` must get exactly one of"),
        (lambda: laws.Binomial(-1, probs=0.5), ValueError, r"total_count=...\)` must be at least zero, got -1"),
        (lambda: laws.Binomial(2.5, probs=0.5), TypeError, r"total_count=...\)` must be an integer"),
        (
            lambda: laws.Binomial(jnp.ones(2, int), probs=jnp.ones(3)),
            ValueError,
            r"total_count \(2,\), probability \(3,\)",
        ),
        (lambda: laws.Multinomial(2), ValueError, r"Multinomial\(...\)` must get exactly one of"),
        (
            lambda: laws.Multinomial(-1, logits=jnp.zeros(2)),
            ValueError,
            r"Multinomial\(total_count=...\)` must be at least zero, got -1",
        ),
        (
            lambda: laws.Multinomial(2.5, logits=jnp.zeros(2)),
            TypeError,
            r"Multinomial\(total_count=...\)` must be an integer",
        ),
        (
            lambda: laws.Multinomial(jnp.ones(2, int), logits=jnp.zeros((3, 2))),
            ValueError,
            r"total_count \(2,\), probabilities \(3, 2\)",
        ),
        (
            lambda: laws.Multinomial(2, probs=jnp.asarray([0.5, 0.6])),
            ValueError,
            r"Multinomial\(probs=...\)` must sum to 1",
        ),
        (lambda: laws.NegativeBinomial(2.0), ValueError, r"NegativeBinomial\(...\)` must get exactly one of"),
        (
            lambda: laws.NegativeBinomial(0.0, probs=0.5),
            ValueError,
            r"NegativeBinomial\(total_count=...\)` must be positive and finite, got 0.0",
        ),
        (
            lambda: laws.NegativeBinomial(2.0, probs=1.0),
            ValueError,
            r"NegativeBinomial\(probs=...\)` must be at least 0 and below 1, got 1.0",
        ),
        (
            lambda: laws.NegativeBinomial(2.0, logits=np.inf),
            ValueError,
            r"NegativeBinomial\(logits=...\)` must be below inf, got inf",
        ),
        (
            lambda: laws.NegativeBinomial(jnp.ones(2), probs=jnp.ones(3) / 2),
            ValueError,
            r"total_count \(2,\), probs \(3,\)",
        ),
        (lambda: laws.Categorical(probs=jnp.asarray([0.5, 0.6])), ValueError, r"must sum to 1 .* got a sum of 1.1"),
        (lambda: laws.Categorical(probs=jnp.asarray([-0.5, 1.5])), ValueError, r"probs=...\)` must be at least zero"),
        (lambda: laws.Categorical(logits=0.0), ValueError, r"must have at least 1 axes, got shape \(\)"),
        (lambda: laws.Categorical(logits=jnp.zeros((2, 0))), ValueError, r"at least one class, got shape \(2, 0\)"),
        (lambda: laws.Categorical(logits=jnp.asarray([0.0, np.inf])), ValueError, r"must be finite or -inf, got inf"),
        (lambda: laws.OneHotCategorical(logits=jnp.full(2, -np.inf)), ValueError, r"at least one class possible"),
        (lambda: laws.OneHotCategorical(), ValueError, r"OneHotCategorical\(...\)` must get exactly one of"),
        (lambda: laws.MultivariateNormal(jnp.zeros(2)), ValueError, r"`scale_tril=` or `scale_diag=`, got neither"),
        (
            lambda: laws.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(3)),
            ValueError,
            r"must end with shape \(2, 2\)",
        ),
        (
            lambda: laws.MultivariateNormal(jnp.zeros(2), scale_diag=jnp.ones(3)),
            ValueError,
            r"must end with shape \(2,\)",
        ),
        (lambda: laws.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.ones((2, 2))), ValueError, r"lower triangular"),
        (lambda: laws.MultivariateNormal(jnp.zeros(2), scale_tril=-jnp.eye(2)), ValueError, r"positive diagonal"),
        (
            lambda: laws.MultivariateStudentT(3.0, jnp.zeros(2), jnp.eye(3)),
            ValueError,
            r"MultivariateStudentT\(scale_tril=...\)` must end with shape \(2, 2\) for a `loc` of shape \(2,\)",
        ),
        (
            lambda: laws.MultivariateStudentT(0.0, jnp.zeros(2), jnp.eye(2)),
            ValueError,
            r"MultivariateStudentT\(df=...\)` must be positive",
        ),
        (
            lambda: laws.MultivariateStudentT(1.0, jnp.zeros(2), -jnp.eye(2)),
            ValueError,
            r"MultivariateStudentT\(scale_tril=...\)` must be lower triangular with a positive diagonal, got \[\[-1.0",
        ),
        (
            lambda: laws.Wishart(2.0, jnp.eye(3)),
            ValueError,
            r"Wishart\(concentration=...\)` must be above d - 1 = 2, got 2.0",
        ),
        (lambda: laws.Wishart(np.nan, jnp.eye(1)), ValueError, r"Wishart\(concentration=...\)` must be positive"),
        (
            lambda: laws.Wishart(3.0, jnp.ones((2, 2))),
            ValueError,
            r"Wishart\(scale_tril=...\)` must be lower triangular",
        ),
        (
            lambda: laws.Wishart(3.0, jnp.ones((2, 3))),
            ValueError,
            r"scale_tril=...\)` must be square, got shape \(2, 3\)",
        ),
        (
            lambda: laws.LKJCholesky(1, 1.0),
            ValueError,
            r"LKJCholesky\(dim=...\)` must be a whole number above one, got 1",
        ),
        (lambda: laws.LKJCholesky(3, 0.0), ValueError, r"LKJCholesky\(concentration=...\)` must be positive"),
        (
            lambda: laws.Independent(laws.Normal(0.0, 1.0), 1),
            ValueError,
            r"between 0 and 0 for batch shape \(\), got 1",
        ),
        (lambda: laws.Independent(3.0, 1), TypeError, r"must be a distribution, got float"),
    ],
)
def test_what_is_no_law_is_refused(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_the_base_class_says_what_is_missing() -> None:
    @dataclasses.dataclass(frozen=True)
    class Empty(laws.Distribution):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define `sample\(key\)`"):
        Empty().sample(jax.random.key(0))
    assert not laws.knows(Empty(), laws.HasLogProb)


def test_obstacles_of_own_laws() -> None:
    assert laws.pathwise_obstacle(laws.Poisson(1.0)) == "Poisson is discrete"

    @dataclasses.dataclass(frozen=True)
    class Opaque(laws.Distribution):
        pass

    assert laws.pathwise_obstacle(Opaque()) == "Opaque is not reparameterized"


def test_large_poisson_rates_keep_their_digits_in_float32() -> None:
    """Terms of the size of the rate cancel; JAX's `gammaincc` gives -0.37 for 0.500 at a rate of 1e6."""
    rate = np.logspace(1, 6, 6).astype(np.float32)[:, None]
    x = np.round(rate + np.sqrt(rate) * np.linspace(-2, 2, 5))
    law = laws.Poisson(jnp.asarray(rate))
    exact = scipy.stats.poisson(rate.astype(np.float64))
    np.testing.assert_allclose(law.cdf(jnp.asarray(x, jnp.float32)), exact.cdf(x), rtol=3e-6)
    np.testing.assert_allclose(law.log_prob(jnp.asarray(x, jnp.int32)), exact.logpmf(x), rtol=2e-6)
    slopes = jax.jacfwd(lambda rate: laws.Poisson(rate).cdf(jnp.asarray(x, jnp.float32)).sum(1))(jnp.asarray(rate))
    np.testing.assert_allclose(np.einsum("iij->i", slopes), -exact.pmf(x).sum(1), rtol=3e-6)
