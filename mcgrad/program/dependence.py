"""Dependence: for every value and every random choice upstream of it, which draws which entries depend on.

One forward pass computes, for each value, each site and each plate axis of that site, a `Window`: *entry `i` of the value
along `axis` depends only on draws `i + low .. i + high` of the plate*. It says *same* (0..0), *earlier* (up to i: what
a `scan` or a `cumsum` gives), *later*, a shifted or banded dependence, or, with no axis, that the whole value depends
on draws `low .. high`, in the worst case all of them (*mixed*). A wider window than the truth is always sound: it
credits a cost with a draw that it does not depend on, a term of mean zero. So an operation without a rule simply loses
the axes.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax

from mcgrad import _compat
from mcgrad.program.axis_rules import Moves, moves_of
from mcgrad.program.site import Site, SiteHandle, sample_p
from mcgrad.program.trace import Equation, Program, Value, from_jaxpr


@dataclasses.dataclass(frozen=True)
class Window:
    """Entry `i` along `axis` depends on draws `i + low .. i + high`; with `axis=None` every entry does on `low .. high`.

    `axis` is an axis of the value, or inside the body of a `scan` that scan's equation, for the current step.
    """

    axis: int | Equation | None
    low: float
    high: float
    cause: Equation | None = dataclasses.field(default=None, compare=False)

    @property
    def separate(self) -> bool:
        """Whether an entry depends on one draw only."""
        return self.low == self.high

    def shifted(self, low: float, high: float) -> Window:
        return dataclasses.replace(self, low=self.low + low, high=self.high + high)

    def spread(self, length: int, cause: Equation | None) -> Window:
        """The window of the whole value: of all entries together."""
        if self.axis is None:
            return self
        return Window(None, self.low, self.high + length - 1, self.cause or cause)

    def draws(self, length: int, plate: int) -> float:
        """How many of the `plate` draws an entry depends on, on average over the axis's `length` entries."""
        if self.axis is None:
            return max(min(self.high, plate - 1) - max(self.low, 0) + 1, 0)
        ends = [(max(i + self.low, 0), min(i + self.high, plate - 1)) for i in range(length)]
        return sum(max(high - low + 1, 0) for low, high in ends) / max(length, 1)

    def most_draws(self, plate: int) -> int:
        """How many of the `plate` draws an entry depends on, at most."""
        if self.axis is None:
            return int(self.draws(1, plate))
        return int(min(plate, self.high - self.low + 1))


Relation: TypeAlias = tuple[Window, ...]
"""One window for each plate axis of a site."""

Dependence: TypeAlias = Mapping[Site, Relation]
"""The sites upstream of a value, and how it depends on each."""


@dataclasses.dataclass
class Analysis:
    """The dependence of every value of a program, bodies of control flow included.

    Attributes:
        dependence: by value; a value that no draw reaches is absent.
        sites: by the equation that draws.
    """

    dependence: dict[Value, Dependence] = dataclasses.field(default_factory=dict)
    sites: dict[Equation, Site] = dataclasses.field(default_factory=dict)

    def of(self, value: Value) -> Dependence:
        return self.dependence.get(value, {})


def analyze(program: Program) -> Analysis:
    """The dependence of all values of a program on its random choices."""
    analysis = Analysis()
    _Pass(analysis).run(program, [{}] * len(program.inputs), ())
    return analysis


def marked_dependence(
    program: Program, scan: Equation, values: Sequence[Value]
) -> tuple[dict[Value, Window], set[Value]]:
    """How values depend on the stacked outputs of a `scan`, with its steps for draws, and which on its last carry."""
    steps, last = Site(scan), Site(scan)  # stand for the two in place of draws
    analysis = Analysis()
    _Pass(analysis, (scan, steps, last)).run(program, [{}] * len(program.inputs), ())
    by_step = {value: analysis.of(value)[steps][0] for value in values if steps in analysis.of(value)}
    return by_step, {value for value in values if last in analysis.of(value)}


