"""`jax.lax.scan`, and so `fori_loop` and `map`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program.control_flow import alternative_path
from mcgrad.program.estimator import Result
from mcgrad.program.forward import Forward
from mcgrad.program.reach import MAX_UNROLLED_STEPS
from mcgrad.program.run import Environment, Run
from mcgrad.program.structure import MOST_VISITS, Given, ScanView, Visit, control_flow
from mcgrad.program.trace import Program, Value
from mcgrad.program.weights import Record


@control_flow(_compat.scan_p)
class Scan(ScanView):
    """A loop over rows, with what it carries."""

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        equation, num_carry = self.equation, self.num_carry
        consts, carry, rows = self.split(inputs)
        rows = [facts.enter(fact, equation) for fact in rows]
        values = self.split(self.body.inputs)[1]
        carried = self.body.outputs[:num_carry]
        at_end: list[Any] = []

        def step(carry: list[Any]) -> list[Any]:
            with facts.inside(equation):
                at_end[:] = facts.run(self.body, [*consts, *carry, *rows])
            return [facts.next_step(*pair, equation) for pair in zip(at_end, carried, strict=False)]

        facts.until_fixed(equation, carry, values, step)
        last = (
            [facts.leave_last(*pair, equation) for pair in zip(at_end, carried, strict=False)] if self.length else carry
        )
        return [*last, *(facts.leave(fact, equation) for fact in at_end[num_carry:])]

    def visits(self, operands: Sequence[Given], run: Callable[[Program, Sequence[Given]], Any]) -> Iterator[Visit]:
        consts, carry, rows = self.split(operands)
        for step in range(min(self.length, MOST_VISITS)):
            at = self.length - 1 - step if self.reverse else step
            row = [lambda stacked=stacked, at=at: stacked()[at] for stacked in rows]
            inner = run(self.body, [*consts, *carry, *row])
            yield Visit(inner, step)
            carry = [functools.partial(inner.value, value) for value in self.body.outputs[: self.num_carry]]

    def wanted(self, body: Program, outputs: Sequence[bool]) -> set[Value]:
        carried = set(body.outputs[: self.num_carry])  # of which any may be needed by the next step
        return carried | super().wanted(body, outputs)

    def run_local(self, run: Run, operands: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        consts, carry, rows = self.split(operands)
        num_carry = self.num_carry

        def step(carry: list[Any], row: list[Any]) -> Any:
            outs, records = run.body(self.body, [*consts, *carry, *row])
            return outs[:num_carry], (outs[num_carry:], records)

        last, (stacked, records) = self.loop(step, carry, rows)
        return [*last, *stacked], records

    def check_continuation(self, estimator: str) -> None:
        if self.length > MAX_UNROLLED_STEPS:
            raise NotImplementedError(
                f"`{estimator}` needs the rest of the program, so the `scan` of {self.length} steps "
                f"at {self.equation.line} would have to be unrolled; the limit is {MAX_UNROLLED_STEPS} steps. Use "
                "`mcgrad.Score()` or `mcgrad.Pathwise()` for the draws inside it."
            )

    def continue_into(self, run: Run, operands: Sequence[Any], env: Environment, then: Any) -> Result:
        if self.equation in run.plan.reach:
            return alternative_path.follow(run, self, operands, then)
        consts, start, xs = self.split(operands)
        equation, num_carry = self.equation, self.num_carry
        order = list(range(self.length))[:: -1 if self.reverse else 1]

        def steps(run: Run, done: int, carry: Sequence[Any], rows: list[list[Any]]) -> Result:
            if done == self.length:
                ordered = rows[::-1] if self.reverse else rows
                # The same scan may come again, in the next step of one around it, and then be run as a loop.
                after = run.but(steps={e: t for e, t in run.steps.items() if e is not equation})
                return then(after, [*carry, *(jnp.stack(column) for column in zip(*ordered, strict=True))])
            row = [leaf[order[done]] for leaf in xs]

            def next_step(run: Run, outs: list[Any]) -> Result:
                return steps(run, done + 1, outs[:num_carry], [*rows, outs[num_carry:]])

            here = run.but(steps={**run.steps, equation: order[done]})
            return here.inline(self.body, [*consts, *carry, *row], env, next_step)

        return steps(run, 0, start, [])
