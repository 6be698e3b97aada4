"""Where costs jump in a draw: there a pathwise derivative leaves out what happens at the jump, and is biased.

One forward pass over the program follows the values that are functions of pathwise draws, and the booleans that tell on
which side of a threshold such a value lies. `floor`, `sign`, `argmax`, a threshold turned into a number are jumps whatever
comes after, and so is `where` or `cond` between values that the draws do not reach. Others on a threshold may
join two pieces continuously (Huber, elu), which only their author knows: they are listed, as possible jumps.

Draws that are held fixed (score and the like) may meet jumps, as long as no parameter that is differentiated moves a
threshold: how it moves is left out. Whether it does is known when the derivative is taken, so operands are watched.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence, Set
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.site import Site
from mcgrad.program.trace import Constant, Equation, Program, Value


class JumpWarning(UserWarning):
    """A cost jumps in a draw that is differentiated along its path, or at a threshold that moves: the gradient is biased."""


@dataclasses.dataclass(frozen=True, eq=False)
class Jump:
    """An operation whose result jumps, or may jump, in draws."""

    equation: Equation
    sites: frozenset[Any]
    certain: bool

    def describe(self) -> str:
        """How messages speak of it."""
        what = _WORDS.get(self.equation.name, f"`{self.equation.name}`")
        return f"{what} at {self.equation.line} {'jumps' if self.certain else 'may jump'}"


_WORDS = {"convert_element_type": "a number made of a comparison or rounded to an integer", "select_n": "`where`"}

_ROUNDS = frozenset({"sign", "floor", "ceil", "round"})
_PICKS = frozenset({"convert_element_type", "argmax", "argmin", "sort", "top_k"})  # jump where they give integers
_ORDERS = frozenset({"lt", "le", "gt", "ge"})
_EQUALS = frozenset({"eq", "ne"})

_Reach: TypeAlias = frozenset[Any]
_NONE: _Reach = frozenset()


def find_jumps(
    program: Program, outputs: Sequence[Value], sites: dict[Equation, Site], flowing: Set[Site]
) -> list[Jump]:
    """The jumps that `outputs` see in the draws of the sites `flowing`, in program order."""
    if not flowing:
        return []
    live = dataclasses.replace(program, outputs=tuple(outputs)).without_dead_code()
    search = _Search({equation: site for equation, site in sites.items() if site in flowing})
    search.run(live, [search.nothing] * len(live.inputs))
    return list(search.found.values())


def find_watched(
    program: Program, outputs: Sequence[Value], sites: dict[Equation, Site], held: Set[Site]
) -> dict[Equation, str]:
    """The operations of draws `held` fixed by which `outputs` surely jump, and what to say where a derivative moves them."""
    if not held:
        return {}
    live = dataclasses.replace(program, outputs=tuple(outputs)).without_dead_code()
    search = _ComparisonSearch({equation: site for equation, site in sites.items() if site in held})
    search.run(live, [search.nothing] * len(live.inputs))
    watched: dict[Equation, str] = {}
    for jump in search.found.values():
        for told in jump.sites if jump.certain else ():
            watched.setdefault(told if isinstance(told, Equation) else jump.equation, _moved_message(jump))
    return watched


def _moved_message(jump: Jump) -> str:
    return (
        f"{jump.describe()} at a threshold that moves with what is differentiated, in a draw that is held fixed (by "
        "`mcgrad.Score()` and the like, or since its law is constant): the gradient leaves out how the threshold moves. Use "
        "`mcgrad.PathwiseWithBoundary()` at the draw, or let its law move in place of the threshold; `jax.lax.stop_gradient` of "
        "the threshold says that this is meant."
    )


def _warn(message: str) -> None:
    warnings.warn(message, JumpWarning, stacklevel=2)


watch = _compat.new_watched("mcgrad_threshold", _warn)
"""`watch(x, message)` is `x`, and warns where a derivative moves it."""


_Found: TypeAlias = tuple[_Reach, _Reach]
"""The draws that a value is a function of, and those whose thresholds a boolean tells of."""


class _Search(Forward[_Found]):
    """The domain of thresholds: which draws a value is a function of, and of whose thresholds a boolean tells."""

    nothing = (_NONE, _NONE)

    def __init__(self, flowing: dict[Equation, Site]):
        super().__init__()
        self.flowing = flowing
        self.found: dict[Equation, Jump] = {}
        self.users: dict[Value, list[Equation]] = {}
        self.used: Set[Value] = set()

    def run(self, program: Program, inputs: Sequence[_Found]) -> list[_Found]:
        outer = self.users, self.used
        self.users = {}
        for equation in program.equations:
            for value in equation.inputs:
                self.users.setdefault(value, []).append(equation)
        self.used = self.users.keys() | set(program.outputs)
        outputs = super().run(program, inputs)
        self.users, self.used = outer
        return outputs

    def equation(self, equation: Equation, inputs: list[_Found]) -> list[_Found]:
        if _is_branch_index(equation, self.users):
            return inputs
        if not equation.outputs or not (equation.bodies or any(map(_union, inputs)) or equation in self.flowing):
            return [self.nothing] * len(equation.outputs)
        calls = equation.eqn.primitive in (_compat.checkpoint_p, _compat.custom_jvp_p, _compat.custom_vjp_p)
        if calls and len(equation.bodies[0].inputs) == len(inputs):
            return self.call(equation, inputs)
        return super().equation(equation, inputs)

    def draw(self, equation: Equation, inputs: list[_Found]) -> list[_Found]:
        # Its estimator takes care of what depends on its law.
        reach = frozenset({self.flowing[equation]}) if equation in self.flowing else _NONE
        return [(reach, _NONE)] * len(equation.outputs)

    def apply(self, equation: Equation, inputs: list[_Found]) -> list[_Found]:
        name = equation.name
        reach, thresholds = (_union(g[i] for g in inputs) for i in (0, 1))
        if name in _ORDERS or name in _EQUALS:
            told = self.told(equation, reach) if self.is_threshold(equation, inputs) else _NONE
            return [(_NONE, told | thresholds)]
        if _is_boolean(equation.outputs[0]):
            return [(_NONE, thresholds)] * len(equation.outputs)
        if name == "convert_element_type" and _is_boolean(equation.inputs[0]):
            self.jump(equation, thresholds, certain=True)
        elif _is_inexact(equation.inputs[0]) and (
            name in _ROUNDS or (name in _PICKS and any(v in self.used and not _is_inexact(v) for v in equation.outputs))
        ):
            self.jump(equation, reach, certain=True)
        elif name == "select_n":
            cases = _union(part for case in inputs[1:] for part in case)
            self.jump(equation, inputs[0][1], certain=not cases and len(set(equation.inputs[1:])) > 1)
        elif name == "rem":
            self.jump(equation, reach, certain=False)
        return [(reach | thresholds, _NONE)] * len(equation.outputs)

    def told(self, equation: Equation, reach: _Reach) -> _Reach:
        """What a boolean tells of that a comparison of values of these draws makes."""
        return reach

    def jump(self, equation: Equation, sites: _Reach, *, certain: bool) -> None:
        if sites:
            before = self.found.get(equation)
            self.found[equation] = Jump(equation, sites | before.sites if before else sites, certain)

    def is_threshold(self, equation: Equation, given: Sequence[_Found]) -> bool:
        """Whether the comparison comes out either way with positive probability."""
        a, b = equation.inputs
        if not _is_inexact(a) or a is b:
            return False
        # Equality with what the draws do not reach has probability zero; among values they reach it finds a maximum.
        return equation.name in _ORDERS or all(reach for reach, _ in given)

    def call(self, equation: Equation, given: list[_Found]) -> list[_Found]:
        """Only the results that are used, without the operations that the others need."""
        (body, *_) = equation.bodies
        wanted = [(out, v) for out, v in zip(body.outputs, equation.outputs, strict=True) if v in self.used]
        needed = dataclasses.replace(body, outputs=tuple(out for out, _ in wanted)).without_dead_code()
        env = dict(zip(body.inputs, given, strict=True))
        found = self.run(needed, [env[value] for value in needed.inputs])
        by_output = {value: these for (_, value), these in zip(wanted, found, strict=True)}
        return [by_output.get(value, self.nothing) for value in equation.outputs]

    def join(self, parts: Sequence[_Found], value: Value, cause: Equation) -> _Found:
        return _union(p[0] for p in parts), _union(p[1] for p in parts)

    def chosen(self, equation: Equation, index: _Found, outputs: Sequence[_Found], value: Value) -> _Found:
        free = not any(map(_union, outputs)) and value in self.used
        j = equation.outputs.index(value)
        self.certain = (j > 0 and self.certain) or (free and _differ(equation, j))
        if j == len(equation.outputs) - 1:
            self.jump(equation, _union(index), certain=self.certain)
        return self.join([index, *outputs], value, equation)

    def stopped(self, equation: Equation, going_on: _Found) -> _Found:
        self.jump(equation, going_on[1], certain=False)
        return going_on[1], _NONE


class _ComparisonSearch(_Search):
    """The same, with booleans that tell of the comparison which made them, in place of its draws."""

    def told(self, equation: Equation, reach: _Reach) -> _Reach:
        return frozenset({equation}) if reach else _NONE


def _union(parts: Iterable[_Reach]) -> _Reach:
    return frozenset().union(*parts)


def _is_boolean(value: Value) -> bool:
    return value.dtype == np.bool_


def _is_inexact(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _differ(equation: Equation, output: int) -> bool:
    """Whether the branches of a `cond` give other numbers for an output, as far as their operations tell."""

    def made_of(body: Program) -> Any:
        operands = dict(zip(body.inputs, equation.inputs[1:], strict=True))
        out = body.outputs[output]

        def word(value: Value) -> Any:
            return repr(value.value) if isinstance(value, Constant) else operands.get(value)

        needed = dataclasses.replace(body, outputs=(out,)).without_dead_code().equations
        return [(e.name, *map(word, e.inputs)) for e in needed], word(out)

    first, *others = map(made_of, equation.bodies)
    return not _is_boolean(equation.outputs[output]) and any(first != other for other in others)


def _is_branch_index(equation: Equation, users: dict[Value, list[Equation]]) -> bool:
    """Whether a boolean is made a number only to choose a branch of a `cond`."""
    if equation.name != "convert_element_type" or not _is_boolean(equation.inputs[0]):
        return False
    (index,) = equation.outputs
    readers = users.get(index, [])
    return bool(readers) and all(e.eqn.primitive is _compat.cond_p and index not in e.inputs[1:] for e in readers)
