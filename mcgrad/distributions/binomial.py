"""The binomial distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad import _compat
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import LOG_ODDS, PROBABILITY, check_one_of, check_shapes, check_trials
from mcgrad.distributions.numerics.arithmetic import align, is_count, open_uniform


@dataclasses.dataclass(frozen=True)
class Binomial(Distribution):
    """Binomial distribution: `P(x) = C(n, x) p^x (1 - p)^(n - x)` for `x` in `{0, ..., n}`, `n = total_count`.

    Args:
        total_count: the number of trials `n`; integers of any shape. Where it is concrete, the support is known.
        logits: log odds of a success; any shape that broadcasts with `total_count`; infinite ones allowed.
        probs: in place of `logits`, the probability `p` of a success; 0 and 1 allowed.

    Raises:
        ValueError: if not exactly one of `logits` and `probs` is given, a concrete parameter is outside its domain, or
            the shapes do not broadcast.
        TypeError: if `total_count` is no integer.
    """

    total_count: Int[ArrayLike, "*batch"]
    logits: Float[ArrayLike, "*batch"] | None = dataclasses.field(default=None, kw_only=True)
    probs: Float[ArrayLike, "*batch"] | None = dataclasses.field(default=None, kw_only=True)
    largest_count: int | None = static_field(init=False, default=None, repr=False)

    domains: ClassVar = {"logits": LOG_ODDS, "probs": PROBABILITY}
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_one_of("Binomial", logits=self.logits, probs=self.probs)
        count = self.total_count
        check_trials("Binomial", count)
        super().__post_init__()
        check_shapes("Binomial", {"total_count": (jnp.shape(count), 0), "probability": (jnp.shape(self._given), 0)})
        if not isinstance(count, _compat.Tracer):
            object.__setattr__(self, "largest_count", int(np.max(np.asarray(count), initial=0)))
        object.__setattr__(self, "total_count", jnp.asarray(count, jnp.int32))

    @property
    def _given(self) -> Array:
        return jnp.asarray(self.logits if self.probs is None else self.probs)

    @property
    def batch_shape(self) -> Shape:
        """Shape of the independent entries."""
        return jnp.broadcast_shapes(jnp.shape(self.total_count), jnp.shape(self._given))

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        """One draw of numbers of successes."""
        p = jax.nn.sigmoid(self._given) if self.probs is None else self._given
        n, p = (jnp.broadcast_to(array, self.batch_shape) for array in (self.total_count, p))
        return jax.random.binomial(key, n.astype(self.dtype), p, self.batch_shape, self.dtype).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log probability of a value; `-inf` outside `{0, ..., n}`."""
        x, n, given = align(x, self.total_count, self._given)
        inside = is_count(x) & (x <= n)
        x = jnp.where(inside, x, 0)
        # A count of zero meets no parameter, so that `0 * -inf` neither arises nor is differentiated.
        none, all_ = x == 0, x == n
        if self.probs is None:
            success = jax.nn.log_sigmoid(jnp.where(none, 0.0, given))
            failure = jax.nn.log_sigmoid(-jnp.where(all_, 0.0, given))
        else:
            success = jnp.log(jnp.where(none, 1.0, given))
            failure = jnp.log1p(-jnp.where(all_, 0.0, given))
        return jnp.where(inside, self._log_choices(x, n) + x * success + (n - x) * failure, -jnp.inf)

    def prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Probability of a value, with a finite derivative also where it is zero."""
        x, n, given = align(x, self.total_count, self._given)
        inside = is_count(x) & (x <= n)
        x = jnp.where(inside, x, 0)
        p, q = (jax.nn.sigmoid(given), jax.nn.sigmoid(-given)) if self.probs is None else (given, 1 - given)
        powers = jnp.power(p, x.astype(p.dtype)) * jnp.power(q, (n - x).astype(p.dtype))
        return jnp.where(inside, jnp.exp(self._log_choices(x, n)) * powers, 0.0)

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        """Distribution function, by the incomplete beta function."""
        x, n, given = align(x, self.total_count, self._given)
        within = (x >= 0) & (x < n)
        k = jnp.where(within, jnp.floor(x), 0).astype(self.dtype)
        n = jnp.where(within, n, 1).astype(self.dtype)
        failure = jax.nn.sigmoid(-given) if self.probs is None else 1 - given
        return jnp.where(within, special.betainc(n - k, k + 1, failure), jnp.where(x < 0, 0.0, 1.0))

    def support(self) -> Int[Array, " n"] | None:
        """The values `0, ..., max(total_count)`; `None` if `total_count` was traced."""
        return None if self.largest_count is None else jnp.arange(self.largest_count + 1, dtype=jnp.int32)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivative in the probability: `1 + Y` against `Y`, for `Y` the successes of all trials but one.

        Taking away one trial of the draw, a success with probability `x / n`, makes `Y`; so one of the two is the draw.
        """
        n, given = (jnp.broadcast_to(array, self.batch_shape) for array in (self.total_count, self._given))
        u = open_uniform(key, self.batch_shape, self.dtype)
        success = (u * n < x) | (x == n)
        positive = jnp.where(success, x, x + 1)
        negative = jnp.maximum(jnp.where(success, x - 1, x), 0)  # at n = 0, where the weight is zero
        p = jax.nn.sigmoid(given) if self.probs is None else given
        return (WeakDerivative.single(("logits", "probs"), n * p, positive, negative, success),)

    def _log_choices(self, x: Array, n: Array) -> Array:
        x, n = x.astype(self.dtype), n.astype(self.dtype)
        return special.gammaln(n + 1) - special.gammaln(x + 1) - special.gammaln(n - x + 1)
