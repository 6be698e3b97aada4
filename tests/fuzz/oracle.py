"""The exact expectation of a program: its own source, run on all values of all draws, weighted by their probabilities.

Nothing of mcgrad takes part. The program's names of draws, laws and control flow are bound to other things here: a law is a
table of values with log probabilities, loops are Python's, branches are all taken and selected from (draws of a branch not
taken sum to one). A `Normal` is summed over a fine fixed grid, which is exact to many digits for smooth functions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .source import FILE, HEADER, Program

MAX_TRIPS = 3
"""Of a `while_loop`."""

MAX_STATES = 40_000


@dataclasses.dataclass
class Law:
    """Values by index, with their log probabilities.

    Attributes:
        log_probs: `[values, *batch]`.
        values: `[values, *event]`, or `[values, *batch]` where each entry has its own.
        own: whether each entry has its own values.
    """

    log_probs: Any
    values: Any
    own: bool = False

    @property
    def batch(self) -> tuple[int, ...]:
        return self.log_probs.shape[1:]


def _bernoulli(*, logits: Any = None, probs: Any = None) -> Law:
    if probs is not None:
        p = jnp.asarray(probs)
        return Law(jnp.stack([jnp.log1p(-p), jnp.log(p)]), jnp.arange(2, dtype=jnp.int32))
    x = jnp.asarray(logits)
    return Law(jnp.stack([-jnp.logaddexp(0.0, x), -jnp.logaddexp(0.0, -x)]), jnp.arange(2, dtype=jnp.int32))


def _categorical(*, logits: Any = None, probs: Any = None) -> Law:
    log_probs = jax.nn.log_softmax(logits, -1) if probs is None else jnp.log(probs)
    return Law(jnp.moveaxis(log_probs, -1, 0), jnp.arange(log_probs.shape[-1], dtype=jnp.int32))


def _one_hot(**parameters: Any) -> Law:
    law = _categorical(**parameters)
    return Law(law.log_probs, jnp.eye(len(law.log_probs), dtype=jnp.int32))


def _binomial(n: int, **parameters: Any) -> Law:
    one = _bernoulli(**parameters).log_probs
    counts = np.arange(n + 1)
    ways = np.log([math.comb(n, k) for k in counts]).reshape(-1, *[1] * (one.ndim - 1))
    k = counts.reshape(ways.shape)
    return Law(ways + k * one[1] + (n - k) * one[0], jnp.arange(n + 1, dtype=jnp.int32))


def _of_rows(log_weights: Callable[[Any], Any], rows: Any) -> Law:
    """A law of vectors, each with the logarithm of its weight, a function of the logits of its items."""
    log_probs = jnp.stack([log_weights(row) for row in rows])
    return Law(log_probs - jax.nn.logsumexp(log_probs, axis=0, keepdims=True), jnp.asarray(rows, jnp.int32))


def _subset(logits: Any, k: int) -> Law:
    n = logits.shape[-1]
    rows = [row for row in np.ndindex(*[2] * n) if sum(row) == k]
    return _of_rows(lambda row: jnp.sum(logits * np.asarray(row).reshape(*[1] * (logits.ndim - 1), n), -1), rows)


def _plackett_luce(logits: Any, k: int | None = None) -> Law:
    def log_prob(row: tuple[int, ...]) -> Any:
        left, total = list(range(logits.shape[-1])), 0.0
        for item in row:
            total = total + logits[..., item] - jax.nn.logsumexp(logits[..., np.asarray(left)], axis=-1)
            left.remove(item)
        return total

    return _of_rows(log_prob, list(itertools.permutations(range(logits.shape[-1]), k)))


def _normal(nodes: int, loc: Any, scale: Any) -> Law:
    loc, scale = jnp.broadcast_arrays(loc, scale)
    at, here = jax.lax.stop_gradient((loc, scale))
    grid = np.linspace(-7.5, 7.5, nodes).reshape(-1, *[1] * loc.ndim)
    x = at + here * grid  # fixed: a sum over points that do not move
    log_density = -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * math.log(2 * math.pi)
    return Law(log_density + jnp.log(here * 15.0 / (nodes - 1)), x, own=True)


class Enumeration:
    """One run with given values of all draws; notes how many values each number drawn may have, and what is at what place.

    Attributes:
        cards: the number of values of each number drawn, in order.
        places: for each, the name of the draw, and its indices: steps of loops, lanes of `vmap`s, entry of the batch.
        log_probs: by draw (name, steps and lanes), of shape of its batch.
    """

    def __init__(self, states: Any, nodes: int = 33):
        self.states, self.nodes = states, nodes
        self.cards: list[int] = []
        self.places: list[tuple[str, tuple[int, ...]]] = []
        self.log_probs: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._loops: list[tuple[bool, int]] = []  # (whether a `vmap`, index)

    def namespace(self) -> dict[str, Any]:
        names: dict[str, Any] = {}
        header = HEADER.replace("from mcgrad import *", "")
        exec(header, names)
        return names | {
            "Bernoulli": _bernoulli,
            "Categorical": _categorical,
            "OneHotCategorical": _one_hot,
            "Binomial": _binomial,
            "Subset": _subset,
            "PlackettLuce": _plackett_luce,
            "Normal": functools.partial(_normal, self.nodes),
            **dict.fromkeys(ESTIMATORS, lambda *args, **kwargs: None),
            "sample": self.sample,
            "scan": self.scan,
            "fori_loop": self.fori_loop,
            "while_loop": self.while_loop,
            "cond": lambda which, yes, no, *operands: _select(which, yes(*operands), no(*operands)),
            "switch": self.switch,
            "vmap": self.vmap,
            "checkpoint": lambda fn: fn,
            "jit": lambda fn: fn,
        }

    def call(self, program: Program, theta: Any, key: Any, result: str | None = None) -> Any:
        names = self.namespace()
        text = program if result is None else dataclasses.replace(program, result=result)
        exec(compile(text.source(), FILE, "exec"), names)
        return names["program"](theta, key)

    @property
    def _at(self) -> tuple[int, ...]:
        return tuple(i for mapped, i in sorted(self._loops, key=lambda loop: loop[0]))

    def sample(self, key: Any, law: Law, estimator: Any = None, *, name: str = "") -> Any:
        size, start = math.prod(law.batch), len(self.cards)
        self.cards += [len(law.log_probs)] * size
        self.places += [(name, (*self._at, *entry)) for entry in np.ndindex(*law.batch)]
        index = self.index(key, law, start, size)
        self.log_probs[name, self._at] = jnp.take_along_axis(law.log_probs, index[None], 0)[0]
        return jnp.take_along_axis(law.values, index[None], 0)[0] if law.own else law.values[index]

    def index(self, key: Any, law: Law, start: int, size: int) -> Any:
        if self.states is None:
            return jnp.zeros(law.batch, int)
        return self.states[start : start + size].reshape(law.batch)

    def total_log_prob(self) -> Any:
        return sum((jnp.sum(x) for x in self.log_probs.values()), jnp.zeros(()))

    def _inside(self, mapped: bool, i: int, fn: Callable, *operands: Any) -> Any:
        self._loops.append((mapped, i))
        result = fn(*operands)
        self._loops.pop()
        return result

    def scan(self, body: Callable, carry: Any, xs: Any, length: int | None = None, reverse: bool = False) -> Any:
        n = length if length is not None else len(jax.tree.leaves(xs)[0])
        rows: list[Any] = [None] * n
        for i in reversed(range(n)) if reverse else range(n):
            carry, rows[i] = self._inside(False, i, body, carry, jax.tree.map(lambda x, i=i: x[i], xs))
        return carry, jax.tree.map(lambda *row: jnp.stack(row), *rows)

    def fori_loop(self, start: int, stop: int, body: Callable, carry: Any) -> Any:
        for i in range(start, stop):
            carry = self._inside(False, i, body, i, carry)
        return carry

    def while_loop(self, condition: Callable, body: Callable, carry: Any) -> Any:
        for i in range(MAX_TRIPS):
            carry = _select(condition(carry), self._inside(False, i, body, carry), carry)
        return carry

    def switch(self, index: Any, branches: Any, *operands: Any) -> Any:
        index = jnp.clip(index, 0, len(branches) - 1)
        found = [branch(*operands) for branch in branches]
        result = found[0]
        for i, other in enumerate(found[1:], 1):
            result = _select(index == i, other, result)
        return result

    def vmap(self, fn: Callable, in_axes: Any = 0, out_axes: int = 0) -> Callable:
        def mapped(*operands: Any) -> Any:
            axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(operands)
            n = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
            each = lambda i: [x if a is None else _at(x, i, a) for x, a in zip(operands, axes, strict=True)]  # noqa: E731
            rows = [self._inside(True, i, fn, *each(i)) for i in range(n)]
            return jax.tree.map(lambda *row: jnp.stack(row, out_axes), *rows)

        return mapped


def _at(x: Any, i: int, axis: int) -> Any:
    return x[(slice(None),) * axis + (i,)]


def _select(which: Any, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), yes, no)


ESTIMATORS = (
    "Score",
    "Enumerate",
    "DisARM",
    "ARM",
    "ARMS",
    "CARMS",
    "TreeDisARM",
    "ARSM",
    "MeasureValued",
    "LocalExpectation",
)
ESTIMATORS += (
    "SmoothedPerturbation",
    "UnorderedSet",
    "ImportanceWithoutReplacement",
    "SumAndSample",
    "Pathwise",
    "Auto",
    "RELAX",
    "LAX",
    "Taylor",
    "ImportanceSampling",
)


class TooLarge(Exception):
    """A program with more joint values than are summed over."""


def layout(program: Program, theta: Any, key: Any, nodes: int = 33) -> Enumeration:
    """A run that only notes the draws of a program."""
    run = Enumeration(None, nodes)
    jax.eval_shape(lambda: run.call(program, theta, key))
    return run


def joint_states(cards: list[int]) -> np.ndarray:
    """All joint values `[states, numbers drawn]`."""
    count = math.prod(cards)
    if count > MAX_STATES:
        raise TooLarge(count)
    return np.stack(np.unravel_index(np.arange(count), cards), 1) if cards else np.zeros((1, 0), int)


def exact(program: Program, theta: Any, key: Any, nodes: int = 33) -> tuple[list[np.ndarray], np.ndarray]:
    """The expectation and its derivatives up to the program's order; and the probabilities of the joint values, in order."""
    states = joint_states(layout(program, jnp.asarray(theta), key, nodes).cards)

    def expectation(theta: Any) -> Any:
        def weighted(state: Any) -> Any:
            run = Enumeration(state, nodes)
            value = run.call(program, theta, key)
            prob = jnp.exp(run.total_log_prob())
            return prob * value, prob

        terms, probs = jax.vmap(weighted)(states)
        return jnp.sum(terms), probs

    def derivatives(theta: Any) -> Any:
        (value, probs), gradient = jax.value_and_grad(expectation, has_aux=True)(theta)
        second = [jax.hessian(expectation, has_aux=True)(theta)[0]] if program.order == 2 else []
        return [value, gradient, *second], probs

    found, probs = jax.jit(derivatives)(theta)
    return [np.asarray(x) for x in found], np.asarray(probs)


