"""For each primitive, where the axes of its operands go: the exact rules of the dependence pass.

A rule gives, for each result and each operand, a mapping from operand axis to a `Move`: entry `i` of the result along
`axis` reads only entries `i + low .. i + high` of the operand's axis. An axis that is missing is read as a whole.
`None` in place of a mapping says that the result does not depend on the operand at all. A primitive without a rule
loses every axis, which is sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from mcgrad.program.trace import Constant, Equation


class Move(NamedTuple):
    """Entry `i` of the result along `axis` reads entries `i + low .. i + high`; without an axis, `low .. high`."""

    axis: int | None
    low: float = 0
    high: float = 0


Moves: TypeAlias = Mapping[int, Move]
ByOperand: TypeAlias = "list[Moves | None]"


def moves_of(equation: Equation) -> list[ByOperand]:
    """For each result, for each operand, where the operand's axes go."""
    rule = RULES.get(equation.name)
    if rule is None:
        return [[{} for _ in equation.inputs]] * len(equation.outputs)
    found: Any = rule(equation)
    return found if isinstance(found[0], list) else [found] * len(equation.outputs)


def _identity(ndim: int, without: tuple[int, ...] = ()) -> Moves:
    return {axis: Move(axis) for axis in range(ndim) if axis not in without}


def _elementwise(equation: Equation) -> ByOperand:
    shape = equation.outputs[0].shape
    return [
        {a: Move(a) if n == shape[a] else Move(None, 0, 0) for a, n in enumerate(v.shape)}  # size 1 is broadcast
        if len(v.shape) == len(shape)
        else {}
        for v in equation.inputs
    ]


def _per_operand(equation: Equation) -> list[ByOperand]:
    n = len(equation.inputs)
    return [[_identity(len(v.shape)) if i == j else None for i in range(n)] for j, v in enumerate(equation.inputs)]


def _drop_axes(equation: Equation, axes: tuple[int, ...], operand: int = 0) -> Moves:
    kept = [a for a in range(len(equation.inputs[operand].shape)) if a not in axes]
    return {axis: Move(i) for i, axis in enumerate(kept)}


def _reduce(equation: Equation) -> ByOperand:
    params = equation.eqn.params
    axes = tuple(params["axes"] if "axes" in params else params["dimensions"])
    return [_drop_axes(equation, axes, i) if v.shape else {} for i, v in enumerate(equation.inputs)]


def _broadcast(equation: Equation) -> ByOperand:
    source, shape = equation.inputs[0].shape, equation.outputs[0].shape
    where = equation.eqn.params["broadcast_dimensions"]
    moves = {a: Move(b) if source[a] == shape[b] else Move(None, 0, 0) for a, b in enumerate(where)}
    return [moves, *[{} for _ in equation.inputs[1:]]]


def _transpose(equation: Equation) -> ByOperand:
    return [{a: Move(i) for i, a in enumerate(equation.eqn.params["permutation"])}]


def _reshape(equation: Equation) -> ByOperand:
    """An axis survives where the sizes before it, and its own, are the same on both sides.

    With `dimensions`, which `order="F"` makes, the operand's axes are read in that order.
    """
    source, target = equation.inputs[0].shape, equation.outputs[0].shape
    order = equation.eqn.params.get("dimensions") if equation.name == "reshape" else None
    starts = {(math.prod(target[:j]), n): j for j, n in reversed(list(enumerate(target))) if n > 1}
    moves, before = {}, 1
    for a in order or range(len(source)):
        if source[a] == 1:
            moves[a] = Move(None, 0, 0)
        elif (j := starts.get((before, source[a]))) is not None:
            moves[a] = Move(j)
        before *= source[a]
    return [moves, *[{} for _ in equation.inputs[1:]]]


def _cumulative(equation: Equation) -> ByOperand:
    axis, reverse = equation.eqn.params["axis"], equation.eqn.params["reverse"]
    moves = dict(_identity(len(equation.inputs[0].shape)))
    moves[axis] = Move(axis, 0, math.inf) if reverse else Move(axis, -math.inf, 0)
    return [moves]


def _dot_general(equation: Equation) -> ByOperand:
    (left_sum, right_sum), (left_batch, right_batch) = equation.eqn.params["dimension_numbers"]
    sides = []
    position = len(left_batch)
    for operand, summed, batch in ((0, left_sum, left_batch), (1, right_sum, right_batch)):
        moves = {axis: Move(i) for i, axis in enumerate(batch)}
        for axis in range(len(equation.inputs[operand].shape)):
            if axis not in summed and axis not in batch:
                moves[axis] = Move(position)
                position += 1
        sides.append(moves)
    return sides


