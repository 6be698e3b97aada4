"""Values that read the draws of other devices, or of other entries of a `vmap`, through a collective such as `psum`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from mcgrad import _mesh
from mcgrad.program.forward import Forward
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value


class Coupling(NamedTuple):
    """A named axis along which a value depends on the draws of all devices, or of all entries, and by which collective."""

    site: Site
    axis: Any
    cause: Equation


def couplings(program: Program, sites_of: Callable[[Value], Collection[Site]]) -> dict[Value, frozenset[Coupling]]:
    """The couplings of all values of a program that have some, given the draws that each value depends on."""
    if not any(_mesh.collective_axes(equation.eqn) for equation in program.everything()):
        return {}
    found = _Pass(sites_of)
    found.run(program, [frozenset()] * len(program.inputs))
    return found.facts


class _Pass(Forward[frozenset[Coupling]]):
    nothing = frozenset()

    def __init__(self, sites_of: Callable[[Value], Collection[Site]]):
        super().__init__()
        self.sites_of = sites_of

    def apply(self, equation: Equation, inputs: list[frozenset[Coupling]]) -> list[frozenset[Coupling]]:
        sites = {site for value in equation.inputs for site in self.sites_of(value)}
        axes = _mesh.collective_axes(equation.eqn) if sites else ()
        own = {Coupling(site, axis, equation) for axis in axes for site in sites if _differs(site, axis)}
        return [frozenset(own).union(*inputs)] * len(equation.outputs)

    def join(self, parts: Sequence[frozenset[Coupling]], value: Value, cause: Equation) -> frozenset[Coupling]:
        return frozenset().union(*parts)


def _differs(site: Site, axis: Any) -> bool:
    """Whether a draw may differ along an axis: one that all devices share is one draw."""
    return axis in _mesh.varying_axes(site.equation.outputs[0].aval) or not _mesh.is_checked(axis)
