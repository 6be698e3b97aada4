"""Distributions of sequences in a program: how what `conditionals(x)` returns is laid out, and which draw it scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad.distributions.wrappers.autoregressive import conditionals_p
from mcgrad.distributions.wrappers.foreign import as_distribution
from mcgrad.program.density import log_density
from mcgrad.program.draw import Draw
from mcgrad.program.site import Site, under_vmaps
from mcgrad.program.trace import Constant, Equation, Value

Axes = dict[int, int]


def log_prob_of(equation: Equation, operands: Sequence[Any]) -> Array:
    """The log density of each entry of a sequence, from the operands of its `conditionals`."""
    params = equation.eqn.params
    first = 1 + params["num_own"]

    def base(x: Array, leaves: list[Array]) -> Array:
        return log_density(as_distribution(jax.tree.unflatten(params["tree"], leaves)), x)

    levels = [(level[0], list(level[first:])) for level in params["levels"]]
    return under_vmaps(base, levels)(operands[0], list(operands[first:]))


def leaf_axes(equation: Equation, axes_of_entries: Callable[..., Any]) -> tuple[list[Axes], int]:
    """For each result of `conditionals`, where the axes of the sequence are in it; and along which its entries depend."""
    first = 1 + equation.eqn.params["num_own"]
    values = [equation.inputs[0], *equation.inputs[first:]]
    structs = [_mesh.placeholder(value.aval) for value in values]
    padding = [None] * (first - 1)

    def log_prob(x: Array, *leaves: Array) -> Array:
        return log_prob_of(equation, [x, *padding, *leaves])

    leaves = axes_of_entries(log_prob, structs)[1:]
    places: list[Axes] = [{to: axis for axis, to in enumerate(leaf or ()) if to is not None} for leaf in leaves]
    return places, jax.eval_shape(log_prob, *structs).ndim - 1


def scored(
    sites: Mapping[Equation, Site], body: Sequence[Equation], estimators: Mapping[Site, Any]
) -> dict[Equation, Site]:
    """The `conditionals` among equations that the score of a draw can be taken of, with that draw.

    They are of the draw itself, by the very distribution that it was drawn from: another one may be evaluated at it too.
    """
    drawn = {e.outputs[0]: sites[e] for e in body if e in sites}
    found: dict[Site, Equation] = {}
    for equation in body:
        if equation.eqn.primitive is conditionals_p:
            site = drawn.get(equation.inputs[0])
            if site is not None and estimators[site].scores_its_draw and _of_the_same(equation, site):
                found.setdefault(site, equation)
    return {equation: site for site, equation in found.items()}


def _of_the_same(equation: Equation, site: Site) -> bool:
    params, own = equation.eqn.params, site.parameters
    operands = equation.inputs[1 : 1 + params["num_own"]]
    sequences = getattr(site.base_dist, "sequences", None)
    return (
        sequences is not None
        and params["own_tree"] == jax.tree.structure(sequences)
        and len(params["levels"]) == site.num_levels
        and all(map(_is_same, operands, own))
    )


def _is_same(a: Value, b: Value) -> bool:
    return a is b or (isinstance(a, Constant) and isinstance(b, Constant) and a.value is b.value)


@dataclasses.dataclass(frozen=True)
class Scored(Draw):
    """A draw that has been made, and whose log density is known."""

    x: Any = None
    log_density: Any = None

    @classmethod
    def of(cls, draw: Draw, equation: Equation, operands: Sequence[Any]) -> Scored:
        """A draw, with the log density that its `conditionals` give it."""
        return cls(**vars(draw), x=operands[0], log_density=log_prob_of(equation, operands))

    def sample(self, index: Any = None) -> Any:
        return self.x

    def log_prob(self, x: Any) -> Array:
        return self.log_density
