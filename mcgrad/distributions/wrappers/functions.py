"""Distributions from a user's plain functions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._arguments import describe
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.derivatives.implicit import implicit_reparameterization
from mcgrad.distributions.derivatives.log_density import Support, check_support, draw_by_inversion, uniform_for
from mcgrad.distributions.derivatives.pathwise_check import sampler_obstacle
from mcgrad.distributions.wrappers.base import as_arrays, leaf_names, of_whole


@dataclasses.dataclass(frozen=True, init=False)
class FunctionDistribution(Distribution):
    """Base of the classes that `distribution` makes. Its instances hold the parameters.

    Attributes:
        params: the parameters, each any pytree.
    """

    params: tuple[Any, ...]

    rounds_at_the_end: ClassVar[bool] = False  # functions get the parameters that were given
    functions: ClassVar[dict[str, Callable[..., Any] | None]]
    given_event_ndim: ClassVar[int | None]
    given_support: ClassVar[Support | None]

    def __init__(self, *params: Any) -> None:
        object.__setattr__(self, "params", as_arrays(params))

    @property
    def law(self) -> str:
        """The name of the user's function."""
        fn = self.functions["sampler"] or self.functions["icdf"] or self.functions["log_prob"]
        return f"distribution({getattr(fn, '__name__', type(fn).__name__)})"

    def sample(self, key: PRNGKey) -> Any:
        return self._sample(key, self.params)

    @classmethod
    def _sample(cls, key: PRNGKey, params: tuple[Any, ...]) -> Any:
        given = {name: fn for name, fn in cls.functions.items() if fn is not None}
        sampler = given.pop("sampler", None)
        if cls.given_support is None:
            given.pop("log_prob", None)
        of_params = {name: lambda value, params, fn=fn: fn(value, *params) for name, fn in given.items()}
        support = cls.given_support or (-math.inf, math.inf)
        if sampler is None:
            if "icdf" in given:
                return _draw_from_icdf(given["icdf"], key, params)
            x = draw_by_inversion(of_params["log_prob"], support, key, params)
        elif not given:
            return sampler(key, *params)
        else:
            x = jax.lax.stop_gradient(sampler(key, *jax.lax.stop_gradient(params)))
        if not jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating):
            return x  # a discrete distribution, or several arrays: no quantile to keep fixed
        return implicit_reparameterization(x, params, support=support, **of_params)

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any, int]:
        """The structure of a draw, the batch shape, and the number of event axes (of the first array of the draw)."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        draw = jax.eval_shape(lambda key, params: self._sample(key, params), key, self.params)
        leaves = jax.tree.leaves(draw)
        shapes = [leaf.shape for leaf in leaves]
        log_prob, event_ndim = self.functions["log_prob"], self.given_event_ndim
        batch = None
        if log_prob is not None:
            log_density = jax.eval_shape(lambda x, params: log_prob(x, *params), draw, self.params)
            if not hasattr(log_density, "shape"):
                raise TypeError(
                    "`mcgrad.distribution(log_prob=...)` must return the log density, an array, got "
                    f"{describe(log_density)}. Look for a missing `return`."
                )
            batch = log_density.shape
            if any(shape[: len(batch)] != batch for shape in shapes):
                raise ValueError(
                    f"`mcgrad.distribution(log_prob=...)` must return the leading axes of a draw, got shape {batch} "
                    f"for draws of shape {_list(shapes)}. Sum over the axes of one draw, and over no others."
                )
        if event_ndim is None:
            # Nothing says which entries are independent: one draw.
            batch = () if batch is None else batch
        else:
            stated = {shape[: max(len(shape) - event_ndim, 0)] for shape in shapes}
            if any(len(shape) < event_ndim for shape in shapes) or (batch is None and len(stated) > 1):
                raise ValueError(
                    f"`mcgrad.distribution(event_ndim=...)` must leave every array of a draw the same batch axes, got "
                    f"{event_ndim} for draws of shape {_list(shapes)}. Pass the number of axes that belong to one draw."
                )
            if batch is None:
                (batch,) = stated
            elif len(leaves) == 1 and {batch} != stated:
                raise ValueError(
                    f"`mcgrad.distribution(log_prob=...)` must return shape {next(iter(stated))}, the draw's "
                    f"{shapes[0]} without its last {event_ndim} axes (event_ndim={event_ndim}), got shape {batch}. "
                    f"Pass event_ndim={len(shapes[0]) - len(batch)} if these axes belong to one draw, or keep them."
                )
        return draw, batch, len(shapes[0]) - len(batch)

    @property
    def batch_shape(self) -> Shape:
        return self._shapes[1]

    @property
    def event_shape(self) -> Any:
        """Shape of one entry; for draws of several arrays the tree of their shapes."""
        draw, batch, _ = self._shapes
        return jax.tree.map(lambda leaf: leaf.shape[len(batch) :], draw)

    @property
    def event_ndim(self) -> int:
        """Number of event axes; for draws of several arrays that of the first."""
        return self._shapes[2]

    @property
    def discrete(self) -> bool:
        """Whether a draw has an array that is not floating."""
        return not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(self._shapes[0]))

    @functools.cached_property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        return sampler_obstacle(self._sample, self.params, self.law, leaf_names(self.params, "params"))

    @property
    def reparameterized(self) -> bool:
        """Whether the derivative of `sample` is right."""
        return self.pathwise_obstacle is None


def distribution(
    sampler: Callable[..., Any] | None = None,
    log_prob: Callable[..., Array] | None = None,
    icdf: Callable[..., Array] | None = None,
    cdf: Callable[..., Array] | None = None,
    event_ndim: int | None = 0,
    support: tuple[float, float] | None = None,
    standardization: Callable[..., Array] | None = None,
) -> type[FunctionDistribution]:
    """A class of distributions from plain functions; its instances take the parameters, `Made(*params)`.

    Each parameter is any pytree, a module with functions among its leaves included: `Made(flow)`.

    One of `sampler` and `icdf` is enough to draw; what is missing limits the estimators: score and enumeration need
    `log_prob`. A draw is differentiable

    - by `icdf` alone: explicitly, `x = icdf(u, *params)` with one uniform number for each entry of the draw;
    - by `sampler` with `cdf` or `icdf`, for floating draws: implicitly (`implicit_reparameterization`);
    - by `log_prob` with `support`, for single numbers: implicitly too, by quadrature, without any derivative of the
      `sampler`; and where there is no `sampler` either, draws are quantiles found by quadrature, to the same precision. Then
      the density must have one maximum, or several that are wide beside their distance;
    - by `sampler` with `standardization`, for vectors: implicitly;
    - by `sampler` alone: as JAX differentiates it, if it reaches the draw from every parameter that the draw depends on
      (see `pathwise_obstacle`); otherwise only estimators that need no pathwise derivative apply.

    Args:
        sampler: `sampler(key, *params)`, one draw: an array, or a pytree of arrays.
        log_prob: `log_prob(x, *params)`, the log density of a draw, of shape `batch_shape`.
        icdf: `icdf(u, *params)`, the quantile function, elementwise in u.
        cdf: `cdf(x, *params)`, the distribution function, elementwise in x.
        event_ndim: how many trailing axes of a draw belong to one draw; those before are batch axes, **whose entries
            must be independent**. `None` reads it off the shape that `log_prob` returns (without `log_prob`: all axes
            belong to one draw). For draws of several arrays `log_prob`, if given, decides.
        support: `(low, high)`, fixed numbers or infinite: asks for derivatives of draws from `log_prob`, which must be
            elementwise in x and positive and continuous inside. See `mcgrad.implicit_reparameterization` for errors.
        standardization: `standardization(x, *params)`, see `mcgrad.implicit_reparameterization`; pass `event_ndim` too.

    Returns:
        A class of distributions. It is a pytree, whose leaves are those of the parameters.

    Raises:
        ValueError: if there is nothing to draw with, or two ways to differentiate, or `event_ndim` is no number of axes;
            and, when an instance is used, if `log_prob`, `event_ndim` and the draws do not fit.
        TypeError: if what is passed is no function.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> Rayleigh = mcgrad.distribution(icdf=lambda u, scale: scale * jnp.sqrt(-2 * jnp.log1p(-u)))
        >>> Rayleigh(jnp.ones(3)).batch_shape
        (3,)
        >>> log_density = lambda x, slant: -jnp.abs(x) ** 1.5 + jax.nn.log_sigmoid(slant * x)  # nothing else is known
        >>> Skewed = mcgrad.distribution(log_prob=log_density, support=(-jnp.inf, jnp.inf))
        >>> mcgrad.pathwise_grad(lambda slant, key: mcgrad.sample(key, Skewed(slant)))(1.0, jax.random.key(0)).shape
        ()
    """
    functions = {
        "sampler": sampler,
        "log_prob": log_prob,
        "icdf": icdf,
        "cdf": cdf,
        "standardization": standardization,
    }
    for name, fn in functions.items():
        if fn is not None and not callable(fn):
            raise TypeError(
                f"`mcgrad.distribution({name}=...)` must be a function, got {fn!r}. Pass `lambda x, *params: ...`."
            )
    if sampler is None and icdf is None and (log_prob is None or support is None):
        raise ValueError(
            "`mcgrad.distribution(...)` must get something to draw with, got neither `sampler=` nor `icdf=`. "
            "Pass `sampler(key, *params)` or the quantile function `icdf(u, *params)`, or `log_prob=` and `support=` for single "
            "numbers."
        )
    ways = {"cdf= or icdf": cdf or icdf, "support": support, "standardization": standardization}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise ValueError(
            f"`mcgrad.distribution(...)` must get one way to differentiate draws, got `{'=` and `'.join(chosen)}=`. "
            "A distribution or quantile function is exact: drop the others."
        )
    if support is not None:
        support = check_support("distribution", support)
        if log_prob is None or event_ndim not in (0, None):
            raise ValueError(
                "`mcgrad.distribution(support=...)` must come with a `log_prob` of single numbers, got "
                f"{'none' if log_prob is None else f'event_ndim={event_ndim}'}. For vectors pass `standardization=`."
            )
    if event_ndim is not None and (isinstance(event_ndim, bool) or not isinstance(event_ndim, int) or event_ndim < 0):
        raise ValueError(
            f"`mcgrad.distribution(event_ndim=...)` must be a number of axes or None, got {event_ndim!r}. "
            "Pass 0 for single numbers, 1 for vectors."
        )
    functions = {name: of_whole(fn) for name, fn in functions.items()}
    method = lambda fn: None if fn is None else lambda self, value: fn(value, *self.params)  # noqa: E731
    methods = {name: method(functions[name]) for name in ("log_prob", "icdf", "cdf")}
    namespace = {
        "__doc__": "A distribution made of plain functions.",
        "functions": functions,
        "given_event_ndim": event_ndim,
        "given_support": support,
        **methods,
    }
    name = getattr(sampler or icdf or log_prob, "__name__", "functions")
    return type(f"distribution({name})", (FunctionDistribution,), namespace)


def _draw_from_icdf(icdf: Callable[..., Any], key: PRNGKey, params: tuple[Any, ...]) -> Any:
    u = uniform_for(icdf, key, *params)
    x = icdf(u, *params)
    if jnp.shape(x) != u.shape:
        raise ValueError(
            f"`mcgrad.distribution(icdf=...)` must be elementwise in u, got shape {jnp.shape(x)} for u of "
            f"shape {u.shape}. Give the parameters the shape of a draw."
        )
    return x


def _list(shapes: list[Shape]) -> str:
    return " and ".join(map(str, shapes))
