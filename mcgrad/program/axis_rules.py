"""Where the axes of operands go: the axis rules of JAX's primitives.

A rule is a function of an equation and of what is known before the run. It gives, for each operand (or for each result a
list of these), a mapping from operand axis to a `Move` or a `Take`; an axis that is missing is read as a whole. `None`
in place of a mapping says that the result does not depend on the operand at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from mcgrad.program.known import Known
from mcgrad.program.relation import Move, Moves, Regroup, Take
from mcgrad.program.trace import Equation

Steps: TypeAlias = dict[int, Move | Take]

ByOperand: TypeAlias = "list[Moves | None]"

Axes: TypeAlias = "ByOperand | list[ByOperand]"

AxisRule: TypeAlias = Callable[[Equation, Known], Axes]


def _identity(ndim: int, without: tuple[int, ...] = ()) -> Steps:
    return {axis: Move(axis) for axis in range(ndim) if axis not in without}


def whole(equation: Equation, known: Known) -> Axes:
    return [{} for _ in equation.inputs]


def elementwise(equation: Equation, known: Known) -> Axes:
    shape = equation.outputs[0].shape
    return [
        {a: Move(a) if n == shape[a] else Move(None, 0, 0) for a, n in enumerate(v.shape)}  # size 1 is broadcast
        if len(v.shape) == len(shape)
        else {}
        for v in equation.inputs
    ]


def per_operand(equation: Equation, known: Known) -> Axes:
    n = len(equation.inputs)
    return [[_identity(len(v.shape)) if i == j else None for i in range(n)] for j, v in enumerate(equation.inputs)]


def collective(equation: Equation, known: Known) -> Axes:
    """Also along axes of the operands: those of a `vmap` with a name have become such."""
    gone = tuple(axis for axis in equation.eqn.params.get("axes", ()) if isinstance(axis, int))
    n = len(equation.inputs)
    return [[_drop_axes(equation, gone, j) if i == j else None for i in range(n)] for j in range(n)]


def _drop_axes(equation: Equation, axes: tuple[int, ...], operand: int = 0) -> Steps:
    kept = [a for a in range(len(equation.inputs[operand].shape)) if a not in axes]
    return {axis: Move(i) for i, axis in enumerate(kept)}


def reduce_axes(equation: Equation, known: Known) -> Axes:
    params = equation.eqn.params
    axes = tuple(params["axes"] if "axes" in params else params["dimensions"])
    return [_drop_axes(equation, axes, i) if v.shape else {} for i, v in enumerate(equation.inputs)]


def broadcast(equation: Equation, known: Known) -> Axes:
    source, shape = equation.inputs[0].shape, equation.outputs[0].shape
    where = equation.eqn.params["broadcast_dimensions"]
    moves = {a: Move(b) if source[a] == shape[b] else Move(None, 0, 0) for a, b in enumerate(where)}
    return [moves, *[{} for _ in equation.inputs[1:]]]


def squeeze(equation: Equation, known: Known) -> Axes:
    gone = tuple(equation.eqn.params["dimensions"])
    return [{**{a: Move(None, 0, 0) for a in gone}, **_drop_axes(equation, gone)}]


def transpose(equation: Equation, known: Known) -> Axes:
    return [{a: Move(i) for i, a in enumerate(equation.eqn.params["permutation"])}]


def cumulative(equation: Equation, known: Known) -> Axes:
    axis, reverse = equation.eqn.params["axis"], equation.eqn.params["reverse"]
    moves: Steps = dict(_identity(len(equation.inputs[0].shape)))
    moves[axis] = Move(axis, 0, math.inf) if reverse else Move(axis, -math.inf, 0)
    return [moves]


def dot_general(equation: Equation, known: Known) -> Axes:
    (left_sum, right_sum), (left_batch, right_batch) = equation.eqn.params["dimension_numbers"]
    sides: ByOperand = []
    position = len(left_batch)
    for operand, summed, batch in ((0, left_sum, left_batch), (1, right_sum, right_batch)):
        moves: Steps = {axis: Move(i) for i, axis in enumerate(batch)}
        for axis in range(len(equation.inputs[operand].shape)):
            if axis not in summed and axis not in batch:
                moves[axis] = Move(position)
                position += 1
        sides.append(moves)
    return sides


def convolution(equation: Equation, known: Known) -> Axes:
    """Only the batch axis of the images and the output features of the kernel stay apart."""
    params = equation.eqn.params
    lhs, rhs, out = params["dimension_numbers"]
    images = {lhs[0]: Move(out[0])} if params["batch_group_count"] == 1 else {}
    return [images, {rhs[0]: Move(out[1])}]


def concatenate(equation: Equation, known: Known) -> Axes:
    dimension, start, result = equation.eqn.params["dimension"], 0, []
    for value in equation.inputs:
        moves: Steps = dict(_identity(len(value.shape)))
        moves[dimension] = Move(dimension, -start, -start)
        start += value.shape[dimension]
        result.append(moves)
    return result


def all_gather(equation: Equation, known: Known) -> Axes:
    """The axis that is gathered along holds the entries of all devices."""
    params = equation.eqn.params
    new, ndim = params["all_gather_dimension"], len(equation.inputs[0].shape)
    if params["tiled"]:
        return [_identity(ndim, (new,))]
    return [{a: Move(a if a < new else a + 1) for a in range(ndim)}]


def stack(equation: Equation, known: Known) -> Axes:
    new = equation.eqn.params["axis"]
    return [{a: Move(a if a < new else a + 1) for a in range(len(v.shape))} for v in equation.inputs]


def unstack(equation: Equation, known: Known) -> Axes:
    gone = equation.eqn.params["axis"]
    kept = _drop_axes(equation, (gone,))
    return [[{**kept, gone: Move(None, j, j)}] for j in range(len(equation.outputs))]


def split(equation: Equation, known: Known) -> Axes:
    axis, start, results = equation.eqn.params["axis"], 0, []
    for size in equation.eqn.params["sizes"]:
        moves: Steps = dict(_identity(len(equation.inputs[0].shape)))
        moves[axis] = Move(axis, start, start)
        results.append([moves])
        start += int(size)
    return results


def top_k(equation: Equation, known: Known) -> Axes:
    ndim = len(equation.inputs[0].shape)
    return [_identity(ndim, (equation.eqn.params.get("axis", ndim - 1) % ndim,))]


def matrices(equation: Equation, known: Known) -> Axes:
    """Linear algebra: all axes but the last two are batch axes."""
    operands = [_identity(len(v.shape), (len(v.shape) - 2, len(v.shape) - 1)) for v in equation.inputs]
    return [[{a: m for a, m in moves.items() if a < len(out.shape)} for moves in operands] for out in equation.outputs]


def pooling(equation: Equation, known: Known) -> Axes:
    """Pooling: axes with a window of one entry."""
    params = equation.eqn.params
    ones = (1,) * len(params["window_dimensions"])
    names = ("window_dimensions", "window_strides", "base_dilation", "padding")
    axes = enumerate(zip(*(params.get(name, ones) for name in names), strict=True))
    kept = {a: Move(a) for a, (*sizes, padding) in axes if sizes == [1, 1, 1] and tuple(padding) == (0, 0)}
    return [kept if len(v.shape) == len(params["window_dimensions"]) else {} for v in equation.inputs]


def reshape(equation: Equation, known: Known) -> Axes:
    """With `dimensions`, which `order="F"` makes, the operand's axes are read in that order."""
    ndim = len(equation.inputs[0].shape)
    order = equation.eqn.params.get("dimensions") if equation.name == "reshape" else None
    return [Regroup(equation.outputs[0].shape, tuple(order or range(ndim))), *[{} for _ in equation.inputs[1:]]]


