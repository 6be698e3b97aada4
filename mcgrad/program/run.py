"""The protocol of the interpreter: what control flow and the rest of a program use of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator, Result
from mcgrad.program.plan import Plan
from mcgrad.program.site import Site
from mcgrad.program.thresholds import Crossings
from mcgrad.program.trace import Constant, Equation, Program, Value
from mcgrad.program.weights import Record

Environment: TypeAlias = dict[Value, Any]

Continuation: TypeAlias = "Callable[[Any, Environment], Result]"
"""What comes after a stretch of equations. It takes the run as an argument, since it may be a plain one, or a replicate."""


class Run(Protocol):
    """A run of a plan; see `mcgrad.program.interpret.Interpreter`."""

    @property
    def plan(self) -> Plan: ...
    @property
    def replicates(self) -> tuple[tuple[str, ...], int] | None: ...
    @property
    def folds(self) -> tuple[Any, ...]: ...
    @property
    def steps(self) -> Mapping[Equation, int]: ...
    @property
    def points(self) -> int: ...

    def but(self, **changes: Any) -> Run:
        """This run, with some of its settings changed."""
        ...

    def body(self, body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Record]]:
        """A body of control flow, all of whose draws are local: its outputs and what its draws record."""
        ...

    def inline(
        self, body: Program, inputs: Sequence[Any], env: Environment, then: Callable[[Run, list[Any]], Result]
    ) -> Result:
        """Run a body as part of the program, and go on with its outputs."""
        ...

    def credit(self, result: Result, records: Sequence[Record]) -> Result:
        """Multiply each cost by the weights of the draws that it depends on."""
        ...

    def subtract_baseline(self, costs: list[Any], site: Site, weight: Any, baseline: Any) -> None:
        """Add `(1 - w) b`, whose value and expectation are zero, to the cost that depends on the most draws."""
        ...

    def estimator(self, draw: Draw) -> Estimator:
        """The estimator of a draw, with its arrays."""
        ...


def read(env: Environment, value: Value) -> Any:
    """The array that a value stands for: known beforehand, or computed by the run."""
    return value.value if isinstance(value, Constant) else env[value]


def with_crossings(run: Run, draw: Draw, env: Environment, x: Any) -> Draw:
    """A draw of value `x` with its crossings, given the values before it."""
    thresholds = run.plan.thresholds.get(draw.site, ())
    return dataclasses.replace(draw, crossings=Crossings.of(thresholds, draw.site, env, x))
