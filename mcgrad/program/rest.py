"""The rest of the program as a function of one draw, evaluated at the points that an estimator returns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad._arguments import describe
from mcgrad.program.bring import bring, bring_each, expand_right
from mcgrad.program.draw import Draw, check_value
from mcgrad.program.estimator import Estimator, Rest, Result, spelled
from mcgrad.program.relation import Relation
from mcgrad.program.representations import (
    Flow,
    Replicates,
    Representation,
    Reweighted,
    SignedPoints,
    WeightedPoint,
    WeightedPoints,
)
from mcgrad.program.returned import check_returned
from mcgrad.program.run import Continuation, Environment, Run, with_crossings
from mcgrad.program.site import Site
from mcgrad.program.surrogates import unit_weight, zero_with_derivative_of
from mcgrad.program.thresholds import Decision
from mcgrad.program.trace import Equation
from mcgrad.program.weights import Weight, is_leave_one_out, mean_of_others

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True, repr=False)
class RestOfProgram(Rest):
    """The rest of the program, as a function of the value of one site."""

    _run: Any
    _equation: Equation
    _env: Environment
    _resume: Continuation

    @property
    def _site(self) -> Site:
        return self._run.plan.analysis.sites[self._equation]

    @property
    def _author(self) -> str:
        """The name of the estimator's class, for errors."""
        return spelled(self._run.plan.estimators[self._site])

    def _at(self, run: Run, x: Any) -> Result:
        check_value(self._site, x, f"The argument of `rest` in `{self._author}`")
        drawn = dict(zip(self._equation.outputs, self._site.typed(x), strict=True))
        return self._resume(run, {**self._env, **drawn})

    def __call__(self, x: Any, *, replicate: Any = None) -> Result:
        run = self._run
        if replicate is not None:
            run = run.but(folds=(*run.folds, replicate))
        return self._at(run, x)

    def given_to(self, estimator: Estimator, draw: Draw) -> Result:
        """What an estimator makes of the rest; refuses what has other shapes than the rest itself returns."""
        result = estimator.estimate(draw, self)
        if not isinstance(result, Result):
            raise TypeError(
                f"`{self._author}.estimate(draw, rest)` must return what `rest(x)` returned, with its costs weighted, got "
                f"{describe(result)}. Write `result = rest(x)`, and return `result._replace(costs=costs)`."
            )
        plan = self._run.plan
        for name, values in (("costs", plan.split.costs), ("aux", plan.aux), ("undrawn", plan.undrawn)):
            wanted, got = [value.shape for value in values], [np.shape(leaf) for leaf in getattr(result, name)]
            if wanted != got:
                way_out = f"Keep `{name}` of one result, `result._replace(costs=costs)`."
                if name == "costs":
                    way_out = (
                        "Bring weights to each cost by `draw.per_cost` and `bring(log_weight, relation, cost.shape)`, and sum "
                        "over the axis of a `vmap`."
                    )
                raise ValueError(
                    f"`{self._author}.estimate(draw, rest)` must return `{name}` of the shapes that `rest(x)` gives them, "
                    f"{wanted}, got {got}, for {draw.site.describe()}. {way_out}"
                )
        return result

    def _times(self, num_points: int) -> RestOfProgram:
        """The rest, for use under a `vmap` over `num_points` points."""
        return dataclasses.replace(self, _run=self._run.but(points=self._run.points * num_points))

    def _deciding(self, decision: Decision) -> RestOfProgram:
        """The rest, in which comparisons whose two sides are equal are resolved."""
        return dataclasses.replace(self, _run=self._run.but(decision=decision))

    def with_crossings(self, draw: Draw, x: Any) -> Draw:
        """The draw, of value `x`, with its `crossings`: where costs may jump in it."""
        return with_crossings(self._run, draw, self._env, x)

    def simulate(self, x: Any) -> Result:
        return self._at(self._run.but(plain=True), x)

    def with_costs(self, fn: Callable[[Any], tuple[Array, ...]]) -> RestOfProgram:
        def resume(run: Run, env: Environment) -> Result:
            value = self._site.value_of([env[output] for output in self._equation.outputs])
            return Result(fn(value), (), ())

        return dataclasses.replace(self, _resume=resume)

    def evaluate(self, draw: Draw, representation: Representation) -> Result:
        """The costs, weighted or perturbed as the representation says."""
        check_returned(representation, draw, self._author)
        if isinstance(representation, Flow):
            return self(representation.value)
        if isinstance(representation, WeightedPoint):
            return self._run.credit(self(representation.point), [Weight.of(draw.site, representation)])
        if isinstance(representation, SignedPoints):
            return self._signed(draw, representation)
        if isinstance(representation, Replicates):
            return self._replicates(draw, representation)
        return self._weighted(draw, representation)

    def _replicates(self, draw: Draw, points: Replicates) -> Result:
        """Average over independent replicates of one draw, each with its score weight."""
        n = len(points.log_weights)
        results = jax.vmap(lambda x, i: self._times(n)(x, replicate=i))(stop(points.points), jnp.arange(n))

        def mean(relation: Relation, cost: Array) -> Array:
            weight = unit_weight(bring_each(points.log_weights, relation, cost.shape[1:]).astype(cost.dtype))
            weighted = cost * weight
            if is_leave_one_out(points.baseline):
                others = mean_of_others(cost, functools.partial(jnp.sum, axis=0, keepdims=True), n)
                weighted += (1 - weight) * others
            return jnp.mean(weighted, axis=0)

        costs = list(draw.per_cost(mean, lambda cost: jnp.mean(cost, axis=0), results.costs))
        if points.baseline is not None and not isinstance(points.baseline, str):
            mean_weight = jnp.mean(unit_weight(points.log_weights), axis=0)
            self._run.subtract_baseline(costs, draw.site, mean_weight, points.baseline)
        aux, undrawn = jax.tree.map(lambda a: a[0], (results.aux, results.undrawn))
        return Result(tuple(costs), aux, undrawn)

    def _weighted(self, draw: Draw, points: WeightedPoints | Reweighted) -> Result:
        """Sum over weighted points."""
        n = len(points.weights)
        mixed = draw.mixed_axes
        # Along axes that some cost mixes the points are joint: the weight of a point is the product over those axes.
        weights = _mesh.product(points.weights, [1 + k for k in mixed])
        results = jax.vmap(self._times(n))(points.points)

        def total(relation: Relation, cost: Array) -> Array:
            apart = tuple(window for k, window in enumerate(relation) if k not in mixed)
            shape = cost.shape[1:]
            # Entries that depend on no draw (padding, shifts) are the same at every point.
            covered = bring(jnp.ones(weights.shape[1:]), apart, shape) > 0
            weight = jnp.where(covered, bring_each(weights, apart, shape), 1 / n).astype(cost.dtype)
            if isinstance(points, WeightedPoints):
                # What cannot be drawn may cost anything: `-log p(x)` of a masked class is infinite.
                finite = jnp.where((weight == 0) & ~jnp.isfinite(cost), 0, cost)
                return jnp.sum(finite * weight, axis=0)
            own = unit_weight(bring_each(points.log_weights, relation, shape).astype(cost.dtype))
            weighted = cost * own
            if points.mixing is not None:
                mixing = bring_each(jnp.squeeze(points.mixing, axis=[2 + k for k in mixed]), apart, shape)
                weighted += (1 - own) * jnp.sum(stop(mixing.astype(cost.dtype) * cost[None]), axis=1)
            return jnp.sum(stop(weight) * weighted, axis=0)

        costs = draw.per_cost(total, lambda cost: cost[0], results.costs)
        aux = self.simulate(draw.sample()).aux if results.aux else ()
        return Result(costs, aux, jax.tree.map(lambda a: a[0], results.undrawn))

    def _signed(self, draw: Draw, points: SignedPoints) -> Result:
        """The rest at the value point, plus signed differences that are zero in value."""
        result = self(points.value)
        masks = draw.on_plates(jnp.ones((1, *draw.plates), bool), 1) if points.joint else draw.entries_apart()
        n, decision = len(points.coefficients), points.decision
        every_order = points.log_weight is not None
        # Also where the author left their values.
        coefficients = points.coefficients if every_order else zero_with_derivative_of(points.coefficients)
        rest = self._times(len(masks) * n)

        def one(
            mask: Array, point: Any, coefficient: Array, side: Array | None, reach: Array | None
        ) -> tuple[Array, ...]:
            def perturbed(leaf: Array, base: Array) -> Array:
                return jnp.where(expand_right(mask, leaf.ndim), leaf, base)

            moved_rest = rest if decision is None else rest._deciding(decision.at(side, reach))
            costs = moved_rest.simulate(jax.tree.map(perturbed, stop(point), stop(points.value))).costs
            if points.relative:
                costs = [moved - own for moved, own in zip(costs, result.costs, strict=True)]
            return draw.signed_terms(jnp.where(mask, coefficient, 0), costs, every_order=every_order)

        sides = (None, None) if decision is None else (decision.side, decision.reach)
        of_points = (points.points, coefficients, *sides)
        if points.chunk_size is None:
            each = jax.vmap(jax.vmap(one, (None, 0, 0, 0, 0)), (0, *[None] * 4))(masks, *of_points)
            each = [jnp.sum(term, axis=1) for term in each]
        else:

            def pair(index: Array) -> tuple[Array, ...]:
                return one(masks[index // n], *jax.tree.map(lambda of_all: of_all[index % n], of_points))

            each = jax.lax.map(pair, jnp.arange(len(masks) * n), batch_size=points.chunk_size)
        costs = self._by_score(draw, points, result.costs) if every_order else result.costs
        costs = [cost + jnp.sum(term, axis=0) for cost, term in zip(costs, each, strict=True)]
        return result._replace(costs=tuple(costs))

    def _by_score(self, draw: Draw, points: SignedPoints, costs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Costs with the derivatives of the score, without the first one in the parameters of the draw."""

        log_weight, slope = points.log_weight, points.slope
        assert log_weight is not None and slope is not None

        def credited(relation: Relation, cost: Array) -> Array:
            weight = unit_weight(bring(log_weight, relation, cost.shape).astype(cost.dtype))
            return cost * weight - stop(cost) * bring(slope, relation, cost.shape).astype(cost.dtype)

        return draw.per_cost(credited, lambda cost: cost, costs)
