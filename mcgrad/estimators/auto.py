"""The estimator that is used where none is named, and those that a refusal suggests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
    """Chooses for each draw: pathwise, else cheap enumeration, else score.

    Pathwise where the distribution is reparameterizable, unless a cost surely jumps in the draw (`floor`, `sign`, `argmax`, a
    comparison turned into a number, ...: see `mcgrad.Pathwise`) and the score would do; otherwise enumeration where the
    support is finite, the draw stands in no loop or branch, and every cost keeps all the draw's batch axes apart (so it
    takes one evaluation a value); otherwise the score function, with leave-one-out where several samples are drawn.
    `mcgrad.explain` prints the choice.

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

    def where_costs_jump(self, site: Site) -> Estimator:
        return Score() if Score().why_not(site) is None else Pathwise()


MAX_VALUES = 16
"""Values of a draw up to which its enumeration counts as cheap, next to a score of much variance. A choice, not measured."""

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
