"""What a comparison of estimators found: a typed result, a table, a picture."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from mcgrad.diagnostics.pictures import AGREES, DOUBTFUL, WRONG, need, save
from mcgrad.diagnostics.statistics import GradientStatistics

_WIDTH = 80  # of a terminal that nobody has widened


@dataclasses.dataclass(frozen=True, eq=False)
class EstimatorReport:
    """One estimator of a `mcgrad.compare`.

    Attributes:
        statistics: of single-sample gradients.
        distance: of the mean gradient from the reference, in the Euclidean norm.
        distance_error: the root mean square of `distance` if there is no bias.
        max_z: the largest deviation from the reference among the coordinates, in standard errors.
        verdict: `"agrees"`, `"biased"`, `"undecided"` (they differ, but the reference may be the wrong one) or
            `"not finite"`; see `mcgrad.compare`.
        seconds: of one gradient when a chunk of them runs at once; the median over chunks.
        evaluations: how often one gradient runs the rest of the program, summed over all branches.
    """

    statistics: GradientStatistics
    distance: float
    distance_error: float
    max_z: float
    verdict: Literal["agrees", "biased", "undecided", "not finite"]
    seconds: float
    evaluations: int

    @property
    def variance(self) -> float:
        """The total variance of one gradient."""
        return float(self.statistics.total_variance)

    @property
    def variance_time(self) -> float:
        """Variance times seconds: proportional to the time needed for a given precision."""
        return self.variance * self.seconds

    @property
    def biased(self) -> bool:
        """Whether there is evidence of bias."""
        return self.verdict == "biased"


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `mcgrad.compare` returns; printed, it is a table of 80 columns.

    Attributes:
        reports: of each estimator that runs, by name.
        refused: why the program refuses the others, by name.
        reference: the gradient that the means are compared with, in the gradient's structure.
        source: where the reference comes from.
        threshold: `max_z` above this is evidence of bias.
        num_samples: gradients drawn from each estimator.
        chunk_size: gradients that ran at once.
        named: the draws that name an estimator of their own, which they keep: none of those compared is used there.
    """

    reports: dict[str, EstimatorReport]
    refused: dict[str, str]
    reference: Any
    source: str
    threshold: float
    num_samples: int
    chunk_size: int
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("distance", "max |z|", "variance", "time", "var x time", "runs", "verdict")
        rows = {
            name: (
                f"{report.distance:.2g} ± {report.distance_error:.2g}",
                f"{report.max_z:.1f}",
                f"{report.variance:.3g}",
                f"{1e6 * report.seconds:.3g}",
                f"{1e6 * report.variance_time:.3g}",
                f"{report.evaluations:,}",
                report.verdict,
            )
            for name, report in self.reports.items()
        }
        widths = [max(map(len, column)) for column in zip(head, *rows.values(), strict=True)]
        # A name that leaves no room for the figures in 80 columns stands on a line of its own.
        room = max(0, _WIDTH - sum(widths) - 2 * len(widths))
        first = min(room, max(len(name) for name in ("estimator", *rows)))

        def line(name: str, cells: Sequence[str]) -> str:
            above, name = (f"{name}\n", "") if len(name) > first else ("", name)
            padded = [cell.rjust(width) for cell, width in zip(cells[:-1], widths[:-1], strict=True)]
            return above + "  ".join([name.ljust(first), *padded, cells[-1]])

        leaves = jax.tree.leaves(self.reference)
        length = f", of length {np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves)):.3g}" if leaves else ""
        notes = (
            f"Distances from {self.source}{length}. Biased: more than {self.threshold:.1f} standard errors off somewhere. Time in "
            "microseconds and runs of the program, a gradient.",
            *(f"{name} was refused: {reason}" for name, reason in self.refused.items()),
            *(f"Every row differentiates {draw}, which is named there." for draw in self.named),
        )
        table = [f"{self.num_samples:,} gradients of each estimator", "", line("estimator", head)]
        table += [line(name, cells) for name, cells in rows.items()]
        wrap = textwrap.TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
        return "\n".join([*table, "", *map(wrap.fill, notes)])

    def plot(self, path: str | Path) -> Path:
        """Write a picture: variance, time, their product and the evidence of bias, one line for each estimator.

        Args:
            path: of the file; its suffix sets the format, for instance `.png` or `.pdf`.

        Returns:
            `path`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        need("`Comparison.plot`", "matplotlib")
        return save(self._figure, path)

    def _figure(self) -> Any:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter

        shown = dict(reversed(self.reports.items()))
        figure = Figure(figsize=(11, 1.7 + 0.42 * len(shown)))
        panels: Any = figure.subplots(1, 4, sharey=True)
        columns = {
            "total variance": [r.variance for r in shown.values()],
            "time a gradient (µs)": [1e6 * r.seconds for r in shown.values()],
            "variance × time (µs)": [1e6 * r.variance_time for r in shown.values()],
            f"largest deviation (standard\nerrors; biased above {self.threshold:.1f})": [
                r.max_z for r in shown.values()
            ],
        }
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
        colors = {"agrees": AGREES, "undecided": DOUBTFUL}
        for axis, (title, values) in zip(panels, columns.items(), strict=True):
            if axis is panels[-1]:
                near = [value for value in values if value < 2.5 * self.threshold]
                low, high = 0.0, 1.25 * max(self.threshold, *near, 0)
            else:
                axis.set_xscale("log")
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.xaxis.get_major_locator().set_params(numticks=5)
                shown_values = [value for value in values if 0 < value < np.inf] or [1.0]
                high = 3 * max(shown_values)
                # What is smaller by more is rounding: an arrow at the edge.
                low = min(value for value in shown_values if value > 1e-8 * high / 3) / 3
            axis.set(title=title, xlim=(low, high), ylim=(-0.7, len(shown) - 0.5))
            for row, (value, report) in enumerate(zip(values, shown.values(), strict=True)):
                place = np.clip(value, low, high) if np.isfinite(value) else high
                marker = "<" if value < low else "o" if place == value else ">"
                color = colors.get(report.verdict, WRONG)
                axis.plot([low, place], [row, row], color=color, lw=1.2, alpha=0.5)
                axis.plot(place, row, marker, color=color, clip_on=False)
                # Beside the point, on the side where there is room.
                ends = axis.transData.transform([(low, row), (place, row), (high, row)])[:, 0]
                left = ends[1] - ends[0] > 0.6 * (ends[2] - ends[0])
                side: Any = {"xytext": (-6, 5), "ha": "right"} if left else {"xytext": (6, 5), "ha": "left"}
                axis.annotate(f"{value:.3g}", (place, row), textcoords="offset points", fontsize=9, bbox=box, **side)
            axis.grid(visible=False, axis="y")
        names = [name if r.verdict == "agrees" else f"{name}\n({r.verdict})" for name, r in shown.items()]
        panels[0].set_yticks(range(len(shown)), names)
        panels[-1].axvline(self.threshold, color="black", ls="--", lw=1)
        refused = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        figure.suptitle(f"{self.num_samples:,} gradients of each; deviations from {self.source}{refused}", fontsize=10)
        return figure
