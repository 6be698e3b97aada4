"""Control flow as seen by the passes and the run: one class for each primitive that has bodies; new ones can be added.

A class says how facts of values go through it (`forward`), how it is run where all draws in it are local (`run_local`), and
how it becomes part of the rest of the program (`continue_into`). A primitive without a class is evaluated as it stands, its
bodies unseen; a draw inside it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import jax

from mcgrad import _compat, _mesh
from mcgrad.program.trace import Equation, Program, Value

if TYPE_CHECKING:
    from mcgrad.program.forward import Forward


Given: TypeAlias = Callable[[], Any]

MOST_VISITS = 3
"""Steps of a loop that are visited."""


class Visit(NamedTuple):
    """A body as it may run: in this step of a loop, or if the index is that of this branch."""

    run: Any
    step: int | None = None
    branch: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ControlFlow:
    """One equation with bodies. Subclass, and register with `control_flow(primitive)`.

    Class attributes:
        rebuilds: whether a draw in a body can be credited, because `run_local` and `continue_into` are defined.
        own_rule: whether derivatives are not those of the body.
    """

    equation: Equation
    rebuilds: ClassVar[bool] = True
    own_rule: ClassVar[bool] = False

    def forward(self, facts: Forward, inputs: Sequence[Any]) -> list[Any]:
        """The facts of the results, from those of the operands; `facts.run` goes through the bodies."""
        raise NotImplementedError

    def called(self, operands: Sequence[Any]) -> tuple[Program, Sequence[Any]] | None:
        """The body whose outputs are the results, and what it is given; `None` if they are not those of one body."""
        return None

    def differentiated(self) -> Sequence[int] | None:
        """The positions of the operands that derivatives go through, if they do not go through the bodies as values do."""
        return None

    def linear_in(self, operands: Sequence[int]) -> bool:
        """Whether all results are linear in these operands together, the others held."""
        return False

    def visits(self, operands: Sequence[Given], run: Callable[[Program, Sequence[Given]], Any]) -> Iterator[Visit]:
        """Each body as it may run: some steps of a loop, every branch.

        Args:
            operands: functions without arguments that compute them, if they are asked for.
            run: of a body and what it is given; `run(...).value(output)` then computes an output.
        """
        for body in self.equation.bodies:
            yield Visit(run(body, operands))

    def wanted(self, body: Program, outputs: Sequence[bool]) -> set[Value]:
        """The outputs of a body that matter, given which results do; by default those at the same positions."""
        return {value for value, used in zip(body.outputs, outputs, strict=True) if used}

    def run_local(self, run: Any, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, for bodies in which all draws are local, and the records of these draws."""
        raise NotImplementedError

    def check_continuation(self, estimator: str) -> None:
        """Raise if the body cannot become part of the rest of the program, which `estimator` needs."""

    def continue_into(self, run: Any, operands: Sequence[Any], env: dict[Any, Any], then: Any) -> Any:
        """Run the body as part of the program, and go on by `then(run, results)`."""
        raise NotImplementedError


_CLASSES: dict[str, type[ControlFlow]] = {}

_Class = TypeVar("_Class", bound=type[ControlFlow])


def control_flow(*primitives: Any) -> Callable[[_Class], _Class]:
    """Class decorator: registers the class for these control-flow primitives, or those of these names."""

    def register(cls: _Class) -> _Class:
        _CLASSES.update({getattr(primitive, "name", primitive): cls for primitive in primitives})
        return cls

    return register


def form_of(equation: Equation) -> ControlFlow | None:
    """The equation as control flow, or `None` if its primitive has no class."""
    cls = _CLASSES.get(equation.name)
    return None if cls is None else cls(equation)


def rebuilds(equation: Equation) -> bool:
    """Whether an equation is control flow that can be rebuilt around the draws in it."""
    cls = _CLASSES.get(equation.name)
    return cls is not None and cls.rebuilds


