"""What a check of a distribution found: rows with a statistic, its probability and a verdict, and a table of them."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from typing import Literal

import numpy as np

_WIDTH = 80  # of a terminal that nobody has widened
_MOST_IN_ONE = 0.03  # of a sum of squares in one draw: beyond, a mean has no normal distribution yet
_LEAST_EXPECTED = 10.0  # draws in a cell of a chi-square statistic

Verdict = Literal["agrees", "disagrees", "not known"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One row of a `mcgrad.check_distribution`.

    Attributes:
        name: which two statements of the distribution are compared.
        statistic: how far they are apart, in the units that `words` name.
        p: the probability that statements which agree are so far apart by chance, for all entries of the row together; `None`
            where chance has no part in it.
        verdict: `"agrees"`, `"disagrees"`, or `"not known"`.
        words: what was compared, or why it is not known.
    """

    name: str
    statistic: float
    p: float | None
    verdict: Verdict
    words: str


@dataclasses.dataclass(frozen=True)
class DistributionReport:
    """What `mcgrad.check_distribution` returns; printed, it is a table of 80 columns.

    Attributes:
        law: the name of the distribution.
        rows: one for each check.
        num_samples: draws.
        level: the probability that a right distribution disagrees in some row by chance.
    """

    law: str
    rows: tuple[Agreement, ...]
    num_samples: int
    level: float

    @property
    def agrees(self) -> bool:
        """Whether no row disagrees."""
        return not self.disagreements

    @property
    def disagreements(self) -> tuple[Agreement, ...]:
        """The rows that disagree."""
        return tuple(row for row in self.rows if row.verdict == "disagrees")

    def __str__(self) -> str:
        head = ("check", "statistic", "p", "verdict")
        cells = [
            (
                row.name,
                "" if row.verdict == "not known" else f"{row.statistic:.3g}",
                "" if row.p is None or row.verdict == "not known" else f"{row.p:.1g}",
                row.verdict,
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        room = _WIDTH - sum(widths) - 2 * len(widths)
        lines = [f"{self.law}, {self.num_samples:,} draws", ""]
        for row, words in zip((head, *cells), ("", *(row.words for row in self.rows)), strict=True):
            padded = [c.rjust(w) if 0 < i < 3 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            wrapped = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]
            lines.append("  ".join([*padded, wrapped[0]]).rstrip())
            lines += [" " * (sum(widths) + 2 * len(widths)) + line for line in wrapped[1:]]
        note = (
            f"{'All that is known agrees' if self.agrees else 'Disagrees'}. A right distribution disagrees by chance with "
            f"probability {self.level:g}."
        )
        return "\n".join([*lines, "", *textwrap.wrap(note, _WIDTH)])


def not_known(name: str, words: str) -> Agreement:
    """A check that cannot be made."""
    return Agreement(name, math.nan, None, "not known", words)


def within(name: str, deviation: float, allowed: float, words: str) -> Agreement:
    """A check without chance."""
    return Agreement(name, float(deviation), None, "agrees" if deviation <= allowed else "disagrees", words)


def mean_zero(name: str, samples: np.ndarray, epsilon: float, level: float, words: str, size: float = 0.0) -> Agreement:
    """Whether the columns of `samples [n, m]` have mean zero; the statistic is the largest in standard errors.

    A share `epsilon` of the mean size of a column, and of one, is rounding.
    """
    samples = np.asarray(samples, np.float64)
    finite = np.isfinite(samples).all(axis=1)
    if not finite.all():
        share = 1 - finite.mean()
        return Agreement(
            name, math.inf, 0.0, "disagrees", f"{words}; not finite in a share of {share:.2g} of the draws"
        )
    number = len(samples)
    mean = samples.mean(axis=0)
    squares = np.sum((samples - mean) ** 2, axis=0)
    largest = np.max((samples - mean) ** 2, axis=0, initial=0.0)
    known = largest <= _MOST_IN_ONE * squares
    if not known.any():
        return not_known(name, f"{words}; decided by too few draws") if known.size else not_known(name, words)
    error = np.sqrt(squares / (number - 1) / number)
    rounding = epsilon * (1 + np.abs(samples).mean(axis=0))
    z = np.maximum(np.abs(mean) - rounding, 0) / np.maximum(error, 1e-300)
    return by_chance(name, float(np.max(z[known])), normal_p(float(np.max(z[known]))) * int(known.sum()), level, words)


def normal_p(z: float) -> float:
    """`P(|Z| > z)`."""
    return math.erfc(z / math.sqrt(2))


def chi_square(
    name: str, counts: np.ndarray, chances: np.ndarray, rounding: float, level: float, words: str
) -> Agreement:
    """Whether `counts [cells, entries]` are of draws with these chances of the cells, up to a share `rounding` of each.

    Neighboring cells are joined until 10 draws are expected in each. The statistic is that of the worst entry, in standard
    deviations of a normal distribution (Wilson and Hilferty 1931).
    """
    worst, tested = -math.inf, 0
    for count, chance in zip(counts.T, chances.T, strict=True):
        expected = count.sum() * chance
        joined: list[list[float]] = [[0.0, 0.0]]
        for c, e in zip(count, expected, strict=True):
            joined[-1][0] += c
            joined[-1][1] += e
            if joined[-1][1] >= _LEAST_EXPECTED:
                joined.append([0.0, 0.0])
        last = joined.pop()
        if not joined:
            continue
        joined[-1][0] += last[0]
        joined[-1][1] += last[1]
        tested += 1
        if len(joined) == 1:
            worst = max(worst, 0.0)
            continue
        table = np.array(joined)
        off = np.maximum(np.abs(table[:, 0] - table[:, 1]) - rounding * table[:, 1], 0)
        degrees = len(table) - 1
        root = (np.sum(off**2 / table[:, 1]) / degrees) ** (1 / 3)
        worst = max(worst, (root - 1 + 2 / (9 * degrees)) / math.sqrt(2 / (9 * degrees)))
    if not tested:
        return not_known(name, f"{words}; too few draws")
    return by_chance(name, worst, normal_p(max(worst, 0.0)) / 2 * tested, level, words)


def by_chance(name: str, statistic: float, p: float, level: float, words: str) -> Agreement:
    """A check that chance decides, with probability `p`."""
    p = min(p, 1.0)
    return Agreement(name, statistic, p, "agrees" if p >= level else "disagrees", words)
