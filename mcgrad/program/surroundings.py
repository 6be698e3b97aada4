"""The part of a program around an operation, cut out so that it can be run by itself from values of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from mcgrad import _compat
from mcgrad.program.site import sample_p
from mcgrad.program.trace import Constant, Equation, Program, Value


class Surroundings:
    """The neighborhood of each value: the equation that makes it, those that read it, and the inputs that it is made of."""

    def __init__(self, program: Program):
        self.equations = program.equations
        self.place = {equation: n for n, equation in enumerate(program.equations)}
        self.producer = {value: equation for equation in program.equations for value in equation.outputs}
        self._leaves: dict[Value, frozenset[Value]] = {}
        for equation in program.equations:
            found = frozenset().union(*map(self.leaves, equation.inputs))
            self._leaves.update(dict.fromkeys(equation.outputs, found))

    def leaves(self, value: Value) -> frozenset[Value]:
        """The inputs and traced constants, random keys left out, that a value is made of."""
        if value in self._leaves or value in self.producer:
            return self._leaves[value]
        known = isinstance(value, Constant) and _compat.is_known(value.value)
        return frozenset() if known or value.is_key else frozenset({value})

    def standing(self, inner: Equation) -> Equation | None:
        """The equation of the program that is this one, or that has it in a body."""
        if inner in self.place:
            return inner
        return next((e for e in self.equations if e.bodies and any(i is inner for i in e.everything())), None)

    def after(self, equation: Equation) -> list[Equation]:
        """The equations that read what an equation makes, directly or not, in order."""
        reached, found = set(equation.outputs), []
        for other in self.equations[self.place[equation] + 1 :]:
            if not reached.isdisjoint(other.inputs):
                reached.update(other.outputs)
                found.append(other)
        return found


def cut_out(
    around: Surroundings, wanted: Sequence[Value], reached: set[Value], *, near: bool = False
) -> tuple[list[Equation], list[Value]] | None:
    """The equations that make the wanted values from inputs that are independent of each other; `None` if it cannot be run.

    They go back to the program's inputs, so that values have their true ranges, unless they are many or large; if `near`, they go
    back no further than they must, and draws may be any numbers.
    """
    chosen: set[Equation] = set()
    frontier = set(wanted)
    numbers = 0

    def expand(values: Iterable[Value]) -> None:
        nonlocal numbers
        for value in values:
            equation = around.producer[value]
            frontier.discard(value)
            if equation not in chosen:
                chosen.add(equation)
                numbers = max(numbers, *(math.prod(v.shape) for v in equation.outputs), 0)
                frontier.update(v for v in equation.inputs if v in around.producer or around.leaves(v) or v.is_key)
        frontier.difference_update(v for equation in chosen for v in equation.outputs)

    while True:
        # A draw from a constant distribution would stand still on every line: it is an input itself.
        open_ = [v for v in frontier if v in around.producer and not v.is_key and not is_constant_draw(around, v)]
        must = [
            v
            for v in open_
            if v in reached
            or not (v.is_inexact and around.leaves(v))  # what is made of constants stands still
            or (around.producer[v].eqn.primitive is sample_p and not near)
        ]
        if must:
            expand(must)
        elif open_ and len(chosen) < _MOST_EQUATIONS and not near and numbers <= _MOST_NUMBERS:
            expand([max(open_, key=lambda v: around.place[around.producer[v]])])
        else:
            shared = [v for v in open_ if any(v is not w and around.leaves(v) & around.leaves(w) for w in frontier)]
            if not shared:
                break
            expand([max(shared, key=lambda v: around.place[around.producer[v]])])
    equations = sorted(chosen, key=around.place.__getitem__)
    if any(e.eqn.effects or "callback" in e.name for top in equations for e in top.everything()):
        return None
    return equations, sorted(
        frontier, key=lambda v: (str(v.dtype), v.shape, around.place.get(around.producer.get(v), -1))
    )


def is_constant_draw(around: Surroundings, value: Value) -> bool:
    return around.producer[value].eqn.primitive is sample_p and value.is_inexact and not around.leaves(value)


def two_draws(around: Surroundings, value: Value) -> list[np.ndarray]:
    """Two draws of a value that is drawn from a constant distribution."""

    def draw(seed: Any) -> Any:
        known: dict[Value, Any] = {}

        def read(value: Value) -> Any:
            if value.is_key:
                return jax.random.split(jax.random.key(seed), math.prod(value.shape)).reshape(value.shape)
            if isinstance(value, Constant):
                return value.value
            if value not in known:
                equation = around.producer[value]
                known.update(zip(equation.outputs, equation.evaluate(read), strict=True))
            return known[value]

        return read(value)

    return list(map(np.asarray, map(jax.jit(draw), range(2))))


_MOST_EQUATIONS = 400
"""Operations up to which a cut-out part goes back to the program's inputs."""

_MOST_NUMBERS = 2**18
"""Numbers in one result beyond which a part is cut off as soon as its inputs are independent."""
