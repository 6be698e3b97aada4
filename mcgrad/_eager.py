"""A word to those who call transforms in a loop without `jax.jit`."""

from __future__ import annotations

import collections
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad._arguments import is_key, name_of


class EagerWarning(UserWarning):
    """The same function was run many times without `jax.jit`: it is traced and planned anew at each call, which is slow."""


def count_call(fn: Callable[..., Any], key: Any) -> None:
    """Count a call that no `jax.jit` is around; warn once, at the hundredth of a function."""
    keys = jax.tree.leaves(key)
    if not keys or isinstance(keys[0], _compat.Tracer):
        return
    # What is computed of an array under `jit` is traced, though the array is not; under `grad` alone it is not.
    made = jax.random.key_data(keys[0]) if is_key(keys[0]) else jnp.negative(keys[0])
    if isinstance(made, _compat.Tracer):
        return
    own = inspect.unwrap(fn)
    code = getattr(own, "__code__", type(own))  # also that of a function which is defined anew for each call
    _CALLS[code] += 1
    if _CALLS[code] == _MANY:
        warnings.warn(
            f"`{name_of(fn)}` has been run {_MANY} times without `jax.jit`: each call traces the program and plans it anew, which "
            "takes tens of milliseconds. Compile the whole step once, `step = jax.jit(mcgrad.grad(program))`, and call that.",
            EagerWarning,
            stacklevel=2,
        )


_CALLS: collections.Counter[Any] = collections.Counter()

_MANY = 100
"""Calls after which there is a loop: they have taken some seconds, and compiling takes less."""
