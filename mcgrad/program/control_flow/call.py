"""Functions with derivative rules of their own: `jax.custom_jvp`, `jax.custom_vjp`, operations as objects, linear solves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.structure import ControlFlow, control_flow


@control_flow(_compat.custom_jvp_p, _compat.custom_vjp_p, _compat.OBJECT_CALL)
class CustomRule(ControlFlow):
    """A call of a function with its own rule. The rule cannot account for a draw inside, which is therefore refused."""

    rebuilds = False
    own_rule = True

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        body = self.equation.bodies[0]
        if len(body.inputs) != len(inputs):
            return facts.apply(self.equation, list(inputs))
        return facts.run(body, inputs)


@control_flow(_compat.linear_solve_p)
class LinearSolve(ControlFlow):
    """A linear solve: its results are those of its function `solve`, its derivative is that of what its `matvec` solves for."""

    rebuilds = False

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        lengths, functions = self._lengths, self.equation.eqn.params["jaxprs"]
        start = lengths.matvec + lengths.vecmat
        solve = self.equation.bodies[[fn for fn in functions if fn is not None].index(functions.solve)]
        return facts.run(solve, [*inputs[start : start + lengths.solve], *inputs[sum(lengths) :]])

    def differentiated(self) -> Sequence[int]:
        return [*range(self._lengths.matvec), *range(sum(self._lengths), len(self.equation.inputs))]

    @property
    def _lengths(self) -> Any:
        return self.equation.eqn.params["const_lengths"]
