"""What a backward pass keeps of a forward pass, with random sketches of the numbers that it is linear in.

JAX gives the backward pass as a program of cotangents in which the forward pass is left as arrays. Those that multiply cotangents
are its *coefficients*. With independent unbiased sketches in their places the result is unbiased, if along every path from a
cotangent to a gradient each sketch is used at most once: then it is linear in each of them. So

- coefficients are computed in the forward pass as far as they can be, and kept as sketches;
- factors one behind another are multiplied first, and kept as one sketch;
- a coefficient that is used twice on one path is sketched twice;
- what the function was given, and what is no floating-point number (the mask of a relu), is kept as it is;
- what is not linear in a coefficient is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad._types import PRNGKey, PyTree, static_field
from mcgrad.program.primitives import linear_group
from mcgrad.program.trace import Constant, Equation, Program, Value, from_jaxpr


class Sketch(NamedTuple):
    """An array in few numbers, whose mean over seeds is the array.

    Attributes:
        seed: decides which entries are there: one of each run of neighbors.
        mean: of all entries.
        away: how far these entries are from the mean, times the length of their runs.
    """

    seed: jax.Array
    mean: jax.Array
    away: jax.Array


def sketch(seed: jax.Array, x: jax.Array, num: int) -> Sketch:
    """A sketch with as many entries of an array; seeds are 32 random bits, independent for each."""
    mean = jnp.mean(x)
    at, length = _chosen(seed, x.size, num)
    away = (x.reshape(-1)[at] - mean) * length.astype(jnp.promote_types(x.dtype, jnp.float32))
    return Sketch(seed, mean, away.astype(x.dtype))


def expand(kept: Sketch, shape: tuple[int, ...]) -> jax.Array:
    """The array of this shape that stands for the one that was sketched."""
    n = math.prod(shape)
    at, _ = _chosen(kept.seed, n, len(kept.away))
    full = jnp.full(n, kept.mean)
    return full.at[at].add(kept.away, unique_indices=True, indices_are_sorted=True).reshape(shape)


def _chosen(seed: jax.Array, n: int, num: int) -> tuple[jax.Array, jax.Array]:
    """The places that are there, and the lengths of the runs that they stand for; `n % num` runs are longer by one.

    A place in a run is a permutation of 32 bits (`lowbias32` of C. Wellons, in the public domain) of the seed plus a number that
    is another one for each run. So each place is uniform, up to the length of the run over 2^32, which is all that a mean needs.
    Threefry would need more memory than is saved.
    """
    length, longer = divmod(n, num)
    i = jnp.arange(num)
    size = jnp.where(i < longer, length + 1, length)
    bits = seed + i.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    for shift, odd in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # rounds of xor and multiply, both invertible
        bits = (bits ^ (bits >> shift)) * jnp.uint32(odd)
    place = (bits ^ (bits >> 16)) % size.astype(jnp.uint32)
    return i * length + jnp.minimum(i, longer) + place.astype(i.dtype), size


@dataclasses.dataclass(frozen=True)
class Tape(PyTree):
    """A backward pass and what it reads.

    Attributes:
        arrays: kept as they are.
        coefficients: as sketches; small ones as they are.
        plan: what is done with them.
    """

    arrays: tuple[jax.Array, ...]
    coefficients: tuple[Sketch | jax.Array, ...]
    plan: _Plan = static_field()

    def __call__(self, cotangents: Sequence[Any]) -> list[Any]:
        """The gradients."""
        plan = self.plan
        env = dict(zip(plan.inputs, cotangents, strict=True)) | dict(zip(plan.values, self.arrays, strict=True))

        def read(value: Value) -> Any:
            return value.value if value not in env and isinstance(value, Constant) else env[value]

        def coefficient(index: int, cotangent: Value | None) -> jax.Array:
            kept = self.coefficients[index]
            if not isinstance(kept, Sketch):
                return kept
            kept = kept if cotangent is None else _after(kept, read(cotangent))
            return expand(kept, plan.shapes[index])

        for step in plan.steps:
            if isinstance(step, _Scaled):
                base = read(step.base)
                env[step.value] = step.constant * base + base * coefficient(step.sketch, step.base)
            else:
                given = {value: coefficient(index, step.after) for value, index in step.sketches.items()}
                found = step.equation.evaluate(lambda v, given=given: given[v] if v in given else read(v))
                env.update(zip(step.equation.outputs, found, strict=True))
        return [read(value) for value in plan.outputs]

    def made_before(self, x: jax.Array) -> jax.Array:
        """The same array, which is used only after all sketches are made, so that what they are made of need not be kept."""
        sketches = [kept for kept in self.coefficients if isinstance(kept, Sketch)]
        never = [jnp.real(kept.away[0]) < -jnp.inf for kept in sketches]
        return jnp.where(functools.reduce(jnp.logical_or, never), jnp.zeros_like(x), x) if never else x


def _after(kept: Sketch, x: jax.Array) -> Sketch:
    """The sketch, which cannot be expanded before a cotangent is there; compilers do so early, and barriers do not keep all."""
    first = jnp.real(x.reshape(-1)[0])
    is_number = first == first  # where it is none, neither are the gradients
    return kept._replace(seed=jnp.where(is_number, kept.seed, 0), mean=jnp.where(is_number, kept.mean, jnp.nan))


@dataclasses.dataclass(frozen=True, eq=False)
class _Scaled:
    """A value that is a cotangent times a number plus a coefficient."""

    value: Value
    base: Value
    constant: float
    sketch: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Evaluated:
    """An equation, some of whose operands are sketches; these are made after a cotangent is there."""

    equation: Equation
    sketches: dict[Value, int]
    after: Value | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Plan:
    inputs: tuple[Value, ...]
    values: tuple[Value, ...]
    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[_Scaled | _Evaluated, ...]
    outputs: tuple[Value, ...]


def make_tape(
    pullback: Any,
    cotangents: Sequence[Any],
    given: Sequence[Any],
    keep: float,
    key: PRNGKey,
    line_of: Callable[[str], str],
) -> Tape:
    """The tape of a backward pass.

    Args:
        pullback: a function of the cotangents, as `jax.vjp` returns it.
        cotangents: their types.
        given: the arrays that are kept as they are.
        keep: the part of the entries of a coefficient that is kept.
        key: for the sketches.
        line_of: the user's line of the operation of a name.

    Raises:
        NotImplementedError: for an operation that is not linear in a coefficient.
    """
    program = from_jaxpr(_compat.trace_on(lambda *ct: jax.tree.leaves(pullback(list(ct))), cotangents))
    return _Maker(program.inputs, given, keep, key, line_of).make(program)


class _Product(NamedTuple):
    """A cotangent times a number plus a coefficient, not yet computed."""

    base: Value
    constant: float = 1.0
    coefficient: Any = 0.0

    def times(self, factor: Any) -> _Product:
        if isinstance(factor, (int, float)):
            return _Product(self.base, self.constant * factor, self.coefficient * factor)
        return _Product(self.base, 0.0, (self.constant + self.coefficient) * factor)

    def plus(self, other: _Product, sign: int) -> _Product:
        coefficient = self.coefficient + sign * other.coefficient
        return _Product(self.base, self.constant + sign * other.constant, coefficient)


class _Maker:
    """Goes through a backward pass once: what does not depend on cotangents is computed, the rest is planned."""

    def __init__(
        self,
        cotangents: Sequence[Value],
        given: Sequence[Any],
        keep: float,
        key: PRNGKey,
        line_of: Callable[[str], str],
    ):
        self.given, self.keep, self.key, self.line_of = given, keep, key, line_of
        self.here: dict[Value, Any] = {}
        self.recipes: dict[Value, Equation | None] = {}  # of values that are made of what is there in the backward pass
        self.used: dict[Value, frozenset[int]] = {
            v: frozenset() for v in cotangents
        }  # sketches on the way to a cotangent
        self.products: dict[Value, _Product] = {}
        self.coefficients: list[jax.Array] = []
        self.arrays: dict[Value, Any] = {}
        self.steps: list[_Scaled | _Evaluated] = []

    def make(self, program: Program) -> Tape:
        for equation in program.without_dead_code().equations:
            if any(v in self.used for v in equation.inputs):
                self.of_cotangents(equation)
            else:
                self.of_coefficients(equation)
        for value in program.outputs:
            self.finish(value) if value in self.used else self.keep_whole(value)
        shapes = tuple(x.shape for x in self.coefficients)
        plan = _Plan(program.inputs, tuple(self.arrays), shapes, tuple(self.steps), program.outputs)
        return Tape(tuple(self.arrays.values()), self.kept(), plan)

    def kept(self) -> tuple[Sketch | jax.Array, ...]:
        """What is kept of the coefficients."""
        seeds = jax.random.bits(self.key, (len(self.coefficients),), jnp.uint32)
        num = [math.ceil(self.keep * x.size) for x in self.coefficients]
        return tuple(sketch(seeds[i], x, num[i]) if num[i] + 2 < x.size else x for i, x in enumerate(self.coefficients))

    def read(self, value: Value) -> Any:
        return value.value if isinstance(value, Constant) else self.here[value]

    def is_given(self, value: Value) -> bool:
        """Whether a value without cotangents can be had in the backward pass as it is."""
        if isinstance(value, Constant):
            return value.literal or any(value.value is x for x in self.given)
        return value in self.recipes

    def of_coefficients(self, equation: Equation) -> None:
        self.here.update(zip(equation.outputs, equation.evaluate(self.read), strict=True))
        if all(map(self.is_given, equation.inputs)):
            self.recipes.update(dict.fromkeys(equation.outputs, equation))

    def of_cotangents(self, equation: Equation) -> None:
        if (product := self.product(equation)) is not None:
            self.products[equation.outputs[0]] = product
            self.used[equation.outputs[0]] = self.used[product.base]
            return
        moving = [v for v in equation.inputs if v in self.used]
        for value in moving:
            self.finish(value)
        used = frozenset().union(*(self.used[v] for v in moving))
        sketches: dict[Value, int] = {}
        for i, value in enumerate(equation.inputs):
            if value in self.used or value in sketches:
                continue
            if self.is_given(value) or not value.is_inexact:
                self.keep_whole(value)
            elif linear_group(equation, [i]) is None:
                self.refuse(equation)
            else:
                sketches[value] = self.sketch(self.read(value), used)
        self.steps.append(_Evaluated(equation, sketches, moving[0]))
        self.used.update(dict.fromkeys(equation.outputs, used.union(sketches.values())))

    def product(self, equation: Equation) -> _Product | None:
        """The result of an equation as a product, if it is one with something that would have to be sketched."""
        moving = [v for v in equation.inputs if v in self.used]
        products = [self.products.get(v, _Product(v)) for v in moving]
        first, name = products[0], equation.name
        pending = any(v in self.products for v in moving)
        if name == "neg" and pending:
            return first.times(-1)
        if name in ("add", "add_any", "sub") and len(moving) == 2 and pending:
            same = first.base is products[1].base and first.base.shape == equation.outputs[0].shape
            return first.plus(products[1], -1 if name == "sub" else 1) if same else None
        if not (name == "mul" or (name == "div" and equation.inputs[0] in self.used)):
            return None
        others = [v for v in equation.inputs if v not in self.used]
        if not others:  # of two parts that are each kept at random, as where another function of this kind is inside
            self.refuse(equation)
        (other,) = others
        if isinstance(other, Constant) and other.literal and other.shape == () and pending:
            factor: Any = float(other.value)
        elif self.is_given(other):
            return None
        else:
            factor = self.read(other)
        return first.times(1 / factor if name == "div" else factor)

    def finish(self, value: Value) -> None:
        """See that a cotangent is there that may be a product so far."""
        if value in self.products:
            base, constant, coefficient = self.products.pop(value)
            self.finish(base)
            index = self.sketch(jnp.asarray(coefficient), self.used[base])
            self.steps.append(_Scaled(value, base, constant, index))
            self.used[value] = self.used[base] | {index}

    def keep_whole(self, value: Value) -> None:
        if (equation := self.recipes.get(value)) is not None:
            for v in equation.inputs:
                self.keep_whole(v)
            self.steps.append(_Evaluated(equation, {}))
            self.recipes.update(dict.fromkeys(equation.outputs))
        elif value not in self.recipes and not (isinstance(value, Constant) and value.literal):
            self.arrays[value] = self.read(value)

    def sketch(self, x: Any, used: frozenset[int]) -> int:
        """The number of a coefficient whose sketch is none of those on the way."""
        for index, other in enumerate(self.coefficients):
            if other is x and index not in used:
                return index
        self.coefficients.append(x)
        return len(self.coefficients) - 1

    def refuse(self, equation: Equation) -> None:
        raise NotImplementedError(
            f"`mcgrad.random_checkpoint` must keep a random part of what the backward pass of `{equation.name}` at "
            f"{self.line_of(equation.name)} "
            "needs, and that is not linear in it: the gradient would be biased. Leave the line out of the function, or put it "
            "into a `jax.checkpoint`, whose inputs are kept as they are."
        )
