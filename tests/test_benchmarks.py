"""The pure parts of the benchmarks: inputs, verdicts, holds, and the document written of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from distributions import DISTRIBUTIONS

from benchmarks import __main__ as command
from benchmarks import (
    accuracy,
    contract,
    guard,
    inputs,
    leaderboard,
    loops,
    memory,
    overhead,
    pathwise,
    published,
    report,
    scaling,
)
from benchmarks.published.figures import Figure
from benchmarks.report import Hold, Table
from benchmarks.runner import Failed, Session, ratio, variance, verdict
from benchmarks.worker import moments


def test_every_part_can_be_run_and_all_fit_into_forty_minutes():
    for part in command.PARTS.values():
        assert part.TITLE and callable(part.measure) and callable(part.report)
    assert sum(part.BUDGET for part in command.PARTS.values()) <= 40 * 60 - 180  # installing takes the rest


def test_exact_derivatives_of_draws_are_known_of_every_continuous_distribution():
    """But of such as are made of others and hold their draws."""
    references = pytest.importorskip("benchmarks.references", reason="needs mpmath")
    continuous = {name for name, row in DISTRIBUTIONS.items() if not row.discrete} - {"Independent", "Transformed"}
    assert {name.split(", ")[0] for name in references.GRIDS} == continuous
    assert set(references.GRIDS) == set(references.VELOCITIES)


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


@pytest.mark.parametrize(("num_steps", "exact"), [(10, 1.48982), (100, 15.13490)])
def test_the_exact_gradient_of_the_walk_is_the_known_one(num_steps, exact):
    found = inputs.gradient(lambda p: inputs.walk_value(p, num_steps), inputs.walk(num_steps).astype(np.float64))
    np.testing.assert_allclose(found, [exact], rtol=1e-5)


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
    assert verdict(drawn([1.0, 2.2], 0.1, count=400), exact, parts) == "too few draws"
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


def test_what_was_measured_is_kept_in_six_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.save("part", {"times": [np.float32(1 / 3), (2, None)], "quick": False, "name": "one"})
    assert report.load("part") == {"times": [0.333333, [2, None]], "quick": False, "name": "one"}


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
    run |= {"patience": 2.0}
    titles = list(overhead.WORKLOADS)
    failed = {overhead.OURS: {"error": "over 60 s"}, overhead.BY_HAND: times}
    loops = dict.fromkeys(overhead.SAME_BUT_LONGER, entries)
    return {"workloads": {titles[0]: entries, titles[1]: failed, **loops}, "credit": {}, "run": run}


@pytest.mark.parametrize(("slowdown", "met"), [(1.0, True), (1.2, False)])
def test_the_document_tells_what_is_not_met(slowdown, met, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "overhead.json").write_text(json.dumps(overhead_data(slowdown)))
    text = command.document()
    assert ("All holds are met." in text) is met
    assert "`python -m benchmarks --only overhead`" in text and "over 60 s" in text
    assert (f"- **NOT met**: a step takes at most {overhead.MOST_TIME} times" in text) is not met
    assert loops.TITLE not in text  # a part that was never measured


@pytest.mark.parametrize(("operations", "met"), [(1.0, True), (1.03, False), (None, False)])
def test_a_program_that_has_grown_is_named(operations, met):
    committed = {"ratios": {"a rollout": {"flops": 1.0, "bytes": 1.5}}}
    now = {"bytes": 1.4} | ({} if operations is None else {"flops": operations})
    verdict = guard.compare({"ratios": {"a rollout": now}}, committed)
    assert verdict.met is met and ("a rollout, operations 1.000 ->" in verdict.evidence) is not met


def loops_data(time, deviation):
    """A walk and a chain of 100 steps, where by hand takes 1 ms and the path `time` of them."""
    score = {"group_variances": [deviation**2] * 10, "times": [1e-3] * 5, "verdict": "agrees"}
    score |= {"mean": [0.0, 1.0], "variance": [1.0, 1.0], "count": 100}
    path = {**score, "group_variances": [6.5**2] * 10, "times": [time * 1e-3] * 5}
    estimators = {
        "score": score,
        **dict.fromkeys(list(loops.ESTIMATORS)[1:], path),
        loops.BY_HAND: {"times": [1e-3] * 5},
    }
    lengths = {"100": {"exact": 1.0, "estimators": estimators, "in_a_row": estimators}}
    return {"programs": dict.fromkeys(loops.PROGRAMS, lengths)}


@pytest.mark.parametrize(("time", "deviation", "met"), [(2.9, 95.0, True), (3.1, 12.0, False)])
def test_a_path_must_be_cheap_and_have_the_published_spread(time, deviation, met, tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "RESULTS", tmp_path)
    data = loops_data(time, deviation)
    unbiased, cheap, at_100, at_1000, published = loops.report(data)[-5:]
    assert unbiased.met and cheap.met is met and at_100.met is met and at_1000.met is None and published.met is met


def test_slopes_are_those_of_the_largest_sizes():
    sizes = [1, 10, 100, 1000]
    assert abs(scaling.slope(sizes, [50.0, *(size**1.5 for size in sizes[1:])]) - 1.5) < 1e-9


def memory_data(growth):
    one = {"bytes": 1e6, "peak": 3e8, "before": 2e8, "seconds": 0.1}
    rows = {"one chunk": one, "chunks": {**one, "bytes": growth * 1e6}, "at once": {"bytes": 1e9}}
    return {"num_samples": 10**6, "rows": {"score": rows}}


@pytest.mark.parametrize(("growth", "met"), [(1.1, True), (1.3, False)])
def test_memory_must_stay_that_of_one_chunk(growth, met):
    compiled, peak = memory.report(memory_data(growth))[-2:]
    assert compiled.met is met and peak.met


def contract_data(deviation):
    figures = {"value": {"deviation": 1.0, "variance": 2.0, "told": True}}
    score = {**figures, "gradient": {"deviation": 0.5, "variance": 4.0, "told": False}, "draws": 2048}
    other = {**figures, "gradient": {"deviation": deviation, "variance": 1.0, "told": True}, "draws": 2048}
    rows = {"score": score, "pathwise": other, "arm": {"error": "over 30 s"}}
    return {"programs": {"normal": rows}}


@pytest.mark.parametrize(("deviation", "met"), [(4.9, True), (5.1, False)])
def test_the_contract_is_written_with_what_failed(deviation, met, tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "DOCUMENT", tmp_path / "CONTRACT.md")
    monkeypatch.setattr(leaderboard, "DOCUMENT", tmp_path / "LEADERBOARD.md")
    unbiased, complete = contract.report(contract_data(deviation))[-2:]
    assert unbiased.met is met and "1 of them too noisy" in unbiased.evidence
    assert complete.met is False and "arm on normal: over 30 s" in complete.evidence
    text = (tmp_path / "CONTRACT.md").read_text()
    assert f"| pathwise | 1 | value, gradient | 1.0 | {deviation:.1f} |  | 0.25 |" in text
    assert (
        f"| pathwise | 1.0 | 2 | 1 | {deviation:.1f} | 1 | 0.25 |" in text
        and "| score | 1.0 | 2 | 1 | 0.5 (?) |" in text
    )


def test_only_comparisons_of_what_works_decide(monkeypatch):
    monkeypatch.setattr(pathwise, "_picture", lambda data: None)
    ours, slow = {"times": [1e-3] * 5}, {"times": [2e-3] * 5, "not_finite": 3}
    entries = {pathwise.OURS: ours, "jax.random": slow, "TFP": {"error": "LookupError: not in TFP"}}
    *_, jax_hold, tfp_hold, finite = pathwise.report({"laws": {"Gamma": {"0.3": entries}}, "skipped": None})
    assert jax_hold.met and tfp_hold.met is None and finite.met
    entries[pathwise.OURS] = {"times": [3e-3] * 5, "zero": 1}
    *_, jax_hold, _, finite = pathwise.report({"laws": {"Gamma": {"0.3": entries}}, "skipped": None})
    assert jax_hold.met is False and "Gamma 0.3 (1.5)" in jax_hold.evidence and finite.met is False


def accuracy_data(error, zero=0):
    row = {"error": error, "at": None, "not_finite": 0, "zero": zero, "count": 7}
    libraries = {"mcgrad": {"scale": row}, "jax.random": {"error": "LookupError: not in jax.random"}}
    return {
        "parameters": {"Normal": ["scale"]},
        "skipped": None,
        "laws": {"Normal": dict.fromkeys(accuracy.BOUNDS, libraries)},
    }


@pytest.mark.parametrize(
    ("error", "zero", "met"), [(1e-12, 0, [True, True]), (1e-7, 0, [False, True]), (0.0, 7, [False, False])]
)
def test_errors_of_derivatives_decide(error, zero, met, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "DOCUMENT", tmp_path / "document.md")
    assert [hold.met for hold in accuracy.report(accuracy_data(error, zero))[-2:]] == met
    text = (tmp_path / "document.md").read_text()
    assert "| Normal | `scale` |" in text and ("silently zero" in text) is (zero == 7)


@pytest.mark.parametrize(
    ("claim", "ours", "met"),
    [
        ("same", 1.2, True),
        ("same", 1.5, False),
        ("at most", 0.1, True),
        ("at most", 1.5, False),
        ("at least", 0.5, False),
    ],
)
def test_a_published_figure_is_reached_within_its_slack_and_four_standard_errors(claim, ours, met):
    figure = Figure("a variance", ours, 0.05, 1.0, claim, 0.1)
    assert figure.met is met and ("not reached" in figure.verdict) is not met
    assert figure._replace(claim="").met is None and figure._replace(published=None).verdict == "ours only"


def test_published_tables_tell_what_is_missed_and_what_was_not_measured():
    figures = [Figure("a bias", 2.0, 0.0, 1.0, "same")._asdict(), Figure("a curve", 3.0)._asdict()]
    blocks = published.report({"tables": {"cone": figures}})
    told = {block.statement: block for block in blocks if isinstance(block, Hold)}
    missed = told[f"every figure of {published.cone.TITLE} is reproduced or beaten"]
    assert missed.met is False and missed.evidence.endswith("not: a bias.")
    assert sum(block.met is None for block in told.values()) == len(published.TABLES) - 1
    (shown,) = [block for block in blocks if isinstance(block, Table)]
    assert [row[-1] for row in shown.rows] == ["**not reached**", "ours only"]


def test_the_front_of_estimators_is_what_no_other_beats_in_both():
    rows = {
        "fast": {"gradient": {"variance": 4.0}, "seconds": 1.0},
        "slow and no better": {"gradient": {"variance": 4.0}, "seconds": 3.0},
        "exact": {"gradient": {"variance": 1e-30}, "seconds": 5.0},
        "between": {"gradient": {"variance": 1.0}, "seconds": 2.0},
        "exact, slower": {"gradient": {"variance": 0.0}, "seconds": 9.0},
        "failed": {"error": "over 30 s"},
    }
    found = leaderboard.points(rows)
    assert leaderboard.front(found) == ["fast", "between", "exact"] and leaderboard.best(found) == "exact"
    assert leaderboard.best({name: found[name] for name in ("fast", "between")}) == "between"


def test_the_leaderboard_is_written_with_its_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(leaderboard, "RESULTS", tmp_path)
    monkeypatch.setattr(leaderboard, "DOCUMENT", tmp_path / "LEADERBOARD.md")
    rows = {
        "score": {"gradient": {"variance": 2.0}, "seconds": 1e-6, "operations": 10.0},
        "enumerate": {"gradient": {"variance": 0.0}, "seconds": 3e-6, "operations": 4000.0},
    }
    _, summary, _ = leaderboard.blocks({"one_bit": rows})
    assert summary.rows == [("one bit", "enumerate", "0", "score, enumerate")]
    assert "| score | 2 | 1 | 2 | 10 | yes |" in (tmp_path / "LEADERBOARD.md").read_text()
    assert (tmp_path / leaderboard.PICTURE).stat().st_size > 10_000
