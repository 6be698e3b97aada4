"""The plan of a program: which estimator at which site, which values are costs, what runs when.

Everything that can be refused is refused here, before anything is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

from mcgrad.program.blind_way import PARAMETER, BlindWay
from mcgrad.program.checks import (
    check_coupled,
    check_evaluations,
    check_ordered,
    check_paths,
    check_refs,
    check_samples,
    check_site,
    check_supported,
)
from mcgrad.program.costs import Split, split_costs
from mcgrad.program.dependence import Analysis, analyze
from mcgrad.program.estimator import Estimator, spelled
from mcgrad.program.held import Held, followed
from mcgrad.program.hoist import hoist_costs
from mcgrad.program.integers import convert_first
from mcgrad.program.jumps import watched
from mcgrad.program.keys import check_keys
from mcgrad.program.made_of import constants_of, made_of_infinity
from mcgrad.program.paths import blind_ways
from mcgrad.program.reach import Reach, can_follow, reach_of
from mcgrad.program.relation import number_of_draws
from mcgrad.program.separate import separate_addends
from mcgrad.program.sequences import scored
from mcgrad.program.shards import cut_shards
from mcgrad.program.site import Site, has_site
from mcgrad.program.structure import contains_any, form_of, standing
from mcgrad.program.thresholds import Threshold, find_thresholds, find_thresholds_in_step
from mcgrad.program.trace import Equation, Program, Value
from mcgrad.program.unknown import warn_of_unknown


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """How a program is run.

    Attributes:
        outputs: the differentiated outputs.
        aux: the auxiliary outputs.
        estimators: for each site; where the user gave one with arrays (`named`), its arrays are placeholders.
        prologue: equations that no draw reaches, run once.
        body: the other equations that costs and auxiliary outputs need.
        undrawn: values that the suffix reads, no draw reaches, and the body makes (in a loop that draws).
        random: all equations with draws in them, or with watched operations that can be got at, those of bodies included.
        nonlocal_equations: those of them that need the rest of the program.
        reach: for the `scan`s beside which an alternative path is carried, how the costs read them.
        thresholds: for draws whose estimators follow them, the comparisons at which costs jump.
        accumulators: lines of the `scan`s whose carries add costs up, now seen one by one.
        ways: where costs are blind to draws: they jump there, or the derivative is cut.
        given_up: for each site whose path was given up, such a way.
        watched: operations by which costs jump in draws that are held fixed, and what to say where a parameter moves them.
        excluding: sites whose parameters are made of an infinite constant.
        scored: the `conditionals` of a sequence that the score of its draw is taken of, with that draw.
        baseline_cost: for each site, the cost that depends on most of its draws.
        parts: where costs fall into several groups that share no draw which needs the rest of the program, a plan of each
            group from the first such draw on. Run one beside the other, D draws of their own take D continuations; within
            one another they would be D deep.
    """

    program: Program
    analysis: Analysis
    split: Split
    outputs: tuple[Value, ...]
    aux: tuple[Value, ...]
    estimators: dict[Site, Estimator]
    named: frozenset[Equation]
    prologue: tuple[Equation, ...]
    body: tuple[Equation, ...]
    undrawn: tuple[Value, ...]
    random: frozenset[Equation]
    nonlocal_equations: frozenset[Equation]
    reach: dict[Equation, Reach]
    thresholds: dict[Site, tuple[Threshold, ...]]
    accumulators: tuple[str, ...]
    ways: tuple[BlindWay, ...]
    given_up: dict[Site, BlindWay]
    watched: dict[Equation, str]
    excluding: frozenset[Site]
    scored: dict[Equation, Site]
    baseline_cost: dict[Site, int]
    parts: tuple[Plan, ...] = ()

    @property
    def first_nonlocal(self) -> int:
        """Where in the body the first draw is that needs the rest of the program."""
        return next(n for n, equation in enumerate(self.body) if equation in self.nonlocal_equations)

    @property
    def uncredited(self) -> Plan:
        """What is beside the costs, from there on."""
        return _part(self, (), self.aux, self.undrawn)


def make_plan(
    program: Program,
    num_outputs: int,
    default: Estimator,
    candidates: Sequence[Estimator] = (),
    key_of_sample: Any = None,
) -> Plan:
    """Plan a program whose first `num_outputs` outputs are to be differentiated and whose others are auxiliary.

    Args:
        program: as traced.
        num_outputs: how many of its outputs are costs or sums of costs.
        default: the estimator of the sites that name none.
        candidates: what a refusal may suggest in place of an estimator that would be wrong.
        key_of_sample: the key of one of several samples, which all of the program's draws must be made of.
    """
    program = cut_shards(program)
    check_supported(program)
    program, seen, accumulators, sums = _simplified(program, num_outputs, default)
    outputs, aux = program.outputs[:num_outputs], program.outputs[num_outputs:]
    split = split_costs(program, outputs, seen.analysis, seen.credited, sums)
    estimators = _resolved(seen, split)
    following = followed(estimators)
    ways = seen.ways if following == followed(seen.estimators) else _ways(program, outputs, seen, following)
    for site, estimator in estimators.items():
        check_site(site, estimator, candidates)
    check_paths(ways, estimators, following)
    check_coupled(estimators, seen.analysis, split)
    check_keys(program, estimators, seen.analysis, split)
    if key_of_sample is not None:
        check_samples(program, estimators, key_of_sample)
    check_evaluations(estimators, seen.analysis, split)
    check_ordered(program, estimators, several=key_of_sample is not None)
    check_refs(program, seen.analysis)
    warn_of_unknown(estimators, seen.analysis, split)
    messages = {standing(program, root): message for root, message in watched(ways, following).items()}
    return _scheduled(program, outputs, aux, seen, split, estimators, ways, messages, accumulators)


@dataclasses.dataclass(frozen=True)
class _Study:
    """What the passes that change nothing find in a program.

    Attributes:
        analysis: who depends on which draws.
        estimators: of each site, as far as it can be known before the costs are.
        ways: gates that costs are blind behind, for draws that are differentiated along their path and for others.
        given_up: for sites whose path is given up, a way to a cost that it would miss.
    """

    analysis: Analysis
    estimators: dict[Site, Estimator]
    ways: tuple[BlindWay, ...] = ()
    given_up: dict[Site, BlindWay] = dataclasses.field(default_factory=dict)

    @property
    def credited(self) -> set[Site]:
        """The sites whose draws costs are weighted for."""
        return {site for site, estimator in self.estimators.items() if not estimator.flow}


def _study(program: Program, outputs: Sequence[Value], default: Estimator) -> _Study:
    analysis = analyze(program, constants_of(program))
    estimators: dict[Site, Estimator] = {}
    for site in analysis.sites.values():
        held = site.has_constant_law and site.estimator is None
        estimators[site] = Held() if held else (site.estimator or default).resolve(site, None)
    seen = _Study(analysis, estimators)
    ways = _ways(program, outputs, seen, following := followed(estimators))
    missed = {s: way for way in ways if way.certain for s in way.sources if s in following}
    for site in missed:
        estimators[site] = (site.estimator or default).where_costs_jump(site)
    given_up = {site: way for site, way in missed.items() if not estimators[site].flow}
    if default.follows_thresholds:
        moved = {
            s for way in ways if not way.cut and PARAMETER in way.sources for s in way.sources if isinstance(s, Site)
        }
        for site in moved:
            if isinstance(estimators[site], Held) and site.estimator is None and default.why_not(site) is None:
                estimators[site] = default
    return dataclasses.replace(seen, ways=ways, given_up=given_up)


def _ways(program: Program, outputs: Sequence[Value], seen: _Study, following: Set[Site]) -> tuple[BlindWay, ...]:
    """The blind ways from draws of numbers, and from raw random bits, to the costs."""
    draws = {e: site for e, site in seen.analysis.sites.items() if site in following or not site.facts.discrete}
    return tuple(blind_ways(program, outputs, draws, following))


def _simplified(
    program: Program, num_outputs: int, default: Estimator
) -> tuple[Program, _Study, tuple[str, ...], frozenset[Equation]]:
    """The program with costs moved out of loops and addends that no draw reaches apart; what is seen in it; the lines of the
    `scan`s whose sums were taken apart; and the sums of what draws reach and what none does.
    """
    accumulators: list[str] = []
    sums: frozenset[Equation] = frozenset()
    while True:
        seen = _study(program, program.outputs[:num_outputs], default)
        if (converted := convert_first(program, num_outputs, seen.analysis, seen.credited)) is not None:
            program = converted
        elif (hoisted := hoist_costs(program, num_outputs, seen.analysis, seen.credited)) is not None:
            program = hoisted.program
            accumulators += hoisted.accumulators
        elif not sums and (found := separate_addends(program, num_outputs, seen.analysis, seen.credited)) is not None:
            program, sums = found
        else:
            return program, seen, tuple(accumulators), sums


def _resolved(seen: _Study, split: Split) -> dict[Site, Estimator]:
    """The estimator of each site, now that the costs are known."""
    of = seen.analysis.of
    return {s: e.resolve(s, [of(cost).get(s) for cost in split.costs]) for s, e in seen.estimators.items()}


def _scheduled(
    program: Program,
    outputs: Sequence[Value],
    aux: Sequence[Value],
    seen: _Study,
    split: Split,
    estimators: dict[Site, Estimator],
    ways: tuple[BlindWay, ...],
    messages: dict[Equation, str],
    accumulators: tuple[str, ...],
) -> Plan:
    """What runs when: first what no draw reaches, then the rest, in parts where these share no draw that needs one."""
    analysis, sites = seen.analysis, list(estimators)
    random = frozenset(
        e
        for e in program.everything()
        if e in analysis.sites or any(map(has_site, e.bodies)) or contains_any(e, messages)
    )
    needing_rest = {site.equation: site for site, estimator in estimators.items() if estimator.needs_rest}
    inner = {e: [i for b in e.bodies for i in b.everything() if i in needing_rest] for e in random}
    nonlocal_equations = frozenset(e for e in random if e in needing_rest or inner[e])
    reach = {}
    for equation in nonlocal_equations - needing_rest.keys():
        if can_follow(equation, {site: estimators[site] for site in needing_rest.values()}):
            reach[equation] = reach_of(program, equation, split.costs)
        elif (form := form_of(equation)) is not None:
            form.check_continuation(spelled(estimators[needing_rest[inner[equation][0]]]))
    free = _free(outputs, split)
    infinite = made_of_infinity(program)
    live = dataclasses.replace(program, outputs=(*split.costs, *aux, *free)).without_dead_code().equations
    prologue, body = _without_draws(live, random, analysis)
    made = {v for e in body for v in e.outputs}
    plan = Plan(
        program=program,
        analysis=analysis,
        split=split,
        outputs=tuple(outputs),
        aux=tuple(aux),
        estimators=estimators,
        named=frozenset(s.equation for s in sites if s.names_arrays),
        prologue=prologue,
        body=body,
        undrawn=tuple(dict.fromkeys(v for v in free if v in made)),
        random=random,
        nonlocal_equations=nonlocal_equations,
        reach=reach,
        thresholds=_thresholds(program, outputs, analysis, estimators, reach),
        accumulators=accumulators,
        ways=ways,
        given_up=seen.given_up,
        watched=messages,
        excluding=frozenset(s for s in sites if any(map(infinite.of, s.parameters))),
        scored={} if nonlocal_equations else scored(analysis.sites, body, estimators),
        baseline_cost={s: j for s in sites if (j := _baseline_cost(s, analysis, split)) is not None},
    )
    return dataclasses.replace(plan, parts=_parts(plan))


def _thresholds(
    program: Program,
    outputs: Sequence[Value],
    analysis: Analysis,
    estimators: Mapping[Site, Estimator],
    reach: Mapping[Equation, Reach],
) -> dict[Site, tuple[Threshold, ...]]:
    """The thresholds of the draws whose estimators follow them; refuses costs that jump elsewhere."""
    found: dict[Site, tuple[Threshold, ...]] = {}
    sites = [site for site, estimator in estimators.items() if estimator.follows_thresholds]
    for site in sites:
        if site in found:
            continue
        if site.loops and site.loops[-1] in reach:
            together = [other for other in sites if other.loops == site.loops]
            in_step, reason = find_thresholds_in_step(program, outputs, site.loops[-1], together)
            found.update(in_step)
        else:
            found[site], reason = find_thresholds(program, outputs, analysis.sites, site)
        if reason is not None:
            raise ValueError(
                f"`{spelled(estimators[site])}` would be wrong at {site.describe()}: {reason}. Use `mcgrad.Score()` here."
            )
    return found


def _parts(plan: Plan) -> tuple[Plan, ...]:
    """The plans of costs that share no draw which needs the rest of the program; none where all are one group."""
    inside = {e: top for top in plan.body for e in top.everything()}
    groups: list[tuple[set[Equation], set[Value]]] = []
    others: set[Value] = set()
    for cost in plan.split.costs:
        reached = {inside[s.equation] for s in plan.analysis.of(cost) if plan.estimators[s].needs_rest}
        if not reached:
            others.add(cost)
            continue
        joined = [group for group in groups if group[0] & reached]
        groups = [group for group in groups if not group[0] & reached]
        groups.append((reached.union(*(g[0] for g in joined)), {cost}.union(*(g[1] for g in joined))))
    if len(groups) < 2 or any(e.eqn.effects for e in plan.body):
        return ()
    groups[0][1].update(others)
    return tuple(_part(plan, tuple(c for c in plan.split.costs if c in costs)) for _, costs in groups)


def _part(plan: Plan, costs: tuple[Value, ...], aux: tuple[Value, ...] = (), undrawn: tuple[Value, ...] = ()) -> Plan:
    """The plan of some of the costs, from the first draw on that needs the rest of the program."""
    body = plan.body[plan.first_nonlocal :]
    needed = Program((), body, (*costs, *aux, *undrawn)).without_dead_code().equations
    at = {plan.split.costs.index(cost): j for j, cost in enumerate(costs)}
    return dataclasses.replace(
        plan,
        split=Split(costs, ()),
        aux=aux,
        undrawn=undrawn,
        body=needed,
        baseline_cost={site: at[j] for site, j in plan.baseline_cost.items() if j in at},
        parts=(),
    )


def _baseline_cost(site: Site, analysis: Analysis, split: Split) -> int | None:
    reached = [(j, cost) for j, cost in enumerate(split.costs) if site in analysis.of(cost)]
    draws = {j: number_of_draws(analysis.of(cost)[site], site, cost) for j, cost in reached}
    return max(draws, key=lambda j: draws[j]) if draws else None


def _without_draws(
    equations: Sequence[Equation], random: frozenset[Equation], analysis: Analysis
) -> tuple[tuple[Equation, ...], tuple[Equation, ...]]:
    """The equations that need not wait for a draw, and the others: a loop with draws may make values that no draw reaches."""
    prologue: list[Equation] = []
    body: list[Equation] = []
    made: set[Value] = set()
    for e in equations:
        # What has effects may have no outputs; its inputs then tell whether it must wait for draws.
        waits = e in random or any(analysis.of(v) for v in e.outputs or e.inputs) or not made.isdisjoint(e.inputs)
        (body if waits else prologue).append(e)
        if waits:
            made.update(e.outputs)
    return tuple(prologue), tuple(body)


def _free(outputs: Sequence[Value], split: Split) -> list[Value]:
    """What the suffix and the outputs read that the suffix does not make."""
    made = {v for e in split.suffix for v in e.outputs} | set(split.costs)
    return [v for v in (*outputs, *(v for e in split.suffix for v in e.inputs)) if v not in made]
