"""The estimator that is used where none is named, and those that a refusal suggests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from mcgrad.estimators.binary import DisARM
from mcgrad.estimators.coupled import TreeDisARM
from mcgrad.estimators.enumeration import Enumerate
from mcgrad.estimators.every_order import EveryOrder
from mcgrad.estimators.local_expectation import LocalExpectation
from mcgrad.estimators.measure_valued import MeasureValued
from mcgrad.estimators.pathwise import Pathwise
from mcgrad.estimators.score import Score
from mcgrad.estimators.smoothed_perturbation import SmoothedPerturbation
from mcgrad.estimators.without_replacement import UnorderedSet
from mcgrad.program import Estimator, Facts, Relation, Site


@dataclasses.dataclass(frozen=True)
class Auto(Estimator):
    """Chooses for each draw what is right to every order and, measured on the contract's programs, the best for its time.

    | a draw | estimator | evaluations of the rest of the program |
    |---|---|---|
    | that has a path, in which no cost surely jumps | `Pathwise()` | one |
    | of up to 16 values, in no loop, of which every cost keeps all batch axes apart | `Enumerate()` | one a value |
    | with one sample, of a finite support, in no loop: | | |
    | costs mix few entries, `m = entries * (values - 1) <= 4` | `EveryOrder(LocalExpectation())` | one, and `m` plain ones |
    | two values, such as bits | `EveryOrder(DisARM())` | one, and one plain one |
    | more values | `EveryOrder(TreeDisARM())` | one, and one plain one |
    | any other | `Score()`, with leave-one-out where several samples are drawn | one |

    The three in the middle are for one sample of a program without effects (callbacks run as often as in a plain run) and with at
    most three such draws (each runs again what follows it). Their value is that of a plain run; plain evaluations are not
    differentiated. A path in which a cost surely jumps (`floor`, `sign`, a comparison turned into a number, ...: see
    `mcgrad.Pathwise`) is not taken. Never biased.

    `mcgrad.explain` prints the choice, and for a plain score of one sample what one more evaluation would buy; `mcgrad.tune`
    measures it; `mcgrad.Score()`, at a draw or as `estimator=`, is the score alone. Variance of the gradient over that of the
    score, from the least to the most (median) over the programs of the contract (`benchmarks/results/CONTRACT.md`), at two
    evaluations:

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

    def run_again(self, site: Site, chosen: Estimator, relations: Sequence[Relation | None]) -> Estimator:
        values = site.facts.support
        if not isinstance(chosen, Score) or not site.top_level or values is None:
            return chosen
        reached = [relation for relation in relations if relation is not None]
        mixed = (n for k, n in enumerate(site.plates) if not all(relation[k].separate for relation in reached))
        if math.prod(mixed) * (len(values) - 1) <= MAX_MORE:
            better: Estimator = LocalExpectation()
        else:
            better = DisARM() if DisARM().why_not(site) is None else TreeDisARM()
        return EveryOrder(better)

    def flows(self, facts: Facts) -> bool:
        return True

    def with_one_more(self, site: Site, chosen: Estimator) -> str:
        """What one more evaluation would buy, where a plain score of one sample was chosen."""
        if not isinstance(chosen, Score) or not site.top_level:
            return ""
        found = (text for estimator, text in WITH_TWO_EVALUATIONS if estimator.why_not(site) is None)
        return f"{next(found)} of the variance in `benchmarks/results/CONTRACT.md`"

    def where_costs_jump(self, site: Site) -> Estimator:
        return Score() if Score().why_not(site) is None else Pathwise()


MAX_VALUES = 16
"""Values of a draw up to which its enumeration counts as cheap, next to a score of much variance. A choice, not measured."""

MAX_MORE = 4
"""Evaluations without derivatives beside one with them, about three times as long, that `LocalExpectation` may take."""

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
