"""Relations: which draws of a site the entries of a value depend on, and how these relations go through operations.

A `Window` says it for one plate axis of a site: *the entry at `i` of the value, along some of its axes, depends only on draws
`t(i) + low .. t(i) + high`*. `t` counts the entries of those axes in order, or is a table of integers where operations have
merged, split, reordered or repeated axes. So it says *same* (0..0), *earlier* (up to i: what a `scan` or a `cumsum`
gives), a shifted or banded dependence, a known permutation, or, with no axes, that the whole value depends on draws
`low .. high`, in the worst case all of them (*mixed*). A wider window than the truth is always sound: it credits a cost with
a draw that it does not depend on, a term of mean zero. So an operation without a rule simply loses the axes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from mcgrad._types import Shape
from mcgrad.program.trace import Equation, Value


@dataclasses.dataclass(frozen=True)
class MeshAxis:
    """A mesh axis inside the body of a `shard_map` over it, for the current device."""

    shards: Equation
    name: Any
    size: int


Axis: TypeAlias = "int | Equation | MeshAxis"
"""An axis of a value; or inside the body of a `scan` that scan's equation, for the current step, and likewise a mesh axis."""

NO_DRAW = -(2**30)
"""In a table: the entry depends on no draw. So far below zero that no shift brings it back."""

MAX_TABLE = 2**22
"""Entries of a table; past it the axes count as mixed. A table of this size takes 16 MiB and some milliseconds."""


class Table:
    """For each entry along some axes, the draw it depends on, or `NO_DRAW`; compared by value."""

    __slots__ = ("draws",)

    def __init__(self, draws: np.ndarray):
        self.draws = np.asarray(draws, np.int32)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Table) and np.array_equal(self.draws, other.draws))

    def __hash__(self) -> int:
        return hash(self.draws.shape)


@dataclasses.dataclass(frozen=True)
class Window:
    """The entry at `i` along `axes` depends on draws `t(i) + low .. t(i) + high`; without axes, every entry on `low .. high`.

    Attributes:
        axes: of the value. One axis may be given by itself, and `None` for none.
        low, high: may be infinite.
        table: `t`; `None` where it counts the entries along the axes, the last axis fastest.
        cause: the operation that widened it.
    """

    axes: tuple[Axis, ...]
    low: float
    high: float
    table: Table | None = None
    cause: Equation | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.axes, tuple):
            object.__setattr__(self, "axes", () if self.axes is None else (self.axes,))

    @property
    def separate(self) -> bool:
        """Whether an entry depends on at most one draw."""
        return self.low == self.high

    @property
    def simple_axis(self) -> Axis | None:
        """The axis whose entry `i` depends on draws `i + low .. i + high`, if there is one."""
        return self.axes[0] if self.table is None and len(self.axes) == 1 else None

    def shifted(self, low: float, high: float) -> Window:
        return dataclasses.replace(self, low=self.low + low, high=self.high + high)

    def entries(self, shape: Sequence[int]) -> np.ndarray | None:
        """`t` as an array over the axes, of a value of this shape; `None` if it would be too large."""
        if self.table is not None:
            return self.table.draws
        lengths = [axis_length(axis, shape) for axis in self.axes]
        size = math.prod(lengths)
        return np.arange(size).reshape(lengths) if size <= MAX_TABLE else None

    def without(self, lost: Container[Axis], shape: Sequence[int], cause: Equation | None) -> Window:
        """The window of all entries along some axes together."""
        kept = tuple(axis for axis in self.axes if axis not in lost)
        if kept == self.axes:
            return self
        cause = self.cause or cause
        entries = self.entries(shape) if kept or self.table is not None else None
        if entries is None:
            size = math.prod(axis_length(axis, shape) for axis in self.axes)
            return Window((), self.low, self.high + size - 1, cause=cause)
        gone = tuple(i for i, axis in enumerate(self.axes) if axis in lost)
        some = entries != NO_DRAW
        lowest = np.min(np.where(some, entries, -NO_DRAW), axis=gone, initial=-NO_DRAW)
        highest = np.max(np.where(some, entries, NO_DRAW), axis=gone, initial=NO_DRAW)
        some = np.any(some, axis=gone)
        width = int(np.max(np.where(some, highest - lowest, 0), initial=0))
        return by_table(kept, np.where(some, lowest, NO_DRAW), self.low, self.high + width, cause)

    def renamed(self, names: Mapping[Axis, Axis]) -> Window:
        """The window with axes called otherwise."""
        return dataclasses.replace(self, axes=tuple(names.get(axis, axis) for axis in self.axes))

    def at(self, axis: Axis, index: int, shape: Sequence[int], cause: Equation | None) -> Window:
        """The window of the entry at `index` along an axis."""
        if axis not in self.axes:
            return self
        if self.simple_axis is not None:
            return Window((), self.low + index, self.high + index, cause=self.cause or cause)
        entries = self.entries(shape)
        if entries is None:
            return self.without((axis,), shape, cause)
        kept = tuple(a for a in self.axes if a is not axis and a != axis)
        return by_table(kept, entries.take(index, self.axes.index(axis)), self.low, self.high, self.cause)

    def mean_draws(self, shape: Sequence[int], plate: int) -> float:
        """How many of the `plate` draws an entry depends on, on average over the entries."""
        if self.table is not None:
            first, last = self.table.draws + max(self.low, NO_DRAW), self.table.draws + min(self.high, -NO_DRAW)
            counts = np.minimum(last, plate - 1) - np.maximum(first, 0) + 1
            return float(np.mean(np.maximum(counts, 0))) if counts.size else 0.0
        n = math.prod(axis_length(axis, shape) for axis in self.axes)
        low, high = max(self.low, 1 - n), min(self.high, plate - 1)
        return max(_pairs_up_to(high, n, plate) - _pairs_up_to(low - 1, n, plate), 0) / max(n, 1)

    def most_draws(self, plate: int) -> int:
        """How many of the `plate` draws an entry depends on, at most."""
        if not self.axes:
            return int(self.mean_draws((), plate))
        return int(min(plate, self.high - self.low + 1))


