"""The plan of a program: which estimator at which site, which values are costs, what runs when.

Everything that can be refused is refused here, before anything is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mcgrad import _compat
from mcgrad.program.checks import check_evaluations, check_jumps, check_keys, check_site, check_supported
from mcgrad.program.costs import Split, split_costs
from mcgrad.program.dependence import Analysis, analyze
from mcgrad.program.estimator import Estimator
from mcgrad.program.held import Held
from mcgrad.program.hoist import hoist_costs
from mcgrad.program.jumps import Jump, find_jumps, find_watched
from mcgrad.program.reach import Reach, can_follow, reach_of
from mcgrad.program.relation import number_of_draws
from mcgrad.program.separate import separate_addends
from mcgrad.program.site import Site, has_site, sample_p
from mcgrad.program.structure import contains_any, form_of
from mcgrad.program.trace import Constant, Equation, Program, Value


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
        accumulators: lines of the `scan`s whose carries add costs up, now seen one by one.
        jumps: where costs jump, or may jump, in draws that are differentiated along their path.
        watched: operations by which costs jump in draws that are held fixed, and what to say where a parameter moves them.
        baseline_cost: for each site, the cost that depends on most of its draws.
        constants: values known before the program runs, through which no derivative can come.
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
    accumulators: tuple[str, ...]
    jumps: tuple[Jump, ...]
    watched: dict[Equation, str]
    baseline_cost: dict[Site, int]
    constants: frozenset[Value]
    parts: tuple[Plan, ...] = ()

    @property
    def first_nonlocal(self) -> int:
        """Where in the body the first draw is that needs the rest of the program."""
        return next(n for n, equation in enumerate(self.body) if equation in self.nonlocal_equations)

    @property
    def uncredited(self) -> Plan:
        """What is beside the costs, from there on."""
        return _part(self, (), self.aux, self.undrawn)


def make_plan(program: Program, num_outputs: int, default: Estimator) -> Plan:
    """Plan a program whose first `num_outputs` outputs are to be differentiated and whose others are auxiliary.

    Args:
        program: as traced.
        num_outputs: how many of its outputs are costs or sums of costs.
        default: the estimator of the sites that name none.
    """
    check_supported(program)
    accumulators: list[str] = []
    sums: frozenset[Equation] = frozenset()
    while True:
        analysis = analyze(program)
        estimators = _first_estimators(program, program.outputs[:num_outputs], analysis, default)
        credited = {site for site, estimator in estimators.items() if not estimator.flow}
        if (hoisted := hoist_costs(program, num_outputs, analysis, credited)) is not None:
            program = hoisted.program
            accumulators += hoisted.accumulators
        elif not sums and (separated := separate_addends(program, num_outputs, analysis, credited)) is not None:
            program, sums = separated
        else:
            break
    sites = list(analysis.sites.values())
    outputs, aux = program.outputs[:num_outputs], program.outputs[num_outputs:]
    split = split_costs(program, outputs, analysis, credited, sums)
    for site in sites:
        relations = [analysis.of(cost).get(site) for cost in split.costs]
        estimators[site] = estimators[site].resolve(site, relations)
        check_site(site, estimators[site])
    jumps = find_jumps(program, outputs, analysis.sites, _moved(estimators))
    check_jumps(jumps, estimators)
    held = {site for site in sites if not site.facts.discrete} - _moved(estimators)
    check_keys(program, sites, estimators, analysis, split)
    check_evaluations(estimators, analysis, split)
    watched = find_watched(program, outputs, analysis.sites, held)
    random = frozenset(
        e
        for e in program.everything()
        if e in analysis.sites or any(map(has_site, e.bodies)) or contains_any(e, watched)
    )
    needing_rest = {site.equation for site, estimator in estimators.items() if not estimator.local}
    nonlocal_equations = frozenset(
        e
        for e in random
        if e in needing_rest or any(inner in needing_rest for b in e.bodies for inner in b.everything())
    )
    needing_sites = {site: e for site, e in estimators.items() if not e.local}
    reach = {}
    for equation in nonlocal_equations - needing_rest:
        if can_follow(equation, needing_sites):
            reach[equation] = reach_of(program, equation, split.costs)
            continue
        form = form_of(equation)
        assert form is not None
        inner = next(s for s in sites if s.equation in needing_rest and _contains(equation, s.equation))
        form.check_continuation(type(estimators[inner]).__name__)
    free = _free(outputs, split)
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
        named=frozenset(s.equation for s in sites if s.params["estimator_tree"].num_leaves),
        prologue=prologue,
        body=body,
        undrawn=tuple(dict.fromkeys(v for v in free if v in made)),
        random=random,
        nonlocal_equations=nonlocal_equations,
        reach=reach,
        accumulators=tuple(accumulators),
        jumps=tuple(jumps),
        watched=watched,
        baseline_cost={s: j for s in sites if (j := _baseline_cost(s, analysis, split)) is not None},
        constants=frozenset(_constants(program)),
    )
    return dataclasses.replace(plan, parts=_parts(plan))


def _parts(plan: Plan) -> tuple[Plan, ...]:
    """The plans of costs that share no draw which needs the rest of the program; none where all are one group."""
    inside = {e: top for top in plan.body for e in (top, *(e for b in top.bodies for e in b.everything()))}
    groups: list[tuple[set[Equation], set[Value]]] = []
    others: set[Value] = set()
    for cost in plan.split.costs:
        reached = {inside[s.equation] for s in plan.analysis.of(cost) if not plan.estimators[s].local}
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


def _first_estimators(
    program: Program, outputs: Sequence[Value], analysis: Analysis, default: Estimator
) -> dict[Site, Estimator]:
    """The estimator of each site, as far as it can be known before the costs are."""
    constants = _constants(program)
    estimators: dict[Site, Estimator] = {}
    for site in analysis.sites.values():
        fixed = site.has_constant_law(constants) and site.estimator is None
        estimators[site] = Held() if fixed else (site.estimator or default).resolve(site, None)
    jumps = find_jumps(program, outputs, analysis.sites, _moved(estimators))
    for site in {site for jump in jumps if jump.certain for site in jump.sites}:
        estimators[site] = (site.estimator or default).where_costs_jump(site)
    return estimators


def _moved(estimators: dict[Site, Estimator]) -> set[Site]:
    """The draws in which costs are differentiated."""
    return {s for s, e in estimators.items() if (e.flow or e.moves_draw) and not isinstance(e, Held)}


def _contains(equation: Equation, inner: Equation) -> bool:
    return any(inner is e for body in equation.bodies for e in body.everything())


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


def _constants(program: Program) -> set[Value]:
    """Values known before the program runs, through which no derivative can come."""

    def known(value: Value, found: set[Value]) -> bool:
        return value in found or (isinstance(value, Constant) and not isinstance(value.value, _compat.Tracer))

    found: set[Value] = set()

    def visit(program: Program) -> None:
        for equation in program.equations:
            if equation.eqn.primitive is not sample_p and all(known(v, found) for v in equation.inputs):
                found.update(equation.outputs)
            for body in equation.bodies:
                visit(body)

    visit(program)
    for equation in program.everything():
        found.update(v for v in equation.inputs if known(v, found))
    return found
