"""Seeing a program: from a Python function to a flat list of equations over values.

The jaxpr that JAX makes is copied into a small graph of our own in which `jit` is inlined, every value is an object
with an identity (a jitted helper called twice gives two sets of values), and every other higher-order primitive keeps
its bodies, so that the passes over a program recurse into them without knowing JAX's parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat, _mesh


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A value of the program."""

    aval: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return getattr(self.aval, "shape", ())

    @property
    def dtype(self) -> Any:
        return getattr(self.aval, "dtype", None)

    @property
    def is_inexact(self) -> bool:
        """Whether it is of floating-point or complex numbers, so that a derivative may go through it."""
        return jnp.issubdtype(self.dtype, jnp.inexact)

    @property
    def is_key(self) -> bool:
        """Whether it is of typed random keys."""
        return jnp.issubdtype(self.dtype, jax.dtypes.prng_key)

    @property
    def is_integer(self) -> bool:
        """Whether it is of integers; booleans are none."""
        return jnp.issubdtype(self.dtype, jnp.integer)


@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Value):
    """A value that is known before the program runs: a literal, or something that the program closed over."""

    value: Any
    literal: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One operation: JAX's own equation, with its operands and results as values of the flat program."""

    eqn: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    bodies: tuple[Program, ...]
    evaluator: Callable[..., list[Any]]
    caller: str = ""
    within: tuple[str, ...] = ()  # the names of the jitted functions that it was inlined from, outermost first
    memory: dict[Any, Any] = dataclasses.field(default_factory=dict)  # of all equations that one trace leads to

    def recall(self, key: Any, find: Callable[[], Any]) -> Any:
        """What `find` finds, once for each key in all passes over a program: what they ask again and of many operations."""
        if key not in self.memory:
            self.memory[key] = find()
        return self.memory[key]

    @property
    def name(self) -> str:
        return self.eqn.primitive.name

    @property
    def line(self) -> str:
        """`file:line (function)` of the user; that of the call where JAX knows no line for the operation in it."""
        return _compat.user_line(self.eqn) or self.caller

    def evaluate(self, read: Callable[[Value], Any]) -> list[Any]:
        """The results, from the operands that `read` gives; derivative rules of the operation are kept."""
        operands = zip(self.eqn.invars, self.inputs, strict=True)
        given = (_mesh.varying(read(v), v.aval) for var, v in operands if not isinstance(var, _compat.Literal))
        return self.evaluator(*given)

    def everything(self) -> Iterator[Equation]:
        """This equation and all those of its bodies, outer ones first."""
        yield self
        for body in self.bodies:
            yield from body.everything()


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function as equations in order of evaluation."""

    inputs: tuple[Value, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Value, ...]

    def evaluate(
        self, *inputs: Any, by: Callable[[Equation, Callable[[Value], Any]], list[Any]] = Equation.evaluate
    ) -> list[Any]:
        """The outputs at given inputs; `by` evaluates an equation."""
        env: dict[Value, Any] = dict(zip(self.inputs, inputs, strict=True))

        def read(value: Value) -> Any:
            return value.value if isinstance(value, Constant) else env[value]

        for equation in self.equations:
            env.update(zip(equation.outputs, by(equation, read), strict=True))
        return [read(value) for value in self.outputs]

    def without_dead_code(self) -> Program:
        """The program with only the equations and inputs that its outputs need, and those with effects."""
        needed, live = set(self.outputs), []
        for equation in reversed(self.equations):
            if equation.eqn.effects or any(v in needed for v in equation.outputs):
                live.append(equation)
                needed.update(equation.inputs)
        return Program(tuple(v for v in self.inputs if v in needed), tuple(live[::-1]), self.outputs)

    def everything(self) -> Iterator[Equation]:
        """All equations, those of the bodies included, outer ones first."""
        for equation in self.equations:
            yield from equation.everything()


def trace(fn: Callable[[], Any]) -> tuple[Program, Any]:
    """The program of a function of no arguments, and the tree of its output.

    What the function closes over, tracers of an enclosing `jit`, `vmap` or `grad` included, becomes constants.
    """
    closed, tree = _compat.trace(fn)
    return from_jaxpr(closed), tree


def trace_in_place(
    fn: Callable[..., Sequence[Any]], operands: Sequence[Value], replaced: Equation
) -> tuple[list[Equation], tuple[Value, ...]]:
    """The equations and results of a function of values of a program; new operations get the line of `replaced`."""
    with _compat.on_line_of(replaced.eqn):
        jaxpr = _compat.trace_on(fn, [value.aval for value in operands])
    equations: list[Equation] = []
    results = _copy(jaxpr, tuple(operands), equations, replaced.memory, replaced.line)
    return equations, results


def replaced(
    program: Program, rule: Callable[[Equation], tuple[Callable[..., Sequence[Any]], Sequence[Value]] | None]
) -> Program | None:
    """The program with other equations for some; `None` if for none.

    Args:
        program: whose equations they are.
        rule: for an equation, a function that gives its results and the values to give to it; `None` to leave it as it is.
    """
    renamed: dict[Value, Value] = {}
    equations: list[Equation] = []
    for equation in program.equations:
        if (found := rule(equation)) is None:
            operands = tuple(renamed.get(v, v) for v in equation.inputs)
            changed = operands != equation.inputs
            equations.append(dataclasses.replace(equation, inputs=operands) if changed else equation)
        else:
            fn, values = found
            made, results = trace_in_place(fn, [renamed.get(v, v) for v in values], equation)
            equations += made
            renamed.update(zip(equation.outputs, results, strict=True))
    if not renamed:
        return None
    return Program(program.inputs, tuple(equations), tuple(renamed.get(v, v) for v in program.outputs))


def from_jaxpr(
    jaxpr: Any, memory: dict[Any, Any] | None = None, caller: str = "", within: tuple[str, ...] = ()
) -> Program:
    """A program from a (closed) jaxpr, called on the line `caller`."""
    opened, _ = _compat.open_jaxpr(jaxpr)
    inputs = tuple(Value(var.aval) for var in opened.invars)
    equations: list[Equation] = []
    outputs = _copy(jaxpr, inputs, equations, {} if memory is None else memory, caller, within)
    return Program(inputs, tuple(equations), outputs)


def _copy(
    jaxpr: Any,
    inputs: tuple[Value, ...],
    equations: list[Equation],
    memory: dict[Any, Any],
    caller: str = "",
    within: tuple[str, ...] = (),
) -> tuple[Value, ...]:
    """Append a jaxpr's equations with `inputs` for its arguments; inner `jit` is inlined. Returns its outputs."""
    opened, consts = _compat.open_jaxpr(jaxpr)
    values: dict[Any, Value] = dict(zip(opened.invars, inputs, strict=True))
    for var, const in zip(opened.constvars, consts, strict=True):
        values[var] = Constant(var.aval, const, literal=False)

    def value_of(atom: Any) -> Value:
        if isinstance(atom, _compat.Literal):
            return Constant(atom.aval, atom.val, literal=True)
        return values[atom]

    for eqn in opened.eqns:
        operands = tuple(map(value_of, eqn.invars))
        subs = _compat.sub_jaxprs(eqn)
        line = _compat.user_line(eqn) or caller if subs else caller
        if eqn.primitive is _compat.jit_p:
            inside = (*within, eqn.params.get("name", ""))
            results = _copy(subs[0], operands, equations, memory, line, inside)
        else:
            results = tuple(Value(var.aval) for var in eqn.outvars)
            bodies = tuple(from_jaxpr(sub, memory, line, within) for sub in subs)
            evaluator = _compat.evaluator(eqn, opened)
            equations.append(Equation(eqn, operands, results, bodies, evaluator, caller, within, memory))
        values.update(zip(eqn.outvars, results, strict=True))
    return tuple(map(value_of, opened.outvars))