def _convolution(equation: Equation) -> ByOperand:
    """Only the batch axis of the images and the output features of the kernel stay apart."""
    params = equation.eqn.params
    lhs, rhs, out = params["dimension_numbers"]
    images = {lhs[0]: Move(out[0])} if params["batch_group_count"] == 1 else {}
    return [images, {rhs[0]: Move(out[1])}]


def _concatenate(equation: Equation) -> ByOperand:
    dimension, start, result = equation.eqn.params["dimension"], 0, []
    for value in equation.inputs:
        moves = dict(_identity(len(value.shape)))
        moves[dimension] = Move(dimension, -start, -start)
        start += value.shape[dimension]
        result.append(moves)
    return result


def _stack(equation: Equation) -> ByOperand:
    new = equation.eqn.params["axis"]
    return [{a: Move(a if a < new else a + 1) for a in range(len(v.shape))} for v in equation.inputs]


def _unstack(equation: Equation) -> list[ByOperand]:
    gone = equation.eqn.params["axis"]
    kept = _drop_axes(equation, (gone,))
    return [[{**kept, gone: Move(None, j, j)}] for j in range(len(equation.outputs))]


def _sliced(axis: int, start: int, size: int, stride: int = 1) -> Move:
    return Move(axis, start, start) if stride == 1 else Move(None, start, start + (size - 1) * stride)


def _slice(equation: Equation) -> ByOperand:
    params = equation.eqn.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    sizes = equation.outputs[0].shape
    starts = zip(params["start_indices"], sizes, strides, strict=True)
    return [{a: _sliced(a, start, size, stride) for a, (start, size, stride) in enumerate(starts)}]


def _split(equation: Equation) -> list[ByOperand]:
    axis, start, results = equation.eqn.params["axis"], 0, []
    for size in equation.eqn.params["sizes"]:
        moves = dict(_identity(len(equation.inputs[0].shape)))
        moves[axis] = Move(axis, start, start)
        results.append([moves])
        start += int(size)
    return results


def _start(value: object, length: int, size: int) -> int | None:
    """A start index that is known before the program runs, clamped as JAX clamps it."""
    if isinstance(value, Constant) and value.literal:
        return min(max(int(value.value), 0), length - size)
    return 0 if length == size else None


def _dynamic_slice(equation: Equation) -> ByOperand:
    source, *indices = equation.inputs
    moves = {}
    for a, (length, size) in enumerate(zip(source.shape, equation.outputs[0].shape, strict=True)):
        if (start := _start(indices[a], length, size)) is not None:
            moves[a] = Move(a, start, start)
    return [moves, *[{} for _ in indices]]


def _dynamic_update_slice(equation: Equation) -> ByOperand:
    source, update, *indices = equation.inputs
    moves = {}
    for a, (length, size) in enumerate(zip(source.shape, update.shape, strict=True)):
        if (start := _start(indices[a], length, size)) is not None:
            moves[a] = Move(a, -start, -start)
    return [_identity(len(source.shape)), moves, *[{} for _ in indices]]


def _pad(equation: Equation) -> ByOperand:
    config = equation.eqn.params["padding_config"]
    return [{a: Move(a, -low, -low) for a, (low, _, interior) in enumerate(config) if interior == 0}, {}]


def _other_axes(name: str) -> Callable[[Equation], ByOperand]:
    def rule(equation: Equation) -> ByOperand:
        axes = equation.eqn.params[name]
        axes = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
        return [_identity(len(v.shape), axes) for v in equation.inputs]

    return rule


def _top_k(equation: Equation) -> ByOperand:
    ndim = len(equation.inputs[0].shape)
    return [_identity(ndim, (equation.eqn.params.get("axis", ndim - 1) % ndim,))]


def _leading_axes(equation: Equation) -> list[ByOperand]:
    """Linear algebra: all axes but the last two are batch axes."""
    operands = [_identity(len(v.shape), (len(v.shape) - 2, len(v.shape) - 1)) for v in equation.inputs]
    return [[{a: m for a, m in moves.items() if a < len(out.shape)} for moves in operands] for out in equation.outputs]


