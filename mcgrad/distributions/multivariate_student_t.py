"""The multivariate Student distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL
from mcgrad.distributions.derivatives.beta import beta_factor
from mcgrad.distributions.gamma import ExpGamma, sample_log_ratio
from mcgrad.distributions.multivariate_normal import MultivariateNormal, _check_scale
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.gamma_function import digamma_increment
from mcgrad.distributions.numerics.triangular import inverse_of, log_det_of, matvec, tril
from mcgrad.distributions.student_t import standard_log_prob


@dataclasses.dataclass(frozen=True)
class MultivariateStudentT(Distribution):
    """Multivariate Student distribution: `loc + L z / sqrt(y / df)` for standard normal `z` and a chi-squared draw `y`.

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
        _check_scale(self, "scale_tril")

    def sample(self, key: PRNGKey) -> Float[Array, "*batch d"]:
        key_normal, key_gamma = jax.random.split(key)
        z = jax.random.normal(key_normal, self.batch_shape + self.event_shape, self.dtype)
        log_ratio = sample_log_ratio(key_gamma, jnp.broadcast_to(self.df, self.batch_shape) / 2)
        # room for the factors z and L below the largest number
        most = math.log(jnp.finfo(self.dtype).max)
        largest = jnp.max(jnp.abs(tril(jax.lax.stop_gradient(self.scale_tril))), (-2, -1))
        log_ratio, limit = align(log_ratio, jnp.clip(most - 2 - jnp.log(largest), 1, most / 2))
        radius = jnp.expand_dims(jnp.exp(jnp.minimum(-log_ratio / 2, limit)), -1)
        loc, moved = align(self.loc, matvec(tril(self.scale_tril), z * radius))
        return loc + moved

    @property
    def _most_log_radius(self) -> Array:
        """So that the square over `df` is below the largest number, and the factors of `L` have room."""
        df = jnp.broadcast_to(jax.lax.stop_gradient(self.df), self.batch_shape)
        return (math.log(jnp.finfo(self.dtype).max) + jnp.minimum(jnp.log(df), 0)) / 2 - 2

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives: in `loc` and `L` those of the normal at a given `y`; in `df` two terms on the ray from `loc`.

        At a given draw `y` has a gamma law of concentration `(df + d) / 2`. With `z = L^-1 (x - loc)`, `w = 1 / (1 + |z|^2 / df)`
        has the distribution `Beta(df / 2, d / 2)`, whose derivative is half of that in its `concentration1`; and at a given `w` the
        distance `|z|` has the scale `sqrt(df)`, where `|z|^2 y / (2 df)` is a gamma draw of concentration `d / 2`, to which an
        exponential draw is added.
        """
        key_gamma, key_normal, key_more, key_factor = jax.random.split(key, 4)
        (d,), batch, info = self.event_shape, self.batch_shape, jnp.finfo(self.dtype)
        df, loc = jnp.broadcast_to(self.df, batch), jnp.broadcast_to(self.loc, (*batch, d))
        scale = jnp.broadcast_to(tril(self.scale_tril), (*batch, d, d))
        fixed, center = jax.lax.stop_gradient((df, loc))
        z = matvec(inverse_of(jax.lax.stop_gradient(scale)), x - center)
        squares = jnp.maximum(jnp.sum(z * z, -1), info.tiny)
        log_gamma = ExpGamma((fixed + d) / 2, jnp.ones((), self.dtype)).sample(key_gamma)
        log_half = log_gamma - jnp.log1p(squares / fixed)  # of y / 2
        stretch = jnp.exp(jnp.minimum((jnp.log(fixed / 2) - log_half) / 2, self._most_log_radius))
        normal = MultivariateNormal(loc, scale_tril=scale * jnp.expand_dims(stretch, (-1, -2)))

        def at(log_radius: Array) -> Array:
            ratio = jnp.exp(jnp.minimum(log_radius, self._most_log_radius) - jnp.log(squares) / 2)
            return center + jnp.expand_dims(ratio, -1) * (x - center)

        more = -2 * jnp.log(open_uniform(key_more, batch, self.dtype)) * stretch * stretch
        half = jnp.full_like(fixed, d / 2)
        log_w = jnp.log(beta_factor(key_factor, fixed / 2, half)) - jnp.log1p(squares / fixed)
        farther, spread = at(jnp.log(squares + more) / 2), at((jnp.log(fixed) - log_w + jnp.log(-jnp.expm1(log_w))) / 2)
        return (
            *normal.weak_derivative(key_normal, x, how),
            WeakDerivative.single("df", d / 2 * jnp.log(df), farther, x, False),
            WeakDerivative.single("df", digamma_increment(fixed / 2, half) * df / 2, x, spread, True),
        )

    def log_prob(self, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
        x, loc = align(x, self.loc)
        scale_tril = jnp.asarray(self.scale_tril)
        z = matvec(inverse_of(scale_tril), x - loc)
        log_det, df = align(log_det_of(scale_tril), self.df)
        shape = jnp.broadcast_shapes(z.shape[:-1], df.shape)
        z, df = jnp.broadcast_to(z, (*shape, z.shape[-1])), jnp.broadcast_to(df, shape)
        return standard_log_prob(z, df) - log_det
