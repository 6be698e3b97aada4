"""The Wishart distribution of positive definite matrices."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad import _compat
from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL, check_factor
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, open_uniform
from mcgrad.distributions.numerics.gamma import log_density_of_log
from mcgrad.distributions.numerics.triangular import inverse_of, log_det_of, matmul, transposed, tril


@dataclasses.dataclass(frozen=True)
class Wishart(Distribution):
    """Wishart distribution, of `sum_i y_i y_i^T` for `concentration` normal draws `y_i` of mean zero and covariance `S = L L^T`.

        p(x) proportional to det(x)^((concentration - d - 1) / 2) exp(-tr(S^-1 x) / 2)

    for positive definite matrices `x`; the mean is `concentration S`. A draw is `L A A^T L^T` with a lower triangular `A` of
    standard normal draws, and on its diagonal square roots of chi-squared draws of `concentration, ..., concentration - d + 1`
    degrees of freedom (Bartlett): differentiable in both parameters, to every order, with the exact derivative of gamma draws.

    **A draw may be singular to rounding** where `concentration` is close to `d - 1`, and has then no log density. **Where it
    overflows**, entries of `L A` are held at the square root of the largest number, with derivative zero.

    Args:
        concentration: degrees of freedom, need not be whole; any shape; above `d - 1`.
        scale_tril: `L`, lower triangular with positive diagonal `[..., d, d]`. What stands above the diagonal of a
            traced array is not read.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(concentration, key):
        ...     return mcgrad.sample(key, mcgrad.Wishart(concentration, jnp.eye(2)))[0, 0]
        >>> gradient = mcgrad.pathwise_grad(cost, num_samples=4000)(3.0, jax.random.key(0))
        >>> bool(abs(gradient - 1) < 0.05)  # the mean is the concentration
        True

    References:
        Anderson 2003, "An introduction to multivariate statistical analysis", section 7.2 (Bartlett's decomposition).
    """

    concentration: Float[ArrayLike, "*batch"]
    scale_tril: Float[ArrayLike, "*batch d d"]

    domains: ClassVar = {"concentration": POSITIVE, "scale_tril": dataclasses.replace(REAL, event_ndim=2)}
    event_ndim: ClassVar[int] = 2
    reparameterized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_factor(self.law, jnp.asarray(self.scale_tril))
        least = self.event_shape[0] - 1
        if not isinstance(self.concentration, _compat.Tracer) and not (np.asarray(self.concentration) > least).all():
            raise ValueError(
                f"`mcgrad.Wishart(concentration=...)` must be above d - 1 = {least}, got "
                f"{float(np.min(self.concentration))!r}. Pass for instance `{least} + jax.nn.softplus(x)`."
            )

    def sample(self, key: PRNGKey) -> Float[Array, "*batch d d"]:
        factor, size = align(matmul(*align(self._relative, self._standard_factor(key))), self._size)
        limit = math.sqrt(jnp.finfo(self.dtype).max / self.event_shape[0]) / 2
        factor = jnp.clip(jnp.minimum(size, limit) * factor, -limit, limit)
        return matmul(factor, transposed(factor))

    @property
    def _size(self) -> Array:
        """The largest entry of `L`, a constant, `[..., 1, 1]`."""
        return jnp.max(jnp.abs(tril(jax.lax.stop_gradient(self.scale_tril))), (-2, -1), keepdims=True)

    @property
    def _relative(self) -> Array:
        """`L` in units of it: in products with its inverse nothing overflows."""
        return tril(self.scale_tril) / self._size

    def _standard_factor(self, key: PRNGKey) -> Float[Array, "*batch d d"]:
        """`A`."""
        key_normal, key_gamma = jax.random.split(key)
        shape = self.batch_shape + self.event_shape
        halves = jnp.broadcast_to(self._halves, shape[:-1])
        chi = bounded_exp(ExpGamma(halves, jnp.asarray(0.5, self.dtype)).sample(key_gamma) / 2)
        below = tril(jax.random.normal(key_normal, shape, self.dtype), -1)
        return below + jnp.expand_dims(chi, -1) * jnp.broadcast_to(jnp.eye(shape[-1], dtype=self.dtype), shape)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives: those of the independent entries and rows of `A`, of a draw beside `x`, each Hahn-Jordan.

        In `concentration`, one for each chi-squared draw on the diagonal. `L + dL` makes `(I + B) A` of `A`, for `B = L^-1 dL`.
        `B_ii` scales row `i`, whose square is a chi-squared draw of `concentration` degrees, independent of its direction. `B_ij`
        moves row `i` by row `j`: the mean of the normal entry in the direction of row `j` moves by its length, whose mean goes
        into the weight; so the square of row `j` is drawn with one degree more.
        """
        d, batch = self.event_shape[0], self.batch_shape
        key_factor, key_entries, key_rows, key_length, key_radius = jax.random.split(key, 5)
        concentration = jnp.broadcast_to(self.concentration, batch)
        scale = jnp.broadcast_to(tril(self.scale_tril), (*batch, d, d))
        fixed, frozen = jax.lax.stop_gradient((jnp.expand_dims(concentration, -1), scale))
        factor = jax.lax.stop_gradient(self._standard_factor(key_factor))
        relative = matmul(inverse_of(frozen), scale)
        first = lambda array: jnp.moveaxis(array, -1, 0)  # noqa: E731

        def moved(*places: tuple[np.ndarray, Array]) -> Array:
            """Draws with one factor for each number of a row, which has another content: `[n, *batch, d]`."""
            new = jnp.broadcast_to(factor, (len(places[0][0]), *factor.shape))
            for rows, values in places:
                new = new.at[np.arange(len(rows)), ..., rows, :].set(values)
            new = matmul(jnp.broadcast_to(frozen, new.shape), new)
            return matmul(new, transposed(new))

        def roots(term: WeakDerivative) -> list[Array]:
            """Square roots of the two parts, given by their logarithms: `[d, *batch, 1]`."""
            return [jnp.expand_dims(first(bounded_exp(part[0] / 2)), -1) for part in (term.positive, term.negative)]

        rows, each = jnp.moveaxis(factor, -2, 0), np.arange(d)  # [d, *batch, d]
        lengths = jnp.linalg.norm(factor, axis=-1)
        units = rows / jnp.expand_dims(first(lengths), -1)
        on = jnp.eye(d, dtype=bool).reshape(d, *[1] * len(batch), d)
        log_squares = 2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
        half = jnp.asarray(0.5, self.dtype)
        in_entries = ExpGamma(jnp.broadcast_to(self._halves, (*batch, d)), half)
        entries = in_entries.weak_derivative(key_entries, log_squares, how)[0]
        entry_parts = [moved((each, jnp.where(on, root, rows))) for root in roots(entries)]
        terms = [WeakDerivative(("concentration",), first(entries.weight[0]), *entry_parts)]

        own = jnp.diagonal(relative, axis1=-2, axis2=-1)
        in_rows = ExpGamma(
            jnp.broadcast_to(fixed, own.shape) / 2, half * jnp.exp(2 * (jax.lax.stop_gradient(own) - own))
        )
        whole = in_rows.weak_derivative(key_rows, 2 * jnp.log(lengths), how._replace(hahn_jordan=True))[1]
        row_parts = [moved((each, units * root)) for root in roots(whole)]
        terms.append(WeakDerivative(("scale_tril",), first(whole.weight[0]), *row_parts))

        i, j = np.tril_indices(d, -1)
        if len(i):
            unit = units[j]  # [pair, *batch, d]
            log_length = ExpGamma((fixed[..., 0] + 1) / 2, half).sample(key_length) / 2
            longer = unit * jnp.exp(jnp.expand_dims(log_length, -1))[None]
            u = open_uniform(key_radius, (len(i), *batch), self.dtype)
            above, below = (jnp.sqrt(-2 * jnp.log(v)) for v in (u, 1 - u if how.comonotone else u))
            other = rows[i] - jnp.sum(rows[i] * unit, -1, keepdims=True) * unit
            pair_parts = [
                moved((j, longer), (i, other + jnp.expand_dims(along, -1) * unit)) for along in (above, -below)
            ]
            ratio = jnp.exp(special.gammaln((fixed[..., 0] + 1) / 2) - special.gammaln(fixed[..., 0] / 2))
            weight = first(relative[..., i, j]) * ratio[None] / math.sqrt(math.pi)
            terms.append(WeakDerivative(("scale_tril",), weight, *pair_parts))
        return tuple(terms)

    def log_prob(self, x: Float[ArrayLike, "*batch d d"]) -> Float[Array, "*batch"]:
        """Log density in the entries on and below the diagonal; `-inf` where `x` is not positive definite."""
        d, _ = self.event_shape
        x, size, scale = align(x, self._size, self._relative)
        x = x / size / size
        definite = jnp.all(jnp.isfinite(jnp.linalg.cholesky(jax.lax.stop_gradient(x))), (-2, -1), keepdims=True)
        # so that no derivative goes through a factor that does not exist
        factor = jnp.linalg.cholesky(jnp.where(definite, x, jnp.broadcast_to(jnp.eye(d, dtype=x.dtype), x.shape)))
        whitened = matmul(inverse_of(scale), factor)
        diagonal = jnp.diagonal(whitened, axis1=-2, axis2=-1)
        halves, diagonal = jnp.broadcast_arrays(*align(self._halves, diagonal))
        logs, rows = jnp.log(diagonal), jnp.arange(d, dtype=x.dtype)
        # each `W_ii^2 / 2` is a gamma draw, and has a density of its logarithm
        on_diagonal = log_density_of_log(diagonal * diagonal / 2, 2 * logs - math.log(2), halves)
        below = tril(whitened, -1)
        in_rows, squares, definite, determinant = align(
            jnp.sum(on_diagonal + (rows - (d + 1)).reshape((1,) * (logs.ndim - 1) + (d,)) * logs, -1),
            jnp.sum(below * below, (-2, -1)),
            definite[..., 0, 0],
            log_det_of(jnp.asarray(self.scale_tril)),
        )
        log_prob = in_rows - squares / 2 - (d + 1) * determinant - d * (d - 1) / 4 * math.log(2 * math.pi)
        return jnp.where(definite, log_prob, -jnp.inf)

    @property
    def _halves(self) -> Array:
        """Half the degrees of freedom on the diagonal, `[*batch of the concentration, d]`."""
        concentration, lost = align(
            jnp.expand_dims(self.concentration, -1), jnp.arange(self.event_shape[0], dtype=self.dtype)
        )
        return (concentration - lost) / 2
