"""Published tables and curves, each next to what mcgrad finds in the same set-up.

`python -m benchmarks --only published` measures all, `python -m benchmarks.published NAME` prints one.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from rich.progress import track

from benchmarks.published import (
    antithetic_bits,
    antithetic_classes,
    cone,
    dilemma,
    game_of_life,
    markov_decisions,
    minibatch,
    particle_filter,
    relax_toy,
    subsets,
    transport,
    without_replacement,
)
from benchmarks.published.figures import Figure
from benchmarks.report import Hold, Table
from benchmarks.runner import Session

TITLE = "Published tables"
BUDGET = 150.0

TABLES: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        without_replacement,
        antithetic_bits,
        relax_toy,
        antithetic_classes,
        subsets,
        cone,
        minibatch,
        game_of_life,
        particle_filter,
        markov_decisions,
        dilemma,
        transport,
    )
}
"""Modules with a `TITLE`, a `SET_UP` in a line or two, and `measure(session)`, a list of `Figure`s."""

ELSEWHERE = (
    "In other parts: the sweeps of Mohamed et al. 2020, figures 2 and 3, under *The survey's sweeps*, and their Bayesian logistic "
    "regression in the [chapter of that name](../notebooks/bayesian_logistic_regression.md); the random walk of Arya et al. 2022 "
    "under *Loops*, the chain of Arya et al. 2023 under *Tuning random walk Metropolis*."
)


def measure(session: Session) -> dict[str, Any]:
    """Every table, one after another; the keys of the result are their modules."""
    tables: dict[str, Any] = {}
    for name, module in track(TABLES.items(), description="published tables"):
        if session.left > 0:
            tables[name] = [figure._asdict() for figure in module.measure(session)]
    return {"tables": tables}


def table(name: str, figures: list[Figure]) -> Table:
    """The figures of a table, side by side."""
    module = TABLES[name]
    found = Table(module.TITLE, ("figure", "published", "mcgrad", "standard error", "claim", "verdict"))
    for figure in figures:
        published = "" if figure.published is None else f"{figure.published:.4g}"
        if figure.slack:
            published += f" ± {figure.slack:.2g}"
        error = f"{figure.error:.2g}" if figure.error else ""
        found.rows.append((figure.what, published, f"{figure.ours:.4g}", error, figure.claim, figure.verdict))
    return found


def report(data: dict[str, Any]) -> list[Any]:
    """A set-up, a table and a hold for each."""
    blocks: list[Any] = [
        "A published figure is printed in the source named, or read off its plot: ± is its rounding, its own error, or how well "
        "the plot can be read. A claim allows four standard errors of ours beside it. Where no number is published, ours is given "
        f"for the same set-up. {ELSEWHERE}"
    ]
    for name, module in TABLES.items():
        statement = f"every figure of {module.TITLE} is reproduced or beaten"
        if name not in data["tables"]:
            blocks.append(Hold(statement, None, f"Not measured: the {BUDGET:.0f} s of this part were used up."))
            continue
        figures = [Figure(**fields) for fields in data["tables"][name]]
        told = [figure for figure in figures if figure.met is not None]
        missed = [figure.what for figure in told if not figure.met]
        evidence = f"{len(told)} figures with a claim, {len(figures)} in all; not: {'; '.join(missed) or 'none'}."
        blocks += [
            f"{module.SET_UP} Command: `python -m benchmarks.published {name}`.",
            table(name, figures),
            Hold(statement, not missed if told else None, evidence),
        ]
    return blocks
