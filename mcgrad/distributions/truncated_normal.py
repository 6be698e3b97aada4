"""The normal distribution restricted to an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL, Domain, check_interval
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_term
from mcgrad.distributions.derivatives.quantile_rules import moving_draw
from mcgrad.distributions.numerics.arithmetic import align, open_uniform, quotient
from mcgrad.distributions.numerics.error_function import ndtr, ndtri
from mcgrad.distributions.numerics.normal_tail import tail_moments

_END = Domain("not be NaN", lambda v: ~np.isnan(v), "Pass a number, or an infinity for an end that is open.")

_BULK = 5.0
"""Up to here the normal tail, at least 3e-7, has its digits in float32; farther out it is exponential to a few percent."""

_SHORT = {"float32": 0.1, "float64": 0.01}
"""An interval over which the density is nearly linear; differences of the normal distribution function lose digits.

The compiler may recompute such a starting point differently where it is used again; the Newton step and the derivative would then
belong to different points.
"""

_SHORTEST = {"float32": 1e-5, "float64": 1e-9}
"""Over which `exp(-d^2 / 2)` is one to rounding, with room for less."""

_MOST = {"float32": 88.0, "float64": 709.0}
"""Exponents whose exponentials do not overflow."""


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """Normal distribution restricted to `[low, high]`: `p(x)` proportional to `exp(-z^2 / 2)`, `z = (x - loc) / scale`.

    A draw is a quantile, differentiable in all four parameters, to every order; either end may be infinite. Draws, densities
    and derivatives come from integrals relative to the density at the draw, so they keep their digits however far out, or
    however short, the interval is.

    **Where its ends are farther from `loc` than a sixteenth of the largest number, in units of the scale**, densities and
    derivatives are those of an interval that is so far.

    **Its support moves with `low` and `high`**, so a score function would be biased for these; pathwise is right.

    Args:
        loc: mean of the distribution before it is restricted; any shape; finite.
        scale: its standard deviation; any shape that broadcasts with `loc`; positive.
        low: any shape that broadcasts with both; may be `-inf`.
        high: any shape that broadcasts with all; above `low`; may be `inf`.

    Raises:
        ValueError: if a concrete parameter is outside its domain, `high` is not above `low`, or the shapes do not broadcast.

    Example:
        >>> import jax, mcgrad
        >>> def cost(low, key):
        ...     return mcgrad.sample(key, mcgrad.TruncatedNormal(0.0, 1.0, low, low + 1e-3))
        >>> round(float(mcgrad.pathwise_grad(cost)(40.0, jax.random.key(0))), 4)  # the draw moves with its interval
        1.0
    """

    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]
    low: Float[ArrayLike, "*batch"]
    high: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"loc": REAL, "scale": POSITIVE, "low": _END, "high": _END}
    reparameterized: ClassVar[bool] = True
    support_parameters: ClassVar[tuple[str, ...]] = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.law, self.low, self.high)

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return self._quantile(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, loc, scale, low, high = self._aligned(x)
        inside = (x >= low) & (x <= high)
        mode, log_mass = _log_mass(loc, scale, low, high)
        x_inside = jnp.where(inside, x, mode)
        relative = _relative(x_inside, mode, loc, scale)
        return jnp.where(inside, relative - log_mass - jnp.log(scale), -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, loc, scale, low, high = self._aligned(x)
        inside = (x > low) & (x < high)
        mode, log_mass = _log_mass(loc, scale, low, high)
        part, log_part = _log_mass(loc, scale, low, jnp.where(inside, x, high))
        relative = _relative(part, mode, loc, scale)
        return jnp.where(x <= low, 0.0, jnp.where(x >= high, 1.0, jnp.exp(relative + log_part - log_mass)))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._quantile(u)

    def _quantile(self, u: ArrayLike) -> Array:
        u, *params = self._aligned(u)
        return _quantile(_solve(*map(jax.lax.stop_gradient, (u, *params))), u, *params)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `loc` and `scale`, Hahn-Jordan; in each end, the draw itself against the end that moves.

        The derivative of the log density is `(z - E z) / scale` in `loc` and `(z^2 - E z^2) / scale` in `scale`.
        """
        key_loc, key_scale = jax.random.split(key)
        params = [jnp.broadcast_to(value, self.batch_shape) for value in (self.loc, self.scale, self.low, self.high)]
        fixed = jax.lax.stop_gradient(params)
        loc, scale, low, high = fixed
        mode = jnp.clip(loc, low, high)
        m = (mode - loc) / scale
        above, below = tail_moments(m, _distance(mode, high, scale)), tail_moments(-m, _distance(low, mode, scale))
        total = above[0] + below[0]
        shift = (above[1] - below[1]) / total
        square = jnp.maximum(m * m + 2 * m * shift + (above[2] + below[2]) / total, 0)
        spread = scale * jnp.sqrt(square)
        inside = lambda *points: jnp.stack([jnp.clip(point, low, high) for point in points])  # noqa: E731

        def rate(index: int) -> Callable[[Array], Array]:
            def along(points: Array) -> Array:
                within = jnp.clip(points, low, high)
                inverse_density, *velocities = _velocity(within, within, *fixed)
                return jnp.where(within == points, -velocities[index] / inverse_density, 0)

            return along

        terms = [
            hahn_jordan_term("loc", params[0], rate(0), inside(mode + scale * shift), key_loc, x, how),
            hahn_jordan_term("scale", params[1], rate(1), inside(loc - spread, loc + spread), key_scale, x, how),
        ]
        for name, end, where, is_positive in (("low", params[2], low, False), ("high", params[3], high, True)):
            finite = jnp.isfinite(where)
            density = jnp.where(finite, jnp.exp(jax.lax.stop_gradient(self).log_prob(where)), 0)
            weight, point = density * jnp.where(finite, end, 0), jnp.where(finite, where, x)
            parts = (point, x) if is_positive else (x, point)
            terms.append(WeakDerivative.single(name, weight, *parts, not is_positive))
        return tuple(terms)

    def _aligned(self, x: Any) -> tuple[Array, ...]:
        x, *params = jnp.broadcast_arrays(*align(x, self.loc, self.scale, self.low, self.high))
        return x, *_within_reach(*params)


