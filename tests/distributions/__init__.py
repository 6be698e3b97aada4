"""The distributions that mcgrad is checked on: one row for each, and what each kind of test takes of them.

A new distribution is one row here; `test_distribution_table.py` compares the rows with what `mcgrad` exports, and what they
claim with what the classes have.
"""

from distributions import by_quantiles, by_velocity, discrete, vectors, wrappers
from distributions.row import METHODS, Extremes, Ordinary, Row, Weak, WeakOfVector, call, costs, view

DISTRIBUTIONS: dict[str, Row] = {
    **by_quantiles.ROWS,
    **by_velocity.ROWS,
    **discrete.ROWS,
    **vectors.ROWS,
    **wrappers.ROWS,
}
ORDINARY, CORNERS, WEAK, EXTREMES, TWICE = (
    view(DISTRIBUTIONS, name) for name in ("ordinary", "corners", "weak", "extremes", "twice")
)

__all__ = [
    "CORNERS",
    "DISTRIBUTIONS",
    "EXTREMES",
    "METHODS",
    "ORDINARY",
    "TWICE",
    "WEAK",
    "Extremes",
    "Ordinary",
    "Row",
    "Weak",
    "WeakOfVector",
    "call",
    "costs",
]
