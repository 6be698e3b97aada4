"""Addends that no draw reaches, taken off the costs: noise in a weight times a constant is noise for nothing.

`mean(f(b) + g)` is linear in the sum, but a cost in its place, `f(b) + g`, would be weighted whole. Each output that is linear
in such a sum is computed in two tracks, that of the summands that draws reach and that of the others, which are added at the
end: `mean(f(b)) + mean(g)`. So the weights stay on as few numbers as without the addend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.costs import linear_cone, linear_parts
from mcgrad.program.dependence import Analysis
from mcgrad.program.site import Site
from mcgrad.program.trace import Constant, Equation, Program, Value, trace_in_place


class Separated(NamedTuple):
    """A program whose outputs end in `sums`, each of a value that draws reach and of one that none does."""

    program: Program
    sums: frozenset[Equation]


def separate_addends(program: Program, num_outputs: int, analysis: Analysis, credited: set[Site]) -> Separated | None:
    """The program with the addends of its first `num_outputs` outputs apart; `None` where there are none."""
    tracks = _Tracks(program, analysis, credited)
    for value in linear_cone(program, program.outputs[:num_outputs], analysis):
        tracks.of(value)
    found = [tracks.of(v) for v in program.outputs[:num_outputs]]
    outputs, sums = list(program.outputs), set()
    for i, (reached, free) in enumerate(found):
        if reached is not None and free is not None:
            (total,), made = tracks.insert(lambda r, f: [r + f], (reached, free), tracks.producer[outputs[i]])
            sums.add(made[-1])
            outputs[i] = total
    if not sums:
        return None
    equations = tuple(e for equation in program.equations for e in (equation, *tracks.inserted.get(equation, ())))
    return Separated(Program(program.inputs, equations, tuple(outputs)), frozenset(sums))


_SUMS = ("add", "add_any", "sub", "select_n")
_OF_ONE = frozenset(
    [
        "neg",
        "mul",
        "div",
        "dot_general",
        "reduce_sum",
        "cumsum",
        "reshape",
        "broadcast_in_dim",
        "squeeze",
        "expand_dims",
    ]
    + ["transpose", "rev", "slice", "dynamic_slice", "gather", "copy", "copy_p", "convert_element_type"]
)
"""Linear in one operand, if no draw reaches the others."""

_SIDE_BY_SIDE = ("concatenate", "stack")


class _Tracks:
    """The two tracks of values: equations that compute them are inserted behind those of the values."""

    def __init__(self, program: Program, analysis: Analysis, credited: set[Site]):
        self.producer = {value: equation for equation in program.equations for value in equation.outputs}
        self.inserted: dict[Equation, list[Equation]] = {}
        self._analysis, self._credited = analysis, credited
        self._found: dict[Value, tuple[Value | None, Value | None]] = {}

    def of(self, value: Value) -> tuple[Value | None, Value | None]:
        """What draws reach of a value, and what none does; `None` for zero."""
        if value not in self._found:
            self._found[value] = self._split(value)
        return self._found[value]

    def insert(self, fn: Any, operands: Sequence[Value], behind: Equation) -> tuple[tuple[Value, ...], list[Equation]]:
        """New equations that compute a function of values."""
        equations, results = trace_in_place(fn, operands, behind)
        self.inserted.setdefault(behind, []).extend(equations)
        return results, equations

    def _split(self, value: Value) -> tuple[Value | None, Value | None]:
        if not any(site in self._credited for site in self._analysis.of(value)):
            return None, None if self._is_zero(value) else value
        whole = value, None
        equation = self.producer.get(value)
        parts = linear_parts(equation, self._analysis) if equation is not None else None
        if equation is None or not parts:
            return whole
        if equation.name in _SUMS:
            return self._split_sum(equation) or whole
        if equation.name in _SIDE_BY_SIDE and not any(isinstance(v, _compat.Literal) for v in equation.eqn.invars):
            parts = list(dict.fromkeys(equation.inputs))
        elif equation.name not in _OF_ONE or len(parts) > 1:
            return whole
        tracks = [self.of(part) for part in parts]
        if all(free is None for _, free in tracks):
            return whole
        reached, free = (self._again(equation, parts, track) for track in zip(*tracks, strict=True))
        return reached, free

    def _again(self, equation: Equation, parts: Sequence[Value], track: Sequence[Value | None]) -> Value | None:
        """The equation, of one track of its operands."""
        if all(v is None for v in track):
            return None
        result = Value(equation.outputs[0].aval)
        of = {part: _zeros(part) if v is None else v for part, v in zip(parts, track, strict=True)}
        inputs = tuple(of.get(v, v) for v in equation.inputs)
        self.inserted.setdefault(equation, []).append(replace(equation, inputs=inputs, outputs=(result,)))
        return result

    def _split_sum(self, equation: Equation) -> tuple[Value | None, Value | None] | None:
        first = 1 if equation.name == "select_n" else 0
        tracks = [self.of(v) for v in equation.inputs[first:]]
        if all(free is None for _, free in tracks):
            return None
        reached, free = (self._sum(equation, first, track) for track in zip(*tracks, strict=True))
        return reached, free

    def _sum(self, equation: Equation, first: int, track: Sequence[Value | None]) -> Value | None:
        """The sum of some of its summands."""
        given = [v for v in track if v is not None]
        result = equation.outputs[0]
        if not given:
            return None
        if given == [track[0]] and first == 0 and (given[0].shape, given[0].dtype) == (result.shape, result.dtype):
            return given[0]

        def total(*operands: Any) -> list[Any]:
            values = iter(operands[first:])
            terms = [None if v is None else jnp.broadcast_to(next(values), result.shape) for v in track]
            filled = [jnp.zeros(result.shape, result.dtype) if term is None else term for term in terms]
            if first:
                return [jax.lax.select_n(operands[0], *filled)]
            if len(given) == 2:
                return [filled[0] - filled[1] if equation.name == "sub" else filled[0] + filled[1]]
            return [filled[0] if terms[0] is not None else -filled[1] if equation.name == "sub" else filled[1]]

        (found,), _ = self.insert(total, (*equation.inputs[:first], *given), equation)
        return found

    def _is_zero(self, value: Value) -> bool:
        if isinstance(value, Constant):
            return not isinstance(value.value, _compat.Tracer) and not np.any(np.asarray(value.value))
        equation = self.producer.get(value)
        copies = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy", "copy_p")
        return equation is not None and equation.name in copies and self._is_zero(equation.inputs[0])


def _zeros(value: Value) -> Constant:
    return Constant(value.aval, np.broadcast_to(np.zeros((), value.dtype), value.shape), literal=False)
