"""Distributions with parameters of 16 bits: computed in float32, with results in the dtype of the parameters.

A uniform number of 8 bits has no tails, a sum of gamma functions no digits left, and a draw of the largest of a thousand Gumbel
numbers ties. So each method sees parameters and values in float32, and what it returns is rounded at its end.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_HALVES = (jnp.bfloat16, jnp.float16)
_FUNCTIONS = ("log_prob", "prob", "cdf", "survival", "icdf", "optimal_transport", "moments", "marginals")
_DRAWS = ("sample", "weak_derivative", "relaxation", "noise", "adaptive_velocity")


def in_single(tree: Any) -> Any:
    """A tree, for instance a distribution, with its leaves of 16 bits in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if _is_half(leaf) else leaf, tree)


def widened(dist: Any) -> Any:
    """A distribution whose densities are not rounded, if it can be had."""
    return in_single(dist) if getattr(dist, "rounds_at_the_end", False) else dist


def compute_in_single(cls: type) -> None:
    """Let the methods that a class of distributions defines compute in float32 where its parameters have 16 bits."""
    for name in (*_FUNCTIONS, *_DRAWS):
        method = vars(cls).get(name)
        if inspect.isfunction(method):
            setattr(cls, name, _in_single(method, _round_draw if name in _DRAWS else _round))


def _in_single(method: Callable[..., Any], round_to: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        halves = [leaf.dtype for leaf in jax.tree.leaves(self) if _is_half(leaf)]
        if not halves or not self.rounds_at_the_end:
            return method(self, *args, **kwargs)
        floating = [leaf for leaf in jax.tree.leaves((self, args, kwargs)) if _is_floating(leaf)]
        dtype = jnp.result_type(*halves, *floating)
        args, kwargs = in_single((args, kwargs))
        out = method(in_single(self), *args, **kwargs)
        return jax.tree.map(lambda leaf: round_to(leaf, dtype), out) if dtype in _HALVES else out

    return computed


def _round(leaf: Any, dtype: Any) -> Any:
    return leaf.astype(dtype) if getattr(leaf, "dtype", None) == jnp.float32 else leaf


def _round_draw(leaf: Any, dtype: Any) -> Any:
    """Rounded, but not out of the positive numbers, below one, or the finite ones: where a support may end."""
    if getattr(leaf, "dtype", None) != jnp.float32:
        return leaf
    info = jnp.finfo(dtype)
    largest = float(info.max)
    x = jnp.clip(leaf, -largest, largest).astype(dtype)
    below_one = jnp.asarray(1 - float(info.epsneg), dtype)
    least = jnp.sign(leaf).astype(dtype) * info.smallest_subnormal if dtype == jnp.float16 else x
    inside = jnp.where((x == 0) & (leaf != 0), least, jnp.where((x == 1) & (leaf < 1), below_one, x))
    return x + jax.lax.stop_gradient(inside - x)


def _is_half(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) in _HALVES


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, (bool, int, float)):
        return True
    return hasattr(leaf, "dtype") and any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.floating, np.integer))
