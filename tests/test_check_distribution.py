"""`mcgrad.check_distribution`: right distributions agree, and each kind of mistake is found by the row that is about it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import DISTRIBUTIONS, ORDINARY
from jax.scipy import special

import mcgrad


def key() -> Any:
    return jax.random.key(3)


# What compiles in a second or two; the others are checked by the slow tests.
FAST = [
    *("Normal", "Uniform", "Exponential", "Pareto", "Bernoulli", "Categorical", "OneHotCategorical", "Geometric"),
    *("MultivariateNormal", "Independent"),
]


def fast(name: str) -> bool:
    plain, _, variant = name.partition(", ")
    return plain in FAST and variant not in ("probs", "tril")


def check_right(name: str, dtype: Any) -> mcgrad.DistributionReport:
    """An ordinary distribution of the table agrees, and at least its draws and its density are known to."""
    dist = ORDINARY[name].dist(dtype)
    if name == "Wishart":  # the table's has draws that are singular to rounding, as its documentation says
        dist = mcgrad.Wishart(jnp.asarray([3.2, 5.0], dtype), dist.scale_tril)
    report = mcgrad.check_distribution(dist, key())
    assert report.agrees, str(report)
    assert all(isinstance(row, mcgrad.Agreement) for row in report.rows)
    known = {row.name for row in report.rows if row.verdict == "agrees"}
    assert {"draws", "support"} < known and known & {"draws and density", "mass", "parameters moved"}
    if not DISTRIBUTIONS[name.split(", ")[0]].moving:
        assert {"score", "parameters moved"} <= known
        assert dist.discrete or "path and score" in known
    for method in ("cdf", "icdf", "prob", "survival"):
        if method in ORDINARY[name].knows.split() and dist.event_shape == ():
            assert method in known, f"{method} is not checked"
    return report


@pytest.mark.parametrize("name", [name for name in ORDINARY if fast(name)])
def test_ours_agree(name: str) -> None:
    check_right(name, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ORDINARY if not fast(name)])
def test_all_of_ours_agree(name: str) -> None:
    check_right(name, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDINARY)
def test_ours_agree_in_float32(name: str) -> None:
    check_right(name, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "name", ["Normal", "Exponential", "Gumbel", "Gamma", "Poisson", "Bernoulli, logits", "Categorical, probs"]
)
def test_ours_agree_in_16_bits(name: str, dtype: Any) -> None:
    report = mcgrad.check_distribution(ORDINARY[name].dist(dtype), key())
    assert report.agrees, str(report)


# Mistakes


def wrong(dist: Any, **options: Any) -> set[str]:
    """The rows that disagree."""
    report = mcgrad.check_distribution(dist, key(), **options)
    assert report.agrees is not bool(report.disagreements)
    return {row.name for row in report.disagreements}


@dataclasses.dataclass(frozen=True)
class Right(mcgrad.Distribution):
    """A logistic distribution, whose methods are each replaced by a wrong one."""

    loc: Any
    scale: Any

    domains = {"loc": mcgrad.distributions.REAL, "scale": mcgrad.distributions.POSITIVE}
    reparameterized = True

    def sample(self, key: Any) -> Any:
        return self.icdf(jax.random.uniform(key, self.batch_shape, self.dtype, 1e-7, 1))

    def log_prob(self, x: Any) -> Any:
        z = (x - self.loc) / self.scale
        return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - jnp.log(self.scale)

    def cdf(self, x: Any) -> Any:
        return jax.nn.sigmoid((x - self.loc) / self.scale)

    def survival(self, x: Any) -> Any:
        return jax.nn.sigmoid((self.loc - x) / self.scale)

    def icdf(self, u: Any) -> Any:
        return self.loc + self.scale * special.logit(u)


def replaced(**methods: Callable[..., Any]) -> Any:
    return type("Wrong", (Right,), methods)(jnp.asarray([0.5, -1.0]), 2.0)


def test_the_right_one_agrees() -> None:
    assert not wrong(replaced())
    assert not wrong(replaced(), num_samples=50_000)


def _draw(self: Any, key: Any) -> Any:
    return Right.sample(dataclasses.replace(self, scale=1.1 * self.scale), key)


def _right_draw(self: Any, key: Any) -> Any:
    return Right(self.loc, self.scale).sample(key)


def _held(self: Any, key: Any) -> Any:
    """A draw whose path lacks part of its dependence on the scale."""
    return Right.sample(
        dataclasses.replace(self, scale=0.8 * self.scale + 0.2 * jax.lax.stop_gradient(self.scale)), key
    )


MISTAKES = {
    "normalization of 1 %": ({"log_prob": lambda self, x: Right.log_prob(self, x) + 0.01}, {"mass"}),
    "normalization that a parameter lacks": (
        {"log_prob": lambda self, x: Right.log_prob(self, x) + jnp.log(self.scale)},
        {"mass", "score", "parameters moved", "path and score"},
    ),
    "mass beyond the draws": (
        {"sample": lambda self, key: self.loc + jnp.abs(Right.sample(self, key) - self.loc)},
        {"mass", "draws and cdf", "score"},
    ),
    "sampler of another scale": ({"sample": _draw}, {"draws and density", "draws and cdf", "score"}),
    "sampler that ignores a parameter": (
        {"sample": lambda self, key: Right.sample(dataclasses.replace(self, scale=jnp.asarray(2.0)), key)},
        {"parameters moved", "path and score"},
    ),
    "cdf": ({"cdf": lambda self, x: Right.cdf(self, x + 0.02)}, {"cdf", "survival", "icdf"}),
    "survival": ({"survival": lambda self, x: Right.cdf(self, x)}, {"survival"}),
    "icdf": (
        {"icdf": lambda self, u: Right.icdf(self, u) + 0.01, "sample": _right_draw},
        {"icdf"},
    ),
    "icdf without cdf": (
        {"icdf": lambda self, u: Right.icdf(self, 1 - u**1.1), "cdf": None, "survival": None, "sample": _right_draw},
        {"icdf"},
    ),
    "support": (
        {"log_prob": lambda self, x: jnp.where(x < 9, Right.log_prob(self, x), -jnp.inf)},
        {"support"},
    ),
    "path": ({"sample": _held}, {"path and score"}),
    "shape": ({"sample": lambda self, key: Right.sample(self, key)[None]}, {"draws"}),
    "shape of the density": ({"log_prob": lambda self, x: jnp.sum(Right.log_prob(self, x))}, {"log_prob"}),
    "draws that are infinite": (
        {"sample": lambda self, key: (lambda x: jnp.where(x > 8, jnp.inf, x))(Right.sample(self, key))},
        {"draws"},
    ),
    "masked density": ({"log_prob": lambda self, x: jnp.where(self.loc > 0, Right.log_prob(self, x), 0.0)}, {"mass"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_numbers_are_found(name: str) -> None:
    methods, rows = MISTAKES[name]
    found = wrong(replaced(**methods))
    assert rows <= found, f"{rows - found} missing of {found}"


@dataclasses.dataclass(frozen=True)
class Dice(mcgrad.Distribution):
    """One of four numbers; the chances are a softmax."""

    logits: Any

    domains = {"logits": dataclasses.replace(mcgrad.distributions.REAL, event_ndim=1)}
    discrete = True

    def sample(self, key: Any) -> Any:
        return jax.random.categorical(key, self.logits)

    def log_prob(self, x: Any) -> Any:
        inside = (x >= 0) & (x < 4) & (x == jnp.floor(x))
        chances = jax.nn.log_softmax(self.logits)
        return jnp.where(inside, chances[jnp.clip(x, 0, 3).astype(int)], -jnp.inf)

    def prob(self, x: Any) -> Any:
        return jnp.exp(self.log_prob(x))

    def cdf(self, x: Any) -> Any:
        return jnp.sum(jnp.where(jnp.arange(4) <= x, jax.nn.softmax(self.logits), 0))

    def icdf(self, u: Any) -> Any:
        return jnp.sum(jnp.cumsum(jax.nn.softmax(self.logits)) < u)

    def support(self) -> Any:
        return jnp.arange(4)


DISCRETE_MISTAKES = {
    "right": ({}, set()),
    "right, without its support": ({"support": None}, set()),
    "normalization": ({"log_prob": lambda self, x: Dice.log_prob(self, x) - 0.001}, {"mass"}),
    "normalization, without the support": (
        {"log_prob": lambda self, x: Dice.log_prob(self, x) - 0.001, "support": None},
        {"mass"},
    ),
    "sampler": ({"sample": lambda self, key: jax.random.categorical(key, 1.3 * self.logits)}, {"draws and density"}),
    "prob": ({"prob": lambda self, x: 0.99 * Dice.prob(self, x)}, {"prob"}),
    "cdf that leaves its value out": ({"cdf": lambda self, x: Dice.cdf(self, x - 1)}, {"cdf"}),
    "cdf between": ({"cdf": lambda self, x: Dice.cdf(self, jnp.round(x))}, {"cdf between"}),
    "icdf": ({"icdf": lambda self, u: Dice.icdf(self, u) + 1}, {"icdf"}),
    "support": ({"support": lambda self: jnp.arange(3)}, {"support()", "mass"}),
    "draws outside of the density": ({"sample": lambda self, key: Dice.sample(self, key) + 1}, {"support"}),
}


@pytest.mark.parametrize("name", DISCRETE_MISTAKES)
def test_mistakes_of_discrete_numbers_are_found(name: str) -> None:
    methods, rows = DISCRETE_MISTAKES[name]
    found = wrong(type("Wrong", (Dice,), methods)(jnp.asarray([0.4, -0.3, 1.0, 0.1])))
    assert rows <= found if rows else not found


def pair(log_prob: Any, sampler: Any = None, **kwargs: Any) -> Any:
    """Two correlated normal numbers of a location."""

    def draw(key: Any, loc: Any) -> Any:
        e = jax.random.normal(key, (2,))
        return loc + jnp.stack([e[0], 0.6 * e[0] + 0.8 * e[1]])

    def density(x: Any, loc: Any) -> Any:
        z = x - loc
        return -0.5 * (z[0] ** 2 + ((z[1] - 0.6 * z[0]) / 0.8) ** 2) - math.log(2 * math.pi * 0.8)

    return mcgrad.distribution(sampler or draw, log_prob or density, event_ndim=1, **kwargs)(jnp.asarray([0.3, -0.4]))


def test_mistakes_of_vectors_are_found() -> None:
    right = pair(None)
    assert not wrong(right)
    density = type(right).functions["log_prob"]
    assert wrong(pair(lambda x, loc: density(x, loc) + 0.3)) == {"mass"}
    assert {"score", "parameters moved"} <= wrong(pair(lambda x, loc: density(x, 1.3 * loc)))

    def half_held(key: Any, loc: Any) -> Any:
        held = jnp.asarray([0, 0.3]) * jax.lax.stop_gradient(loc)
        return type(right).functions["sampler"](key, held + jnp.asarray([1.0, 0.7]) * loc)

    assert wrong(pair(None, half_held)) == {"path and score"}
    simplex = mcgrad.Dirichlet(jnp.asarray([2.0, 1.3, 3.0]))
    lacks = lambda x: simplex.log_prob(x) + 0.5  # noqa: E731
    assert not wrong(simplex)
    assert wrong(mcgrad.distribution(lambda key: simplex.sample(key), lacks, event_ndim=1)()) == {"mass"}
    counts = mcgrad.Independent(mcgrad.Geometric(probs=jnp.asarray([0.2, 0.4])), 1)
    shifted = lambda x: counts.log_prob(x) + 0.1  # noqa: E731
    assert wrong(mcgrad.distribution(lambda key: counts.sample(key), shifted, event_ndim=1)()) >= {"mass"}


def test_mistakes_in_16_bits_are_found() -> None:
    right = Right(jnp.asarray(0.5, jnp.bfloat16), jnp.asarray(2.0, jnp.bfloat16))
    assert not wrong(right)
    more = type("Wrong", (Right,), {"log_prob": lambda self, x: Right.log_prob(self, x) + 0.2})
    assert "mass" in wrong(more(right.loc, right.scale))
    wider = type("Wrong", (Right,), {"log_prob": lambda self, x: Right(self.loc, 1.3 * self.scale).log_prob(x)})
    assert "draws and density" in wrong(wider(right.loc, right.scale))


def test_draws_of_several_arrays_are_checked_by_their_derivatives() -> None:
    def draw(key: Any, loc: Any) -> Any:
        own, other = jax.random.split(key)
        x = loc + jax.random.normal(own)
        return {"x": x, "y": x + jax.random.normal(other)}

    def density(off: float) -> Any:
        normal = lambda z: -0.5 * z**2 - 0.5 * math.log(2 * math.pi)  # noqa: E731
        return lambda draw, loc: normal(draw["x"] - off * loc) + normal(draw["y"] - draw["x"])

    made = lambda off: mcgrad.distribution(draw, density(off), event_ndim=None)(jnp.asarray(0.5))  # noqa: E731
    report = mcgrad.check_distribution(made(1.0), key())
    assert report.agrees and {row.name for row in report.rows if row.verdict == "not known"} == {"mass"}
    assert {"score", "parameters moved"} <= wrong(made(1.3))


def test_derivatives_are_in_the_parameters_given() -> None:
    """Leaves that depend on each other, as a normalizing constant on a rate, have scores whose mean is not zero."""

    @dataclasses.dataclass(frozen=True)
    class Kept(mcgrad.Distribution):
        rate: Any
        log_rate: Any

        reparameterized = True

        def sample(self, key: Any) -> Any:
            return jax.random.exponential(key) / self.rate

        def log_prob(self, x: Any) -> Any:
            return jnp.where(x >= 0, self.log_rate - self.rate * x, -jnp.inf)

    assert "score" in wrong(Kept(jnp.asarray(2.0), jnp.log(2.0)))
    make = lambda p: Kept(p["rate"], jnp.log(p["rate"]))  # noqa: E731
    assert not wrong(make, params={"rate": jnp.asarray(2.0)})
    bounded = lambda p: mcgrad.Uniform(-1.0, 2.0 * p)  # noqa: E731
    report = mcgrad.check_distribution(bounded, key(), params=jnp.asarray(1.0))
    assert report.agrees and "`params`" in next(row.words for row in report.rows if row.name == "score")
    shifted = lambda p: mcgrad.TruncatedNormal(p, 1.0, -1.0, 2.0)  # noqa: E731
    report = mcgrad.check_distribution(shifted, key(), params=jnp.asarray(0.3))
    assert report.agrees and next(row.verdict for row in report.rows if row.name == "score") == "agrees"


def test_entries_that_are_constant_but_for_rounding_do_not_drown_the_others() -> None:
    """As the diagonal of a correlation matrix: divided by its spread, rounding would count as much as the draw."""

    def draw(key: Any, loc: Any) -> Any:
        x = loc + jax.random.normal(key, dtype=jnp.float32)
        return jnp.stack([x, jnp.tanh(x) ** 2 + 1 / jnp.cosh(x) ** 2])

    def density(x: Any, loc: Any) -> Any:
        return -0.5 * (x[0] - loc) ** 2 - 0.5 * math.log(2 * math.pi)

    report = mcgrad.check_distribution(mcgrad.distribution(draw, density, event_ndim=1)(jnp.float32(2.0)), key())
    assert report.agrees and next(row for row in report.rows if row.name == "path and score").verdict == "agrees"


def test_without_a_density_little_is_known() -> None:
    report = mcgrad.check_distribution(mcgrad.distribution(lambda key, p: p * jax.random.normal(key))(2.0), key())
    assert report.agrees and {row.verdict for row in report.rows[1:]} == {"not known"}
    assert "not known" in str(report) and "no log density" in str(report)


@pytest.mark.slow
def test_right_distributions_hardly_ever_disagree() -> None:
    """The level is kept: over many keys, the least p of a row is rarely small."""
    dist, low = mcgrad.Exponential(jnp.asarray([0.5, 2.0])), 0
    for seed in range(40):
        report = mcgrad.check_distribution(dist, jax.random.key(seed), num_samples=2000)
        low += min(row.p for row in report.rows if row.p is not None) < 0.01 / len(report.rows)
    assert low <= 3  # 0.4 are expected; more than 3 have probability 0.001


def test_the_report_is_a_table_of_80_columns() -> None:
    report = mcgrad.check_distribution(mcgrad.Uniform(0.0, 1.0), key())
    text = str(report)
    assert text.startswith("Uniform, 10,000 draws") and "All that is known agrees" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "`low`, `high`" in " ".join(text.split())
    assert dataclasses.is_dataclass(report) and report.rows[0].verdict == "agrees"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: mcgrad.check_distribution(3.0, key()), TypeError, "must be a distribution, got float"),
        (lambda: mcgrad.check_distribution(mcgrad.Normal(0.0, 1.0), 0), TypeError, "must be a key"),
        (
            lambda: mcgrad.check_distribution(mcgrad.Normal(0.0, 1.0), key(), num_samples=10),
            ValueError,
            r"check_distribution\(num_samples=...\)` must be an int of at least 1000",
        ),
        (
            lambda: mcgrad.check_distribution(mcgrad.Normal(0.0, 1.0), key(), level=2.0),
            ValueError,
            r"check_distribution\(level=...\)` must be between 0 and 1, got 2.0",
        ),
        (
            lambda: mcgrad.check_distribution(mcgrad.Normal(0.0, 1.0), key(), params=1.0),
            TypeError,
            "must be a function of `params`, got Normal",
        ),
        (
            lambda: jax.jit(lambda loc: mcgrad.check_distribution(mcgrad.Normal(loc, 1.0), key()).rows[0].statistic)(
                0.0
            ),
            TypeError,
            "must have parameters that are numbers, got traced ones",
        ),
    ],
)
def test_refusals(make: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()
