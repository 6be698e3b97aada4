"""Thresholds of a draw: comparisons of something affine in it, at which costs may jump, and where they lie.

A cost that is smooth on both sides of a threshold has the derivative of its path, and a term for the jump itself: what
`mcgrad.PathwiseWithBoundary` adds. It needs the place `c` where the compared difference `m` vanishes, and the cost at `c` with
the comparison decided as it is just below and just above.

In the body of a `scan`, a comparison may be of several draws, of the same step and of earlier ones. It belongs to the last one:
in the mean over that draw costs no longer jump in the others, and the place `c` moves along their paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PyTree, static_field
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

    def compared(self, site: Site, env: Mapping[Value, Any], x: Array) -> list[Any]:
        """What is compared at a value of the draw."""
        found = {**env, site.equation.outputs[0]: x}

        def read(value: Value) -> Any:
            return value.value if isinstance(value, Constant) else found[value]

        for equation in self.needed:
            found.update(zip(equation.outputs, equation.evaluate(read), strict=True))
        return [read(value) for value in self.equation.inputs]


@dataclasses.dataclass(frozen=True)
class Crossings(PyTree):
    """Where comparisons of a draw change.

    Attributes:
        equations: the comparisons.
        places: `[n, *plates]`, values of the draw; they move with what the comparisons are made of.
        slopes: `[n, *plates]`, of the compared differences in the draw; zero for a comparison that does not depend on it.
        extents: `[n, *plates]`, the size of what is compared, in units of the draw.
    """

    equations: tuple[Equation, ...] = static_field()
    places: Array  # ty: ignore[invalid-dataclass-field-order]
    slopes: Array  # ty: ignore[invalid-dataclass-field-order]
    extents: Array  # ty: ignore[invalid-dataclass-field-order]

    @classmethod
    def of(cls, thresholds: Sequence[Threshold], site: Site, env: Mapping[Value, Any], x: Array) -> Crossings | None:
        """Of a draw `x`, given the values before it."""
        if not thresholds:
            return None
        here = jax.lax.stop_gradient(x)
        places, slopes, extents = [], [], []
        for threshold in thresholds:

            def margin(x: Array, threshold: Threshold = threshold) -> tuple[Array, list[Any]]:
                compared = threshold.compared(site, env, x)
                return difference(threshold.equation, compared), compared

            at_draw, slope, compared = jax.jvp(margin, (here,), (jnp.ones_like(here),), has_aux=True)
            # affine: one step of Newton's method; without a slope the comparison does not depend on the draw
            divisor = jnp.where(slope == 0, 1, slope)
            places.append(here - at_draw / divisor)
            slopes.append(slope)
            size = jnp.max(jnp.stack([jnp.broadcast_to(jnp.abs(value), here.shape) for value in compared]), axis=0)
            extents.append(size / jnp.abs(divisor))
        fixed = jax.lax.stop_gradient((jnp.stack(slopes), jnp.stack(extents)))
        return cls(tuple(threshold.equation for threshold in thresholds), jnp.stack(places), *fixed)

    def reaches(self, x: Array) -> Array:
        """How far from each place a draw counts as being there: beyond roundings of what is compared; `[n, *plates]`."""
        size = jnp.abs(self.places) + jnp.abs(x)[None] + self.extents
        return jax.lax.stop_gradient(_ROUNDING * jnp.finfo(size.dtype).eps * size)


_ROUNDING = 64
"""Units in the last place within which a draw counts as on a threshold: more than the roundings of the affine function that is
compared, and so few that a draw lies there with a probability of rounding size."""


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
        return (), IN_A_BODY
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


def find_thresholds_in_step(
    program: Program, outputs: Sequence[Value], scan: Equation, sites: Sequence[Site]
) -> tuple[dict[Site, tuple[Threshold, ...]], str | None]:
    """The thresholds of draws in the body of a `scan`, each at the last draw compared; the reason, if some jump is at none.

    Args:
        program: the whole program.
        outputs: those that are differentiated.
        scan: the loop.
        sites: the draws in its body whose thresholds are wanted.
    """
    (body,) = scan.bodies
    here = set(body.equations)
    if any(site.equation not in here for site in sites):
        return {}, IN_A_BODY
    found: dict[Site, tuple[Threshold, ...]] = dict.fromkeys(sites, ())
    forms = {site: _forms(body, site) for site in sites}
    # the last draw first
    order = sorted(sites, key=lambda site: body.equations.index(site.equation), reverse=True)
    roots: set[Equation] = set()
    for way in blind_ways(program, outputs, {site.equation: site for site in sites}, set(sites)):
        if way.cut:
            return {}, f"{way.describe()} other than by a comparison"
        roots |= way.roots
    for root in sorted(roots, key=lambda root: root.line):
        if not (root.name in _ABOVE or root.name == "sign"):
            return {}, f"`{root.name}` at {root.line} jumps other than by a comparison"
        if root not in here:
            return {}, f"{_words(root)} stands outside of the step that draws: compare there, and carry what it says"
        site = next((s for s in order if any(value in forms[s][1] for value in root.inputs)), None)
        if site is None:
            return (
                {},
                f"{_words(root)} is of what an earlier step drew: compare in the step that draws, and carry what it says",
            )
        affine, reached = forms[site]
        if not all(value in affine for value in root.inputs if value in reached):
            return {}, f"{_words(root)} is not of something affine in the draw, entry by entry"
        needed = _between(body.equations, root.inputs, site.equation)
        if has_site(Program((), needed, ())):
            return {}, f"{_words(root)} involves something that is drawn later: draw that first"
        found[site] = (*found[site], Threshold(root, needed))
    return found, None


IN_A_BODY = "the draw stands in a loop or branch"

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