def _pairs_up_to(limit: float, n: int, plate: int) -> float:
    """How many `(i, j)` with `i < n`, `j < plate` have `j - i <= limit`: `sum_i clip(i + limit + 1, 0, plate)`."""

    def sums(end: float) -> float:  # of clip(t, 0, plate) over t = 1 .. end
        below = min(max(end, 0), plate)
        return below * (below + 1) / 2 + max(end - plate, 0) * plate

    return sums(limit + n) - sums(limit)


Relation: TypeAlias = tuple[Window, ...]
"""One window for each plate axis of a site."""


class Source(Protocol):
    """What values may depend on: a site, or what stands in for one."""

    @property
    def plates(self) -> Shape: ...


Dependence: TypeAlias = "Mapping[Any, Relation]"
"""The sources upstream of a value, and how it depends on each."""


def axis_length(axis: Axis, shape: Sequence[int]) -> int:
    """How many entries an axis of a value has; the time axis of a `scan` its length, a mesh axis its devices."""
    if isinstance(axis, int):
        return shape[axis]
    return axis.size if isinstance(axis, MeshAxis) else axis.eqn.params["length"]


def number_of_draws(relation: Relation, site: Source, value: Value) -> float:
    """How many draws of a site an entry of a value depends on, on average."""
    return math.prod(w.mean_draws(value.shape, n) for w, n in zip(relation, site.plates, strict=True))


def by_table(axes: Sequence[Axis], entries: np.ndarray, low: float, high: float, cause: Equation | None) -> Window:
    """The window of a table, in its simplest form: without axes that do not matter, and without a table that only counts."""
    kept = [
        i for i, n in enumerate(entries.shape) if n > 1 and not np.array_equal(entries, _repeated_first(entries, i))
    ]
    entries = entries[tuple(slice(None) if i in kept else 0 for i in range(entries.ndim))] if entries.size else entries
    axes = tuple(axes[i] for i in kept) if entries.size else tuple(axes)
    if not axes:
        first = int(entries)
        return Window((), low + first, high + first, cause=cause)
    counts = np.arange(entries.size).reshape(entries.shape)
    if entries.size and np.array_equal(entries - entries.flat[0], counts):
        first = int(entries.flat[0])
        return Window(axes, low + first, high + first, cause=cause)
    return Window(axes, low, high, Table(entries), cause)


def _repeated_first(entries: np.ndarray, axis: int) -> np.ndarray:
    return np.broadcast_to(np.take(entries, [0], axis), entries.shape)


