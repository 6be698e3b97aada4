"""Thresholds of a draw: comparisons of something affine in it, at which costs may jump, and where they lie.

A cost that is smooth on both sides of a threshold has the derivative of its path, and a term for the jump itself: what
`mcgrad.PathwiseWithBoundary` adds. It needs the place `c` where the compared difference `m` vanishes, and the cost at `c` with
the comparison decided as it is just below and just above.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad.program.paths import blind_ways
from mcgrad.program.site import Site, has_site
from mcgrad.program.trace import Constant, Equation, Program, Value

_ABOVE = {"gt": True, "ge": True, "lt": False, "le": False}
"""For each comparison of `a` with `b`, its result where `a - b` is positive."""

_SUMS = frozenset({"add", "sub", "add_any"})


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A comparison, or a sign, of something affine in a draw, entry by entry.

    Attributes:
        equation: the comparison.
        needed: the equations between the draw and the comparison that the compared difference needs.
    """

    equation: Equation
    needed: tuple[Equation, ...]

    def margin(self, site: Site, env: Mapping[Value, Any], x: Array) -> Array:
        """The compared difference at a value of the draw."""
        found = {**env, site.equation.outputs[0]: x}

        def read(value: Value) -> Any:
            return value.value if isinstance(value, Constant) else found[value]

        for equation in self.needed:
            found.update(zip(equation.outputs, equation.evaluate(read), strict=True))
        return difference(self.equation, [read(value) for value in self.equation.inputs])


@dataclasses.dataclass(frozen=True)
class Decision:
    """How to resolve comparisons whose two sides are equal.

    Attributes:
        slopes: of the compared difference, by comparison.
        side: 1 just above the threshold in the draw, -1 just below.
        reach: the distance from the threshold, in units of the draw, below which the two sides count as equal.
    """

    slopes: Mapping[Equation, Array]
    side: Any
    reach: Array

    def at(self, side: Any, reach: Any) -> Decision:
        """The decision for one of several points."""
        return dataclasses.replace(self, side=side, reach=reach)

    def decide(self, equation: Equation, operands: Sequence[Any], out: Array) -> Array:
        """The result of a comparison; `out` is its result away from the threshold."""
        slope = self.slopes[equation]
        tie = (slope != 0) & (jnp.abs(difference(equation, operands)) <= self.reach * jnp.abs(slope))
        positive = self.side * slope > 0
        if equation.name == "sign":
            return jnp.where(tie, jnp.where(positive, 1, -1).astype(out.dtype), out)
        return jnp.where(tie, positive == _ABOVE[equation.name], out)


def difference(equation: Equation, operands: Sequence[Any]) -> Array:
    """What a comparison compares with zero."""
    return operands[0] if equation.name == "sign" else operands[0] - operands[1]


def find_thresholds(
    program: Program, outputs: Sequence[Value], sites: dict[Equation, Site], site: Site
) -> tuple[tuple[Threshold, ...], str | None]:
    """The thresholds of a draw, and, if some jump is not at one of them, the reason."""
    if not site.top_level:
        return (), "the draw stands in a loop or branch"
    jumps = blind_ways(program, outputs, {site.equation: site}, {site})
    affine, reached = _forms(program, site)
    for jump in jumps:
        if jump.gate not in program.equations or jump.gate.name not in _HANDLED:
            return (), f"{jump.describe()} other than by a comparison"
    if not jumps:
        return (), None
    live = dataclasses.replace(program, outputs=tuple(outputs)).without_dead_code().equations
    found = []
    for equation in live:
        compared = [value for value in equation.inputs if value in reached]
        if not compared or not (equation.name in _ABOVE or equation.name == "sign"):
            continue
        if not all(value in affine for value in compared):
            return (), f"{_words(equation)} is not of something affine in the draw, entry by entry"
        needed = _between(live, equation.inputs, site.equation)
        if has_site(Program((), needed, ())):
            return (), f"{_words(equation)} involves something that is drawn later: draw that first"
        found.append(Threshold(equation, needed))
    return tuple(found), None


_HANDLED = frozenset({"convert_element_type", "select_n", "cond", "sign"})


def _words(equation: Equation) -> str:
    return f"the comparison at {equation.line}" if equation.name in _ABOVE else f"`{equation.name}` at {equation.line}"


def _forms(program: Program, site: Site) -> tuple[set[Value], set[Value]]:
    """The values that are affine in a draw, entry by entry, and all that it reaches."""
    (x,) = site.equation.outputs
    affine, reached = {x}, {x}
    for equation in program.equations:
        within = [value in reached for value in equation.inputs]
        if not any(within) or equation is site.equation:
            continue
        reached.update(equation.outputs)
        if all(v in affine for v, inside in zip(equation.inputs, within, strict=True) if inside) and (
            equation.outputs[0].shape == x.shape and _keeps_affine(equation, within)
        ):
            affine.update(equation.outputs)
    return affine, reached


def _keeps_affine(equation: Equation, within: Sequence[bool]) -> bool:
    name, (out,) = equation.name, equation.outputs[:1]
    if name in _SUMS or name in ("neg", "copy"):
        return True
    if name == "convert_element_type":
        return jnp.issubdtype(out.dtype, jnp.floating)
    if name == "mul":
        return sum(within) == 1
    return name == "div" and not within[1]


def _between(equations: Sequence[Equation], wanted: Sequence[Value], start: Equation) -> tuple[Equation, ...]:
    """The equations after `start` that `wanted` need, in order."""
    needed, found = set(wanted), []
    for equation in reversed(equations):
        if equation is start:
            break
        if any(value in needed for value in equation.outputs):
            found.append(equation)
            needed.update(equation.inputs)
    return tuple(found[::-1])
