"""Finds out by numerical trial, and not by matching patterns, whether values jump where an operation jumps.

`jnp.where(x > 0, x, 0.1 * x)` is continuous and `jnp.where(x > 0, x, 1.0)` is not, though both select by a comparison. To tell,
the part of the program around the selection is cut out; its inputs are put on a line through random points; the place on the
line where the selection changes is bracketed down to rounding; and each later value is compared on both sides. Analytic
functions that agree there at random points agree everywhere, with probability one.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from mcgrad import _compat
from mcgrad._arguments import is_key
from mcgrad.program import bounded
from mcgrad.program.lines import LINES, Bracket, Line, Search, integers_of, lines_through, random_value
from mcgrad.program.site import sample_p
from mcgrad.program.trace import Constant, Equation, Program, Value

Verdict: TypeAlias = "bool | Literal['undefined'] | None"
"""Whether a value jumps; it is undefined where it is infinite or no number on one side; `None` where that cannot be told."""


class Surroundings:
    """The neighborhood of each value: the equation that makes it, those that read it, and the inputs that it is made of."""

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
        known = isinstance(value, Constant) and _compat.is_known(value.value)
        return frozenset() if known or value.is_key else frozenset({value})

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
        self._found: dict[Value, Verdict] = {}

    def jumps(self, value: Value) -> Verdict:
        """Whether a value after the gate jumps with it."""
        if self._after is None:
            self._after = [self.gate, *self.around.after(self.gate)]
        while value not in self._found and self._tried < len(self._after) and self._fruitless < _FRUITLESS:
            self._tried = min(self._tried + _STRIDE * 2**self._fruitless, len(self._after))
            before = sum(found is False for found in self._found.values())
            reached = [v for equation in self._after[: self._tried] for v in equation.outputs]
            self._found.update(_try(self.around, self.gate, self.tells, reached, cut=self.cut))
            settled = sum(found is False for found in self._found.values()) > before
            self._fruitless = 0 if settled else self._fruitless + 1
        return self._found.get(value, True)


_STRIDE = 6
"""Operations after a gate that are tried at once, and twice as many each time that none of them was found continuous:
activations, guards and norms take fewer, special functions by parts up to a hundred."""

_FRUITLESS = 5
"""Such strides without a value found continuous after which what follows counts as jumping."""

_MOST_EQUATIONS = 400
"""Operations up to which a cut-out part goes back to the program's inputs, so that its values have their true ranges."""

_MOST_NUMBERS = 2**18
"""Numbers in one result beyond which a part is cut off as soon as its inputs are independent."""

_SPARSE = slice(None, None, 4)
"""Of the lines, those on which values themselves are followed: of scales 1, 3 and 100."""

_FEW_NUMBERS = 256
"""Entries of the values that tell up to which more than one is followed on a line."""

_CROSSINGS = 3
"""Places of a jump at which the values are compared, and after that one more on each line."""


def _try(
    around: Surroundings, gate: Equation, tells: Sequence[Value], reached: Sequence[Value], *, cut: bool
) -> dict[Value, Verdict]:
    """For each value, whether it jumps where the gate does."""
    part = _cut_out(around, [*tells, *reached], set(reached))
    if part is None:
        return dict.fromkeys(reached, True)
    equations, inputs = part
    key = _fingerprint(equations, inputs, gate, tells, reached, cut)
    if key not in _SEEN:
        with _compat.before_the_run(), jax.debug_nans(False), jax.debug_infs(False), jax.debug_key_reuse(False):
            found = (
                _compare_cut(equations, inputs, gate, reached)
                if cut
                else _compare(equations, inputs, gate, tells, reached)
            )
        if len(_SEEN) >= _MOST_SEEN:
            _SEEN.clear()
        _SEEN[key] = found
    return dict(zip(reached, _SEEN[key], strict=True))


_SEEN: dict[Any, list[Verdict]] = {}
_MOST_SEEN = 4096


def _fingerprint(
    equations: Sequence[Equation], inputs: Sequence[Value], gate: Equation, tells: Any, reached: Any, cut: bool
) -> Any:
    """Everything that the outcome depends on, so that the same activation in several layers is tried only once."""
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
    return (
        types,
        tuple(words),
        tuple(map(word, tells)),
        tuple(map(word, reached)),
        cut,
        jax.config.read("jax_enable_x64"),
    )


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
                frontier.update(v for v in equation.inputs if v in around.producer or around.leaves(v) or v.is_key)
        frontier.difference_update(v for equation in chosen for v in equation.outputs)

    while True:
        # A draw from a constant distribution would stand still on every line: it is an input itself.
        open_ = [v for v in frontier if v in around.producer and not v.is_key and not _is_constant_draw(around, v)]
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
    if any(e.eqn.effects or "callback" in e.name for top in equations for e in top.everything()):
        return None
    return equations, sorted(
        frontier, key=lambda v: (str(v.dtype), v.shape, around.place.get(around.producer.get(v), -1))
    )


def _is_constant_draw(around: Surroundings, value: Value) -> bool:
    return around.producer[value].eqn.primitive is sample_p and value.is_inexact and not around.leaves(value)


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
            outs = list(instead) if equation is override else bounded.evaluate(equation, read)
            env.update(zip(equation.outputs, outs, strict=True))
        return [read(value) for value in wanted]

    return fn


