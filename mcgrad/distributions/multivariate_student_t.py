"""The multivariate Student law."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import POSITIVE, REAL, Distribution, align
from mcgrad.distributions.beta_velocity import move_log_odds
from mcgrad.distributions.factors import check_factor, inverse_of, log_det_of, matvec
from mcgrad.distributions.gamma import ExpGamma


@dataclasses.dataclass(frozen=True)
class MultivariateStudentT(Distribution):
    """Multivariate Student law: `loc + L z / sqrt(y / df)` for `d` standard normal `z` and a chi-squared draw `y` of `df` degrees.

        log p(x) = -(df + d) / 2 log(1 + |L^-1 (x - loc)|^2 / df) + constant

    Draws are differentiable in all parameters, to every order. In `df` the derivative is along the ray from `loc`, the
    one that keeps the quantile of the distance, to the precision of the dtype: it never has more variance than that of the
    chi-squared draw. **The distance is at most about the root of the largest number**, with derivative zero there: small
    `df` in float32 reach it.

    Args:
        df: degrees of freedom; any shape; positive.
        loc: the center `[..., d]`; finite.
        scale_tril: `L`, lower triangular with positive diagonal `[..., d, d]`. What stands above the diagonal of a
            traced array is not read.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, mcgrad
        >>> mcgrad.MultivariateStudentT(3.0, jnp.zeros((5, 2)), jnp.eye(2)).batch_shape
        (5,)
    """

    df: Float[ArrayLike, "*batch"]
    loc: Float[ArrayLike, "*batch d"]
    scale_tril: Float[ArrayLike, "*batch d d"]

    domains: ClassVar = {
        "df": POSITIVE,
        "loc": dataclasses.replace(REAL, event_ndim=1),
        "scale_tril": dataclasses.replace(REAL, event_ndim=2),
    }
    event_ndim: ClassVar[int] = 1
    reparameterized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.law, self.scale_tril)
        if self.scale_tril.shape[-1:] != self.event_shape:
            raise ValueError(
                f"`mcgrad.MultivariateStudentT(scale_tril=...)` must end with shape {self.event_shape * 2} for a `loc` of "
                f"shape {self.loc.shape}, got {self.scale_tril.shape}. The last axis of `loc` is the dimension."
            )

    @property
    def event_shape(self) -> Shape:
        """`(d,)`."""
        return jnp.shape(self.loc)[-1:]

    def sample(self, key: PRNGKey) -> Float[Array, "*batch d"]:
        """One draw."""
        key_normal, key_gamma = jax.random.split(key)
        (d,), batch, info = self.event_shape, self.batch_shape, jnp.finfo(self.dtype)
        z = jax.random.normal(key_normal, (*batch, d), self.dtype)
        square = jnp.maximum(jnp.sum(z * z, -1), info.tiny)
        df = jnp.broadcast_to(self.df, batch)
        log_gamma = ExpGamma(jax.lax.stop_gradient(df) / 2, jnp.ones((), self.dtype)).sample(key_gamma)
        # |L^-1 (x - loc)|^2 / df is the odds of a beta draw of concentrations d / 2 and df / 2
        half = jnp.full_like(df, d / 2)
        log_odds = move_log_odds(jnp.log(square / 2) - log_gamma, half, df / 2)
        # so that the square over `df` is below the largest number, and the factors of `L` have room
        limit = (math.log(info.max) + jnp.minimum(jnp.log(jax.lax.stop_gradient(df)), 0)) / 2 - 2
        log_radius = jnp.minimum((log_odds + jnp.log(df)) / 2, limit)
        radius = jnp.expand_dims(jnp.exp(log_radius) / jnp.sqrt(square), -1)
        loc, moved = align(self.loc, matvec(jnp.tril(self.scale_tril), z * radius))
        return loc + moved

    def log_prob(self, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
        """Log density."""
        (d,) = self.event_shape
        x, loc = align(x, self.loc)
        inverse, apart = align(inverse_of(self.scale_tril), jnp.expand_dims(x - loc, -1))
        z = matvec(inverse, apart[..., 0])
        squares, log_det, df = align(jnp.sum(z * z, -1), log_det_of(self.scale_tril), self.df)
        normalizer = special.gammaln(df / 2) - special.gammaln((df + d) / 2) + d / 2 * jnp.log(math.pi * df) + log_det
        return -(df + d) / 2 * jnp.log1p(squares / df) - normalizer
