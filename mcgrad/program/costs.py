"""Costs: which values of a program are credited with which draws, and how their weights are brought to them.

Walking back from the outputs, the operations that are linear in what draws reach (sums, means, constant factors,
reshapes, ...) are split off as the *linear suffix*; the values at its frontier are the **costs**. A value is split only
where that gains credit: where a part is reached by fewer draws than the whole. So weights sit on as few numbers, as late
in the program, as credit allows, and the suffix is replayed on the weighted costs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.program.dependence import Analysis, Relation, Window, axis_length
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value


@dataclasses.dataclass(frozen=True)
class Split:
    """A program cut into its costs and the linear suffix behind them."""

    costs: tuple[Value, ...]
    suffix: tuple[Equation, ...]


def split_costs(
    program: Program,
    outputs: Sequence[Value],
    analysis: Analysis,
    credited: set[Site],
    sums: frozenset[Equation] = frozenset(),
) -> Split:
    """Split the outputs into costs and a linear suffix, for the credit of the sites in `credited`.

    `sums` are those of a value that draws reach and of one that none does: they are always split.
    """
    producer = {value: equation for equation in program.equations for value in equation.outputs}
    splits: dict[Value, tuple[tuple[Value, ...], frozenset[Equation]]] = {}

    def reached(value: Value) -> dict[Site, Relation]:
        return {site: r for site, r in analysis.of(value).items() if site in credited}

    def split(value: Value) -> tuple[tuple[Value, ...], frozenset[Equation]]:
        if value not in splits:
            splits[value] = whole = ((value,), frozenset())
            equation = producer.get(value)
            parts = linear_parts(equation, analysis) if equation is not None else None
            if equation is not None and parts:
                found = [split(part) for part in parts]
                front = tuple(dict.fromkeys(v for costs, _ in found for v in costs))
                behind = frozenset({equation}).union(*(equations for _, equations in found))
                gains = any(_gains_credit(reached(part), reached(value), part, value) for part in front)
                gains |= equation.name == "cumsum" and _adds_draws_up(equation, reached(equation.inputs[0]))
                gains |= equation in sums or bool(behind - {equation})  # a part has gained already
                splits[value] = (front, behind) if gains else whole
        return splits[value]

    for value in linear_cone(program, outputs, analysis):
        split(value)
    costs: dict[Value, None] = {}
    suffix: set[Equation] = set()
    for output in outputs:
        if analysis.of(output):
            front, behind = split(output)
            costs.update(dict.fromkeys(front))
            suffix |= behind
    return Split(tuple(costs), tuple(e for e in program.equations if e in suffix))


def _gains_credit(part: dict[Site, Relation], whole: dict[Site, Relation], value: Value, target: Value) -> bool:
    """Whether a part is reached by fewer draws than the whole."""
    return any(
        site not in part
        or number_of_draws(part[site], site, value) < number_of_draws(relation, site, target) * (1 - 1e-9)
        for site, relation in whole.items()
    )


def _adds_draws_up(equation: Equation, part: dict[Site, Relation]) -> bool:
    """Whether a cumulative sum adds entries up that different draws reach."""
    axis = equation.eqn.params["axis"]
    return any(window.axis == axis for relation in part.values() for window in relation)


def number_of_draws(relation: Relation, site: Site, value: Value) -> float:
    """How many draws of a site an entry of a value depends on, on average."""
    axes = zip(relation, site.plates, strict=True)
    return math.prod(w.draws(axis_length(w.axis, value.shape), n) for w, n in axes)


_LINEAR = frozenset(
    [
        "add",
        "add_any",
        "sub",
        "neg",
        "reduce_sum",
        "reshape",
        "broadcast_in_dim",
        "squeeze",
        "expand_dims",
        "transpose",
        "copy",
        "copy_p",
        "concatenate",
        "stack",
        "slice",
        "split",
        "rev",
        "pad",
        "cumsum",
    ]
)
"""Linear in all operands together."""

_LINEAR_IN_FIRST = frozenset(["div", "dynamic_slice", "gather", "reduce_window_sum"])
"""Linear in the first operand, if no draw reaches the others."""

_BILINEAR = frozenset(["mul", "dot_general"])


def linear_parts(equation: Equation, analysis: Analysis) -> list[Value] | None:
    """The operands that draws reach, if the operation is linear in them."""
    parts = [v for v in equation.inputs if analysis.of(v)]
    if not all(jnp.issubdtype(v.dtype, jnp.floating) for v in parts):
        return None
    name, inputs = equation.name, equation.inputs
    linear = (
        name in _LINEAR
        or (name == "convert_element_type" and jnp.issubdtype(equation.outputs[0].dtype, jnp.floating))
        or (name in _LINEAR_IN_FIRST and parts == [inputs[0]])
        or (name in _BILINEAR and len(parts) == 1)
        or (name == "select_n" and not analysis.of(inputs[0]))
    )
    return list(dict.fromkeys(parts)) if linear else None


def linear_cone(program: Program, outputs: Sequence[Value], analysis: Analysis) -> list[Value]:
    """The values that the outputs are linear in, in order: what goes through them in turn need not recurse far."""
    cone = set(outputs)
    for equation in reversed(program.equations):
        if not cone.isdisjoint(equation.outputs):
            cone.update(linear_parts(equation, analysis) or ())
    return [value for equation in program.equations for value in equation.outputs if value in cone]


def expand_right(x: jax.Array, ndim: int) -> jax.Array:
    """An array with axes of size one added behind, to `ndim` axes."""
    return jnp.expand_dims(x, tuple(range(x.ndim, ndim)))


def bring(weights: jax.Array, relation: Relation, shape: Any, *, once: bool = False) -> jax.Array:
    """Sum a site's weights, of shape `plates`, over the window of each entry of a cost; broadcasts against `shape`.

    Args:
        weights: of the site's shape `plates`.
        relation: how the cost depends on the site.
        shape: the cost's.
        once: count each plate entry at one cost entry only, the first that depends on it.
    """
    placed: list[Any] = []
    # From the last plate axis to the first, so that axes still to come keep their place.
    for k in reversed(range(len(relation))):
        window = relation[k]
        if not isinstance(window.axis, int) or window.axis in placed:
            low = 0 if window.axis is not None else max(int(max(window.low, 0)), 0)
            high = weights.shape[k] if window.axis is not None else int(min(window.high, weights.shape[k] - 1)) + 1
            whole = low == 0 and high == weights.shape[k]
            chosen = weights if whole else jax.lax.slice_in_dim(weights, low, max(high, low), axis=k)
            weights = jnp.sum(chosen, axis=k)
        else:
            if once:
                late = window.high if math.isfinite(window.high) else window.low
                window = Window(window.axis, late, late)
            weights = _sum_window(weights, k, window, shape[window.axis])
            placed.insert(0, window.axis)
    weights = jnp.transpose(weights, tuple(np.argsort(placed).tolist()))
    return jnp.expand_dims(weights, [a for a in range(len(shape)) if a not in placed])


def _sum_window(x: jax.Array, axis: int, window: Window, length: int) -> jax.Array:
    """`y[i] = sum_{j = i + low}^{i + high} x[j]` along an axis, for `i < length`; entries outside are zero."""
    n = x.shape[axis]
    low, high = max(window.low, 1 - length), min(window.high, n - 1)
    if high < low:
        return jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.dtype)
    if low <= 1 - length and high - low > _FEW:  # everything up to i + high
        return _shifted(jnp.cumsum(x, axis=axis), axis, int(high), length, edge=True)
    if high >= n - 1 and high - low > _FEW:  # everything from i + low
        backward = jax.lax.cumsum(x, axis=axis, reverse=True)
        return jnp.flip(_shifted(jnp.flip(backward, axis), axis, int(n - length - low), length, edge=True), axis)
    if high - low > _FEW:  # a wide band: a wider window is sound
        return _sum_window(x, axis, Window(window.axis, -math.inf, window.high), length)
    parts = [_shifted(x, axis, shift, length, edge=False) for shift in range(int(low), int(high) + 1)]
    return sum(parts[1:], parts[0])


_FEW = 4  # a band this wide is summed term by term


def _shifted(x: jax.Array, axis: int, shift: int, length: int, *, edge: bool) -> jax.Array:
    """`y[i] = x[i + shift]` for `i < length`; zero outside, or past the end the last entry where `edge`."""
    n = x.shape[axis]
    if shift == 0 and length == n:
        return x
    if edge and length + shift > n:
        last = jax.lax.slice_in_dim(x, n - 1, n, axis=axis)
        more = jnp.broadcast_to(last, (*x.shape[:axis], length + shift - n, *x.shape[axis + 1 :]))
        x = jnp.concatenate([x, more], axis=axis)
        n = length + shift
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (-shift, length + shift - n, 0)  # negative padding cuts
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)
