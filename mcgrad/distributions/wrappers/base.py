"""The base of distributions made of another one."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax

from mcgrad._types import PyTree, Shape, static_field
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.derivatives.pathwise_check import name_of, pathwise_obstacle


@dataclasses.dataclass(frozen=True)
class _Other(PyTree):
    """A leaf that is no array, such as a function in a module, as a part of the tree's structure."""

    leaf: Any = static_field()


def as_arrays(tree: Any) -> Any:
    """Parameters whose leaves are arrays; functions, and integers in modules, become part of the tree's structure."""
    if type(tree) in (tuple, list):
        return type(tree)(map(as_arrays, tree))
    if type(tree) is dict:
        return {name: as_arrays(value) for name, value in tree.items()}
    settings = (str,) if jax.tree_util.all_leaves([tree]) else (str, bool, int)  # of a module: its shapes
    return jax.tree.map(lambda leaf: _Other(leaf) if callable(leaf) or isinstance(leaf, settings) else leaf, tree)


def of_whole(fn: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A function of `(x, *params)` that gets the other leaves of its parameters back; see `as_arrays`."""
    if fn is None or not callable(fn):
        return fn

    def called(x: Any, *params: Any) -> Any:
        is_other = lambda node: isinstance(node, _Other)  # noqa: E731
        whole = jax.tree.map(lambda node: node.leaf if is_other(node) else node, params, is_leaf=is_other)
        return fn(x, *whole)

    called.__name__ = getattr(fn, "__name__", type(fn).__name__)
    return called


class Wrapper(Distribution, abc.ABC):
    """Base of distributions made of another one, whose shapes and facts they have where they do not say otherwise."""

    @property
    @abc.abstractmethod
    def _inner(self) -> Any:
        """The distribution that this one is made of."""

    @property
    def law(self) -> str:
        return f"{type(self).__name__}({name_of(self._inner)})"

    @property
    def batch_shape(self) -> Shape:
        return tuple(self._inner.batch_shape)

    @property
    def event_shape(self) -> Shape:
        return tuple(self._inner.event_shape)

    @property
    def event_ndim(self) -> int:
        return len(self.event_shape)

    @property
    def discrete(self) -> bool:
        return bool(getattr(self._inner, "discrete", False))

    @property
    def support_parameters(self) -> tuple[str, ...]:
        return tuple(getattr(self._inner, "support_parameters", ()))

    @property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        return pathwise_obstacle(self._inner)

    @property
    def reparameterized(self) -> bool:
        """Whether the derivative of `sample` is right."""
        return self.pathwise_obstacle is None


def of_inner(also: Callable[[Any], bool] = lambda dist: True) -> Callable[[FunctionType], property]:
    """A method that a wrapper has where the inner distribution knows the one of that name, and `also` holds; else `None`."""

    def decorate(method: FunctionType) -> property:
        def known(self: Wrapper) -> Any:
            knows = callable(getattr(self._inner, method.__name__, None)) and also(self)
            return functools.partial(method, self) if knows else None

        return property(known, doc=f"{method.__doc__} `None` where it is not known.")

    return decorate


def leaf_names(tree: Any, prefix: str = "") -> list[str]:
    """Names of the leaves of a tree, as its user would write them."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return [(prefix + path).lstrip(".") for path in paths]
