"""Draws that share a random key: found by computing the keys of all draws, from random bits in place of the keys given.

`split` and `fold_in` of one key give the same keys, and there are many ways to write one of them. So what makes the keys is run
when a program is planned, with random numbers for all that is not known, draws among it, for some steps of each loop and for all
branches. Draws whose keys have the same bits, whatever the numbers are, share them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.collectives import open_axes
from mcgrad.program.costs import Split
from mcgrad.program.dependence import Analysis
from mcgrad.program.estimator import Estimator
from mcgrad.program.key_bits import as_bits, evaluate, implementation
from mcgrad.program.made_of import is_traced
from mcgrad.program.site import Site, has_site, sample_p
from mcgrad.program.structure import Given, form_of
from mcgrad.program.trace import Constant, Equation, Program, Value


def check_keys(program: Program, estimators: Mapping[Site, Estimator], analysis: Analysis, split: Split) -> None:
    """Refuse draws that share a key."""
    alone = {site.equation for site, estimator in estimators.items() if not estimator.flow}
    cloned = _shared(program, alone, clones=True)
    mistaken = _shared(program, alone, clones=False) if cloned else {}
    for (first, second), where in (cloned | mistaken).items():
        one, other = analysis.sites[first], analysis.sites[second]
        if one is other:
            raise ValueError(
                f"{one.describe()} uses the same key {where}, so the draws are not independent. Give each a key of its own: "
                "`jax.random.split(key, n)`, to be mapped or scanned over, or `jax.random.fold_in(key, step)`."
            )
        if (first, second) in mistaken:
            raise ValueError(
                f"{other.describe()} uses the same key as {one.describe()}, so the two are not independent. "
                "Split the key, once into as many as there are draws (a key of `fold_in` may be one of `split` too), or use "
                "`jax.random.clone(key)` for common random numbers on purpose."
            )
        if {first, second} <= alone and any({one, other} <= analysis.of(cost).keys() for cost in split.costs):
            raise ValueError(
                f"{other.describe()} uses a clone of the key of {one.describe()}, and one cost depends on "
                "both: their joint distribution is not the product of their own, which `mcgrad.Score` and the like need. "
                "Use independent keys, or `mcgrad.Pathwise()`."
            )


_Steps: TypeAlias = tuple[tuple[Equation, int], ...]
_Branches: TypeAlias = "frozenset[tuple[_Run, Any, int]]"

_DEPTH = 6
"""Operations up to which indices of branches count as made in the same way: a few comparisons, and their conversion."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Use:
    """A draw in a step of each loop around it, and in branches."""

    run: _Run
    draw: Equation
    steps: _Steps
    branches: _Branches

    @property
    def key(self) -> Value:
        return Site(self.draw).key

    def excludes(self, other: _Use) -> bool:
        """Whether the two are never made together."""
        return any(run is r and index == i and n != m for run, index, n in self.branches for r, i, m in other.branches)

    def beside(self, other: _Use) -> str:
        """In words, where the same draw is made again."""
        for (loop, n), (_, m) in zip(self.steps, other.steps, strict=True):
            if n != m:
                return f"in several steps of the `{'while_loop' if loop.name == 'while' else loop.name}` at {loop.line}"
        return "for several of its entries"


def _shared(program: Program, alone: set[Equation], *, clones: bool) -> dict[tuple[Equation, Equation], str]:
    """The pairs of draws that share a key whatever the numbers are; those of `alone` with themselves too, with the place."""
    found: dict[tuple[Equation, Equation], str] = {}
    for seed in range(len(_SCALES)):
        uses = list(_uses(_Run(program, (), _Unknown(seed, clones))))
        if len(uses) == 1 and uses[0].key.shape == ():
            return {}
        with _compat.before_the_run(), jax.debug_key_reuse(False), jax.debug_nans(False):
            pairs = _equal(uses, alone)
        found = {pair: where for pair, where in found.items() if pair in pairs} if seed else pairs
        if not found:
            break
    return found


def _equal(uses: Sequence[_Use], alone: set[Equation]) -> dict[tuple[Equation, Equation], str]:
    users: dict[bytes, list[_Use]] = {}
    found: dict[tuple[Equation, Equation], str] = {}
    for use in uses:
        data = use.run.value(use.key)
        data = data if as_bits(use.key) else np.asarray(jax.random.key_data(data))
        rows = data.reshape(math.prod(use.key.shape), -1)
        for row in (*rows[:_MOST_KEYS], *rows[_MOST_KEYS:][-_MOST_KEYS:]):
            others = users.setdefault(row.tobytes(), [])
            for other in others:
                if (use.draw is not other.draw or use.draw in alone) and not use.excludes(other):
                    found.setdefault((other.draw, use.draw), use.beside(other) if use.draw is other.draw else "")
            if use not in others:
                others.append(use)
    return found


def _uses(run: _Run, steps: _Steps = (), branches: _Branches = frozenset()) -> Iterator[_Use]:
    """The draws of a run: in bodies, in some steps of each loop and in every branch."""
    for equation in run.program.equations:
        if equation.eqn.primitive is sample_p:
            yield _Use(run, equation, steps, branches)
        elif any(map(has_site, equation.bodies)):
            form: Any = form_of(equation)
            operands = [functools.partial(run.value, value) for value in equation.inputs]
            for inner, step, branch in form.visits(operands, run.within):
                in_loops = steps if step is None else (*steps, (equation, step))
                taken = set() if branch is None else {(run, *_way(run.word(equation.inputs[0]), branch))}
                yield from _uses(inner, in_loops, branches | taken)


