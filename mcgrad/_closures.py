"""Functions that close over arrays, as their operations: what they close over becomes leaves of a pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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

    @classmethod
    def of(cls, fn: Callable[[Any], Any], argument: Any) -> Closed:
        """A function, for arguments of the types of this one."""
        jaxpr, arrays, tree = _compat.closed(fn, argument)
        return cls(tuple(arrays), jaxpr, tree)

    def __call__(self, argument: Any) -> Any:
        return jax.tree.unflatten(self.tree, _compat.evaluate(self.jaxpr, [*self.arrays, *jax.tree.leaves(argument)]))

    @property
    def result(self) -> Any:
        """A placeholder of what it returns."""
        structs = [_mesh.placeholder(out.aval) for out in self.jaxpr.outvars]
        return jax.tree.unflatten(self.tree, structs)
