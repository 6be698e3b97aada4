"""Lines through random points, on which the inputs of a part of a program are put, and where on them values change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcgrad import _compat
from mcgrad.program.trace import Constant, Equation, Value


def random_value(value: Value, rng: np.random.Generator, scale: float, positive: bool) -> Any:
    """A value for an input, or for an operation's results."""
    if value.is_key:
        seed = jax.random.key(np.uint32(rng.integers(2**31)))
        return jax.random.split(seed, math.prod(value.shape)).reshape(value.shape)
    if value.is_inexact:
        x = rng.normal(size=value.shape) * scale
        return np.asarray(np.abs(x) if positive else x).astype(value.dtype)
    if value.dtype == np.bool_:
        return rng.integers(0, 2, value.shape).astype(bool)
    return rng.integers(0, 3, value.shape).astype(value.dtype)


def _opposite(value: Value, start: Any, rng: np.random.Generator, scale: float, positive: bool) -> np.ndarray:
    """The other end of a line: beyond zero, so that thresholds of that scale lie between, or anywhere if it must be positive."""
    if positive:
        return random_value(value, rng, scale, positive)
    return np.asarray(-(0.5 + rng.uniform(size=value.shape)) * start - 0.3 * scale * np.sign(start)).astype(value.dtype)


class Line(NamedTuple):
    """The inputs of a part on a line through two random points; random keys and integers stand still.

    Attributes:
        start: where the line begins.
        end: where it ends; `None` for what stands still.
    """

    start: list[Any]
    end: list[Any]

    @classmethod
    def through(cls, inputs: Sequence[Value], scale: float, positive: bool, seed: int) -> Line:
        rng = np.random.default_rng(seed)
        start = [random_value(v, rng, scale, positive) for v in inputs]
        end = [
            _opposite(v, a, rng, scale, positive) if v.is_inexact else None for v, a in zip(inputs, start, strict=True)
        ]
        return cls(start, end)

    def with_integers(self, inputs: Sequence[Value], n: int) -> Line:
        """The same with another number for all inputs that are integers."""
        start = [np.full_like(x, n) if v.is_integer else x for v, x in zip(inputs, self.start, strict=True)]
        return self._replace(start=start)

    def at(self, ts: np.ndarray, inputs: Sequence[Value]) -> list[Any]:
        """The inputs at places `ts`, stacked; random keys not, since they stand still."""
        points: list[Any] = []
        for a, b, value in zip(self.start, self.end, inputs, strict=True):
            if value.is_key:
                points.append(a)
            elif b is None:
                points.append(np.broadcast_to(a, (len(ts), *value.shape)))
            else:
                t = ts.astype(a.dtype).reshape(-1, *[1] * a.ndim)
                points.append((a + t * (b - a)).astype(a.dtype))
        return points


class Bracket(NamedTuple):
    """Two neighboring points of a line between which something changes, with others.

    Attributes:
        line: which they are on.
        ts: the places: of the two, of a few roundings beyond the first, of as many beyond the second, and of the whole line.
    """

    line: Line
    ts: np.ndarray

    @property
    def sides(self) -> tuple[slice, slice, slice]:
        """Which of the places are beyond the first, beyond the second, and of the whole line."""
        return slice(2, 2 + NEARBY), slice(2 + NEARBY, 2 + 2 * NEARBY), slice(2 + 2 * NEARBY, len(self.ts))


