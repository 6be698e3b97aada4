"""What mcgrad costs over a surrogate written by hand: operations, compile time, run time; and what credit gains."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report import Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Entry, Session, alternate, draw, median_time, ratio, variance

TITLE = "Against JAX by hand"
BUDGET = 90.0
BY_HAND = "by hand"
WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder 784-200-784, 64 images, score": ("autoencoder", {"estimator": "score"}),
    "autoencoder, leave-one-out of 10": ("autoencoder", {"estimator": "leave-one-out of 10"}),
    "rollout of 10 steps in a scan, 64 environments, score": ("rollout", {"num_steps": 10}),
    "rollout of 100 steps": ("rollout", {"num_steps": 100}),
    "rollout of 1000 steps": ("rollout", {"num_steps": 1000}),
    "logistic regression, 1000 Gaussian weights, pathwise": ("regression", {}),
    "toy of the survey, 1000 normals, score": ("survey_toy", {"estimator": "score"}),
    "toy of the survey, measure-valued": ("survey_toy", {"estimator": "measure-valued"}),
}
SAME_BUT_LONGER = ("rollout of 10 steps in a scan, 64 environments, score", "rollout of 1000 steps")
LOOPS = ("rollout",)  # XLA counts a loop's body once, however often it runs: their operations say nothing
SPELLINGS = {
    "reinforce": "plain REINFORCE on the whole loss",
    "by hand": "written by hand, example by example",
    "program": "`mcgrad.grad(loss, estimator=mcgrad.Score())`",
    "vmap": "the same with a `vmap` over examples inside the program",
}
MOST_OPERATIONS, MOST_TIME = 1.02, 1.05
WHY_OPERATIONS = {
    "toy of the survey, measure-valued": "by hand is the gradient itself and no surrogate. Of the 13 operations a number more, 4 "
    "find the noise again from the draw (`(x - loc) / scale`, in two loops), 2 subtract the value at each of the three points, 2 "
    "put two derivatives into one array, as JAX's gradient of `params[0]` and `params[1]` does (`pad` and `add`), and the rest are "
    "signs"
}
WHY_TIME = {
    "autoencoder, leave-one-out of 10": "with fewer operations than by hand, the compiled program has one loop more over "
    "[10, 64, 784] numbers (`broadcast_multiply_fusion`: the derivative of the softplus times 1/640), which XLA fuses with the "
    "weights by hand"
}
"""What was found in the compiled programs of workloads that are over, shown where they are."""


def measure(session: Session) -> dict[str, Any]:
    """Both sides of each workload, compiled in turn several times, then timed in turn; and the variances of the README's loss."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "workloads": {}, "credit": {}}
    for title, (workload, arguments) in WORKLOADS.items():
        compiling: dict[str, list[float]] = {OURS: [], BY_HAND: []}
        entries: dict[str, Entry] = {}
        for _ in range(2 if session.quick else 4):
            for name, builder in ((OURS, workload), (BY_HAND, f"{workload}_by_hand")):
                entries[name] = session.build(ours, builder, **arguments)
                compiling[name].append(entries[name].measured.get("compile_seconds", float("nan")))
        alternate(entries, session.rounds)
        data["workloads"][title] = {
            # the first compilation of a process pays for more than itself
            name: {**entry.measured, "compile_times": compiling[name][1:]}
            for name, entry in entries.items()
        }
    for spelling in SPELLINGS:
        entry = session.build(ours, "credit", spelling=spelling)
        draw(entry, session.draws(20_000), (1, 129))
        data["credit"][spelling] = {"group_variances": entry.measured.get("group_variances")}
    return data


def operations_ratio(entries: dict[str, dict[str, Any]]) -> float:
    """Floating-point operations of the compiled program, as XLA counts them, over those of the one by hand."""
    return entries[OURS]["flops"] / entries[BY_HAND]["flops"]


def report(data: dict[str, Any]) -> list[Any]:
    """A table of each figure with its ratio, the variances, and the holds."""
    headings = ("workload", "operations", "ratio", "trace and compile", "ratio", "a step", "by hand", "ratio")
    table = Table("value and gradient, next to the surrogate written by hand", headings)
    operations, times, compiling = {}, {}, {}
    for title, entries in data["workloads"].items():
        ours, hand = entries[OURS], entries[BY_HAND]
        if not ("times" in ours and "times" in hand):
            table.rows.append((title, *[""] * 6, ours.get("error") or hand["error"]))
            continue
        if WORKLOADS[title][0] not in LOOPS:
            operations[title] = operations_ratio(entries)
        times[title] = ratio(ours["times"], hand["times"])
        compiling[title] = ratio(ours["compile_times"], hand["compile_times"])
        table.rows.append(
            (
                title,
                f"{ours['flops']:,.0f}" if title in operations else "",
                f"{operations[title]:.3f}" if title in operations else "",
                f"{np.median(ours['compile_times']):.2f} s",
                spread(compiling[title]),
                milliseconds(median_time(ours)),
                milliseconds(median_time(hand)),
                spread(times[title]),
            )
        )
    credit = Table("credit: 16 examples, 8 Bernoulli latents each", ("surrogate", "total gradient variance"))
    for spelling, measured in data["credit"].items():
        if measured["group_variances"]:
            found, error = variance(measured)
            credit.rows.append((SPELLINGS[spelling], f"{found:.4g} ± {error:.2g}"))
    return [
        "Operations are those of the compiled step, by XLA's `cost_analysis`; it counts a loop's body once, so that none are told "
        "for loops. Both sides are compiled and timed in turn in one process, with JAX's caches cleared before each compilation.",
        table,
        credit,
        _at_most(
            operations,
            MOST_OPERATIONS,
            "outside loops, no more operations than by hand (ratio at most 1.02)",
            WHY_OPERATIONS,
        ),
        _at_most(
            {title: found[1] for title, found in times.items()},
            MOST_TIME,
            "a step takes at most 1.05 times as long as by hand (median)",
            WHY_TIME,
        ),
        _at_most(
            {title: found[1] for title, found in compiling.items()},
            2.0,
            "tracing and compiling takes at most twice as long as by hand (median)",
        ),
        _compiling_of_loops(data["workloads"]),
    ]


def _compiling_of_loops(workloads: dict[str, Any]) -> Hold:
    """Whether a longer loop compiles as fast."""
    few, many = (workloads.get(title, {}).get(OURS, {}).get("compile_times") for title in SAME_BUT_LONGER)
    statement = (
        "tracing and compiling a scan of 1000 steps takes at most 1.5 times as long as one of 10 steps (medians)"
    )
    if not few or not many:
        return Hold(statement, None, "")
    found = float(np.median(many) / np.median(few))
    return Hold(statement, found <= 1.5, f"Ratio {found:.3g}.")


def _at_most(ratios: dict[str, float], bound: float, statement: str, why: dict[str, str] | None = None) -> Hold:
    if not ratios:
        return Hold(statement, None, "")
    worst = max(ratios, key=ratios.__getitem__)
    over = [f"{title} ({value:.3g})" for title, value in ratios.items() if value > bound]
    evidence = f"Largest {ratios[worst]:.3g} ({worst}), of {len(ratios)}; over: {', '.join(over) or 'none'}."
    for title, reason in (why or {}).items():
        if ratios.get(title, 0.0) > bound:
            evidence += f" Why, {title}: {reason}."
    return Hold(statement, not over, evidence)
