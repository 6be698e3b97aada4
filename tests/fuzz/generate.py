"""Random programs: draws, operations, loops and branches, and how they are estimated."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .bodies import Bodies
from .operations import NotHere, Scope, operation
from .oracle import Enumeration
from .source import FILE, Kind, Program, Statement, without_dead_code

DTYPES = {"float": jnp.float64, "int": jnp.int32, "bool": jnp.bool_}

MAX_SIZE = 48
"""Entries of a value."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What kind of programs to make.

    Attributes:
        mode: how draws are estimated: "score" and "enumerate" (checked to the last digits), or "mixed".
        statements: at most, those in bodies included.
        numbers: that are drawn, at most.
        operation: part of the templates of operations to prefer.
        without: part of the templates of operations to leave out.
        blocks: how often a statement is one with a body.
        discrete: whether all draws are.
        while_loops: whether there are any, which have derivatives in forward mode only.
        order: of derivatives; by default at random.
        further: whether also of subsets and rankings, by estimators with functions and distributions of their own, at points
            that cover.
    """

    mode: str = "mixed"
    statements: int = 8
    numbers: int = 7
    operation: str | None = None
    without: str | None = None
    blocks: float = 0.25
    discrete: bool = False
    while_loops: bool = True
    order: int | None = None
    further: bool = False


ANYWHERE = ["Score()", "Score(baseline=0.3)", "Score(baseline=None)", "Auto()", "Enumerate()", "MeasureValued()"]
ANYWHERE += ["LocalExpectation()", "Score(num_samples=2)"]
FINITE = ["CARMS(3)", "TreeDisARM()", "ARSM()", "UnorderedSet(2)", "ImportanceWithoutReplacement(2)", "SumAndSample(2)"]
OF_INTEGERS = ["SmoothedPerturbation()", 'SmoothedPerturbation("left")']
OF_LAW = {
    "Bernoulli": ["DisARM()", "ARM()", "ARMS(3)", *OF_INTEGERS, *FINITE],
    "Categorical": [*OF_INTEGERS, *FINITE],
    "OneHotCategorical": FINITE,
    "Binomial": [*OF_INTEGERS, *FINITE],
}
RELAXED = ["RELAX(lambda z: jnp.tanh(z[..., 0]))", "RELAX(lambda z: 0.3 * jnp.sum(z * z, -1))"]
FURTHER = {
    "Bernoulli": [
        "RELAX(jnp.tanh)",
        "RELAX(lambda z: theta[1] * jax.nn.sigmoid(z))",
        "ImportanceSampling(Bernoulli(probs=0.4))",
    ],
    "Categorical": RELAXED,
    "OneHotCategorical": RELAXED,
    "Subset": ["Score()", "Auto()", "Enumerate()", "MeasureValued()", *FINITE],
    "PlackettLuce": ["Score()", "Auto()", "Enumerate()", "MeasureValued()", *FINITE, *RELAXED],
    "Normal": ["LAX(jnp.sin)", "Taylor(Score(), 1.0)", "Taylor(Pathwise(), 0.5)", "Taylor(MeasureValued(), 1.0)"]
    + ["ImportanceSampling(Normal(0.1, 1.5))"],
}
POINTS = ("antithetic", "stratified", "lattice", "sobol")
OF_NORMAL = ["Pathwise()", "Score()", "MeasureValued()", "Auto()", "Score(num_samples=2)"]
FIRST_ORDER = ("LAX", "Taylor", "DisARM", "ARM", "CARMS", "ARSM", "Smoothed", "Measure", "Local")


class Maker(Bodies):
    """Makes one program; values of each statement are found by tracing it."""

    def __init__(self, settings: Settings, seed: int):
        self.rng = random.Random(seed)
        self.settings = settings
        self.count, self.left, self.drawn = 0, settings.statements, 0
        self.repeats = 1  # of the current statement, in loops
        self.forward = False
        self.depth = 0

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def program(self) -> Program:
        scope = Scope(self.rng, {"theta": Kind((4,))}, "key")
        lines = self.lines(scope, self.settings.statements)
        result = self.result(scope)
        program = without_dead_code(Program(tuple(lines), result, forward=self.forward))
        text = program.source()
        transform, order = self.transform(text)
        if self.forward and "backward" in text:
            program = dataclasses.replace(program, forward=False)
        return dataclasses.replace(program, transform=transform, order=order)

    def lines(self, scope: Scope, count: int) -> list[Statement]:
        lines: list[Statement] = []
        misses = 0
        while len(lines) < count and self.left > 0 and misses < 60:
            make = self.choose(scope, first=not lines and self.depth == 0)
            before = (self.left, self.drawn)
            try:
                made = self.traced(make(scope), scope)
            except NotHere:
                made = None
            if made is None:
                misses, (self.left, self.drawn) = misses + 1, before
                continue
            self.left -= 1
            lines.append(made)
            scope.values |= dict(zip(made.names, made.kinds, strict=True))
        return lines

    def choose(self, scope: Scope, first: bool) -> Callable[[Scope], Statement]:
        if first or (scope.key is not None and self.rng.random() < 0.25):
            return self.draw
        if self.depth < 2 and self.left > 1 and self.rng.random() < self.settings.blocks:
            blocks = [self.vmap, self.scan, self.scan, self.fori_loop, self.cond, self.switch, self.call]
            if self.settings.while_loops and self.depth == 0:
                blocks.append(self.while_loop)
            return self.rng.choice(blocks)
        return self.operation

    def traced(self, made: Statement, scope: Scope) -> Statement | None:
        """The statement with the kinds of its values; `None` where it does not run, or its values are too large."""
        kinds = trace_kinds(made, scope)
        if kinds is None or len(kinds) != len(made.names):
            return None
        if any(math.prod(kind.shape) > MAX_SIZE or 0 in kind.shape or len(kind.shape) > 4 for kind in kinds):
            return None
        return dataclasses.replace(made, kinds=tuple(kinds))

    def operation(self, scope: Scope) -> Statement:
        template, expression = operation(scope, self.settings.operation, self.settings.without)
        return Statement((self.name("v"),), (), expression, operation=template)

    # Draws.

    def parameter(self, scope: Scope, shape: tuple[int, ...] | None = None) -> tuple[str, tuple[int, ...]]:
        """Bounded numbers of a shape that the parameters reach, and often earlier values."""
        i = self.rng.randint(0, 3)
        if self.rng.random() < 0.6 and len(scope.values) > 1:
            try:
                x, found = scope.number(most=2, **({} if shape is None else {"shape": shape}))
                if math.prod(found) <= 6:
                    return self.rng.choice(
                        [f"jnp.tanh({x} + theta[{i}])", f"jnp.sin({x}) * theta[{i}]", f"0.8 * jnp.tanh({x})"]
                    ), found
            except NotHere:
                pass
        shape = shape if shape is not None else self.rng.choice([(), (2,), (3,), (2, 2), (1, 2), (3, 1), (2, 3), (4,)])
        if shape and math.prod(shape) <= 4 and self.rng.random() < 0.6:
            return f"theta[:{math.prod(shape)}].reshape({shape})", shape
        return f"theta[{i}] * {scope.constant(*shape)}" + (
            f" + theta[{3 - i}]" if self.rng.random() < 0.5 else ""
        ), shape

    def law(self, scope: Scope) -> tuple[str, int, str]:
        """A law as text, how many numbers it draws, and its name."""
        x, shape = self.parameter(scope)
        which = self.rng.choice(["Bernoulli"] * 5 + ["Categorical"] * 2 + ["Binomial", "OneHotCategorical"])
        if not self.settings.discrete and self.rng.random() < 0.15:
            which = "Normal"
        size = math.prod(shape)
        if which == "Bernoulli":
            return (
                (
                    f"Bernoulli(logits={x})"
                    if self.rng.random() < 0.8
                    else f"Bernoulli(probs=0.1 + 0.8 * jax.nn.sigmoid({x}))"
                ),
                size,
                which,
            )
        if which == "Binomial":
            return f"Binomial(2, logits={x})", 2 * size, which
        if which == "Normal":
            y = self.rng.choice(["0.7", "jnp.exp(0.3 * theta[1])"])
            return f"Normal({x}, {y})", 5 * size, which
        if self.settings.further and self.rng.random() < 0.4:
            items = f"jnp.stack([{x}, 0.4 - 0.6 * ({x}), {x} * 0.0], -1)"
            which, more = self.rng.choice(
                [("Subset", ", 2"), ("Subset", ", 1"), ("PlackettLuce", ""), ("PlackettLuce", ", 2")]
            )
            return f"{which}({items}{more})", 3 * size, which
        n = self.rng.randint(2, 3)
        return (
            f"{which}(logits=jnp.stack([{', '.join([x] + [f'({x}) * {0.5 * k - 0.9:.1f}' for k in range(1, n)])}], -1))",
            2 * size,
            which,
        )

    def draw(self, scope: Scope) -> Statement:
        law, numbers, which = self.law(scope)
        numbers *= self.repeats
        if self.drawn + numbers > self.settings.numbers or scope.key is None:
            raise NotHere
        self.drawn += numbers
        name, estimator = self.name("d"), ""
        if self.settings.mode == "mixed" and self.rng.random() < 0.6:
            choices = OF_NORMAL if which == "Normal" else ANYWHERE + OF_LAW.get(which, []) * 2
            if self.settings.further and self.rng.random() < 0.6:
                choices = FURTHER.get(which, choices)
            if self.depth and self.rng.random() < 0.6:
                choices = ["Score()", "Auto()", "Score(baseline=0.3)"]
            estimator = f", {self.rng.choice(choices)}"
        key = f"fold_in({scope.key}, {self.count})"
        return Statement((name,), (), f'sample({key}, {law}{estimator}, name="{name}")', operation=which)

    # The end.

    def result(self, scope: Scope) -> str:
        terms = []
        for _ in range(self.rng.randint(1, 3)):
            x, shape = scope.number()
            weight = scope.constant(*shape)
            i = self.rng.randint(0, 3)
            terms.append(
                self.rng.choice(
                    [
                        f"jnp.sum({weight} * {x})",
                        f"jnp.mean({x})",
                        f"jnp.sum(jnp.sin({x} + 0.3))",
                        f"theta[{i}] * jnp.sum({x})",
                    ]
                    + [
                        f"jnp.mean(({x} - {weight}) ** 2)",
                        f"jnp.sum(jnp.tanh({x} * theta[{i}]))",
                        f"jnp.tanh(jnp.sum({x}))",
                    ]
                )
            )
        return " + ".join(terms)

    def transform(self, text: str) -> tuple[str, int]:
        mode, pick = self.settings.mode, self.rng.choice
        order = self.settings.order or (2 if self.rng.random() < 0.2 else 1)
        if mode == "score":
            return f"estimator={pick(['Score()', 'Score(baseline=0.2)'])}", order
        if mode == "enumerate":
            return "estimator=Enumerate()", order
        samples = pick([1, 1, 2, 3, 4])
        estimator = (
            "Auto()"
            if "Normal" in text
            else pick([*ANYWHERE, "Auto()", "DisARM()", "CARMS(3)", "SmoothedPerturbation()"])
        )
        chunk = f", chunk_size={samples // 2}" if samples == 4 and self.rng.random() < 0.6 else ""
        if self.settings.further and samples in (2, 4) and not chunk and self.rng.random() < 0.5:
            chunk = f", points={pick(POINTS)!r}"
        if any(word in f"{text} {estimator}" for word in FIRST_ORDER):
            order = 1
        return f"estimator={estimator}, num_samples={samples}{chunk}", order


def trace_kinds(made: Statement, scope: Scope) -> list[Kind] | None:
    """The kinds of the values of a statement, found without running it."""
    result = f"({', '.join(made.names)},)"
    program = Program((made,), result)
    arguments = [
        "theta",
        *[n for n in scope.values if n != "theta"],
        *([scope.key] if scope.key not in (None, "key") else []),
    ]
    text = program.source().replace("def program(theta, key):", f"def program({', '.join([*arguments, 'key'])}):")
    names = Enumeration(None).namespace()
    structs = [
        jax.ShapeDtypeStruct(scope.values[n].shape, DTYPES[scope.values[n].dtype])
        if n in scope.values
        else jax.eval_shape(lambda: jax.random.key(0))
        for n in arguments
    ]
    try:
        exec(compile(text, FILE, "exec"), names)
        found = jax.eval_shape(names["program"], *structs, jax.eval_shape(lambda: jax.random.key(0)))
    except Exception:  # whatever an ill-formed statement raises
        return None
    kinds = []
    for value in found:
        dtype = next(
            (
                d
                for d, t in (("float", jnp.floating), ("int", jnp.integer), ("bool", jnp.bool_))
                if jnp.issubdtype(value.dtype, t)
            ),
            None,
        )
        if dtype is None:
            return None
        kinds.append(Kind(tuple(value.shape), dtype))
    return kinds


def generate(settings: Settings, seed: int) -> Program:
    return Maker(settings, seed).program()
