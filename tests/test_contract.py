"""The contract: every estimator on every program that it claims, against exact values.

One compilation per pair gives value, gradient and Hessian, under `jit` and `vmap`. A new estimator is one row of
`helpers.ESTIMATORS`, a new program one row in `programs`.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    BIASED,
    ESTIMATORS,
    LOOP_PROGRAMS,
    PROGRAMS,
    EstimatorRow,
    assert_unbiased,
    exact_derivatives,
    gradient_draws,
    tanhs,
)

import mcgrad
import mcgrad.estimators
from mcgrad.program.representations import WeightedPoint

CHECKED = {**PROGRAMS, **{program.name: program for program in LOOP_PROGRAMS}}

CLAIMED = [(program, row) for program in CHECKED.values() for row in ESTIMATORS.values() if row.claims(program)]

# The default run takes every estimator on the first of these, and on each other program one estimator, another for each
# program; the rest, an hour of compilations on two cores, is marked slow. So are estimators that unroll a loop, but on the
# second, and programs that take long with any.
WITH_EVERY_ESTIMATOR = ("categorical",)
UNROLLED = ("hidden_markov_chain",)
LONG = ("bits_and_classes_as_floats",)


def each(claims, *, complete=(), default=CHECKED):
    """Parametrization by pairs of program and estimator; the default run takes no programs but those of `default`."""
    params = []
    for i, name in enumerate(dict.fromkeys(program.name for program, _ in claims)):
        rows = [(program, row) for program, row in claims if program.name == name]
        light = [row for program, row in rows if name in UNROLLED or not (program.in_loop and row.unrolls)]
        for program, row in rows:
            chosen = name in complete or (name in default and name not in LONG and row is light[i % len(light)])
            marks = () if chosen else (pytest.mark.slow,)
            params.append(pytest.param(program, row, id=f"{name}-{row.name}", marks=marks))
    return pytest.mark.parametrize(("program", "row"), params)


@pytest.fixture(autouse=True)
def runs_share_keys():
    """Runs on one key are compared on purpose here; JAX's reuse checker stays on in the other files."""
    with jax.debug_key_reuse(False):
        yield


def seed(program, row):
    """A key of each pair's own, the same in every run."""
    return jax.random.key(zlib.crc32(f"{program.name} {row.name}".encode()))


def check(program, row, dtype=jnp.float64):
    """Draws value and derivatives until they can be told from wrong ones; returns how often the program was traced."""
    num_traces = 0

    def counted(*args, **kwargs):
        nonlocal num_traces
        num_traces += 1
        return program.fn(*args, **kwargs)

    counting = dataclasses.replace(program, fn=counted)
    params = program.typed_params(dtype)
    exact = exact_derivatives(program)
    exact = {name: exact[name] for name in ("value", "gradient", "hessian")[: row.order_on(program) + 1]}
    draws = gradient_draws(lambda key: row.estimate(counting, params, key), exact, seed(program, row))
    for name in exact:
        assert draws[name].dtype == dtype
        assert_unbiased(draws[name], exact[name])
    return num_traces


@each(CLAIMED, complete=WITH_EVERY_ESTIMATOR)
def test_value_gradient_and_hessian_are_unbiased(program, row):
    # The draws take at least two calls; a second compilation would trace the program again.
    assert check(program, row) == 1


def with_few_samples():
    """Each row with 1, 2 and 5 samples, on the first program that it claims and on the first with a loop."""
    params = []
    for row in ESTIMATORS.values():
        claimed = [program for program in CHECKED.values() if row.claims(program)]
        first = [next((p for p in claimed if p.in_loop is in_loop), None) for in_loop in (False, True)]
        least = next((n for word, n in (("leave-one-out", 2), ("regressed", 3)) if word in row.name), 1)
        sizes = [max(n, least) for n in (1, 2, 5) if n > 1 or least == 1]  # fewer are refused
        for program, n in itertools.product(filter(None, first), sizes):
            chosen = row.name in ONE_ROW_OF_A_KIND and n == 5 and not program.in_loop
            marks = () if chosen else (pytest.mark.slow,)
            of_n = dataclasses.replace(row, num_samples=n, order=1)
            params.append(pytest.param(program, of_n, id=f"{program.name}-{row.name}-{n}", marks=marks))
    return pytest.mark.parametrize(("program", "row"), params)


