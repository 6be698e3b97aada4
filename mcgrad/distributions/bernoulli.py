"""The Bernoulli distribution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Relaxation, WeakDerivative
from mcgrad.distributions.classes import Bits
from mcgrad.distributions.numerics.arithmetic import align, largest_log_odds, open_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bernoulli(Bits):
    """Bernoulli distribution: `P(1) = probs = sigmoid(logits)`, `P(0) = 1 - P(1)`.

    Args:
        logits: log odds of 1; any shape; infinite ones allowed.
        probs: in place of `logits`, the probability of 1; any shape; between 0 and 1, both allowed.
        dtype: of the draws, integers by default.

    Raises:
        TypeError: for a `dtype` that is not of numbers.
        ValueError: if not exactly one parameter is given, or a concrete one is outside its domain.

    Example:
        >>> import jax, mcgrad
        >>> mcgrad.Bernoulli(logits=0.0).support()
        Array([0, 1], dtype=int32)
    """

    def sample(self, key: PRNGKey) -> Num[Array, "*batch"]:
        """One draw of zeros and ones."""
        return jax.random.bernoulli(key, self._success(self._given), self.batch_shape).astype(self.dtype)

    def log_prob(self, x: Num[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        if self.probs is None:  # selected last, so that many draws of one distribution share the logarithms
            x, one, zero = align(x, self._log_success(self._given), self._log_failure(self._given))
            return jnp.where(x == 1, one, jnp.where(x == 0, zero, -jnp.inf))
        x, p = align(x, self._given)
        # Each logarithm sees the parameter only where it is taken, so that no `0 * inf` is differentiated.
        one, zero = self._log_success(jnp.where(x == 1, p, 1.0)), self._log_failure(jnp.where(x == 0, p, 0.0))
        return jnp.where((x == 0) | (x == 1), one + zero, -jnp.inf)

    def prob(self, x: Num[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, one, zero = align(x, self._success(self._given), self._failure(self._given))
        # selected last, so that a loop computes what it selects from once
        return jnp.where(x == 1, one, jnp.where(x == 0, zero, 0.0))

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        x, p = align(x, self._success(self._given))
        return jnp.where(x < 0, 0.0, jnp.where(x < 1, 1 - p, 1.0))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Num[Array, "*batch"]:
        """Quantile function: 1 where `u > 1 - probs`."""
        u, p = align(u, self._success(self._given))
        return (u > 1 - p).astype(self.dtype)

    def support(self) -> Num[Array, " 2"]:
        """The values 0 and 1."""
        return jnp.arange(2, dtype=self.dtype)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in the probability: 1 against 0, one of which is the draw itself."""
        one = jnp.ones_like(x)
        return (WeakDerivative.single(("logits", "probs"), self._success(self._given), one, 0 * one, x == 1),)

    def relaxation(self, key: PRNGKey, x: Num[Array, "*batch"], coupled: bool) -> Relaxation:
        """Perturbed log odds: a logistic draw at `logits`, whose sign tells the draw; held still where it is as good as sure."""
        keys = jax.random.split(key)
        given, is_one = jnp.broadcast_to(self._given, self.batch_shape), x == 1
        noise = [jax.scipy.special.logit(open_uniform(k, self.batch_shape, given.dtype)) for k in keys]
        most = largest_log_odds(given.dtype)
        sure = self._is_sure(given)
        logits = self._log_odds(jnp.where(sure, 0.5, given))  # where the logarithms have a derivative
        sure = sure | (jnp.abs(logits) > most)
        logits = jnp.where(sure, 0.0, logits)

        def given_draw(noise: Array, logits: Array) -> Array:
            # The quantile of a fraction v of what is on the draw's side of zero, noise = logit(v):
            # log((1 - p + p v) / ((1 - p)(1 - v))) = log(1 + exp(noise) / (1 - p)) above it.
            above = jax.nn.softplus(noise + jax.nn.softplus(logits))
            below = -jax.nn.softplus(-noise + jax.nn.softplus(-logits))
            return jnp.where(sure, jnp.where(is_one, most, -most), jnp.where(is_one, above, below))

        held = jax.lax.stop_gradient(logits)
        free = given_draw(noise[1 if coupled else 0], held) + (logits - held)
        log_prob = jax.nn.log_sigmoid(jnp.where(is_one, logits, -logits)) * ~sure
        return Relaxation(free, given_draw(noise[1], logits), log_prob, jnp.where(sure, free, logits))