class Move(NamedTuple):
    """Entry `i` of the result along `axis` reads entries `i + low .. i + high`; without an axis, `low .. high`."""

    axis: int | None
    low: float = 0
    high: float = 0


class Take(NamedTuple):
    """The entry of the result at `i` along `axes` reads entries `source[i] .. source[i] + width`, none where that is negative."""

    axes: tuple[int, ...]
    source: np.ndarray
    width: int = 0


class Regroup(NamedTuple):
    """The result has the same entries in the same order, in other axes; the operand's are read in `order`."""

    target: tuple[int, ...]
    order: tuple[int, ...]


Moves: TypeAlias = "Mapping[int, Move | Take] | Regroup"
"""Where the axes of an operand go; one that is missing is read as a whole."""


def move(window: Window, moves: Moves, source: Sequence[int], target: Sequence[int], cause: Equation) -> Window:
    """The window of the result of an operation, from that of an operand; `source` and `target` are their shapes."""
    if not any(isinstance(axis, int) for axis in window.axes):
        return window
    if isinstance(moves, Regroup):
        return _regroup(window, moves, tuple(source), cause)
    axis = window.simple_axis
    if axis is not None:
        step = moves.get(axis)
        if isinstance(step, Move):
            wider = window.cause or (cause if step.axis is None or step.low != step.high else None)
            axes = () if step.axis is None else (int(step.axis),)  # JAX may have it as a numpy integer
            return Window(axes, window.low + step.low, window.high + step.high, cause=wider)
        if step is not None:
            entries = np.where(step.source >= 0, step.source, NO_DRAW)
            wider = window.cause or (cause if step.width else None)
            return by_table(step.axes, entries, window.low, window.high + step.width, wider)
    return _move_entries(window, moves, source, target, cause)


def _move_entries(
    window: Window, moves: Mapping[int, Move | Take], source: Sequence[int], target: Sequence[int], cause: Equation
) -> Window:
    def is_lost(axis: Axis) -> bool:
        step = moves.get(axis) if isinstance(axis, int) else Move(None)
        return step is None or (step.low != step.high if isinstance(step, Move) else step.width > 0)

    window = window.without([axis for axis in window.axes if is_lost(axis)], source, cause)
    entries = window.entries(source)
    # For each axis of the window: the axes of the result that tell which entry of it is read, and that entry.
    read: list[tuple[tuple[Axis, ...], np.ndarray]] = []
    for axis in window.axes:
        step = moves[axis] if isinstance(axis, int) else Move(None)
        if not isinstance(axis, int):
            read.append(((axis,), np.arange(axis_length(axis, source))))
        elif isinstance(step, Take):
            read.append((step.axes, step.source))
        elif step.axis is None:
            read.append(((), np.asarray(int(step.low))))
        else:
            read.append(((int(step.axis),), np.arange(target[step.axis]) + int(step.low)))
    axes = tuple(dict.fromkeys(axis for those, _ in read for axis in those))
    lengths = [axis_length(axis, target) for axis in axes]
    if entries is None or math.prod(lengths) > MAX_TABLE:
        return window.without(window.axes, source, cause)
    if not window.axes:
        return window
    grids = []
    for those, index in read:
        order = np.argsort([axes.index(axis) for axis in those])
        grid = np.transpose(index, order)
        grids.append(grid.reshape([n if axis in those else 1 for axis, n in zip(axes, lengths, strict=True)]))
    inside = np.ones(lengths, bool)
    for grid, n in zip(grids, entries.shape, strict=True):
        inside = inside & (grid >= 0) & (grid < n)
    found = entries[tuple(np.clip(grid, 0, n - 1) for grid, n in zip(grids, entries.shape, strict=True))]
    return by_table(axes, np.where(inside, found, NO_DRAW), window.low, window.high, window.cause)


