"""Whether values jump where an operation does, found by trying: numbers in, numbers out, no patterns.

`jnp.where(x > 0, x, 0.1 * x)` is continuous and `jnp.where(x > 0, x, 1.0)` is not, though both select by a comparison. To tell,
the part of the program around the selection is cut out; its inputs are put on a line through random points; the place on the
line where the selection changes is bracketed down to rounding; and each later value is compared on both sides. Analytic
functions that agree there at random points agree everywhere, with probability one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.site import sample_p
from mcgrad.program.trace import Constant, Equation, Program, Value


class Surroundings:
    """A program seen from its operations: who makes a value, who reads it, and which inputs it is made of."""

    def __init__(self, program: Program):
        self.equations = program.equations
        self.place = {equation: n for n, equation in enumerate(program.equations)}
        self.producer = {value: equation for equation in program.equations for value in equation.outputs}
        self._leaves: dict[Value, frozenset[Value]] = {}
        for equation in program.equations:
            found = frozenset().union(*map(self.leaves, equation.inputs))
            self._leaves.update(dict.fromkeys(equation.outputs, found))

    def leaves(self, value: Value) -> frozenset[Value]:
        """The inputs and traced constants, random keys left out, that a value is made of."""
        if value in self._leaves or value in self.producer:
            return self._leaves[value]
        known = isinstance(value, Constant) and not isinstance(value.value, _compat.Tracer)
        return frozenset() if known or _is_key(value) else frozenset({value})

    def after(self, equation: Equation) -> list[Equation]:
        """The equations that read what an equation makes, directly or not, in order."""
        reached, found = set(equation.outputs), []
        for other in self.equations[self.place[equation] + 1 :]:
            if not reached.isdisjoint(other.inputs):
                reached.update(other.outputs)
                found.append(other)
        return found


class Probe:
    """Which values after an operation, its gate, jump where the gate does, or change with it where its derivative is cut.

    Args:
        around: the program that it stands in.
        gate: the operation.
        tells: values that change where the gate jumps; none where the gate's results are to be watched themselves.
        cut: the gate keeps no derivative, but does not jump: the question is whether a value depends on it at all.
    """

    def __init__(self, around: Surroundings, gate: Equation, tells: Sequence[Value], *, cut: bool):
        self.around, self.gate, self.tells, self.cut = around, gate, tuple(tells), cut
        self._after: list[Equation] | None = None
        self._tried = 0
        self._fruitless = 0
        self._found: dict[Value, bool | None] = {}

    def jumps(self, value: Value) -> bool | None:
        """Whether a value after the gate jumps with it; `None` where that cannot be told."""
        if self._after is None:
            self._after = [self.gate, *self.around.after(self.gate)]
        while value not in self._found and self._tried < len(self._after) and self._fruitless < _FRUITLESS:
            self._tried = min(self._tried + _STRIDE, len(self._after))
            before = sum(found is False for found in self._found.values())
            reached = [v for equation in self._after[: self._tried] for v in equation.outputs]
            self._found.update(_try(self.around, self.gate, self.tells, reached, cut=self.cut))
            settled = sum(found is False for found in self._found.values()) > before
            self._fruitless = 0 if settled else self._fruitless + 1
        return self._found.get(value, True)


_STRIDE = 6
"""Operations after a gate that are tried at once; activations, guards and norms take fewer."""

_FRUITLESS = 4
"""Such strides without a value found continuous after which what follows counts as jumping."""

_MOST_EQUATIONS = 120
"""Operations up to which a cut-out part goes back to the program's inputs, so that its values have their true ranges."""

_MOST_NUMBERS = 2**18
"""Numbers in one result beyond which a part is cut off as soon as its inputs are independent."""

_LINES = tuple(itertools.product((1.0, 0.2, 3.0, 10.0, 1000.0), (False, True)))
"""Scales of the random points, and whether they are positive."""

