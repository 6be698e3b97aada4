"""Rankings: the Plackett-Luce distribution of permutations, and of their first places."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, ArrayLike, Float, Int, Num

from mcgrad._arguments import check_at_least
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Coupling, Distribution, Relaxation, WeakDerivative
from mcgrad.distributions.classes import LOGITS, check_possible
from mcgrad.distributions.numerics.arithmetic import align, largest_log_odds, open_uniform

MOST_RANKINGS = 4096
"""Rankings up to which all are listed."""


@dataclasses.dataclass(frozen=True)
class PlackettLuce(Distribution):
    r"""Plackett-Luce distribution of rankings of `n` items: drawn one after the other, in proportion to `exp(logits)`.

        P(x) = prod_j exp(logits[x_j]) / sum_{i in none of x_1 .. x_{j-1}} exp(logits[i])

    A draw lists the items of the first `k` places, the first one first. It is where the largest of `logits + Gumbel` noise
    stand, in their order, which is its relaxation: `mcgrad.RELAX` gets these `n` numbers. `mcgrad.MeasureValued` takes an
    evaluation for each item, with the item later in the race; estimators of finite support do for up to 4,096 rankings;
    `mcgrad.Score` does always.

    Args:
        logits: log weights `[..., n]` of the items, up to a constant; `-inf` excludes an item.
        k: the number of places, from 1 to `n`; all by default.

    Raises:
        ValueError: for a `k` that is no number of places, and for concrete logits that are outside their domain or leave fewer
            than `k` items possible.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> dist = mcgrad.PlackettLuce(jnp.log(jnp.array([1.0, 2.0, 3.0])))
        >>> round(float(jnp.exp(dist.log_prob(jnp.array([2, 0, 1])))), 4)  # 3/6 * 1/3
        0.1667
        >>> mcgrad.PlackettLuce(jnp.zeros(5), k=2).sample(jax.random.key(0)).shape
        (2,)

    References:
        Plackett 1975, "The Analysis of Permutations", https://doi.org/10.2307/2346567; Gadetsky et al. 2020, section 3 (the
        relaxed draw given a ranking), "Low-Variance Black-Box Gradient Estimates for the Plackett-Luce Distribution",
        https://arxiv.org/abs/1911.10036.
    """

    logits: Float[ArrayLike, "*batch n"]
    k: int | None = static_field(default=None)

    domains: ClassVar = {"logits": LOGITS}
    event_ndim: ClassVar[int] = 1
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.num_items
        words = {"what": f"a number of places, from 1 to the {n} items of `logits`, or None"}
        k = n if self.k is None else check_at_least(self.k, 1, f"{self.law}(k=...)", n, **words)
        object.__setattr__(self, "k", k)
        check_possible(self.law, self.logits, k)

    @property
    def num_items(self) -> int:
        """The number of items, `n`."""
        return jnp.shape(self.logits)[-1]

    @property
    def event_shape(self) -> Shape:
        return (self._places,)

    @property
    def _places(self) -> int:
        assert self.k is not None  # see `__post_init__`
        return self.k

    def sample(self, key: PRNGKey) -> Int[Array, "*batch k"]:
        """One draw: the items of the first `k` places."""
        logits = jnp.asarray(self.logits)
        minus_gumbel = jnp.log(-jnp.log(open_uniform(key, logits.shape, logits.dtype)))
        return jax.lax.top_k(logits - minus_gumbel, self._places)[1].astype(jnp.int32)

    def log_prob(self, x: Num[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
        """Log probability of the items of the first `k` places; `-inf` for what names no item, or one of them twice."""
        x, logits = align(x, self.logits)
        n = self.num_items
        whole = x.astype(jnp.int32)
        valid = jnp.all((x == whole) & (x >= 0) & (x < n), axis=-1)
        at, chosen, others = self._ranked(jnp.clip(whole, 0, n - 1), logits)
        inside = valid & jnp.all(jnp.sum(at, axis=-2) <= 1, axis=-1) & jnp.all(chosen > -jnp.inf, axis=-1)
        left = self._log_left(jnp.where(inside[..., None], chosen, 0), others)
        total = jnp.sum(jnp.where(inside[..., None], chosen - left, 0), axis=-1)
        return jnp.where(inside, total, -jnp.inf)

    def prob(self, x: Num[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
        return jnp.exp(self.log_prob(x))

    def support(self) -> Int[Array, "m k"] | None:
        """All rankings; `None` if they are over 4,096."""
        n, k = self.num_items, self._places
        return None if math.perm(n, k) > MOST_RANKINGS else jnp.asarray(_rankings(n, k))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in the log weight of each item: the draw against that with the item later in the race.

        Items arrive after exponential times of the rates `exp(logits)`, whose derivative in its logarithm is that time against
        the sum of two such times.
        """
        n, logits = self.num_items, jnp.asarray(self.logits)
        keys = jax.random.split(key)
        noise = [jnp.log(-jnp.log(open_uniform(k, logits.shape, logits.dtype))) for k in keys]
        frozen = stop(logits)
        times = -self._given(x, noise[0], frozen)  # logarithms, [*batch, n]
        later = jnp.logaddexp(times, noise[1] - frozen)
        is_item = jnp.eye(n, dtype=bool).reshape(n, *[1] * (logits.ndim - 1), n)
        race = jnp.where(is_item, later[None], times[None])
        other = jax.lax.top_k(-race, self._places)[1].astype(x.dtype)
        weight = jnp.moveaxis(jnp.where(logits > -jnp.inf, logits, 0), -1, 0)
        is_draw = jnp.ones(weight.shape, bool)
        return (WeakDerivative(("logits",), weight, jnp.broadcast_to(x, other.shape), other, is_draw),)

    def relaxation(self, key: PRNGKey, x: Array, coupled: bool) -> Relaxation:
        """Perturbed log weights `[*batch, n]`: Gumbel draws at `logits`, of which those of the draw are the largest, in order.

        Items that are excluded stand low and still.
        """
        keys = jax.random.split(key)
        logits = jnp.asarray(self.logits)
        noise = [jnp.log(-jnp.log(open_uniform(k, logits.shape, logits.dtype))) for k in keys]
        possible = logits > -jnp.inf
        # up to a constant, without which a draw of the items would be the same
        logits = jnp.where(possible, jax.nn.log_softmax(logits, axis=-1), -jnp.inf)
        held, least = stop(logits), -largest_log_odds(logits.dtype)
        moved = jnp.where(possible, logits - held, 0)
        free = self._given(x, noise[1 if coupled else 0], held) + moved
        given = self._given(x, noise[1], logits)
        free, given = (jnp.where(possible, z, least) for z in (free, given))
        return Relaxation(free, given, self.log_prob(x))

    def _given(self, x: Array, minus_gumbel: Array, logits: Array) -> Array:
        """Gumbel draws at the logits, given which are the largest; minus the logarithms of the times of a race.

        Each place is taken an exponential time after the one before, at the rate of all that are left; what has no place
        arrives after the last of them, at its own rate.
        """
        at, chosen, others = self._ranked(x, logits)
        noise = jnp.sum(jnp.where(at, minus_gumbel[..., None, :], 0), axis=-1)  # [*batch, k]
        waits = noise - self._log_left(chosen, others)
        arrivals = jax.lax.cumlogsumexp(waits, axis=waits.ndim - 1)
        has_place = jnp.any(at, axis=-2)
        placed = jnp.sum(jnp.where(at, arrivals[..., None], 0), axis=-2)
        possible = logits > -jnp.inf
        own = minus_gumbel - jnp.where(possible, logits, 0)
        behind = jnp.logaddexp(jnp.broadcast_to(arrivals[..., -1:], own.shape), own)
        return -jnp.where(has_place, placed, jnp.where(possible, behind, jnp.inf))

    def _ranked(self, x: Array, logits: Array) -> tuple[Array, Array, Array]:
        """Which item stands where `[*batch, k, n]`; the logits of the places; and, of all others, their `logsumexp`."""
        at = jax.nn.one_hot(x, self.num_items, dtype=bool)
        chosen = jnp.sum(jnp.where(at, logits[..., None, :], 0), axis=-1)
        others = jnp.where(jnp.any(at, axis=-2), -jnp.inf, logits)
        top = stop(jnp.max(others, axis=-1, keepdims=True))
        top = jnp.where(top > -jnp.inf, top, 0)
        total = jnp.sum(jnp.exp(others - top), axis=-1)
        log_total = jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)) + top[..., 0], -jnp.inf)
        return at, chosen, log_total

    def _log_left(self, chosen: Array, others: Array) -> Array:
        """The `logsumexp` of what is left at each place."""
        behind = jnp.concatenate([chosen, jnp.broadcast_to(others, chosen.shape[:-1])[..., None]], axis=-1)
        # what has no others would put `-inf` first, where a derivative is not a number
        least = jnp.where(behind > -jnp.inf, behind, jnp.min(chosen, axis=-1, keepdims=True) - 200)
        none = behind[..., -1:] == -jnp.inf
        with_others = jax.lax.cumlogsumexp(least, axis=least.ndim - 1, reverse=True)[..., :-1]
        without = jax.lax.cumlogsumexp(chosen, axis=chosen.ndim - 1, reverse=True)
        return jnp.where(none, without, with_others)


@functools.lru_cache(maxsize=32)
def _rankings(n: int, k: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n), k)), np.int32)
