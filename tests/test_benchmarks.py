"""The pure parts of the benchmarks: inputs, verdicts, holds, and the document written of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import inputs, loops, overhead, report
from benchmarks.report import Hold, Table
from benchmarks.runner import Failed, Session, ratio, variance, verdict
from benchmarks.worker import moments


def test_every_part_can_be_run_and_all_fit_into_forty_minutes():
    for part in command.PARTS.values():
        assert part.TITLE and callable(part.measure) and callable(part.report)
    assert sum(part.BUDGET for part in command.PARTS.values()) <= 40 * 60 - 180  # installing takes the rest


def test_gradients_by_the_complex_step_are_those_of_differences():
    logits, step = np.array([0.3, -0.4, 1.2]), 1e-6
    for value in (inputs.small_bits_value, inputs.joint_bits_value, inputs.separate_bits_value):
        moved = [(value(logits + e) - value(logits - e)) / (2 * step) for e in step * np.eye(3)]
        np.testing.assert_allclose(inputs.gradient(value, logits), moved, rtol=1e-6, atol=1e-9)


def test_the_exact_value_of_joint_bits_is_that_of_enumeration():
    logits, w = inputs.bits(4).astype(np.float64), inputs.bits_weights(4)
    states = np.stack(np.meshgrid(*[[0, 1]] * 4), -1).reshape(-1, 4)
    p = inputs.sigmoid(logits)
    probabilities = np.prod(np.where(states, p, 1 - p), axis=1)
    enumerated = probabilities @ ((states - 1 / 3) @ w) ** 2
    np.testing.assert_allclose(inputs.joint_bits_value(logits), enumerated, rtol=1e-6)


def drawn(mean, deviation, count=10_000):
    rows = np.random.default_rng(0).normal(size=(count, 2))
    return moments((rows - rows.mean(0)) / rows.std(0) * deviation + mean, slice(0, 2))


def test_a_verdict_needs_evidence_on_both_sides():
    exact, parts = np.array([1.0, 2.0]), {"value": (0, 1), "gradient": (1, 2)}
    assert verdict(drawn([1.0, 2.0], 1.0), exact, parts) == "agrees"
    assert verdict(drawn([1.0, 2.2], 1.0), exact, parts) == "biased: gradient"
    assert verdict(drawn([1.0, 2.2], 1.0), exact, parts, error=np.array([0.0, 0.1])) == "agrees"
    assert verdict(drawn([1.0, 2.0], 100.0), exact, parts) == "too noisy to tell"
    assert verdict(drawn([1.0, np.nan], 1.0), exact, parts) == "not finite"
    assert verdict({"error": "over 60 s"}, exact, parts) == "over 60 s"
    assert verdict({}, exact, parts) == "not drawn"


def test_a_column_that_no_draw_has_moved_says_nothing_of_a_bias():
    moved = drawn([0.0, 0.0], 1.0)
    moved["mean"][1], moved["variance"][1] = -0.005, 0.0  # what a rare event would have to pay for is missing
    assert "biased" not in verdict(moved, np.zeros(2), {"gradient": (0, 2)})
    moved["mean"][1] = -0.1
    assert verdict(moved, np.zeros(2), {"gradient": (0, 2)}) == "biased: gradient"


def test_figures_have_their_spread():
    assert ratio([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]) == (2.5, 3.0, 3.5)
    found, error = variance(drawn([0.0, 0.0], 1.0))
    assert abs(found - 2) < 5 * error and error < 0.1
    assert report.spread((1.0, 1.5, 2.0)) == "1.5 [1, 2]"
    assert report.milliseconds(0.00123) == "1.23 ms"


def test_holds_and_tables_are_written_out():
    assert Hold("fast", True, "Ratio 1.").markdown() == "- met: fast. Ratio 1."
    assert Hold("fast", False, "Ratio 2.").markdown() == "- **NOT met**: fast. Ratio 2."
    assert Hold("fast", None, "").markdown().startswith("- not measured: fast")
    table = Table("a | b", ("name", "figure"), [("|x|", "1")])
    assert table.markdown().splitlines()[2:] == ["| name | figure |", "| --- | ---: |", "| \\|x\\| | 1 |"]


def test_what_the_budget_does_not_allow_is_not_measured():
    class Unreachable:
        def ask(self, *_, **__):
            raise Failed("over 1 s")

    session = Session()
    assert session.build(Unreachable(), "bits").measured["error"] == "over 1 s"
    session.begin(-1.0)
    assert "used up" in session.build(Unreachable(), "bits").measured["error"]


def overhead_data(slowdown):
    times = {"compile_times": [1.0, 1.0], "flops": 100.0, "step_seconds": 1e-3}
    entries = {
        overhead.OURS: {**times, "times": [slowdown * 1e-3] * 5},
        overhead.BY_HAND: {**times, "times": [1e-3] * 5},
    }
    run = {"date": "today", "machine": "a machine", "load": 0.0, "versions": "none", "quick": False, "seconds": 1.0}
    titles = list(overhead.WORKLOADS)
    failed = {overhead.OURS: {"error": "over 60 s"}, overhead.BY_HAND: times}
    return {"workloads": {titles[0]: entries, titles[1]: failed}, "credit": {}, "run": run}


@pytest.mark.parametrize(("slowdown", "met"), [(1.0, True), (1.2, False)])
def test_the_document_tells_what_is_not_met(slowdown, met, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "overhead.json").write_text(json.dumps(overhead_data(slowdown)))
    text = command.document()
    assert ("All holds are met." in text) is met
    assert "`python -m benchmarks --only overhead`" in text and "over 60 s" in text
    assert (f"- **NOT met**: a step takes at most {overhead.MOST_TIME} times" in text) is not met
    assert loops.TITLE not in text  # a part that was never measured
