"""The distribution of Lewandowski, Kurowicka and Joe for correlation matrices, by their Cholesky factors."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.beta import beta_parts, move_log_odds
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.gamma_function import log_gamma_increment_remainder
from mcgrad.distributions.numerics.triangular import tril


@dataclasses.dataclass(frozen=True)
class LKJCholesky(Distribution):
    """The Cholesky factor `L` of a correlation matrix with density proportional to `det(L L^T)^(concentration - 1)`.

        p(L) proportional to prod_(i = 2..dim) L_ii^(dim - i + 2 (concentration - 1))

    in the entries below the diagonal, which lie in the unit balls that make each row of `L` a unit vector. The rows are
    independent: row `i` goes in a uniform direction, to the squared radius `r^2 ~ Beta((i - 1) / 2, concentration + (dim - i) / 2)`
    (the onion method), and `L_ii = sqrt(1 - r^2)`. Draws are differentiable in the concentration, to every order, by the
    derivative that keeps the quantile of each radius, to the precision of the dtype. **An entry of the diagonal that
    underflows is the smallest positive number**, with derivative zero: small concentrations reach it.

    Args:
        dim: the number of rows, at least two.
        concentration: 1 for a uniform distribution of correlation matrices, more for weaker correlations; any shape; positive.

    Raises:
        ValueError: if `dim` is no whole number above one, or a concrete `concentration` is not positive.

    Example:
        >>> import jax, mcgrad
        >>> def cost(concentration, key):
        ...     return mcgrad.sample(key, mcgrad.LKJCholesky(2, concentration))[1, 0] ** 2
        >>> gradient = mcgrad.pathwise_grad(cost, num_samples=4000)(1.0, jax.random.key(0))
        >>> bool(abs(gradient + 2 / 9) < 0.01)  # the mean is 1 / (2 concentration + 1)
        True

    References:
        Lewandowski, Kurowicka and Joe 2009, "Generating random correlation matrices based on vines and extended onion method",
        section 3, https://doi.org/10.1016/j.jmva.2009.04.008.
    """

    dim: int = static_field()
    concentration: Float[ArrayLike, "*batch"] = 1.0

    domains: ClassVar = {"concentration": POSITIVE}
    event_ndim: ClassVar[int] = 2
    reparameterized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 2:
            raise ValueError(
                f"`mcgrad.LKJCholesky(dim=...)` must be a whole number above one, got {self.dim!r}. "
                "Pass the number of rows of the correlation matrix."
            )
        super().__post_init__()

    @property
    def event_shape(self) -> Shape:
        """`(dim, dim)`."""
        return (self.dim, self.dim)

    def sample(self, key: PRNGKey) -> Float[Array, "*batch dim dim"]:
        key_normal, key_gamma = jax.random.split(key)
        shape, dtype = self.batch_shape + self.event_shape, self.dtype
        a, b = (jnp.broadcast_to(value, (*shape[:-2], self.dim - 1)) for value in self._concentrations)
        z = tril(jax.random.normal(key_normal, shape, dtype), -1)[..., 1:, :]
        square = jnp.maximum(jnp.sum(z * z, -1), jnp.finfo(dtype).tiny)
        log_gamma = ExpGamma(jax.lax.stop_gradient(b), jnp.ones((), dtype)).sample(key_gamma)
        log_odds = move_log_odds(jnp.log(square / 2) - log_gamma, a, b)
        # the derivative of the logistic function itself would lose digits near one
        row = z * jnp.expand_dims(jnp.exp(-jax.nn.softplus(-log_odds) / 2) / jnp.sqrt(square), -1)
        diagonal = jnp.maximum(jnp.exp(-jax.nn.softplus(log_odds) / 2), jnp.finfo(dtype).tiny)
        identity = jnp.broadcast_to(jnp.eye(self.dim, dtype=dtype), shape)
        row = row + jnp.expand_dims(diagonal, -1) * identity[..., 1:, :]
        return jnp.concatenate([identity[..., :1, :], row], -2)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives of the beta draws `L_ii^2`; each row keeps its direction (see `Beta`)."""
        tiny, rows = jnp.finfo(self.dtype).tiny, jnp.eye(self.dim, dtype=bool)[1:]
        batch = (*self.batch_shape, self.dim - 1)
        # [dim - 1, *batch]
        a, b = (jnp.moveaxis(jnp.broadcast_to(value, batch), -1, 0) for value in self._concentrations)
        fixed = jax.lax.stop_gradient(b)
        off = tril(x, -1)[..., 1:, :]
        squares = jnp.maximum(jnp.sum(off * off, -1), tiny)
        direction = off / jnp.expand_dims(jnp.sqrt(squares), -1)
        diagonal = jnp.diagonal(x, axis1=-2, axis2=-1)[..., 1:]
        log_odds = jnp.moveaxis(2 * jnp.log(diagonal) - jnp.log(squares), -1, 0)

        def moved(y: Array) -> Array:
            y = jnp.expand_dims(jnp.moveaxis(y, 0, -1), -1)
            below, on = jnp.exp(-jax.nn.softplus(y) / 2), jnp.maximum(jnp.exp(-jax.nn.softplus(-y) / 2), tiny)
            row = jnp.concatenate([x[..., :1, :], jnp.where(rows, on, direction * below)], -2)
            chosen = jnp.moveaxis(jnp.broadcast_to(rows, (*x.shape[:-2], *rows.shape)), -2, 0)  # [dim - 1, *batch, dim]
            return jnp.where(jnp.expand_dims(chosen, -1), row[None], x[None])

        mass, *parts = beta_parts(key, log_odds, fixed, a, how)
        drawn, is_draw = jnp.broadcast_to(x[None], (self.dim - 1, *x.shape)), jnp.ones(b.shape, bool)
        positive, negative = (drawn if y is None else moved(y) for y in parts)
        return (WeakDerivative(("concentration",), mass * b, positive, negative, None if how.hahn_jordan else is_draw),)

    def log_prob(self, x: Float[ArrayLike, "*batch dim dim"]) -> Float[Array, "*batch"]:
        """Log density in the entries below the diagonal; `-inf` where one on it is not positive. Rows must be unit vectors."""
        diagonal = jnp.diagonal(jnp.asarray(x), axis1=-2, axis2=-1)[..., 1:]
        diagonal, a, b = jnp.broadcast_arrays(*align(diagonal, *self._concentrations))
        inside = diagonal > 0
        volumes = a * (math.log(math.pi) - jnp.log(b)) - log_gamma_increment_remainder(b, a)
        log_prob = 2 * (b - 1) * jnp.log(jnp.where(inside, diagonal, 1.0)) - volumes
        return jnp.sum(jnp.where(inside, log_prob, -jnp.inf), -1)

    @property
    def _concentrations(self) -> tuple[Array, Array]:
        """Concentrations of the squared radius in each row from the second, `[dim - 1]` and `[*batch, dim - 1]`."""
        free = jnp.arange(1, self.dim, dtype=self.dtype)  # entries below the diagonal
        concentration, after = align(jnp.expand_dims(self.concentration, -1), (self.dim - 1 - free) / 2)
        return free / 2, concentration + after