LAWS = ("Bernoulli", "Categorical", "OneHotCategorical", "Binomial", "Subset", "PlackettLuce")


class Recording(Enumeration):
    """A run that draws by mcgrad, as a plain program does, and notes which values came."""

    def __init__(self) -> None:
        super().__init__(None)
        self.indices: list[Any] = []

    def index(self, key: Any, law: Law, start: int, size: int) -> Any:
        import mcgrad

        # All of mcgrad's own laws of finite support draw by their distribution; only the draw is taken from it.
        n = len(law.log_probs)
        drawn = mcgrad.sample(key, self.law)
        rows = law.values.reshape(n, *[1] * len(law.batch), *law.values.shape[1:])
        same = drawn[None] == rows
        index = jnp.argmax(jnp.all(same, -1) if law.values.ndim == 2 else same, 0)
        self.indices.append(jnp.ravel(index))
        assert index.shape == law.batch and n
        return index

    def namespace(self) -> dict[str, Any]:
        import mcgrad

        names = super().namespace()

        def both(name: str) -> Callable:
            own, theirs = names[name], getattr(mcgrad, name)

            def make(*args: Any, **kwargs: Any) -> Law:
                self.law = theirs(*args, **kwargs)  # a law is made where it is drawn from
                return own(*args, **kwargs)

            return make

        return names | {name: both(name) for name in LAWS}
