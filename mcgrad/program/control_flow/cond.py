"""`jax.lax.cond` and `switch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from mcgrad import _compat, _mesh
from mcgrad.program.estimator import Result
from mcgrad.program.forward import Forward
from mcgrad.program.run import Environment, Run
from mcgrad.program.structure import ControlFlow, Given, Visit, control_flow
from mcgrad.program.trace import Program
from mcgrad.program.weights import Record


@control_flow(_compat.cond_p)
class Cond(ControlFlow):
    """A choice among branches; its first operand is the index."""

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        index, *operands = inputs
        branches = [facts.run(body, operands) for body in self.equation.bodies]
        return [
            facts.chosen(self.equation, index, outputs, value)
            for value, *outputs in zip(self.equation.outputs, *branches, strict=True)
        ]

    def visits(self, operands: Sequence[Given], run: Callable[[Program, Sequence[Given]], Any]) -> Iterator[Visit]:
        for n, body in enumerate(self.equation.bodies):
            yield Visit(run(body, operands[1:]), branch=n)

    def run_local(self, run: Run, operands: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        index, *inputs = operands
        bodies = self.equation.bodies
        shapes = [jax.eval_shape(lambda *x, body=body: run.body(body, x)[1], *inputs) for body in bodies]

        # Every branch returns the records of all branches: its own, and zeros for draws of the others.
        def branch(b: int) -> Callable[..., Any]:
            def taken(*inputs: Any) -> Any:
                outs, own = run.body(bodies[b], inputs)
                zeros = jax.tree.map(lambda s: _mesh.zeros(jax.typeof(s)), shapes)
                return outs, [own if c == b else zeros[c] for c in range(len(bodies))]

            return taken

        outs, records = jax.lax.switch(index, [branch(b) for b in range(len(bodies))], *inputs)
        return outs, [record for of_branch in records for record in of_branch]

    def continue_into(self, run: Run, operands: Sequence[Any], env: Environment, then: Any) -> Result:
        index, *inputs = operands
        return jax.lax.switch(
            index, [lambda body=body: run.inline(body, inputs, env, then) for body in self.equation.bodies]
        )
