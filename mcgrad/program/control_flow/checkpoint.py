"""`jax.checkpoint`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcgrad import _compat
from mcgrad.program.estimator import Result
from mcgrad.program.forward import Forward
from mcgrad.program.run import Environment, Run
from mcgrad.program.structure import CheckpointView, control_flow
from mcgrad.program.weights import Record


@control_flow(_compat.checkpoint_p)
class Checkpoint(CheckpointView):
    """A function whose values are computed again in the backward pass."""

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        return facts.run(self.equation.bodies[0], inputs)

    def run_local(self, run: Run, operands: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        return self.wrap(lambda *inputs: run.body(self.equation.bodies[0], inputs))(*operands)

    def continue_into(self, run: Run, operands: Sequence[Any], env: Environment, then: Any) -> Result:
        return run.inline(self.equation.bodies[0], operands, env, then)
