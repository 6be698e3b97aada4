"""Which values are made of which: of a key, of what a loop carries, of what is not known before the run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.trace import Constant, Equation, Program, Value


class MadeOf(Forward[bool]):
    """The domain of values that are made of some: of inputs that are marked, of values for which `source` holds, of draws."""

    nothing = False

    def __init__(self, source: Callable[[Value], bool] = lambda value: False, *, draws: bool = False):
        super().__init__()
        self.source, self.draws = source, draws
        self.seen: set[Equation] = set()

    def of(self, value: Value) -> bool:
        return super().of(value) or self.source(value)

    def equation(self, equation: Equation, inputs: list[bool]) -> list[bool]:
        self.seen.add(equation)
        return super().equation(equation, inputs)

    def apply(self, equation: Equation, inputs: list[bool]) -> list[bool]:
        return [any(inputs)] * len(equation.outputs)

    def draw(self, equation: Equation, inputs: list[bool]) -> list[bool]:
        return [self.draws or any(inputs)] * len(equation.outputs)

    def join(self, parts: Sequence[bool], value: Value, cause: Equation) -> bool:
        return any(parts)


def constants_of(program: Program) -> frozenset[Value]:
    """Values known before the program runs, through which no derivative can come."""
    unknown = MadeOf(is_traced, draws=True)
    unknown.run(program, [True] * len(program.inputs))
    return frozenset(v for e in unknown.seen for v in (*e.inputs, *e.outputs) if not unknown.of(v))


def made_of_infinity(program: Program) -> MadeOf:
    """Which values are made of a constant with an infinite entry, as log odds of excluded values are."""

    @functools.cache
    def is_infinite(value: Value) -> bool:
        known = isinstance(value, Constant) and value.is_inexact and _compat.is_known(value.value)
        return known and bool(np.any(np.isinf(value.value)))

    found = MadeOf(is_infinite)
    found.run(program, [False] * len(program.inputs))
    return found


def is_traced(value: Value) -> bool:
    """Whether a value is closed over and not known before the run."""
    return isinstance(value, Constant) and not _compat.is_known(value.value)
