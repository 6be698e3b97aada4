"""One forward pass over a program, which propagates facts of values through calls, branches and loops (to a fixed point).

A subclass, the *domain*, defines what the facts are: dependence on draws, paths from draws to costs, or values known before
the run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from mcgrad.program.site import sample_p
from mcgrad.program.structure import form_of
from mcgrad.program.trace import Equation, Program, Value

Fact = TypeVar("Fact")


class Forward(Generic[Fact]):
    """A domain: a subclass defines what a fact is, what operations do to it and how facts join.

    Attributes:
        facts: of all values so far, those in bodies included; a value without one has `nothing`.
        loops: the `scan`s around the current equation, outermost first.
        depth: how many bodies are around it.
    """

    nothing: Fact

    def __init__(self) -> None:
        self.facts: dict[Value, Fact] = {}
        self.loops: tuple[Equation, ...] = ()
        self.depth = -1

    # What a domain says.

    def apply(self, equation: Equation, inputs: list[Fact]) -> list[Fact]:
        """The facts of the results of an operation without known bodies."""
        raise NotImplementedError

    def draw(self, equation: Equation, inputs: list[Fact]) -> list[Fact]:
        """The facts of a draw."""
        return self.apply(equation, inputs)

    def join(self, parts: Sequence[Fact], value: Value, cause: Equation) -> Fact:
        """The fact of a value that may be either of the parts."""
        raise NotImplementedError

    def widen(self, before: Fact, after: Fact) -> Fact:
        """`after`, enlarged so that a fixed point is soon reached."""
        return after

    def chosen(self, equation: Equation, index: Fact, outputs: Sequence[Fact], value: Value) -> Fact:
        """The fact of a result of a `cond`, from those of the branches and of the index that chooses."""
        return self.join([index, *outputs], value, equation)

    def stopped(self, equation: Equation, going_on: Fact) -> Fact:
        """What a `while_loop` adds to each result, from the fact of its condition."""
        return going_on

    def enter(self, fact: Fact, scan: Equation) -> Fact:
        """From a stacked operand of a `scan` to the row of the current step."""
        return fact

    def next_step(self, fact: Fact, value: Value, scan: Equation) -> Fact:
        """From a value at the end of one step of a `scan` to the beginning of the next."""
        return fact

    def leave(self, fact: Fact, scan: Equation) -> Fact:
        """From the row of the current step to a stacked result of a `scan`."""
        return fact

    def leave_last(self, fact: Fact, value: Value, scan: Equation) -> Fact:
        """From a value at the end of a step to the result of the `scan`, that of the last step."""
        return fact

    def onto_device(self, fact: Fact, shards: Equation, operand: int) -> Fact:
        """From an operand of a `shard_map` to the part of the current device."""
        return fact

    def from_devices(self, fact: Fact, shards: Equation, result: int) -> Fact:
        """From what each device of a `shard_map` has to its result."""
        return fact

    # The pass.

    def run(self, program: Program, inputs: Sequence[Fact]) -> list[Fact]:
        """The facts of a program's outputs, from those of its inputs."""
        self.depth += 1
        for value, given in zip(program.inputs, inputs, strict=True):
            self.facts[value] = given
        for equation in program.equations:
            self.note(equation, self.equation(equation, [self.of(value) for value in equation.inputs]))
        self.depth -= 1
        return [self.of(value) for value in program.outputs]

    def note(self, equation: Equation, outputs: Sequence[Fact]) -> None:
        for value, found in zip(equation.outputs, outputs, strict=True):
            if found:
                self.facts[value] = found
            else:
                self.facts.pop(value, None)

    def of(self, value: Value) -> Fact:
        return self.facts.get(value, self.nothing)

    def equation(self, equation: Equation, inputs: list[Fact]) -> list[Fact]:
        if equation.eqn.primitive is sample_p:
            return self.draw(equation, inputs)
        form = form_of(equation)
        return self.apply(equation, inputs) if form is None else form.forward(self, inputs)

    @contextmanager
    def inside(self, scan: Equation) -> Generator[None]:
        """In the body of a `scan`."""
        self.loops = (*self.loops, scan)
        yield
        self.loops = self.loops[:-1]

    def until_fixed(
        self, equation: Equation, carry: list[Fact], values: Sequence[Value], step: Callable[[list[Fact]], list[Fact]]
    ) -> tuple[list[Fact], list[Fact]]:
        """The facts of what a loop carries, `values`, once they no longer grow; and what `step` made of them."""
        for iteration in range(_MOST_ROUNDS):
            outputs = step(carry)
            joined = [
                self.join([before, after], value, equation)
                for before, after, value in zip(carry, outputs, values, strict=False)
            ]
            if joined == carry:
                return carry, outputs
            if iteration >= _ROUNDS_AS_THEY_ARE:
                joined = [self.widen(old, new) for old, new in zip(carry, joined, strict=True)]
            carry = joined
        raise AssertionError(f"no fixed point for the loop at {equation.line}")


_ROUNDS_AS_THEY_ARE = 2
"""Rounds of a loop after which what still grows is widened: two tell a shift from what goes on without end."""

_MOST_ROUNDS = 50
"""Rounds of a loop in which widened facts have always become fixed: the chains of carried values are far shorter."""