def axes_of_entries(
    fn: Callable[..., jax.Array], structs: Sequence[jax.ShapeDtypeStruct], site: Site
) -> list[tuple[int | None, ...] | None]:
    """For each argument of `fn`, and each of its axes, the axis of the result whose entries depend on their own entry only.

    `None` for an axis in place of such; `None` for an argument that the result does not depend on. The line of `site` is
    where the function stands.
    """
    program = from_jaxpr(jax.make_jaxpr(fn)(*structs))
    arguments = [Site(site.equation) for _ in structs]  # stand for the arguments in place of draws
    given = [
        {argument: tuple(Window(axis, 0, 0) for axis in range(len(struct.shape)))}
        for argument, struct in zip(arguments, structs, strict=True)
    ]
    (found,) = _Pass(Analysis()).run(program, given, ())
    return [
        tuple(w.axis if isinstance(w.axis, int) and w.low == w.high == 0 else None for w in found[argument])
        if argument in found
        else None
        for argument in arguments
    ]


class _Pass:
    """One forward pass; loops are run to a fixed point.

    With `marked`, a `scan` and two stand-ins, its results are what dependence is on: the stacked outputs as draws, one a
    step, of the first, and the last carry as a draw of the second.
    """

    def __init__(self, analysis: Analysis, marked: tuple[Equation, Site, Site] | None = None):
        self.analysis = analysis
        self.marked = marked
        self.depth = 0

    def run(self, program: Program, inputs: Sequence[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        dependence = self.analysis.dependence
        self.depth += 1
        for value, given in zip(program.inputs, inputs, strict=True):
            dependence[value] = given
        for equation in program.equations:
            outputs = self.equation(equation, [self.analysis.of(v) for v in equation.inputs], loops)
            for value, found in zip(equation.outputs, outputs, strict=True):
                if found:
                    dependence[value] = found
                else:
                    dependence.pop(value, None)
        self.depth -= 1
        return [self.analysis.of(v) for v in program.outputs]

    def equation(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        primitive = equation.eqn.primitive
        if self.marked is not None and equation is self.marked[0]:
            _, steps, last = self.marked
            num_carry = _compat.scan_split(equation.eqn)[1]
            return [{last: ()} if i < num_carry else {steps: (Window(0, 0, 0),)} for i in range(len(equation.outputs))]
        if primitive is sample_p:
            return self.site(equation, inputs, loops)
        if primitive is _compat.scan_p:
            return self.scan(equation, inputs, loops)
        if primitive is _compat.cond_p:
            return self.cond(equation, inputs, loops)
        if primitive is _compat.while_p:
            return self.while_loop(equation, inputs, loops)
        if primitive in CALLS and len(equation.bodies[0].inputs) == len(inputs):
            return self.run(equation.bodies[0], inputs, loops)
        if not any(inputs):
            return [{}] * len(equation.outputs)
        if primitive is _compat.ruled_p:
            return self.ruled(equation, inputs, loops)
        return _moved(equation, inputs)

    def ruled(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        """As the value of the function does; on an operand that its derivative alone depends on, as a whole."""
        structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in equation.inputs]
        function = from_jaxpr(jax.make_jaxpr(equation.eqn.params["fn"])(*structs))
        needed = set(function.without_dead_code().inputs)
        left = [{} if v in needed else given for v, given in zip(function.inputs, inputs, strict=True)]
        parts = zip(self.run(function, inputs, loops), _moved(equation, left), equation.outputs, strict=True)
        return [_join([value, whole], output.shape, equation) for value, whole, output in parts]

    def site(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        site = self.analysis.sites.get(equation)
        if site is None:
            site = self.analysis.sites[equation] = Site(equation, loops, self.depth == 1)
        own = tuple(Window(axis, 0, 0) for axis in (*loops, *range(len(site.own_plates))))
        upstream = _parents(site, inputs) if any(inputs) else {}
        # In a loop the law of a draw may depend on earlier draws of the same site.
        found = _join([{site: own}, upstream], equation.outputs[0].shape, equation)
        return [found] * len(equation.outputs)

    def scan(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        num_consts, num_carry = _compat.scan_split(equation.eqn)
        length, reverse = equation.eqn.params["length"], equation.eqn.params["reverse"]
        (body,) = equation.bodies
        consts, carry, xs = (
            inputs[:num_consts],
            inputs[num_consts : num_consts + num_carry],
            inputs[num_consts + num_carry :],
        )
        xs = [_map_windows(d, lambda w: _enter_loop(w, equation)) for d in xs]
        # The value carried into step t was made at step t - 1 (t + 1 in reverse).
        step = 1 if reverse else -1
        carried_shapes = [v.shape for v in body.inputs[num_consts : num_consts + num_carry]]
        for iteration in range(_FIXED_POINT_LIMIT):
            outputs = self.run(body, [*consts, *carry, *xs], (*loops, equation))
            through = [
                _map_windows(d, lambda w: w.shifted(step, step) if w.axis is equation else w)
                for d in outputs[:num_carry]
            ]
            joined = [
                _join([before, after], shape, equation)
                for before, after, shape in zip(carry, through, carried_shapes, strict=True)
            ]
            if joined == carry:
                break
            if iteration >= 2:  # still growing: what comes through the carry goes back without end
                joined = [_widened(old, new) for old, new in zip(carry, joined, strict=True)]
            carry = joined
        else:
            raise AssertionError(f"no fixed point for the scan at {equation.line}")
        last = 0 if reverse else length - 1
        finals = [_map_windows(d, lambda w: _leave_at(w, equation, last)) for d in outputs[:num_carry]]
        if length == 0:
            finals = list(inputs[num_consts : num_consts + num_carry])
        stacked = [_map_windows(d, lambda w: _leave_stacked(w, equation)) for d in outputs[num_carry:]]
        return [*finals, *stacked]

    def cond(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        branches = [self.run(body, inputs[1:], loops) for body in equation.bodies]
        index = inputs[0]  # a scalar, so its windows have no axis
        return [
            _join([index, *outs], value.shape, equation)
            for value, *outs in zip(equation.outputs, *branches, strict=True)
        ]

    def while_loop(self, equation: Equation, inputs: list[Dependence], loops: tuple[Equation, ...]) -> list[Dependence]:
        num_cond, num_body = equation.eqn.params["cond_nconsts"], equation.eqn.params["body_nconsts"]
        cond, body = equation.bodies
        cond_consts, body_consts = inputs[:num_cond], inputs[num_cond : num_cond + num_body]
        carry = inputs[num_cond + num_body :]
        while True:
            (going_on,) = self.run(cond, [*cond_consts, *carry], loops)
            outputs = self.run(body, [*body_consts, *carry], loops)
            joined = [
                _join([before, after, going_on], value.shape, equation)
                for before, after, value in zip(carry, outputs, equation.outputs, strict=True)
            ]
            joined = [_widened(old, new) if old else new for old, new in zip(carry, joined, strict=True)]
            if joined == carry:
                return carry
            carry = joined


_FIXED_POINT_LIMIT = 50

CALLS = frozenset({_compat.checkpoint_p, _compat.custom_jvp_p, _compat.custom_vjp_p})
"""Primitives that call their first body with their own operands."""


def _map_windows(dependence: Dependence, fn: Callable[[Window], Window]) -> Dependence:
    return {site: tuple(map(fn, relation)) for site, relation in dependence.items()}


def _enter_loop(window: Window, loop: Equation) -> Window:
    """From a stacked input of a scan to one step's row."""
    if not isinstance(window.axis, int):
        return window
    return dataclasses.replace(window, axis=loop if window.axis == 0 else window.axis - 1)


def _leave_stacked(window: Window, loop: Equation) -> Window:
    """From one step's row to the stacked output of a scan."""
    if window.axis is loop:
        return dataclasses.replace(window, axis=0)
    return dataclasses.replace(window, axis=window.axis + 1) if isinstance(window.axis, int) else window


def _leave_at(window: Window, loop: Equation, last: int) -> Window:
    """From the carry after the last step to the result of the scan."""
    if window.axis is not loop:
        return window
    return Window(None, window.low + last, window.high + last, window.cause or loop)


def _widened(old: Dependence, new: Dependence) -> Dependence:
    """`new`, with every bound that moved since `old` moved without end."""

    def widen(before: Window, after: Window) -> Window:
        if before.axis is not after.axis and before.axis != after.axis:
            return after
        low = -math.inf if after.low < before.low else after.low
        high = math.inf if after.high > before.high else after.high
        return dataclasses.replace(after, low=low, high=high)

    return {site: tuple(map(widen, old[site], relation)) if site in old else relation for site, relation in new.items()}


def axis_length(axis: int | Equation | None, shape: Sequence[int]) -> int:
    """How many entries an axis of a value has; the time axis of a `scan` its length."""
    if axis is None:
        return 1
    return shape[axis] if isinstance(axis, int) else axis.eqn.params["length"]


def _join(parts: Sequence[Dependence], shape: Sequence[int], cause: Equation | None) -> Dependence:
    """The dependence of a value on all that its parts depend on; axes are the value's."""
    joined: dict[Site, Relation] = {}
    for part in parts:
        for site, relation in part.items():
            if site in joined:
                relation = tuple(_hull(a, b, shape, cause) for a, b in zip(joined[site], relation, strict=True))
            joined[site] = relation
    return joined


def _hull(a: Window, b: Window, shape: Sequence[int], cause: Equation | None) -> Window:
    if a.axis is not b.axis and a.axis != b.axis:
        a = a.spread(axis_length(a.axis, shape), cause)
        b = b.spread(axis_length(b.axis, shape), cause)
    if (a.low, a.high) == (b.low, b.high):
        return a
    return Window(a.axis, min(a.low, b.low), max(a.high, b.high), a.cause or b.cause or cause)


def _moved(equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
    """The dependence of the results of an ordinary operation."""
    results: list[Dependence] = []
    for output, by_operand in zip(equation.outputs, moves_of(equation), strict=True):
        parts = []
        for value, given, moves in zip(equation.inputs, inputs, by_operand, strict=True):
            if given and moves is not None:
                parts.append(_map_windows(given, lambda w, m=moves, v=value: _move(w, m, v.shape, equation)))
        results.append(_join(parts, output.shape, equation))
    return results


def _move(window: Window, moves: Moves, shape: Sequence[int], equation: Equation) -> Window:
    if not isinstance(window.axis, int):
        return window
    move = moves.get(window.axis)
    if move is None:
        return window.spread(shape[window.axis], equation)
    if move.axis is None:  # only a known range of entries is read
        return Window(None, window.low + move.low, window.high + move.high, window.cause or equation)
    cause = window.cause or (equation if move.low != move.high else None)
    axis = operator.index(move.axis)  # JAX may have it as a numpy integer
    return Window(axis, window.low + move.low, window.high + move.high, cause)


def _parents(site: Site, inputs: list[Dependence]) -> Dependence:
    """How the draws of a site depend on upstream draws: as its log density, entry by entry, does on the parameters.

    Dependence in law is what credit needs: a draw whose law given the other upstream draws does not involve one of
    them has no covariance with that one's score.
    """
    operands = site.equation.inputs
    n = len(site.parameters)

    def law(leaves: list[jax.Array], key: jax.Array, x: list[jax.Array]) -> list[jax.Array]:
        handle = SiteHandle(site, (*leaves, key, *[0.0] * (len(operands) - n - 1)))
        if site.facts.has_log_prob:
            return [handle.log_prob(jax.tree.unflatten(site.params["value_tree"], x))]
        return jax.tree.leaves(handle.draw_path())

    structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (*operands[: n + 1], *site.equation.outputs)]
    program = from_jaxpr(jax.make_jaxpr(lambda *a: law(list(a[:n]), a[n], list(a[n + 1 :])))(*structs))
    given = [*inputs[: n + 1], *[{}] * len(site.equation.outputs)]
    outputs = _Pass(Analysis()).run(program, given, ())
    plates = len(site.own_plates)
    shape = site.equation.outputs[0].shape
    outputs = [_map_windows(d, lambda w: _only_plates(w, plates, shape, site.equation)) for d in outputs]
    return _join(outputs, shape, site.equation)


def _only_plates(window: Window, plates: int, shape: Sequence[int], cause: Equation) -> Window:
    if isinstance(window.axis, int) and window.axis >= plates:
        return window.spread(shape[window.axis], cause)
    return window
