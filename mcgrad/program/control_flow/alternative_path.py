"""One perturbed path beside the real one through a `scan`, for estimators whose alternatives change the later steps.

Each draw of each step could have taken another value; following all of them would cost one simulation each. Instead, one
alternative state is carried beside the real one. It is chosen among all steps so far, in proportion to the size of their
contributions (*pruning*, Arya et al. 2022); `W` is the total size of all that it was chosen from. A cost `c` gets the term

    W * (dc_s / size_s) * (c(alternative) - c(real))

where `s` is the chosen step: so the derivative that is carried is that of one coefficient, and reverse mode serves any
number of parameters. Both paths use the same keys; a continuous draw may follow another coupling, by which two paths that
once differ meet (`Estimator.couple`). Once the alternative has merged with the real state, a new one begins: its own
differences stay in the costs of the steps between (*banked*); dropping them would be a bias. `W` of a cost that reads one
step is that of this step: given all that came before it, the mean of what a later choice would give.

Where an estimator compares its alternatives with something else than the draw (`Alternatives.against`), what the chosen one is
compared with is carried as a third state: `c(real)` above is then the cost of that one, and the two others may merge.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._arguments import check_key, is_key, is_old_key
from mcgrad.program.bring import expand_right
from mcgrad.program.draw import Draw, fold_in
from mcgrad.program.estimator import Result
from mcgrad.program.made_of import MadeOf
from mcgrad.program.run import Run
from mcgrad.program.site import Site
from mcgrad.program.structure import CheckpointView, ScanView, form_of
from mcgrad.program.surrogates import signed_term
from mcgrad.program.thresholds import Crossings, Decision
from mcgrad.program.trace import Constant, Equation, Program, Value
from mcgrad.program.weights import Coupled, Record, Recorded

stop = jax.lax.stop_gradient


def follow(run: Run, scan: ScanView, operands: Sequence[Any], then: Callable[[Run, list[Any]], Result]) -> Result:
    """Run a `scan` with one alternative path beside it, and go on with both."""
    reach = run.plan.reach[scan.equation]
    real, paths, records, coefficients = _simulate(run, scan, operands, bank=reach.separate)
    result = then(run, real)
    other, *base = [then(run.but(plain=True), path) for path in paths]
    compared = base[0].costs if base else result.costs
    costs = []
    for value, cost, moved, against in zip(run.plan.split.costs, result.costs, other.costs, compared, strict=True):
        if value in reach.by_step and reach.separate:
            coefficient = expand_right(coefficients, cost.ndim - reach.by_step[value])
        else:
            coefficient = coefficients[0 if scan.reverse else -1]
        coefficient = jnp.broadcast_to(coefficient, cost.shape).astype(cost.dtype)
        costs.append(cost + signed_term(coefficient, moved - against))
    return run.credit(result._replace(costs=tuple(costs)), records)


def _simulate(
    run: Run, scan: ScanView, operands: Sequence[Any], *, bank: bool
) -> tuple[list[Any], list[list[Any]], list[Record], Array]:
    """The results of the `scan`, those of the alternative and, in pairs, of what it is compared with, the records of other
    draws, and a coefficient for each step.
    """
    consts, first, xs = scan.split(operands)
    num_carry, body = scan.num_carry, scan.body
    of_consts, _, of_rows = scan.split(body.inputs)
    known: dict[Value, tuple[Any, int | None]] = {}
    known.update({value: (found, None) for value, found in _invariant(run, body, consts).items()})
    known.update(zip(of_rows, [(value, 0) for value in xs], strict=True))
    always = frozenset(_always(body))
    inside = frozenset(body.everything())
    paired = any(e.pairs for site, e in run.plan.estimators.items() if site.equation in inside)

    def step(state: Any, inputs: Any) -> Any:
        (carry, paths, size_before), (x, uniform) = state, inputs
        outs, records = run.but(recording=always).body(body, [*consts, *carry, *x])
        recorded = [record for record in records if isinstance(record, Recorded)]
        beside = {record.site: stop(record) for record in records if isinstance(record, Coupled)}
        merged = _same(paths[1] if paired else carry, paths[0]) if bank else jnp.zeros((), bool)
        choice = _Choice(recorded, jnp.where(merged, 0, size_before), uniform)

        def after(path: Sequence[Any], side: int) -> list[Any]:
            branch = [jnp.where(choice.taken, a, b) for a, b in zip(carry, path, strict=True)]
            other = run.but(plain=True, moved=choice.moved(side), beside=beside, decision=choice.decision(side))
            again = [jax.random.clone(value) if is_key(value) else stop(value) for value in (*consts, *branch, *x)]
            return stop(other.body(body, again)[0])

        moved = [after(path, side) for path, side in zip(paths, _SIDES, strict=False)]
        weights = [record for record in records if not isinstance(record, (Recorded, Coupled))]
        state = (outs[:num_carry], [path[:num_carry] for path in moved], choice.size)
        row = _Row(choice.index, choice.size)
        draws = [_without_known(record, known) for record in recorded]
        return state, (row, draws, outs[num_carry:], [path[num_carry:] for path in moved], weights)

    size = jnp.zeros((), jnp.result_type(float))
    uniforms = jax.random.uniform(_own_key(run, scan.equation, operands), (scan.length,), size.dtype)
    start = (first, [stop(first)] * (2 if paired else 1), size)
    (last, paths, _), (rows, draws, stacked, others, weights) = scan.loop(step, start, (xs, uniforms))
    by_site = [_coefficients_of(run, draw, known) for draw in draws]
    followed, coefficients = _followed(rows, jnp.concatenate(by_site, axis=1), reverse=scan.reverse, bank=bank)

    def rows_of(path: Sequence[Array]) -> list[Array]:
        # Before the step that was chosen the alternative is the real path.
        pairs = zip(stacked, path, strict=True)
        return [jnp.where(expand_right(followed, real.ndim), moved, stop(real)) for real, moved in pairs]

    results = [[*end, *rows_of(path)] for end, path in zip(paths, others, strict=True)]
    return [*last, *stacked], results, weights, coefficients


_SIDES = (-1, 1)
"""Of the alternative, and of what it is compared with: on which side of a threshold they are, if it is that of a comparison."""


_Known: TypeAlias = "Mapping[Value, tuple[Any, int | None]]"
"""Values of the body that are at hand after the `scan`, with their time axis."""


def _invariant(run: Run, body: Program, consts: Sequence[Any]) -> dict[Value, Any]:
    """The values of the body that are the same in every step."""
    found = dict(zip(body.inputs, consts, strict=False))
    for equation in body.equations:
        same = all(v in found or isinstance(v, Constant) for v in equation.inputs)
        if same and equation not in run.plan.random and not equation.eqn.effects:
            outs = equation.evaluate(lambda v: v.value if isinstance(v, Constant) else found[v])
            found.update(zip(equation.outputs, outs, strict=True))
    return found


def _without_known(record: Recorded, known: _Known) -> Recorded:
    """The part of a record that must be stacked: the draw, and the operands of the site that are not available after the `scan`."""
    inputs = zip(record.site.equation.inputs, record.operands, strict=True)
    # a key is that of this run, which replicates of an earlier draw fold their index into
    operands = tuple(x if is_key(x) or _source(value, known) is None else None for value, x in inputs)
    return dataclasses.replace(record, operands=operands, alternatives=None)


def _source(value: Value, known: _Known) -> tuple[Any, int | None] | None:
    return (value.value, None) if isinstance(value, Constant) else known.get(value)


def _coefficients_of(run: Run, record: Recorded, known: _Known) -> Array:
    """The coefficients of a site's alternatives over their sizes, `[steps, alternatives]`.

    Computed for all steps at once after the `scan`, so that the derivative of the `scan` need not carry them.
    """
    stacked = zip(record.site.equation.inputs, record.operands, strict=True)
    sources = [(x, 0) if x is not None else _source(value, known) or (x, 0) for value, x in stacked]

    def one(x: Any, crossings: Crossings | None, *operands: Any) -> Array:
        draw = Draw(record.site, operands, replicates=run.replicates, crossings=crossings)
        found = run.estimator(draw).alternatives(draw, x)
        sizes = stop(found.sizes)
        return (found.coefficients / jnp.where(sizes > 0, sizes, 1)).ravel()

    axes = (0, 0, *(axis for _, axis in sources))
    return jax.vmap(one, axes)(stop(record.x), record.crossings, *(value for value, _ in sources))


_CHOICE = 0x5EED
"""Folded into a key of the `scan` for the choices among alternatives."""


def _own_key(run: Run, equation: Equation, operands: Sequence[Any]) -> Array:
    """A key for the choices among alternatives, derived from a key that enters the `scan`."""
    for operand, value in zip(operands, equation.bodies[0].inputs, strict=True):
        if (key := _first_key(run, equation, operand, value)) is not None:
            for index in (*run.folds, _CHOICE):
                key = fold_in(key, index)
            return key
    raise NotImplementedError(
        f"The `scan` at {equation.line} makes its keys itself, so none is at hand for the choice of an alternative path. "
        "Scan over `jax.random.split(key, num_steps)`, or use `mcgrad.Score()`."
    )


def _first_key(run: Run, equation: Equation, operand: Any, value: Value) -> Array | None:
    """The first key in an operand of a `scan`, `value` in its body; of the old style only what a draw makes its own key of."""
    if is_key(operand):
        return operand.ravel()[0]
    if value.dtype != jnp.uint32 or not jnp.size(operand):
        return None
    row = jnp.asarray(operand)[(0,) * (jnp.ndim(operand) - 1)]
    if not is_old_key(row):
        return None
    made = MadeOf()
    made.run(body := equation.bodies[0], [other is value for other in body.inputs])
    uses = any(site.equation in made.seen and made.of(site.key) for site in run.plan.analysis.sites.values())
    return check_key(row, "sample") if uses else None


class _Row(NamedTuple):
    """One step: which alternative was taken (-1: none), and the total size."""

    index: Array
    size: Array


def _followed(rows: _Row, coefficients: Array, *, reverse: bool, bank: bool) -> tuple[Array, Array]:
    """For each step: whether the alternative that counts there has branched off already, and its coefficient.

    It is the one that is carried at this step if differences are banked, else the one that is carried at the end.
    """
    if reverse:
        rows, coefficients = _Row(*(jnp.flip(row) for row in rows)), jnp.flip(coefficients, 0)
    steps = jnp.arange(len(rows.index))
    taken = jax.lax.cummax(jnp.where(rows.index >= 0, steps, -1))
    chosen, size = (taken, rows.size) if bank else (taken[-1], rows.size[-1])
    size = stop(size)
    followed = (steps >= chosen) & (chosen >= 0) & (size > 0)
    found = jnp.where(followed, size * coefficients[chosen, rows.index[chosen]], 0)
    return (jnp.flip(followed), jnp.flip(found)) if reverse else (followed, found)


def _always(body: Program) -> Iterator[Equation]:
    """The equations that each step runs once: not those in branches or in loops of their own."""
    for equation in body.equations:
        yield equation
        if isinstance(form_of(equation), CheckpointView):
            yield from _always(equation.bodies[0])


_ROUNDING = 16
"""Units in the last place, relative to the largest entry, by which two states may differ and count as one."""


def _same(real: Sequence[Any], other: Sequence[Any]) -> Array:
    """Whether two states are the same up to rounding."""

    def close(a: Any, b: Any) -> Array:
        if is_key(a):
            return jnp.all(jax.random.key_data(a) == jax.random.key_data(b))
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return jnp.all(a == b)
        allowed = _ROUNDING * jnp.finfo(a.dtype).eps * jnp.max(jnp.abs(a), initial=0)
        return jnp.all((a == b) | (jnp.abs(a - b) <= allowed))

    same = jnp.asarray(True)
    for a, b in zip(real, other, strict=True):
        same &= close(stop(a), b)
    return same


class _Choice:
    """One alternative among those of a step and the one carried so far, in proportion to their sizes.

    Attributes:
        size: of all that it was chosen from, since the paths last merged.
        taken: whether it is one of this step.
        index: which one, counted over all sites; -1 if none.
    """

    def __init__(self, recorded: Sequence[Recorded], size_before: Array, uniform: Array):
        self.recorded = recorded
        sizes = jnp.concatenate([r.alternatives.sizes.ravel().astype(size_before.dtype) for r in recorded])
        if sizes.size <= _FEW:  # in scalars, so that the compiler makes a small step of them
            *ends, here = itertools.accumulate(sizes)
        else:
            cumulative = jnp.cumsum(sizes)
            ends, here = [cumulative[:-1]], cumulative[-1]
        self.size = size_before + here
        # One random number serves both choices: below the share of this step it is taken, and where says which.
        position = uniform * self.size
        self.taken = position < here
        passed = sum((jnp.sum(position >= end, dtype=jnp.int32) for end in ends), start=jnp.int32(0))
        self.index = jnp.where(self.taken, passed, jnp.int32(-1))

        ends_of = list(itertools.accumulate(r.alternatives.sizes.size for r in recorded))
        self._begins = [0, *ends_of]

    def _chosen(self) -> Iterator[tuple[Recorded, Array]]:
        """The records, each with which of its alternatives is the chosen one, `[n, *plates]`."""
        for begin, record in zip(self._begins, self.recorded, strict=False):
            sizes = record.alternatives.sizes
            yield record, jnp.arange(begin, begin + sizes.size, dtype=jnp.int32).reshape(sizes.shape) == self.index

    def moved(self, side: int) -> dict[Site, tuple[Array, Any]]:
        """By site, where the chosen alternative differs from the draw, and its values, or what it is compared with."""
        found: dict[Site, tuple[Array, Any]] = {}
        for record, chosen in self._chosen():
            values = record.alternatives.values if side == _SIDES[0] else record.alternatives.against
            if values is None:
                continue

            def select(leaf: Array, chosen: Array = chosen) -> Array:
                value = leaf[0]
                for here, other in zip(chosen[1:], leaf[1:], strict=True):
                    value = jnp.where(expand_right(here, value.ndim), other, value)
                return value

            found[record.site] = (jnp.any(chosen, axis=0), jax.tree.map(select, values))
        return found

    def decision(self, side: int) -> Decision | None:
        """How comparisons at the chosen threshold turn out, if it is one."""
        slopes: dict[Equation, Array] = {}
        for record, chosen in self._chosen():
            crossings = record.crossings
            if crossings is not None:
                reach = jnp.sum(jnp.where(chosen, stop(crossings.reaches(record.x)), 0), axis=0)
                slopes.update(zip(crossings.equations, crossings.slopes * reach[None], strict=True))
        return Decision(slopes, side, jnp.ones(())) if slopes else None


_FEW = 16
