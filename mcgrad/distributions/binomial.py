"""The binomial distribution."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad import _compat
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.checks import check_shapes, check_trials
from mcgrad.distributions.classes import Chances
from mcgrad.distributions.derivatives.beta import log_odds_cdf_of_constants
from mcgrad.distributions.numerics.arithmetic import align, is_count, open_uniform
from mcgrad.distributions.numerics.counts import binomial
from mcgrad.distributions.numerics.gamma import log_poisson
from mcgrad.distributions.numerics.gamma_function import log_peak


@dataclasses.dataclass(frozen=True)
class Binomial(Chances):
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
    largest_count: int | None = static_field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        count = self.total_count
        count = jnp.asarray(count) if isinstance(count, (list, tuple)) else count
        check_trials("Binomial", count)
        super().__post_init__()
        check_shapes("Binomial", {"total_count": (jnp.shape(count), 0), "probability": (jnp.shape(self._given), 0)})
        if not isinstance(count, _compat.Tracer):
            object.__setattr__(self, "largest_count", int(np.max(np.asarray(count), initial=0)))
        object.__setattr__(self, "total_count", jnp.asarray(count, jnp.int32))

    @property
    def batch_shape(self) -> Shape:
        return jnp.broadcast_shapes(jnp.shape(self.total_count), jnp.shape(self._given))

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        """One draw of numbers of successes."""
        n, p = (jnp.broadcast_to(array, self.batch_shape) for array in (self.total_count, self._success(self._given)))
        return binomial(key, n.astype(self.dtype), p).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._log_prob(*jnp.broadcast_arrays(*align(x, self.total_count, self._given)))

    def _log_prob(self, x: Array, n: Array, given: Array) -> Array:
        inside = is_count(x) & (x <= n)
        x = jnp.where(inside, x, 0)
        k, m, n = (count.astype(self.dtype) for count in (x, n - x, n))
        # A count of zero meets no parameter, so that `0 * -inf` neither arises nor is differentiated.
        success = self._log_success(jnp.where(k == 0, 1.0, given))
        failure = self._log_failure(jnp.where(m == 0, 0.0, given))
        # That of Poisson counts of means `n p` and `n (1 - p)`, given their sum: nothing of the size of the counts cancels.
        most = jnp.maximum(n, 1)
        log_n = jnp.log(most)
        between = log_poisson(k, n * self._success(given), log_n + success) + log_n - log_peak(most)
        between = between + log_poisson(m, n * self._failure(given), log_n + failure)
        return jnp.where(inside, jnp.where((k == 0) | (m == 0), k * success + m * failure, between), -jnp.inf)

    def prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, n, given = jnp.broadcast_arrays(*align(x, self.total_count, self._given))
        inside = is_count(x) & (x <= n)
        x = jnp.where(inside, x, 0)
        sure = self._is_sure(given)
        between = jnp.exp(self._log_prob(x, n, jnp.where(sure, 0.5, given)))
        # Where all trials come out alike, with derivatives in `p` for the few that do not.
        p, q = self._success(given), self._failure(given)
        k, m = x.astype(self.dtype), (n - x).astype(self.dtype)
        few = jnp.minimum(k, m) <= _FEW
        factorials = [special.gammaln(jnp.where(few, count, 0) + 1) for count in (k + m, k, m)]
        choices = jnp.where(few, jnp.exp(factorials[0] - factorials[1] - factorials[2]), 0.0)
        return jnp.where(inside, jnp.where(sure, choices * jnp.power(p, k) * jnp.power(q, m), between), 0.0)

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        """Distribution function, by that of the beta distribution."""
        x, n, given = jnp.broadcast_arrays(*align(x, self.total_count, self._given))
        within = (x >= 0) & (x < n)
        k = jnp.where(within, jnp.floor(x), 0).astype(self.dtype)
        n = jnp.where(within, n, 1).astype(self.dtype)
        sure = self._is_sure(given)
        inner = jnp.where(sure, 0.5, given)
        # at most k successes: a draw of Beta(n - k, k + 1) is below 1 - p
        below = log_odds_cdf_of_constants(-self._log_odds(inner), n - k, k + 1)
        p, q = self._success(given), self._failure(given)
        at_end = jnp.where(
            k == 0, jnp.power(q, n), jnp.where(k == n - 1, 1 - jnp.power(p, n), (p < 0.5).astype(p.dtype))
        )
        return jnp.where(within, jnp.where(sure, at_end, below), jnp.where(x < 0, 0.0, 1.0))

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
        return (WeakDerivative.single(("logits", "probs"), n * self._success(given), positive, negative, success),)


_FEW = 4
"""Derivatives of the probability of more at `p = 0` are zero to as many orders."""
