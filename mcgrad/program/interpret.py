"""Running a program with its estimators: continuation passing over the flat list of equations.

Deterministic operations run as they stand. At a site whose estimator is *local* (one weighted point, or a flow) the draw
is made, its log weight is noted, and the run goes on; at any other the estimator gets the *rest* of the program as a
function of the drawn value, and what it returns is the result. Weights are brought to the costs at the end of each
stretch, all sites of the stretch in one exponent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad.program import control_flow
from mcgrad.program.costs import bring, expand_right
from mcgrad.program.estimator import (
    Baseline,
    Estimator,
    Flow,
    Representation,
    SignedPoints,
    WeightedPoint,
    WeightedPoints,
    signed_term,
    unit_weight,
)
from mcgrad.program.jumps import watch
from mcgrad.program.notes import Note, Recorded, Weight
from mcgrad.program.plan import Plan
from mcgrad.program.site import Site, SiteHandle, fold_in
from mcgrad.program.thresholds import Decision, find_thresholds
from mcgrad.program.trace import Constant, Equation, Program, Value

stop = jax.lax.stop_gradient

Environment: TypeAlias = dict[Value, Any]

Continuation: TypeAlias = "Callable[[Interpreter, Environment], Result]"
"""What comes after a stretch of equations; it takes the run, since a rest may be run plainly, or as a replicate."""


class Result(NamedTuple):
    """The weighted costs of a program, the auxiliary outputs of one plain run of it, and what no draw reaches."""

    costs: tuple[Array, ...]
    aux: tuple[Any, ...]
    undrawn: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, repr=False)  # `vmap` writes out what it maps: the whole program, for every draw
class Interpreter:
    """A run of a plan.

    Attributes:
        replicates: `(axis name, number)` of the transform's samples, if there are several.
        folds: indices of the replicates that this run is in; they are folded into the keys of later sites.
        plain: whether every site just draws, by flow or with a score weight, whatever its estimator.
        recording: whether estimators that follow alternatives draw, and note the alternatives.
        steps: of the `scan`s that are unrolled around the current equation, which step this is.
        moved: by site, a mask of shape `site.plates` and the values to take there in place of draws.
        decision: how comparisons that tie come out, if not as they stand.
        points: how many points at once this run stands for.
        evaluations: the points of each time that the end of the program was reached, over all runs.
    """

    plan: Plan
    replicates: tuple[str, int] | None = None
    folds: tuple[Any, ...] = ()
    plain: bool = False
    recording: bool = False
    steps: Mapping[Equation, int] = dataclasses.field(default_factory=dict)
    moved: Mapping[Site, tuple[Array, Any]] = dataclasses.field(default_factory=dict)
    decision: Decision | None = None
    points: int = 1
    evaluations: list[int] = dataclasses.field(default_factory=list)

    # ---------------------------------------------------------------- the whole program

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
        # Replay the linear suffix on the weighted costs.
        env.update(zip(plan.undrawn, result.undrawn, strict=True))
        env.update(zip(plan.split.costs, result.costs, strict=True))
        for equation in plan.split.suffix:
            self._evaluate(equation, env)
        return [*(_read(env, v) for v in plan.outputs), *result.aux]

    def _evaluate(self, equation: Equation, env: Environment) -> None:
        message = self.plan.watched.get(equation)

        def read(value: Value) -> Any:
            x = _read(env, value)
            return x if message is None or not jnp.issubdtype(x.dtype, jnp.inexact) else watch(x, message)

        outs = equation.evaluate(read)
        if self.decision is not None and equation in self.decision.slopes:
            outs = [self.decision.decide(equation, [_read(env, v) for v in equation.inputs], *outs)]
        env.update(zip(equation.outputs, outs, strict=True))

    def _stretch(self, equations: Sequence[Equation], start: int, env: Environment, finish: Continuation) -> Result:
        """Run equations from `start` on; `finish` makes the result from the environment after the last."""
        env = dict(env)
        weights: list[Note] = []
        for n in range(start, len(equations)):
            equation = equations[n]
            if equation not in self.plan.random:
                self._evaluate(equation, env)
            elif self._is_local(equation):
                outs, found = self.step(equation, [_read(env, v) for v in equation.inputs])
                weights += found
                env.update(zip(equation.outputs, outs, strict=True))
            else:

                def resume(run: Interpreter, env: Environment, after: int = n + 1) -> Result:
                    return run._stretch(equations, after, env, finish)

                site = self.plan.analysis.sites.get(equation)
                if site is None:
                    result = control_flow.continue_into(self, equation, env, resume)
                else:
                    handle = self._handle(site, [_read(env, v) for v in equation.inputs])
                    result = self.estimator(handle).estimate(handle, Rest(self, equation, env, resume))
                return self.credit(result, weights)
        return self.credit(finish(self, env), weights)

    def inline(
        self, body: Program, inputs: Sequence[Any], env: Environment, then: Callable[[Interpreter, list[Any]], Result]
    ) -> Result:
        """Run a body as part of the program, and go on with its outputs."""
        inner = {**env, **dict(zip(body.inputs, inputs, strict=True))}

        def finish(run: Interpreter, env: Environment) -> Result:
            return then(run, [_read(env, v) for v in body.outputs])

        return self._stretch(body.equations, 0, inner, finish)

    # ---------------------------------------------------------------- local steps

    def _is_local(self, equation: Equation) -> bool:
        return self.plain or equation not in self.plan.nonlocal_equations

    def step(self, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
        """One equation with draws in it, all of them local: its results and the notes of the draws."""
        site = self.plan.analysis.sites.get(equation)
        if site is None:
            return control_flow.run_local(self, equation, operands)
        handle = self._handle(site, operands)
        estimator = self.estimator(handle)
        if self.recording and estimator.follows_alternatives:
            x = handle.draw()
            found = stop(estimator.alternatives(handle, x))
            return jax.tree.leaves(x), [Recorded(site, x, handle.operands, found)]
        point = self._local_point(handle)
        if isinstance(point, Flow):
            return jax.tree.leaves(point.value), []
        return jax.tree.leaves(point.point), [_weight(site, point)]

    def _local_point(self, handle: SiteHandle) -> Flow | WeightedPoint:
        estimator = self.estimator(handle)
        if not self.plain or estimator.flow:
            point = estimator.represent(handle)
            assert isinstance(point, (Flow, WeightedPoint)), type(point)
            return point
        x = handle.draw()
        if handle.site in self.moved:
            mask, values = self.moved[handle.site]
            x = jax.tree.map(lambda leaf, other: jnp.where(expand_right(mask, leaf.ndim), other, leaf), x, values)
        has_density = handle.facts.has_log_prob
        return WeightedPoint(x, handle.log_prob(x) if has_density else jnp.zeros(handle.plates))

    def body(self, body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Note]]:
        """A body of control flow, all of whose draws are local: its outputs and the notes of the draws."""
        env: Environment = dict(zip(body.inputs, inputs, strict=True))
        weights: list[Note] = []
        for equation in body.equations:
            if equation in self.plan.random:
                outs, found = self.step(equation, [_read(env, v) for v in equation.inputs])
                weights += found
                env.update(zip(equation.outputs, outs, strict=True))
            else:
                self._evaluate(equation, env)
        return [_read(env, v) for v in body.outputs], weights

    # ---------------------------------------------------------------- sites

    def _handle(self, site: Site, operands: Sequence[Any]) -> SiteHandle:
        n = len(site.parameters)
        key = operands[n]
        for index in self.folds:
            key = fold_in(key, index)
        depth = len(site.loops)
        relations = tuple(
            relation[depth:] if (relation := self.plan.analysis.of(cost).get(site)) is not None else None
            for cost in self.plan.split.costs
        )
        constant = tuple(value in self.plan.constants for value in site.parameters)
        return SiteHandle(site, (*operands[:n], key, *operands[n + 1 :]), relations, self.replicates, constant)

    def estimator(self, handle: SiteHandle) -> Estimator:
        """The estimator of a site, with its arrays."""
        estimator = self.plan.estimators[handle.site]
        if handle.site.equation not in self.plan.named:
            return estimator
        return jax.tree.unflatten(handle.site.params["estimator_tree"], handle.estimator_arrays())

    # ---------------------------------------------------------------- credit

    def credit(self, result: Result, notes: Sequence[Note]) -> Result:
        """Multiply each cost by the weights of the draws that it depends on."""
        weights = [self._among_all_steps(note) for note in notes if isinstance(note, Weight)]
        if not weights:
            return result
        costs = list(result.costs)
        for j, (cost, value) in enumerate(zip(result.costs, self.plan.split.costs, strict=True)):
            reached = self.plan.analysis.of(value)
            all_sites: list[Array] = []
            leave_one_out: list[Array] = []
            for weight in weights:
                if weight.site in reached:
                    brought = bring(weight.log_weight, reached[weight.site], jnp.shape(cost)).astype(cost.dtype)
                    all_sites.append(brought)
                    if _is_leave_one_out(weight.baseline):
                        leave_one_out.append(brought)
            if all_sites:
                own = unit_weight(_total(all_sites))
                costs[j] = cost * own
                if leave_one_out and self.replicates is not None:
                    name, number = self.replicates
                    others = stop((jax.lax.psum(cost, name) - cost) / (number - 1))
                    partial = own if len(leave_one_out) == len(all_sites) else unit_weight(_total(leave_one_out))
                    costs[j] += (1 - partial) * others
        for weight in weights:
            if weight.baseline is not None and not isinstance(weight.baseline, str):
                self._subtract_baseline(costs, weight.site, unit_weight(weight.log_weight), weight.baseline)
            if weight.control is not None:
                self._add_once(costs, weight.site, weight.control)
        return result._replace(costs=tuple(costs))

    def _among_all_steps(self, weight: Weight) -> Weight:
        """The weight with the time axes of unrolled `scan`s, where no other step weighs anything."""
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

    def _subtract_baseline(self, costs: list[Array], site: Site, weight: Array, baseline: Array) -> None:
        """Add `(1 - w) b`, of value and expectation zero, to the cost that depends on most draws."""
        self._add_once(costs, site, (1 - weight) * jnp.broadcast_to(baseline, weight.shape))

    def _add_once(self, costs: list[Array], site: Site, term: Array) -> None:
        """Add a term, of shape `site.plates`, once for each draw, to the cost that depends on most draws."""
        j = self.plan.baseline_cost.get(site)
        if j is None:
            return
        relation = self.plan.analysis.of(self.plan.split.costs[j])[site]
        brought = bring(term, relation, jnp.shape(costs[j]), once=True).astype(costs[j].dtype)
        entries = costs[j].size // max(brought.size, 1)  # a cost's further axes share the term
        costs[j] = costs[j] + brought / max(entries, 1)


@dataclasses.dataclass(frozen=True, repr=False)
class Rest:
    """The rest of the program, as a function of the value of one site.

    Calling it runs the remainder with later estimators applied; it may be called at several points and vmapped over.
    """

    _run: Interpreter
    _equation: Equation
    _env: Environment
    _resume: Continuation

    def _at(self, run: Interpreter, x: Any) -> Result:
        drawn = dict(zip(self._equation.outputs, jax.tree.leaves(x), strict=True))
        return self._resume(run, {**self._env, **drawn})

    def __call__(self, x: Any, *, replicate: Any = None) -> Result:
        """The remaining costs at `x`; with a `replicate` index, later sites draw anew for that replicate."""
        run = self._run
        if replicate is not None:
            run = dataclasses.replace(run, folds=(*run.folds, replicate))
        return self._at(run, x)

    def _times(self, num_points: int) -> Rest:
        """The rest, to be mapped over points."""
        return dataclasses.replace(self, _run=dataclasses.replace(self._run, points=self._run.points * num_points))

    def _deciding(self, decision: Decision) -> Rest:
        """The rest, with comparisons that tie decided."""
        return dataclasses.replace(self, _run=dataclasses.replace(self._run, decision=decision))

    def thresholds(self, site: SiteHandle) -> list[tuple[Equation, Callable[[Array], Array]]]:
        """Where costs may jump in a draw: comparisons, each with the compared difference, affine in the draw."""
        plan = self._run.plan
        found, reason = find_thresholds(plan.program, plan.outputs, plan.analysis.sites, site.site)
        if reason is not None:
            raise ValueError(
                f"`mcgrad.{type(self._run.estimator(site)).__name__}` would be wrong at {site.site.describe()}: {reason}. "
                "Use `mcgrad.Score()` here."
            )
        return [(t.equation, functools.partial(t.margin, site.site, self._env)) for t in found]

    def simulate(self, x: Any) -> Result:
        """The remaining costs at `x` of one plain run: later sites draw once, whatever their estimators."""
        return self._at(dataclasses.replace(self._run, plain=True), x)

    def evaluate(self, site: SiteHandle, representation: Representation) -> Result:
        """The costs that a representation stands for."""
        if isinstance(representation, Flow):
            return self(representation.value)
        if isinstance(representation, WeightedPoint):
            return self._run.credit(self(representation.point), [_weight(site.site, representation)])
        if isinstance(representation, SignedPoints):
            return self._signed(site, representation)
        if representation.weights is None:
            return self._replicates(site, representation)
        return self._weighted(site, representation)

    def _replicates(self, site: SiteHandle, points: WeightedPoints) -> Result:
        """Average over independent replicates of one draw, each with its score weight."""
        assert points.log_weights is not None
        n = len(points.log_weights)
        results = jax.vmap(lambda x, i: self._times(n)(x, replicate=i))(stop(points.points), jnp.arange(n))
        costs = []
        for cost, relation in zip(results.costs, site.relations, strict=True):
            if relation is not None:
                shape = cost.shape[1:]
                brought = jax.vmap(lambda w, r=relation, s=shape: bring(w, r, s))(points.log_weights)
                weight = unit_weight(brought.astype(cost.dtype))
                weighted = cost * weight
                if _is_leave_one_out(points.baseline):
                    weighted += (1 - weight) * stop((jnp.sum(cost, 0, keepdims=True) - cost) / (n - 1))
                cost = weighted
            costs.append(jnp.mean(cost, axis=0))
        if points.baseline is not None and not isinstance(points.baseline, str):
            mean_weight = jnp.mean(unit_weight(points.log_weights), axis=0)
            self._run._subtract_baseline(costs, site.site, mean_weight, points.baseline)
        aux, undrawn = jax.tree.map(lambda a: a[0], (results.aux, results.undrawn))
        return Result(tuple(costs), aux, undrawn)

    def _weighted(self, site: SiteHandle, points: WeightedPoints) -> Result:
        """Sum over weighted points."""
        assert points.weights is not None
        n = len(points.weights)
        mixed = site.mixed_axes
        # Along axes that some cost mixes the points are joint: the weight of a point is the product over those axes.
        weights = jnp.prod(points.weights, axis=[1 + k for k in mixed])
        results = jax.vmap(self._times(n))(points.points)
        costs = []
        for cost, relation in zip(results.costs, site.relations, strict=True):
            if relation is None:
                costs.append(cost[0])
                continue
            apart = tuple(window for k, window in enumerate(relation) if k not in mixed)
            shape = cost.shape[1:]
            weight = jax.vmap(lambda w, r=apart, s=shape: bring(w, r, s))(weights)
            # Entries that depend on no draw (padding, shifts) are the same at every point.
            covered = bring(jnp.ones(weights.shape[1:]), apart, shape) > 0
            weight = jnp.where(covered, weight, 1 / n).astype(cost.dtype)
            if points.log_weights is None:
                costs.append(jnp.sum(cost * weight, axis=0))
                continue
            weight = stop(weight)
            own = jax.vmap(lambda w, r=relation, s=shape: bring(w, r, s))(points.log_weights)
            own = unit_weight(own.astype(cost.dtype))
            weighted = cost * own
            if points.baseline is not None:
                assert not isinstance(points.baseline, str)
                mixing = jnp.squeeze(points.baseline, axis=[2 + k for k in mixed])
                mixing = jax.vmap(jax.vmap(lambda w, r=apart, s=shape: bring(w, r, s)))(mixing)
                weighted += (1 - own) * jnp.sum(stop(mixing.astype(cost.dtype) * cost[None]), axis=1)
            costs.append(jnp.sum(weight * weighted, axis=0))
        aux = self.simulate(site.draw()).aux if results.aux else ()
        return Result(tuple(costs), aux, jax.tree.map(lambda a: a[0], results.undrawn))

    def _signed(self, site: SiteHandle, points: SignedPoints) -> Result:
        """The rest at the value point, plus signed differences that are zero in value."""
        result = self(points.value)
        masks = jnp.ones((1, *site.plates), bool) if points.joint else site.entries_apart()
        rest, decision = self._times(len(masks) * len(points.coefficients)), points.decision

        def one(mask: Array, point: Any, coefficient: Array, side: Array | None, reach: Array | None) -> list[Array]:
            def perturbed(leaf: Array, base: Array) -> Array:
                return jnp.where(expand_right(mask, leaf.ndim), leaf, base)

            moved_rest = rest if decision is None else rest._deciding(decision.at(side, reach))
            moved = moved_rest.simulate(jax.tree.map(perturbed, stop(point), stop(points.value)))
            terms = []
            for cost, own, relation in zip(moved.costs, result.costs, site.relations, strict=True):
                if relation is None:
                    terms.append(jnp.zeros_like(cost))
                else:
                    brought = bring(jnp.where(mask, coefficient, 0), relation, cost.shape).astype(cost.dtype)
                    moved_by = cost - own if points.relative else cost
                    terms.append(signed_term(jnp.broadcast_to(brought, cost.shape), moved_by))
            return terms

        of_points = (
            points.points,
            points.coefficients,
            *((decision.side, decision.reach) if decision else (None, None)),
        )
        if points.chunk_size is None:
            each = jax.vmap(jax.vmap(one, (None, 0, 0, 0, 0)), (0, *[None] * 4))(masks, *of_points)
            each = [jnp.sum(term, axis=1) for term in each]
        else:
            n = len(points.coefficients)

            def pair(index: Array) -> list[Array]:
                return one(masks[index // n], *jax.tree.map(lambda of_all: of_all[index % n], of_points))

            each = jax.lax.map(pair, jnp.arange(len(masks) * n), batch_size=points.chunk_size)
        costs = [cost + jnp.sum(term, axis=0) for cost, term in zip(result.costs, each, strict=True)]
        return result._replace(costs=tuple(costs))


def _weight(site: Site, point: WeightedPoint) -> Weight:
    """The note of one point."""

    def on_plates(array: Any) -> Any:
        return array if array is None or isinstance(array, str) else jnp.broadcast_to(array, site.own_plates)

    return Weight(site, *map(on_plates, (point.log_weight, point.baseline, point.control)))


def _finish(run: Interpreter, env: Environment) -> Result:
    """The end of the program."""
    run.evaluations.append(run.points)
    plan = run.plan
    return Result(*(tuple(_read(env, v) for v in values) for values in (plan.split.costs, plan.aux, plan.undrawn)))


def _run_parts(run: Interpreter, env: Environment) -> Result:
    """The parts of a program one beside the other, and what is beside the costs by one plain run."""
    found: Environment = {}
    for part in run.plan.parts:
        result = dataclasses.replace(run, plan=part)._stretch(part.body, 0, env, _finish)
        found.update(zip(part.split.costs, result.costs, strict=True))
    beside = Result((), (), ())
    if run.plan.aux or run.plan.undrawn:
        plan = run.plan.uncredited
        beside = dataclasses.replace(run, plan=plan, plain=True)._stretch(plan.body, 0, env, _finish)
    return beside._replace(costs=tuple(found[cost] for cost in run.plan.split.costs))


def _read(env: Environment, value: Value) -> Any:
    return value.value if isinstance(value, Constant) else env[value]


def _is_leave_one_out(baseline: Baseline) -> bool:
    return isinstance(baseline, str)


def _total(log_weights: Sequence[Array]) -> Array:
    total = log_weights[0]
    for log_weight in log_weights[1:]:
        total = total + log_weight
    return total
