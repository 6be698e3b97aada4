"""Whether compiled programs have grown since they were last measured: figures that no clock goes into."""

from __future__ import annotations

from typing import Any

from benchmarks.overhead import LOOPS, WORKLOADS
from benchmarks.report import Hold, Table
from benchmarks.runner import OURS, Session

TITLE = "Size of what is compiled"
BUDGET = 30.0
FIGURES = {"flops": "operations", "bytes": "temporary memory", "equations": "traced equations"}
MOST = 1.02  # of the committed ratio


def measure(session: Session) -> dict[str, Any]:
    """Figures of each workload of the part `overhead`, as ratios to those of the surrogate by hand in the same JAX."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "ratios": {}}
    for title, (workload, arguments) in WORKLOADS.items():
        ours_and_hand = [
            session.build(ours, builder, **arguments).measured for builder in (workload, f"{workload}_by_hand")
        ]
        told = [figure for figure in FIGURES if workload not in LOOPS or figure != "flops"]
        data["ratios"][title] = {
            figure: ours_and_hand[0][figure] / ours_and_hand[1][figure]
            for figure in told
            if all(figure in found for found in ours_and_hand)
        }
    return data


def report(data: dict[str, Any]) -> list[Any]:
    table = Table("over those of the surrogate by hand", ("workload", *FIGURES.values()))
    for title, found in data["ratios"].items():
        table.rows.append((title, *(f"{found[figure]:.3f}" if figure in found else "" for figure in FIGURES)))
    return ["`python -m benchmarks --check` measures these anew, and fails where one has grown by over 2 %.", table]


def compare(data: dict[str, Any], committed: dict[str, Any]) -> Hold:
    """Whether each ratio is at most 1.02 of the committed one; a figure that is missing counts as grown."""
    grown = [
        f"{title}, {FIGURES[figure]} {before:.3f} -> {data['ratios'].get(title, {}).get(figure, float('nan')):.3f}"
        for title, found in committed["ratios"].items()
        for figure, before in found.items()
        if not data["ratios"].get(title, {}).get(figure, float("nan")) <= MOST * before
    ]
    compared = sum(map(len, committed["ratios"].values()))
    return Hold(
        "no compiled program has grown by over 2 %",
        not grown,
        f"{compared} figures; grown: {'; '.join(grown) or 'none'}.",
    )
