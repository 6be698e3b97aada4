"""Values of a program at any point, where loops may not end: a `while_loop` stops after a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program.bring import expand_right
from mcgrad.program.structure import ScanView, form_of
from mcgrad.program.trace import Constant, Equation, Program, Value

MOST_STEPS = 1000
"""Steps after which a `while_loop` is stopped: solvers that converge take fewer."""


def evaluate(equation: Equation, read: Callable[[Value], Any]) -> list[Any]:
    """The results of an operation; those of a loop that was stopped are no numbers."""
    inner = (e for body in equation.bodies for e in body.everything())
    if all(e.eqn.primitive is not _compat.while_p for e in (equation, *inner)):
        return equation.evaluate(read)
    operands = [read(value) for value in equation.inputs]
    match equation.eqn.primitive:
        case _compat.while_p:
            return _while(equation, operands)
        case _compat.scan_p:
            view = ScanView(equation)
            consts, carry, rows = view.split(operands)

            def step(state: list[Any], row: list[Any]) -> Any:
                outs = _run(view.body, [*consts, *state, *row])
                return outs[: view.num_carry], outs[view.num_carry :]

            last, stacked = view.loop(step, carry, rows)
            return [*last, *stacked]
        case _compat.cond_p:
            branches = [lambda *xs, body=body: _run(body, xs) for body in equation.bodies]
            return jax.lax.switch(operands[0], branches, *operands[1:])
    body = equation.bodies[0]
    return _run(body, operands) if len(body.inputs) == len(operands) else equation.evaluate(read)


def _run(program: Program, inputs: Sequence[Any]) -> list[Any]:
    env = dict(zip(program.inputs, inputs, strict=True))

    def read(value: Value) -> Any:
        return value.value if isinstance(value, Constant) else env[value]

    for equation in program.equations:
        env.update(zip(equation.outputs, evaluate(equation, read), strict=True))
    return [jnp.asarray(read(value)) for value in program.outputs]


def _while(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    form: Any = form_of(equation)
    of_condition, of_body, carry = form.split(operands)

    def going_on(state: Any) -> Any:
        return _run(form.condition, [*of_condition, *state[1]])[0]

    def chosen(where: Any, xs: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
        # Under `vmap` each loop has a condition of its own, and stands still once it is done.
        return [jnp.where(expand_right(where, x.ndim - where.ndim), x, y) for x, y in zip(xs, ys, strict=True)]

    def step(state: Any) -> Any:
        moved = _run(form.body, [*of_body, *state[1]])
        return state[0] + 1, chosen(going_on(state), moved, state[1])

    start = (0, list(map(jnp.asarray, carry)))
    last = jax.lax.while_loop(lambda s: (s[0] < MOST_STEPS) & jnp.any(going_on(s)), step, start)
    unknown = [jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in last[1]]
    return chosen(going_on(last), unknown, last[1])
