"""Domains of parameters, and checks that refuse values outside of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad._arguments import describe
from mcgrad._debug import check_when_run
from mcgrad._types import Shape


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a parameter may take.

    Attributes:
        text: what the parameter must be, as error messages say it.
        holds: elementwise test of concrete values; false for NaN.
        advice: what to pass instead.
        event_ndim: how many trailing axes of the parameter are no batch axes.
    """

    text: str
    holds: Callable[[np.ndarray], np.ndarray]
    advice: str
    event_ndim: int = 0


REAL = Domain("be finite", np.isfinite, "Look for the NaN or the overflow that made it.")

POSITIVE = Domain(
    "be positive and finite",
    lambda v: (v > 0) & np.isfinite(v),
    "Pass a value above zero, for instance `jnp.exp(x)` or `jax.nn.softplus(x)`.",
)

NONNEGATIVE = Domain(
    "be at least zero and finite",
    lambda v: (v >= 0) & np.isfinite(v),
    "Pass a value that is not below zero, for instance `jax.nn.softplus(x)`.",
)

PROBABILITY = Domain(
    "lie between 0 and 1",
    lambda v: (v >= 0) & (v <= 1),
    "Pass a probability, or unconstrained values as `logits=`.",
)

LOG_ODDS = Domain("not be NaN", lambda v: ~np.isnan(v), "Look for what made it.")
_COUNT = Domain("be at least zero", lambda v: v >= 0, "Pass the number of trials.")


def check_domain(law: str, name: str, value: Any, domain: Domain) -> None:
    """Refuse a concrete parameter with entries outside its domain."""
    if isinstance(value, _compat.Tracer):
        return check_when_run(lambda values: check_domain(law, name, values, domain), value)
    values = np.asarray(value)
    holds = np.broadcast_to(domain.holds(values), values.shape)
    if not holds.all():
        index = tuple(int(i) for i in np.argwhere(~holds)[0])
        place = f" at index {index}" if index else ""
        raise ValueError(
            f"`mcgrad.{law}({name}=...)` must {domain.text}, got {values[index].item()!r}{place}. {domain.advice}"
        )


def check_one_of(law: str, **given: Any) -> None:
    """Refuse a distribution that does not get exactly one of its alternative parameters."""
    passed = [name for name, value in given.items() if value is not None]
    if len(passed) != 1:
        options = " or ".join(f"`{name}=`" for name in given)
        got = " and ".join(f"`{name}=`" for name in passed) or "neither"
        raise ValueError(f"`mcgrad.{law}(...)` must get exactly one of {options}, got {got}. Pass one of them.")


def check_shapes(law: str, shapes: Mapping[str, tuple[Shape, int]]) -> None:
    """Refuse parameters, given as `(shape, number of event axes)`, whose batch shapes do not broadcast."""
    for name, (shape, event_ndim) in shapes.items():
        if len(shape) < event_ndim:
            raise ValueError(
                f"`mcgrad.{law}({name}=...)` must have at least {event_ndim} axes, got shape {shape}. "
                f"Its last {event_ndim} axes belong to one draw; those before are batch axes."
            )
    try:
        jnp.broadcast_shapes(*(shape[: len(shape) - event_ndim] for shape, event_ndim in shapes.values()))
    except ValueError as error:
        described = ", ".join(f"{name} {shape}" for name, (shape, _) in shapes.items())
        raise ValueError(
            f"`mcgrad.{law}(...)` must get parameters whose batch shapes broadcast, got {described}. "
            "Add axes of size one where they should broadcast, for instance `scale[:, None]`."
        ) from error


def check_interval(law: str, low: Any, high: Any) -> None:
    """Refuse concrete ends of an interval of which the upper is not above the lower."""
    if isinstance(low, _compat.Tracer) or isinstance(high, _compat.Tracer):
        return check_when_run(functools.partial(check_interval, law), low, high)
    low, high = np.broadcast_arrays(np.asarray(low), np.asarray(high))
    if not (low < high).all():
        index = tuple(int(i) for i in np.argwhere(~(low < high))[0])
        raise ValueError(
            f"`mcgrad.{law}(high=...)` must be above `low`, got low {low[index].item()!r} and high {high[index].item()!r}. "
            "Swap them, or pass `low + width` with a positive width."
        )


def check_trials(law: str, count: Any) -> None:
    """Refuse a `total_count` that is no number of trials."""
    if isinstance(count, bool) or not jnp.issubdtype(getattr(count, "dtype", type(count)), jnp.integer):
        raise TypeError(
            f"`mcgrad.{law}(total_count=...)` must be an integer or an array of integers, got {count!r}. "
            "Convert it with `jnp.asarray(n, int)`."
        )
    check_domain(law, "total_count", count, _COUNT)


def check_factor(law: str, scale_tril: Any) -> None:
    """Refuse a concrete `scale_tril` that is not square, lower triangular and with a positive diagonal."""
    if scale_tril.shape[-1] != scale_tril.shape[-2]:
        raise ValueError(
            f"`mcgrad.{law}(scale_tril=...)` must be square, got shape {scale_tril.shape}. "
            "Pass `jnp.linalg.cholesky(covariance)`."
        )
    if isinstance(scale_tril, _compat.Tracer):
        return check_when_run(functools.partial(check_factor, law), scale_tril)
    concrete = np.asarray(scale_tril)
    if (np.triu(concrete, 1) != 0).any() or not (np.diagonal(concrete, axis1=-2, axis2=-1) > 0).all():
        raise ValueError(
            f"`mcgrad.{law}(scale_tril=...)` must be lower triangular with a positive diagonal, "
            f"got {concrete.tolist() if concrete.size <= 16 else 'another matrix'}. "
            "Pass `jnp.linalg.cholesky(covariance)`."
        )


def check_positional(cls: type, args: tuple[Any, ...]) -> None:
    """Refuse alternative parameters without their names."""
    fields = [field for field in dataclasses.fields(cls) if field.init] if dataclasses.is_dataclass(cls) else []
    named = [field.name for field in fields if field.kw_only and not field.metadata.get("static")]
    first = [field.name for field in fields if not field.kw_only]
    if named and len(args) > len(first):
        options = " or ".join(f"`{name}=`" for name in named)
        raise TypeError(
            f"`mcgrad.{cls.__name__}(...)` must get {options} by name, got {describe(args[len(first)])}. Pass for instance "
            f"`mcgrad.{cls.__name__}({', '.join([*first, f'{named[0]}=...'])})`."
        )


def as_parameter(law: str, name: str, value: Any) -> Any:
    """A parameter, a list or tuple as an array; refuses what is no real number or array."""
    if isinstance(value, (list, tuple)) and all(map(is_real_array, jax.tree.leaves(value))):
        with contextlib.suppress(TypeError, ValueError):  # to be refused
            value = jnp.asarray(value)
    if not is_real_array(value):
        raise TypeError(
            f"`mcgrad.{law}({name}=...)` must be a real number or array, got {type(value).__name__}: {value!r}. Convert it with "
            "`jnp.asarray`."
        )
    return value


def is_real_array(value: Any) -> bool:
    if isinstance(value, (bool, int, float)):
        return True
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    is_array = isinstance(value, (np.ndarray, np.generic, jax.Array))
    return is_array and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def common_dtype(values: Any) -> Any:
    dtype = jnp.result_type(*values)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(dtype, float)
