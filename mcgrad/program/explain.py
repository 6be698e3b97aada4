"""A readable report of what mcgrad found in a program."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcgrad.program.estimator import Estimator
from mcgrad.program.held import Held, followed
from mcgrad.program.picture import Line, svg
from mcgrad.program.plan import Plan
from mcgrad.program.relation import Window
from mcgrad.program.site import Site
from mcgrad.program.trace import Value


@dataclasses.dataclass(frozen=True)
class SiteReport:
    """A draw: where it stands, its plate axes (time axes of loops first), the estimator chosen for it, why, if its path was
    given up, and what one more evaluation of the program would buy, if the choice was `mcgrad.Auto`'s.
    """

    name: str
    law: str
    line: str
    plates: tuple[int, ...]
    estimator: str
    reason: str = ""
    with_one_more: str = ""


@dataclasses.dataclass(frozen=True)
class CreditReport:
    """How a cost depends on one draw, along each plate axis, and which operation mixed an axis.

    `axes` has an entry for each plate axis: `"same"`, `"earlier"`, `"later"`, `"within -1..2"`, `"draws 0..3"` or
    `"mixed"`; `causes` has the operation and line at which the axis was lost, or `None`; `devices` the mapped axes along which the
    cost depends on the draws of all devices.
    """

    site: str
    axes: tuple[str, ...]
    causes: tuple[str | None, ...]
    weighted: bool
    devices: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class CostReport:
    """A cost: its shape, the operation and line that made it, and the draws that it is credited to."""

    shape: tuple[int, ...]
    operation: str
    line: str
    credits: tuple[CreditReport, ...]


@dataclasses.dataclass(frozen=True)
class PassReport:
    """One pass of the planning, and what it found."""

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: {self.found}"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `mcgrad.explain` found: the draws, the costs, and which draws each cost is credited to.

    `accumulators` has the lines of the `scan`s that add up costs in their carry; these costs are credited one by one. `jumps`
    tells where a cost jumps, or may jump, in a draw that is differentiated along its path. `passes` has what each pass over the
    program found, in their order: `print(*report.passes, sep="\\n")`. Notebooks show a picture, which `draw(path)` writes.
    """

    sites: tuple[SiteReport, ...]
    costs: tuple[CostReport, ...]
    accumulators: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    passes: tuple[PassReport, ...] = ()

    def __str__(self) -> str:
        lines = [_count(len(self.sites), "draw")]
        if not self.sites:
            lines[0] += (
                " through `mcgrad.sample`: derivatives are those of `jax.grad`, which sees no other discrete draw"
            )
        for site in self.sites:
            lines.append(f"  {site.name}: {site.law}, plates {site.plates}, {site.estimator}, at {site.line}")
            if site.reason:
                lines.append(f"    its path is not followed: {site.reason}")
            if site.with_one_more:
                lines.append(f"    with one evaluation more: {site.with_one_more}")
        lines.append(_count(len(self.costs), "cost"))
        for i, cost in enumerate(self.costs):
            lines.append(f"  cost {i}: shape {cost.shape}, from `{cost.operation}` at {cost.line}")
            for credit in cost.credits:
                role = "credited to" if credit.weighted else "differentiated through"
                axes = ", ".join(f"axis {k} {text}" for k, text in enumerate(credit.axes)) or "one draw"
                lines.append(f"    {role} {credit.site}: {axes}")
                lines += [f"      of all devices along {axis!r}" for axis in credit.devices]
                for k, cause in enumerate(credit.causes):
                    if cause is not None:
                        lines.append(f"      axis {k} mixed by {cause}")
            if not cost.credits:
                lines.append("    no draw reaches it")
        for line in self.accumulators:
            lines.append(f"costs added up in the carry of the `scan` at {line} are credited one by one")
        lines += self.jumps
        return "\n".join(lines)

    def draw(self, path: str | Path) -> Path:
        """Write a picture as SVG: draws on the left, costs on the right, and how the axes of each cost go with those of a draw.

        A solid line is a cost that is weighted for a draw, a dashed one a cost that is differentiated through it.

        Args:
            path: of the file, for instance `program.svg`.

        Returns:
            `path`.
        """
        Path(path).write_text(self._repr_svg_(), encoding="utf-8")
        return Path(path)

    def _repr_svg_(self) -> str:
        draws = [(s.name, f"{s.law}, plates {s.plates}", f"{s.estimator}, at {s.line}") for s in self.sites]
        costs = [(f"cost {i}", f"shape {c.shape}", f"{c.operation}, at {c.line}") for i, c in enumerate(self.costs)]
        rows = {site.name: row for row, site in enumerate(self.sites)}
        lines = [
            Line(rows[c.site], i, ", ".join(c.axes) or "one draw", _WEIGHTED if c.weighted else _MOVING, not c.weighted)
            for i, cost in enumerate(self.costs)
            for c in cost.credits
        ]
        return svg(str(self), draws, costs, lines)


_WEIGHTED, _MOVING = "#0072B2", "#009E73"  # told apart by the color-blind (Okabe and Ito 2008)


