"""Modules as arguments: which leaves are arrays, which have a derivative, and state that a program changes in place.

Equinox and Flax are recognized, never imported: whoever passes their modules has done so.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad._types import PyTree


def is_variable(x: Any) -> bool:
    """Whether this is a module of Flax NNX, or another of its objects, whose variables a program may change in place."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(x, (nnx.Pytree, nnx.Variable))


def is_sequence(x: Any) -> bool:
    """Whether this is Haiku's endless sequence of keys, which is made from a key."""
    haiku = sys.modules.get("haiku")
    return haiku is not None and isinstance(x, haiku.PRNGSequence)


def _is_equinox(x: Any) -> bool:
    equinox = sys.modules.get("equinox")
    return equinox is not None and isinstance(x, equinox.Module)


_AS_IT_IS = object()


def partition(tree: Any, *, inexact: bool = False) -> tuple[list[Any], Callable[..., Any]]:
    """The arrays and numbers in a tree, or those with a derivative, and a function that puts others in their places.

    In Equinox's modules numbers of Python are settings, not arrays; other leaves, such as functions, are never arrays. The
    function takes arrays, and `beside`, with which it replaces all other leaves; these stay as they are by default.
    """

    def marks(node: Any) -> Any:
        numbers = not _is_equinox(node)
        return jax.tree.map(lambda leaf: _is_array(leaf, inexact, numbers), node)

    leaves, structure = jax.tree.flatten(tree)
    chosen = jax.tree.leaves(jax.tree.map(marks, tree, is_leaf=_is_equinox))

    def put(arrays: Sequence[Any], beside: Any = _AS_IT_IS) -> Any:
        given = iter(arrays)
        other = leaves if beside is _AS_IT_IS else [beside] * len(leaves)
        new = [next(given) if is_array else leaf for is_array, leaf in zip(chosen, other, strict=True)]
        return jax.tree.unflatten(structure, new)

    return [leaf for is_array, leaf in zip(chosen, leaves, strict=True) if is_array], put


def _is_array(leaf: Any, inexact: bool, numbers: bool) -> bool:
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic)):
        return numbers and isinstance(leaf, (float, complex) if inexact else (bool, int, float, complex))
    return not inexact or bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def differentiate(
    transform: Literal["grad", "value_and_grad"], fn: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool
) -> Callable[..., Any]:
    """`jax.grad` or `jax.value_and_grad` that passes over leaves without a derivative: their place in the gradient is `None`.

    For modules of Flax NNX those of `flax.nnx`, which differentiate in the parameters and keep what the program changes.
    """
    plain = getattr(jax, transform)(fn, argnums, has_aux=has_aux)

    @functools.wraps(fn)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        if any(map(is_variable, jax.tree.leaves((args, kwargs), is_leaf=is_variable))):
            return getattr(sys.modules["flax.nnx"], transform)(fn, argnums=argnums, has_aux=has_aux)(*args, **kwargs)
        numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        if any(not -len(args) <= n < len(args) for n in numbers):
            return plain(*args, **kwargs)  # JAX says what is wrong
        parts = [partition(args[n], inexact=True) for n in numbers]
        for n, (arrays, _) in zip(numbers, parts, strict=True):
            if not arrays and (others := jax.tree.leaves(args[n])):
                kinds = ", ".join(dict.fromkeys(str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in others))
                raise TypeError(
                    f"`mcgrad.{transform}(argnums=...)` must name arguments with floating-point numbers in them, got {kinds} for "
                    f"{n}. Convert them to floats, or name another argument."
                )
        if all(len(arrays) == len(jax.tree.leaves(args[n])) for n, (arrays, _) in zip(numbers, parts, strict=True)):
            return plain(*args, **kwargs)

        def of_arrays(arrays: Sequence[Any]) -> Any:
            full = list(args)
            for n, own, (_, put) in zip(numbers, arrays, parts, strict=True):
                full[n] = put(own)
            return fn(*full, **kwargs)

        found = getattr(jax, transform)(of_arrays, has_aux=has_aux)([arrays for arrays, _ in parts])

        def with_none(gradients: Any) -> Any:
            trees = tuple(put(own, beside=None) for own, (_, put) in zip(gradients, parts, strict=True))
            return trees[0] if isinstance(argnums, int) else trees

        if transform == "value_and_grad":
            return found[0], with_none(found[1])
        return (with_none(found[0]), found[1]) if has_aux else with_none(found)

    return differentiated


def jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of a function whose arguments may hold other leaves than arrays, such as functions; these are static."""

    @functools.partial(jax.jit, static_argnums=0)
    def of_arrays(rest: _Static, arrays: Sequence[Any]) -> Any:
        args, kwargs = rest.put(arrays)
        return fn(*args, **kwargs)

    jitted: Any = functools.wraps(fn)(lambda *args, **kwargs: of_arrays(*_static_and_arrays(args, kwargs)))
    jitted.lower = lambda *args, **kwargs: of_arrays.lower(*_static_and_arrays(args, kwargs))
    return jitted


def eval_shape(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`jax.eval_shape` of such a function."""
    rest, arrays = _static_and_arrays(args, kwargs)

    def of_arrays(arrays: Sequence[Any]) -> Any:
        args, kwargs = rest.put(arrays)
        return fn(*args, **kwargs)

    return jax.eval_shape(of_arrays, arrays)


