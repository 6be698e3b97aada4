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
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.dependence import CALLS
from mcgrad.program.site import Site, sample_p
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
    search.run(live, [(_NONE, _NONE)] * len(live.inputs))
    return list(search.found.values())


def find_watched(
    program: Program, outputs: Sequence[Value], sites: dict[Equation, Site], held: Set[Site]
) -> dict[Equation, str]:
    """The operations of draws `held` fixed by which `outputs` surely jump, and what to say where a derivative moves them."""
    if not held:
        return {}
    live = dataclasses.replace(program, outputs=tuple(outputs)).without_dead_code()
    search = _ComparisonSearch({equation: site for equation, site in sites.items() if site in held})
    search.run(live, [(_NONE, _NONE)] * len(live.inputs))
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


class _Search:
    def __init__(self, flowing: dict[Equation, Site]):
        self.flowing = flowing
        self.found: dict[Equation, Jump] = {}

    def run(self, program: Program, inputs: Sequence[_Found]) -> list[_Found]:
        env = dict(zip(program.inputs, inputs, strict=True))
        users: dict[Value, list[Equation]] = {}
        for equation in program.equations:
            for value in equation.inputs:
                users.setdefault(value, []).append(equation)
        used = users.keys() | set(program.outputs)
        for equation in program.equations:
            given = [env.get(value, (_NONE, _NONE)) for value in equation.inputs]
            if equation in self.flowing:
                given.append((frozenset({self.flowing[equation]}), _NONE))
            elif equation.eqn.primitive is sample_p:
                given = []  # its estimator takes care of what depends on its law
            results = given if _is_branch_index(equation, users) else self.equation(equation, given, used)
            env.update(zip(equation.outputs, results, strict=True))
        return [env.get(value, (_NONE, _NONE)) for value in program.outputs]

    def equation(self, equation: Equation, given: list[_Found], used: Set[Value]) -> list[_Found]:
        primitive, name = equation.eqn.primitive, equation.name
        reach, thresholds = (_union(g[i] for g in given) for i in (0, 1))
        if not equation.outputs or not (reach or thresholds or equation.bodies):
            return [(_NONE, _NONE)] * len(equation.outputs)
        if primitive is _compat.scan_p:
            return self.scan(equation, given)
        if primitive is _compat.while_p:
            return self.while_loop(equation, given)
        if primitive is _compat.cond_p:
            branches = [self.run(body, given[1:]) for body in equation.bodies]
            free = [
                v in used and not any(map(_union, outs)) for v, *outs in zip(equation.outputs, *branches, strict=True)
            ]
            self.note(equation, given[0][1] | given[0][0], certain=_differ(equation, free))
            return [_join([given[0], *outs]) for outs in zip(*branches, strict=True)]
        if primitive in CALLS and len(equation.bodies[0].inputs) == len(given):
            return self.call(equation, given, used)
        if name in _ORDERS or name in _EQUALS:
            told = self.told(equation, reach) if self.is_threshold(equation, given) else _NONE
            return [(_NONE, told | thresholds)]
        if _is_boolean(equation.outputs[0]):
            return [(_NONE, thresholds)] * len(equation.outputs)
        if name == "convert_element_type" and _is_boolean(equation.inputs[0]):
            self.note(equation, thresholds, certain=True)
        elif _is_inexact(equation.inputs[0]) and (
            name in _ROUNDS or (name in _PICKS and any(v in used and not _is_inexact(v) for v in equation.outputs))
        ):
            self.note(equation, reach, certain=True)
        elif name == "select_n":
            cases = _union(part for case in given[1:] for part in case)
            self.note(equation, given[0][1], certain=not cases and len(set(equation.inputs[1:])) > 1)
        elif name == "rem":
            self.note(equation, reach, certain=False)
        return [(reach | thresholds, _NONE)] * len(equation.outputs)

    def told(self, equation: Equation, reach: _Reach) -> _Reach:
        """What a boolean tells of that a comparison of values of these draws makes."""
        return reach

    def note(self, equation: Equation, sites: _Reach, *, certain: bool) -> None:
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

    def call(self, equation: Equation, given: list[_Found], used: Set[Value]) -> list[_Found]:
        (body, *_) = equation.bodies
        wanted = [(out, value) for out, value in zip(body.outputs, equation.outputs, strict=True) if value in used]
        needed = dataclasses.replace(body, outputs=tuple(out for out, _ in wanted)).without_dead_code()
        env = dict(zip(body.inputs, given, strict=True))
        found = self.run(needed, [env[value] for value in needed.inputs])
        by_output = {value: these for (_, value), these in zip(wanted, found, strict=True)}
        return [by_output.get(value, (_NONE, _NONE)) for value in equation.outputs]

    def scan(self, equation: Equation, given: list[_Found]) -> list[_Found]:
        num_consts, num_carry = _compat.scan_split(equation.eqn)
        (body,) = equation.bodies
        return self.until_fixed(
            given[num_consts : num_consts + num_carry],
            lambda carry: self.run(body, [*given[:num_consts], *carry, *given[num_consts + num_carry :]]),
        )

    def while_loop(self, equation: Equation, given: list[_Found]) -> list[_Found]:
        num_cond, num_body = equation.eqn.params["cond_nconsts"], equation.eqn.params["body_nconsts"]
        cond, body = equation.bodies

        def step(carry: Sequence[_Found]) -> list[_Found]:
            (going_on,) = self.run(cond, [*given[:num_cond], *carry])
            self.note(equation, going_on[1], certain=False)
            outs = self.run(body, [*given[num_cond : num_cond + num_body], *carry])
            stopped = (going_on[1], _NONE)
            return [_join([out, stopped]) for out in outs]

        return self.until_fixed(given[num_cond + num_body :], step)

    def until_fixed(self, carry: list[_Found], step: Callable[[Sequence[_Found]], list[_Found]]) -> list[_Found]:
        """The results of a loop body once what is carried no longer grows."""
        while True:
            outs = step(carry)
            joined = [_join(pair) for pair in zip(carry, outs, strict=False)]
            if joined == carry:
                return [*joined, *outs[len(carry) :]]
            carry = joined


