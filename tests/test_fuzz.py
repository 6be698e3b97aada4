"""Random programs against exact sums; and that what is wrong is found. `python -m tests.fuzz` makes more of them."""

import dataclasses

import jax
import numpy as np
import pytest
from fuzz.__main__ import KINDS, judge
from fuzz.check import check
from fuzz.generate import Settings, generate
from fuzz.oracle import exact
from fuzz.shrink import shrink
from fuzz.source import Kind, Program, Statement

import mcgrad
from mcgrad.program import primitives

PROGRAMS = {"score": 3, "windows": 4, "enumerate": 2, "mixed": 3, "further": 1}
"""How many of each kind are checked here."""


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind, count in PROGRAMS.items() for seed in range(count)])
def test_random_programs_are_estimated_right(kind, seed):
    program = generate(KINDS[kind], seed)
    outcome = judge(kind, program, seed)
    assert not outcome.is_finding, f"{program.describe()}\n{outcome}"


def first_finding(settings, kind, programs, **wrong):
    for seed in range(programs):
        program = generate(settings, seed)
        outcome = judge(kind, program, seed) if kind == "windows" else check(program, seed, **wrong)
        if outcome.is_finding:
            return program, outcome
    raise AssertionError("nothing was found")


def wrong_axes(monkeypatch):
    """As if a cumulative sum kept entries apart."""
    monkeypatch.setattr(primitives, "_RULES", dict(primitives._RULES))
    mcgrad.program.register("cumsum", axes="elementwise", linear="all")


CUMSUMS = Settings("score", discrete=True, operation="jnp.cumsum({x}, {a})", blocks=0.0, statements=4, numbers=5)


@pytest.mark.parametrize("kind", ["windows", "score"])
def test_a_wrong_axis_rule_is_found(monkeypatch, kind):
    wrong_axes(monkeypatch)
    program, outcome = first_finding(CUMSUMS, kind, 12)
    assert outcome.kind == {"windows": "window", "score": "inexact"}[kind] or outcome.kind == "biased"
    assert "cumsum" in program.source()


def test_a_wrong_estimator_is_found():
    @dataclasses.dataclass(frozen=True)
    class Score(mcgrad.Score):
        def represent(self, site):
            point = super().represent(site)
            return dataclasses.replace(point, log_weight=0.9 * point.log_weight)

    _, outcome = first_finding(Settings("score", discrete=True, statements=3, numbers=4), "score", 6, Score=Score)
    assert outcome.kind in ("biased", "inexact")


def test_a_finding_is_made_smaller():
    lines = (
        Statement(("d1",), (Kind((3,), "int"),), 'sample(fold_in(key, 1), Bernoulli(logits=theta[:3]), name="d1")'),
        Statement(("v2",), (Kind((3,)),), "jnp.sin(theta[0] * d1)"),
        Statement(("v3",), (Kind((3,)),), "jnp.cumsum(1.0 * d1)"),
        Statement(("v4",), (Kind((3,)),), "v3 ** 2"),
    )
    program = Program(lines, "jnp.sum(v4) + jnp.sum(v2)")
    smallest = shrink(program, lambda candidate: "cumsum" in candidate.source(), seconds=10)
    assert [line.names for line in smallest.statements()] == [("d1",), ("v3",)]


def test_the_oracle_is_right_about_a_program_by_hand():
    line = Statement(("d1",), (Kind((2,), "int"),), 'sample(key, Bernoulli(logits=theta[:2]), name="d1")')
    (value, gradient), _ = exact(
        Program((line,), "d1[0] * d1[1] * theta[2]"), np.array([0.3, -0.2, 2.0, 0.0]), jax.random.key(0)
    )
    p, q = 1 / (1 + np.exp(-0.3)), 1 / (1 + np.exp(0.2))
    np.testing.assert_allclose(value, 2 * p * q)
    np.testing.assert_allclose(gradient, [2 * p * (1 - p) * q, 2 * p * q * (1 - q), p * q, 0], atol=1e-12)
