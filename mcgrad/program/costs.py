"""Costs: which values of a program are credited with which draws, and how their weights are brought to them.

Walking back from the outputs, the operations that are linear in what draws reach (sums, means, constant factors,
reshapes, ...) are split off as the *linear suffix*; the values at its frontier are the **costs**. A value is split only
where that gains credit: where a part is reached by fewer draws than the whole. So weights sit on as few numbers, as late
in the program, as credit allows, and the suffix is replayed on the weighted costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from mcgrad.program.dependence import Analysis
from mcgrad.program.primitives import linear_group
from mcgrad.program.relation import Relation, number_of_draws
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value


@dataclasses.dataclass(frozen=True)
class Split:
    """A program cut into its costs and the linear suffix behind them."""

    costs: tuple[Value, ...]
    suffix: tuple[Equation, ...]


class _Part(NamedTuple):
    """A value that the outputs are linear in: the values that it is split into, if it is, and whether credit is gained there."""

    parts: tuple[Value, ...] = ()
    gained: bool = False
    real: bool = True  # whether all values that it is split into, in the end, are


def _is_real(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def split_costs(
    program: Program,
    outputs: Sequence[Value],
    analysis: Analysis,
    credited: set[Site],
    sums: frozenset[Equation] = frozenset(),
) -> Split:
    """Split the outputs into costs and a linear suffix, for the credit of the sites in `credited`.

    `sums` are additions of a value that depends on draws and one that depends on none: they are always split.
    """
    producer = {value: equation for equation in program.equations for value in equation.outputs}
    seen: dict[Value, _Part] = {}

    def reached(value: Value) -> dict[Site, Relation]:
        return {site: r for site, r in analysis.of(value).items() if site in credited}

    def couples(value: Value) -> set[tuple[Site, Any]]:
        return {(c.site, c.axis) for c in analysis.couplings(value) if c.site in credited}

    def front(values: Iterable[Value]) -> Iterator[Value]:
        """The values that some are split into in the end."""
        left = list(values)
        while left:
            value = left.pop()
            further = seen[value].parts
            left += further
            if not further:
                yield value

    def split(value: Value) -> _Part:
        own = _Part(real=_is_real(value))
        equation = producer.get(value)
        parts = linear_parts(equation, analysis) if equation is not None else None
        if equation is None or not parts:
            return own
        found = [seen[part] for part in parts]
        gains = equation in sums or any(part.gained for part in found)
        gains |= equation.name == "cumsum" and _adds_draws_up(equation, reached(equation.inputs[0]))
        gains = gains or any(couples(value) - couples(part) for part in front(parts))
        gains = gains or any(gains_credit(reached(part), reached(value), part, value) for part in front(parts))
        real = all(part.real for part in found)
        # What is complex is no cost: it is split in any case, in the hope of real numbers before it.
        return _Part(tuple(parts), gains, real) if not own.real or (gains and real) else own

    cone = linear_cone(program, outputs, analysis)
    for value in cone:
        seen[value] = split(value)
    needed = {output for output in outputs if analysis.of(output)}
    suffix: set[Equation] = set()
    for value in reversed(cone):
        if value in needed and (parts := seen[value].parts):
            needed.update(parts)
            suffix.add(producer[value])
    costs = (value for value in cone if value in needed and not seen[value].parts)
    return Split(tuple(costs), tuple(e for e in program.equations if e in suffix))


def gains_credit(part: Mapping[Any, Relation], whole: Mapping[Site, Relation], value: Value, target: Value) -> bool:
    """Whether a part is reached by fewer draws than the whole."""
    return any(
        site not in part
        or number_of_draws(part[site], site, value) < number_of_draws(relation, site, target) * (1 - 1e-9)
        for site, relation in whole.items()
    )


def _adds_draws_up(equation: Equation, part: dict[Site, Relation]) -> bool:
    """Whether a cumulative sum adds up entries that depend on different draws."""
    axis = equation.eqn.params["axis"]
    return any(axis in window.axes for relation in part.values() for window in relation)


def linear_parts(equation: Equation, analysis: Analysis) -> list[Value] | None:
    """The operands that draws reach, if the operation is linear in them."""
    reached = [i for i, value in enumerate(equation.inputs) if analysis.of(value)]
    if linear_group(equation, reached) is None:
        return None
    return list(dict.fromkeys(equation.inputs[i] for i in reached))


def linear_cone(program: Program, outputs: Sequence[Value], analysis: Analysis) -> list[Value]:
    """The values that the outputs are linear in, in order, so that a pass over them need not recurse deeply."""
    cone = set(outputs)
    for equation in reversed(program.equations):
        if not cone.isdisjoint(equation.outputs):
            cone.update(linear_parts(equation, analysis) or ())
    values = (*program.inputs, *(value for equation in program.equations for value in equation.outputs))
    return [value for value in values if value in cone]
