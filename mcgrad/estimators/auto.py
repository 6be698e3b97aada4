"""The estimator that is used where none is named, and those that a refusal suggests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mcgrad.estimators.binary import DisARM
from mcgrad.estimators.coupled import TreeDisARM
from mcgrad.estimators.enumeration import Enumerate
from mcgrad.estimators.local_expectation import LocalExpectation
from mcgrad.estimators.measure_valued import MeasureValued
from mcgrad.estimators.pathwise import Pathwise
from mcgrad.estimators.score import Score
from mcgrad.estimators.smoothed_perturbation import SmoothedPerturbation
from mcgrad.estimators.without_replacement import UnorderedSet
from mcgrad.program import Estimator, Facts, Relation, Site


@dataclasses.dataclass(frozen=True)
class Auto(Estimator):
    """Chooses for each draw: pathwise, else cheap enumeration, else score. One evaluation of the program, or one a value.

    - A draw that has a path (a reparameterizable distribution), and in which no cost surely jumps: `Pathwise()`.
    - One that has a path, and in which a cost surely jumps (`floor`, `sign`, a comparison turned into a number, ...: see
      `mcgrad.Pathwise`): `Score()`, if that is right for it.
    - One of up to 16 values, in no loop or branch, of which every cost keeps all batch axes apart: `Enumerate()`.
    - Any other: `Score()`, with leave-one-out where several samples are drawn.

    Every choice is right to every order. A plain score may have far more variance than estimators that run the program once
    more. These are right to the first derivative only, or do not give the value of the plain run, or run all that follows a draw
    twice, so `Auto` never takes them: `mcgrad.explain` prints the choice, and for a plain score of one sample what one more
    evaluation would buy; `mcgrad.tune` measures it. `mcgrad.EveryOrder` makes those of the first derivative right to every order.
    Variance of the gradient over that of the plain score, from the least to the most (median) over the programs of the contract
    (`benchmarks/results/CONTRACT.md`), at two evaluations:

    - `DisARM()`, for bits, first derivative: 0.0013 to 0.43 (0.13).
    - `UnorderedSet(2)`, for a finite support, every order: 0 to 0.35 (0.17).
    - `Score(num_samples=2)`, or `num_samples=2` of the transform, for whatever has a density, every order: 0.0021 to 0.53
      (0.35).

    Raises:
        ValueError: for a distribution that has neither a pathwise derivative nor a log density.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)) * 3.0
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75
    """

    def resolve(self, site: Site, relations: Sequence[Relation | None] | None) -> Estimator:
        if site.facts.pathwise_obstacle is None:
            return Pathwise()
        if relations is None:
            return self
        reached = [relation for relation in relations if relation is not None]
        values = site.facts.support
        cheap = values is not None and len(values) <= MAX_VALUES and site.top_level
        if cheap and all(window.separate for relation in reached for window in relation):
            return Enumerate()
        return Score()

    def flows(self, facts: Facts) -> bool:
        return True

    def with_one_more(self, site: Site, chosen: Estimator) -> str:
        """What one more evaluation would buy, where a plain score of one sample was chosen."""
        if not isinstance(chosen, Score) or not site.top_level:
            return ""
        found = (text for estimator, text in WITH_TWO_EVALUATIONS if estimator.why_not(site) is None)
        return f"{next(found)} times the variance on the programs of `benchmarks/results/CONTRACT.md`"

    def where_costs_jump(self, site: Site) -> Estimator:
        return Score() if Score().why_not(site) is None else Pathwise()


MAX_VALUES = 16
"""Values of a draw up to which its enumeration counts as cheap, next to a score of much variance. A choice, not measured."""

WITH_TWO_EVALUATIONS: tuple[tuple[Estimator, str], ...] = (
    (DisARM(), "`mcgrad.DisARM()`, right to first order, 0.0013 to 0.43"),
    (UnorderedSet(2), "`mcgrad.UnorderedSet(2)`, right to every order, 0 to 0.35"),
    (Score(num_samples=2), "`mcgrad.Score(num_samples=2)`, right to every order, 0.0021 to 0.53"),
)
"""What runs the rest of the program twice, the best first, and its variance over the score's on the programs of the contract."""

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
"""What a refusal suggests in place of an estimator that would be wrong: those that need no options, one for each kind of
distribution. Each is asked whether it would be right at the draw."""
