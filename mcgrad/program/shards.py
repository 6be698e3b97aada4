"""Draws inside a `shard_map` are taken out of it: it is cut at each of them, into one before and one after.

What goes from one part to the next is stacked, with an axis in front for each mesh axis along which it may differ. So a draw stands
at the top level of the program, under a `vmap` for each of these axes, which are plates of it like any other: weights, baselines,
points of estimators, and collectives after it need no rules of their own. A loop with draws in it is put around the parts of its
body. Values stay on their devices: nothing is gathered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mcgrad import _compat, _mesh
from mcgrad.program.forward import Forward
from mcgrad.program.site import Site, has_site, sample_p
from mcgrad.program.structure import ScanView, ShardView, form_of, rebuilds
from mcgrad.program.trace import Constant, Equation, Program, Value, replaced


def cut_shards(program: Program) -> Program:
    """The program with no draw inside a `shard_map`."""
    found = replaced(program, lambda e: (_Uncut(e).run, e.inputs) if _draws_in_shards(e) else None)
    return program if found is None else found


def _draws_in_shards(equation: Equation) -> bool:
    return any(e.name == _compat.SHARD_MAP and any(map(has_site, e.bodies)) for e in equation.everything())


@dataclasses.dataclass(frozen=True, eq=False)
class _Uncut:
    """An operation with such draws in it, and how it is run without."""

    equation: Equation

    def run(self, *operands: Any) -> Sequence[Any]:
        if self.equation.name == _compat.SHARD_MAP:
            return Shards(self.equation).cut(operands)
        if not rebuilds(self.equation):
            refuse_draw(self.equation)
        form: Any = form_of(self.equation)
        return form.run_local(self, operands)[0]

    def body(self, body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        def run(equation: Equation, reading: Any) -> Any:
            if not _draws_in_shards(equation):
                return equation.evaluate(reading)
            return _Uncut(equation).run(*map(reading, equation.inputs))

        return body.evaluate(*inputs, by=run), []


@dataclasses.dataclass(frozen=True)
class Held:
    """A value of all devices, outside of the `shard_map`.

    Attributes:
        array: the value.
        spec: how it is spread.
        axes: the mesh axes that it has in front; `None` where it is spread along axes of its own.
    """

    array: Any
    spec: Any
    axes: tuple[Any, ...] | None = None


class Shards:
    """A `shard_map` that is run in parts."""

    def __init__(self, equation: Equation):
        self.view = ShardView(equation)
        self.body = self.view.body
        self._differing = None if self.view.checked else _Differing(self.view).facts

    def axes_of(self, value: Value) -> tuple[Any, ...]:
        """The mesh axes along which a value may differ, also one in the body of a loop."""
        found: Any = _mesh.varying_axes(value.aval) if self._differing is None else self._differing.get(value, ())
        return tuple(axis for axis in self.view.axes if axis in found)

    def stacked(self, value: Value, array: Any) -> Held:
        """A value that has the mesh axes along which it may differ in front."""
        axes = self.axes_of(value)
        return Held(array, PartitionSpec(*axes), axes)

    def of_operands(self, operands: Sequence[Any]) -> dict[Value, Held]:
        """The operands, as the first part gets them."""
        found = {}
        for value, x, spec in zip(self.body.inputs, operands, self.view.specs[0], strict=True):
            shared = not self.axes_of(value) and all(entry is None for entry in spec)
            found[value] = self.stacked(value, x) if shared else Held(x, spec)
        return found

    def part(
        self, equations: Sequence[Equation], wanted: Sequence[Value], env: dict[Value, Held], specs: Sequence[Any] = ()
    ) -> list[Held]:
        """Run some equations on each device; `wanted` values come out put together by `specs`, those after them stacked."""
        live = Program((), tuple(equations), tuple(wanted)).without_dead_code().equations
        made = {v for e in live for v in e.outputs}
        reads = dict.fromkeys(v for v in (*(v for e in live for v in e.inputs), *wanted))
        given = {v: env[v] for v in reads if v not in made and not isinstance(v, Constant)}
        local = Program(tuple(given), live, tuple(wanted))
        axes = [*[None] * len(specs), *map(self.axes_of, wanted[len(specs) :])]
        out_specs = [*specs, *(PartitionSpec(*(those or ())) for those in axes[len(specs) :])]

        def of_device(*arrays: Any) -> list[Any]:
            own = [jnp.squeeze(x, _front(held.axes)) for x, held in zip(arrays, given.values(), strict=True)]
            outs = map(_mesh.varying, local.evaluate(*own), [v.aval for v in wanted])
            return [jnp.expand_dims(x, _front(those)) for x, those in zip(outs, axes, strict=True)]

        mapped = self.view.map(of_device, tuple(held.spec for held in given.values()), out_specs)
        arrays = mapped(*(held.array for held in given.values()))
        return [Held(*each) for each in zip(arrays, out_specs, axes, strict=True)]

    def cut(self, operands: Sequence[Any]) -> list[Any]:
        """The results, with all draws outside."""
        env = self.of_operands(operands)
        left = self._up_to_last_draw(self.body, env)
        return [held.array for held in self.part(left, self.body.outputs, env, self.view.specs[1])]

    def inside(self, body: Program, inputs: Sequence[Any]) -> list[Held]:
        """The outputs of a body of control flow in the `shard_map`, stacked as its inputs are."""
        env = {value: self.stacked(value, x) for value, x in zip(body.inputs, inputs, strict=True)}
        return self.part(self._up_to_last_draw(body, env), body.outputs, env)

    def _up_to_last_draw(self, body: Program, env: dict[Value, Held]) -> list[Equation]:
        """Run a body up to its last draw; the equations after it."""
        waiting: list[Equation] = []
        for n, equation in enumerate(body.equations):
            if not _draws(equation):
                waiting.append(equation)
                continue
            needed = {v for e in body.equations[n:] for v in e.inputs}.union(body.outputs)
            wanted = [v for e in waiting for v in e.outputs if v in needed]
            wanted += [v for v in dict.fromkeys(equation.inputs) if v in env and env[v].axes is None]
            if wanted:
                env.update(zip(wanted, self.part(waiting, wanted, env), strict=True))
            waiting = []
            operands = [_of_constant(v) if isinstance(v, Constant) else env[v] for v in equation.inputs]
            run = self._draw if equation.eqn.primitive is sample_p else self._around
            env.update(zip(equation.outputs, run(equation, operands), strict=True))
        return waiting

    def _draw(self, equation: Equation, operands: Sequence[Held]) -> list[Held]:
        """A draw of all devices, under a `vmap` for each mesh axis along which its distribution or its key differs."""
        params, site = equation.eqn.params, Site(equation)
        of_draw = operands[: len(site.parameters) + 1]
        over = [axis for axis in reversed(self.view.axes) if any(axis in _axes(held) for held in of_draw)]
        if left := [axis for held in operands for axis in _axes(held) if axis not in over]:
            raise NotImplementedError(
                f"mcgrad cannot use an estimator with arrays that differ along the mesh axis {left[0]!r} for {site.describe()}, "
                "which does not. Give it arrays that all devices share."
            )
        levels = [tuple(0 if axis in _axes(held) else None for held in operands) for axis in over]
        named = [(len(params["levels"]) + k, axis) for k, axis in enumerate(over)]
        changed = {"levels": (*params["levels"], *levels), "mesh_levels": (*params["mesh_levels"], *named)}
        with _compat.on_line_of(equation.eqn):
            outs = sample_p.bind(*(jnp.asarray(held.array) for held in operands), **{**params, **changed})
        return [Held(x, PartitionSpec(*reversed(over)), tuple(reversed(over))) for x in outs]

    def _around(self, equation: Equation, operands: Sequence[Held]) -> list[Held]:
        """Control flow with draws in it, put around the parts of its bodies."""
        if not rebuilds(equation):
            refuse_draw(equation)
        form: Any = form_of(equation)
        given, results = equation.inputs, equation.outputs
        rows, columns = (
            len(given),
            len(results),
        )  # axes of steps come first in a loop, and behind the mesh axes outside of it
        if isinstance(form, ScanView):
            given, num_carry = form.body.inputs, form.num_carry
            results = (*form.split(given)[1], *results[num_carry:])
            rows, columns = len(given) - len(form.split(given)[2]), num_carry
        elif equation.eqn.primitive is _compat.while_p:
            given = (*given[: len(given) - len(results)], *results)
            self._check_shared(equation, form.condition.outputs[0], "stops by a condition that differs")
        elif equation.eqn.primitive is _compat.cond_p:
            self._check_shared(equation, equation.inputs[0], "chooses by a value that differs")
        inner, wanted = list(map(self.axes_of, given)), list(map(self.axes_of, results))
        arrays = list(map(self._with_axes, operands, inner))
        arrays[rows:] = [jnp.moveaxis(x, len(axes), 0) for x, axes in zip(arrays[rows:], inner[rows:], strict=True)]
        inside = _Inside(self, form.condition if equation.eqn.primitive is _compat.while_p else None, wanted)
        outs = list(form.run_local(inside, arrays)[0])
        outs[columns:] = [
            jnp.moveaxis(x, 0, len(axes)) for x, axes in zip(outs[columns:], wanted[columns:], strict=True)
        ]
        return [Held(x, PartitionSpec(*axes), axes) for x, axes in zip(outs, wanted, strict=True)]

    def _check_shared(self, equation: Equation, value: Value, what: str) -> None:
        if axes := self.axes_of(value):
            site = next(e for e in equation.everything() if e.eqn.primitive is sample_p)
            raise NotImplementedError(
                f"mcgrad cannot differentiate the draw at {site.line}: it is inside a `{equation.name}` at {equation.line} that "
                f"{what} along the mesh axis {axes[0]!r}, in a `shard_map` of the program. Draw outside of it and choose by "
                "`jnp.where`, use a `scan` with a bound, or put the `shard_map` around `mcgrad.grad`."
            )

    def _with_axes(self, held: Held, wanted: tuple[Any, ...]) -> Any:
        """A stacked value with further mesh axes in front, along which it is the same."""
        x, axes = jnp.asarray(held.array), _axes(held)
        if axes == wanted:
            return x
        x = jnp.expand_dims(x, [k for k, axis in enumerate(wanted) if axis not in axes])
        return jnp.broadcast_to(x, (*(self.view.axes[axis] for axis in wanted), *x.shape[len(wanted) :]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Inside:
    """What control flow inside a `shard_map` is rebuilt with: its bodies are run in parts, and their outputs have these axes."""

    shards: Shards
    condition: Program | None
    results: Sequence[tuple[Any, ...]]

    def body(self, body: Program, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        outs = self.shards.inside(body, inputs)
        if body is self.condition:
            return [held.array for held in outs], []
        return list(map(self.shards._with_axes, outs, self.results)), []


class _Differing(Forward[frozenset[Any]]):
    """The domain of mesh axes along which values may differ, where JAX does not check them."""

    nothing = frozenset()

    def __init__(self, view: ShardView):
        super().__init__()
        of_spec = [{name for entry in spec for name in _mesh.names_of(entry)} for spec in view.specs[0]]
        self.run(view.body, [frozenset(names & view.axes.keys()) for names in of_spec])

    def apply(self, equation: Equation, inputs: list[frozenset[Any]]) -> list[frozenset[Any]]:
        named = frozenset(axis for inner in equation.everything() for axis in _mesh.collective_axes(inner.eqn))
        found = frozenset().union(*inputs)
        shared = equation.name in _SHARED and not equation.eqn.params.get("axis_index_groups")
        return [found - named if shared else found | named] * len(equation.outputs)

    def draw(self, equation: Equation, inputs: list[frozenset[Any]]) -> list[frozenset[Any]]:
        of_draw = inputs[: len(Site(equation).parameters) + 1]
        return [frozenset().union(*of_draw)] * len(equation.outputs)

    def join(self, parts: Sequence[frozenset[Any]], value: Value, cause: Equation) -> frozenset[Any]:
        return frozenset().union(*parts)

    def leave_last(self, fact: frozenset[Any], value: Value, scan: Equation) -> frozenset[Any]:
        body = scan.bodies[0]
        carried = ScanView(scan).split(body.inputs)[1]
        starts = [self.of(start) for start, end in zip(carried, body.outputs, strict=False) if end is value]
        return fact.union(*starts)


_SHARED = frozenset({"psum", "pmax", "pmin", "psum_invariant", "all_gather", "all_gather_invariant"})
"""Collectives whose results are the same on all devices."""


def _of_constant(value: Constant) -> Held:
    return Held(_mesh.plain(value.value, value.aval) if value.literal else value.value, PartitionSpec(), ())


def _axes(held: Held) -> tuple[Any, ...]:
    return held.axes or ()


def _front(axes: tuple[Any, ...] | None) -> tuple[int, ...]:
    return tuple(range(len(axes or ())))


def _draws(equation: Equation) -> bool:
    return equation.eqn.primitive is sample_p or any(map(has_site, equation.bodies))


def refuse_draw(equation: Equation) -> None:
    """Refuse a draw inside an operation that cannot be rebuilt around it."""
    site = next(e for e in equation.everything() if e.eqn.primitive is sample_p)
    reason, around = "it cannot be rebuilt", ""
    if "custom" in equation.name:
        reason = "a custom derivative rule does not see the draw"
    elif equation.name == _compat.SHARD_MAP:
        reason, around = "it is inside another one", ", or map over the axes of both by one `jax.shard_map`"
    at = f" at {equation.line}" if equation.line else ""
    raise NotImplementedError(
        f"mcgrad cannot differentiate the draw at {site.line}, inside `{equation.name}`{at}: {reason}. Draw outside of it and "
        f"pass the value in{around}."
    )
