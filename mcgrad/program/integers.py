"""Counts in floating point: `1.0 * b.sum()` is computed as `(1.0 * b).sum()`, which credit can see through.

A sum of integers is no cost, since it is no floating-point number; taken as it is, what is converted at the end would be one cost.
So where integers that draws reach are added up and then converted, they are converted first. Counts up to the largest that the
floating-point type has exactly stay the same, larger ones are rounded as the conversion would round them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.costs import gains_credit, linear_cone
from mcgrad.program.dependence import Analysis
from mcgrad.program.site import Site
from mcgrad.program.trace import Constant, Equation, Program, Value, replaced

_SUMS = "add sub neg reduce_sum cumsum reshape squeeze transpose broadcast_in_dim slice concatenate rev"

_MOST = 2**16
"""Constants up to which sums with them are converted first: of some hundred of them, float32 has the sum exactly."""


def convert_first(program: Program, num_outputs: int, analysis: Analysis, credited: set[Site]) -> Program | None:
    """The program with sums of integers converted before they are added; `None` where no credit is gained."""
    if not any(map(_converts, program.equations)):
        return None
    linear = set(linear_cone(program, program.outputs[:num_outputs], analysis))

    def rule(equation: Equation) -> tuple[Callable[..., list[Any]], Sequence[Value]] | None:
        if linear.isdisjoint(equation.outputs) or not _converts(equation):
            return None
        (count,), (result,) = equation.inputs, equation.outputs
        found = _Sum(program, count)
        if not (found.is_small(analysis) and found.gains(analysis, credited)):
            return None
        return found.converted(result.dtype), found.terms

    return replaced(program, rule)


class _Sum:
    """An integer as a sum: the operations that add it up, in order, and the `terms` that they start from."""

    def __init__(self, program: Program, total: Value):
        needed, equations = {total: None}, []
        for equation in reversed(program.equations):
            if not needed.keys().isdisjoint(equation.outputs) and _adds(equation):
                needed.update(dict.fromkeys(equation.inputs))
                equations.append(equation)
        made = {value for equation in equations for value in equation.outputs}
        self.total, self.equations = total, equations[::-1]
        self.terms = [value for value in needed if value not in made]

    def is_small(self, analysis: Analysis) -> bool:
        """Whether what is added to draws are constants that floating point has exactly, with room for their sum."""
        others = [term for term in self.terms if not analysis.of(term)]
        return all(
            isinstance(term, Constant)
            and _compat.is_known(term.value)
            and np.all(np.abs(np.asarray(term.value, np.int64)) <= _MOST)
            for term in others
        )

    def gains(self, analysis: Analysis, credited: set[Site]) -> bool:
        """Whether some term is reached by fewer draws than the sum."""
        whole = {site: r for site, r in analysis.of(self.total).items() if site in credited}
        return any(gains_credit(analysis.of(t), whole, t, self.total) for t in self.terms if analysis.of(t))

    def converted(self, dtype: Any) -> Callable[..., list[Any]]:
        """The sum as a function of its terms, computed in floating point."""

        def fn(*terms: Any) -> list[Any]:
            known = {value: jnp.asarray(x).astype(dtype) for value, x in zip(self.terms, terms, strict=True)}
            for equation in self.equations:
                operands = [known[value] for value in equation.inputs]
                converts = equation.name == "convert_element_type"
                (known[equation.outputs[0]],) = operands if converts else _compat.bind(equation.eqn, operands)
            return [known[self.total]]

        return fn


def _converts(equation: Equation) -> bool:
    """Whether an operation makes floating-point numbers of counts."""
    converts = equation.name == "convert_element_type" and jnp.issubdtype(equation.outputs[0].dtype, jnp.floating)
    return converts and _is_count(equation.inputs[0])


def _is_count(value: Value) -> bool:
    """Whether it is of signed integers that are wide enough not to wrap around on purpose, or of booleans."""
    return value.dtype in (bool, jnp.int32, jnp.int64)


def _adds(equation: Equation) -> bool:
    """Whether an operation on counts adds some of them up, or moves them."""
    values = (*equation.inputs, *equation.outputs)
    conversion = equation.name == "convert_element_type"
    return all(map(_is_count, values)) and (
        equation.name in _SUMS.split() or (conversion and equation.outputs[0].dtype != bool)
    )
