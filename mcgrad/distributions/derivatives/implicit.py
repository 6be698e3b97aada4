"""Implicit reparameterization: the pathwise derivative of a draw, from what is known of its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mcgrad import _mesh
from mcgrad.distributions.derivatives.log_density import check_support, log_odds
from mcgrad.distributions.derivatives.quantile_rules import moving


def implicit_reparameterization(
    x: Float[Array, "*batch"],
    params: PyTree,
    *,
    cdf: Callable[[Array, Any], Array] | None = None,
    icdf: Callable[[Array, Any], Array] | None = None,
    log_prob: Callable[[Array, Any], Array] | None = None,
    support: tuple[float, float] = (-math.inf, math.inf),
    standardization: Callable[[Array, Any], Array] | None = None,
) -> Float[Array, "*batch"]:
    """A draw whose derivative in the parameters of its distribution is the one that keeps its quantile fixed.

    The value is `x`, however it was drawn. The derivative is, for a distribution function `F = cdf`,

        dx/dparams = -(dF(x; params)/dparams) / p(x; params),   p = dF/dx

    and for a quantile function `Q = icdf`, `dx/dparams = dQ(u; params)/dparams` at `u = F(x; params)`, where `u` comes
    from `cdf` if that is given too, and otherwise from a bisection of `icdf`. For a log density `l = log_prob` with neither,
    `F` and `dF/dparams` are integrals of `exp(l)` and of `exp(l) dl/dparams`, by adaptive Gauss-Legendre quadrature. And for
    vectors, with a `standardization` `S`, a function whose values at draws have one distribution whatever the parameters are (for
    instance the conditional distribution functions, `S_i = F(x_i | x_1, ..., x_{i-1})`),

        dx/dparams = -(dS/dx)^-1 dS/dparams

    Pathwise, so unbiased for costs that are continuous in `x`, and right to every order of derivative, in every
    nesting of forward and reverse mode: the derivative of a draw is again a function of a draw that moves. `cdf` and
    `icdf` must be differentiable in `params`, as often as the draw will be, and `cdf` in `x`.

    **From a log density alone**: `exp(log_prob)` need not be normalized, must be positive and continuous inside `support`,
    and `support` must not move with the parameters; where the density jumps to zero inside it the derivative is NaN. What is
    narrower than a twentieth of its distance from the draw may be overlooked. Relative errors are below 1e-10 in float64 and
    1e-4 in float32 for densities that are smooth inside the support, below 1e-6 and 1e-2 for kinked ones, and in float32 up
    to 1e-3 far out in heavy tails. A draw takes a few thousand evaluations of `log_prob`.

    (The "fundamental trick" of Walder et al. 2019, "New tricks for estimating gradients of expectations",
    https://arxiv.org/abs/1901.11311, is this estimator with `dF(x)` from one more draw `y` in place of the integral,
    `dF(x) = -E[1(y > x) dlog p(y)]`; its variance is infinite unless the slope of the cost falls faster than the root of the
    density in the lower tail.)

    **A derivative that `x` itself carries is dropped**, so that a sampler with a pathwise derivative of its own is not
    counted twice. Everything that moves the distribution must be in `params`.

    Args:
        x: draws from the distribution at `params`; floating, any shape (with `standardization`: `[*batch, d]`).
        params: parameters of the distribution; any pytree.
        cdf: `cdf(x, params)`, elementwise in `x`, strictly increasing where the distribution has mass.
        icdf: `icdf(u, params)`, elementwise in `u`, monotone (`-log(u)` does as well as `-log(1 - u)`).
        log_prob: `log_prob(x, params)`, elementwise in `x`; in place of the others.
        support: the interval where `exp(log_prob)` is positive; only for `log_prob`.
        standardization: `standardization(x, params)` of the shape of `x`, invertible in the last axis of `x`, entry by entry
            of the others; in place of the others.

    Returns:
        `x`, with that derivative.

    Raises:
        ValueError: if no function is given, or two that exclude each other, or one returns another shape than that of `x`,
            or `support` is no interval.
        TypeError: if `x` is no floating array.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> cdf = lambda x, rate: 1 - jnp.exp(-rate * x)
        >>> float(jax.grad(lambda rate: mcgrad.implicit_reparameterization(jnp.float32(3.0), rate, cdf=cdf))(2.0))
        -1.5

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6 (the first derivative),
        https://arxiv.org/abs/1805.08498.
    """
    options = {"cdf": cdf, "icdf": icdf, "log_prob": log_prob, "standardization": standardization}
    given = {name: fn for name, fn in options.items() if fn is not None}
    names = list(given)
    if not names:
        raise ValueError(
            "`mcgrad.implicit_reparameterization(...)` must get `cdf=`, `icdf=`, `log_prob=` or `standardization=`, got none. "
            "Pass the distribution function `cdf(x, params)`, the quantile function `icdf(u, params)` or the log density."
        )
    if len(names) > 1 and names != ["cdf", "icdf"]:
        raise ValueError(
            "`mcgrad.implicit_reparameterization(...)` must get one function, or `cdf=` and `icdf=`, got "
            f"{' and '.join(f'`{name}=`' for name in names)}. A `cdf` or an `icdf` is exact: drop the others."
        )
    if not jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating):
        raise TypeError(
            "`mcgrad.implicit_reparameterization(x=...)` must be a floating array, got "
            f"{x.dtype if hasattr(x, 'dtype') else type(x).__name__}. A discrete distribution has no pathwise derivative."
        )
    x = jax.lax.stop_gradient(jnp.asarray(x))
    if standardization is not None and x.ndim == 0:
        raise ValueError(
            "`mcgrad.implicit_reparameterization(standardization=...)` must get draws `x` with an axis for the "
            "dimension, got shape (). Pass `cdf=` for single numbers."
        )
    for name, fn in given.items():
        shape = jax.eval_shape(fn, x, params).shape
        if shape != x.shape:
            raise ValueError(
                f"`mcgrad.implicit_reparameterization({name}=...)` must be elementwise, got shape {shape} for draws of "
                f"shape {x.shape}. Sum nothing, and broadcast the parameters to the draws."
            )
    if log_prob is not None:
        return _keeping(log_odds(log_prob, check_support("implicit_reparameterization", support)), x, params, _divide)
    if standardization is not None:
        return _keeping(standardization, x, params, _solve)
    if icdf is None:
        assert cdf is not None  # one of the names above
        return _keeping(cdf, x, params, _divide)
    frozen = jax.lax.stop_gradient(params)
    u = _bisect(lambda u: icdf(u, frozen), x) if cdf is None else jax.lax.stop_gradient(cdf(x, frozen))
    return _moving_like(x, icdf(u, params))


def _keeping(
    quantity: Callable[[Array, Any], Array], x: Array, params: Any, solve: Callable[[Callable, Array, Array], Array]
) -> Array:
    """`x`, moving with the parameters so that `quantity(x, params)` stays as it is."""
    # A function that closes over values under differentiation would hide them from the rule below, which would then
    # give silent zeros; this makes arguments of them.
    quantity, hidden = jax.closure_convert(quantity, x, params)

    def kept(x: Array, theta: Any) -> Array:
        params, hidden = theta
        return quantity(x, params, *hidden)

    @moving
    def draw(y: Array, theta: Any) -> Callable[[Any], Array]:
        # y(theta) keeps S(y; theta) fixed: dy/dtheta = -S_x(y; theta)^-1 S_theta(y; theta).
        def along(theta_dot: Any) -> Array:
            _, of_theta = jax.jvp(lambda t: kept(y, t), (theta,), (theta_dot,))
            return -solve(lambda s: kept(s, theta), y, of_theta).astype(y.dtype)

        return along

    return draw(x, (params, hidden))


def _divide(quantity: Callable[[Array], Array], y: Array, of_theta: Array) -> Array:
    _, slope = jax.jvp(quantity, (y,), (jnp.ones_like(y),))
    # where the density underflows, that of a smaller number
    size = jax.lax.stop_gradient(jnp.clip(jnp.abs(y), 1, jnp.finfo(y.dtype).max))
    _, scaled = jax.jvp(quantity, (y,), (size,))
    lost = slope == 0
    return jnp.where(lost, of_theta / jnp.where(lost, scaled, 1) * size, of_theta / jnp.where(lost, 1, slope))


def _solve(quantity: Callable[[Array], Array], y: Array, of_theta: Array) -> Array:
    directions = jnp.eye(y.shape[-1], dtype=y.dtype)
    along = lambda e: jax.jvp(quantity, (y,), (jnp.broadcast_to(e, y.shape),))[1]  # noqa: E731
    jacobian = jax.vmap(along, out_axes=-1)(directions)  # [*batch, d, d]: entries of the batch do not mix
    return jnp.linalg.solve(jacobian, of_theta[..., None])[..., 0]


_moving_like = moving(lambda x, path: lambda path_dot: path_dot.astype(x.dtype))
"""The value of `x` with the derivatives of `path`: `x + (path - stop(path))`, even where it is infinite."""


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
    low, high = _mesh.fori_loop(0, steps, halve, bounds)
    return jax.lax.stop_gradient(jnp.where(low > 0, low, high))
