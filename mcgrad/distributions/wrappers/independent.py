"""Batch axes read as event axes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Coupling, Relaxation, WeakDerivative
from mcgrad.distributions.wrappers.base import Wrapper, of_inner
from mcgrad.distributions.wrappers.foreign import as_distribution

# Joint values beyond which a finite support counts as unknown: a site with more wants another estimator.
_MAX_SUPPORT = 4096


@dataclasses.dataclass(frozen=True)
class Independent(Wrapper):
    """A distribution whose last batch axes are axes of one draw: `log p(x) = sum_i log p_i(x_i)` over those axes.

    Args:
        base: a distribution of mcgrad, NumPyro, Distrax or TFP-on-JAX.
        reinterpreted_batch_ndims: how many of its last batch axes become event axes.

    Raises:
        ValueError: if `reinterpreted_batch_ndims` is not between 0 and the number of batch axes.
        TypeError: if `base` is no distribution.

    Example:
        >>> import jax.numpy as jnp, mcgrad
        >>> dist = mcgrad.Independent(mcgrad.Bernoulli(logits=jnp.zeros((5, 3))), 1)
        >>> dist.batch_shape, dist.event_shape
        ((5,), (3,))
    """

    base: Any
    reinterpreted_batch_ndims: int = static_field()

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", as_distribution(self.base))
        ndim = self.reinterpreted_batch_ndims
        if isinstance(ndim, bool) or not isinstance(ndim, int) or not 0 <= ndim <= len(self.base.batch_shape):
            raise ValueError(
                "`mcgrad.Independent(reinterpreted_batch_ndims=...)` must be a number of batch axes, between 0 and "
                f"{len(self.base.batch_shape)} for batch shape {self.base.batch_shape}, got {ndim!r}."
                " Give the base distribution more batch axes, or ask for fewer."
            )

    @property
    def _inner(self) -> Any:
        return self.base

    @property
    def _num_kept(self) -> int:
        return len(self.base.batch_shape) - self.reinterpreted_batch_ndims

    @property
    def batch_shape(self) -> Shape:
        """The batch axes that are left."""
        return self.base.batch_shape[: self._num_kept]

    @property
    def event_shape(self) -> Shape:
        """The batch axes that were taken, then those of the base's events."""
        return self.base.batch_shape[self._num_kept :] + self.base.event_shape

    def sample(self, key: PRNGKey) -> Array:
        return self.base.sample(key)

    @of_inner()
    def log_prob(self, x: Any) -> Array:
        """The log density, a sum over the reinterpreted axes."""
        return jnp.sum(self.base.log_prob(x), axis=self._summed)

    @of_inner()
    def prob(self, x: Any) -> Array:
        """The probability, a product over the reinterpreted axes."""
        found = self.base.prob(x)
        if _mesh.is_explicit(jax.typeof(found)):
            return _mesh.product(found, [axis % found.ndim for axis in self._summed])
        return jnp.prod(found, axis=self._summed)

    @of_inner()
    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """The weak derivatives, one entry of a draw moved at a time."""
        axes = self.event_shape[: self.reinterpreted_batch_ndims]
        entries, kept = math.prod(axes), self.batch_shape
        further = self.event_shape[self.reinterpreted_batch_ndims :]
        chosen = jnp.eye(entries, dtype=bool).reshape(1, entries, *[1] * len(kept), *axes, *[1] * len(further))

        def by_entry(array: Array) -> Array:
            """From `[n, *batch, *axes]` to `[n * entries, *batch]`."""
            array = jnp.moveaxis(array.reshape(-1, *kept, entries), -1, 1)
            return array.reshape(-1, *kept)

        def moved(part: Array) -> Array:
            return jnp.where(chosen, part[:, None], x[None, None]).reshape(-1, *x.shape)

        return tuple(
            WeakDerivative(
                term.parameters,
                by_entry(term.weight),
                moved(term.positive),
                moved(term.negative),
                None if term.positive_is_draw is None else by_entry(term.positive_is_draw),
            )
            for term in self.base.weak_derivative(key, x, how)
        )

    @of_inner()
    def moments(self) -> tuple[Array, Array]:
        """Mean and covariance: entries of a draw are independent."""
        mean, roots = self.base.moments()
        axes = self.event_shape[: self.reinterpreted_batch_ndims]
        entries, further = math.prod(axes), mean.ndim - self._num_kept - len(axes)
        chosen = jnp.eye(entries, dtype=bool).reshape(entries, 1, *[1] * self._num_kept, *axes, *[1] * further)
        return mean, jnp.where(chosen, roots[None], 0).reshape(-1, *mean.shape)

    @of_inner()
    def relaxation(self, key: PRNGKey, x: Array, coupled: bool) -> Relaxation:
        """The relaxation of the base."""
        found = self.base.relaxation(key, x, coupled)
        return found._replace(log_prob=jnp.sum(found.log_prob, axis=self._summed))

    @of_inner()
    def in_floats(self) -> Independent:
        """This distribution, with draws of its base in floating point."""
        return dataclasses.replace(self, base=self.base.in_floats())

    @property
    def _summed(self) -> tuple[int, ...]:
        return tuple(range(-self.reinterpreted_batch_ndims, 0))

    def support(self) -> Array | None:
        """All joint values `[n, *event shape]`; `None` if the base has no finite support or they are over 4096."""
        support = getattr(self.base, "support", None)
        values = support() if callable(support) else None
        axes = self.event_shape[: self.reinterpreted_batch_ndims]
        entries = math.prod(axes)
        if values is None or values.shape[0] ** entries > _MAX_SUPPORT:
            return None
        if entries == 0:
            return jnp.zeros((1, *self.event_shape), values.dtype)
        grid = jnp.meshgrid(*[jnp.arange(values.shape[0])] * entries, indexing="ij")
        index = jnp.stack([g.ravel() for g in grid], axis=-1)  # [n^entries, entries]
        return values[index].reshape(-1, *self.event_shape)
