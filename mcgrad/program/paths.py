"""How random numbers reach the costs: with their derivative, with it cut, or by jumps.

One forward pass follows three kinds of sources: draws that are differentiated along their path, draws that are held fixed, and
raw random bits, which nobody registered as draws. A value may be a *moving* function of a source, with its derivative; or it
is *held*: an integer or boolean made of one by a comparison, a search, a conversion (a *root*). Where held values make numbers
again (a selection, an index, a conversion) is a *gate*; so are operations that jump by themselves (`floor`) and those that
keep no derivative (`stop_gradient`). What comes after a gate is *blind* to the source, unless it can be shown (by
`mcgrad.program.probe`, by trying) to be continuous there, or not to depend on what was cut: relu, Huber, the guard of a norm,
the maximum in a softmax.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program.blind_way import PARAMETER, BlindWay
from mcgrad.program.cuts import cuts
from mcgrad.program.forward import Forward
from mcgrad.program.made_of import is_traced
from mcgrad.program.poles import divisor_of
from mcgrad.program.primitives import linear_group, path_of
from mcgrad.program.probe import Kind, Probe
from mcgrad.program.signs import Signs
from mcgrad.program.site import Site
from mcgrad.program.structure import ControlFlow, form_of, live_equations
from mcgrad.program.surroundings import Surroundings
from mcgrad.program.trace import Equation, Program, Value
from mcgrad.program.verdict import Verdict


@dataclasses.dataclass(frozen=True)
class Reach:
    """How sources reach a value: those that it moves with, the roots it is held by, the gates it is blind behind."""

    moving: frozenset[Any] = frozenset()
    held: frozenset[Equation] = frozenset()
    blind: frozenset[Equation] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.moving or self.held or self.blind)


def blind_ways(
    program: Program, outputs: Sequence[Value], draws: Mapping[Equation, Site], following: Set[Site]
) -> list[BlindWay]:
    """The gates that `outputs` are blind behind, in program order.

    Args:
        program: the program.
        outputs: those that are to be differentiated.
        draws: the draws to look at: those of `following` are differentiated along their path, the others are held fixed.
        following: see `draws`.
    """
    search = _Paths(program, outputs, draws, following)
    found = search.run(program, [Reach()] * len(program.inputs))
    by_value = dict(zip(program.outputs, found, strict=True))
    blind = {gate for value in outputs for gate in by_value[value].blind if search.defined(gate, value)}
    return [search.way(gate) for gate in search.gates if gate in blind]


@dataclasses.dataclass
class _Gate:
    roots: set[Equation]
    probe: Probe
    jumped: bool = False  # some value behind it was seen to jump
    untold: bool = False  # of some value behind it trying did not tell
    inner: set[Equation] = dataclasses.field(default_factory=set)  # those of its bodies that it stands for


class _Paths(Forward[Reach]):
    """The domain of paths."""

    nothing = Reach()

    def __init__(
        self, program: Program, outputs: Sequence[Value], draws: Mapping[Equation, Site], following: Set[Site]
    ):
        super().__init__()
        self.draws, self.following = draws, following
        self.live = live_equations(program, set(outputs))
        self.gates: dict[Equation, _Gate] = {}
        self.roots: dict[Equation, frozenset[Any]] = {}
        self.rare: set[Equation] = set()  # hardly any draw comes to where they jump, unless shown otherwise: equalities
        self.program = program
        self.beside: dict[Equation, Probe] = {}
        self._around: dict[Program, Surroundings] = {}
        self._stack: list[Program] = []

    def way(self, gate: Equation) -> BlindWay:
        """What was found at a gate."""
        found = self.gates[gate]
        sources = frozenset().union(*(self.roots[root] for root in found.roots))
        place = gate
        while self.gates[place].inner:
            place = next((e for e in self.gates if e in self.gates[place].inner), place)
        return BlindWay(
            gate,
            place,
            frozenset(found.roots),
            sources,
            self.gates[place].probe.kind == "cuts",
            self.certain(gate),
            found.probe.met,
        )

    def certain(self, gate: Equation) -> bool:
        """Whether a gate was seen to jump; one that stands for those in its bodies, whether one of these was."""
        found = self.gates[gate]
        return any(map(self.certain, found.inner)) if found.inner else found.jumped or not found.untold

    def defined(self, gate: Equation, cost: Value) -> bool:
        """Whether a cost may be finite on both sides of a gate: it has no expectation where draws make it infinite."""
        probe = self.gates[gate].probe
        return cost not in probe.around.producer or probe.jumps(cost) != "undefined"

    def run(self, program: Program, inputs: Sequence[Reach]) -> list[Reach]:
        self._stack.append(program)
        outputs = super().run(program, inputs)
        self._stack.pop()
        # A division that no jump was found behind is by what never becomes zero, or else has no expectation.
        harmless = {gate for gate, known in self.gates.items() if known.probe.kind == "divides" and not known.jumped}
        outputs = [dataclasses.replace(found, blind=found.blind - harmless) for found in outputs]
        return [
            self.join([found, self.of_constant(value)], value, None)
            for value, found in zip(program.outputs, outputs, strict=True)
        ]

    @functools.cached_property
    def signs(self) -> Signs:
        return Signs(self.program)

    def of_constant(self, value: Value) -> Reach:
        return Reach(frozenset({PARAMETER})) if is_traced(value) and value.is_inexact else Reach()

    def equation(self, equation: Equation, inputs: list[Reach]) -> list[Reach]:
        if equation not in self.live:
            return [Reach()] * len(equation.outputs)
        inputs = [found or self.of_constant(value) for value, found in zip(equation.inputs, inputs, strict=True)]
        form = form_of(equation)
        if form is not None and (through := form.differentiated()) is not None:
            outputs = self.apply(equation, [found if i in through else Reach() for i, found in enumerate(inputs)])
        else:
            outputs = super().equation(equation, inputs)
        if form is not None:
            outputs = self.after_control_flow(form, inputs, outputs)
        return [
            self.settled(value, found, equation, inputs) for value, found in zip(equation.outputs, outputs, strict=True)
        ]

    def draw(self, equation: Equation, inputs: list[Reach]) -> list[Reach]:
        # What a draw's law is blind to, it and what is credited to it are blind to. A held draw does not move.
        site = self.draws.get(equation)
        through = self.join(inputs, equation.outputs[0], equation)
        if site is None:
            return [Reach(blind=through.blind)] * len(equation.outputs)
        moving = through.moving if site in self.following else frozenset()
        return [Reach(moving | {site}, frozenset(), through.blind)] * len(equation.outputs)

    def apply(self, equation: Equation, inputs: list[Reach]) -> list[Reach]:
        path = path_of(equation)
        if path == "random":
            seeds = self.join(inputs, equation.outputs[0], equation)
            return [Reach(frozenset({equation}), seeds.held, seeds.blind)] * len(equation.outputs)
        through = self.join(inputs, equation.outputs[0], equation) if equation.outputs else Reach()
        if not through or path == "constant":
            return [Reach(blind=through.blind)] * len(equation.outputs)
        of_numbers = frozenset().union(
            *(found.moving for value, found in zip(equation.inputs, inputs, strict=True) if value.is_inexact)
        )
        outputs = []
        gate = self.is_gate(equation, inputs, of_numbers)
        for value in equation.outputs:
            if not value.is_inexact:
                roots = through.held
                if of_numbers and self.is_root(equation, of_numbers, inputs):
                    roots = roots | {equation}
                    self.roots[equation] = self.roots.get(equation, frozenset()) | of_numbers
                moving = through.moving - of_numbers  # of raw bits, which are integers
                outputs.append(Reach(moving, roots | self.roots_of(through.blind)))
            else:
                # What is constant between jumps has no derivative that could be lost further on.
                moving = frozenset() if path == "steps" and gate else through.moving
                outputs.append(Reach(moving, frozenset(), through.blind | ({equation} if gate else frozenset())))
        return outputs

    def is_root(self, equation: Equation, sources: frozenset[Any], inputs: Sequence[Reach]) -> bool:
        """Whether integers or booleans made of these numbers tell of something that a derivative would have to follow."""
        if not self.matters(sources):
            return False
        if equation.name in ("eq", "ne", "eq_to", "ne_to", "is_finite"):
            # Among values that draws reach, equality finds a maximum. With what no draw reaches it has probability zero, unless
            # a value stays where it is, as that of `relu` does; and what is no number (`x != x`) is so with probability zero,
            # unless it is a function outside of its domain.
            both = len(equation.inputs) == 2 and equation.inputs[0] is not equation.inputs[1]
            if not (both and all(found.moving - {PARAMETER} for found in inputs)):
                self.rare.add(equation)
        return True

    def matters(self, sources: frozenset[Any]) -> bool:
        followed = any(source in self.following for source in sources)
        return followed or (PARAMETER in sources and sources != {PARAMETER})

    def is_gate(self, equation: Equation, inputs: Sequence[Reach], of_numbers: frozenset[Any]) -> bool:
        """Whether numbers are made of held values here, or numbers jump or lose their derivative; notes it if so."""
        held = frozenset().union(*(found.held for found in inputs))
        numbers = [value for value in equation.outputs if value.is_inexact]
        if not numbers:
            return False
        if held:
            tells = [value for value, found in zip(equation.inputs, inputs, strict=True) if found.held]
            self.note_gate(equation, held, tells)
            return True
        if not self.matters(of_numbers):
            return False
        path = path_of(equation)
        if path in ("steps", "jumps", "rarely"):
            if path == "rarely":
                self.rare.add(equation)
            self.note_gate(equation, {equation}, equation.outputs if path == "steps" else ())
        elif len(numbers) < len(equation.outputs) and path != "keeps":
            self.note_gate(equation, {equation}, [v for v in equation.outputs if not v.is_inexact])
        elif equation.name == "sort" and equation.eqn.params["num_keys"] < len(numbers):
            self.note_gate(equation, {equation}, ())
        elif cuts(equation):
            self.note_gate(equation, {equation}, (), "cuts")
        elif divided := self.divided(equation, inputs):
            self.note_gate(equation, {equation}, (divisor_of(equation),), "divides")
            of_numbers = divided
        else:
            return False
        if equation in self.gates[equation].roots:
            self.roots[equation] = self.roots.get(equation, frozenset()) | of_numbers
        return True

    def divided(self, equation: Equation, inputs: Sequence[Reach]) -> frozenset[Any]:
        """The draws that may bring what an operation divides by to zero."""
        divisor = divisor_of(equation)
        if divisor is None or not jnp.issubdtype(divisor.dtype, jnp.floating) or 0 not in self.signs.of(divisor):
            return frozenset()
        at = equation.inputs.index(divisor) if divisor in equation.inputs else 0
        return frozenset(source for source in inputs[at].moving if source in self.following)

    def note_gate(
        self, equation: Equation, roots: Iterable[Equation], tells: Sequence[Any], kind: Kind = "jumps"
    ) -> None:
        gate = self.gates.get(equation)
        if gate is None:
            probe = Probe(self.around(), equation, tells, kind, drawn=self.rare.issuperset(roots))
            gate = self.gates[equation] = _Gate(set(), probe)
        gate.roots |= set(roots)
        if gate.probe.drawn and not gate.roots <= self.rare:
            gate.probe = Probe(self.around(), equation, tells, kind)

    def roots_of(self, gates: Iterable[Equation]) -> frozenset[Equation]:
        """The roots of gates: what integers made of values behind them are held by."""
        return frozenset(root for gate in gates for root in self.gates[gate].roots)

    def around(self) -> Surroundings:
        program = self._stack[-1]
        if program not in self._around:
            self._around[program] = Surroundings(program)
        return self._around[program]

    def settled(self, value: Value, found: Reach, equation: Equation, inputs: Sequence[Reach]) -> Reach:
        """Without the gates that the value is continuous at, or does not depend on."""
        if not found.blind or not value.is_inexact:
            return found
        left = set()
        for gate in found.blind:
            jumps = True
            if gate in self.around().place:
                jumps = self.gates[gate].probe.jumps(value)
                if jumps == "small":
                    # It jumps if one addend or factor does; otherwise it changes by the tolerance of what is approximated,
                    # as what a solver leaves does.
                    behind = [i for i, given in enumerate(inputs) if gate in given.blind]
                    carried = len(behind) == 1 and linear_group(equation, behind) is not None
                    jumps = carried and gate.eqn.primitive is not _compat.while_p
                followed = jumps is not False and self.gates[gate].inner and self.follows_roots(gate, value)
                if followed or (jumps is not False and self.is_far(gate, jumps)):
                    jumps = False
                self.gates[gate].jumped |= jumps is True
                self.gates[gate].untold |= jumps is None
            if jumps is not False:
                left.add(gate)
        return dataclasses.replace(found, blind=frozenset(left))

    def is_far(self, gate: Equation, jumps: Verdict) -> bool:
        """Whether no place was found where a gate jumps, of those that hardly any draw comes to."""
        found = self.gates[gate]
        if found.inner or not found.roots <= self.rare:
            return False
        return jumps is None or bool(found.probe.tells and not found.probe.met)

    def follows_roots(self, gate: Equation, value: Value) -> bool:
        """Whether a value is continuous where the roots of control flow jump, if all of them stand beside it."""
        around, probes = self.around(), set()
        for root in self.gates[gate].roots:
            top = around.standing(root)
            if top is None or top is gate or (top is not root and any(v.is_inexact for v in top.outputs)):
                return False
            if top not in self.beside:
                tells = [v for v in top.outputs if not v.is_inexact] or top.outputs
                self.beside[top] = self.gates[top].probe if top in self.gates else Probe(around, top, tells)
            probes.add(self.beside[top])
        return all(probe.jumps(value) in (False, "small") for probe in probes)

    def after_control_flow(self, form: ControlFlow, inputs: list[Reach], outputs: list[Reach]) -> list[Reach]:
        """Seen as one operation, control flow may be continuous where its parts are not: a search, then interpolation."""
        equation = form.equation
        of_numbers = frozenset().union(*(found.moving for found in inputs))
        results = []
        rule = form.own_rule and self.matters(of_numbers) and cuts(equation)
        # What a function with its own rule does inside is no derivative's way.
        bypassed = {
            e
            for body in equation.bodies
            for e in body.everything()
            if e in self.gates and self.gates[e].probe.kind == "cuts"
        }
        if form.own_rule:
            outputs = [dataclasses.replace(found, blind=found.blind - bypassed) for found in outputs]
        if rule:
            self.note_gate(equation, {equation}, (), "cuts")
            self.roots[equation] = self.roots.get(equation, frozenset()) | of_numbers
        for value, found in zip(equation.outputs, outputs, strict=True):
            if rule and value.is_inexact:
                found = dataclasses.replace(found, blind=found.blind | {equation})
            # What was cut inside stays cut: only whether it jumps can be seen from outside.
            inner = {
                gate
                for gate in found.blind
                if gate not in self.around().place and self.gates[gate].probe.kind != "cuts"
            }
            roots = {root for gate in inner for root in self.gates[gate].roots}
            if value.is_inexact and roots:
                tells = [v for v in equation.outputs if not v.is_inexact]
                self.note_gate(equation, roots, tells if tells and any(self.of(v) for v in tells) else ())
                self.gates[equation].inner |= inner
                found = Reach(found.moving, found.held, (found.blind - inner) | {equation})
            if not value.is_inexact:
                found = Reach(found.moving, found.held | self.roots_of(found.blind))
            results.append(found)
        return results

    def join(self, parts: Sequence[Reach], value: Value, cause: Equation | None) -> Reach:
        return Reach(
            *(frozenset().union(*sets) for sets in zip(*((p.moving, p.held, p.blind) for p in parts), strict=True))
        )

    def chosen(self, equation: Equation, index: Reach, outputs: Sequence[Reach], value: Value) -> Reach:
        found = self.join(outputs, value, equation)
        if not value.is_inexact:
            return self.join([found, Reach(held=index.held, blind=index.blind)], value, equation)
        if index.held:
            self.note_gate(equation, index.held, [equation.inputs[0]])
            found = dataclasses.replace(found, blind=found.blind | {equation})
        return dataclasses.replace(found, blind=found.blind | index.blind)

    def stopped(self, equation: Equation, going_on: Reach) -> Reach:
        if not going_on.held:
            return Reach(blind=going_on.blind)
        self.note_gate(equation, going_on.held, ())
        return Reach(blind=going_on.blind | {equation})
