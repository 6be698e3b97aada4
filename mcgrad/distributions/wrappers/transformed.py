"""Distributions of `f(x)` for an invertible function `f`, and such functions from plain ones of a user."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PRNGKey, PyTree
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.derivatives.pathwise_check import name_of, sampler_obstacle
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.wrappers.base import Wrapper, leaf_names, of_inner
from mcgrad.distributions.wrappers.foreign import as_distribution


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


@dataclasses.dataclass(frozen=True)
class Transformed(Wrapper):
    """The distribution of `y = f(x)` for a draw `x` of `base`: `log p(y) = log p_x(x) - log |df/dx|`, `x = f^-1(y)`.

    Draws are differentiable in the parameters of both, to every order, if those of `base` are. For single numbers the
    distribution, survival and quantile functions are those of `base`, read backwards where `f` falls.

    Args:
        base: a continuous distribution of mcgrad, NumPyro, Distrax or TFP-on-JAX.
        bijection: from `mcgrad.bijection`, or any pytree with `forward(x)`, `inverse(y)` (a function or `None`),
            `log_det_jacobian(x)` without the last `event_ndim` axes, `event_ndim` and `keeps_support`.

    Raises:
        TypeError: if `base` is no distribution, or `bijection` lacks one of these.
        ValueError: if `base` is discrete, or has fewer event axes than `bijection`, or `forward` changes the shape.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> SinhArcsinh = mcgrad.bijection(lambda x, tail: jnp.sinh(tail * jnp.arcsinh(x)))
        >>> cost = lambda tail, key: mcgrad.sample(key, mcgrad.Transformed(mcgrad.Normal(0.0, 1.0), SinhArcsinh(tail))) ** 2
        >>> mcgrad.pathwise_grad(cost)(1.0, jax.random.key(0)).shape
        ()
    """

    base: Any
    bijection: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", as_distribution(self.base))
        for name in ("forward", "inverse", "log_det_jacobian", "event_ndim", "keeps_support"):
            if not hasattr(self.bijection, name):
                raise TypeError(
                    f"`mcgrad.Transformed(bijection=...)` must have `{name}`, got {type(self.bijection).__name__}. Make one "
                    "with `mcgrad.bijection(forward, inverse)(*params)`."
                )
        if getattr(self.base, "discrete", False):
            raise ValueError(
                f"`mcgrad.Transformed(base=...)` must be continuous, got {name_of(self.base)}. Apply the function to the draw."
            )
        if self.bijection.event_ndim > len(self.base.event_shape):
            raise ValueError(
                f"`mcgrad.Transformed(base=...)` must have {self.bijection.event_ndim} event axis for this bijection, got "
                f"event shape {self.base.event_shape}. Wrap it: `mcgrad.Independent(base, 1)`."
            )
        shape = (*self.base.batch_shape, *self.base.event_shape)
        got = jax.eval_shape(lambda key: self.sample(key), jax.eval_shape(lambda: jax.random.key(0))).shape
        if got != shape:
            raise ValueError(
                f"`mcgrad.Transformed(bijection=...)` must keep the shape {shape} of a draw of the base, got {got}. Give the "
                "base the batch shape of the parameters of the bijection."
            )

    @property
    def _inner(self) -> Any:
        return self.base

    @property
    def support_parameters(self) -> tuple[str, ...]:
        """The parameters of the base that move the support, and those of a bijection that may move it."""
        of_base = super().support_parameters
        return of_base if self.bijection.keeps_support else (*of_base, *leaf_names(self.bijection, "bijection"))

    @functools.cached_property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        of_base = super().pathwise_obstacle
        return of_base or sampler_obstacle(lambda k, d: d.sample(k), self, self.law, leaf_names(self))

    def sample(self, key: PRNGKey) -> Array:
        return self.bijection.forward(self.base.sample(key))

    @of_inner(lambda self: self.bijection.inverse is not None)
    def log_prob(self, y: Array) -> Array:
        """The log density."""
        event = tuple(range(-self.event_ndim, 0))
        x, inside = self._inverse(jnp.asarray(y), event)
        log_det = self.bijection.log_det_jacobian(x)
        log_det = jnp.sum(log_det, axis=event[: self.event_ndim - self.bijection.event_ndim])
        return jnp.where(jnp.all(inside, axis=event), self.base.log_prob(x) - log_det, -jnp.inf)

    def _inverse(self, y: Array, event: tuple[int, ...]) -> tuple[Array, Array]:
        """`f^-1(y)` and where it exists; elsewhere some other number, so that nothing there is differentiated to NaN."""
        bijection = jax.lax.stop_gradient(self.bijection)
        inside = jnp.all(jnp.isfinite(bijection.inverse(jax.lax.stop_gradient(y))), axis=event, keepdims=True)
        value = jnp.where(inside, y, bijection.forward(jnp.full_like(y, 0.5)))
        return self.bijection.inverse(value), inside

    @property
    def cdf(self) -> Any:
        """The distribution function of single numbers, or `None`."""
        return self._one_sided("cdf", "survival", 0.0)

    @property
    def survival(self) -> Any:
        """One minus the distribution function, or `None`."""
        return self._one_sided("survival", "cdf", 1.0)

    def _one_sided(self, rising: str, falling: str, below: float) -> Any:
        own: Any = getattr(self.base, rising, None)
        other: Any = getattr(self.base, falling, None)
        if self.event_ndim or self.bijection.inverse is None or (own is None and other is None):
            return None
        straight = own or (lambda x: 1 - other(x))
        mirrored = other or (lambda x: 1 - own(x))

        def function(y: Array) -> Array:
            y = jnp.asarray(y)
            x, inside = self._inverse(y, ())
            value = jnp.where(slope(self.bijection.forward, x) >= 0, straight(x), mirrored(x))
            outside = jnp.where(y < self.bijection.forward(jnp.full_like(x, 0.5)), below, 1 - below)
            return jnp.where(inside, value, outside)

        return function

    @of_inner(lambda self: not self.event_ndim)
    def icdf(self, u: Array) -> Array:
        """The quantile function of single numbers."""
        x, mirrored = self.base.icdf(u), self.base.icdf(1 - jnp.asarray(u))
        forward = self.bijection.forward
        return jnp.where(slope(forward, x) >= 0, forward(x), forward(mirrored))

    @of_inner(lambda self: not jax.tree.leaves(self.bijection) and self.bijection.inverse is not None)
    def weak_derivative(self, key: PRNGKey, y: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Those of the base, mapped, where the bijection has no parameters."""
        return mapped(self.base.weak_derivative(key, self.bijection.inverse(y), how), self.bijection.forward, y)
