"""The estimator of each draw, and how many samples, that a budget is best spent on: by a pilot run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mcgrad._arguments import check_option
from mcgrad._modules import eval_shape
from mcgrad.diagnostics.compare import by_name, compare, count_evaluations
from mcgrad.diagnostics.comparison import EstimatorReport
from mcgrad.diagnostics.pilot import unbiased
from mcgrad.estimators import (
    ARMS,
    CARMS,
    Auto,
    DisARM,
    Enumerate,
    LocalExpectation,
    MeasureValued,
    Score,
    TreeDisARM,
    UnorderedSet,
)
from mcgrad.planned import plan_of
from mcgrad.program import Estimator, Relation, Site
from mcgrad.program.held import Held

_EVERY_ORDER: dict[str, Estimator] = {
    **{f"Score({n})": Score(num_samples=n) for n in (2, 4, 8)},
    **{f"UnorderedSet({n})": UnorderedSet(n) for n in (2, 4, 8)},
    "Enumerate": Enumerate(),
}
_FIRST_ORDER: dict[str, Estimator] = {
    "DisARM": DisARM(),
    "ARMS(4)": ARMS(4),
    "TreeDisARM": TreeDisARM(),
    "CARMS(4)": CARMS(4),
    "LocalExpectation": LocalExpectation(),
    "MeasureValued": MeasureValued(),
}


class Trial(NamedTuple):
    """One estimator tried at one draw, with those that were chosen before at the others.

    Attributes:
        draw: the name of the draw and its line.
        estimator: its name.
        variance: of one gradient of the whole program.
        cost: of one gradient, in evaluations of the program or in milliseconds.
        variance_in_budget: of the mean of as many gradients as the budget has room for.
    """

    draw: str
    estimator: str
    variance: float
    cost: float
    variance_in_budget: float


@dataclasses.dataclass(frozen=True)
class _EachItsOwn(Estimator):
    """An estimator for each draw, by its name and line, and one for all others."""

    choices: Mapping[str, Estimator]
    otherwise: Estimator

    def at(self, site: Site) -> Estimator:
        return self.choices.get(place_of(site), self.otherwise)

    def resolve(self, site: Site, relations: Sequence[Relation | None] | None) -> Estimator:
        return self.at(site).resolve(site, relations)

    def where_costs_jump(self, site: Site) -> Estimator:
        return self.at(site).where_costs_jump(site)


def place_of(site: Site) -> str:
    """The name of a draw, and its line."""
    return f"{site.name} at {site.line}"


@dataclasses.dataclass(frozen=True, eq=False)
class Tuning:
    """What `mcgrad.tune` found; printed, it is a table of what was tried.

    Attributes:
        estimator: for `mcgrad.grad(fn, estimator=...)`: at each draw the one that was chosen.
        num_samples: for `mcgrad.grad(fn, num_samples=...)`.
        choices: by the name of the draw and its line, what was chosen there.
        variance: of the mean of so many gradients, as the pilot predicts it.
        cost: of these gradients, in `unit`.
        unit: `"evaluations"` or `"milliseconds"`.
        trials: what was tried.
    """

    estimator: Estimator
    num_samples: int
    choices: Mapping[str, str]
    variance: float
    cost: float
    unit: str
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.num_samples} sample{'s' * (self.num_samples != 1)}, variance {self.variance:.3g}, {self.cost:.3g} {self.unit}"
        ]
        for draw, chosen in self.choices.items():
            lines.append(f"  {draw}: {chosen}")
            for trial in self.trials:
                if trial.draw == draw:
                    figures = f"variance {trial.variance:.3g}, {trial.cost:.3g} {self.unit}"
                    lines.append(f"    {trial.estimator}: {figures}; in the budget {trial.variance_in_budget:.3g}")
        return "\n".join(lines)


def tune(
    fn: Callable[..., Any],
    *,
    budget: float,
    unit: Literal["evaluations", "milliseconds"] = "evaluations",
    estimators: Mapping[str, Estimator] | Sequence[Estimator] | None = None,
    order: Literal[1, 2] = 1,
    argnums: int | Sequence[int] = 0,
    num_samples: int = 512,
    chunk_size: int = 256,
) -> Callable[..., Tuning]:
    """The estimator of each draw, and the number of samples, with the least variance that a budget buys, by a pilot run.

    Starts from `mcgrad.Auto` at all draws that name no estimator. Then, draw after draw in the order of the program, every
    candidate that the draw and the program allow is measured with `mcgrad.compare`, the others as chosen so far, and the one is
    kept whose mean of as many gradients as fit in the budget has the least variance. Candidates that run what follows a draw
    several times divide the budget among nested draws: `Score(4)` at a late draw and two samples of the program, or the reverse.

    As with `mcgrad.least_variance`, biased candidates do not count, choosing adds no bias as long as later gradients use other
    keys, and the choice holds for arguments near those of the pilot. **The best for each draw in turn need not be the best
    combination.** Each candidate at each draw is one compilation.

    Args:
        fn: a program that returns a scalar; see `mcgrad.grad`.
        budget: for one gradient, in `unit`; at least what `mcgrad.Auto` takes.
        unit: `"evaluations"` of the program, whatever the machine, or `"milliseconds"` as measured, of samples that run
            at once.
        estimators: candidates for every draw, as in `mcgrad.compare`; by default some ten for each.
        order: with 2, only candidates that are right to every order are tried by default.
        argnums, chunk_size: see `mcgrad.compare`.
        num_samples: gradients of each candidate in the pilot.

    Returns:
        A function of the arguments of `fn` that returns a `Tuning`; not to be called under `jax.jit`.

    Raises:
        ValueError: for a budget below what `mcgrad.Auto` takes; for another `unit` or `order`; and see `mcgrad.compare`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(logits, key):
        ...     return (jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="bits")) + 3.0) ** 2
        >>> candidates = {"DisARM": mcgrad.DisARM()}  # beside Auto
        >>> found = mcgrad.tune(loss, budget=8, estimators=candidates)(jnp.zeros(6), jax.random.key(0))
        >>> list(found.choices.values()), found.num_samples
        (['DisARM'], 4)
        >>> gradient = mcgrad.grad(loss, estimator=found.estimator, num_samples=found.num_samples)
        >>> gradient(jnp.zeros(6), jax.random.key(1)).shape
        (6,)
    """
    check_option("tune(unit=...)", unit, ("evaluations", "milliseconds"))
    if order not in (1, 2):
        raise ValueError(
            f"`mcgrad.tune(order=...)` must be 1 or 2, got {order!r}. Pass the highest derivative that you take."
        )
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget > 0:
        raise ValueError(
            f"`mcgrad.tune(budget=...)` must be a number above zero, got {budget!r}. Pass for instance 16."
        )
    offered = _EVERY_ORDER | (_FIRST_ORDER if order == 1 else {}) if estimators is None else by_name(estimators)

    def cost_of(report: EstimatorReport) -> float:
        return float(report.evaluations) if unit == "evaluations" else 1e3 * report.seconds

    def tuned(*args: Any, **kwargs: Any) -> Tuning:
        chosen: dict[str, Estimator] = {}
        names: dict[str, str] = {}
        trials: list[Trial] = []
        best: tuple[float, float, float] | None = None  # in the budget; variance and cost of one gradient
        for site in _sites(fn, args, kwargs):
            place = place_of(site)
            if place in names:
                continue
            allowed = {"Auto": Auto(), **{n: e for n, e in offered.items() if not e.biased and e.why_not(site) is None}}
            tried = {name: _EachItsOwn({**chosen, place: e}, Auto()) for name, e in allowed.items()}
            evaluations = {name: n for name, e in tried.items() if (n := _evaluations(fn, e, args, kwargs)) is not None}
            least = float(min(evaluations.values(), default=0))
            if unit == "evaluations":
                evaluations = {name: n for name, n in evaluations.items() if n <= budget}
            found: dict[str, tuple[float, float, float]] = {}
            run = compare(
                fn,
                {name: tried[name] for name in evaluations or ("Auto",)},
                argnums=argnums,
                num_samples=num_samples,
                chunk_size=chunk_size,
            )
            for name, report in unbiased(run(*args, **kwargs).reports, allowed, "tune").items():
                cost = cost_of(report)
                samples = math.floor(budget / cost)
                within = report.variance / samples if samples else math.inf
                found[name] = (within, report.variance, cost)
                trials.append(Trial(place, name, report.variance, cost, within))
            affordable = {name: figures for name, figures in found.items() if math.isfinite(figures[0])}
            if not affordable:
                least = least if unit == "evaluations" else min(cost for _, _, cost in found.values())
                raise ValueError(
                    f"`mcgrad.tune(budget=...)` must be at least {least:.3g} {unit}, which one gradient takes, got {budget!r}. "
                    "Pass more, or `estimators=` that take less."
                )
            name = min(affordable, key=lambda name: (affordable[name][0], affordable[name][2]))
            names[place], best = name, affordable[name]
            chosen[place] = allowed[name]
        if best is None:
            raise ValueError(
                "`mcgrad.tune` must get a program with a draw that names no estimator and has parameters that move, got none. Take "
                "the names away, or measure with `mcgrad.compare`."
            )
        within, _, cost = best
        samples = math.floor(budget / cost)
        estimator = _EachItsOwn(chosen, Auto())
        return Tuning(estimator, samples, names, within, samples * cost, unit, tuple(trials))

    return tuned


def _evaluations(fn: Callable[..., Any], estimator: Estimator, args: Any, kwargs: Any) -> int | None:
    """Of the program in one gradient; `None` where the estimator is refused."""
    try:
        return count_evaluations(fn, estimator, args, kwargs)[0]
    except (ValueError, NotImplementedError):
        return None


def _sites(fn: Callable[..., Any], args: Any, kwargs: Any) -> list[Site]:
    """The draws that name no estimator and that a derivative reaches, in the order of the program."""
    found: list[Site] = []

    def run(args: Any, kwargs: Any) -> None:
        plan, _ = plan_of(fn, args, kwargs, None, False)
        found[:] = [s for s, e in plan.estimators.items() if s.estimator is None and not isinstance(e, Held)]
        for site in found:
            _ = site.facts  # while its placeholders are at hand

    eval_shape(run, args, kwargs)
    return found
