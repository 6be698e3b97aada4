"""Functions with derivative rules of their own: `jax.custom_jvp` and `jax.custom_vjp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.structure import ControlFlow, control_flow


@control_flow(_compat.custom_jvp_p, _compat.custom_vjp_p)
class CustomRule(ControlFlow):
    """A call of a function with its own rule. The rule cannot account for a draw inside, which is therefore refused."""

    rebuilds = False

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        body = self.equation.bodies[0]
        if len(body.inputs) != len(inputs):
            return facts.apply(self.equation, list(inputs))
        return facts.run(body, inputs)