_POINTS = 65
"""Points on a line, and on each stretch into which it is narrowed down: float32 is used up after four."""

_CROSSINGS = 3
"""Places of a jump at which the values are compared."""


def _try(
    around: Surroundings, gate: Equation, tells: Sequence[Value], reached: Sequence[Value], *, cut: bool
) -> dict[Value, bool | None]:
    """For each value, whether it jumps where the gate does."""
    part = _cut_out(around, [*tells, *reached], set(reached))
    if part is None:
        return dict.fromkeys(reached, True)
    equations, inputs = part
    key = _fingerprint(equations, inputs, gate, tells, reached, cut)
    if key not in _SEEN:
        with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False), jax.debug_key_reuse(False):
            found = (
                _compare_cut(equations, inputs, gate, reached)
                if cut
                else _compare(equations, inputs, gate, tells, reached)
            )
        if len(_SEEN) >= _MOST_SEEN:
            _SEEN.clear()
        _SEEN[key] = found
    return dict(zip(reached, _SEEN[key], strict=True))


_SEEN: dict[Any, list[bool | None]] = {}
_MOST_SEEN = 4096


def _fingerprint(
    equations: Sequence[Equation], inputs: Sequence[Value], gate: Equation, tells: Any, reached: Any, cut: bool
) -> Any:
    """What the outcome depends on: the same activation in another layer is tried once."""
    number = {value: n for n, value in enumerate(inputs)}

    def word(value: Value) -> Any:
        if value in number:
            return number[value]
        if isinstance(value, Constant):
            array = np.asarray(value.value)
            return str(array.dtype), array.shape, array.tobytes()
        return id(value)

    words = []
    for equation in equations:
        params = tuple((name, param if callable(param) else str(param)) for name, param in equation.eqn.params.items())
        words.append((equation.name, equation is gate, tuple(map(word, equation.inputs)), params))
        for value in equation.outputs:
            number[value] = len(number)
    types = tuple((value.shape, str(value.dtype)) for value in inputs)
    return types, tuple(words), tuple(map(word, tells)), tuple(map(word, reached)), cut, jax.config.read("jax_enable_x64")


def _cut_out(
    around: Surroundings, wanted: Sequence[Value], reached: set[Value]
) -> tuple[list[Equation], list[Value]] | None:
    """The equations that make the wanted values from inputs that are independent of each other; `None` if it cannot be run."""
    chosen: set[Equation] = set()
    frontier = set(wanted)
    numbers = 0

    def expand(values: Iterable[Value]) -> None:
        nonlocal numbers
        for value in values:
            equation = around.producer[value]
            frontier.discard(value)
            if equation not in chosen:
                chosen.add(equation)
                numbers = max(numbers, *(math.prod(v.shape) for v in equation.outputs), 0)
                frontier.update(v for v in equation.inputs if v in around.producer or around.leaves(v) or _is_key(v))
        frontier.difference_update(v for equation in chosen for v in equation.outputs)

    while True:
        # A draw from a constant distribution would stand still on every line: it is an input itself.
        open_ = [v for v in frontier if v in around.producer and not _is_key(v) and not _is_constant_draw(around, v)]
        must = [v for v in open_ if v in reached or not v.is_inexact or around.producer[v].eqn.primitive is sample_p]
        if must:
            expand(must)
        elif open_ and len(chosen) < _MOST_EQUATIONS and numbers <= _MOST_NUMBERS:
            expand([max(open_, key=lambda v: around.place[around.producer[v]])])
        else:
            shared = [v for v in open_ if any(v is not w and around.leaves(v) & around.leaves(w) for w in frontier)]
            if not shared:
                break
            expand([max(shared, key=lambda v: around.place[around.producer[v]])])
    equations = sorted(chosen, key=around.place.__getitem__)
    if any(e.eqn.effects or "callback" in e.name for top in equations for e in _everything(top)):
        return None
    return equations, sorted(
        frontier, key=lambda v: (str(v.dtype), v.shape, around.place.get(around.producer.get(v), -1))
    )