def _compare(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    gate: Equation,
    tells: Sequence[Value],
    reached: Sequence[Value],
) -> list[Verdict]:
    """Which of the values jump where the values that tell change."""
    watched = tells or [v for v in gate.outputs if not v.is_key]
    told, values = _values(equations, inputs, watched), _values(equations, inputs, reached)
    compare = jax.jit(values)  # apart, so that what is compared is rounded once
    points = jax.jit(lambda line, ts: jax.vmap(lambda t: line.at(t, inputs))(ts))
    along = jax.jit(functools.partial(jax.lax.map, told))
    found: list[Verdict] = [None] * len(reached)
    crossings: Counter[int] = Counter()
    few = sum(math.prod(v.shape) for v in tells) <= _FEW_NUMBERS
    lines, integers = lines_through(equations, inputs), integers_of(equations, inputs)
    if integers and not tells:
        lines = [line.with_integers(inputs, n) for line in lines for n in (*integers, 0)]
    for line in lines:
        search = Search(functools.partial(points, line), along, exact=bool(tells))
        # A value may depend on few entries of the gate: every entry has its turn, if there are not too many.
        entries = sorted(search.where, key=lambda entry: crossings[entry])
        for turn, entry in enumerate(entries if few and tells else entries[:1]):
            if turn and crossings[entry] and crossings.total() >= _CROSSINGS:
                break
            if (bracket := search.narrowed(entry)) is None:
                continue
            differ = _across(bracket, compare)
            for n in integers:
                differ = _either(differ, _across(bracket.with_integers(inputs, n), compare))
            if all(d is None for d in differ):
                continue
            crossings[entry] += bool(tells) or True in differ  # what merely moves much was perhaps no jump
            found = _either(found, differ)
    if tells and all(v.dtype == bool for v in tells):
        return found
    # There may be many more steps than were tried: a value that jumps at others has its largest changes there.
    along_all = jax.jit(functools.partial(jax.lax.map, values))
    for n, value in enumerate(reached):
        for line in lines[_SPARSE] if value.is_inexact and found[n] is False else ():
            search = Search(functools.partial(points, line), lambda xs, n=n: [along_all(xs)[n]], exact=False)
            for entry in list(search.where)[:1]:
                if (bracket := search.narrowed(entry)) is not None:
                    found = _either(found, _across(bracket, compare))
    return found


def _across(bracket: Bracket, compare: Callable[[list[Any]], list[Any]]) -> list[Verdict]:
    """Which values differ between the two sides of a bracket."""
    low, high = compare(bracket.low), compare(bracket.high)
    differ = [_differs(a, b) for a, b in zip(low, high, strict=True)]
    if True in differ:
        sides = [list(zip(*map(compare, points), strict=True)) for points in bracket.nearby()]
        differ = [_differs(*of_value) for of_value in zip(low, high, *sides, strict=True)]
    return differ


def _differs(a: Any, b: Any, before: Sequence[Any] = (), after: Sequence[Any] = ()) -> Verdict:
    """Whether two values differ by more than a tiny step and rounding explain.

    Args:
        a: the value on one side.
        b: that on the other side.
        before: values near `a`, on its side: what these differ by is no jump.
        after: the same of `b`.
    """
    if is_key(a):
        return None
    a, b, *others = (_as_double(x) for x in (a, b, *before, *after))
    if a.dtype.kind not in "fc":
        return bool(np.any(a != b))
    some = np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        change, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
        mean = np.sum(np.abs(a), where=some) / max(np.sum(some), 1)
        large = some & (change > 1e-3 * size + 1e-4 * mean + 1e-30)
        sides = [a] * len(before) + [b] * len(after)
        noise = np.max([np.abs(x - side) for x, side in zip(others, sides, strict=True)] or [0 * change], axis=0)
        jumps = large & (change > _ABOVE_NOISE * np.nan_to_num(noise, nan=np.inf))
    if np.any(jumps):
        return True
    unlike = ~some & (a != b) & ~(np.isnan(a) & np.isnan(b))
    if np.any(large) or not np.any(some | unlike):
        return None
    return "undefined" if np.any(unlike) else False


def _as_double(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind in "biu":
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


_ABOVE_NOISE = 5
"""How far above what a few roundings of the inputs change a jump must be: rounding's own changes are of one size."""


def _either(found: Sequence[Verdict], more: Sequence[Verdict]) -> list[Verdict]:
    """What two trials say together: a jump seen in one is a jump."""
    return [next((v for v in _ORDER if v in pair), None) for pair in zip(found, more, strict=True)]


_ORDER: tuple[Verdict, ...] = (True, "undefined", False)


def _compare_cut(
    equations: Sequence[Equation], inputs: Sequence[Value], gate: Equation, reached: Sequence[Value]
) -> list[Verdict]:
    """Which of the values change with the results of the gate, all else held."""
    if any(v.is_key for v in gate.outputs):
        return [True] * len(reached)
    fn = jax.jit(_values(equations, inputs, reached, gate))
    own = jax.jit(_values(equations, inputs, gate.outputs))
    found: list[Verdict] = [None] * len(reached)
    for seed, (scale, positive) in enumerate(LINES[:4]):
        line, rng = Line.through(inputs, scale, positive, seed), np.random.default_rng(seed)
        start = line.at(0.0, inputs)
        here = own(start)
        moved = [
            (np.asarray(x, np.float64) + 0.3 * rng.normal(size=v.shape)).astype(v.dtype)
            if v.is_inexact
            else random_value(v, rng, scale, positive)
            for v, x in zip(gate.outputs, here, strict=True)
        ]
        differ = [_differs(a, b) for a, b in zip(fn(start, here), fn(start, moved), strict=True)]
        found = _either(found, differ)
    return found
