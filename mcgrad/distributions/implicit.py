"""Implicit reparameterization: the pathwise derivative of a draw, from its distribution function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mcgrad._compat import custom_jvp


def implicit_reparameterization(
    x: Float[Array, "*batch"],
    params: PyTree,
    *,
    cdf: Callable[[Array, Any], Array] | None = None,
    icdf: Callable[[Array, Any], Array] | None = None,
) -> Float[Array, "*batch"]:
    """A draw whose derivative in the parameters of its law is the one that keeps its quantile fixed.

    The value is `x`, however it was drawn. The derivative is, for a distribution function `F = cdf`,

        dx/dparams = -(dF(x; params)/dparams) / p(x; params),   p = dF/dx

    and for a quantile function `Q = icdf`, `dx/dparams = dQ(u; params)/dparams` at `u = F(x; params)`, where `u` comes
    from `cdf` if that is given too, and otherwise from a bisection of `icdf`.

    Pathwise, so unbiased for costs that are continuous in `x`, and right to every order of derivative, in every
    nesting of forward and reverse mode: the derivative of a draw is again a function of a draw that moves. `cdf` and
    `icdf` must be differentiable in `params`, as often as the draw will be, and `cdf` in `x`.

    **A derivative that `x` itself carries is dropped**, so that a sampler with a pathwise derivative of its own is not
    counted twice. Everything that moves the law must be in `params`.

    Args:
        x: draws from the law at `params`; floating, any shape.
        params: parameters of the law; any pytree.
        cdf: `cdf(x, params)`, elementwise in `x`, strictly increasing where the law has mass.
        icdf: `icdf(u, params)`, elementwise in `u`, monotone (`-log(u)` does as well as `-log(1 - u)`).

    Returns:
        `x`, with that derivative.

    Raises:
        ValueError: if neither function is given, or one returns another shape than that of `x`.
        TypeError: if `x` is no floating array.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> cdf = lambda x, rate: 1 - jnp.exp(-rate * x)
        >>> float(jax.grad(lambda rate: mcgrad.implicit_reparameterization(jnp.float32(3.0), rate, cdf=cdf))(2.0))
        -1.5

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6 (the first derivative).
    """
    if cdf is None and icdf is None:
        raise ValueError(
            "`mcgrad.implicit_reparameterization(...)` must get `cdf=` or `icdf=`, got neither. "
            "Pass the distribution function `cdf(x, params)` or the quantile function `icdf(u, params)`."
        )
    if not jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating):
        raise TypeError(
            "`mcgrad.implicit_reparameterization(x=...)` must be a floating array, got "
            f"{x.dtype if hasattr(x, 'dtype') else type(x).__name__}. A discrete law has no pathwise derivative."
        )
    x = jax.lax.stop_gradient(jnp.asarray(x))
    if icdf is None:
        _check_shape("cdf", cdf, x, params)
        return _from_cdf(cdf, x, params)
    frozen = jax.lax.stop_gradient(params)
    if cdf is None:
        _check_shape("icdf", icdf, x, params)
        u = _bisect(lambda u: icdf(u, frozen), x)
    else:
        _check_shape("cdf", cdf, x, params)
        u = jax.lax.stop_gradient(cdf(x, frozen))
        _check_shape("icdf", icdf, u, params)
    return _moving_like(x, icdf(u, params))


def _from_cdf(cdf: Callable[[Array, Any], Array], x: Array, params: Any) -> Array:
    # A function that closes over values under differentiation would hide them from the rule below, which would then
    # give silent zeros; this makes arguments of them.
    cdf, hidden = jax.closure_convert(cdf, x, params)

    def distribution_function(x: Array, theta: Any) -> Array:
        params, hidden = theta
        return cdf(x, params, *hidden)

    @custom_jvp
    def draw(x: Array, theta: Any) -> Array:
        return x

    @draw.defjvp
    def draw_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        # y(theta) keeps F(y; theta) fixed. The rule is in terms of y, a draw again, and not of the constant x: so
        # the derivative of dy/dtheta = -F_theta(y; theta) / p(y; theta) is total, through y too.
        (x, theta), (_, theta_dot) = primals, tangents
        y = draw(x, theta)
        _, of_theta = jax.jvp(lambda t: distribution_function(y, t), (theta,), (theta_dot,))
        _, density = jax.jvp(lambda s: distribution_function(s, theta), (y,), (jnp.ones_like(y),))
        return y, (-of_theta / density).astype(y.dtype)

    return draw(x, (params, hidden))


@custom_jvp
def _moving_like(x: Array, path: Array) -> Array:
    """The value of `x` with the derivatives of `path`: `x + (path - stop(path))`, even where it is infinite."""
    return x


@_moving_like.defjvp
def _moving_like_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, path = primals
    return _moving_like(x, path), tangents[1].astype(x.dtype)


def _bisect(quantile: Callable[[Array], Array], x: Array) -> Array:
    """`u` with `quantile(u) = x`, for a monotone function on (0, 1), to the last digit."""
    at = lambda value: quantile(jnp.full(x.shape, value, x.dtype))  # noqa: E731
    increasing = at(0.25) <= at(0.75)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) / 2
        value = quantile(middle)
        below = jnp.where(increasing, value <= x, value >= x)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    bounds = jnp.zeros_like(x), jnp.ones_like(x)
    # Twice the digits: quantiles as small as eps are then still found with all of theirs.
    steps = 2 * (jnp.finfo(x.dtype).nmant + 1)
    low, high = jax.lax.fori_loop(0, steps, halve, bounds)
    return jax.lax.stop_gradient(jnp.where(low > 0, low, high))


def _check_shape(name: str, fn: Callable[[Array, Any], Array], x: Array, params: Any) -> None:
    shape = jax.eval_shape(fn, x, params).shape
    if shape != x.shape:
        raise ValueError(
            f"`mcgrad.implicit_reparameterization({name}=...)` must be elementwise, got shape {shape} for draws of "
            f"shape {x.shape}. Sum nothing, and broadcast the parameters to the draws."
        )