def _within_reach(loc: Array, scale: Array, low: Array, high: Array) -> tuple[Array, ...]:
    """Parameters of the same distribution whose `(high - low) / scale` does not underflow.

    Over a very short interval only the slope `(loc - x) / scale^2` of the log density is left, which another law has too, of a
    scale that is long beside the interval but not as long.
    """
    longest = jax.lax.stop_gradient(high - low) / _SHORTEST[scale.dtype.name]
    beyond = scale > longest
    other = jnp.where(beyond, longest, 1)
    mode = jax.lax.stop_gradient(jnp.clip(loc, low, high))
    ratio = quotient(other, jnp.where(beyond, scale, 1))
    loc = jnp.where(beyond, mode + (loc - mode) * ratio * ratio, loc)
    return loc, jnp.where(beyond, other, scale), low, high


def _standardized(distance: Array, scale: Array) -> Array:
    """`distance / scale`, held where the tail beyond, about its inverse, would underflow."""
    limit = jnp.finfo(distance.dtype).max / 16
    return jnp.clip(quotient(distance, scale), -limit, limit)


def _relative(x: Array, mode: Array, loc: Array, scale: Array) -> Array:
    """The log density at `x` less that at the mode: `-(z^2 - m^2) / 2`, with `z` and `m` the standardized two."""
    return -_standardized(x - mode, scale) * (_standardized((x - loc) + (mode - loc), scale) / 2)


def _distance(start: Array, end: Array, scale: Array) -> Array:
    """`(end - start) / scale`, infinite with a derivative of zero where one of the two is infinite."""
    finite = jnp.isfinite(start) & jnp.isfinite(end)
    apart = _standardized(jnp.where(finite, end, 0) - jnp.where(finite, start, 0), scale)
    return jnp.where(finite, apart, jnp.inf)