def _is_constant_draw(around: Surroundings, value: Value) -> bool:
    return around.producer[value].eqn.primitive is sample_p and value.is_inexact and not around.leaves(value)


def _everything(equation: Equation) -> Iterable[Equation]:
    yield equation
    for body in equation.bodies:
        yield from body.everything()


def _values(
    equations: Sequence[Equation], inputs: Sequence[Value], wanted: Sequence[Value], override: Equation | None = None
) -> Callable[..., list[Any]]:
    """The wanted values, as a function of values of the inputs (and of what to put for the results of an equation)."""

    def fn(given: Sequence[Any], instead: Sequence[Any] = ()) -> list[Any]:
        env = dict(zip(inputs, given, strict=True))

        def read(value: Value) -> Any:
            known = value.value if isinstance(value, Constant) else None
            return env.get(value, known)  # a traced constant is an input here

        for equation in equations:
            outs = list(instead) if equation is override else equation.evaluate(read)
            env.update(zip(equation.outputs, outs, strict=True))
        return [read(value) for value in wanted]

    return fn


def _random(value: Value, rng: np.random.Generator, scale: float, positive: bool) -> np.ndarray:
    """A value for an input, or for an operation's results."""
    if value.is_inexact:
        x = rng.normal(size=value.shape) * scale
        return np.asarray(np.abs(x) if positive else x).astype(value.dtype)
    if value.dtype == np.bool_:
        return rng.integers(0, 2, value.shape).astype(bool)
    return rng.integers(0, 3, value.shape).astype(value.dtype)


def _opposite(value: Value, start: Any, rng: np.random.Generator, scale: float, positive: bool) -> np.ndarray:
    """The other end of a line: beyond zero, so that thresholds of that scale lie between, or anywhere if it must be positive."""
    if positive:
        return _random(value, rng, scale, positive)
    return np.asarray(-(0.5 + rng.uniform(size=value.shape)) * start - 0.3 * scale * np.sign(start)).astype(value.dtype)


class _Line:
    """The inputs of a part on a line through two random points; random keys and integers stand still."""

    def __init__(self, inputs: Sequence[Value], scale: float, positive: bool, seed: int):
        rng = np.random.default_rng(seed)
        self.start = [None if _is_key(v) else _random(v, rng, scale, positive) for v in inputs]
        self.end = [
            a if _is_key(v) or not v.is_inexact else _opposite(v, a, rng, scale, positive)
            for v, a in zip(inputs, self.start, strict=True)
        ]
        self.keys = [int(rng.integers(2**31)) for _ in inputs]
        self.shapes = [v.shape for v in inputs]

    def at(self, t: Any) -> list[Any]:
        points = []
        for a, b, seed, shape in zip(self.start, self.end, self.keys, self.shapes, strict=True):
            if a is None:
                keys = jax.random.split(jax.random.key(seed), math.prod(shape))
                points.append(keys.reshape(shape))
            else:
                points.append(a if a is b else (a + jnp.asarray(t, a.dtype) * (b - a)).astype(a.dtype))
        return points


def _compare(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    gate: Equation,
    tells: Sequence[Value],
    reached: Sequence[Value],
) -> list[bool | None]:
    """Which of the values jump where the values that tell change."""
    told = _values(equations, inputs, tells or gate.outputs)
    all_of = jax.jit(_values(equations, inputs, reached))
    found: list[bool | None] = [None] * len(reached)
    crossings = 0
    for seed, (scale, positive) in enumerate(_LINES):
        line = _Line(inputs, scale, positive, seed)
        along = jax.jit(functools.partial(jax.lax.map, lambda t, line=line: told(line.at(t))))
        bracket = _bracket(along, exact=bool(tells))
        if bracket is None:
            continue
        sides = [all_of(line.at(t)) for t in bracket]
        differ = [_differs(a, b) for a, b in zip(*sides, strict=True)]
        if all(d is None for d in differ):
            continue
        crossings += bool(tells) or any(differ)  # what merely moves much was perhaps no jump
        found = _either(found, differ)
        if crossings == _CROSSINGS:
            break
    return found


