"""The negative binomial distribution."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, Domain
from mcgrad.distributions.classes import Chances
from mcgrad.distributions.derivatives.beta import log_odds_cdf
from mcgrad.distributions.gamma import ExpGamma
from mcgrad.distributions.geometric import Geometric
from mcgrad.distributions.numerics.arithmetic import LARGEST_COUNT, align, is_count, log_one_minus_exp, open_uniform
from mcgrad.distributions.numerics.beta import log_odds_log_prob
from mcgrad.distributions.numerics.counts import poisson

_FAILING_PROBABILITY = Domain(
    "be at least 0 and below 1",
    lambda v: (v >= 0) & (v < 1),
    "Pass the probability of a success, of which there are finitely many before the last failure, or log odds as `logits=`.",
)

_FAILING_LOG_ODDS = Domain(
    "be below inf", lambda v: v < np.inf, "With a failure that never comes there is no distribution."
)
_NO_MORE = 1e18
"""A count that no draw comes near: the beta distribution is not known for parameters of any size."""

_LARGEST_RATE = 2**31 - 2**18  # less than the largest integer by five standard deviations of a draw


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Chances):
    """Negative binomial distribution, the number of successes before `total_count` failures, in independent trials.

        P(x) = Gamma(x + r) / (x! Gamma(r)) (1 - p)^r p^x for x in {0, 1, ...}, r = total_count,

    with the mean `r p / (1 - p)` and the variance `r p / (1 - p)^2`, as in TFP and PyTorch. **`p` is the probability of what is
    counted**: SciPy's `nbinom(r, q)` takes `q = 1 - p`, and so does `mcgrad.Geometric(probs=q)`, the case `r = 1`.

    **JAX draws from it with the default (threefry) keys only.** Draws above the largest `int32` are cut to about it.

    Args:
        total_count: the number of failures `r`, which need not be whole; any shape; positive.
        logits: log odds of a success; any shape that broadcasts with `total_count`; below `inf`, and `-inf` allowed.
        probs: in place of `logits`, the probability `p` of a success; below 1, and 0 allowed.

    Raises:
        ValueError: if not exactly one of `logits` and `probs` is given, a concrete parameter is outside its domain, or
            the shapes do not broadcast.

    References:
        Kemp 1981, "Efficient generation of logarithmically distributed pseudo-random variables", algorithm LK (in
        `weak_derivative`).
    """

    total_count: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"total_count": POSITIVE, "logits": _FAILING_LOG_ODDS, "probs": _FAILING_PROBABILITY}

    @property
    def _never(self) -> float:
        """The parameter with which there is no success."""
        return -jnp.inf if self.probs is None else 0.0

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        key_rate, key_count = jax.random.split(key)
        r, given = (jnp.broadcast_to(array, self.batch_shape) for array in (self.total_count, self._given))
        # a logarithm: for a small `total_count` a gamma draw may underflow where its product with the odds does not
        log_rate = ExpGamma(r, 1.0).sample(key_rate) + self._log_odds(given)
        rate = jnp.exp(jnp.minimum(log_rate, np.log(_LARGEST_RATE)))
        return jnp.minimum(poisson(key_count, rate), LARGEST_COUNT)

    def log_prob(self, x: Int[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, r, given = jnp.broadcast_arrays(*align(x, self.total_count, self._given))
        inside = is_count(x)
        possible = inside & (x > 0) & (given != self._never)
        # x P(x) is the density of the log odds of a draw from Beta(x, r), at those of p: so it keeps its digits for large
        # parameters, where the logarithms of gamma functions cancel. Zero successes meet no `log(p)`.
        log_odds = self._log_odds(jnp.where(possible, given, 0.5))
        x_safe = jnp.where(possible, x, 1).astype(self.dtype)
        some = log_odds_log_prob(log_odds, x_safe, r) - jnp.log(x_safe)
        none = r * self._log_failure(given)
        return jnp.where(inside & (x == 0), none, jnp.where(possible, some, -jnp.inf))

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        """Distribution function, by that of the beta distribution, with exact derivatives in both parameters."""
        x, r, given = jnp.broadcast_arrays(*align(x, self.total_count, self._given))
        possible = given != self._never
        within = (x >= 0) & (x < jnp.inf) & possible
        # at most k successes: a draw of Beta(r, k + 1) is below 1 - p
        k = jnp.minimum(jnp.where(within, jnp.floor(x), 0).astype(self.dtype), _NO_MORE)
        below = log_odds_cdf(-self._log_odds(jnp.where(possible, given, 0.5)), r, k + 1)
        return jnp.where(within, below, jnp.where(x < 0, 0.0, jnp.where(x >= 0, 1.0, jnp.nan)))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in the probability and in `total_count`, with the draw itself as one part.

        In the probability the other part is one more success than the draw, and those before one more failure; in `total_count`
        the draw and a number from the logarithmic distribution.

        The generating function is `((1 - p) / (1 - p s))^r`. Its derivative in `r` is its product with
        `log(1 - p) - log(1 - p s)`: `c = -log(1 - p)` times the generating function of the logarithmic distribution, less one. That
        in `p` is its product with `r (s / (1 - p s) - 1 / (1 - p))`.
        """
        r, given = (jnp.broadcast_to(array, self.batch_shape) for array in (self.total_count, self._given))
        key_more, key_rate, key_logarithmic = jax.random.split(key, 3)
        rate = -jax.lax.stop_gradient(self._log_failure(given))  # -log(1 - p)
        room = LARGEST_COUNT - 1 - x  # as draws are cut

        another = Geometric(logits=-given) if self.probs is None else Geometric(probs=1 - given)
        more = jnp.minimum(another.sample(key_more), room) + 1
        # Given a uniform u, it has the geometric distribution that goes on with probability 1 - (1 - p)^u.
        t = rate * open_uniform(key_rate, self.batch_shape, self.dtype)
        failures = jax.random.exponential(key_logarithmic, self.batch_shape, self.dtype) / -log_one_minus_exp(-t)
        logarithmic = jnp.minimum(jnp.floor(failures), room.astype(self.dtype)).astype(jnp.int32) + 1

        weight = jax.lax.stop_gradient(r) * self._log_failure(given)
        return (
            WeakDerivative.single(("logits", "probs"), weight, x, x + more, True),
            WeakDerivative.single("total_count", rate * r, x + logarithmic, x, False),
        )