class _ComparisonSearch(_Search):
    """The same, with booleans that tell of the comparison which made them, in place of its draws."""

    def told(self, equation: Equation, reach: _Reach) -> _Reach:
        return frozenset({equation}) if reach else _NONE


def _union(parts: Iterable[_Reach]) -> _Reach:
    return frozenset().union(*parts)


def _join(parts: Sequence[_Found]) -> _Found:
    return _union(p[0] for p in parts), _union(p[1] for p in parts)


def _is_boolean(value: Value) -> bool:
    return value.dtype == np.bool_


def _is_inexact(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _differ(equation: Equation, wanted: Sequence[bool]) -> bool:
    """Whether the branches of a `cond` give other numbers for one of the wanted outputs, as far as their operations tell."""

    def made_of(body: Program, out: Value) -> Any:
        operands = dict(zip(body.inputs, equation.inputs[1:], strict=True))

        def word(value: Value) -> Any:
            return repr(value.value) if isinstance(value, Constant) else operands.get(value)

        needed = dataclasses.replace(body, outputs=(out,)).without_dead_code().equations
        return [(e.name, *map(word, e.inputs)) for e in needed], word(out)

    first, *others = equation.bodies
    return any(
        made_of(first, first.outputs[j]) != made_of(other, other.outputs[j])
        for j, value in enumerate(equation.outputs)
        if wanted[j] and not _is_boolean(value)
        for other in others
    )


def _is_branch_index(equation: Equation, users: dict[Value, list[Equation]]) -> bool:
    """Whether a boolean is made a number only to choose a branch of a `cond`."""
    if equation.name != "convert_element_type" or not _is_boolean(equation.inputs[0]):
        return False
    (index,) = equation.outputs
    readers = users.get(index, [])
    return bool(readers) and all(e.eqn.primitive is _compat.cond_p and index not in e.inputs[1:] for e in readers)
