"""Student's t distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.beta import beta_factor, log_odds_cdf
from mcgrad.distributions.derivatives.quantile_rules import distribution_function
from mcgrad.distributions.gamma import sample_log_ratio
from mcgrad.distributions.location_scale import LocationScale, Standardized
from mcgrad.distributions.numerics.arithmetic import align, log1p_over, log1p_remainder, open_uniform
from mcgrad.distributions.numerics.beta import log_odds_velocity
from mcgrad.distributions.numerics.gamma_function import digamma_increment, log_gamma_increment_remainder


@dataclasses.dataclass(frozen=True)
class StudentT(Standardized):
    """Student's t distribution: `loc + scale z / sqrt(y / df)` for a standard normal draw `z` and a chi-squared draw `y`.

    Draws are differentiable in all parameters, to every order, as those of `Gamma`. **The factor `1 / sqrt(y / df)` is at
    most the square root of the largest number, and less for scales beyond that**, and has derivative zero there: small `df` in
    float32 reach it. The derivative of the distribution function in `df` has an error of `1 + df` units in the last place.

    Args:
        df: degrees of freedom; any shape; positive.
        loc: any shape that broadcasts with `df`; finite.
        scale: any shape that broadcasts with both; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    df: Float[ArrayLike, "*batch"]
    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df": POSITIVE, **LocationScale.domains}

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        key_normal, key_gamma = jax.random.split(key)
        z = jax.random.normal(key_normal, shape, self.dtype)
        log_ratio = sample_log_ratio(key_gamma, jnp.broadcast_to(self.df, shape) / 2)
        # room for the factors z and scale below the largest number
        most = math.log(jnp.finfo(self.dtype).max)
        log_ratio, limit = align(
            log_ratio, jnp.clip(most - 2 - jnp.log(jax.lax.stop_gradient(self.scale)), 1, most / 2)
        )
        return z * jnp.exp(jnp.minimum(-log_ratio / 2, limit))

    def _standard_log_prob(self, z: Array) -> Array:
        z, df = jnp.broadcast_arrays(*align(z, self.df))
        return standard_log_prob(jnp.expand_dims(z, -1), df)

    def _standard_cdf(self, z: Array) -> Array:
        return _distribution_function(*jnp.broadcast_arrays(*align(z, self.df)))

    def _standardized(self, x: ArrayLike) -> Array:
        return _within(super()._standardized(_within(jnp.asarray(x))))

    _scale_turns: ClassVar[tuple[float, ...]] = (-1.0, 1.0)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        # the log density is lower by `drop` where 1 + z^2 / df is larger by the factor exp(rise)
        df = jnp.broadcast_to(jax.lax.stop_gradient(self.df), z.shape)
        rise = jnp.minimum(2 * drop / (df + 1), jnp.log(jnp.finfo(z.dtype).max) / 4)
        return side * jnp.sqrt(z * z * jnp.exp(rise) + df * jnp.expm1(rise))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Those of location-scale distributions in `loc` and `scale`; in `df` two terms with the draw itself as one part.

        With `z = (x - loc) / scale`, `w = 1 / (1 + z^2 / df)` has the law `Beta(df / 2, 1 / 2)`, whose derivative is half of that
        in its `concentration1`; and at a given `w` the distance `|z|` has the scale `sqrt(df)`.
        """
        key_others, key_farther, key_df = jax.random.split(key, 3)
        df, loc, scale = (jnp.broadcast_to(value, self.batch_shape) for value in (self.df, self.loc, self.scale))
        fixed = jax.lax.stop_gradient(df)
        z, half = (x - loc) / scale, jnp.full_like(fixed, 0.5)
        away = jnp.where(z < 0, -1, 1).astype(self.dtype)
        drop = -jnp.log(open_uniform(key_farther, self.batch_shape, self.dtype))
        log_w = -jnp.log1p(z / fixed * z) + jnp.log(beta_factor(key_df, fixed / 2, half))
        most = jnp.sqrt(jnp.finfo(self.dtype).max)
        spread = loc + scale * away * jnp.sqrt(fixed) * jnp.sqrt(jnp.minimum(jnp.expm1(-log_w), most))
        farther = loc + scale * self._standard_outward(z, away, drop)
        return (
            *super().weak_derivative(key_others, x, how),
            WeakDerivative.single("df", jnp.log(df) / 2, farther, x, False),
            WeakDerivative.single("df", digamma_increment(fixed / 2, half) * df / 2, x, spread, True),
        )


def standard_log_prob(z: Float[Array, "*batch d"], df: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Log density of a standard `d`-dimensional draw: `-(df + d) / 2 log(1 + |z|^2 / df)` and its constant.

    With `a = df / 2` and `h = d / 2` the constant is `log Gamma(a + h) - log Gamma(a) - h log(2 pi a)`. Nothing overflows, and
    nothing cancels, also for many degrees of freedom, for which the distribution is nearly normal.
    """
    h = jnp.full_like(df, z.shape[-1] / 2)
    return log_gamma_increment_remainder(df / 2, h) - h * math.log(2 * math.pi) - _below_mode(z, df)


