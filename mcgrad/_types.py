"""Types shared by every layer: aliases for signatures, and the base class that makes a frozen dataclass a pytree."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import jax
from jaxtyping import Array, Key

PRNGKey: TypeAlias = Key[Array, ""]
"""A typed key, as `jax.random.key` makes it."""

Shape: TypeAlias = tuple[int, ...]


def static_field(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree structure: hashable, never traced, never differentiated."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


class PyTree:
    """Base of frozen dataclasses that are pytrees; a subclass needs no registration.

    Fields are children, except those declared with `static_field` and those that hold a string or a function (an option such
    as `"leave_one_out"` where an array would do too); a callable that is itself a pytree, such as `jax.tree_util.Partial`, is
    a child. Rebuilding from leaves skips `__init__`, so that a gradient with
    the structure of a distribution, or one whose leaves are placeholders, is never checked as if it were parameters.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, lambda aux, leaves: _unflatten(cls, aux, leaves)
        )


def _flatten_with_keys(node: Any):
    children, static = [], []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        option = isinstance(value, str) or (callable(value) and jax.tree_util.all_leaves([value]))
        if field.metadata.get("static") or option:
            static.append((field.name, value))
        else:
            children.append((jax.tree_util.GetAttrKey(field.name), value))
    names = tuple(key.name for key, _ in children)
    return children, (names, tuple(static))


def _unflatten(cls: type, aux: Any, children: Any) -> Any:
    names, static = aux
    node = object.__new__(cls)
    for name, value in (*zip(names, children, strict=True), *static):
        object.__setattr__(node, name, value)
    return node