def _window(equation: Equation) -> ByOperand:
    """Pooling: axes with a window of one entry."""
    params = equation.eqn.params
    names = ("window_dimensions", "window_strides", "base_dilation", "padding")
    axes = enumerate(zip(*(params[name] for name in names), strict=True))
    kept = {a: Move(a) for a, (*ones, padding) in axes if ones == [1, 1, 1] and tuple(padding) == (0, 0)}
    return [kept if len(v.shape) == len(params["window_dimensions"]) else {} for v in equation.inputs]


def _gather(equation: Equation) -> ByOperand:
    source, indices = equation.inputs
    params = equation.eqn.params
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    out_ndim = len(equation.outputs[0].shape)
    batch = [a for a in range(out_ndim) if a not in numbers.offset_dims]
    by_index = {a: Move(batch[a]) for a in range(len(indices.shape) - 1)}
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    windows = [a for a in range(len(source.shape)) if a not in gone]
    by_source = {}
    for a, out in zip(windows, numbers.offset_dims, strict=True):
        # Out-of-bounds windows are clamped or filled: a whole axis is read in place whatever the index.
        if sizes[a] == source.shape[a]:
            by_source[a] = Move(out)
    for a, b in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        by_source[a] = by_index[b]
    return [by_source, by_index]


def _scatter(equation: Equation) -> ByOperand:
    source, indices, updates = equation.inputs
    numbers = equation.eqn.params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = [a for a in range(len(source.shape)) if a not in gone]
    by_update = {}
    for u, a in zip(numbers.update_window_dims, windows, strict=True):
        if updates.shape[u] == source.shape[a]:
            by_update[u] = Move(a)
    scatter_axes = [u for u in range(len(updates.shape)) if u not in numbers.update_window_dims]
    by_index = {}
    for a, b in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True):
        by_index[b] = Move(a)
        by_update[scatter_axes[b]] = Move(a)
    return [_identity(len(source.shape)), by_index, by_update]


_ELEMENTWISE = [
    "abs",
    "acos",
    "acosh",
    "add",
    "add_any",
    "and",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bessel_i0e",
    "bessel_i1e",
    "bitcast_convert_type",
    "cbrt",
    "ceil",
    "clamp",
    "clz",
    "complex",
    "conj",
    "convert_element_type",
    "copy",
    "copy_p",
    "cos",
    "cosh",
    "digamma",
    "div",
    "eq",
    "eq_to",
    "erf",
    "erf_inv",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "ge",
    "gt",
    "igamma",
    "igamma_grad_a",
    "igammac",
    "imag",
    "integer_pow",
    "is_finite",
    "le",
    "le_to",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "logistic",
    "lt",
    "lt_to",
    "max",
    "min",
    "mul",
    "mulhi",
    "one_minus_square",
    "ne",
    "neg",
    "nextafter",
    "not",
    "or",
    "polygamma",
    "population_count",
    "pow",
    "pvary",
    "random_gamma_grad",
    "real",
    "reduce_precision",
    "regularized_incomplete_beta",
    "rem",
    "round",
    "rsqrt",
    "select_n",
    "shift_left",
    "shift_right_arithmetic",
    "shift_right_logical",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "sub",
    "tan",
    "tanh",
    "xor",
    "zeta",
]
_REDUCTIONS = ["sum", "prod", "max", "min", "and", "or", "xor", "precision_sum"]

RULES: dict[str, Callable[[Equation], ByOperand | list[ByOperand]]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys([f"reduce_{name}" for name in _REDUCTIONS], _reduce),
    **dict.fromkeys(("argmax", "argmin", "reduce"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _cumulative),
    **dict.fromkeys(
        ("cholesky", "triangular_solve", "lu", "eigh", "eig", "svd", "geqrf", "householder_product"), _leading_axes
    ),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window"), _window),
    **dict.fromkeys(
        (
            "scatter",
            "scatter-add",
            "scatter-sub",
            "scatter-mul",
            "scatter-min",
            "scatter-max",
            "scatter_add",
            "scatter_mul",
            "scatter_min",
            "scatter_max",
        ),
        _scatter,
    ),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "expand_dims": _reshape,
    "gather": _gather,
    **dict.fromkeys(("optimization_barrier", "device_put", "sharding_constraint"), _per_operand),
    "pad": _pad,
    "reshape": _reshape,
    "rev": _other_axes("dimensions"),
    "slice": _slice,
    "sort": _other_axes("dimension"),
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "squeeze": lambda equation: [
        {
            **{a: Move(None, 0, 0) for a in equation.eqn.params["dimensions"]},
            **_drop_axes(equation, tuple(equation.eqn.params["dimensions"])),
        }
    ],
    "top_k": _top_k,
    "transpose": _transpose,
}