@functools.lru_cache(maxsize=4096)
def _groups(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """The smallest runs of axes of two shapes that have equally many entries; axes of size one are left out."""
    if 0 in source:
        return ()
    a, b = ([axis for axis, n in enumerate(shape) if n > 1] for shape in (source, target))
    groups, i, j = [], 0, 0
    while i < len(a):
        start, left, right = (i, j), source[a[i]], target[b[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * source[a[i]], i + 1
            else:
                right, j = right * target[b[j]], j + 1
        groups.append((tuple(a[start[0] : i]), tuple(b[start[1] : j])))
    return tuple(groups)


def _regroup(window: Window, moves: Regroup, shape: tuple[int, ...], cause: Equation) -> Window:
    ordered = tuple(shape[axis] for axis in moves.order)
    groups = [g for g in _groups(ordered, moves.target) if any(moves.order[a] in window.axes for a in g[0])]
    places = tuple(moves.order[a] for group, _ in groups for a in group)
    loops = tuple(axis for axis in window.axes if not isinstance(axis, int))
    new_axes: tuple[Axis, ...] = (*loops, *(axis for _, group in groups for axis in group))
    for axis in window.axes:
        if isinstance(axis, int) and axis not in places:  # of size one, or without entries
            window = window.at(axis, 0, shape, cause) if shape[axis] else window.without((axis,), shape, cause)
    kept = all(len(left) == len(right) == 1 for left, right in groups)
    if window.axes == (*loops, *places) and (window.table is None or kept):
        return dataclasses.replace(window, axes=new_axes)
    entries = window.entries(shape)
    lengths = [axis_length(axis, shape) for axis in (*loops, *places)]
    if entries is None or math.prod(lengths) > MAX_TABLE:
        return window.without(window.axes, shape, cause)
    if not window.axes:
        return window
    every = (*loops, *places)
    entries = np.transpose(entries, np.argsort([every.index(axis) for axis in window.axes]))
    entries = entries.reshape([n if axis in window.axes else 1 for axis, n in zip(every, lengths, strict=True)])
    loop_lengths = lengths[: len(loops)]
    new_shape = (*loop_lengths, *(moves.target[axis] for _, group in groups for axis in group))
    return by_table(
        new_axes, np.broadcast_to(entries, lengths).reshape(new_shape), window.low, window.high, window.cause
    )


def hull(a: Window, b: Window, shape: Sequence[int], plate: int, cause: Equation | None) -> Window:
    """The smallest window there is that covers two of one value."""
    if a.axes != b.axes:
        shared = [axis for axis in a.axes if axis in b.axes]
        a = a.without([axis for axis in a.axes if axis not in shared], shape, cause)
        b = b.without([axis for axis in b.axes if axis not in shared], shape, cause)
    if a.axes == b.axes and a.table == b.table:
        if (a.low, a.high) == (b.low, b.high):
            return a
        return dataclasses.replace(
            a, low=min(a.low, b.low), high=max(a.high, b.high), cause=a.cause or b.cause or cause
        )
    one, other = a.entries(shape), b.entries(shape)
    if a.axes == b.axes and a.separate and b.separate and one is not None and other is not None:
        one, other = one + int(a.low), other + int(b.low)
        has_one, has_other = ((draws >= 0) & (draws < plate) for draws in (one, other))
        if not np.any(has_one & has_other & (one != other)):  # as of the parts of a concatenation
            joined = np.where(has_one, one, np.where(has_other, other, NO_DRAW))
            return by_table(a.axes, joined, 0, 0, a.cause or b.cause)
    a, b = a.without(a.axes, shape, cause), b.without(b.axes, shape, cause)
    return hull(a, b, shape, plate, cause)


def join(parts: Sequence[Dependence], shape: Sequence[int], cause: Equation | None) -> Dependence:
    """The dependence of a value on all that its parts depend on; axes are the value's."""
    joined: dict[Source, Relation] = {}
    for part in parts:
        for site, relation in part.items():
            if (before := joined.get(site)) is not None and before is not relation:
                plates = zip(before, relation, site.plates, strict=True)
                relation = tuple(hull(a, b, shape, n, cause) for a, b, n in plates)
            joined[site] = relation
    return joined


def widened(old: Dependence, new: Dependence) -> Dependence:
    """`new`, with every bound that moved since `old` moved without end, and tables that change given up."""

    def widen(before: Window, after: Window) -> Window:
        if before.axes != after.axes:
            return after
        if before.table != after.table:
            return after if after.table is None else after.without(after.axes, (), None)
        low = -math.inf if after.low < before.low else after.low
        high = math.inf if after.high > before.high else after.high
        return dataclasses.replace(after, low=low, high=high)

    return {site: tuple(map(widen, old[site], relation)) if site in old else relation for site, relation in new.items()}