def _strided(axis: int, start: int, size: int, stride: int) -> Move | Take:
    return Move(axis, start, start) if stride == 1 else Take((axis,), start + stride * np.arange(size))


def slice_(equation: Equation, known: Known) -> Axes:
    params = equation.eqn.params
    strides = params["strides"] or (1,) * len(params["start_indices"])
    starts = zip(params["start_indices"], equation.outputs[0].shape, strides, strict=True)
    return [{a: _strided(a, start, size, stride) for a, (start, size, stride) in enumerate(starts)}]


def rev(equation: Equation, known: Known) -> Axes:
    shape = equation.inputs[0].shape
    turned = {a: Take((a,), np.arange(shape[a])[::-1]) for a in equation.eqn.params["dimensions"]}
    return [{**_identity(len(shape)), **turned}]


def tile(equation: Equation, known: Known) -> Axes:
    shape, reps = equation.inputs[0].shape, equation.eqn.params["reps"]
    return [
        {
            a: Move(a) if r == 1 else Take((a,), np.arange(n * r) % max(n, 1))
            for a, (n, r) in enumerate(zip(shape, reps, strict=True))
        }
    ]


def pad(equation: Equation, known: Known) -> Axes:
    moves: dict[int, Move | Take] = {}
    for a, (low, _, interior) in enumerate(equation.eqn.params["padding_config"]):
        entries = np.arange(equation.outputs[0].shape[a]) - low
        inside = entries % (interior + 1) == 0
        moves[a] = Move(a, -low, -low) if interior == 0 else Take((a,), np.where(inside, entries // (interior + 1), -1))
    return [moves, {}]


def _starts(equation: Equation, indices: Any, sizes: Any, known: Known) -> dict[int, int]:
    """The start indices that are known, clamped as JAX clamps them, by axis."""
    starts = {}
    for a, (index, length, size) in enumerate(zip(indices, equation.inputs[0].shape, sizes, strict=True)):
        value = known.value(index)
        if value is not None or length == size:
            starts[a] = min(max(int(value) if value is not None else 0, 0), length - size)
    return starts


def dynamic_slice(equation: Equation, known: Known) -> Axes:
    _, *indices = equation.inputs
    starts = _starts(equation, indices, equation.outputs[0].shape, known)
    return [{a: Move(a, start, start) for a, start in starts.items()}, *[{} for _ in indices]]


def dynamic_update_slice(equation: Equation, known: Known) -> Axes:
    source, update, *indices = equation.inputs
    starts = _starts(equation, indices, update.shape, known)
    moves = {a: Move(a, -start, -start) for a, start in starts.items()}
    return [_identity(len(source.shape)), moves, *[{} for _ in indices]]


def all_but(name: str) -> AxisRule:
    """All axes but those in a parameter go through."""

    def rule(equation: Equation, known: Known) -> Axes:
        axes = equation.eqn.params[name]
        axes = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
        return [_identity(len(v.shape), tuple(a % len(v.shape) for a in axes)) for v in equation.inputs]

    return rule


def leading(number: Callable[[Equation], int]) -> AxisRule:
    """All axes but the last ones go through."""

    def rule(equation: Equation, known: Known) -> Axes:
        n = number(equation)
        return [_identity(len(v.shape), tuple(range(len(v.shape) - n, len(v.shape)))) for v in equation.inputs]

    return rule


def random_bits(equation: Equation, known: Known) -> Axes:
    """From keys to bits, or to more keys: the axes of the keys come first."""
    kept = min(len(v.shape) for v in (*equation.inputs, *equation.outputs))
    return [_identity(kept) for _ in equation.inputs]


def ragged_dot(equation: Equation, known: Known) -> Axes:
    """Each row of the left operand is multiplied with the matrix of its group."""
    numbers = equation.eqn.params["ragged_dot_dimension_numbers"]
    (left_sum, right_sum), (left_batch, right_batch) = numbers.dot_dimension_numbers
    plain = not left_batch and tuple(numbers.lhs_ragged_dimensions) == (0,) and tuple(left_sum) == (1,)
    if not plain or len(equation.outputs[0].shape) != 2:
        return [{} for _ in equation.inputs]
    return [{0: Move(0)}, {2: Move(1)}, *[{} for _ in equation.inputs[2:]]]


def _as_python(numbers: Any) -> Any:
    """Dimension numbers with integers of Python; JAX may have them as those of NumPy."""
    dims = {name: value for name, value in numbers._asdict().items() if isinstance(value, tuple)}
    return numbers._replace(**{name: tuple(map(int, value)) for name, value in dims.items()})


def gather(equation: Equation, known: Known) -> Axes:
    source, indices = equation.inputs
    params = equation.eqn.params
    numbers, sizes = _as_python(params["dimension_numbers"]), params["slice_sizes"]
    batch = [a for a in range(len(equation.outputs[0].shape)) if a not in numbers.offset_dims]
    by_index = {a: Move(batch[a]) for a in range(len(indices.shape) - 1)}
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    windows = [a for a in range(len(source.shape)) if a not in gone]
    offset = dict(zip(windows, numbers.offset_dims, strict=True))
    by_source: dict[int, Move | Take] = {}
    for a, n in enumerate(source.shape):
        if a in numbers.operand_batching_dims:
            continue
        if (
            sizes[a] == n and a in offset
        ):  # out-of-bounds windows are clamped or filled: the whole axis is read in place
            by_source[a] = Move(offset[a])
            continue
        start = np.zeros((), int)
        if a in numbers.start_index_map:
            start = known.component(indices, numbers.start_index_map.index(a))
            if start is None:
                continue
        last = n - sizes[a]
        is_inside = (start >= 0) & (start <= last)
        start = np.where(is_inside, start, -n) if "FILL" in str(params["mode"]) else np.clip(start, 0, last)
        axes = tuple(batch) if start.ndim else ()
        if a in offset:
            by_source[a] = Take((*axes, offset[a]), start[..., None] + np.arange(sizes[a]))
        else:
            by_source[a] = Take(axes, start)
    for a, b in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        by_source[a] = by_index[b]
    return [by_source, by_index]


def scatter(equation: Equation, known: Known) -> Axes:
    source, indices, updates = equation.inputs
    numbers = _as_python(equation.eqn.params["dimension_numbers"])
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    windows = [a for a in range(len(source.shape)) if a not in gone]
    scattered = [u for u in range(len(updates.shape)) if u not in numbers.update_window_dims]
    sizes = dict(zip(windows, (updates.shape[u] for u in numbers.update_window_dims), strict=True))
    places = {a: known.component(indices, c) for c, a in enumerate(numbers.scatter_dims_to_operand_dims)}
    if "CLIP" in str(equation.eqn.params["mode"]):
        inside = {a: source.shape[a] - sizes.get(a, 1) for a in places}
        places = {a: None if to is None else np.clip(to, 0, inside[a]) for a, to in places.items()}
    one_place = math.prod(indices.shape[:-1]) == 1
    by_update: dict[int, Move | Take] = {}
    for u, a in zip(numbers.update_window_dims, windows, strict=True):
        start = places.get(a, np.zeros((), int))
        if updates.shape[u] == source.shape[a]:
            by_update[u] = Move(a)
        elif start is not None and one_place:
            by_update[u] = Move(a, -int(start.item()), -int(start.item()))
    by_index: dict[int, Move | Take] = {}
    for a, b in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True):
        by_index[b] = Move(a)
        by_update[scattered[b]] = Move(a)
    free = [b for b, u in enumerate(scattered) if u not in by_update and updates.shape[u] > 1]
    if len(free) == 1 and len(numbers.inserted_window_dims) == 1:
        (b,), (a,) = free, numbers.inserted_window_dims
        if (to := places.get(a)) is not None and to.size in (1, updates.shape[scattered[b]]):
            by_update[scattered[b]] = _inverse(
                a, np.broadcast_to(to.reshape(-1), (updates.shape[scattered[b]],)), source.shape[a]
            )
    return [_identity(len(source.shape)), by_index, by_update]


def _inverse(axis: int, to: np.ndarray, length: int) -> Take:
    """What an entry of the result along `axis` reads of entries that go to the places `to`."""
    kept = (to >= 0) & (to < length)
    first, last = np.full(length, len(to)), np.full(length, -1)
    np.minimum.at(first, to[kept], np.flatnonzero(kept))
    np.maximum.at(last, to[kept], np.flatnonzero(kept))
    read = last >= 0
    return Take((axis,), np.where(read, first, -1), int(np.max(np.where(read, last - first, 0), initial=0)))
