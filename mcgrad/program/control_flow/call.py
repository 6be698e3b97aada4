"""Functions with derivative rules of their own: `jax.custom_jvp`, `jax.custom_vjp`, operations as objects, linear solves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.structure import ControlFlow, control_flow
from mcgrad.program.trace import Program


class Call(ControlFlow):
    """A call of a function whose results are those of one body. A draw inside cannot be credited, and is refused."""

    rebuilds = False

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        called = self.called(inputs)
        return facts.apply(self.equation, list(inputs)) if called is None else facts.run(*called)


@control_flow(_compat.custom_jvp_p, _compat.custom_vjp_p, _compat.OBJECT_CALL)
class CustomRule(Call):
    """A call of a function with its own rule, which cannot account for a draw inside."""

    own_rule = True

    def called(self, operands: Sequence[Any]) -> tuple[Program, Sequence[Any]] | None:
        body = self.equation.bodies[0]
        return (body, operands) if len(body.inputs) == len(operands) else None


@control_flow(_compat.linear_solve_p)
class LinearSolve(Call):
    """A linear solve: its results are those of its function `solve`, its derivative is that of what its `matvec` solves for."""

    def called(self, operands: Sequence[Any]) -> tuple[Program, Sequence[Any]]:
        lengths, functions = self._lengths, self.equation.eqn.params["jaxprs"]
        start = lengths.matvec + lengths.vecmat
        solve = self.equation.bodies[[fn for fn in functions if fn is not None].index(functions.solve)]
        return solve, [*operands[start : start + lengths.solve], *operands[sum(lengths) :]]

    def differentiated(self) -> Sequence[int]:
        return [*range(self._lengths.matvec), *range(sum(self._lengths), len(self.equation.inputs))]

    @property
    def _lengths(self) -> Any:
        return self.equation.eqn.params["const_lengths"]
