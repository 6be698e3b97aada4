"""The geometric distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.checks import Domain
from mcgrad.distributions.classes import Chances
from mcgrad.distributions.numerics.arithmetic import LARGEST_COUNT, align, is_count

_POSITIVE_PROBABILITY = Domain(
    "lie above 0 and be at most 1",
    lambda v: (v > 0) & (v <= 1),
    "Pass a probability, or unconstrained values as `logits=`.",
)


_POSSIBLE_LOG_ODDS = Domain(
    "be above -inf", lambda v: v > -np.inf, "With a success that never comes there is no distribution."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(Chances):
    """Geometric distribution, the number of failures before a success: `P(x) = p (1 - p)^x` for `x` in `{0, 1, ...}`.

    Draws above the largest `int32` are cut to it.

    Args:
        logits: log odds of a success; any shape; above `-inf`.
        probs: in place of `logits`, the probability `p` of a success; any shape; above 0, and 1 allowed.

    Raises:
        ValueError: if not exactly one parameter is given, or a concrete one is outside its domain.
    """

    domains: ClassVar = {"logits": _POSSIBLE_LOG_ODDS, "probs": _POSITIVE_PROBABILITY}

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        # P(floor(E / rate) >= k) = exp(-rate k) = (1 - p)^k for a standard exponential E
        draw = jnp.floor(jax.random.exponential(key, self.batch_shape, self.dtype) / -self._log_failure(self._given))
        return jnp.minimum(draw, LARGEST_COUNT).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, given = align(x, self._given)
        inside = is_count(x)
        x = jnp.where(inside, x, 0)
        # No failure meets no `log(1 - p)`, so that `0 * -inf` neither arises nor is differentiated.
        log_prob = self._log_success(given) + x * self._log_failure(jnp.where(x == 0, 0.0, given))
        return jnp.where(inside, log_prob, -jnp.inf)

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        x, log_failure = align(x, self._log_failure(self._given))
        most = jnp.finfo(self.dtype).max / 2
        return jnp.where(x < 0, 0.0, -jnp.expm1(log_failure * (jnp.clip(jnp.floor(x), 0, most) + 1)))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Int[Array, "*batch"]:
        """Quantile function: the first count whose distribution function is at least `u`."""
        u, log_failure = align(u, self._log_failure(self._given))
        quantile = jnp.maximum(jnp.ceil(jnp.log1p(-u) / log_failure) - 1, 0)
        return jnp.minimum(quantile, LARGEST_COUNT).astype(jnp.int32)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in the probability: the draw itself against the draw, one more failure, and another draw."""
        another = jnp.minimum(self.sample(key), LARGEST_COUNT - 1 - x)  # as draws are cut
        weight = self._log_success(self._given)
        return (WeakDerivative.single(("logits", "probs"), weight, x, x + 1 + another, True),)
