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
from mcgrad.distributions.factors import check_factor, inverse_of, log_det_of, matvec
from mcgrad.distributions.gamma import sample_log_ratio


@dataclasses.dataclass(frozen=True)
class MultivariateStudentT(Distribution):
    """Multivariate Student law: `loc + L z / sqrt(y / df)` for `d` standard normal `z` and a chi-squared draw `y` of `df` degrees.

        log p(x) = -(df + d) / 2 log(1 + |L^-1 (x - loc)|^2 / df) + constant

    Draws are differentiable in all parameters, to every order, as those of `StudentT`. **The factor `1 / sqrt(y / df)` is at
    most the square root of the largest number, and less for scales beyond that**, and has derivative zero there: small `df` in
    float32 reach it.

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
        z = jax.random.normal(key_normal, self.batch_shape + self.event_shape, self.dtype)
        log_ratio = sample_log_ratio(key_gamma, jnp.broadcast_to(self.df, self.batch_shape) / 2)
        # room for the factors z and L below the largest number
        most = math.log(jnp.finfo(self.dtype).max)
        largest = jnp.max(jnp.abs(jnp.tril(jax.lax.stop_gradient(self.scale_tril))), (-2, -1))
        log_ratio, limit = align(log_ratio, jnp.clip(most - 2 - jnp.log(largest), 1, most / 2))
        radius = jnp.expand_dims(jnp.exp(jnp.minimum(-log_ratio / 2, limit)), -1)
        loc, moved = align(self.loc, matvec(jnp.tril(self.scale_tril), z * radius))
        return loc + moved

    def log_prob(self, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
        """Log density."""
        (d,) = self.event_shape
        x, loc = align(x, self.loc)
        inverse, apart = align(inverse_of(self.scale_tril), jnp.expand_dims(x - loc, -1))
        z = matvec(inverse, apart[..., 0])
        log_det, df, largest = align(log_det_of(self.scale_tril), self.df, jnp.max(jnp.abs(z), -1))
        # where squares may overflow they are relative to the largest, which has no part in the derivative
        size = jax.lax.stop_gradient(jnp.maximum(largest / jnp.sqrt(df), 1))
        z, scale = align(z, jnp.expand_dims(jnp.sqrt(df) * size, -1))
        squares = jnp.sum((z / scale) ** 2, -1)
        far = size > 1
        inside = jnp.where(far, 0.0, squares)
        grown = jnp.where(far, jnp.log(squares + size**-2) + 2 * jnp.log(size), jnp.log1p(inside))
        normalizer = special.gammaln(df / 2) - special.gammaln((df + d) / 2) + d / 2 * jnp.log(math.pi * df) + log_det
        return -(df + d) / 2 * grown - normalizer
