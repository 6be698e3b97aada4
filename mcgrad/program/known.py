"""Values that are known before a program runs: above all indices, which determine where entries go."""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat, _mesh
from mcgrad.program import bounded
from mcgrad.program.trace import Constant, Equation, Program, Value

MAX_KNOWN = 2**22
"""Entries of an array that is computed beforehand; see `mcgrad.program.relation.MAX_TABLE`."""


class Known:
    """The integers of a program that depend on no input, draw or traced value, computed on demand."""

    def __init__(self, program: Program | None = None):
        self._producer: dict[Value, Equation] = {}
        self._values: dict[Value, np.ndarray | None] = {}
        if program is not None:
            self.learn(program.everything())

    def learn(self, equations: Iterable[Equation]) -> None:
        """Add equations, from which values are then computed."""
        self._producer.update((value, equation) for equation in equations for value in equation.outputs)

    def value(self, value: Value) -> np.ndarray | None:
        """A value of integers or booleans, if it is known."""
        if value not in self._values:
            self._values[value] = self._find(value)
        return self._values[value]

    def component(self, indices: Value, index: int) -> np.ndarray | None:
        """One component of the last axis of `indices`, if it is known, whether or not the others are."""
        if (whole := self.value(indices)) is not None:
            return whole[..., index]
        equation, axis = self._producer.get(indices), len(indices.shape) - 1
        if equation is not None and equation.name == "concatenate" and equation.eqn.params["dimension"] == axis:
            for part in equation.inputs:
                if index < part.shape[-1]:
                    return self.component(part, index)
                index -= part.shape[-1]
        return None

    def _find(self, value: Value) -> np.ndarray | None:
        whole = jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == np.bool_
        if not whole or math.prod(value.shape) > MAX_KNOWN:
            return None
        if isinstance(value, Constant):
            return np.asarray(value.value) if _compat.is_known(value.value) else None
        equation = self._producer.get(value)
        if equation is None or equation.bodies or equation.eqn.effects or equation.name in _NOT_FOLDED:
            return None
        if _mesh.collective_axes(equation.eqn):
            return None
        operands = {v: self.value(v) for v in equation.inputs}
        if any(found is None for found in operands.values()):
            return None
        with _compat.before_the_run():
            results = bounded.evaluate(equation, operands.__getitem__)
            self._values.update((out, np.asarray(x)) for out, x in zip(equation.outputs, results, strict=True))
        return self._values[value]


_NOT_FOLDED = frozenset(
    {"mcgrad_sample", "random_bits", "threefry2x32", "pure_callback", "io_callback", "mcgrad_custom_jvp"}
)
"""What must not be evaluated beforehand: draws, and calls of user functions."""
