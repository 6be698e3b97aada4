"""Programs as small trees of statements, which print as Python."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

HEADER = '''\
import jax
import jax.numpy as jnp
import numpy as np
from jax import checkpoint, jit, vmap
from jax.lax import cond, fori_loop, scan, switch, while_loop
from jax.random import fold_in, split
from mcgrad import *


def const(seed, *shape):
    """Fixed numbers of no pattern."""
    return np.sin(seed + 1.7 * np.arange(int(np.prod(shape)))).reshape(shape)


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


@ruled.defjvp
def _(primals, tangents):
    return jnp.sin(primals[0]), jnp.cos(primals[0]) * tangents[0]


@jax.custom_vjp
def backward(x):
    return jnp.tanh(x)


backward.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))
'''
"""What every program may use."""

FILE = "fuzzed_program.py"
"""Where the lines of a program are said to be."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """Shape and type ("float", "int" or "bool") of a value."""

    shape: tuple[int, ...]
    dtype: str = "float"

    @property
    def filler(self) -> str:
        """A constant of this kind."""
        if self.dtype == "float":
            return f"jnp.full({self.shape}, 0.5)"
        return f"jnp.zeros({self.shape}, {'jnp.int32' if self.dtype == 'int' else 'bool'})"


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of a statement: the body of a loop, a branch, ..."""

    name: str
    arguments: tuple[str, ...]
    lines: tuple[Statement, ...]
    result: str


@dataclasses.dataclass(frozen=True)
class Statement:
    """`names = expression`, behind the functions that the expression calls; `operation` is what made it."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    expression: str
    functions: tuple[Function, ...] = ()
    operation: str = ""


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of `theta` and `key`, and how it is to be estimated.

    Attributes:
        transform: the arguments of `mcgrad.expectation`, as text.
        forward: whether it has derivatives in forward mode only.
        order: the highest derivative to check.
    """

    lines: tuple[Statement, ...]
    result: str
    transform: str = "estimator=Score()"
    forward: bool = False
    order: int = 1

    def source(self) -> str:
        return "\n".join(["def program(theta, key):", *_text(self.lines), f"    return {self.result}"])

    def statements(self) -> Iterator[Statement]:
        yield from _walk(self.lines)

    def describe(self) -> str:
        """As text to run: with the transform, after `HEADER`."""
        return f"{self.source()}\n\n\n# expectation(program, {self.transform}), order {self.order}"


def _text(lines: tuple[Statement, ...], indent: int = 1) -> Iterator[str]:
    pad = "    " * indent
    for line in lines:
        for fn in line.functions:
            yield f"{pad}def {fn.name}({', '.join(fn.arguments)}):"
            yield from _text(fn.lines, indent + 1)
            yield f"{pad}    return {fn.result}"
        yield f"{pad}{', '.join(line.names)} = {line.expression}"


def _walk(lines: tuple[Statement, ...]) -> Iterator[Statement]:
    for line in lines:
        for fn in line.functions:
            yield from _walk(fn.lines)
        yield line


def replaced(lines: tuple[Statement, ...], old: Statement, new: Statement | None) -> tuple[Statement, ...]:
    """The statements with one of them, at any depth, replaced or left out."""
    found: list[Statement] = []
    for line in lines:
        if line is old:
            found += [] if new is None else [new]
        else:
            functions = tuple(dataclasses.replace(fn, lines=replaced(fn.lines, old, new)) for fn in line.functions)
            found.append(dataclasses.replace(line, functions=functions) if functions else line)
    return tuple(found)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def without_dead_code(program: Program) -> Program:
    """The program without statements that nothing reads."""
    while True:
        used = words(program.result)
        for line in program.statements():
            used |= words(line.expression)
            used |= {word for fn in line.functions for word in words(fn.result)}
        dead = next((line for line in program.statements() if not used & set(line.names)), None)
        if dead is None:
            return program
        program = dataclasses.replace(program, lines=replaced(program.lines, dead, None))