def _bracket(along: Callable[[Any], list[Any]], *, exact: bool) -> tuple[Any, Any] | None:
    """Two neighboring places on the line between which the values that tell change; `None` where they never do."""
    low, high, entry = 0.0, 1.0, None
    dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
    for _ in range(_NARROWINGS):
        ts = np.linspace(low, high, _POINTS).astype(dtype)
        table = np.concatenate([np.asarray(x).astype(np.float64).reshape(len(ts), -1) for x in along(ts)], axis=1)
        steps = np.diff(table, axis=0)
        if entry is None:
            finite = np.isfinite(steps)
            moved = np.where(finite, np.abs(steps), 0)
            piecewise = np.mean(moved > 0, axis=0) < 0.5
            if not exact and not np.any(piecewise & np.any(moved > 0, axis=0)):
                size = moved / (np.median(moved, axis=0) + 1e-300)
            else:
                size = np.where(piecewise, moved, 0)
            if not np.any(size > 0):
                return None
            where, entry = np.unravel_index(np.argmax(size), size.shape)
        else:
            moved = np.nan_to_num(np.abs(steps[:, entry]))
            if not np.any(moved > 0):
                return None
            where = int(np.argmax(moved))
        low, high = float(ts[int(where)]), float(ts[int(where) + 1])
        if high - low <= 4 * np.finfo(dtype).eps:
            break
    return dtype(low), dtype(high)


_NARROWINGS = 6


def _differs(a: Any, b: Any) -> bool | None:
    """Whether two values differ by more than rounding and a tiny step explain; `None` where both are no numbers."""
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return None
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind not in "fc" and not jnp.issubdtype(a.dtype, jnp.inexact):
        return bool(np.any(a != b))
    a, b = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in (a, b))
    some = np.isfinite(a) & np.isfinite(b)
    if np.any(np.isfinite(a) != np.isfinite(b)):
        return True
    if not np.any(some):
        return None
    a, b = a[some], b[some]
    return bool(np.any(np.abs(a - b) > 1e-3 * np.maximum(np.abs(a), np.abs(b)) + 1e-4 * np.mean(np.abs(a)) + 1e-30))


def _either(found: Sequence[bool | None], more: Sequence[bool | None]) -> list[bool | None]:
    """What two trials say together: a jump seen in one is a jump."""
    return [b if a is None else a if b is None else a or b for a, b in zip(found, more, strict=True)]


def _compare_cut(
    equations: Sequence[Equation], inputs: Sequence[Value], gate: Equation, reached: Sequence[Value]
) -> list[bool | None]:
    """Which of the values change with the results of the gate, all else held."""
    if any(map(_is_key, gate.outputs)):
        return [True] * len(reached)
    fn = jax.jit(_values(equations, inputs, reached, gate))
    own = jax.jit(_values(equations, inputs, gate.outputs))
    found: list[bool | None] = [None] * len(reached)
    for seed, (scale, positive) in enumerate(_LINES[:4]):
        line, rng = _Line(inputs, scale, positive, seed), np.random.default_rng(seed)
        here = own(line.at(0.0))
        moved = [
            (np.asarray(x, np.float64) + 0.3 * rng.normal(size=v.shape)).astype(v.dtype)
            if v.is_inexact
            else _random(v, rng, scale, positive)
            for v, x in zip(gate.outputs, here, strict=True)
        ]
        differ = [_differs(a, b) for a, b in zip(fn(line.at(0.0), here), fn(line.at(0.0), moved), strict=True)]
        found = _either(found, differ)
    return found


@functools.lru_cache(maxsize=4096)
def _dtype_is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _is_key(value: Value) -> bool:
    return _dtype_is_key(value.dtype)
