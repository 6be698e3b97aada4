"""`jax.shard_map` inside the program. Draws in it are taken out of it before all else, see `mcgrad.program.shards`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.primitives import linear_group
from mcgrad.program.structure import ShardView, control_flow


@control_flow(_compat.SHARD_MAP)
class ShardMap(ShardView):
    """A function of the part of each device."""

    rebuilds = False

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        parts = [facts.onto_device(fact, self.equation, i) for i, fact in enumerate(inputs)]
        found = facts.run(self.body, parts)
        return [facts.from_devices(fact, self.equation, i) for i, fact in enumerate(found)]

    def linear_in(self, operands: Sequence[int]) -> bool:
        reached = {self.body.inputs[i] for i in operands}
        for equation in self.body.equations:
            at = [i for i, value in enumerate(equation.inputs) if value in reached]
            if at and linear_group(equation, at) is None:
                return False
            reached.update(equation.outputs if at else ())
        return True