def describe(plan: Plan, with_one_more: Callable[[Site, Estimator], str] = lambda site, chosen: "") -> Explanation:
    """The explanation of a plan; `with_one_more` says of a draw and its estimator what one more evaluation would buy."""
    sites = list(plan.analysis.sites.values())
    names = _names(sites)
    producer = {v: e for e in plan.program.equations for v in e.outputs}
    reports = tuple(
        SiteReport(
            names[s],
            s.facts.law,
            s.line or "the call",
            s.plates,
            _estimator(plan, s),
            plan.given_up[s].describe() if s in plan.given_up else "",
            with_one_more(s, plan.estimators[s]),
        )
        for s in sites
    )

    def cost_report(value: Value) -> CostReport:
        equation = producer.get(value)
        credits = []
        for site, relation in plan.analysis.of(value).items():
            texts = tuple(describe_window(w, n, value) for w, n in zip(relation, site.plates, strict=True))
            causes = tuple(
                f"`{w.cause.name}` at {w.cause.line}" if text == "mixed" and w.cause is not None else None
                for w, text in zip(relation, texts, strict=True)
            )
            devices = tuple(sorted({c.axis for c in plan.analysis.couplings(value, site)}, key=str))
            credits.append(CreditReport(names[site], texts, causes, not plan.estimators[site].flow, devices))
        operation, line = (equation.name, equation.line) if equation is not None else ("input", "the call")
        return CostReport(tuple(value.shape), operation, line, tuple(credits))

    following = followed(plan.estimators)
    jumps = tuple(
        f"{way.describe()} in {', '.join(names[s] for s in sites if s in way.sources & following)}"
        for way in plan.ways
        if way.sources & following
    )
    return Explanation(reports, tuple(map(cost_report, plan.split.costs)), plan.accumulators, jumps, _passes(plan))


def _passes(plan: Plan) -> tuple[PassReport, ...]:
    """What the passes of `make_plan` found, in their order."""
    sites, split = plan.analysis.sites.values(), plan.split
    reached = sum(bool(plan.analysis.of(v)) for e in plan.program.everything() for v in e.outputs)
    chosen = Counter(_estimator(plan, site) for site in sites)
    found = {
        "trace": _count(sum(1 for _ in plan.program.everything()), "operation"),
        "dependence": f"{_count(len(sites), 'draw')}, {_count(reached, 'value')} that draws reach",
        "constants": _count(len(plan.analysis.constants), "value") + " known before the run",
        "paths": f"{_count(len(plan.ways), 'place')} where costs are blind to draws",
        "hoisting": f"{_count(len(plan.accumulators), 'loop')} whose sums of costs are taken apart",
        "costs": f"{_count(len(split.costs), 'cost')}, {_count(len(split.suffix), 'linear operation')} after them",
        "estimators": ", ".join(f"{name} ({n})" for name, n in chosen.items()) or "none",
        "schedule": f"{_count(len(plan.prologue), 'operation')} before the first draw, {len(plan.body)} after it, "
        f"{len(plan.nonlocal_equations)} of them followed by the rest of the program more than once",
    }
    return tuple(PassReport(name, text) for name, text in found.items())


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _estimator(plan: Plan, site: Site) -> str:
    estimator = plan.estimators[site]
    if isinstance(estimator, Held):
        named = "held fixed" + " (biased)" * estimator.biased
        return named if site.estimator is not None else "constant distribution, drawn as it is"
    return estimator.title + " (biased)" * estimator.biased


def _names(sites: list[Site]) -> dict[Site, str]:
    """A name for each site, numbered if several share it."""
    plain = [site.name for site in sites]
    return {
        s: n if plain.count(n) == 1 else f"{n}#{plain[:i].count(n)}"
        for i, (s, n) in enumerate(zip(sites, plain, strict=True))
    }


def describe_window(window: Window, plate: int, value: Value) -> str:
    """A window in words."""
    low, high = window.low, window.high
    axis = window.simple_axis
    if window.axes and window.separate and not isinstance(axis, int):
        return "same"  # in another order, or an axis that was split or merged
    if not isinstance(axis, int):
        if window.axes:
            whole = window.without(window.axes, value.shape, None)
            first, last = max(whole.low, 0), min(whole.high, plate - 1)
            return "mixed" if first == 0 and last == plate - 1 else f"within draws {first:g}..{last:g}"
        first, last = max(low, 0), min(high, plate - 1)
        if first == 0 and last == plate - 1:
            return "mixed" if plate > 1 else "same"
        return "no draw" if last < first else f"draws {first:g}..{last:g}"
    if low == high:
        return "same" if low == 0 else f"same, shifted by {low:g}"
    length = value.shape[axis]
    if low <= 1 - length and high >= plate - 1:
        return "mixed"
    if math.isinf(low) or low <= 1 - length:
        return "earlier" if high == 0 else f"earlier, up to {high:+g}"
    if math.isinf(high) or high >= plate - 1:
        return "later" if low == 0 else f"later, from {low:+g}"
    return f"within {low:g}..{high:g}"
