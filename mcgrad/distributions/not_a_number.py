"""NaN in, NaN out, and no quantiles of what is no probability, whatever the comparisons in a method make of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from mcgrad.distributions.numerics.arithmetic import align

_OF_DRAWS = ("log_prob", "prob")
_OF_NUMBERS = ("cdf", "survival")


def keep_nan(cls: type) -> None:
    """Let the densities and distribution functions that a class defines be NaN at NaN, and quantiles NaN outside [0, 1]."""
    for name in (*_OF_DRAWS, *_OF_NUMBERS, "icdf"):
        method = vars(cls).get(name)
        if inspect.isfunction(method):
            kept = _of_probabilities(method) if name == "icdf" else _keeping(method, of_draws=name in _OF_DRAWS)
            setattr(cls, name, kept)


def _keeping(method: Callable[[Any, Any], Array], *, of_draws: bool) -> Callable[[Any, ArrayLike], Array]:
    @functools.wraps(method)
    def kept(self: Any, x: ArrayLike) -> Array:
        value = method(self, x)
        if self.keeps_nan or not jax.tree_util.all_leaves([x]) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            return value
        unknown = jnp.isnan(x)
        if of_draws and self.event_ndim:
            unknown = jnp.any(unknown, axis=tuple(range(-self.event_ndim, 0)))
        if len(np.broadcast_shapes(unknown.shape, value.shape)) > value.ndim:
            return value  # of a wrong shape, as `check_distribution` tells
        return _unless(unknown, value)

    return kept


def _of_probabilities(method: Callable[[Any, Any], Array]) -> Callable[[Any, ArrayLike], Array]:
    @functools.wraps(method)
    def icdf(self: Any, u: ArrayLike) -> Array:
        value, u = method(self, u), jnp.asarray(u)
        return value if self.keeps_nan else _unless(~((u >= 0) & (u <= 1)), value)

    return icdf


def _unless(unknown: Array, value: Array) -> Array:
    unknown, value = align(unknown, value)
    nothing = jnp.nan if jnp.issubdtype(value.dtype, jnp.floating) else -1
    return jnp.where(unknown, jnp.asarray(nothing, value.dtype), value)
