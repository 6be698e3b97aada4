"""The Bernoulli law."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import (
    LOG_ODDS,
    PROBABILITY,
    Coupling,
    Distribution,
    WeakDerivative,
    align,
    check_one_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bernoulli(Distribution):
    """Bernoulli law: `P(1) = probs = sigmoid(logits)`, `P(0) = 1 - P(1)`.

    Args:
        logits: log odds of 1; any shape; infinite ones allowed.
        probs: in place of `logits`, the probability of 1; any shape; between 0 and 1, both allowed.

    Raises:
        ValueError: if not exactly one parameter is given, or a concrete one is outside its domain.

    Example:
        >>> import jax, mcgrad
        >>> mcgrad.Bernoulli(logits=0.0).support()
        Array([0, 1], dtype=int32)
    """

    logits: Float[ArrayLike, "*batch"] | None = None
    probs: Float[ArrayLike, "*batch"] | None = None

    domains: ClassVar = {"logits": LOG_ODDS, "probs": PROBABILITY}
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_of("Bernoulli", logits=self.logits, probs=self.probs)
        super().__post_init__()

    @property
    def _success(self) -> Array:
        return jax.nn.sigmoid(self.logits) if self.probs is None else self.probs

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        """One draw of zeros and ones."""
        return jax.random.bernoulli(key, self._success, self.batch_shape).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log probability of a value; `-inf` for what is neither 0 nor 1."""
        if self.probs is None:  # selected last, so that many draws of one law share the logarithms
            x, one, zero = align(x, jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits))
            return jnp.where(x == 1, one, jnp.where(x == 0, zero, -jnp.inf))
        x, p = align(x, self.probs)
        # Each logarithm sees the parameter only where it is taken, so that no `0 * inf` is differentiated.
        one = jnp.log(jnp.where(x == 1, p, 1.0))
        zero = jnp.log1p(-jnp.where(x == 0, p, 0.0))
        return jnp.where((x == 0) | (x == 1), one + zero, -jnp.inf)

    def prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Probability of a value, with a finite derivative everywhere."""
        if self.probs is None:  # selected last, so that a loop computes what it selects from once
            x, one, zero = align(x, jax.nn.sigmoid(self.logits), jax.nn.sigmoid(-self.logits))
        else:
            x, one, zero = align(x, self.probs, 1 - self.probs)
        return jnp.where(x == 1, one, jnp.where(x == 0, zero, 0.0))

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        """Distribution function."""
        x, p = align(x, self._success)
        return jnp.where(x < 0, 0.0, jnp.where(x < 1, 1 - p, 1.0))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Int[Array, "*batch"]:
        """Quantile function: 1 where `u > 1 - probs`."""
        u, p = align(u, self._success)
        return (u > 1 - p).astype(jnp.int32)

    def support(self) -> Int[Array, " 2"]:
        """The values 0 and 1."""
        return jnp.arange(2, dtype=jnp.int32)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """In the probability: 1 against 0, one of which is the draw itself."""
        one = jnp.ones_like(x)[None]
        return (WeakDerivative(("logits", "probs"), self._success[None], one, 0 * one, (x == 1)[None]),)
