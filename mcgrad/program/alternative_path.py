"""One perturbed path beside the real one through a `scan`, for estimators whose alternatives change the later steps.

Each draw of each step could have taken another value; following all of them would cost a simulation each. Instead one
alternative state is carried beside the real one, chosen among all steps so far in proportion to the size of what they
contribute (*pruning*, Arya et al. 2022), with the total size `W` of all that it was chosen from. A cost `c` gets the term

    W * (dc_s / size_s) * (c(alternative) - c(real))

where `s` is the chosen step: so the derivative that is carried is that of one coefficient, and reverse mode serves any
number of parameters. Both paths use the same keys. Once the alternative has merged with the real state, a new one begins:
its own differences stay in the costs of the steps between (*banked*); dropping them would be a bias.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _compat
from mcgrad.program.costs import expand_right
from mcgrad.program.dependence import marked_dependence
from mcgrad.program.estimator import Estimator, signed_term
from mcgrad.program.notes import Note, Notes, Recorded
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value

if TYPE_CHECKING:
    from mcgrad.program.interpret import Interpreter, Result

stop = jax.lax.stop_gradient


def can_follow(equation: Equation, needing_rest: Mapping[Site, Estimator]) -> bool:
    """Whether all draws of a `scan` that need the rest of the program follow alternatives, in its own steps."""
    if equation.eqn.primitive is not _compat.scan_p:
        return False
    inner = {e for body in equation.bodies for e in body.everything()}
    inside = {site: estimator for site, estimator in needing_rest.items() if site.equation in inner}
    return all(e.follows_alternatives and site.loops[-1] is equation for site, e in inside.items())


class Reach(NamedTuple):
    """How the costs of a program read a `scan`.

    Attributes:
        by_step: for the costs whose entry `t` along an axis reads step `t` only, that axis.
        separate: whether all other costs read nothing but the carry after the last step.
    """

    by_step: Mapping[Value, int]
    separate: bool


def reach_of(program: Program, equation: Equation, costs: Sequence[Value]) -> Reach:
    """How costs read the results of a `scan`."""
    steps, last = marked_dependence(program, equation, costs)
    by_step = {
        cost: window.axis
        for cost, window in steps.items()
        if isinstance(window.axis, int) and (window.low, window.high) == (0, 0) and cost not in last
    }
    return Reach(by_step, separate=len(by_step) == len(steps))


def follow(
    run: Interpreter, equation: Equation, operands: Sequence[Any], then: Callable[[Interpreter, list[Any]], Result]
) -> Result:
    """Run a `scan` with one alternative path beside it, and go on with both."""
    reach = run.plan.reach[equation]
    real, other, notes, coefficients = _simulate(run, equation, operands, bank=reach.separate)
    result = then(run, real)
    others = then(dataclasses.replace(run, plain=True), other)
    costs = []
    for value, cost, moved in zip(run.plan.split.costs, result.costs, others.costs, strict=True):
        if value in reach.by_step and reach.separate:
            coefficient = expand_right(coefficients, cost.ndim - reach.by_step[value])
        else:
            coefficient = coefficients[0 if equation.eqn.params["reverse"] else -1]
        coefficient = jnp.broadcast_to(coefficient, cost.shape).astype(cost.dtype)
        costs.append(cost + signed_term(coefficient, moved - cost))
    return run.credit(result._replace(costs=tuple(costs)), notes)


def _simulate(
    run: Interpreter, equation: Equation, operands: Sequence[Any], *, bank: bool
) -> tuple[list[Any], list[Any], list[Note], Array]:
    """The results of the `scan`, those of the alternative, the notes of other draws, and a coefficient for each step."""
    params = equation.eqn.params
    num_consts, num_carry = _compat.scan_split(equation.eqn)
    consts, xs = operands[:num_consts], list(operands[num_consts + num_carry :])
    first = list(operands[num_consts : num_consts + num_carry])
    (body,) = equation.bodies
    kept = Notes()

    def step(state: Any, x: Any) -> Any:
        carry, other, size_before = state
        outs, notes = dataclasses.replace(run, recording=True).body(body, [*consts, *carry, *x])
        choice = _Choice([note for note in notes if isinstance(note, Recorded)], size_before)
        branch = [jnp.where(choice.taken, a, b) for a, b in zip(carry, other, strict=True)]
        beside = dataclasses.replace(run, plain=True, moved=choice.moved())
        moved, _ = beside.body(body, stop([*consts, *branch, *x]))
        merged = _same(outs[:num_carry], moved[:num_carry]) if bank else jnp.zeros((), bool)
        goes_on = [jnp.where(merged, a, b) for a, b in zip(outs[:num_carry], moved[:num_carry], strict=True)]
        row = _Row(choice.taken, merged, choice.size, choice.coefficient)
        weights = kept.arrays([note for note in notes if not isinstance(note, Recorded)])
        state = (outs[:num_carry], stop(goes_on), jnp.where(merged, 0, choice.size))
        return state, (row, outs[num_carry:], stop(moved[num_carry:]), weights)

    size = jnp.zeros((), jnp.result_type(float))
    (last, other, _), (rows, stacked, others, weights) = jax.lax.scan(
        step,
        (first, stop(first), size),
        xs,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    followed, coefficients = _coefficients(rows, params["reverse"])
    # Before the step that was chosen the alternative is the real path.
    others = [
        jnp.where(expand_right(followed, real.ndim), moved, stop(real))
        for real, moved in zip(stacked, others, strict=True)
    ]
    return [*last, *stacked], [*other, *others], kept.notes(weights), coefficients


class _Row(NamedTuple):
    """One step: whether its alternative was taken, whether the paths merged, the total size, its own coefficient."""

    taken: Array
    merged: Array
    size: Array
    coefficient: Array


def _coefficients(rows: _Row, reverse: bool) -> tuple[Array, Array]:
    """For each step, whether the alternative that was followed to the end of its stretch had begun, and its coefficient.

    A stretch ends where the paths merge. All of it has the total size at its end, and the alternative taken last.
    """
    if reverse:
        rows = _Row(*(jnp.flip(row, 0) for row in rows))
    steps = jnp.arange(len(rows.taken))
    end = jax.lax.cummin(jnp.where(rows.merged, steps, len(steps) - 1), reverse=True)
    chosen = jax.lax.cummax(jnp.where(rows.taken, steps, -1))[end]
    size = stop(rows.size)[end]
    followed = (steps >= chosen) & (chosen >= 0) & (size > 0)
    coefficients = jnp.where(followed, size * rows.coefficient[chosen], 0)
    return (jnp.flip(followed), jnp.flip(coefficients)) if reverse else (followed, coefficients)


_ROUNDING = 16
"""Units in the last place, relative to the largest entry, by which two states may differ and count as one."""


def _same(real: Sequence[Any], other: Sequence[Any]) -> Array:
    """Whether two states are the same up to rounding."""

    def close(a: Any, b: Any) -> Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jnp.all(jax.random.key_data(a) == jax.random.key_data(b))
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return jnp.all(a == b)
        allowed = _ROUNDING * jnp.finfo(a.dtype).eps * jnp.max(jnp.abs(a), initial=0)
        return jnp.all((a == b) | (jnp.abs(a - b) <= allowed))

    return jnp.stack([jnp.asarray(True), *(close(stop(a), b) for a, b in zip(real, other, strict=True))]).all()


class _Choice:
    """One alternative among those of a step and the one carried so far, in proportion to their sizes."""

    def __init__(self, recorded: Sequence[Recorded], size_before: Array):
        self.recorded = recorded
        sizes = stop(jnp.concatenate([r.alternatives.sizes.ravel() for r in recorded]))
        here = jnp.sum(sizes)
        self.size = size_before + here.astype(size_before.dtype)
        # One random number serves both choices: below the share of this step it is taken, and where says which.
        uniform = stop(sum(r.uniform for r in recorded)) % 1
        position = uniform * self.size
        self.taken = position < here
        self.index = jnp.clip(jnp.searchsorted(jnp.cumsum(sizes), position, side="right"), 0, sizes.size - 1)
        coefficients = jnp.concatenate([r.alternatives.coefficients.ravel() for r in recorded])
        size = sizes[self.index]
        self.coefficient = coefficients[self.index] / jnp.where(size > 0, size, 1)

    def moved(self) -> dict[Site, tuple[Array, Any]]:
        """By site, where the chosen alternative differs from the draw, and its values."""
        found: dict[Site, tuple[Array, Any]] = {}
        begin = 0
        for r in self.recorded:
            shape, size = r.alternatives.sizes.shape, r.alternatives.sizes.size
            chosen = (jnp.arange(begin, begin + size).reshape(shape) == self.index) & self.taken
            begin += size
            which = jnp.argmax(chosen, axis=0, keepdims=True)
            values = jax.tree.map(
                lambda leaf, w=which: jnp.take_along_axis(leaf, expand_right(w, leaf.ndim), axis=0)[0],
                stop(r.alternatives.values),
            )
            found[r.site] = (jnp.any(chosen, axis=0), values)
        return found
