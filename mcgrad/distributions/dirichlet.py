"""The Dirichlet distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.beta import beta_parts
from mcgrad.distributions.derivatives.optimal_transport import transport_dirichlet
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.gamma import drop_from_mean
from mcgrad.distributions.numerics.gamma_function import log_peak
from mcgrad.distributions.numerics.simplex import softmax


@dataclasses.dataclass(frozen=True)
class Dirichlet(Distribution):
    """Dirichlet distribution on probability vectors: `p(x)` proportional to `prod_i x_i^(a_i - 1)`.

    A draw is the softmax of log-gamma draws, so its derivative in the concentrations is exact, to every order, and
    entries near zero keep their digits; that of `mcgrad.Pathwise(path="optimal_transport")` has less variance. **An entry that
    underflows is the smallest positive number**, with derivative zero: for small concentrations that biases costs in the
    logarithm of such an entry.

    Args:
        concentration: `[*batch, n]`; positive.

    Raises:
        ValueError: if a concrete `concentration` is not positive, or has no axis.
    """

    concentration: Float[ArrayLike, "*batch n"]

    domains: ClassVar = {"concentration": dataclasses.replace(POSITIVE, event_ndim=1)}
    event_ndim: ClassVar[int] = 1
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch n"]:
        logits = ExpGamma(self.concentration, jnp.ones((), self.dtype)).sample(key)
        # an entry that underflows has no log density
        return jnp.maximum(softmax(logits), jnp.finfo(self.dtype).tiny)

    def optimal_transport(self, x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The draw `x`, with the derivative that keeps the quantile of an entry and the proportions of the others."""
        return transport_dirichlet(x, jnp.broadcast_to(self.concentration, x.shape))

    def log_prob(self, x: Float[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        """Log density in the first `n - 1` entries; `x` must add up to one."""
        x, a = jnp.broadcast_arrays(*align(x, self.concentration))
        log_x = jnp.log(jnp.where(x > 0, x, 1.0))
        at_zero = special.xlogy(a - 1, jnp.where(x > 0, 1.0, x))
        n = jnp.sum(a, -1, keepdims=True)
        # what is lost from the mode, `a_i phi(log(n x_i / a_i))` for `phi(t) = exp(t) - 1 - t`; at zero, without its logarithm
        lost = drop_from_mean(n * x, jnp.log(n) + log_x, a)
        return jnp.sum(log_peak(a) + at_zero - log_x - lost, -1) - log_peak(n)[..., 0]

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in each concentration: a large entry against a small one, or the draw itself against a smaller entry.

        The entry has a beta law, of which the others are independent in relation to each other: they are scaled. The smaller entry
        is that of the draw times a factor (see `Beta`).
        """
        a = self.concentration
        rest = jnp.sum(a, -1, keepdims=True) - a
        a, rest = (jnp.moveaxis(jnp.broadcast_to(array, x.shape), -1, 0) for array in (a, rest))  # [n, *batch]
        fixed = jax.lax.stop_gradient((a, rest))
        entry = jnp.eye(x.shape[-1], dtype=bool)
        entry = jnp.moveaxis(entry.reshape(*entry.shape, *[1] * (x.ndim - 1)), 1, -1)  # [n, *1, n]
        others = jnp.maximum(jnp.sum(jnp.where(entry, 0, x[None]), -1, keepdims=True), jnp.finfo(x.dtype).tiny)
        own = jnp.moveaxis(x, -1, 0)

        def moved(entries: Array, left: Array) -> Array:
            scaled = x[None] * (left[..., None] / others)
            return jnp.maximum(jnp.where(entry, entries[..., None], scaled), jnp.finfo(x.dtype).tiny)

        mass, *parts = beta_parts(key, jnp.log(own) - jnp.log(others[..., 0]), *fixed, how)
        drawn = jnp.broadcast_to(x[None], (len(own), *x.shape))
        positive, negative = (drawn if y is None else moved(jax.nn.sigmoid(y), jax.nn.sigmoid(-y)) for y in parts)
        is_draw = None if how.hahn_jordan else jnp.ones(mass.shape, bool)
        return (WeakDerivative(("concentration",), mass * a, positive, negative, is_draw),)
