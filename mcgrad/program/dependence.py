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
from collections.abc import Callable, Sequence

import jax

from mcgrad import _compat
from mcgrad.program.draw import Draw
from mcgrad.program.forward import Forward
from mcgrad.program.primitives import Moves, moves_of
from mcgrad.program.relation import Dependence, Relation, Window, axis_length
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value, from_jaxpr


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
    _Pass(analysis).run(program, [{}] * len(program.inputs))
    return analysis


def marked_dependence(
    program: Program, scan: Equation, values: Sequence[Value]
) -> tuple[dict[Value, Window], set[Value]]:
    """How values depend on the stacked outputs of a `scan`, with its steps for draws, and which on its last carry."""
    steps, last = Site(scan), Site(scan)  # stand for the two in place of draws
    analysis = Analysis()
    _Pass(analysis, (scan, steps, last)).run(program, [{}] * len(program.inputs))
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
    (found,) = _Pass(Analysis()).run(program, given)
    return [
        tuple(w.axis if isinstance(w.axis, int) and w.low == w.high == 0 else None for w in found[argument])
        if argument in found
        else None
        for argument in arguments
    ]


class _Pass(Forward[Dependence]):
    """The domain of dependence.

    With `marked`, a `scan` and two stand-ins, its results are what dependence is on: the stacked outputs as draws, one a
    step, of the first, and the last carry as a draw of the second.
    """

    nothing: Dependence = {}

    def __init__(self, analysis: Analysis, marked: tuple[Equation, Site, Site] | None = None):
        super().__init__()
        self.analysis = analysis
        self.facts = analysis.dependence
        self.marked = marked

    def equation(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        if self.marked is not None and equation is self.marked[0]:
            _, steps, last = self.marked
            num_carry = _compat.scan_split(equation.eqn)[1]
            return [{last: ()} if i < num_carry else {steps: (Window(0, 0, 0),)} for i in range(len(equation.outputs))]
        return super().equation(equation, inputs)

    def apply(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        if not any(inputs):
            return [{}] * len(equation.outputs)
        if equation.eqn.primitive is _compat.ruled_p:
            return self.ruled(equation, inputs)
        return _moved(equation, inputs)

    def ruled(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        """As the value of the function does; on an operand that its derivative alone depends on, as a whole."""
        structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in equation.inputs]
        function = from_jaxpr(jax.make_jaxpr(equation.eqn.params["fn"])(*structs))
        needed = set(function.without_dead_code().inputs)
        left = [{} if v in needed else given for v, given in zip(function.inputs, inputs, strict=True)]
        parts = zip(self.run(function, inputs), _moved(equation, left), equation.outputs, strict=True)
        return [_join([value, whole], output.shape, equation) for value, whole, output in parts]

    def draw(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        site = self.analysis.sites.get(equation)
        if site is None:
            site = self.analysis.sites[equation] = Site(equation, self.loops, self.depth == 0)
        own = tuple(Window(axis, 0, 0) for axis in (*self.loops, *range(len(site.own_plates))))
        upstream = _parents(site, inputs) if any(inputs) else {}
        # In a loop the law of a draw may depend on earlier draws of the same site.
        found = _join([{site: own}, upstream], equation.outputs[0].shape, equation)
        return [found] * len(equation.outputs)

    def join(self, parts: Sequence[Dependence], value: Value, cause: Equation) -> Dependence:
        return _join(parts, value.shape, cause)

    def widen(self, before: Dependence, after: Dependence) -> Dependence:
        return _widened(before, after)

    def enter(self, fact: Dependence, scan: Equation) -> Dependence:
        return _map_windows(fact, lambda w: _enter_loop(w, scan))

    def next_step(self, fact: Dependence, scan: Equation) -> Dependence:
        # The value carried into step t was made at step t - 1 (t + 1 in reverse).
        step = 1 if scan.eqn.params["reverse"] else -1
        return _map_windows(fact, lambda w: w.shifted(step, step) if w.axis is scan else w)

    def leave(self, fact: Dependence, scan: Equation) -> Dependence:
        return _map_windows(fact, lambda w: _leave_stacked(w, scan))

    def leave_last(self, fact: Dependence, scan: Equation) -> Dependence:
        last = 0 if scan.eqn.params["reverse"] else scan.eqn.params["length"] - 1
        return _map_windows(fact, lambda w: _leave_at(w, scan, last))


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
        handle = Draw(site, (*leaves, key, *[0.0] * (len(operands) - n - 1)))
        if site.facts.has_log_prob:
            return [handle.log_prob(jax.tree.unflatten(site.params["value_tree"], x))]
        return jax.tree.leaves(handle.draw_path())

    structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (*operands[: n + 1], *site.equation.outputs)]
    program = from_jaxpr(jax.make_jaxpr(lambda *a: law(list(a[:n]), a[n], list(a[n + 1 :])))(*structs))
    given = [*inputs[: n + 1], *[{}] * len(site.equation.outputs)]
    outputs = _Pass(Analysis()).run(program, given)
    plates = len(site.own_plates)
    shape = site.equation.outputs[0].shape
    outputs = [_map_windows(d, lambda w: _only_plates(w, plates, shape, site.equation)) for d in outputs]
    return _join(outputs, shape, site.equation)


def _only_plates(window: Window, plates: int, shape: Sequence[int], cause: Equation) -> Window:
    if isinstance(window.axis, int) and window.axis >= plates:
        return window.spread(shape[window.axis], cause)
    return window