@dataclasses.dataclass(frozen=True)
class _Static:
    """What is no array in some arguments, equal for equal structures and leaves."""

    leaves: tuple[Any, ...]
    structure: Any
    graph: Any
    put: Callable[[Sequence[Any]], Any] = dataclasses.field(compare=False)


def _static_and_arrays(args: Any, kwargs: Any) -> tuple[_Static, list[Any]]:
    held = _Held.of((args, kwargs))
    arrays, put = partition(held.tree)
    leaves, structure = jax.tree.flatten(put([None] * len(arrays)), is_leaf=lambda leaf: leaf is None)
    if any(map(is_sequence, leaves)):
        raise TypeError(
            "Diagnostics are compiled and must get a key, got Haiku's `PRNGSequence`. Pass `next(sequence)`."
        )
    return _Static(tuple(leaves), structure, held.graph, lambda arrays: held.merge(put(arrays))[0]), arrays


@dataclasses.dataclass(frozen=True)
class Variables(PyTree):
    """The variables of a module, in its place among the arguments of a call."""

    arrays: tuple[Any, ...]


def is_variables(x: Any) -> bool:
    """Whether this stands for a module."""
    return isinstance(x, Variables)


@dataclasses.dataclass(frozen=True)
class _Held:
    """A tree with `Variables` in place of modules of Flax NNX.

    Attributes:
        tree: that tree.
        nodes: the modules.
        graph: their structure; `None` if there are none.
        state: that of their variables.
    """

    tree: Any
    nodes: list[Any]
    graph: Any
    state: Any

    @classmethod
    def of(cls, tree: Any) -> _Held:
        nodes = [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_variable) if is_variable(leaf)]
        if not nodes:
            return cls(tree, [], None, None)
        graph, state = sys.modules["flax.nnx"].split(nodes)  # together, since they may share variables
        number = iter(range(len(nodes)))

        def held(leaf: Any) -> Any:
            if not is_variable(leaf):
                return leaf
            return Variables(tuple(jax.tree.leaves(state[n]) if (n := next(number)) in state else ()))

        return cls(jax.tree.map(held, tree, is_leaf=is_variable), nodes, graph, jax.tree.structure(state))

    def arrays(self, tree: Any) -> list[Any]:
        """The variables in a tree like `tree`."""
        held = [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_variables) if is_variables(leaf)]
        return [array for leaf in held for array in leaf.arrays]

    def merge(self, tree: Any) -> tuple[Any, list[Any]]:
        """A tree like `tree` with modules of its own in place of its variables; and these modules."""
        if not self.nodes:
            return tree, []
        nodes = sys.modules["flax.nnx"].merge(self.graph, jax.tree.unflatten(self.state, self.arrays(tree)))
        own = iter(nodes)
        put = lambda leaf: next(own) if is_variables(leaf) else leaf  # noqa: E731
        return jax.tree.map(put, tree, is_leaf=is_variables), nodes


def copied(tree: Any) -> Any:
    """A tree with copies of its modules, which a program may change where it is traced."""
    held = _Held.of(tree)
    return held.merge(held.tree)[0]


@dataclasses.dataclass(frozen=True)
class Pure:
    """A call of a program on modules that it may change, as one of a function that changes none.

    Attributes:
        fn: returns what the program returns, and the variables that it changed: a pair `(costs, (aux, changed))`.
        args: of the call, with `Variables` in place of modules.
        kwargs: likewise.
        update: writes what changed, with a leading axis of samples if these are `several`, into the modules.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    update: Callable[..., None]

    def without_state(self) -> Any:
        """The costs and the auxiliary output of the call."""
        costs, (aux, _) = self.fn(*self.args, **self.kwargs)
        return costs, aux


def pure(fn: Callable[..., Any], args: Any, kwargs: Any, has_aux: bool) -> Pure | None:
    """A call as one that changes nothing; `None` if there is no module of Flax NNX among its arguments."""
    held = _Held.of((args, kwargs))
    if not held.nodes:
        return None
    nnx: Any = sys.modules["flax.nnx"]

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = held.arrays((args, kwargs))
        (args, kwargs), nodes = held.merge((args, kwargs))
        costs, aux = split_output(fn(*args, **kwargs), has_aux)
        after, structure = jax.tree.flatten(nnx.split(nodes)[1])
        if structure != held.state:
            raise NotImplementedError(
                "The program of `mcgrad.expectation` must keep the variables of the modules that it gets, got other ones "
                f"after `{getattr(fn, '__name__', type(fn).__name__)}`. Make them before, for instance by one plain call."
            )
        return costs, (aux, {i: new for i, (new, old) in enumerate(zip(after, before, strict=True)) if new is not old})

    def update(changed: dict[int, Any], several: bool) -> None:
        def one(new: Any) -> Any:
            if not several:
                return new
            # Running averages become those of all samples together, counters move on once.
            return jnp.mean(new, axis=0) if jnp.issubdtype(new.dtype, jnp.inexact) else new[0]

        found = [one(changed[i]) if i in changed else old for i, old in enumerate(held.arrays(held.tree))]
        nnx.update(held.nodes, jax.tree.unflatten(held.state, found))

    return Pure(call, *held.tree, update)


def split_output(out: Any, has_aux: bool) -> tuple[Any, Any]:
    """The costs and the auxiliary output of a program; refuses what is no pair of them."""
    if not has_aux:
        return out, ()
    if not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError(f"With `has_aux=True` the program must return a pair `(costs, aux)`, got {type(out).__name__}.")
    return out
