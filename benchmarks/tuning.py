"""Tuning a Markov chain: the deviation and the time of a gradient in the step size, against the length of the chain."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, draw, median_time, ratio

TITLE = "Tuning random walk Metropolis"
BUDGET = 80.0
LENGTHS = {1: (1000, 10_000, 100_000), 10: (1000, 10_000)}
"""Steps of the chain, by dimension."""
DRAWS = 200
ESTIMATORS = {
    "reflection": 'path and one alternative, `coupling="reflection"`',
    "shared": "the same with shared noise",
    "score": "score",
}
LONGEST = {"reflection": 100_000, "shared": 10_000, "score": 10_000}
BY_HAND = "one simulation by hand"
EXACT = 0.627984, -0.003749
"""Of the stationary chain in one dimension, by quadrature in polar coordinates; the start at 0 is seen in short chains."""
PUBLISHED = {10_000: 0.05, 100_000: 0.01574}
"""Standard deviations: at 100,000 steps Arya et al. 2023, section 3; at 10,000 what that is in proportion."""
MOST_TIME = 3.0
FLAT = 1.3


def measure(session: Session) -> dict[str, Any]:
    """Each estimator at each length, in one dimension and in ten."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "dimensions": {}}
    for dim, each in LENGTHS.items():
        lengths = data["dimensions"][str(dim)] = {}
        for num_steps in each:
            wanted = [name for name in ESTIMATORS if num_steps <= LONGEST[name] and (dim == 1 or name == "reflection")]
            arguments = {"num_steps": num_steps, "dim": dim}
            entries = {name: session.build(ours, "metropolis", estimator=name, **arguments) for name in wanted}
            timed = entries | {BY_HAND: session.build(ours, "metropolis_by_hand", **arguments)}
            alternate(timed, session.rounds)
            for entry in entries.values():
                draw(entry, session.draws(DRAWS), (1, 2))
            lengths[str(num_steps)] = {name: entry.measured for name, entry in timed.items()}
    return data


def report(data: dict[str, Any]) -> list[Any]:
    """The table, the picture and the holds."""
    headings = (
        "dimensions",
        "steps",
        "estimator",
        "mean",
        "deviation",
        "times root of steps",
        "a gradient",
        "/ one simulation",
    )
    table = Table(f"random walk of scale 2.38 / root of dimensions, exact {EXACT[1]} in one dimension", headings)
    for dim, lengths in data["dimensions"].items():
        for num_steps, found in lengths.items():
            for name, measured in found.items():
                if name != BY_HAND:
                    table.rows.append(
                        (
                            dim,
                            f"{int(num_steps):,}",
                            ESTIMATORS[name],
                            *_cells(measured, found[BY_HAND], int(num_steps)),
                        )
                    )
    _picture(data["dimensions"])
    return [
        "Target `N(0, 1)`, or as many of it as there are dimensions, started at its mode; the gradient in the scale of the mean "
        "product of neighbors `x_t x_(t+1)`, in one dimension the problem of Arya et al. 2023, section 3.",
        table,
        "![deviation of the gradient against the length of the chain](results/tuning.png)",
        *holds(data["dimensions"]),
    ]


def deviation(measured: dict[str, Any]) -> float:
    return float(np.sqrt(measured["variance"][1]))


def _cells(measured: dict[str, Any], hand: dict[str, Any], num_steps: int) -> tuple[str, ...]:
    if "variance" not in measured:
        return (measured.get("error") or measured.get("draw_error", ""), *[""] * 4)
    own = deviation(measured)
    timed = "times" in measured and "times" in hand
    return (
        f"{measured['mean'][1]:.4g} ± {own / np.sqrt(measured['count']):.2g}",
        f"{own:.3g}",
        f"{own * np.sqrt(num_steps):.3g}",
        milliseconds(median_time(measured)) if timed else "",
        spread(ratio(measured["times"], hand["times"])) if timed else "",
    )


def holds(dimensions: dict[str, Any]) -> list[Hold]:
    """What the figures say of each statement."""
    own = {
        (int(dim), int(steps)): found["reflection"]
        for dim, lengths in dimensions.items()
        for steps, found in lengths.items()
        if "variance" in found.get("reflection", {})
    }
    found = []
    for steps, most in PUBLISHED.items():
        measured = own.get((1, steps))
        statement = f"at {steps:,} steps the deviation is at most {most:g}"
        got = deviation(measured) if measured else None
        found.append(Hold(statement, got <= most if measured else None, f"{got:.4f}." if measured else ""))
    longest = own.get((1, max(PUBLISHED)))
    off = abs(longest["mean"][1] - EXACT[1]) / deviation(longest) * np.sqrt(longest["count"]) if longest else 0.0
    statement = f"its mean at {max(PUBLISHED):,} steps is within 4 standard errors"
    found.append(
        Hold(statement, bool(off < 4) if longest else None, f"{off:.2f} of {DRAWS} gradients." if longest else "")
    )
    hand = {key: dimensions[str(key[0])][str(key[1])][BY_HAND] for key in own}
    ratios = [
        ratio(m["times"], hand[key]["times"])[1] for key, m in own.items() if "times" in m and "times" in hand[key]
    ]
    statement = f"a gradient takes at most {MOST_TIME:g} times as long as one simulation by hand"
    found.append(
        Hold(statement, max(ratios) <= MOST_TIME if ratios else None, f"Largest {max(ratios, default=0):.3g}.")
    )
    for dim in LENGTHS:
        scaled = [deviation(m) * steps**0.5 for (d, steps), m in own.items() if d == dim and steps >= 1000]
        statement = (
            f"in {dim} dimensions it falls with the root of the length from 1,000 steps on, within a factor of {FLAT:g}"
        )
        worst = max(scaled) / min(scaled) if scaled else 0.0
        found.append(Hold(statement, worst <= FLAT if len(scaled) > 1 else None, f"Within {worst:.3g}."))
    return found


def _picture(dimensions: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for dim, lengths in dimensions.items():
        for name, marker in zip(ESTIMATORS, "os^", strict=True):
            points = [(int(n), deviation(f[name])) for n, f in lengths.items() if "variance" in f.get(name, {})]
            if points:
                label = ESTIMATORS[name].replace("`", "") + (f", {dim} dimensions" if dim != "1" else "")
                axes.loglog(
                    *zip(*points, strict=True), marker=marker, label=label, linestyle="-" if dim == "1" else ":"
                )
    axes.loglog(100_000, PUBLISHED[100_000], "k*", markersize=11, label="published", linestyle="none")
    axes.set_xlabel("steps of the chain")
    axes.set_ylabel("standard deviation of one gradient")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "tuning.png", dpi=150)