def live_equations(program: Program, wanted: Set[Value]) -> set[Equation]:
    """The equations, those of bodies included, that wanted values need."""
    found: set[Equation] = set()
    needed = set(wanted)
    for equation in reversed(program.equations):
        if needed.isdisjoint(equation.outputs):
            continue
        found.add(equation)
        needed.update(equation.inputs)
        form = form_of(equation)
        for body in equation.bodies:
            if form is None:
                found.update(body.everything())
                continue
            found |= live_equations(body, form.wanted(body, [value in needed for value in equation.outputs]))
    return found


def contains_any(equation: Equation, wanted: Container[Equation]) -> bool:
    """Whether any of the given equations occurs in the bodies of control flow that can be rebuilt."""
    inner = [e for body in equation.bodies for e in body.equations] if rebuilds(equation) else []
    return any(e in wanted or contains_any(e, wanted) for e in inner)


def standing(program: Program, wanted: Equation) -> Equation:
    """The equation itself, or the function of JAX's with rules of its own that it is in, which is run as it stands."""
    for equation in program.everything():
        opaque = equation.name == _compat.OBJECT_CALL
        if opaque and any(wanted is inner for body in equation.bodies for inner in body.everything()):
            return equation
    return wanted


@dataclasses.dataclass(frozen=True, eq=False)
class ScanView(ControlFlow):
    """A `scan`: its operands unpacked, and the same loop around another step."""

    @property
    def body(self) -> Program:
        return self.equation.bodies[0]

    @property
    def length(self) -> int:
        return self.equation.eqn.params["length"]

    @property
    def reverse(self) -> bool:
        return self.equation.eqn.params["reverse"]

    @property
    def num_carry(self) -> int:
        return _compat.scan_split(self.equation.eqn)[1]

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Constants, what is carried, and what is scanned over."""
        num_consts, num_carry = _compat.scan_split(self.equation.eqn)
        end = num_consts + num_carry
        return list(operands[:num_consts]), list(operands[num_consts:end]), list(operands[end:])

    def loop(self, step: Callable[[Any, Any], Any], start: Any, rows: Any) -> tuple[Any, Any]:
        """`jax.lax.scan` of a step, in the order and with the unrolling of this one."""
        params = self.equation.eqn.params
        scan = _mesh.scan if self.length else jax.lax.scan
        return scan(step, start, rows, length=self.length, reverse=self.reverse, unroll=params["unroll"])


@dataclasses.dataclass(frozen=True, eq=False)
class CheckpointView(ControlFlow):
    """A `checkpoint`: another function under its policy."""

    def wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A function under this checkpoint's policy."""
        params = self.equation.eqn.params
        return jax.checkpoint(fn, policy=params["policy"], prevent_cse=params["prevent_cse"])


@dataclasses.dataclass(frozen=True, eq=False)
class ShardView(ControlFlow):
    """A `shard_map`: its parameters, and the same map of another function."""

    @property
    def body(self) -> Program:
        return self.equation.bodies[0]

    @property
    def specs(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """How the operands are split over devices, and how the results are put together."""
        params = self.equation.eqn.params
        return tuple(params["in_specs"]), tuple(params["out_specs"])

    @property
    def axes(self) -> dict[Any, int]:
        """The mesh axes that it maps over, and how many devices each has."""
        params = self.equation.eqn.params
        manual = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
        return {axis: size for axis, size in params["mesh"].shape.items() if axis in manual}

    @property
    def checked(self) -> bool:
        """Whether JAX knows which values may differ from device to device."""
        return self.equation.eqn.params["check_vma"]

    def map(self, fn: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """The `shard_map` of another function, over the same devices."""
        return jax.shard_map(
            fn,
            mesh=self.equation.eqn.params["mesh"],
            in_specs=in_specs,
            out_specs=out_specs,
            axis_names=set(self.axes),
            check_vma=self.checked,
        )