@jax.jit
def _log_mass(loc: Array, scale: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The mode, and the log integral of the density relative to that at the mode, in units of the scale."""
    # A point of reference: what is relative to it and this mass have derivatives in it that cancel, so none is taken.
    mode = jax.lax.stop_gradient(jnp.clip(loc, low, high))
    m = _standardized(mode - loc, scale)
    (above,) = tail_moments(m, _distance(mode, high, scale), 1)
    (below,) = tail_moments(-m, _distance(low, mode, scale), 1)
    return mode, jnp.log(below + above)


@jax.jit
def _velocity(x: Array, u: Array, loc: Array, scale: Array, low: Array, high: Array) -> tuple[Array, ...]:
    """The derivatives of the quantile `x` in `u` and in the parameters.

    With `z = (x - loc) / scale`, and with the moments `A_k` above and `B_k` below `x` of the distance to it, relative to the
    density at `x`: `p(x) = 1 / (scale (A_0 + B_0))` and `F = B_0 / (A_0 + B_0)`. A parameter in which the log density
    before it is restricted has the derivative `s` gives `-(dF) / p = F (1 - F) (E[s above x] - E[s below x]) / p`, where
    only such differences are left: `A_1 / A_0 + B_1 / B_0` for `loc`. The density at an end over that at `x`, times the mass
    on the other side, gives the ends.
    """
    z = _standardized(x - loc, scale)
    over, under = _distance(x, high, scale), _distance(low, x, scale)
    above, below = tail_moments(z, over), tail_moments(-z, under)
    total = above[0] + below[0]
    after, before = above[0] / total, below[0] / total
    in_loc = before * above[1] + after * below[1]
    in_scale = 2 * z * in_loc + before * above[2] - after * below[2]
    bounded = lambda distance: jnp.where(jnp.isfinite(distance), distance, 0)  # noqa: E731
    # an exponential that overflows multiplies a mass of zero
    bounded_exp = lambda exponent: jnp.exp(jnp.minimum(exponent, _MOST[x.dtype.name]))  # noqa: E731
    in_low = jnp.where(jnp.isfinite(under), after * bounded_exp(bounded(under) * (z - bounded(under) / 2)), 0)
    in_high = jnp.where(jnp.isfinite(over), before * bounded_exp(-bounded(over) * (z + bounded(over) / 2)), 0)
    return scale * total, in_loc, in_scale, in_low, in_high


_quantile = moving_draw(_velocity)


@jax.jit
def _solve(u: Array, loc: Array, scale: Array, low: Array, high: Array) -> Array:
    """The quantile `x` of `u`: by the normal one, or the exponential tail, and Newton's method on the logarithm."""
    # Reflected so that the mode is the lower end or inside; `d` is the distance to the mode, in units of the scale.
    flip = loc > high
    sign = jnp.where(flip, -1, 1).astype(u.dtype)
    lower, upper = jnp.where(flip, 1 - u, u), jnp.where(flip, u, 1 - u)
    mode = jnp.clip(loc, low, high)
    m = sign * _standardized(mode - loc, scale)
    to_low, to_high = _distance(low, mode, scale), _distance(mode, high, scale)
    over, under = jnp.where(flip, to_low, to_high), jnp.where(flip, to_high, to_low)

    far = m > _BULK
    near = jnp.where(far, 0, m)
    survival = upper * ndtr(under - near) + lower * ndtr(-near - over)
    cumulative = upper * ndtr(near - under) + lower * ndtr(near + over)
    half = jnp.where(survival < cumulative, -1, 1).astype(u.dtype)
    normal = half * ndtri(jnp.minimum(survival, cumulative)) - near
    width = over + under
    short = width < _SHORT[u.dtype.name]
    # the quantile of a density that is linear, with the logarithmic slope of the normal one at the middle
    linear = lower * over - upper * under - (m + (over - under) / 2) * lower * upper * width * width / 2
    # The tail is nearly exp(-m d - d^2 / 2), at its end too.
    end = -over * (m + over / 2)
    shallow = end > -0.5
    drop = -jnp.where(
        shallow, jnp.log1p(lower * jnp.expm1(jnp.where(shallow, end, 0))), jnp.log(upper + lower * jnp.exp(end))
    )
    d = jnp.where(short, linear, normal)
    d = jnp.where(far, 2 * drop / (m + jnp.sqrt(m * m + 2 * drop)), d)
    for _ in range(_NEWTON_STEPS):
        d = jnp.clip(d, -under, over)
        (above,), (below,) = tail_moments(m + d, over - d, 1), tail_moments(-m - d, under + d, 1)
        excess = (upper * below - lower * above) / (above + below)  # of the distribution function over `u`
        tiny = jnp.finfo(u.dtype).tiny
        by_lower = -below * jnp.log1p(jnp.maximum(excess / jnp.maximum(lower, tiny), -0.999))
        by_upper = above * jnp.log1p(jnp.maximum(-excess / jnp.maximum(upper, tiny), -0.999))
        step = jnp.where(lower < upper, by_lower, by_upper)
        d = d + jnp.where(jnp.isfinite(step), step, 0)  # a quantile of 0 or 1 may be infinite
    return jnp.clip(mode + sign * scale * jnp.clip(d, -under, over), low, high)


_NEWTON_STEPS = 2
"""From the starting points above, to the rounding error (`tests/test_truncated_normal.py`)."""
