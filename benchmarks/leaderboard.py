"""Which estimator to take for which program: variance times time of a gradient, and what no other beats in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, Table

TIMED = 64  # gradients at once in a timed step
ORDER = "gradient"
DOCUMENT = RESULTS / "LEADERBOARD.md"
PICTURE = "leaderboard.png"
STYLE = Path(__file__).parents[1] / "mcgrad" / "diagnostics" / "pictures.mplstyle"
LOOPS = ("gaussian_chain", "hidden_markov_chain", "rollout_accumulated_in_the_carry")
"""Programs with loops, whose body XLA counts once: their operations say nothing."""
NO_VARIANCE = 1e-25
"""Below it a variance is what rounding leaves."""

Point = tuple[float, float]


def points(rows: dict[str, Any]) -> dict[str, Point]:
    """Variance and seconds of a gradient, of each estimator of a program that was timed."""
    return {
        name: (found[ORDER]["variance"] if found[ORDER]["variance"] > NO_VARIANCE else 0.0, found["seconds"])
        for name, found in rows.items()
        if ORDER in found and "seconds" in found
    }


def front(found: dict[str, Point]) -> list[str]:
    """The estimators than which no other has as little variance and takes as little time, from fast to slow."""
    kept: list[str] = []
    for name in sorted(found, key=lambda name: found[name][::-1]):
        if not kept or found[name][0] < found[kept[-1]][0]:
            kept.append(name)
    return kept


def best(found: dict[str, Point]) -> str:
    """The estimator with the least variance times time; among those without variance, the fastest."""
    return min(found, key=lambda name: (found[name][0] * found[name][1], found[name][1]))


def summary(programs: dict[str, Any]) -> Table:
    headings = (
        "program",
        "least variance x time",
        "over that of the score",
        "no other beats in both, from fast to slow",
    )
    table = Table("the estimator to take for the twin of a program", headings)
    for program, rows in programs.items():
        if not (found := points(rows)):
            continue
        chosen = best(found)
        over = ""
        if "score" in found and np.prod(found["score"]) > 0:
            over = f"{np.prod(found[chosen]) / np.prod(found['score']):.2g}"
        table.rows.append((program.replace("_", " "), chosen, over, ", ".join(front(found))))
    return table


def details(program: str, rows: dict[str, Any]) -> Table:
    headings = (
        "estimator",
        "variance",
        "µs a gradient",
        "variance x µs",
        "operations a gradient",
        "not beaten in both",
    )
    table = Table(program.replace("_", " "), headings)
    found = points(rows)
    kept = front(found)
    for name in sorted(found, key=lambda name: (found[name][0] * found[name][1], found[name][1])):
        variance, seconds = found[name]
        operations = "" if program in LOOPS else f"{rows[name]['operations']:,.0f}"
        numbers = (f"{variance:.3g}", f"{1e6 * seconds:.3g}", f"{1e6 * variance * seconds:.3g}")
        table.rows.append((name, *numbers, operations, "yes" if name in kept else ""))
    return table


def blocks(programs: dict[str, Any]) -> list[Any]:
    """The summary and the picture, nothing where no times were measured; writes `LEADERBOARD.md` with all figures."""
    if not any(map(points, programs.values())):
        DOCUMENT.write_text(
            "# The leaderboard\n\nNo times were measured yet: `python -m benchmarks --only contract` does.\n"
        )
        return []
    _picture({program: found for program, rows in programs.items() if (found := points(rows))})
    told = (
        f"Times are of one gradient in a batch of {TIMED}, least of rounds that alternate between a program's estimators, in "
        "float64; operations are XLA's count, which no clock goes into, and are left out where the program has a loop, whose body "
        "it counts once."
    )
    text = [
        "# The leaderboard",
        "Written by `python -m benchmarks --only contract`: every estimator that claims a program of the tests, by variance times "
        f"time of its gradient. {told} A click on a heading sorts by it.",
        summary(programs).markdown(),
        f"![variance against time of a gradient, every estimator on every program, with the front]({PICTURE})",
        *(details(program, rows).markdown() for program, rows in programs.items()),
    ]
    DOCUMENT.write_text("\n\n".join(text) + "\n")
    return [
        f"{told} All figures: [LEADERBOARD.md](results/LEADERBOARD.md).",
        summary(programs),
        f"![variance against time of a gradient, every estimator on every program, with the front](results/{PICTURE})",
    ]


def _picture(found: dict[str, dict[str, Point]]) -> None:
    import matplotlib.pyplot as plt

    with plt.style.context(STYLE):
        columns = 2
        num_rows = -(-len(found) // columns)
        figure, grid = plt.subplots(num_rows, columns, figsize=(12, 2.5 * num_rows), squeeze=False)
        for axes, (program, of_program) in zip(grid.flat, found.items(), strict=False):
            _panel(axes, of_program)
            axes.set_title(program.replace("_", " "))
        for axes in grid.flat[len(found) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("variance")
        for axes in grid[-1]:
            axes.set_xlabel("µs a gradient")
        figure.savefig(RESULTS / PICTURE)
        plt.close(figure)


def _panel(axes: Any, found: dict[str, Point]) -> None:
    kept, positive = front(found), [variance for variance, _ in found.values() if variance > 0]
    floor = min(positive, default=1.0) / 10  # where those without variance are drawn
    place = {name: (1e6 * seconds, max(variance, floor)) for name, (variance, seconds) in found.items()}
    axes.loglog(*zip(*place.values(), strict=True), "o", color="0.7", markersize=4)
    axes.loglog(*zip(*(place[name] for name in kept), strict=True), "o-", markersize=5)
    if any(variance == 0 for variance, _ in found.values()):
        axes.axhline(floor, color="0.7", linewidth=0.8, linestyle=":")
        axes.annotate(
            "none", (0.99, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7, color="0.4"
        )
    for i, name in enumerate(kept, 1):
        axes.annotate(
            str(i), place[name], xytext=(-4, -4), textcoords="offset points", ha="right", va="top", fontsize=8
        )
    names = "\n".join(f"{i} {name}" for i, name in enumerate(kept, 1))
    axes.text(1.02, 1.0, names, transform=axes.transAxes, ha="left", va="top", fontsize=8, linespacing=1.4)
    axes.margins(0.15)
    axes.minorticks_off()
