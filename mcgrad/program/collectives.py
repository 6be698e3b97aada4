"""Values that read the draws of other devices, or of other entries of a `vmap`, through a collective such as `psum`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from mcgrad import _compat, _mesh
from mcgrad.program.forward import Forward
from mcgrad.program.site import Site
from mcgrad.program.structure import ShardView
from mcgrad.program.trace import Equation, Program, Value


class Coupling(NamedTuple):
    """A named axis along which a value depends on the draws of all devices, or of all entries, and by which collective."""

    site: Site
    axis: Any
    cause: Equation


def couplings(program: Program, sites_of: Callable[[Value], Collection[Site]]) -> dict[Value, frozenset[Coupling]]:
    """The couplings of all values of a program that have some, given the draws that each value depends on."""
    if not any(map(open_axes, program.equations)):
        return {}
    found = _Pass(sites_of)
    found.run(program, [frozenset()] * len(program.inputs))
    return found.facts


def open_axes(equation: Equation) -> frozenset[Any]:
    """The named axes that an operation reads other entries along, those left out that a `shard_map` in it maps over."""
    inner = frozenset().union(*(open_axes(e) for body in equation.bodies for e in body.equations))
    own = ShardView(equation).axes if equation.name == _compat.SHARD_MAP else ()
    return inner.difference(own).union(_mesh.collective_axes(equation.eqn))


class _Pass(Forward[frozenset[Coupling]]):
    nothing = frozenset()

    def __init__(self, sites_of: Callable[[Value], Collection[Site]]):
        super().__init__()
        self.sites_of = sites_of
        self.closed: tuple[Any, ...] = ()

    def equation(self, equation: Equation, inputs: list[frozenset[Coupling]]) -> list[frozenset[Coupling]]:
        outer = self.closed
        self.closed = (*outer, *(ShardView(equation).axes if equation.name == _compat.SHARD_MAP else ()))
        found = super().equation(equation, inputs)
        self.closed = outer
        return found

    def apply(self, equation: Equation, inputs: list[frozenset[Coupling]]) -> list[frozenset[Coupling]]:
        sites = {site for value in equation.inputs for site in self.sites_of(value)}
        axes = open_axes(equation).difference(self.closed) if sites else ()
        own = {Coupling(site, axis, equation) for axis in axes for site in sites if _differs(site, axis)}
        return [frozenset(own).union(*inputs)] * len(equation.outputs)

    def join(self, parts: Sequence[frozenset[Coupling]], value: Value, cause: Equation) -> frozenset[Coupling]:
        return frozenset().union(*parts)


def _differs(site: Site, axis: Any) -> bool:
    """Whether a draw may differ along an axis: one that all devices share is one draw."""
    return axis in _mesh.varying_axes(site.equation.outputs[0].aval) or not _mesh.is_checked(axis)
