"""Values of a program at any point, without its mesh, where loops may not end: a `while_loop` stops after a number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat, _mesh
from mcgrad.program.bring import where_each
from mcgrad.program.structure import form_of
from mcgrad.program.trace import Equation, Program, Value

MOST_STEPS = 1000
"""Steps after which a `while_loop` is stopped: solvers that converge take fewer."""


def evaluate(equation: Equation, read: Callable[[Value], Any]) -> list[Any]:
    """The results of an operation; those of a loop that was stopped are no numbers."""
    form: Any = form_of(equation)
    alone = (_compat.SHARD_MAP, "while")
    if not any(e.name in alone or _mesh.is_of_mesh(e.eqn) for e in equation.everything()):
        return equation.evaluate(read)
    operands = [read(value) for value in equation.inputs]
    if equation.name == _compat.SHARD_MAP:
        return _shards(form, operands)
    if form is None:
        if equation.bodies:
            return equation.evaluate(read)
        return _mesh.without_mesh(equation.eqn, operands)
    if equation.eqn.primitive is _compat.while_p:
        return _while(form, operands)
    if form.rebuilds:
        return form.run_local(_Plain, operands)[0]
    called = form.called(operands)
    return equation.evaluate(read) if called is None else _run(*called)


def _run(program: Program, inputs: Sequence[Any]) -> list[Any]:
    return list(map(jnp.asarray, program.evaluate(*inputs, by=evaluate)))


def _shards(form: Any, operands: Sequence[Any]) -> list[Any]:
    """A `shard_map`, its devices mapped over."""
    axes, (in_specs, out_specs) = form.axes, form.specs
    given = [_mesh.split(_mesh.without_sharding(x), spec, axes) for x, spec in zip(operands, in_specs, strict=True)]

    def of_device(*inputs: Any) -> list[Any]:
        return _run(form.body, inputs)

    for axis in reversed(axes):
        of_device = jax.vmap(of_device, axis_name=axis)
    return [_mesh.joined(x, spec, axes) for x, spec in zip(of_device(*given), out_specs, strict=True)]


class _Plain:
    """What control flow is rebuilt with where nothing is drawn."""

    @staticmethod
    def body(body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        return _run(body, inputs), []


def _while(form: Any, operands: Sequence[Any]) -> list[Any]:
    of_condition, of_body, carry = form.split(operands)

    def going_on(state: Any) -> Any:
        return _run(form.condition, [*of_condition, *state[1]])[0]

    def step(state: Any) -> Any:
        moved = _run(form.body, [*of_body, *state[1]])
        # Under `vmap` each loop has a condition of its own, and stands still once it is done.
        return state[0] + 1, where_each(going_on(state), moved, state[1])

    start = (0, list(map(jnp.asarray, carry)))
    last = jax.lax.while_loop(lambda s: (s[0] < MOST_STEPS) & jnp.any(going_on(s)), step, start)
    unknown = [jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in last[1]]
    return where_each(going_on(last), unknown, last[1])
