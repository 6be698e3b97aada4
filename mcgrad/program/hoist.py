"""Hoisting: linear arithmetic on costs is moved out of loops and checkpoints, to where credit can see it.

A program that adds up rewards in the carry of a `scan`, or takes a mean inside its body or inside a `checkpoint`, hides the
individual costs. Three rewritings, each of which computes the same numbers, expose them:

- a carry `c` of a `scan` that the body only adds to, `c <- c + r`, is replaced by the stacked `r` and their sum outside
  (`c <- a * c + r` with `a` that no draw reaches: by the sum of `r` times the products of the later `a`);
- what is linear at the end of a `scan`'s body is replayed on the stacked costs outside;
- what is linear at the end of a `checkpoint` is replayed outside, at the end of a `shard_map` in one of its own.

Each is done only where it gains credit, innermost loops first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mcgrad import _compat, _mesh
from mcgrad.program.costs import linear_parts, split_costs
from mcgrad.program.dependence import Analysis
from mcgrad.program.primitives import linear_group
from mcgrad.program.shards import Shards
from mcgrad.program.site import Site
from mcgrad.program.structure import CheckpointView, ScanView
from mcgrad.program.trace import Constant, Equation, Program, Value, replaced

Rewritten: TypeAlias = Callable[..., Sequence[Any]]
"""What replaces an equation: a function of its operands."""


class Hoisted(NamedTuple):
    """A program after one round of hoisting, and the lines of the `scan`s whose accumulators were found."""

    program: Program
    accumulators: tuple[str, ...]


def hoist_costs(program: Program, num_outputs: int, analysis: Analysis, credited: set[Site]) -> Hoisted | None:
    """One round of hoisting for the first `num_outputs` outputs; `None` where nothing is left to hoist."""
    known = _Known(analysis, credited, _linear_ends(program, program.outputs[:num_outputs], analysis))
    return _hoist(program, known)


class _Known(NamedTuple):
    """What one round is based on: `linear` has the values, also in bodies, that the outputs are linear in."""

    analysis: Analysis
    credited: set[Site]
    linear: set[Value]


def _linear_ends(program: Program, outputs: Sequence[Value], analysis: Analysis) -> set[Value]:
    """The values, in bodies too, that reach the outputs through linear operations."""
    linear = set(outputs)
    for equation in reversed(program.equations):
        ends = [i for i, v in enumerate(equation.outputs) if v in linear]
        if not ends:
            continue
        if equation.eqn.primitive in (_compat.scan_p, _compat.checkpoint_p) or equation.name == _compat.SHARD_MAP:
            (body,) = equation.bodies
            inside: set[Value] = set()
            while not {body.outputs[i] for i in ends} <= inside:
                inside = _linear_ends(body, [body.outputs[i] for i in ends], analysis)
                if equation.eqn.primitive is _compat.scan_p:  # what is added up was carried from the step before
                    carry = ScanView(equation).split(body.inputs)[1]
                    carried = [k for k, value in enumerate(carry) if value in inside]
                    ends = sorted({*ends, *carried})
            linear |= inside
            linear |= {v for v, inner in zip(equation.inputs, body.inputs, strict=True) if inner in inside}
        else:
            # What a draw selects may yet be a carry that is added to or not (`where(done, c, c + r)`).
            selected = equation.inputs[1:] if equation.name == "select_n" else ()
            linear.update(linear_parts(equation, analysis) or selected)
    return linear


def _hoist(program: Program, known: _Known) -> Hoisted | None:
    accumulators: list[str] = []

    def rule(equation: Equation) -> tuple[Rewritten, Sequence[Value]] | None:
        rewritten = _rewritten(equation, known, accumulators)
        return None if rewritten is None else (rewritten, equation.inputs)

    found = replaced(program, rule)
    return None if found is None else Hoisted(found, tuple(accumulators))


def _rewritten(equation: Equation, known: _Known, accumulators: list[str]) -> Rewritten | None:
    primitive = equation.eqn.primitive
    if equation.name == _compat.SHARD_MAP:
        return _without_suffix_of_shards(equation, known)
    if primitive is not _compat.scan_p and primitive is not _compat.checkpoint_p:
        return None
    inner = _hoist(equation.bodies[0], known)
    if inner is not None:
        accumulators += inner.accumulators
    if primitive is _compat.checkpoint_p:
        if inner is not None:
            return _Checkpoint(equation, inner.program).rebuilt
        checkpoint = _Checkpoint(equation, equation.bodies[0])
        inputs, outputs = checkpoint.body.inputs, checkpoint.body.outputs
        cut = _cut(checkpoint.body, range(len(outputs)), inputs, known)
        return None if cut is None else _without_suffix_of_checkpoint(checkpoint, cut)
    if inner is not None:
        return _Scan(equation, inner.program).rebuilt
    scan = _Scan(equation, equation.bodies[0])
    adding = _accumulators(scan, known)
    if adding:
        accumulators.append(equation.line)
        return _without_accumulators(scan, adding)
    cut = _cut(scan.body, range(scan.num_carry, len(scan.body.outputs)), scan.consts, known)
    return None if cut is None else _without_suffix_of_scan(scan, cut)


class _Cut(NamedTuple):
    """The linear end of a body: `suffix` makes the outputs at `replaced` from body inputs and from `parts`."""

    replaced: tuple[int, ...]
    parts: tuple[Value, ...]
    inputs: tuple[Value, ...]
    suffix: Program


def _cut(body: Program, candidates: Sequence[int], shared: Sequence[Value], known: _Known) -> _Cut | None:
    """Cut off the linear end of the outputs at `candidates`; `shared` are body inputs that are at hand outside too."""
    candidates = [i for i in candidates if body.outputs[i] in known.linear]
    sums = frozenset(e for e in body.equations if _adds_what_no_draw_reaches(e, known))
    split = split_costs(body, [body.outputs[i] for i in candidates], known.analysis, known.credited, sums)
    if not split.suffix:
        return None
    # A shared input that is only converted goes with the suffix too, or it would still seem to be used in the body.
    passed = [
        e
        for e in body.equations
        if e.outputs[0] in split.costs and e.name in _CONVERSIONS and any(v in shared for v in e.inputs)
    ]
    equations = (*passed, *split.suffix)
    made = {v for e in equations for v in e.outputs}
    reads = dict.fromkeys(v for e in equations for v in e.inputs if v not in made and not isinstance(v, Constant))
    inputs = tuple(v for v in reads if v in shared)
    parts = tuple(v for v in reads if v not in shared)
    replaced = tuple(i for i in candidates if body.outputs[i] in made)
    suffix = Program((*parts, *inputs), equations, tuple(body.outputs[i] for i in replaced))
    return _Cut(replaced, parts, inputs, suffix)


def _adds_what_no_draw_reaches(equation: Equation, known: _Known) -> bool:
    reached = [any(site in known.credited for site in known.analysis.of(v)) for v in equation.inputs]
    return equation.name in ("add", "add_any", "sub") and any(reached) and not all(reached)


_CONVERSIONS = ("copy", "copy_p", "convert_element_type")


class _Checkpoint:
    """A `checkpoint` to be rebuilt around a body."""

    def __init__(self, equation: Equation, body: Program):
        self.view = CheckpointView(equation)
        self.body = body

    def run(self, outputs: Sequence[Value], operands: Sequence[Any]) -> Sequence[Any]:
        """Values of the body at its operands; inputs that they do not need are left out."""
        body = dataclasses.replace(self.body, outputs=tuple(outputs)).without_dead_code()
        used = [i for i, v in enumerate(self.body.inputs) if v in body.inputs]
        return self.view.wrap(body.evaluate)(*(operands[i] for i in used))

    def rebuilt(self, *operands: Any) -> Sequence[Any]:
        return self.run(self.body.outputs, operands)


def _without_suffix_of_checkpoint(checkpoint: _Checkpoint, cut: _Cut) -> Rewritten:
    body = checkpoint.body

    def rewritten(*operands: Any) -> Sequence[Any]:
        kept = [i for i in range(len(body.outputs)) if i not in cut.replaced]
        results = checkpoint.run([*(body.outputs[i] for i in kept), *cut.parts], operands)
        given = dict(zip(body.inputs, operands, strict=True))
        replayed = cut.suffix.evaluate(*results[len(kept) :], *(given[v] for v in cut.inputs))
        return _in_order(kept, results[: len(kept)], cut.replaced, replayed)

    return rewritten


def _without_suffix_of_shards(equation: Equation, known: _Known) -> Rewritten | None:
    shards = Shards(equation)
    body, specs = shards.body, shards.view.specs[1]
    reached = [i for i, value in enumerate(equation.inputs) if known.analysis.of(value)]
    if not reached or linear_group(equation, reached) is not None:
        return None  # it is a suffix itself
    found = _cut(body, range(len(body.outputs)), body.inputs, known)
    if found is None or set(found.parts) <= set(body.inputs):
        return None
    cut = found

    def rewritten(*operands: Any) -> Sequence[Any]:
        env = shards.of_operands(operands)
        kept = [i for i in range(len(body.outputs)) if i not in cut.replaced]
        before = [*(body.outputs[i] for i in kept), *cut.parts]
        held = shards.part(body.equations, before, env, [specs[i] for i in kept])
        env.update(zip(cut.parts, held[len(kept) :], strict=True))
        after = shards.part(cut.suffix.equations, cut.suffix.outputs, env, [specs[i] for i in cut.replaced])
        return _in_order(kept, [h.array for h in held[: len(kept)]], cut.replaced, [h.array for h in after])

    return rewritten


def _in_order(first: Sequence[int], those: Sequence[Any], second: Sequence[int], others: Sequence[Any]) -> list[Any]:
    results = {**dict(zip(first, those, strict=True)), **dict(zip(second, others, strict=True))}
    return [results[i] for i in sorted(results)]


class _Scan:
    """A `scan` to be rebuilt around a body."""

    def __init__(self, equation: Equation, body: Program):
        self.view = ScanView(equation)
        self.equation = equation
        self.body = body
        self.consts, self.carry, _ = self.view.split(body.inputs)
        self.num_carry = len(self.carry)

    def run(
        self, kept: Sequence[int], stacked: Sequence[Value], operands: Sequence[Any]
    ) -> tuple[list[Any], Sequence[Any]]:
        """The `kept` carries after the last step and values of the body, stacked; the other carries are zero throughout."""
        consts, carry, xs = self.view.split(operands)
        body = dataclasses.replace(self.body, outputs=(*(self.body.outputs[k] for k in kept), *stacked))

        def step(state: list[Any], x: list[Any]) -> Any:
            states = dict(zip(kept, state, strict=True))
            full = [states[k] if k in states else _mesh.zeros(jax.typeof(carry[k])) for k in range(self.num_carry)]
            outs = body.evaluate(*consts, *full, *x)
            return outs[: len(kept)], outs[len(kept) :]

        return self.view.loop(step, [carry[k] for k in kept], xs)

    def rebuilt(self, *operands: Any) -> Sequence[Any]:
        last, stacked = self.run(range(self.num_carry), self.body.outputs[self.num_carry :], operands)
        return [*last, *stacked]


def _without_suffix_of_scan(scan: _Scan, cut: _Cut) -> Rewritten:
    body, num_carry = scan.body, scan.num_carry

    def rewritten(*operands: Any) -> Sequence[Any]:
        kept = [i for i in range(num_carry, len(body.outputs)) if i not in cut.replaced]
        stacked = [*(body.outputs[i] for i in kept), *cut.parts]
        last, rows = scan.run(range(num_carry), stacked, operands)
        given = dict(zip(scan.consts, operands, strict=False))
        axes = (*[0] * len(cut.parts), *[None] * len(cut.inputs))
        replay = jax.vmap(cut.suffix.evaluate, in_axes=axes, axis_size=scan.equation.eqn.params["length"])
        replayed = replay(*rows[len(kept) :], *(given[v] for v in cut.inputs))
        return [*last, *_in_order(kept, rows[: len(kept)], cut.replaced, replayed)]

    return rewritten


class _Accumulator(NamedTuple):
    """A carry `c` with `c <- product(factors) * c + r`; each output at `running` is `c` plus something else."""

    carry: int
    factors: tuple[Value, ...]
    running: tuple[int, ...]


def _accumulators(scan: _Scan, known: _Known) -> list[_Accumulator]:
    return [found for k in range(scan.num_carry) if (found := _accumulator(scan, k, known)) is not None]


def _accumulator(scan: _Scan, k: int, known: _Known) -> _Accumulator | None:
    body, equation, start, analysis = scan.body, scan.equation, scan.carry[k], known.analysis
    if scan.view.length < 2 or start not in known.linear or not jnp.issubdtype(start.dtype, jnp.floating):
        return None
    # For each value that the carry reaches, the factors that the carry is multiplied with on the way.
    reached: dict[Value, tuple[Value, ...]] = {start: ()}
    gains = False
    for inner in body.equations:
        if any(v in reached for v in inner.inputs):
            factors = _factors(inner, reached, analysis)
            if factors is None:
                return None
            reached[inner.outputs[0]] = factors
            added = [analysis.of(v) for v in inner.inputs if v not in reached]
            gains |= any(
                equation in w.axes for d in added for site, r in d.items() if site in known.credited for w in r
            )
    ends = [i for i, v in enumerate(body.outputs) if v in reached]
    running = tuple(i for i in ends if i >= scan.num_carry)
    if [i for i in ends if i < scan.num_carry] != [k] or not gains:
        return None
    factors = reached[body.outputs[k]]
    if running and (factors or any(reached[body.outputs[i]] for i in running)):
        return None
    return _Accumulator(k, factors, running)


def _factors(
    equation: Equation, reached: dict[Value, tuple[Value, ...]], analysis: Analysis
) -> tuple[Value, ...] | None:
    """What multiplies the carry in the result; `None` where the result is not the carry times that, plus something."""
    name, inputs = equation.name, equation.inputs
    through = [v for v in inputs if v in reached]
    shape = equation.outputs[0].shape
    if any(v.shape != shape or v.dtype != equation.outputs[0].dtype for v in through):
        return None
    if name in ("add", "add_any") and len(through) == 1:
        return reached[through[0]]
    if name == "sub" and len(through) == 1 and inputs[0] in reached:
        return reached[through[0]]
    if name == "mul" and len(through) == 1:
        other = inputs[1] if inputs[0] in reached else inputs[0]
        return None if analysis.of(other) else (*reached[through[0]], other)
    if name == "select_n" and inputs[0] not in reached and len(through) == len(inputs) - 1:
        factors = {reached[v] for v in through}
        return factors.pop() if len(factors) == 1 else None
    if name in _CONVERSIONS:
        return reached[through[0]]
    return None


def _without_accumulators(scan: _Scan, accumulators: Sequence[_Accumulator]) -> Rewritten:
    body, num_carry = scan.body, scan.num_carry
    adding = [a.carry for a in accumulators]
    kept = [k for k in range(num_carry) if k not in adding]
    outputs = body.outputs[num_carry:]

    def rewritten(*operands: Any) -> Sequence[Any]:
        _, starts, _ = scan.view.split(operands)
        factors = [v for a in accumulators for v in a.factors if not isinstance(v, Constant)]
        last, rows = scan.run(kept, [*outputs, *(body.outputs[k] for k in adding), *factors], operands)
        stacked = list(rows[: len(outputs)])
        added = rows[len(outputs) : len(outputs) + len(adding)]
        read = dict(zip(factors, rows[len(outputs) + len(adding) :], strict=True))
        totals = []
        for a, row in zip(accumulators, added, strict=True):
            start = starts[a.carry]
            if a.factors:
                totals.append(_discounted_sum(start, row, a.factors, read, scan.view.reverse))
                continue
            totals.append(start + jnp.sum(row, axis=0))
            if a.running:
                before = start[None] + (jax.lax.cumsum(row, axis=0, reverse=scan.view.reverse) - row)
                for i in a.running:
                    stacked[i - num_carry] = stacked[i - num_carry] + before
        return [*_in_order(kept, last, adding, totals), *stacked]

    return rewritten


def _discounted_sum(start: Any, row: Any, factors: Sequence[Value], read: dict[Value, Any], reverse: bool) -> Any:
    """`prod(a) start + sum_t r_t prod_{s after t} a_s`, where `a_s` is the product of the factors in step `s`."""

    def by_step(factor: Value) -> Any:
        if isinstance(factor, Constant):
            return factor.value
        values = read[factor]
        return values.reshape(len(row), *[1] * (row.ndim - values.ndim), *values.shape[1:])

    a = jnp.ones_like(row)
    for factor in factors:
        a = a * by_step(factor)
    onwards = jax.lax.cumprod(a, axis=0, reverse=not reverse)  # this step's and all later ones'
    one = jnp.ones_like(row[:1])
    later = jnp.concatenate([one, onwards[:-1]] if reverse else [onwards[1:], one])
    return onwards[-1 if reverse else 0] * start + jnp.sum(later * row, axis=0)
