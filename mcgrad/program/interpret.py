"""Running a program with its estimators: continuation passing over the flat list of equations.

Deterministic operations run as they stand. At a site whose estimator is *local* (one weighted point, or a flow) the draw
is made, its log weight is recorded, and the run goes on; at any other site the estimator gets the *rest* of the program as
a function of the drawn value, and returns the result. At the end of each stretch, the costs are multiplied by the weights,
with all sites of the stretch in one exponent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat, _mesh
from mcgrad._debug import check_finite
from mcgrad._types import Shape
from mcgrad.distributions.half_precision import in_single
from mcgrad.program.bring import bring, expand_right
from mcgrad.program.draw import Draw, fold_in
from mcgrad.program.estimator import Estimator, Result, spelled
from mcgrad.program.impossible import check_possible
from mcgrad.program.jumps import watch
from mcgrad.program.plan import Plan
from mcgrad.program.point_sets import PointSet, Samples, total_of_others
from mcgrad.program.relation import Relation
from mcgrad.program.representations import Alternatives, Flow, WeightedPoint
from mcgrad.program.rest import RestOfProgram
from mcgrad.program.returned import LOCAL, check_returned
from mcgrad.program.run import Continuation, Environment, Run, read, with_crossings
from mcgrad.program.sequences import Scored
from mcgrad.program.site import Site
from mcgrad.program.structure import ControlFlow, form_of
from mcgrad.program.surrogates import unit_weight
from mcgrad.program.thresholds import Decision
from mcgrad.program.trace import Equation, Program, Value
from mcgrad.program.weights import Coupled, Record, Recorded, Weight, is_leave_one_out, mean_of_others

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True, repr=False)  # `vmap` writes out what it maps: the whole program, for every draw
class Interpreter:
    """A run of a plan.

    Attributes:
        replicates: `(axis names, number)` of the transform's samples, if there are several.
        point_set: how samples are spread over the values of a draw that does not say so itself.
        folds: indices of the replicates that this run is in; they are folded into the keys of later sites.
        plain: whether every site just draws, by flow or with a score weight, whatever its estimator.
        recording: whether estimators that follow alternatives only draw, and record the alternatives: the equations that
            a step runs once, whose draws can be coupled with those of an alternative path.
        steps: for each unrolled `scan` around the current equation, the index of the step.
        moved: by site, a mask of shape `site.plates` and the values to take there in place of draws.
        beside: by site, the draw of the real path that this run's draw is coupled with.
        decision: how to resolve comparisons whose two sides are equal; by default they are left as they are.
        points: the number of points, under a `vmap`, that this run stands for.
        evaluations: one entry for each arrival at the end of the program: how many points it stood for.
    """

    plan: Plan
    replicates: tuple[tuple[str, ...], int] | None = None
    point_set: PointSet = "independent"
    folds: tuple[Any, ...] = ()
    plain: bool = False
    recording: frozenset[Equation] | None = None
    steps: Mapping[Equation, int] = dataclasses.field(default_factory=dict)
    moved: Mapping[Site, tuple[Array, Any]] = dataclasses.field(default_factory=dict)
    beside: Mapping[Site, Coupled] = dataclasses.field(default_factory=dict)
    decision: Decision | None = None
    points: int = 1
    evaluations: list[int] = dataclasses.field(default_factory=list)

    def but(self, **changes: Any) -> Interpreter:
        """This run, with some of its settings changed."""
        return dataclasses.replace(self, **changes)

    def run(self) -> list[Any]:
        """The program's outputs, aux included, with unbiased derivatives."""
        plan = self.plan
        env: Environment = {}
        for equation in plan.prologue:
            self._evaluate(equation, env)

        if plan.parts:
            result = self._stretch(plan.body[: plan.first_nonlocal], 0, env, _run_parts)
        else:
            result = self._stretch(plan.body, 0, env, _finish)
        for value, cost in zip(plan.split.costs, result.costs, strict=True):
            check_finite(functools.partial(_described, plan, value), cost)
        # Replay the linear suffix on the weighted costs.
        env.update(zip(plan.undrawn, result.undrawn, strict=True))
        env.update(zip(plan.split.costs, result.costs, strict=True))
        for equation in plan.split.suffix:
            self._evaluate(equation, env)
        return [*(read(env, v) for v in plan.outputs), *result.aux]

    def _evaluate(self, equation: Equation, env: Environment) -> None:
        message = self.plan.watched.get(equation)

        def watched(value: Value) -> Any:
            x = read(env, value)
            return x if message is None or not jnp.issubdtype(x.dtype, jnp.inexact) else watch(x, message)

        outs = equation.evaluate(watched)
        if self.decision is not None and equation in self.decision.slopes:
            outs = [self.decision.decide(equation, [read(env, v) for v in equation.inputs], *outs)]
        env.update(zip(equation.outputs, outs, strict=True))

    def _stretch(self, equations: Sequence[Equation], start: int, env: Environment, finish: Continuation) -> Result:
        """Run equations from `start` on; `finish` makes the result from the environment after the last."""
        env = dict(env)
        weights: list[Record] = []
        for n in range(start, len(equations)):
            equation = equations[n]
            if equation not in self.plan.random:
                self._evaluate(equation, env)
                if equation in self.plan.scored and not self.plain:
                    weights.append(self._score(equation, env))
            elif self._is_local(equation):
                outs, found = self.step(equation, env)
                weights += found
                env.update(zip(equation.outputs, outs, strict=True))
            else:

                def resume(run: Any, env: Environment, after: int = n + 1) -> Result:
                    return run._stretch(equations, after, env, finish)

                operands = [read(env, v) for v in equation.inputs]
                site = self.plan.analysis.sites.get(equation)
                if site is None:
                    result = _into(self, equation, operands, env, resume)
                else:
                    draw = self._draw(site, operands)
                    check_possible(draw, self.estimator(draw))
                    result = RestOfProgram(self, equation, env, resume).given_to(self.estimator(draw), draw)
                return self.credit(result, weights)
        return self.credit(finish(self, env), weights)

    def inline(
        self, body: Program, inputs: Sequence[Any], env: Environment, then: Callable[[Interpreter, list[Any]], Result]
    ) -> Result:
        """Run a body as part of the program, and go on with its outputs."""
        inner = {**env, **dict(zip(body.inputs, inputs, strict=True))}

        def finish(run: Interpreter, env: Environment) -> Result:
            return then(run, [read(env, v) for v in body.outputs])

        return self._stretch(body.equations, 0, inner, finish)

    def _is_local(self, equation: Equation) -> bool:
        return self.plain or equation not in self.plan.nonlocal_equations

    def step(self, equation: Equation, env: Environment) -> tuple[list[Any], list[Record]]:
        """One equation with draws in it, all of them local: its results and the records of the draws."""
        operands = [read(env, v) for v in equation.inputs]
        site = self.plan.analysis.sites.get(equation)
        if site is None:
            return _form(equation).run_local(self, operands)
        draw = self._draw(site, operands)
        estimator = self.estimator(draw)
        if not self.plain and site in self.plan.scored.values():
            return self._drawn(site, draw.sample()), []
        if not self.plain:
            check_possible(draw, estimator)
        if self.recording is not None and estimator.follows_alternatives:
            x = draw.sample_path() if estimator.moves_draw else draw.sample()
            draw = with_crossings(self, draw, env, x)
            found = check_returned(estimator.alternatives(draw, x), draw, spelled(estimator), (Alternatives,))
            return self._drawn(site, x), [Recorded(site, x, draw.operands, stop(found), draw.crossings)]
        point = self._local_point(draw)
        if isinstance(point, Flow):
            coupled = estimator.couples and equation in (self.recording or ())
            return self._drawn(site, point.value), [Coupled(site, point.value, draw.operands)] if coupled else []
        return self._drawn(site, point.point), [self._weight(site, point)]

    def _drawn(self, site: Site, x: Any) -> list[Array]:
        """The leaves of a value of a draw, as the program goes on with them."""
        leaves = site.typed(x)
        if self.replicates is None or len(self.replicates[0]) == 1:
            return leaves
        # The baseline's sum over devices stands between costs and their derivatives. XLA would compute a draw anew after it, from
        # several arrays that it keeps until then.
        return [jax.lax.optimization_barrier(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in leaves]

    def _score(self, equation: Equation, env: Environment) -> Weight:
        """The weight of a sequence, from the `conditionals` that costs read too."""
        site = self.plan.scored[equation]
        draw = self._draw(site, [read(env, v) for v in site.equation.inputs])
        operands = [
            *(read(env, v) for v in equation.inputs[: -len(equation.outputs)]),
            *(env[v] for v in equation.outputs),
        ]
        point = self._local_point(Scored.of(draw, equation, operands))
        assert isinstance(point, WeightedPoint)  # `scores_its_draw`
        return self._weight(site, point)

    def _weight(self, site: Site, point: WeightedPoint) -> Weight:
        check_finite(lambda: f"The log density of {site.describe()}", point.log_weight)
        return Weight.of(site, point)

    def _local_point(self, draw: Draw) -> Flow | WeightedPoint:
        estimator = self.estimator(draw).simulated if self.plain else self.estimator(draw)
        if draw.site in self.beside:
            real = self.beside[draw.site]
            return Flow(estimator.couple(draw, dataclasses.replace(draw, operands=real.operands), real.x))
        if not self.plain or estimator.flow:
            return check_returned(estimator.represent(draw), draw, spelled(estimator), LOCAL)
        x = draw.sample()
        if draw.site in self.moved:
            mask, values = self.moved[draw.site]
            x = jax.tree.map(lambda leaf, other: jnp.where(expand_right(mask, leaf.ndim), other, leaf), x, values)
        has_density = "log_prob" in draw.facts.knows
        return WeightedPoint(x, draw.log_prob(x) if has_density else jnp.zeros(draw.plates))

    def body(self, body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        """A body of control flow, all of whose draws are local: its outputs and the records of the draws."""
        env: Environment = dict(zip(body.inputs, inputs, strict=True))
        weights: list[Record] = []
        for equation in body.equations:
            if equation in self.plan.random:
                outs, found = self.step(equation, env)
                weights += found
                env.update(zip(equation.outputs, outs, strict=True))
            else:
                self._evaluate(equation, env)
        return [read(env, v) for v in body.outputs], weights

    def _draw(self, site: Site, operands: Sequence[Any]) -> Draw:
        n = len(site.parameters)
        key = operands[n]
        for index in self.folds:
            key = fold_in(key, index)
        depth = len(site.loops)
        relations = tuple(
            relation[depth:] if (relation := self.plan.analysis.of(cost).get(site)) is not None else None
            for cost in self.plan.split.costs
        )
        constant = frozenset(i for i, value in enumerate(site.parameters) if value in site.constants)
        operands = (*operands[:n], key, *operands[n + 1 :])
        samples = self.samples_of(site)
        replicates = None if samples is not None and samples.num_others < 1 else self.replicates
        return Draw(site, operands, relations, replicates, constant, samples, excludes=site in self.plan.excluding)

    def samples_of(self, site: Site) -> Samples | None:
        """The samples that share a set of points at a site, if they do."""
        if self.replicates is None:
            return None
        kind: Any = site.point_set or self.point_set
        return None if kind == "independent" else Samples(kind, *self.replicates)

    def estimator(self, draw: Draw) -> Estimator:
        """The estimator of a site, with its arrays."""
        estimator = self.plan.estimators[draw.site]
        if draw.site.equation not in self.plan.named:
            return estimator
        return draw.named_estimator()

    def credit(self, result: Result, records: Sequence[Record]) -> Result:
        """Multiply each cost by the weights of the draws that it depends on."""
        weights = [self._among_all_steps(record) for record in records if isinstance(record, Weight)]
        if not weights:
            return result
        costs = list(result.costs)

        @functools.cache  # costs that depend on draws in the same way share their weights
        def brought(i: int, relation: Relation, shape: Shape, dtype: Any, axes: tuple[Any, ...]) -> Array:
            return _mesh.total(bring(weights[i].log_weight, relation, shape).astype(dtype), axes)

        @functools.cache
        def weight_of(*each: Any) -> Array:
            return unit_weight(functools.reduce(jnp.add, [brought(*one) for one in each]))

        for j, (cost, value) in enumerate(zip(result.costs, self.plan.split.costs, strict=True)):
            reached = self.plan.analysis.of(value)
            all_sites = [
                (i, reached[weight.site], jnp.shape(cost), cost.dtype, self._axes_of_all(value, weight.site))
                for i, weight in enumerate(weights)
                if weight.site in reached
            ]
            leave_one_out = [each for each in all_sites if is_leave_one_out(weights[each[0]].baseline)]
            if all_sites:
                costs[j] = cost * weight_of(*all_sites)
                if leave_one_out and self.replicates is not None:
                    costs[j] += (1 - weight_of(*leave_one_out)) * self._mean_of_others(cost, leave_one_out, weights)
        for weight in weights:
            if weight.baseline is not None and not isinstance(weight.baseline, str):
                self.subtract_baseline(costs, weight.site, unit_weight(weight.log_weight), weight.baseline)
            if weight.control is not None:
                self._add_once(costs, weight.site, weight.control)
        return result._replace(costs=tuple(costs))

    def _mean_of_others(self, cost: Array, credited: Sequence[Any], weights: Sequence[Weight]) -> Array:
        """The mean of a cost over the samples that are independent of this one at all draws that it is credited to."""
        assert self.replicates is not None
        names, number = self.replicates
        sets = [samples for i, *_ in credited if (samples := self.samples_of(weights[i].site)) is not None]
        if not sets:
            return mean_of_others(cost, lambda x: _compat.total_over(x, *names), number)
        wide = in_single(stop(cost))
        return (total_of_others(wide, names, sets[0]) / sets[0].num_others).astype(cost.dtype)

    def _axes_of_all(self, cost: Value, site: Site) -> tuple[Any, ...]:
        """The mapped axes along which a cost depends on the draws of all devices."""
        return tuple(dict.fromkeys(coupling.axis for coupling in self.plan.analysis.couplings(cost, site)))

    def _among_all_steps(self, weight: Weight) -> Weight:
        """The weight with the time axes of unrolled `scan`s added, zero at all other steps."""
        log_weight, baseline, control = weight.log_weight, weight.baseline, weight.control
        stacked = log_weight.ndim - len(weight.site.own_plates)  # the innermost `scan`s may have run as they are
        for loop in reversed(weight.site.loops[: len(weight.site.loops) - stacked]):
            place = jnp.arange(loop.eqn.params["length"]) == self.steps[loop]
            place = expand_right(place, log_weight.ndim + 1)
            log_weight = jnp.where(place, log_weight, 0)
            control = None if control is None else jnp.where(place, control, 0)
            if isinstance(baseline, jax.Array):
                baseline = jnp.broadcast_to(baseline, log_weight.shape)
        return Weight(weight.site, log_weight, baseline, control)

    def subtract_baseline(self, costs: list[Array], site: Site, weight: Array, baseline: Array) -> None:
        """Add `(1 - w) b`, whose value and expectation are zero, to the cost that depends on the most draws."""
        self._add_once(costs, site, (1 - weight) * jnp.broadcast_to(baseline, weight.shape))

    def _add_once(self, costs: list[Array], site: Site, term: Array) -> None:
        """Add a term of shape `site.plates`, once for each draw, to the cost that depends on the most draws."""
        j = self.plan.baseline_cost.get(site)
        if j is None:
            return
        relation = self.plan.analysis.of(self.plan.split.costs[j])[site]
        brought = bring(term, relation, jnp.shape(costs[j]), once=True).astype(costs[j].dtype)
        brought = _mesh.total(brought, self._axes_of_all(self.plan.split.costs[j], site))
        entries = costs[j].size // max(brought.size, 1)  # a cost's further axes share the term
        costs[j] = costs[j] + brought / max(entries, 1)


def _form(equation: Equation) -> ControlFlow:
    form = form_of(equation)
    assert form is not None, equation.name
    return form


def _into(run: Any, equation: Equation, operands: Sequence[Any], env: Environment, resume: Continuation) -> Result:
    """Control flow with a draw whose estimator needs the rest: the body becomes part of the program."""

    def then(run: Run, outs: list[Any]) -> Result:
        return resume(run, {**env, **dict(zip(equation.outputs, outs, strict=True))})

    return _form(equation).continue_into(run, operands, env, then)


def _described(plan: Plan, cost: Value) -> str:
    """How messages speak of a cost."""
    made = next((e for e in plan.body if cost in e.outputs), None)
    return "The cost" if made is None else f"The cost of `{made.name}` at {made.line}"


def _finish(run: Interpreter, env: Environment) -> Result:
    """The end of the program."""
    run.evaluations.append(run.points)
    plan = run.plan
    return Result(*(tuple(read(env, v) for v in values) for values in (plan.split.costs, plan.aux, plan.undrawn)))


def _run_parts(run: Interpreter, env: Environment) -> Result:
    """Run the parts of a program side by side; auxiliary and other outputs come from one plain run."""
    found: Environment = {}
    for part in run.plan.parts:
        result = dataclasses.replace(run, plan=part)._stretch(part.body, 0, env, _finish)
        found.update(zip(part.split.costs, result.costs, strict=True))
    beside = Result((), (), ())
    if run.plan.aux or run.plan.undrawn:
        plan = run.plan.uncredited
        beside = dataclasses.replace(run, plan=plan, plain=True)._stretch(plan.body, 0, env, _finish)
    return beside._replace(costs=tuple(found[cost] for cost in run.plan.split.costs))
