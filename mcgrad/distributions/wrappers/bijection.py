"""Invertible functions from plain functions of a user."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PyTree


@dataclasses.dataclass(frozen=True, init=False)
class FunctionBijection(PyTree):
    """Base of the classes that `bijection` makes. Its instances hold the parameters.

    Attributes:
        params: the parameters, each any pytree.
    """

    params: tuple[Any, ...]

    functions: ClassVar[dict[str, Callable[..., Any] | None]]
    event_ndim: ClassVar[int]
    keeps_support: ClassVar[bool]

    def __init__(self, *params: Any) -> None:
        object.__setattr__(self, "params", params)

    def forward(self, x: Array) -> Array:
        """`f(x)`."""
        return self._call("forward", x)

    @property
    def inverse(self) -> Any:
        """The inverse function, or `None`."""
        return None if self.functions["inverse"] is None else functools.partial(self._call, "inverse")

    def log_det_jacobian(self, x: Array) -> Array:
        """`log |df/dx|` at `x`, of the shape of `x` without the `event_ndim` last axes."""
        if self.functions["log_det_jacobian"] is not None:
            return self._call("log_det_jacobian", x)
        if self.event_ndim == 0:
            return jnp.log(jnp.abs(slope(self.forward, x)))
        directions = jnp.eye(x.shape[-1], dtype=x.dtype)
        along = lambda e: jax.jvp(self.forward, (x,), (jnp.broadcast_to(e, x.shape),))[1]  # noqa: E731
        return jnp.linalg.slogdet(jax.vmap(along, out_axes=-1)(directions))[1]  # of [*batch, d, d]

    def _call(self, name: str, x: Array) -> Any:
        fn: Any = self.functions[name]
        return fn(x, *self.params)


def bijection(
    forward: Callable[..., Array],
    inverse: Callable[..., Array] | None = None,
    log_det_jacobian: Callable[..., Array] | None = None,
    event_ndim: int = 0,
    *,
    keeps_support: bool = False,
) -> type[FunctionBijection]:
    """A class of invertible functions for `Transformed`; its instances take the parameters.

    Args:
        forward: `forward(x, *params)`, differentiable, of the shape of `x`.
        inverse: `inverse(y, *params)`; without it there is no log density, so only pathwise estimators. NaN for what `forward`
            never returns.
        log_det_jacobian: `log_det_jacobian(x, *params)` of `forward` at `x`; by default from `event_ndim + 1` kinds of its
            derivatives: one where `forward` is elementwise, one a dimension where it is not.
        event_ndim: 0 for elementwise functions, 1 for functions of vectors (the last axis).
        keeps_support: whether the values that `forward` takes are the same whatever the parameters are (those of `loc + x` on
            the line, not those of `loc + exp(x)`). **A score is biased where they are not**, and refused unless this is true or
            there are no parameters.

    Returns:
        A class. Its instances are pytrees, whose leaves are those of the parameters.

    Raises:
        TypeError: if what is passed is no function.
        ValueError: if `event_ndim` is neither 0 nor 1.

    Example:
        >>> import jax.numpy as jnp, mcgrad
        >>> root = lambda y, k: jnp.where(y > 0, y, jnp.nan) ** (1 / k)
        >>> Power = mcgrad.bijection(lambda x, k: x**k, root, keeps_support=True)
        >>> dist = mcgrad.Transformed(mcgrad.Exponential(1.0), Power(jnp.asarray(0.5)))  # a Weibull distribution
        >>> bool(jnp.abs(dist.log_prob(2.0) - mcgrad.Weibull(1.0, 2.0).log_prob(2.0)) < 1e-5)
        True
    """
    functions = {"forward": forward, "inverse": inverse, "log_det_jacobian": log_det_jacobian}
    for name, fn in functions.items():
        if not (callable(fn) or (fn is None and name != "forward")):
            raise TypeError(
                f"`mcgrad.bijection({name}=...)` must be a function, got {fn!r}. Pass `lambda x, *params: ...`."
            )
    if event_ndim not in (0, 1):
        raise ValueError(
            f"`mcgrad.bijection(event_ndim=...)` must be 0 or 1, got {event_ndim!r}. Flatten larger events to vectors."
        )
    namespace = {
        "__doc__": "An invertible function made of plain functions.",
        "functions": functions,
        "event_ndim": event_ndim,
        "keeps_support": keeps_support,
    }
    return type(f"bijection({getattr(forward, '__name__', 'forward')})", (FunctionBijection,), namespace)


def slope(fn: Callable[[Array], Array], x: Array) -> Array:
    """The derivative of an elementwise function."""
    return jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]
