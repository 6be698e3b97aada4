"""Estimators that a refusal suggests in place of one that would be wrong."""

from __future__ import annotations

from mcgrad.estimators.enumeration import Enumerate
from mcgrad.estimators.local_expectation import LocalExpectation
from mcgrad.estimators.measure_valued import MeasureValued
from mcgrad.estimators.pathwise import Pathwise
from mcgrad.estimators.score import Score
from mcgrad.estimators.smoothed_perturbation import SmoothedPerturbation
from mcgrad.estimators.tree_disarm import TreeDisARM
from mcgrad.estimators.without_replacement import UnorderedSet
from mcgrad.program.estimator import Estimator

CANDIDATES: tuple[Estimator, ...] = (
    Pathwise(),
    LocalExpectation(),
    TreeDisARM(),
    UnorderedSet(),
    Enumerate(),
    Score(),
    SmoothedPerturbation(),
    MeasureValued(),
)
"""Those that need no options, one for each kind of distribution; each is asked whether it would be right at the draw."""