def _way(condition: Any, branch: int) -> tuple[Any, int]:
    """A condition and how it came out, in the same words for a condition and its opposite: `p > c` and not `p <= c`."""
    match condition:
        case ("convert_element_type", _, _, (("lt" | "gt" | "le" | "ge" | "eq" | "ne" | "not", *_) as inner,)):
            return _way(inner, branch)
        case ("not", _, _, (inner,)):
            return _way(inner, 1 - branch)
        case ("gt" | "le" as name, _, _, (left, right)):
            return ("lt", right, left), branch if name == "gt" else 1 - branch
        case ("lt" | "ge" as name, _, _, (left, right)):
            return ("lt", left, right), branch if name == "lt" else 1 - branch
        case ("eq" | "ne" as name, _, _, sides):
            return ("eq", sides), branch if name == "eq" else 1 - branch
    return condition, branch


class _Run:
    """The values of a program, or of a body in one step, computed as they are asked for."""

    def __init__(self, program: Program, inputs: Sequence[Given], unknown: _Unknown):
        self.program, self.unknown = program, unknown
        self.given = dict(zip(program.inputs, inputs, strict=False))
        self.maker = {value: equation for equation in program.equations for value in equation.outputs}
        self.values: dict[Value, Any] = {}

    def within(self, body: Program, inputs: Sequence[Given]) -> _Run:
        """A run of a body."""
        return _Run(body, inputs, self.unknown)

    def word(self, value: Value, depth: int = _DEPTH) -> Any:
        """The same for values that are made in the same way."""
        equation = self.maker.get(value)
        if isinstance(value, Constant):
            return str(value.value) if value.literal else id(value.value)
        if equation is None or depth == 0 or equation.bodies or equation.eqn.primitive is sample_p:
            return value
        made_of = tuple(self.word(v, depth - 1) for v in equation.inputs)
        return equation.name, str(equation.eqn.params), equation.outputs.index(value), made_of

    def value(self, value: Value) -> Any:
        todo = [value]
        while todo:
            value = todo[-1]
            equation = self.maker.get(value)
            if value in self.values:
                todo.pop()
            elif value in self.given:
                self.values[value] = self.given[value]()
            elif equation is None:
                self.values[value] = self.unknown.constant(value)
            elif not self.unknown.knows(equation):
                self.values.update((made, self.unknown.like(made)) for made in equation.outputs)
            elif missing := [v for v in equation.inputs if v not in self.values]:
                todo += missing
            else:
                made = evaluate(equation, self.values.__getitem__)
                self.values.update(zip(equation.outputs, made, strict=True))
        return self.values[value]


class _Unknown:
    """What is not known before the run: a random value for each, of a scale that goes with the seed."""

    def __init__(self, seed: int, clones: bool):
        self.rng, self.seed, self.scale, self.clones = np.random.default_rng(seed), seed, _SCALES[seed], clones
        self.constants: dict[int, Any] = {}

    def knows(self, equation: Equation) -> bool:
        """Whether the results of an operation can be computed."""
        sizes = [math.prod(value.shape) for value in (*equation.inputs, *equation.outputs)]
        return not (
            equation.eqn.primitive is sample_p
            or equation.eqn.effects
            or "callback" in equation.name
            or (equation.name == "random_clone" and not self.clones)
            or any(map(has_site, equation.bodies))
            or open_axes(equation)
            or max(sizes, default=0) > _MOST_NUMBERS
        )

    def constant(self, value: Value) -> Any:
        known = isinstance(value, Constant) and not is_traced(value)
        # Keys from outside may be clones of each other; those of the old style are bits.
        if known and (value.literal or not (value.is_key or value.dtype == np.uint32)):
            return value.value
        outside = id(value.value) if isinstance(value, Constant) else id(value)
        if outside not in self.constants:
            self.constants[outside] = self.like(value)
        return self.constants[outside]

    def like(self, value: Value) -> Any:
        """A random value of this shape and type."""
        if value.is_key:
            name, words = implementation(value.dtype)
            bits = self.rng.integers(2**32, size=(*value.shape, *words), dtype=np.uint32)
            return bits if as_bits(value) else jax.random.wrap_key_data(jnp.asarray(bits), impl=name)
        if value.dtype == np.uint32:
            return self.rng.integers(2**32, size=value.shape, dtype=np.uint32)
        if value.dtype == np.bool_:
            return self.rng.integers(2, size=value.shape).astype(bool)
        if value.is_integer and self.seed < 2:
            # Distinct, since a key is often made of the number of an example; then small too, since they may be indices.
            start = self.rng.integers(2**30) if self.seed == 0 else 0
            return (start + self.rng.permutation(math.prod(value.shape)).reshape(value.shape)).astype(value.dtype)
        numbers = self.scale * self.rng.normal(size=value.shape)
        return np.asarray(numbers).astype(value.dtype)


_SCALES = (1e4, 1.0, 10.0, 0.1)
"""Of the random numbers; keys are the same only if they are so for all of them."""

_MOST_KEYS = 512
"""Keys of one draw that are looked at, of the first and of the last."""

_MOST_NUMBERS = 2**20
"""Entries of a value beyond which it counts as unknown."""