ONE_ROW_OF_A_KIND = (
    "score",
    "score, 2 points",
    "score, 2 samples",
    "pathwise",
    "enumerate",
    "smoothed perturbation",
    "auto",
)


@with_few_samples()
def test_few_samples_are_unbiased(program, row):
    """A baseline made of the other samples is biased most where there are few of them."""
    check(program, row)


IN_SINGLE_PRECISION = (
    "normal",
    "geometric",
    "poisson",
    "multivariate_normal",
    "two_discrete_layers",
    "mixture_of_kinds",
    "batch_through_an_mlp",
    "attention",
    "gaussian_chain",
    "hidden_markov_chain",
    "rollout_accumulated_in_the_carry",
    "nested_scans",
    "cond_on_a_draw_with_different_laws",
    "scan_with_a_cond_on_a_draw",
    "random_walk_stopped_by_a_while_loop",
)


IN_BOTH_PRECISIONS = [
    (p, row) for p, row in CLAIMED if (p.in_loop or p.name in IN_SINGLE_PRECISION) and row.name in ONE_ROW_OF_A_KIND
]


@each(IN_BOTH_PRECISIONS)
def test_float32_stays_float32(program, row):
    """Every derivative that is claimed, under tracing only: what would be promoted shows in the types."""
    params = program.typed_params(jnp.float32)
    shapes = jax.eval_shape(lambda params, key: row.estimate(program, params, key), params, jax.random.key(0))
    assert {shape.dtype for shape in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


@each(IN_BOTH_PRECISIONS, default=IN_SINGLE_PRECISION)
def test_unbiased_in_float32(program, row):
    check(program, row, jnp.float32)


@each(IN_BOTH_PRECISIONS, default=IN_SINGLE_PRECISION)
def test_jit_and_vmap_give_what_one_key_gives(program, row):
    """Operation by operation against `jit`; and each entry of a `vmap` over keys against its own run."""
    params = program.typed_params(jnp.float64)
    keys = jax.random.split(seed(program, row), 3)

    def value_and_gradient(key):
        return row.estimate(dataclasses.replace(program, order=1), params, key)

    compiled = jax.jit(value_and_gradient)
    mapped = jax.jit(jax.vmap(value_and_gradient))(keys)
    for name, value in value_and_gradient(keys[0]).items():
        np.testing.assert_allclose(compiled(keys[0])[name], value, rtol=1e-9, atol=1e-9)
    for i in range(3):
        for name, value in compiled(keys[i]).items():
            np.testing.assert_allclose(mapped[name][i], value, rtol=1e-9, atol=1e-9)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    "row",
    [row for row in ESTIMATORS.values() if "pathwise" not in row.kind and row.kind != "floats"],
    ids=lambda row: row.name,
)
def test_aux_has_an_axis_of_samples(row):
    program = PROGRAMS["aux_output"]
    _, aux = row.expectation(program, program.typed_params(jnp.float64), jax.random.key(0))
    leading = (row.num_samples,) if row.num_samples > 1 else ()
    assert aux["draw"].shape[: len(leading)] == leading
    assert aux["twice"].shape[-1] == 2


@pytest.mark.parametrize("program", CHECKED.values(), ids=lambda program: program.name)
def test_value_of_one_sample_is_the_programs_own(program):
    """Score and pathwise evaluate the program at the draw that the plain program makes."""
    params, key = program.typed_params(jnp.float64), seed(program, ESTIMATORS["score"])
    plain = jax.jit(lambda params, key: program.call(program.fn, params, key))(params, key)
    for name in ("score", "pathwise"):
        if ESTIMATORS[name].claims(program):
            found = jax.jit(lambda params, key, row=ESTIMATORS[name]: row.expectation(program, params, key))(
                params, key
            )
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, plain)


