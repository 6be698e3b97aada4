"""Draws inside control flow: loops, branches and checkpoints rebuilt with `jax.lax` around their weights.

Where all draws of a body are local, the loop, branch or checkpoint is rebuilt with the log weights of its draws as
further outputs: stacked by `scan`, summed by `while_loop`, zero for the branches of `cond` that were not taken. Where an
estimator needs the rest of the program, the body becomes part of it: a checkpoint is entered, a branch goes on
with the rest inside `switch`, a `scan` is unrolled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program import alternative_path
from mcgrad.program.notes import Note, Notes, Weight
from mcgrad.program.site import sample_p
from mcgrad.program.trace import Constant, Equation, Program

if TYPE_CHECKING:
    from mcgrad.program.interpret import Environment, Interpreter, Result

MAX_UNROLLED_STEPS = 32
"""Steps of a `scan` that are unrolled for estimators that need the rest of the program."""


def has_site(program: Program) -> bool:
    """Whether a program draws, in a body of control flow included."""
    return any(equation.eqn.primitive is sample_p for equation in program.everything())


def check_supported(program: Program) -> None:
    """Refuse draws inside primitives that cannot be rebuilt."""
    for equation in program.everything():
        if equation.bodies and equation.eqn.primitive not in _SUPPORTED and any(map(has_site, equation.bodies)):
            site = next(e for body in equation.bodies for e in body.everything() if e.eqn.primitive is sample_p)
            reason = (
                "a custom derivative rule does not see the draw"
                if "custom" in equation.name
                else "it cannot be rebuilt"
            )
            raise NotImplementedError(
                f"mcgrad cannot differentiate the draw at {site.line}, inside `{equation.name}` at {equation.line}: "
                f"{reason}. Draw outside of it and pass the value in."
            )


def holds(equation: Equation, wanted: Container[Equation]) -> bool:
    """Whether control flow that can be rebuilt has one of these operations in its bodies."""
    inner = [e for body in equation.bodies for e in body.equations] if equation.eqn.primitive in _SUPPORTED else []
    return any(e in wanted or holds(e, wanted) for e in inner)


def run_local(run: Interpreter, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
    """Control flow whose draws are all local: its outputs, and the weights of the draws."""
    return _LOCAL[equation.eqn.primitive](run, equation, operands)


def _checkpoint(run: Interpreter, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
    kept = Notes()

    def body(*inputs: Any) -> Any:
        outs, weights = run.body(equation.bodies[0], inputs)
        return outs, kept.arrays(weights)

    params = equation.eqn.params
    outs, arrays = jax.checkpoint(body, policy=params["policy"], prevent_cse=params["prevent_cse"])(*operands)
    return outs, kept.notes(arrays)


def _scan(run: Interpreter, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
    num_consts, num_carry = _compat.scan_split(equation.eqn)
    params = equation.eqn.params
    consts, carry, xs = (
        operands[:num_consts],
        operands[num_consts : num_consts + num_carry],
        operands[num_consts + num_carry :],
    )
    kept = Notes()

    def step(carry: list[Any], x: list[Any]) -> Any:
        outs, weights = run.body(equation.bodies[0], [*consts, *carry, *x])
        return outs[:num_carry], (outs[num_carry:], kept.arrays(weights))

    last, (stacked, arrays) = jax.lax.scan(
        step, list(carry), list(xs), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*last, *stacked], kept.notes(arrays)


def _cond(run: Interpreter, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
    index, *inputs = operands
    kept = [Notes() for _ in equation.bodies]

    # Every branch gives the weights of all branches: its own, and zeros for the draws that it does not make.
    def own(b: int) -> Callable[..., Any]:
        def branch(*inputs: Any) -> Any:
            outs, weights = run.body(equation.bodies[b], inputs)
            return outs, kept[b].arrays(weights)

        return branch

    shapes = [jax.eval_shape(own(b), *inputs)[1] for b in range(len(equation.bodies))]

    def padded(b: int) -> Callable[..., Any]:
        def branch(*inputs: Any) -> Any:
            outs, mine = own(b)(*inputs)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return outs, [mine if c == b else zeros[c] for c in range(len(shapes))]

        return branch

    outs, arrays = jax.lax.switch(index, [padded(b) for b in range(len(shapes))], *inputs)
    return outs, [w for one, values in zip(kept, arrays, strict=True) for w in one.notes(values)]


def _while(run: Interpreter, equation: Equation, operands: Sequence[Any]) -> tuple[list[Any], list[Note]]:
    params = equation.eqn.params
    num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = equation.bodies
    cond_consts, body_consts = operands[:num_cond], operands[num_cond : num_cond + num_body]
    carry = list(operands[num_cond + num_body :])
    if has_site(cond):
        raise NotImplementedError(
            f"mcgrad cannot differentiate a draw inside the condition of the `while_loop` at {equation.line}. Draw in "
            "the body and carry the value."
        )
    kept = Notes()

    def once(carry: list[Any]) -> Any:
        outs, weights = run.body(body, [*body_consts, *carry])
        return outs, [(log_weight, control) for log_weight, _, control in kept.arrays(weights)]

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(once, carry)[1])
    weights = [note for note in kept.found if isinstance(note, Weight)]
    if any(w.baseline is not None and not isinstance(w.baseline, str) for w in weights):
        raise NotImplementedError(
            f"`mcgrad.Score(baseline=array)` is not available inside the `while_loop` at {equation.line}: its draws "
            "have no time axis to subtract it along. Use `mcgrad.Score(baseline=None)`, or a `scan` with a bound."
        )

    def step(state: Any) -> Any:
        carry, totals = state
        outs, found = once(carry)
        return outs, jax.tree.map(jnp.add, totals, found)

    outs, totals = jax.lax.while_loop(lambda s: run.body(cond, [*cond_consts, *s[0]])[0][0], step, (carry, zeros))
    message = (
        f"JAX has no reverse mode through the `while_loop` at {equation.line}, so `jax.grad` cannot differentiate it. Use "
        "`jax.jvp` or `jax.jacfwd` of `mcgrad.expectation(program)`, or a `scan` with a bound on the number of steps."
    )
    outs = [_forward_only(x, message) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in outs]
    totals = jax.tree.map(lambda total: _forward_only(total, message), totals)
    return outs, kept.notes([(log_weight, None, control) for log_weight, control in totals])


_forward_only = _compat.new_forward_only("mcgrad_forward_only")


_LOCAL: dict[Any, Callable[..., Any]] = {
    _compat.checkpoint_p: _checkpoint,
    _compat.scan_p: _scan,
    _compat.cond_p: _cond,
    _compat.while_p: _while,
}
_SUPPORTED = frozenset(_LOCAL)


def check_continuation(equation: Equation, estimator: str) -> None:
    """Refuse control flow that cannot be made part of the rest of the program."""
    primitive = equation.eqn.primitive
    if primitive is _compat.while_p:
        raise NotImplementedError(
            f"`mcgrad.{estimator}` needs the rest of the program, which the `while_loop` at {equation.line} does not "
            "give. Use `mcgrad.Score()` or `mcgrad.Pathwise()` for the draws inside it, or a `scan` with a bound."
        )
    if primitive is _compat.scan_p and equation.eqn.params["length"] > MAX_UNROLLED_STEPS:
        raise NotImplementedError(
            f"`mcgrad.{estimator}` needs the rest of the program, so the `scan` of {equation.eqn.params['length']} steps "
            f"at {equation.line} would have to be unrolled; the limit is {MAX_UNROLLED_STEPS} steps. Use "
            "`mcgrad.Score()` or `mcgrad.Pathwise()` for the draws inside it."
        )


def continue_into(run: Interpreter, equation: Equation, env: Environment, resume: Any) -> Result:
    """Control flow with a draw whose estimator needs the rest: the body becomes part of the program."""

    def read(value: Any) -> Any:
        return value.value if isinstance(value, Constant) else env[value]

    def then(run: Interpreter, outs: list[Any]) -> Result:
        return resume(run, {**env, **dict(zip(equation.outputs, outs, strict=True))})

    operands = [read(v) for v in equation.inputs]
    primitive = equation.eqn.primitive
    if primitive is _compat.checkpoint_p:
        return run.inline(equation.bodies[0], operands, env, then)
    if primitive is _compat.cond_p:
        index, *inputs = operands
        branches = [lambda body=body: run.inline(body, inputs, env, then) for body in equation.bodies]
        return jax.lax.switch(index, branches)
    if equation in run.plan.reach:
        return alternative_path.follow(run, equation, operands, then)
    return _unrolled(run, equation, operands, env, then)


def _unrolled(run: Interpreter, equation: Equation, operands: Sequence[Any], env: Environment, then: Any) -> Result:
    num_consts, num_carry = _compat.scan_split(equation.eqn)
    length, reverse = equation.eqn.params["length"], equation.eqn.params["reverse"]
    consts, xs = operands[:num_consts], operands[num_consts + num_carry :]
    order = list(range(length))[:: -1 if reverse else 1]

    def steps(run: Interpreter, done: int, carry: Sequence[Any], rows: list[list[Any]]) -> Result:
        if done == length:
            ordered = rows[::-1] if reverse else rows
            # The same scan may come again, in the next step of one around it, and then be run as a loop.
            after = dataclasses.replace(run, steps={e: t for e, t in run.steps.items() if e is not equation})
            return then(after, [*carry, *(jnp.stack(column) for column in zip(*ordered, strict=True))])
        x = [leaf[order[done]] for leaf in xs]

        def next_step(run: Interpreter, outs: list[Any]) -> Result:
            return steps(run, done + 1, outs[:num_carry], [*rows, outs[num_carry:]])

        here = dataclasses.replace(run, steps={**run.steps, equation: order[done]})
        return here.inline(equation.bodies[0], [*consts, *carry, *x], env, next_step)

    return steps(run, 0, operands[num_consts : num_consts + num_carry], [])
