"""Finds out by numerical trial, and not by matching patterns, whether values jump where an operation jumps.

`jnp.where(x > 0, x, 0.1 * x)` is continuous and `jnp.where(x > 0, x, 1.0)` is not, though both select by a comparison. To tell,
the part of the program around the selection is cut out; its inputs are put on a line through random points; the place on the
line where the selection changes is bracketed down to rounding; and each later value is compared on both sides. Analytic
functions that agree there at random points agree everywhere, with probability one.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad._arguments import is_key
from mcgrad.program import bounded
from mcgrad.program.few_entries import MANY, few_entries, is_entrywise
from mcgrad.program.lines import (
    LINES,
    POINTS,
    Bracket,
    Line,
    Search,
    integers_of,
    lines_through,
    mixed_lines,
    random_value,
)
from mcgrad.program.poles import Nearest, is_drawn
from mcgrad.program.surroundings import Surroundings, cut_out, is_constant_draw, two_draws
from mcgrad.program.trace import Constant, Equation, Value
from mcgrad.program.verdict import Verdict, differs, either

Kind: TypeAlias = Literal["jumps", "cuts", "divides"]


class Probe:
    """Which values after an operation, its gate, jump where the gate does, or change with it where its derivative is cut.

    Args:
        around: the program that it stands in.
        gate: the operation.
        tells: values that change where the gate jumps; none where the gate's results are to be watched themselves.
        kind: what the gate does. It "jumps"; it "cuts": it keeps no derivative, and the question is whether a value depends on it
            at all; or it "divides" by the one value that tells, and jumps where that is zero.
        drawn: whether only places count where all draws are in the support of their distributions. For what hardly any draw comes
            to: parameters outside of their domain make numbers that are none, too.
    """

    def __init__(
        self, around: Surroundings, gate: Equation, tells: Sequence[Value], kind: Kind = "jumps", *, drawn: bool = False
    ):
        self.around, self.gate, self.tells, self.kind, self.drawn = around, gate, tuple(tells), kind, drawn
        self._after: list[Equation] | None = None
        self._tried = 0
        self._fruitless = 0
        self._found: dict[Value, Verdict] = {}
        self.met = False
        """Whether a place was found where what tells changes."""

    def jumps(self, value: Value) -> Verdict:
        """Whether a value after the gate jumps with it."""
        if self._after is None:
            self._after = [self.gate, *self.around.after(self.gate)]
        while value not in self._found and self._tried < len(self._after) and self._fruitless < _FRUITLESS:
            self._tried = self._next()
            before = sum(found is False for found in self._found.values())
            reached = [v for equation in self._after[: self._tried] for v in equation.outputs]
            self._found.update(_try(self, reached))
            settled = sum(found is False for found in self._found.values()) > before
            self._fruitless = 0 if settled else self._fruitless + 1
        return self._found.get(value, True)

    def _next(self) -> int:
        """Up to which of the operations to try: of large arrays, up to the first that reads other entries than its own."""
        assert self._after is not None
        stop = min(self._tried + _STRIDE * 2**self._fruitless, len(self._after))
        for n, equation in enumerate(self._after[self._tried : stop], self._tried):
            large = any(math.prod(v.shape) >= MANY for v in equation.inputs)
            if large and n > self._tried and not is_entrywise(equation):
                return n
        return stop


_STRIDE = 6
"""Operations after a gate that are tried at once, and twice as many each time that none of them was found continuous:
activations, guards and norms take fewer, special functions by parts up to a hundred."""

_FRUITLESS = 5
"""Such strides without a value found continuous after which what follows counts as jumping."""

_SPARSE = slice(None, None, 4)
"""Of the lines, those on which values themselves are followed: of scales 1, 3 and 100."""

_FEW_NUMBERS = 256
"""Entries of the values that tell up to which more than one is followed on a line."""

_CROSSINGS = 3
"""Places of a jump at which the values are compared, and after that one more on each line."""


def _try(probe: Probe, reached: Sequence[Value]) -> dict[Value, Verdict]:
    """For each value, whether it jumps where the gate does."""
    # What is continuous for any values of its surroundings is so for those that they have.
    found = _tried(probe, reached, near=True) if any(math.prod(v.shape) >= MANY for v in reached) else {}
    found = {value: verdict for value, verdict in found.items() if verdict is False}
    rest = [value for value in reached if value not in found]
    return found | (_tried(probe, rest) if rest else {})


def _tried(probe: Probe, reached: Sequence[Value], *, near: bool = False) -> dict[Value, Verdict]:
    around, gate, tells = probe.around, probe.gate, probe.tells
    part = cut_out(around, [*tells, *reached], set(reached), near=near)
    if part is None:
        return dict.fromkeys(reached, True)
    equations, inputs = part
    laws = {
        v: str(around.producer[v].eqn.params) for v in inputs if v in around.producer and is_constant_draw(around, v)
    }
    asked = reached
    few = None if laws else few_entries(equations, inputs)
    if few is None and near:
        return {}
    if few is not None:
        equations, small = few
        gate = next(e for e in equations if e.outputs == tuple(small[v] for v in gate.outputs))
        inputs, tells, asked = ([small[v] for v in values] for values in (inputs, tells, reached))
    key = (_fingerprint(equations, inputs, laws, gate, tells, asked), probe.kind, probe.drawn)
    if key not in _SEEN:
        with _compat.before_the_run(), jax.debug_nans(False), jax.debug_infs(False), jax.debug_key_reuse(False):
            drawn = functools.cache(lambda: {v: two_draws(around, v) for v in laws})
            met = False
            if probe.kind == "cuts":
                found = _compare_cut(equations, inputs, gate, asked)
            elif probe.kind == "divides":
                found = _compare_at_zero(equations, inputs, gate, tells, asked, drawn)
            else:
                found, met = _compare(equations, inputs, gate, tells, asked, drawn, with_support=probe.drawn)
        if len(_SEEN) >= _MOST_SEEN:
            _SEEN.clear()
        _SEEN[key] = found, met
    found, met = _SEEN[key]
    probe.met |= met
    return dict(zip(reached, found, strict=True))


_SEEN: dict[Any, tuple[list[Verdict], bool]] = {}
_MOST_SEEN = 4096


def _fingerprint(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    laws: Mapping[Value, str],
    gate: Equation,
    tells: Any,
    reached: Any,
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
    types = tuple((value.shape, str(value.dtype), laws.get(value)) for value in inputs)
    return (
        types,
        tuple(words),
        tuple(map(word, tells)),
        tuple(map(word, reached)),
        jax.config.read("jax_enable_x64"),
    )


def _values(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    wanted: Sequence[Value],
    override: Equation | None = None,
    *,
    with_support: bool = False,
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
        values = [read(value) for value in wanted]
        if with_support:
            values.append(functools.reduce(operator.and_, (is_drawn(e, read) for e in equations), jnp.bool_(True)))
        return values

    return fn


def _compare(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    gate: Equation,
    tells: Sequence[Value],
    reached: Sequence[Value],
    drawn: Callable[[], dict[Value, list[np.ndarray]]],
    *,
    with_support: bool,
) -> tuple[list[Verdict], bool]:
    """Which of the values jump where the values that tell change, and whether a place was found where these do."""
    watched = tells or [v for v in gate.outputs if not v.is_key]
    run = _on_lines(equations, inputs, [*watched, *reached], with_support=with_support)
    end = len(watched) + len(reached)
    across = functools.partial(_across, lambda line, ts: run(line, ts)[len(watched) : end])
    found: list[Verdict] = [None] * len(reached)
    crossings: Counter[int] = Counter()
    met = False
    few = sum(math.prod(v.shape) for v in tells) <= _FEW_NUMBERS
    lines, integers = lines_through(equations, inputs), integers_of(equations, inputs)
    if integers and not tells:
        lines = [line.with_integers(inputs, n) for line in lines for n in (*integers, 0)]
    for place, line in enumerate(itertools.chain(lines, mixed_lines(inputs, drawn))):
        if place >= len(lines) and "undefined" not in found:
            break
        search = Search(line, lambda line, ts: list(map(_real, run(line, ts)[: len(watched)])), exact=bool(tells))
        # A value may depend on few entries of the gate: every entry has its turn, if there are not too many.
        entries = sorted(search.where, key=lambda entry: crossings[entry])
        for turn, entry in enumerate(entries if few and tells else entries[:1]):
            if turn and crossings[entry] and crossings.total() >= _CROSSINGS:
                break
            if (bracket := search.narrowed(entry)) is None or (with_support and not np.all(run(*bracket)[-1])):
                continue
            met |= bool(tells)
            differ = across(bracket)
            for n in integers:
                differ = either(differ, across(bracket._replace(line=line.with_integers(inputs, n))))
            if all(d is None for d in differ):
                continue
            crossings[entry] += bool(tells) or True in differ  # what merely moves much was perhaps no jump
            found = either(found, differ)
    if tells and all(v.dtype == bool for v in tells):
        return found, met
    # There may be many more steps than were tried: a value that jumps at others has its largest changes there.
    for n, value in enumerate(reached, len(watched)):
        for line in lines[_SPARSE] if value.is_inexact and found[n - len(watched)] is False else ():
            search = Search(line, lambda line, ts, n=n: [_real(run(line, ts)[n])], exact=False)
            for entry in list(search.where)[:1]:
                if (bracket := search.narrowed(entry)) is not None:
                    found = either(found, across(bracket))
    return found, met


def _compare_at_zero(
    equations: Sequence[Equation],
    inputs: Sequence[Value],
    gate: Equation,
    tells: Sequence[Value],
    reached: Sequence[Value],
    drawn: Callable[[], dict[Value, list[np.ndarray]]],
) -> list[Verdict]:
    """Which of the values jump, between finite values, where what the gate divides by is zero."""
    run = _on_lines(equations, inputs, [*tells, *reached], with_support=True)
    inverse = gate.name == "tan"
    found: list[Verdict] = [None] * len(reached)
    crossings = 0
    for line in mixed_lines(inputs, drawn) if drawn() else lines_through(equations, inputs):
        search = Nearest(line, lambda line, ts: list(map(np.asarray, run(line, ts)[: len(tells)])), inverse=inverse)
        for entry in search.where:
            bracket = search.narrowed(entry) if crossings < _CROSSINGS else None
            if bracket is None or not np.all(run(*bracket)[-1]):
                continue
            crossings += 1
            found = either(found, _across(lambda line, ts: run(line, ts)[len(tells) : -1], bracket))
    return found if crossings else [False] * len(reached)


def _on_lines(
    equations: Sequence[Equation], inputs: Sequence[Value], wanted: Sequence[Value], *, with_support: bool = False
) -> Callable[[Line, np.ndarray], list[Any]]:
    """The wanted values at places of a line, stacked: all by one compiled function, so that they are rounded in one way.

    At last, if `with_support`, whether all draws are in the support of their distributions.
    """
    fn = _values(equations, inputs, wanted, with_support=with_support)
    moving = [i for i, value in enumerate(inputs) if not value.is_key]
    small = sum(math.prod(v.shape) for e in equations for v in e.outputs) < _FAST_TO_RUN
    options = {"xla_backend_optimization_level": 0} if small else None

    def at_all(points: list[Any], places: Any) -> list[Any]:
        def at(row: Any) -> list[Any]:
            values = dict(zip(moving, row[1], strict=True))
            return fn([values.get(i, x) for i, x in enumerate(points)])

        return jax.lax.map(at, (places, [points[i] for i in moving]))

    compiled = jax.jit(at_all, compiler_options=options)

    def run(line: Line, ts: np.ndarray) -> list[Any]:
        points = line.at(np.pad(ts, (0, POINTS - len(ts)), mode="edge"), inputs)
        return compiled(points, np.arange(POINTS))

    return run


_FAST_TO_RUN = 2**14
"""Numbers in all results up to which a function is compiled without optimization: compiling takes longer than running it."""


def _real(x: Any) -> np.ndarray:
    """Real numbers: of complex ones, both parts."""
    x = np.asarray(x)
    return np.stack([x.real, x.imag], -1) if x.dtype.kind == "c" else x


def _across(run: Callable[[Line, np.ndarray], list[Any]], bracket: Bracket) -> list[Verdict]:
    """Which values differ between the two sides of a bracket."""
    values = [x if is_key(x) else np.asarray(x) for x in run(bracket.line, bracket.ts)]
    return [None if is_key(x) else differs(x[0], x[1], *(x[side] for side in bracket.sides)) for x in values]


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
        start = [x if is_key(x) else x[0] for x in line.at(np.zeros(1), inputs)]
        here = own(start)
        moved = [
            (
                np.asarray(x, np.promote_types(v.dtype, np.float64) if v.dtype.kind == "c" else np.float64)
                + 0.3 * rng.normal(size=v.shape)
            ).astype(v.dtype)
            if v.is_inexact
            else random_value(v, rng, scale, positive)
            for v, x in zip(gate.outputs, here, strict=True)
        ]
        pairs = zip(fn(start, here), fn(start, moved), strict=True)
        differ = [None if is_key(a) else differs(a, b) for a, b in pairs]
        found = either(found, differ)
    return found