@pytest.mark.parametrize("row", ESTIMATORS.values(), ids=lambda row: row.name)
def test_evaluations_are_those_of_the_row(row):
    """Counted as the gradient is traced: of how many numbers `tanh` is taken."""
    binary = row.kind in ("binary", "enumerate", "neighbours", "relaxed", "floats")
    estimator = row.make(PROGRAMS["normal"], PROGRAMS["normal"].typed_params(jnp.float64))

    def program(p, key):
        dtype = p.dtype if row.kind == "floats" else jnp.int32
        law = mcgrad.Bernoulli(logits=p, dtype=dtype) if binary else mcgrad.Normal(p, 1.0)
        return jnp.tanh(jnp.sum(jnp.array([1.0, 0.7]) * mcgrad.sample(key, law)))

    gradient = mcgrad.grad(program, estimator=estimator, num_samples=row.num_samples)
    assert sum(tanhs(gradient, jnp.array([0.2, 0.3]))) == row.evaluations


def test_every_estimator_is_in_the_table():
    """An estimator that is exported and missing from `helpers.ESTIMATORS` is one that no test runs; biased ones have a file."""
    exported = {
        value
        for module in (mcgrad, mcgrad.estimators)
        for name in dir(module)
        if isinstance(value := getattr(module, name), type)
        and issubclass(value, mcgrad.Estimator)
        and not name.startswith("_")
    } - {mcgrad.Estimator, mcgrad.LocalEstimator}
    assert {estimator for estimator in exported if estimator.biased} == set(map(type, BIASED.values()))
    exported = {estimator for estimator in exported if not estimator.biased}
    program = PROGRAMS["normal"]
    covered = {type(row.make(program, program.typed_params(jnp.float64))) for row in ESTIMATORS.values()}
    assert exported == covered


# Deliberately wrong estimators, written as a third party would: the same check must fail them.


@dataclasses.dataclass(frozen=True)
class HalfScore(mcgrad.LocalEstimator):
    """The score with half of its weight: the gradient is half of what it should be, the value is right."""

    def represent(self, draw):
        x = draw.sample()
        return WeightedPoint(x, 0.5 * draw.log_prob(x))


@dataclasses.dataclass(frozen=True)
class OwnBaselineScore(mcgrad.LocalEstimator):
    """A baseline that depends on the draw that it is a baseline for."""

    def represent(self, draw):
        x = draw.sample()
        log_prob = draw.log_prob(x)
        return WeightedPoint(x, log_prob, baseline=jax.lax.stop_gradient(log_prob))


@dataclasses.dataclass(frozen=True)
class FirstOrderScore(mcgrad.LocalEstimator):
    """The surrogate `cost * log_prob`, right to first order and wrong to second (Foerster et al. 2018, section 3)."""

    def represent(self, draw):
        x = draw.sample()
        log_prob = draw.log_prob(x)
        # log(1 + l - stop(l)): its exponential has the first derivative of l, and no more.
        return WeightedPoint(x, jnp.log1p(log_prob - jax.lax.stop_gradient(log_prob)))


@dataclasses.dataclass(frozen=True)
class NoScore(mcgrad.LocalEstimator):
    """No weight at all: a gradient that is silently zero."""

    def represent(self, draw):
        x = draw.sample()
        return WeightedPoint(x, jax.lax.stop_gradient(draw.log_prob(x)))


@pytest.mark.parametrize(
    "name",
    [
        "categorical",
        "normal",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("batch_through_an_mlp", "mixture_of_kinds")),
    ],
)
@pytest.mark.parametrize("wrong", [HalfScore, OwnBaselineScore, FirstOrderScore, NoScore])
def test_a_wrong_estimator_fails(name, wrong):
    row = EstimatorRow("wrong", lambda program, params: wrong(), "score")
    with pytest.raises(AssertionError, match="biased"):
        check(PROGRAMS[name], row)
    if wrong is FirstOrderScore:
        check(PROGRAMS[name], dataclasses.replace(row, order=1))
