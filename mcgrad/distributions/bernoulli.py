"""The Bernoulli distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, Relaxation, WeakDerivative
from mcgrad.distributions.checks import LOG_ODDS, PROBABILITY, check_one_of
from mcgrad.distributions.numerics.arithmetic import align, largest_log_odds, open_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bernoulli(Distribution):
    """Bernoulli distribution: `P(1) = probs = sigmoid(logits)`, `P(0) = 1 - P(1)`.

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
    def _given(self) -> Array:
        return jnp.asarray(self.logits if self.probs is None else self.probs)

    @property
    def _success(self) -> Array:
        return jax.nn.sigmoid(self._given) if self.probs is None else self._given

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        """One draw of zeros and ones."""
        return jax.random.bernoulli(key, self._success, self.batch_shape).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        if self.probs is None:  # selected last, so that many draws of one distribution share the logarithms
            x, one, zero = align(x, jax.nn.log_sigmoid(self._given), jax.nn.log_sigmoid(-self._given))
            return jnp.where(x == 1, one, jnp.where(x == 0, zero, -jnp.inf))
        x, p = align(x, self._given)
        # Each logarithm sees the parameter only where it is taken, so that no `0 * inf` is differentiated.
        one = jnp.log(jnp.where(x == 1, p, 1.0))
        zero = jnp.log1p(-jnp.where(x == 0, p, 0.0))
        return jnp.where((x == 0) | (x == 1), one + zero, -jnp.inf)

    def prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        if self.probs is None:  # selected last, so that a loop computes what it selects from once
            x, one, zero = align(x, jax.nn.sigmoid(self._given), jax.nn.sigmoid(-self._given))
        else:
            x, one, zero = align(x, self._given, 1 - self._given)
        return jnp.where(x == 1, one, jnp.where(x == 0, zero, 0.0))

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
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
        """Weak derivative in the probability: 1 against 0, one of which is the draw itself."""
        one = jnp.ones_like(x)
        return (WeakDerivative.single(("logits", "probs"), self._success, one, 0 * one, x == 1),)

    def relaxation(self, key: PRNGKey, x: Int[Array, "*batch"], coupled: bool) -> Relaxation:
        """Perturbed log odds: a logistic draw at `logits`, whose sign tells the draw; held still where it is as good as sure."""
        keys = jax.random.split(key)
        noise = [jax.scipy.special.logit(open_uniform(k, self.batch_shape, self.dtype)) for k in keys]
        logits, is_one = jnp.broadcast_to(self._log_odds, self.batch_shape), x == 1
        most = largest_log_odds(self.dtype)
        sure = jnp.abs(logits) > most
        logits = jnp.where(sure, 0.0, logits)

        def given_draw(noise: Array, logits: Array) -> Array:
            # The quantile of a fraction v of what is on the draw's side of zero, noise = logit(v):
            # log((1 - p + p v) / ((1 - p)(1 - v))) = log(1 + exp(noise) / (1 - p)) above it.
            above = jax.nn.softplus(noise + jax.nn.softplus(logits))
            below = -jax.nn.softplus(-noise + jax.nn.softplus(-logits))
            return jnp.where(sure, jnp.where(is_one, most, -most), jnp.where(is_one, above, below))

        held = jax.lax.stop_gradient(logits)
        free = given_draw(noise[1 if coupled else 0], held) + (logits - held)
        return Relaxation(
            free, given_draw(noise[1], logits), jax.nn.log_sigmoid(jnp.where(is_one, logits, -logits)) * ~sure
        )

    @property
    def _log_odds(self) -> Array:
        given = self._given
        if self.probs is None:
            return given
        inside = (given > 0) & (given < 1)
        p = jnp.where(inside, given, 0.5)  # where the logarithms have a derivative
        return jnp.where(inside, jnp.log(p) - jnp.log1p(-p), jnp.where(given > 0, jnp.inf, -jnp.inf))
