"""Moves terms that depend on no draw out of the costs: weighting them would add variance and no information.

`mean(f(b) + g)` is linear in the sum; taken as one cost, all of `f(b) + g` would be weighted. So each output that is linear in such
a sum is computed in two tracks, one from the terms that depend on a draw and one from the others, and the two are added at the
end: `mean(f(b)) + mean(g)`. The weights then multiply as few numbers as if `g` were not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat, _mesh
from mcgrad.program import axis_rules
from mcgrad.program.costs import linear_cone
from mcgrad.program.dependence import Analysis
from mcgrad.program.primitives import linear_group, rule_of
from mcgrad.program.site import Site
from mcgrad.program.trace import Constant, Equation, Program, Value, trace_in_place


class Separated(NamedTuple):
    """A program with two tracks; `sums` are the additions that join a value depending on draws and one depending on none."""

    program: Program
    sums: frozenset[Equation]


def separate_addends(program: Program, num_outputs: int, analysis: Analysis, credited: set[Site]) -> Separated | None:
    """The program with the terms of its first `num_outputs` outputs separated; `None` if there is nothing to separate."""
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


class _Tracks:
    """The two tracks of each value. The equations that compute them are inserted after the one that makes the value."""

    def __init__(self, program: Program, analysis: Analysis, credited: set[Site]):
        self.producer = {value: equation for equation in program.equations for value in equation.outputs}
        self.inserted: dict[Equation, list[Equation]] = {}
        self._analysis, self._credited = analysis, credited
        self._found: dict[Value, tuple[Value | None, Value | None]] = {}

    def of(self, value: Value) -> tuple[Value | None, Value | None]:
        """The part of a value that depends on draws, and the part that does not; `None` stands for zero."""
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
        equation = self.producer.get(value)
        reached = [i for i, v in enumerate(equation.inputs) if self._analysis.of(v)] if equation is not None else []
        group = linear_group(equation, reached) if equation is not None else None
        if equation is None or not reached or group is None:
            return value, None
        tracks = {i: self.of(equation.inputs[i]) for i in group}
        if all(free is None for _, free in tracks.values()):
            return value, None
        j = equation.outputs.index(value)
        with_draws, free = (self._again(equation, j, {i: pair[k] for i, pair in tracks.items()}) for k in (0, 1))
        return with_draws, free

    def _again(self, equation: Equation, output: int, track: dict[int, Value | None]) -> Value | None:
        """A result of the equation, computed from one track of the operands that it is linear in."""
        given = {i: value for i, value in track.items() if value is not None}
        result = equation.outputs[output]
        if not given:
            return None
        if list(given) == [0] and equation.name in ("add", "add_any", "sub"):
            (value,) = given.values()
            if (value.shape, value.dtype) == (result.shape, result.dtype):
                return value
        operands = [track.get(i, v) for i, v in enumerate(equation.inputs)]
        elementwise = rule_of(equation).axes is axis_rules.elementwise

        def again(*present: Any) -> list[Any]:
            values, full = iter(present), []
            for value, own in zip(operands, equation.inputs, strict=True):
                x = _mesh.zeros(own.aval) if value is None else next(values)
                full.append(jnp.broadcast_to(x, result.shape) if elementwise else x)  # a literal may be a scalar
            return [_compat.bind(equation.eqn, full)[output]]

        (found,), _ = self.insert(again, [v for v in operands if v is not None], equation)
        return found

    def _is_zero(self, value: Value) -> bool:
        if isinstance(value, Constant):
            return _compat.is_known(value.value) and not np.any(np.asarray(value.value))
        equation = self.producer.get(value)
        copies = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy", "copy_p")
        return equation is not None and equation.name in copies and self._is_zero(equation.inputs[0])
