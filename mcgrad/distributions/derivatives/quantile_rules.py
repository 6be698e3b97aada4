"""Draws and distribution functions whose derivatives are given by the velocity of a quantile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._compat import custom_jvp

Velocity = Callable[..., Sequence[Array]]
"""`velocity(x, *params)`: the derivatives of a quantile `x` in each parameter, `-(dF/dparam) / p(x)`."""


def moving_draw(velocity: Velocity) -> Callable[..., Array]:
    """A function `draw(x, *params)` with the value `x`, which moves with the parameters by `velocity`; elementwise.

    The derivative that `x` itself carries is dropped. `velocity` must be finite, and differentiable as often as the draw
    will be, in `x` too.
    """
    return moving(lambda x, *params: lambda *tangents: _along(velocity(x, *params), tangents))


def moving(change: Callable[..., Callable[..., Array]]) -> Callable[..., Array]:
    """A function `draw(x, *params)` with the value `x`, whose derivative is `change(x, *params)(*tangents of params)`.

    The rule is in terms of the draw that moves, so that the derivative of a derivative is total.
    """

    @custom_jvp
    @functools.wraps(change)
    def draw(x: Array, *params: Any) -> Array:
        return x

    @draw.defjvp
    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        x, *params = primals
        x = draw(x, *params)
        return x, change(x, *params)(*tangents[1:])

    return draw


def distribution_function(
    cdf: Callable[..., Array], log_density: Callable[..., Array], velocity: Velocity
) -> Callable[..., Array]:
    """`cdf(x, *params)` with the derivatives `p(x) dx - sum_i p(x) v_i dparam_i`; elementwise, arguments of one shape."""

    @custom_jvp
    def function(x: Array, *params: Array) -> Array:
        return cdf(x, *params)

    @function.defjvp
    def rule(primals: Any, tangents: Any) -> tuple[Array, Array]:
        density = jnp.exp(log_density(*primals))
        # no NaN where one of the two has overflowed and the other is zero
        rates = [jnp.where((density == 0) | (rate == 0), 0, density * rate) for rate in velocity(*primals)]
        return function(*primals), density * tangents[0] - _along(rates, tangents[1:])

    return function


def _along(rates: Sequence[Array], tangents: Sequence[Array]) -> Array:
    return sum((rate * tangent for rate, tangent in zip(rates, tangents, strict=True)), jnp.zeros_like(tangents[0]))