class Search:
    """Where on a line the values that tell change.

    Attributes:
        where: for entries of them that do, the largest changes first, after which of the first points.
    """

    def __init__(self, line: Line, told: Callable[[Line, np.ndarray], list[Any]], *, exact: bool):
        self.line, self.told = line, told
        self.dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
        self.ts = np.linspace(0.0, 1.0, POINTS).astype(self.dtype)
        with np.errstate(all="ignore"):
            columns = [x.reshape(POINTS, -1) for x in told(line, self.ts)]
            entries = np.arange(sum(x.shape[1] for x in columns))
            looked_at = entries[:: len(entries) // _MOST_LOOKED_AT + 1]
            steps = np.diff(np.concatenate(columns, axis=1)[:, looked_at].astype(np.float64), axis=0)
            moved = np.where(np.isfinite(steps), np.abs(steps), 0)
            piecewise = np.mean(moved > 0, axis=0) < 0.5
            if not exact and not np.any(piecewise & np.any(moved > 0, axis=0)):
                size = moved / (np.median(moved, axis=0) + 1e-300)
            else:
                size = np.where(piecewise, moved, 0)
        largest = np.argsort(-size.max(0, initial=0), kind="stable")[:_MOST_ENTRIES]
        self.where = {int(looked_at[k]): int(np.argmax(size[:, k])) for k in largest if size[:, k].max() > 0}

    def narrowed(self, entry: int) -> Bracket | None:
        """Where on the line an entry changes; `None` if the change is lost on the way."""
        ts, where = self.ts, self.where[entry]
        while True:
            low, high = float(ts[where]), float(ts[where + 1])
            last = high - low <= 4 * np.finfo(self.dtype).eps or (high - low) * POINTS**_NARROWINGS < 1
            ts = np.linspace(low, high, POINTS).astype(self.dtype)
            part, column = self.told(self.line, ts), entry
            while column >= (size := math.prod(part[0].shape[1:])):
                part, column = part[1:], column - size
            with np.errstate(all="ignore"):
                moved = np.nan_to_num(np.abs(np.diff(part[0].reshape(POINTS, -1)[:, column].astype(np.float64))))
            if not np.any(moved > 0):
                return None
            where = int(np.argmax(moved))
            if last:
                low, high = ts[where : where + 2]
                steps = max(high - low, 8 * np.finfo(self.dtype).eps) * np.arange(1, 1 + NEARBY)
                places = np.concatenate([[low, high], low - steps, high + steps, self.ts[::8]])
                return Bracket(self.line, places.astype(self.dtype))


POINTS = 65
"""Points on a line, and on each stretch into which it is narrowed down: float32 is used up after four."""

_NARROWINGS = 5
"""How often a stretch is narrowed down, at most: to a 65th each time."""

NEARBY = 3
"""Points on each side of a change that tell how far rounding alone moves a value."""

_MOST_LOOKED_AT = 2**16
"""Entries of the values that tell beyond which some stand for all."""

_MOST_ENTRIES = 16
"""Entries of the values that tell whose changes are followed on one line."""


def lines_through(equations: Sequence[Equation], inputs: Sequence[Value]) -> list[Line]:
    """The lines to try: of the usual scales, and of those of large numbers in the program.

    Not of the smallest and the very largest: guards against overflow and division by zero jump where no draw comes.
    """
    sizes = sorted({abs(x) for x in _known(equations) if 500 < abs(x) <= 1e7})
    scales = [
        (2 * size, positive) for size in dict.fromkeys([*sizes[:1], *sizes[-1:]]) for positive in (False, False, True)
    ]
    return [Line.through(inputs, *scale, seed) for seed, scale in enumerate([*LINES, *scales])]


def mixed_lines(inputs: Sequence[Value], draws: Callable[[], Mapping[Value, list[np.ndarray]]]) -> Iterator[Line]:
    """Lines on which each input has a scale and sign of its own, or goes from one of its draws to another where it is one.

    For what is no number where some inputs are negative, or outside of their support.
    """
    drawn = draws()
    for seed in range(_MIXED):
        rng = np.random.default_rng(seed)
        ends = [
            drawn[v][:: rng.choice([-1, 1])]
            if v in drawn
            else [x[0] for x in Line.through([v], rng.choice([0.2, 1.0, 3.0]), bool(rng.integers(2)), seed + n)]
            for n, v in enumerate(inputs)
        ]
        yield Line([start for start, _ in ends], [end for _, end in ends])


def integers_of(equations: Sequence[Equation], inputs: Sequence[Value]) -> list[int]:
    """What to try for inputs that are integers: those in the program and their neighbors."""
    if not any(v.is_integer for v in inputs):
        return []
    whole = sorted({int(x) for x in _known(equations) if x == int(x) and abs(x) < 2**30}, key=abs)[:_MOST_INTEGERS]
    return sorted({n + step for n in whole for step in (-1, 0, 1)})


def _known(equations: Sequence[Equation]) -> set[float]:
    return {float(x) for top in equations for e in top.everything() for v in e.inputs for x in _numbers(v)}


def _numbers(value: Value) -> Iterable[float]:
    """The numbers in a constant, if they are few and known."""
    if not isinstance(value, Constant) or value.is_key or isinstance(value.value, _compat.Tracer):
        return ()
    array = np.asarray(value.value)
    few = array.size <= _MOST_INTEGERS and array.dtype.kind in "iuf" and bool(np.all(np.isfinite(array)))
    return array.ravel().tolist() if few else ()


LINES = tuple(itertools.product((1.0, 0.2, 3.0, 10.0, 100.0, 1000.0), (False, True)))
"""Scales of the random points, and whether they are positive."""

_MIXED = 16
"""Lines on which inputs have signs of their own."""

_MOST_INTEGERS = 16
"""Integers of a program that are tried for those that it takes as inputs, and numbers in a constant up to which it is looked at."""
