"""The multivariate normal distribution."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL, check_factor, check_one_of
from mcgrad.distributions.derivatives.optimal_transport import rotated_gaussian, transport_gaussian
from mcgrad.distributions.normal import Normal
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.triangular import inverse_of, log_det_of, matmul, matvec, tril

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(Distribution):
    """Multivariate normal distribution `N(loc, L L^T)`: `x = loc + L z` with standard normal `z`.

    `log p(x) = -|L^-1 (x - loc)|^2 / 2 - sum(log diag(L)) - d log(2 pi) / 2`.

    Args:
        loc: the mean `[..., d]`.
        scale_tril: `L`, lower triangular with positive diagonal `[..., d, d]`. What stands above the diagonal of a
            traced array is not read.
        scale_diag: in place of `scale_tril`, the diagonal of a diagonal `L`, positive, `[..., d]`.

    Raises:
        ValueError: if not exactly one of `scale_tril` and `scale_diag` is given, a concrete parameter is outside its
            domain, or the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, mcgrad
        >>> mcgrad.MultivariateNormal(jnp.zeros((5, 3)), scale_tril=jnp.eye(3)).batch_shape
        (5,)
    """

    loc: Float[ArrayLike, "... d"]
    scale_tril: Float[ArrayLike, "... d d"] | None = dataclasses.field(default=None, kw_only=True)
    scale_diag: Float[ArrayLike, "... d"] | None = dataclasses.field(default=None, kw_only=True)

    domains: ClassVar = {
        "loc": dataclasses.replace(REAL, event_ndim=1),
        "scale_tril": dataclasses.replace(REAL, event_ndim=2),
        "scale_diag": dataclasses.replace(POSITIVE, event_ndim=1),
    }
    event_ndim: ClassVar[int] = 1
    reparameterized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_of("MultivariateNormal", scale_tril=self.scale_tril, scale_diag=self.scale_diag)
        super().__post_init__()
        _check_scale(self, "scale_tril" if self.scale_diag is None else "scale_diag")

    def sample(self, key: PRNGKey) -> Float[Array, "*batch d"]:
        return self.of_noise(self.noise(key))

    def noise(self, key: PRNGKey) -> Float[Array, "*batch d"]:
        """The standard normal `z` that `sample(key)` is made of."""
        return jax.random.normal(key, self.batch_shape + self.event_shape, self.dtype)

    def of_noise(self, z: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        if self.scale_tril is None:
            loc, scale, z = align(self.loc, self.scale_diag, z)
            return loc + scale * z
        loc, moved = align(self.loc, matvec(self._factor, z))
        return loc + moved

    def noise_of(self, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch d"]:
        x, loc = align(x, self.loc)
        if self.scale_tril is None:
            difference, scale = align(x - loc, self.scale_diag)
            return difference / scale
        return matvec(inverse_of(jnp.asarray(self.scale_tril)), x - loc)

    def optimal_transport(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The draw `x`, with the derivative of optimal transport; of a diagonal `L` it is that of `loc + L z`."""
        if self.scale_tril is None:
            x, loc, scale = align(x, self.loc, self.scale_diag)
            return loc + scale * stop((x - loc) / scale)
        return transport_gaussian(x, *align(x, self.loc)[1:], self._factor)

    @property
    def adaptive_velocity(self) -> Callable[[Array, Array, Array], Array] | None:
        """The draw that is made of noise, turned with `L`, and coefficients; `None` for a diagonal `L`."""
        return None if self.scale_tril is None else self._rotated

    def _rotated(
        self, z: Float[Array, "*batch d"], rows: Float[Array, "m d"], columns: Float[Array, "m d"]
    ) -> Float[Array, "*batch d"]:
        rows, columns = (c.astype(self.dtype) for c in (rows, columns))
        return self.of_noise(rotated_gaussian(z, self._factor, rows, columns))

    def moments(self) -> tuple[Array, Array]:
        shape = self.batch_shape + self.event_shape
        factor = jnp.broadcast_to(self._factor, (*shape, *self.event_shape))
        return jnp.broadcast_to(self.loc, shape), jnp.moveaxis(factor, -1, 0)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `loc` and in `L`, of standard normal `z = L^-1 (x - loc)`, one entry or pair of `z` each.

        `z + L^-1 d loc` moves the mean of `z_i` by `(L^-1 d loc)_i`, as in `Normal`. With `A = L^-1 d L`, `(I + A) z` moves
        the scale of `z_i` by `A_ii`, as in `Normal`, and `z_i` by `A_ij z_j`: there the density changes by `A_ij z_i z_j`,
        with the weight `A_ij / pi`. In its positive part `z_i` and `z_j` have equal signs, in its negative part opposite ones;
        their sizes are Rayleigh draws in both.
        """
        (d,), batch = self.event_shape, self.batch_shape
        loc, scale = jnp.broadcast_to(self.loc, (*batch, d)), jnp.broadcast_to(self._factor, (*batch, d, d))
        inverse = inverse_of(stop(scale))
        z, relative = matvec(inverse, x - stop(loc)), matmul(inverse, scale)
        key_entries, key_pairs = jax.random.split(key)
        first = lambda array: jnp.moveaxis(array, -1, 0)  # noqa: E731

        def moved(*places: tuple[np.ndarray, Array]) -> Array:
            """Copies of the draw, each with some entries of `z` in place of its own."""
            copies = np.arange(len(places[0][0]))
            new = jnp.broadcast_to(z, (len(copies), *z.shape))
            for indices, values in places:
                new = new.at[copies, ..., indices].set(values)
            return stop(loc[None] + matvec(scale[None], new))

        terms, of_scale = [], ("scale_diag",) if self.scale_tril is None else ("scale_tril",)
        entries = Normal(matvec(inverse, loc - stop(loc)), jnp.diagonal(relative, axis1=-2, axis2=-1))
        for names, entry in zip((("loc",), of_scale), entries.weak_derivative(key_entries, z, how), strict=True):
            positive, negative = (moved((np.arange(d), first(part[0]))) for part in (entry.positive, entry.negative))
            drawn = None if entry.positive_is_draw is None else first(entry.positive_is_draw[0])
            negative = negative if drawn is None else jnp.broadcast_to(x, negative.shape)
            terms.append(WeakDerivative(names, first(entry.weight[0]), positive, negative, drawn))
        if self.scale_tril is not None and d > 1:
            rows, columns = np.tril_indices(d, -1)
            one, two = jnp.sqrt(-2 * jnp.log(open_uniform(key_pairs, (2, len(rows), *batch), self.dtype)))
            sign = jnp.where(first(z[..., rows]) < 0, -1, 1)
            parts = (moved((rows, sign * one), (columns, side * sign * two)) for side in (1, -1))
            terms.append(WeakDerivative(of_scale, first(relative[..., rows, columns]) / math.pi, *parts))
        return tuple(terms)

    @property
    def _factor(self) -> Array:
        """`L`, as a matrix."""
        if self.scale_tril is not None:
            return tril(jnp.asarray(self.scale_tril))
        return jnp.eye(*self.event_shape * 2, dtype=self.dtype) * jnp.expand_dims(jnp.asarray(self.scale_diag), -2)

    def log_prob(self, x: Float[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
        z = self.noise_of(x)
        if self.scale_tril is None:
            log_det = jnp.sum(jnp.log(jnp.asarray(self.scale_diag)), axis=-1)
        else:
            log_det = log_det_of(jnp.asarray(self.scale_tril))
        squares, log_det = align(jnp.sum(z * z, axis=-1), log_det)
        return -0.5 * squares - log_det - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def _check_scale(dist: Any, name: str) -> None:
    """Refuse a scale of other dimensions than those of `loc`, and a matrix that is no factor."""
    scale, wanted = getattr(dist, name), dist.event_shape * dist.domains[name].event_ndim
    if scale.shape[-len(wanted) :] != wanted:
        raise ValueError(
            f"`mcgrad.{dist.law}({name}=...)` must end with shape {wanted} for a `loc` of shape {dist.loc.shape}, got "
            f"{scale.shape}. The last axis of `loc` is the dimension."
        )
    if len(wanted) == 2:
        check_factor(dist.law, scale)