@custom_jvp
def _below_mode(z: Array, df: Array) -> Array:
    """`(df + d) / 2 log(1 + u)` for `u = |z|^2 / df`.

    Its derivatives are `(df + d) / (df + |z|^2) z` and `(log(1 + u) - u / (1 + u) - d u / (1 + u) / df) / 2`.
    """
    u, h = _squared_ratio(z, df), z.shape[-1] / 2
    near = (u.square / 2 + h * u.square / df) * log1p_over(u.square / df)
    return jnp.where(u.far, (df / 2 + h) * u.log, near)


@_below_mode.defjvp
def _below_mode_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (z, df), (z_dot, df_dot) = primals, tangents
    u, d = _squared_ratio(z, df), z.shape[-1]
    # of `z / size` where `u` is large, and else of `z`
    far_slope = (df + d) * u.part / u.size / u.share
    slope = jnp.where(u.far, far_slope, (1 + d / df) * (1 - u.part))
    along = u.z / jnp.expand_dims(jnp.where(u.far, u.size, 1.0), -1)
    log1p_u = jnp.minimum(u.log, 1e4)  # above all finite ones, and not infinite, for a weight of zero may multiply it
    in_df = (log1p_remainder(log1p_u, u.part) - d / df * u.part) / 2
    return _below_mode(z, df), in_df * df_dot + jnp.sum(jnp.expand_dims(slope, -1) * along * z_dot, -1)


class _SquaredRatio(NamedTuple):
    """`u = |z|^2 / df`, which may overflow, by numbers that do not.

    Attributes:
        z: held to finite numbers.
        size: the largest `|z_i|`, a constant.
        share: `|z|^2 / size^2`, or one for `z = 0`.
        far: whether `u` is above one.
        square: `|z|^2`, or zero where `u` is above one.
        log: `log(1 + u)`.
        part: `u / (1 + u)`.
    """

    z: Array
    size: Array
    share: Array
    far: Array
    square: Array
    log: Array
    part: Array


def _squared_ratio(z: Array, df: Array) -> _SquaredRatio:
    info = jnp.finfo(z.dtype)
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(z), -1), info.tiny))
    z, size = jnp.clip(z, info.min, info.max), jnp.minimum(largest, info.max)
    share = jnp.sum((z / jnp.expand_dims(size, -1)) ** 2, -1)
    share = jnp.where(share > 0, share, 1.0)
    log_u = 2 * jnp.log(largest) + jnp.log(share) - jnp.log(df)
    far = log_u > 0
    square = jnp.sum(jnp.where(jnp.expand_dims(far, -1), 0.0, z) ** 2, -1)
    u = square / df
    log1p_u = jnp.where(far, jax.nn.softplus(log_u), jnp.log1p(u))
    return _SquaredRatio(z, size, share, far, square, log1p_u, jnp.where(far, jax.nn.sigmoid(log_u), u / (1 + u)))


# For a standard draw `z`, `z^2 / df` is the odds of a draw of `Beta(1 / 2, df / 2)`.


def _within(z: Array) -> Array:
    limit = jnp.finfo(z.dtype).max ** 0.75  # farther than draws, with room for what it is multiplied by
    return jnp.clip(z, -limit, limit)


def _log_odds(z: Array, df: Array) -> Array:
    return 2 * jnp.log(jnp.maximum(jnp.abs(z), jnp.finfo(z.dtype).tiny)) - jnp.log(df)


def _probability(z: Array, df: Array) -> Array:
    far = log_odds_cdf(-_log_odds(z, df), df / 2, jnp.full_like(df, 0.5)) / 2
    return jnp.where(z < 0, far, 1 - far)


def _log_density(z: Array, df: Array) -> Array:
    return StudentT(df, jnp.zeros_like(z), jnp.ones_like(z)).log_prob(z)


def _velocity(z: Array, df: Array) -> tuple[Array]:
    in_log_odds = -log_odds_velocity(-_log_odds(z, df), df / 2, jnp.full_like(df, 0.5)) / 2
    return (z / 2 * (in_log_odds + 1 / df),)


_distribution_function = distribution_function(_probability, _log_density, _velocity)
