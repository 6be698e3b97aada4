"""Parts of a program that act entry by entry on large arrays, cut down to few entries, so that trying them takes no time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _mesh
from mcgrad.program import axis_rules
from mcgrad.program.primitives import rule_of
from mcgrad.program.trace import Constant, Equation, Value

MANY = 2**12
"""Entries of an array from which on few stand for all of them: 65 points on a line of so many take a tenth of a second."""

FEW = 64


def is_entrywise(equation: Equation) -> bool:
    """Whether each entry of the results is made of the same entry of the operands alone, by the same rule."""
    if equation.bodies or equation.eqn.effects or _mesh.is_of_mesh(equation.eqn):
        return False
    if any(v.is_key or isinstance(v, Constant) and v.shape for v in equation.inputs):
        return False
    if equation.name == "broadcast_in_dim":
        return not equation.inputs[0].shape
    return rule_of(equation).axes is axis_rules.elementwise


def few_entries(
    equations: Sequence[Equation], inputs: Sequence[Value]
) -> tuple[list[Equation], dict[Value, Value]] | None:
    """The equations on arrays of few entries, and which value stands for which; `None` if that is not the same program."""
    values = {v for e in equations for v in (*e.inputs, *e.outputs)} | set(inputs)
    shapes = {v.shape for v in values if v.shape}
    if len(shapes) != 1 or math.prod(*shapes) < MANY or not all(map(is_entrywise, equations)):
        return None
    small = {v: Value(jax.ShapeDtypeStruct((FEW,), v.dtype)) if v.shape else v for v in values}
    found = [_on(small, equation) for equation in equations]

    def run(*given: Any) -> list[Any]:
        env = dict(zip((small[v] for v in inputs), given, strict=True))
        for equation in found:
            read = lambda v: v.value if isinstance(v, Constant) else env[v]  # noqa: E731
            env.update(zip(equation.outputs, equation.evaluate(read), strict=True))
        return [env[v] for equation in found for v in equation.outputs]

    try:
        made = jax.eval_shape(run, *(jax.ShapeDtypeStruct(small[v].shape, v.dtype) for v in inputs))
    except Exception:  # a user's own primitive may have a shape among its parameters
        return None
    outputs = [v for equation in found for v in equation.outputs]
    same = all(x.shape == v.shape and x.dtype == v.dtype for x, v in zip(made, outputs, strict=True))
    return (found, small) if same else None


def _on(small: dict[Value, Value], equation: Equation) -> Equation:
    inputs, outputs = (tuple(small[v] for v in values) for values in (equation.inputs, equation.outputs))
    evaluator = equation.evaluator
    if equation.name == "broadcast_in_dim":
        evaluator = lambda *x: [jnp.broadcast_to(*x, (FEW,))]  # noqa: E731
    return dataclasses.replace(equation, inputs=inputs, outputs=outputs, evaluator=evaluator)
