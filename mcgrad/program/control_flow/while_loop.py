"""`jax.lax.while_loop`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat, _mesh
from mcgrad._arguments import is_key
from mcgrad.program.bring import expand_right, where_each
from mcgrad.program.forward import Forward
from mcgrad.program.run import Run
from mcgrad.program.site import has_site
from mcgrad.program.structure import MOST_VISITS, ControlFlow, Given, Visit, control_flow
from mcgrad.program.trace import Program, Value
from mcgrad.program.weights import Record, Weight


@control_flow(_compat.while_p)
class While(ControlFlow):
    """A loop that runs while a condition on its carry holds; JAX has no reverse mode for it."""

    @property
    def condition(self) -> Program:
        return self.equation.bodies[0]

    @property
    def body(self) -> Program:
        return self.equation.bodies[1]

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Constants of the condition, constants of the body, and the carry."""
        params = self.equation.eqn.params
        a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        return list(operands[:a]), list(operands[a:b]), list(operands[b:])

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        of_condition, of_body, carry = self.split(inputs)
        values = self.equation.outputs

        def step(carry: list[Any]) -> list[Any]:
            (going_on,) = facts.run(self.condition, [*of_condition, *carry])
            stopped = facts.stopped(self.equation, going_on)
            outputs = facts.run(self.body, [*of_body, *carry])
            return [
                facts.join([out, stopped], value, self.equation) for out, value in zip(outputs, values, strict=True)
            ]

        return facts.until_fixed(self.equation, carry, values, step)[0]

    def visits(self, operands: Sequence[Given], run: Callable[[Program, Sequence[Given]], Any]) -> Iterator[Visit]:
        _, consts, carry = self.split(operands)
        for step in range(MOST_VISITS):
            inner = run(self.body, [*consts, *carry])
            yield Visit(inner, step)
            carry = [functools.partial(inner.value, value) for value in self.body.outputs]

    def wanted(self, body: Program, outputs: Sequence[bool]) -> set[Value]:
        return set(body.outputs)

    def run_local(self, run: Run, operands: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        line = self.equation.line
        if has_site(self.condition):
            raise NotImplementedError(
                f"mcgrad cannot differentiate a draw inside the condition of the `while_loop` at {line}. Draw in "
                "the body and carry the value."
            )
        of_condition, of_body, carry = self.split(operands)

        def once(carry: list[Any]) -> Any:
            outs, records = run.body(self.body, [*of_body, *carry])
            return outs, records

        shapes = jax.eval_shape(once, carry)[1]
        weights = [record for record in shapes if isinstance(record, Weight)]
        if any(w.baseline is not None and not isinstance(w.baseline, str) for w in weights):
            raise NotImplementedError(
                f"`mcgrad.Score(baseline=array)` is not available inside the `while_loop` at {line}: its draws "
                "have no time axis to subtract it along. Use `mcgrad.Score(baseline=None)`, or a `scan` with a bound."
            )
        totals = jax.tree.map(lambda s: _mesh.zeros(jax.typeof(s)), shapes)
        lanes = len(self.condition.outputs[0].shape)
        if lanes and any(weight.site.num_levels != lanes for weight in weights):
            raise NotImplementedError(
                f"mcgrad cannot credit the draws of the `while_loop` at {line} under these `vmap`s: some map over the loop and "
                "not over the condition by which it stops. Map over what the condition reads too, or use a `scan` with a bound."
            )

        def going_on(state: Any) -> Any:
            return run.body(self.condition, [*of_condition, *state[0]])[0][0]

        def step(state: Any) -> Any:
            carry, totals = state
            outs, found = once(carry)
            if lanes:  # under `vmap` each loop has a condition of its own, and stands still once it is done
                on = going_on(state)
                # The key of a loop that is done goes on being split, but nothing is drawn with it.
                outs = _cloned(where_each(on, outs, _cloned(carry)))
                found = jax.tree.map(lambda x: jnp.where(expand_right(on, x.ndim), x, 0), found)
            return outs, jax.tree.map(jnp.add, totals, found)

        outs, totals = _mesh.while_loop(
            lambda state: jnp.any(going_on(state)) if lanes else going_on(state), step, (carry, totals)
        )
        message = (
            f"JAX has no reverse mode through the `while_loop` at {line}, so `jax.grad` cannot differentiate it. Use "
            "`jax.jvp` or `jax.jacfwd` of `mcgrad.expectation(program)`, or a `scan` with a bound on the number of steps."
        )
        outs = [_forward_only(x, message) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in outs]
        totals = jax.tree.map(lambda total: _forward_only(total, message), totals)
        return outs, totals

    def check_continuation(self, estimator: str) -> None:
        raise NotImplementedError(
            f"`{estimator}` needs the rest of the program, which the `while_loop` at {self.equation.line} does not "
            "give. Use `mcgrad.Score()` or `mcgrad.Pathwise()` for the draws inside it, or a `scan` with a bound."
        )


def _cloned(values: Sequence[Any]) -> list[Any]:
    return [jax.random.clone(x) if is_key(x) else x for x in values]


_forward_only = _compat.new_forward_only("mcgrad_forward_only")
