"""Dependence: for every value and every random choice upstream of it, which draws which entries depend on.

One forward pass, whose facts are relations (see `mcgrad.program.relation`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax

from mcgrad import _compat, _mesh
from mcgrad._types import Shape
from mcgrad.distributions.wrappers.autoregressive import conditionals_p, history_p
from mcgrad.program.collectives import Coupling, couplings
from mcgrad.program.draw import Draw
from mcgrad.program.forward import Forward
from mcgrad.program.known import Known
from mcgrad.program.primitives import moves_of, rule_of
from mcgrad.program.relation import Axis, Dependence, MeshAxis, Move, Regroup, Window, axis_length, join, move, widened
from mcgrad.program.sequences import leaf_axes
from mcgrad.program.site import Site
from mcgrad.program.structure import ShardView
from mcgrad.program.trace import Equation, Program, Value, from_jaxpr


@dataclasses.dataclass
class Analysis:
    """The dependence of every value of a program, bodies of control flow included.

    Attributes:
        dependence: by value; a value that no draw reaches is absent.
        sites: by the equation that draws.
        constants: values known before the program runs.
        coupled: by value, how it reads draws of other devices; a value that reads none is absent.
    """

    dependence: dict[Value, Dependence] = dataclasses.field(default_factory=dict)
    sites: dict[Equation, Site] = dataclasses.field(default_factory=dict)
    constants: frozenset[Value] = frozenset()
    coupled: dict[Value, frozenset[Coupling]] = dataclasses.field(default_factory=dict)

    def of(self, value: Value) -> Dependence:
        return self.dependence.get(value, {})

    def couplings(self, value: Value, site: Site | None = None) -> frozenset[Coupling]:
        """How a value reads draws of other devices; those of one site, if one is given."""
        found = self.coupled.get(value, frozenset())
        return found if site is None else frozenset(c for c in found if c.site is site)


def analyze(program: Program, constants: frozenset[Value] = frozenset()) -> Analysis:
    """The dependence of all values of a program on its random choices; `constants` are known before it runs."""
    analysis = Analysis(constants=constants)
    _Pass(analysis, Known(program)).run(program, [{}] * len(program.inputs))
    analysis.coupled = couplings(program, analysis.of)
    return analysis


@dataclasses.dataclass(frozen=True, eq=False)
class StandIn:
    """What values may depend on in place of the draws of a site."""

    plates: Shape


def dependence_on_results(
    program: Program, scan: Equation, values: Sequence[Value]
) -> tuple[dict[Value, Window], set[Value]]:
    """How values depend on the stacked outputs of a `scan`, with its steps for draws, and which on its last carry."""
    steps, last = StandIn((scan.eqn.params["length"],)), StandIn(())
    num_carry = _compat.scan_split(scan.eqn)[1]
    results: list[Dependence] = [
        {last: ()} if i < num_carry else {steps: (Window((0,), 0, 0),)} for i in range(len(scan.outputs))
    ]
    analysis = Analysis()
    _Pass(analysis, Known(program), {scan: results}).run(program, [{}] * len(program.inputs))
    by_step = {value: analysis.of(value)[steps][0] for value in values if steps in analysis.of(value)}
    return by_step, {value for value in values if last in analysis.of(value)}


def axes_of_entries(
    fn: Callable[..., jax.Array], structs: Sequence[jax.ShapeDtypeStruct]
) -> list[tuple[int | None, ...] | None]:
    """For each axis of each argument: the axis of the result along which entry `i` depends only on entry `i` of the argument,
    or `None`. `None` in place of a tuple if the result does not depend on the argument.
    """
    program = from_jaxpr(jax.make_jaxpr(fn)(*structs))
    arguments = [StandIn(tuple(struct.shape)) for struct in structs]
    given = [{a: tuple(Window((axis,), 0, 0) for axis in range(len(a.plates)))} for a in arguments]
    (found,) = _Pass(Analysis(), Known(program)).run(program, given)

    def axis(window: Window) -> int | None:
        kept = window.simple_axis
        return kept if isinstance(kept, int) and window.low == window.high == 0 else None

    return [tuple(map(axis, found[a])) if a in found else None for a in arguments]


class _Pass(Forward[Dependence]):
    """The domain of dependence; the results of the equations `given` depend on what is said there."""

    nothing: Dependence = {}

    def __init__(self, analysis: Analysis, known: Known, given: Mapping[Equation, list[Dependence]] | None = None):
        super().__init__()
        self.analysis = analysis
        self.facts = analysis.dependence
        self.known = known
        self.given = given or {}
        self.histories: dict[Value, StandIn] = {}

    def equation(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        return self.given[equation] if equation in self.given else super().equation(equation, inputs)

    def apply(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        if not any(inputs):
            return [{}] * len(equation.outputs)
        if equation.eqn.primitive is _compat.ruled_p:
            return self.ruled(equation, inputs)
        if (
            equation.eqn.primitive is history_p
        ):  # seen as one source, until `conditionals` tells how its entries are read
            return [{self.histories.setdefault(equation.inputs[0], StandIn(())): ()}]
        if equation.eqn.primitive is conditionals_p:
            return self.conditionals(equation, inputs)
        return self.moved(equation, inputs)

    def moved(self, equation: Equation, inputs: Sequence[Dependence]) -> list[Dependence]:
        """The dependence of the results, as the operation moves the axes of its operands."""
        results: list[Dependence] = []
        inputs = _across_devices(equation, inputs)
        for output, by_operand in zip(equation.outputs, moves_of(equation, self.known), strict=True):
            parts = []
            for value, given, moves in zip(equation.inputs, inputs, by_operand, strict=True):
                if given and moves is not None and 0 not in value.shape:
                    step = functools.partial(move, moves=moves, source=value.shape, target=output.shape, cause=equation)
                    parts.append(_map_windows(given, step))
            results.append(join(parts, output.shape, equation))
        return results

    def ruled(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        """As for the value of the function; operands that only its derivative depends on count as a whole."""
        function = from_jaxpr(_compat.trace_on(equation.eqn.params["fn"], [v.aval for v in equation.inputs]))
        self.known.learn(function.everything())
        needed = set(function.without_dead_code().inputs)
        left = [{} if v in needed else given for v, given in zip(function.inputs, inputs, strict=True)]
        parts = zip(self.run(function, inputs), self.moved(equation, left), equation.outputs, strict=True)
        return [join([value, whole], output.shape, equation) for value, whole, output in parts]

    def conditionals(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        """Entry `t` of what is made of a sequence depends on entries before `t`, whatever operations made it."""
        x, history = equation.inputs[0], self.histories.get(equation.inputs[0])
        found = []
        n = len(equation.outputs)
        places, last = leaf_axes(equation, axes_of_entries)
        for value, given, own in zip(equation.outputs, inputs[-n:], places, strict=True):
            others = {source: relation for source, relation in given.items() if source is not history}
            read = {axis: Move(to) if axis != last else Move(to, -math.inf, -1) for axis, to in own.items()}
            step = functools.partial(move, moves=read, source=x.shape, target=value.shape, cause=equation)
            earlier = _map_windows(inputs[0], step) if history in given else {}
            found.append(join([others, earlier], value.shape, equation))
        return found

    def draw(self, equation: Equation, inputs: list[Dependence]) -> list[Dependence]:
        site = self.analysis.sites.get(equation)
        if site is None:
            site = self.analysis.sites[equation] = Site(equation, self.loops, self.depth == 0, self.analysis.constants)
        own = tuple(Window((axis,), 0, 0) for axis in (*self.loops, *range(len(site.own_plates))))
        upstream = _parents(site, inputs) if any(inputs) else {}
        if site.facts.causal:
            own = (*own[:-1], own[-1].shifted(-math.inf, 0))
            shape, last = equation.outputs[0].shape, len(site.own_plates) - 1
            before = {axis: Move(axis, -math.inf if axis == last else 0, 0) for axis in range(len(shape))}
            step = functools.partial(move, moves=before, source=shape, target=shape, cause=equation)
            upstream = _map_windows(upstream, step)
        # In a loop the distribution of a draw may depend on earlier draws of the same site.
        found = join([{site: own}, upstream], equation.outputs[0].shape, equation)
        return [found] * len(equation.outputs)

    def join(self, parts: Sequence[Dependence], value: Value, cause: Equation) -> Dependence:
        return join(parts, value.shape, cause)

    def widen(self, before: Dependence, after: Dependence) -> Dependence:
        return widened(before, after)

    def enter(self, fact: Dependence, scan: Equation) -> Dependence:
        return _map_windows(fact, lambda w: w.renamed({a: a - 1 if a else scan for a in w.axes if isinstance(a, int)}))

    def next_step(self, fact: Dependence, value: Value, scan: Equation) -> Dependence:
        # The value carried into step t was made at step t - 1 (t + 1 in reverse).
        step = 1 if scan.eqn.params["reverse"] else -1

        def next_of(window: Window) -> Window:
            if window.simple_axis is scan:
                return window.shifted(step, step)
            return window.without((scan,), value.shape, scan)

        return _map_windows(fact, next_of)

    def leave(self, fact: Dependence, scan: Equation) -> Dependence:
        return _map_windows(
            fact,
            lambda w: w.renamed(
                {a: a + 1 if isinstance(a, int) else 0 for a in w.axes if isinstance(a, int) or a is scan}
            ),
        )

    def leave_last(self, fact: Dependence, value: Value, scan: Equation) -> Dependence:
        last = 0 if scan.eqn.params["reverse"] else scan.eqn.params["length"] - 1
        return _map_windows(fact, lambda w: w.at(scan, last, value.shape, scan))

    def onto_device(self, fact: Dependence, shards: Equation, operand: int) -> Dependence:
        whole, part = shards.inputs[operand], shards.bodies[0].inputs[operand]
        axes, sizes = _split_axes(shards, part, 0, operand)
        split = Regroup(sizes, tuple(range(len(whole.shape))))

        def part_of(window: Window) -> Window:
            return move(window, split, whole.shape, sizes, shards).renamed(dict(enumerate(axes)))

        return _map_windows(fact, part_of)

    def from_devices(self, fact: Dependence, shards: Equation, result: int) -> Dependence:
        whole, part = shards.outputs[result], shards.bodies[0].outputs[result]
        axes, sizes = _split_axes(shards, part, 1, result)
        joined = Regroup(whole.shape, tuple(range(len(sizes))))

        def whole_of(window: Window) -> Window:
            lost = [a for a in window.axes if isinstance(a, MeshAxis) and a.shards is shards and a not in axes]
            split = window.without(lost, part.shape, shards).renamed({a: k for k, a in enumerate(axes)})
            return move(split, joined, sizes, whole.shape, shards)

        return _map_windows(fact, whole_of)


def _split_axes(shards: Equation, part: Value, side: int, position: int) -> tuple[list[Axis], Shape]:
    """The axes of an operand or result of a `shard_map`, those spread over devices split into mesh axes and what each has."""
    view = ShardView(shards)
    spec = (*view.specs[side][position], *[None] * len(part.shape))
    axes: list[Axis] = []
    for own, entry in zip(range(len(part.shape)), spec, strict=False):
        axes += [MeshAxis(shards, name, view.axes[name]) for name in _mesh.names_of(entry)]
        axes.append(own)
    return axes, tuple(axis_length(axis, part.shape) for axis in axes)


def _across_devices(equation: Equation, inputs: Sequence[Dependence]) -> Sequence[Dependence]:
    """The dependence of operands with the mesh axes lost that an operation reads other devices along, or may read."""
    if not any(isinstance(a, MeshAxis) for given in inputs for r in given.values() for w in r for a in w.axes):
        return inputs
    unknown = rule_of(equation).axes is None
    named = {axis for inner in equation.everything() for axis in _mesh.collective_axes(inner.eqn)}

    def lost(window: Window, value: Value) -> Window:
        over = [a for a in window.axes if isinstance(a, MeshAxis) and (unknown or a.name in named)]
        return window.without(over, value.shape, equation)

    each = zip(equation.inputs, inputs, strict=True)
    return [_map_windows(given, functools.partial(lost, value=value)) for value, given in each]


def _map_windows(dependence: Dependence, fn: Callable[[Window], Window]) -> Dependence:
    return {source: tuple(map(fn, relation)) for source, relation in dependence.items()}


def _parents(site: Site, inputs: list[Dependence]) -> Dependence:
    """How the draws of a site depend on upstream draws: as its log density, entry by entry, does on the parameters.

    Credit needs dependence in distribution: if the distribution of a draw, given the other upstream draws, does not involve
    one of them, the draw has no covariance with the score of that one.
    """
    operands = site.equation.inputs
    n = len(site.parameters)

    def law(leaves: list[jax.Array], key: jax.Array, x: list[jax.Array]) -> list[jax.Array]:
        draw = Draw(site, (*leaves, key, *(_mesh.zeros(v.aval) for v in operands[n + 1 :])))
        if "log_prob" in site.facts.knows:
            return [draw.log_prob(site.value_of(x))]
        return jax.tree.leaves(draw.sample_path())

    def trace() -> tuple[Program, Known]:
        avals = [v.aval for v in (*operands[: n + 1], *site.equation.outputs)]
        program = from_jaxpr(_compat.trace_on(lambda *a: law(list(a[:n]), a[n], list(a[n + 1 :])), avals))
        return program, Known(program)

    program, known = site.recall("law", trace)
    given = [*inputs[: n + 1], *[{}] * len(site.equation.outputs)]
    outputs = _Pass(Analysis(), known).run(program, given)
    shape = site.equation.outputs[0].shape
    event_axes = range(len(site.own_plates), len(shape))
    outputs = [_map_windows(d, lambda w: w.without(event_axes, shape, site.equation)) for d in outputs]
    return join(outputs, shape, site.equation)
