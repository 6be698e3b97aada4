"""Functions that close over arrays, as their operations: what they close over becomes leaves of a pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mcgrad import _compat, _mesh
from mcgrad._types import PyTree, static_field


@dataclasses.dataclass(frozen=True)
class Closed(PyTree):
    """A function of one argument as its operations, with the arrays that it closed over as leaves."""

    arrays: tuple[jax.Array, ...]
    jaxpr: Any = static_field()
    tree: Any = static_field()
    mesh: Any = static_field()

    @classmethod
    def of(cls, fn: Callable[[Any], Any], argument: Any) -> Closed:
        """A function, for arguments of the types of this one."""
        jaxpr, arrays, tree = _compat.closed(fn, argument)
        return cls(tuple(arrays), jaxpr, tree, jax.sharding.get_abstract_mesh())

    def __call__(self, argument: Any) -> Any:
        values = [*self.arrays, *jax.tree.leaves(argument)]
        here = self.mesh == jax.sharding.get_abstract_mesh()
        results = _compat.evaluate(self.jaxpr, values) if here else _outside(self.jaxpr, values)
        return jax.tree.unflatten(self.tree, results)

    @property
    def result(self) -> Any:
        """A placeholder of what it returns."""
        structs = [_mesh.placeholder(out.aval) for out in self.jaxpr.outvars]
        return jax.tree.unflatten(self.tree, structs)


def _outside(jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    """The results of a function that was traced inside a `shard_map`, under another mesh, such as that outside of it."""
    opened, constants = _compat.open_jaxpr(jaxpr)
    env = dict(zip((*opened.constvars, *opened.invars), (*constants, *values), strict=True))

    def read(atom: Any) -> Any:
        return _mesh.plain(atom.val, atom.aval) if isinstance(atom, _compat.Literal) else env[atom]

    for eqn in opened.eqns:
        operands = list(map(read, eqn.invars))
        if axes := _mesh.collective_axes(eqn):
            raise NotImplementedError(
                f"mcgrad cannot run `{eqn.primitive.name}` at {_compat.user_line(eqn)}, along the mesh axis {axes[0]!r}, in a "
                "function of a draw inside a `shard_map` of the program. Compute it before the draw, and close over the value."
            )
        if _mesh.named_axes(eqn):
            outs = operands
        elif not _compat.sub_jaxprs(eqn):
            outs = _compat.bind(eqn, operands)
        else:
            given = (x for v, x in zip(eqn.invars, operands, strict=True) if not isinstance(v, _compat.Literal))
            outs = _compat.evaluator(_compat.with_bodies(eqn, _retraced), opened)(*given)
        env.update(zip(eqn.outvars, outs, strict=True))
    return list(map(read, opened.outvars))


def _retraced(jaxpr: Any) -> Any:
    opened, _ = _compat.open_jaxpr(jaxpr)
    avals: Any = [v.aval for v in opened.invars]
    types = [jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=v.weak_type) for v in avals]
    return _compat.trace_on(lambda *values: _outside(jaxpr, values), types)
