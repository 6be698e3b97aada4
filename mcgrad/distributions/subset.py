"""Subsets of a given size."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, ArrayLike, Float, Num

from mcgrad._arguments import check_at_least
from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.classes import LOGITS, check_possible, set_dtype_of_draws
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.sums_of_bits import bits_given_sum, quantiles_of, tilt, tree_of_sums

MOST_SUBSETS = 4096
"""Subsets up to which all are listed."""


@dataclasses.dataclass(frozen=True)
class Subset(Distribution):
    r"""Distribution of the subsets of `k` of `n` items, as vectors of bits: `P(x) = exp(logits @ x) / Z` for `k` ones in `x`.

    Independent bits with these log odds, given that `k` of them are one (conditional Bernoulli). A constant added to all logits
    changes nothing. `Z` is the sum over all subsets, exact, by a tree of convolutions: `O(n k)` work in `log2(n)` steps, as are a
    draw and the probabilities of the items.

    Draws are exact, not the `k` largest of perturbed logits, whose distribution is another (`mcgrad.PlackettLuce`). `support()`
    lists up to 4,096 subsets, so that estimators of finite support do for few items; `mcgrad.MeasureValued` takes an evaluation
    for each item, with a subset that differs from the draw in one exchange; `mcgrad.Score` does always. There is no path on which
    one subset becomes another, so `mcgrad.RELAX` is refused. `mcgrad.StraightThrough` moves a draw as its `marginals()` move.

    Args:
        logits: log odds `[..., n]` of the items, up to a constant; `-inf` excludes an item.
        k: the number of items of a subset, from 1 to `n`.
        dtype: of the draws, integers by default.

    Raises:
        TypeError: for a `dtype` that is not of numbers.
        ValueError: for a `k` that is no number of items, and for concrete logits that are outside their domain or leave fewer
            than `k` items possible.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> dist = mcgrad.Subset(jnp.log(jnp.array([1.0, 2.0, 3.0])), 2)
        >>> [round(float(p), 3) for p in dist.marginals()]  # of {0, 1}, {0, 2}, {1, 2}, in proportion to 2, 3, 6
        [0.455, 0.727, 0.818]
        >>> int(dist.sample(jax.random.key(0)).sum())
        2

    References:
        Chen, Dempster and Liu 1994, "Weighted Finite Population Sampling to Maximize Entropy",
        https://doi.org/10.1093/biomet/81.3.457 (the distribution); Ahmed et al. 2023, "SIMPLE: A Gradient Estimator for k-Subset
        Sampling", https://arxiv.org/abs/2210.01941 (its marginals).
    """

    logits: Float[ArrayLike, "*batch n"]
    k: int = static_field()
    dtype: Any = static_field(default=jnp.int32)

    domains: ClassVar = {"logits": LOGITS}
    event_ndim: ClassVar[int] = 1
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_dtype_of_draws(self)
        n = self.num_items
        words = {"what": f"a number of items, from 1 to the {n} of `logits`"}
        object.__setattr__(self, "k", check_at_least(self.k, 1, f"{self.law}(k=...)", n, **words))
        check_possible(self.law, self.logits, self.k)

    @property
    def num_items(self) -> int:
        """The number of items, `n`."""
        return jnp.shape(self.logits)[-1]

    def in_floats(self) -> Subset:
        """This distribution, with draws of the floating dtype of its parameters."""
        return dataclasses.replace(self, dtype=jnp.result_type(self.logits))

    @property
    def _tilted(self) -> Array:
        """Log odds that make `k` ones likely."""
        logits = jnp.asarray(self.logits)
        return logits - tilt(logits, self.k)[..., None]

    def sample(self, key: PRNGKey) -> Num[Array, "*batch n"]:
        """One draw: `n` bits of which `k` are one."""
        levels = self._levels(stop(self._tilted))
        total = jnp.full(self.batch_shape, self.k, jnp.int32)
        bits = bits_given_sum(levels, total, self._noise(key, levels))
        return bits[..., : self.num_items].astype(self.dtype)

    def log_prob(self, x: Num[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        tilted = self._tilted
        of_total = self._prob_of_total(jax.nn.sigmoid(tilted), jax.nn.sigmoid(-tilted))
        log_total = jnp.log(jnp.where(of_total > 0, of_total, jnp.nan))  # of fewer than `k` possible items
        x, one, zero = align(x, jax.nn.log_sigmoid(tilted), jax.nn.log_sigmoid(-tilted))
        inside = jnp.all((x == 0) | (x == 1), axis=-1) & (jnp.sum(x, axis=-1) == self.k)
        # selected, not multiplied: `0 * -inf` is NaN
        log_bits, log_total = align(jnp.sum(jnp.where(x == 1, one, zero), axis=-1), log_total)
        return jnp.where(inside, log_bits - log_total, -jnp.inf)

    def prob(self, x: Num[ArrayLike, "*batch n"]) -> Float[Array, "*batch"]:
        return jnp.exp(self.log_prob(x))

    def marginals(self) -> Float[Array, "*batch n"]:
        """The probability of each item to be drawn, exact and differentiable."""
        return self._marginals()[0]

    def support(self) -> Num[Array, "m n"] | None:
        """All subsets, as bits; `None` if they are over 4,096."""
        n, k = self.num_items, self.k
        return None if math.comb(n, k) > MOST_SUBSETS else jnp.asarray(_subsets(n, k), self.dtype)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in the log odds of each item: with the item against without it, one of which is the draw.

        The other part has the same quantiles on the way down the tree of the other items, and so differs in one of them.
        """
        n, logits = self.num_items, jnp.asarray(self.logits)
        inside, outside = self._marginals()
        slope = stop(inside * outside)  # d P(item) / d logit
        weight = jnp.moveaxis(slope * jnp.where(logits > -jnp.inf, logits, 0), -1, 0)
        bits = x.astype(jnp.int32)
        tilted = stop(self._tilted)
        fresh = self._noise(key, self._levels(tilted))

        def exchanged(item: Array) -> Array:
            is_item = (jnp.arange(n) == item).reshape(*[1] * (bits.ndim - 1), n)
            others = jnp.broadcast_to(is_item, bits.shape)
            levels = self._levels(jnp.where(others, -jnp.inf, tilted))
            room = levels[0].shape[-2] - n
            rest = jnp.where(others, 0, bits)
            given = jnp.pad(rest, [(0, 0)] * (bits.ndim - 1) + [(0, room)])
            flipped = 1 - jnp.take(bits, item, axis=-1)
            total = self.k - flipped
            found = bits_given_sum(levels, total, quantiles_of(levels, given, fresh))[..., :n]
            return jnp.where(others, flipped[..., None], found)

        other = jax.vmap(exchanged)(jnp.arange(n))
        moves = jnp.moveaxis(slope > 0, -1, 0)[..., None]  # there is none where an item is certain
        other = jnp.where(moves, other, bits[None]).astype(x.dtype)
        drawn = jnp.moveaxis(bits == 1, -1, 0)
        same = jnp.broadcast_to(x, other.shape)
        positive, negative = (jnp.where(side[..., None], same, other) for side in (drawn, ~drawn))
        return (WeakDerivative(("logits",), weight, positive, negative, drawn),)

    def _levels(self, tilted: Array) -> list[Array]:
        return tree_of_sums(jax.nn.sigmoid(tilted), jax.nn.sigmoid(-tilted), self.k)

    def _prob_of_total(self, p: Array, q: Array) -> Float[Array, "*batch"]:
        """That `k` of independent bits are one."""
        return tree_of_sums(p, q, self.k)[-1][..., 0, self.k]

    def _marginals(self) -> tuple[Array, Array]:
        """The probabilities of each item to be drawn and not to be, each with all its digits."""
        tilted = self._tilted
        p, q = jax.nn.sigmoid(tilted), jax.nn.sigmoid(-tilted)
        # With `P(k) = p_i P(k - 1 others) + q_i P(k others)`, the two terms' shares, and their factors are derivatives.
        by_p, by_q = jax.grad(lambda p, q: jnp.sum(jnp.log(self._prob_of_total(p, q))), (0, 1))(p, q)
        return p * by_p, q * by_q

    def _noise(self, key: PRNGKey, levels: list[Array]) -> list[Array]:
        """Uniform, for each node above the bits."""
        nodes = [level.shape[-2] for level in levels[1:]]
        if not nodes:
            return []
        u = open_uniform(key, (*self.batch_shape, sum(nodes)), levels[0].dtype)
        return jnp.split(u, np.cumsum(nodes)[:-1], axis=-1)


@functools.lru_cache(maxsize=32)
def _subsets(n: int, k: int) -> np.ndarray:
    members = np.array(list(itertools.combinations(range(n), k)))
    return (members[..., None] == np.arange(n)).any(1).astype(np.int32)
