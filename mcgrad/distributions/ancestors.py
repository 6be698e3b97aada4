"""Distributions of ancestors: which particles a resampling step keeps, as indices of weighted particles.

`n` particles have weights `W = softmax(log_weights)`, with cumulative sums `C_j = W_0 + ... + W_j`. A position `p` in `[0, n)` has
the ancestor `j` with `n C_(j-1) <= p < n C_j`. All schemes put `n` positions so that particle `j` is drawn `n W_j` times in the
mean; they differ in how the positions depend on each other.

The ends `n C_j` are held as integers, whole and 32 bits behind the point, whose sums are exact: draws, and the intervals that
densities are lengths of, agree to the last bit in every precision, and a particle without weight is never drawn.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad import _compat, _mesh
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.checks import Domain
from mcgrad.distributions.numerics.arithmetic import align, is_count

stop = jax.lax.stop_gradient

_LOG_WEIGHTS = Domain(
    "be finite or -inf",
    lambda v: v < np.inf,
    "Pass unnormalized log weights; `-inf` excludes a particle.",
    event_ndim=1,
)
_LAST = np.uint32(2**32 - 1)
"""The largest fraction, of 32 bits."""


@dataclasses.dataclass(frozen=True)
class Ancestors(Distribution):
    """Base of distributions of as many ancestors as there are particles; ancestors are independent where they are batch entries."""

    log_weights: Float[ArrayLike, "*batch n"]

    domains: ClassVar = {"log_weights": _LOG_WEIGHTS}
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if jnp.shape(self.log_weights)[-1] == 0:
            raise ValueError(
                f"`mcgrad.{self.law}(log_weights=...)` must have at least one particle, got shape {jnp.shape(self.log_weights)}. "
                "The last axis is that of the particles."
            )
        if isinstance(self.log_weights, _compat.Tracer):
            return
        if not (np.asarray(self.log_weights) > -np.inf).any(-1).all():
            raise ValueError(
                f"`mcgrad.{self.law}(log_weights=...)` must leave at least one particle possible, got a row of -inf only. "
                "Keep one log weight of each row finite."
            )

    @property
    def batch_shape(self) -> Shape:
        return jnp.shape(self.log_weights)[: jnp.ndim(self.log_weights) - self.event_ndim]

    def sample(self, key: PRNGKey) -> Int[Array, "*batch n"]:
        """One draw of `n` ancestors."""
        weights = jax.nn.softmax(stop(jnp.asarray(self.log_weights)), axis=-1)
        if weights.ndim == 1:
            return self._draw(key, weights)
        rows = weights.reshape(-1, weights.shape[-1])
        return jax.vmap(self._draw)(jax.random.split(key, len(rows)), rows).reshape(weights.shape)

    @abc.abstractmethod
    def _draw(self, key: PRNGKey, weights: Array) -> Array:
        """Of one row of weights."""

    def log_prob(self, x: Int[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        """Log probability of ancestors; `-inf` for those that cannot be."""
        x, log_weights = align(x, self.log_weights)
        x, log_weights = jnp.broadcast_arrays(x, log_weights)
        inside = is_count(x) & (x < x.shape[-1])
        index = jnp.where(inside, x, 0).astype(jnp.int32)

        def of_row(index: Array, inside: Array, log_weights: Array) -> Array:
            log_prob = self._log_prob(index, jax.nn.log_softmax(log_weights))
            return jnp.where(inside if log_prob.ndim else jnp.all(inside), log_prob, -jnp.inf)

        return _rowwise(of_row, x.ndim)(index, inside, log_weights)

    @abc.abstractmethod
    def _log_prob(self, x: Array, log_weights: Array) -> Array:
        """Of one row of ancestors among the particles, and of normalized log weights."""


@dataclasses.dataclass(frozen=True)
class WithReplacement(Ancestors):
    """Independent ancestors, `P(a_i = j) = W_j`: multinomial resampling.

    The same as `n` draws of a `Categorical`, by one sort of cumulative weights instead of `n` times `n` Gumbel draws. Of the
    distributions of ancestors it is the one whose score has the least variance.

    Args:
        log_weights: unnormalized log weights `[..., n]`; `-inf` excludes a particle. The batch shape is that of `log_weights`.

    Raises:
        ValueError: for no particle, a row of `-inf` only, or another concrete weight outside the domain.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> mcgrad.WithReplacement(jnp.array([0.0, -jnp.inf, -jnp.inf])).sample(jax.random.key(0))
        Array([0, 0, 0], dtype=int32)

    References:
        Gordon, Salmond and Smith 1993, "Novel Approach to Nonlinear/Non-Gaussian Bayesian State Estimation".
    """

    def _draw(self, key: PRNGKey, weights: Array) -> Array:
        key_whole, key_part = jax.random.split(key)
        n = len(weights)
        whole = jax.random.randint(key_whole, (n,), 0, n, jnp.int32)
        return _ancestors(_ends(weights), whole, jax.random.bits(key_part, (n,), jnp.uint32))

    def _log_prob(self, x: Array, log_weights: Array) -> Array:
        return log_weights[x]


@dataclasses.dataclass(frozen=True)
class Stratified(Ancestors):
    """Independent ancestors, one at a uniform position in each of `n` strata: `p_i = i + u_i`.

        P(a_i = j) = |[n C_(j-1), n C_j) & [i, i + 1)|

    The expectation of a function of the ancestors is continuous in the weights and differentiable but where some `n C_j` is an
    integer. **Equal weights are such a place**, and near them the score has a heavy tail: with random weights it is unbiased, but
    its variance is infinite. Resample with `mcgrad.smc.resample`, or differentiate the score of `WithReplacement`.

    Args:
        log_weights: see `WithReplacement`.

    Raises:
        ValueError: see `WithReplacement`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> probabilities = jnp.exp(mcgrad.Stratified(jnp.log(jnp.array([0.75, 0.25]))).log_prob(jnp.array([0, 0])))
        >>> [round(p, 4) for p in probabilities.tolist()]
        [1.0, 0.5]

    References:
        Kitagawa 1996, appendix, "Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space Models"; Douc, Cappe and
        Moulines 2005, section 2.2, "Comparison of Resampling Schemes for Particle Filtering", https://arxiv.org/abs/cs/0507025.
    """

    def _draw(self, key: PRNGKey, weights: Array) -> Array:
        n = len(weights)
        return _ancestors(_ends(weights), jnp.arange(n, dtype=jnp.int32), jax.random.bits(key, (n,), jnp.uint32))

    def _log_prob(self, x: Array, log_weights: Array) -> Array:
        low, high, d_low, d_high = _interval(x, jnp.exp(log_weights))
        return _log_length(low, high, d_high - d_low)


@dataclasses.dataclass(frozen=True)
class Systematic(Ancestors):
    """Ancestors at positions that share their uniform number: `p_i = i + u`.

    The joint probability of the ancestors is the length of the interval of the `u` that give them,

        P(a) = min(1, min_i (n C_(a_i) - i)) - max(0, max_i (n C_(a_i - 1) - i))

    which is piecewise linear in the cumulative weights. The expectation of a function of the ancestors is continuous in the
    weights and differentiable but where some `n C_j` is an integer. **Equal weights are such a place**, and near them the score has
    a heavy tail: with random weights it is unbiased, but its variance is infinite, and it grows as the cube of the number of
    particles. Resample with `mcgrad.smc.resample`, or differentiate the score of `WithReplacement`.

    Args:
        log_weights: see `WithReplacement`; the last axis is an event axis.

    Raises:
        ValueError: see `WithReplacement`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> log_prob = mcgrad.Systematic(jnp.log(jnp.array([0.75, 0.25]))).log_prob(jnp.array([0, 0]))
        >>> round(float(jnp.exp(log_prob)), 4)
        0.5

    References:
        Carpenter, Clifford and Fearnhead 1999, "Improved Particle Filter for Nonlinear Problems"; Douc, Cappe and Moulines 2005,
        section 2.4, see `Stratified`.
    """

    event_ndim: ClassVar[int] = 1

    def _draw(self, key: PRNGKey, weights: Array) -> Array:
        whole, part = _ends(weights)
        before = whole + (jax.random.bits(key, (), jnp.uint32) < part)  # how many positions lie below each end
        return _first_above(lambda j, i: before[j] > i, len(weights))

    def _log_prob(self, x: Array, log_weights: Array) -> Array:
        low, high, d_low, d_high = _interval(x, jnp.exp(log_weights))
        at_low, at_high = jnp.argmax(low), jnp.argmin(high)
        possible = jnp.all(low <= high)
        return jnp.where(possible, _log_length(low[at_low], high[at_high], d_high[at_high] - d_low[at_low]), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Residual(Ancestors):
    """Each particle `floor(n W_j)` times, and then independent ancestors with the weights that are left.

        R = n - sum_j floor(n W_j),    P(a_i = j) = (n W_j - floor(n W_j)) / R    for i >= n - R

    Where some `n W_j` passes an integer the distribution jumps, and so does the expectation of a function of the ancestors that
    is not a sum over them. **No score sees that**, so estimators that need one refuse this distribution where a derivative may
    reach the weights. A sum over ancestors has no jump: `mcgrad.smc.resample` differentiates it without bias.

    Args:
        log_weights: see `WithReplacement`.

    Raises:
        ValueError: see `WithReplacement`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> mcgrad.Residual(jnp.log(jnp.array([0.5, 0.25, 0.2, 0.05]))).sample(jax.random.key(0))[:3]
        Array([0, 0, 1], dtype=int32)

    References:
        Liu and Chen 1998, section 3, "Sequential Monte Carlo Methods for Dynamic Systems"; Douc, Cappe and Moulines 2005,
        section 2.3, see `Stratified`.
    """

    support_parameters: ClassVar[tuple[str, ...]] = ("log_weights",)

    def _draw(self, key: PRNGKey, weights: Array) -> Array:
        key_whole, key_part = jax.random.split(key)
        n = len(weights)
        sure, left, num_left = _shares(weights)
        whole = jax.random.randint(key_whole, (n,), 0, jnp.maximum(num_left, 1), jnp.int32)
        drawn = _ancestors(_ends(left / n, num_left), whole, jax.random.bits(key_part, (n,), jnp.uint32))
        return jnp.where(jnp.arange(n) < n - num_left, _sure_ancestors(sure), drawn)

    def _log_prob(self, x: Array, log_weights: Array) -> Array:
        weights = jnp.exp(log_weights)
        sure, left, num_left = _shares(weights)
        chosen = left[x]
        log_prob = jnp.log(jnp.where(chosen > 0, chosen, 1.0)) - jnp.log(jnp.maximum(num_left, 1).astype(weights.dtype))
        drawn = jnp.where(chosen > 0, log_prob, -jnp.inf)
        settled = jnp.where(x == _sure_ancestors(sure), 0.0, -jnp.inf)
        return jnp.where(jnp.arange(len(x)) < len(x) - num_left, settled, drawn)


def _rowwise(fn: Callable[..., Any], ndim: int) -> Callable[..., Any]:
    for _ in range(ndim - 1):
        fn = jax.vmap(fn)
    return fn


def _ends(weights: Array, total: Any = None) -> tuple[Array, Array]:
    """`n C_j`, whole and 32 bits behind the point: sums of integers, which are exact and never fall.

    The last of them, and those of particles behind it without weight, are `total`, by default `n`.
    """
    n = len(weights)
    scaled = n * stop(weights)
    whole = jnp.floor(scaled)
    part = jnp.minimum(jnp.round((scaled - whole) * 2.0**32), 2.0**32 - 256).astype(
        jnp.uint32
    )  # the last float32 below
    ends = jnp.cumsum(part)  # modulo one
    carried = ends < jnp.concatenate([jnp.zeros(1, jnp.uint32), ends[:-1]])
    whole = jnp.cumsum(whole.astype(jnp.int32) + carried)
    total = n if total is None else total
    past = ((whole == whole[-1]) & (ends == ends[-1])) | (whole >= total)
    return jnp.where(past, total, whole), jnp.where(past, 0, ends)


def _ancestors(ends: tuple[Array, Array], whole: Array, part: Array) -> Array:
    """The ancestors of positions, whole and 32 bits behind the point."""
    end_whole, end_part = ends

    def is_above(j: Array, i: Array) -> Array:
        return (end_whole[j] > whole) | ((end_whole[j] == whole) & (end_part[j] > part))

    return _first_above(is_above, len(end_whole))


def _first_above(is_above: Callable[[Array, Array], Array], n: int) -> Array:
    """For each `i` the first `j` for which `is_above(j, i)`, by bisection."""
    places = jnp.arange(n, dtype=jnp.int32)

    def halve(ends: tuple[Array, Array], _: Array) -> tuple[tuple[Array, Array], None]:
        low, high = ends
        middle = (low + high) // 2
        above = is_above(middle, places)
        return (jnp.where(above, low, middle + 1), jnp.where(above, middle, high)), None

    # a loop, not its steps one by one: what they compare would be computed again in each
    (low, _), _ = _mesh.scan(
        halve, (jnp.zeros_like(places), jnp.full_like(places, n - 1)), jnp.arange((n - 1).bit_length())
    )
    return jnp.minimum(low, n - 1)  # of weights that are not numbers, some particle


def _interval(x: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """For each stratum `i`, the least and the largest of the numbers `u` with which `i + u` has the ancestor `x_i`.

    Without any the least is above the largest. Also how the two move with the weights: numbers that are about zero, with the
    derivatives of the ends `n C_j` where these are ends of the interval.
    """
    n = len(x)
    whole, part = _ends(weights)
    whole, part = (jnp.concatenate([jnp.zeros(1, ends.dtype), ends]) for ends in (whole, part))
    places = jnp.arange(n, dtype=jnp.int32)
    low = jnp.where(whole[x] < places, 0, part[x])
    high = jnp.where(whole[x + 1] > places, _LAST, part[x + 1] - 1)
    none = (whole[x] > places) | (whole[x + 1] < places) | ((whole[x + 1] == places) & (part[x + 1] == 0))
    sums = n * jnp.cumsum(weights)
    exact = stop(sums)
    if jnp.finfo(sums.dtype).bits > 32:  # also the digits that the integers do not hold
        exact = whole[1:].astype(sums.dtype) + part[1:].astype(sums.dtype) * 2.0**-32
    moved = jnp.concatenate([jnp.zeros(1, sums.dtype), (sums - exact)[:-1], jnp.zeros(1, sums.dtype)])
    d_low = jnp.where(whole[x] == places, moved[x], 0.0)
    d_high = jnp.where(whole[x + 1] == places, moved[x + 1], 0.0)
    return jnp.where(none, _LAST, low), jnp.where(none, 0, high), d_low, d_high


def _log_length(low: Array, high: Array, moved: Array) -> Array:
    """The logarithm of the length of an interval, which moves as said; `-inf` for none."""
    some = low <= high
    length = (jnp.where(some, high - low, 0).astype(moved.dtype) + 1) * 2.0**-32
    both = length + jnp.where(some, moved, 0.0)
    return jnp.where(some, jnp.log(jnp.where(both > 0, both, length)), -jnp.inf)


def _shares(weights: Array) -> tuple[Array, Array, Array]:
    """How often each particle is taken for sure, what is left of its share, and how many ancestors are drawn."""
    scaled = len(weights) * weights
    sure = stop(jnp.floor(scaled)).astype(jnp.int32)
    return sure, scaled - sure.astype(scaled.dtype), len(weights) - jnp.sum(sure)


def _sure_ancestors(sure: Array) -> Array:
    ends = jnp.cumsum(sure)
    return _first_above(lambda j, i: ends[j] > i, len(sure))
