"""Estimators that draw values of a finite support without replacement: no value is evaluated twice."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mcgrad._arguments import check_field, check_option
from mcgrad._types import static_field
from mcgrad.estimators.finite_support import FiniteSupportEstimator
from mcgrad.estimators.joint_states import Groups, draw_in_turn, log_prob
from mcgrad.program import Draw, Reweighted


class Chosen(NamedTuple):
    """The states of one group of entries with their weights, `sum_i weights[i] f(states[i])` of mean `E[f]`.

    Attributes:
        states: positions of values; states that are not possible must have the weight zero.
        possible: which of them have a positive probability.
        weights: frozen.
        baseline: entry `[i, j]` is the share of `f(states[j])` in the baseline of state `i`.
    """

    states: Int[Array, "k d"]
    possible: Bool[Array, " k"]
    weights: Float[Array, " k"]
    baseline: Float[Array, "k k"] | None


@dataclasses.dataclass(frozen=True)
class WithoutReplacement(FiniteSupportEstimator):
    """What the estimators of this family share: groups of entries, checks, and the form of the result."""

    num_samples: Any = static_field(default=4)

    @property
    def num_points(self) -> int:
        return self.num_samples

    def choose(self, draw: Draw, groups: Groups) -> Chosen:
        """The states of all groups, each field with a leading axis of groups."""
        raise NotImplementedError

    def represent(self, draw: Draw) -> Reweighted:
        groups = Groups(draw)
        states, possible, weights, baseline = self.choose(draw, groups)
        # One that is possible in place of what is not keeps every log probability finite; its weight is zero.
        first = jnp.argmax(possible, axis=1)[:, None, None]
        points = groups.points(jnp.where(possible[..., None], states, jnp.take_along_axis(states, first, axis=1)))
        mixing = None if baseline is None else groups.per_entry(baseline)
        return Reweighted(points, groups.per_entry(weights), jax.vmap(draw.log_prob)(points), mixing)


@dataclasses.dataclass(frozen=True)
class UnorderedSet(WithoutReplacement):
    r"""Unordered set: draws without replacement, each weighted as if it had been the first, whatever the order.

    With the set `S` of `k` draws and the probability `P(S)` of drawing it in any order,

        E[f(x)] = E[ sum_{s in S} w_s f(s) ],    w_s = p(s) P(S - s | s is gone) / P(S)

    and the built-in baseline of `s` is the same estimate of `E[f]` from the others, given `s`:

        b_s = p(s) f(s) + (1 - p(s)) sum_{r in S - s} p(r) P(S - s - r | s and r are gone) / norm * f(r)

    Unbiased, for derivatives of every order; weights sum to one, so a constant in the cost adds no variance. Distributions of
    finite support; `num_samples` evaluations of the rest of the program, later draws with common random numbers. Exact,
    without variance from this draw, where `num_samples` is at least the number of values. Without baseline it is the mean,
    given the set, of the stochastic `mcgrad.SumAndSample`, and so never worse.

    Entries along batch axes that no cost mixes are drawn and weighted apart. Entries that some cost mixes are drawn
    together, as sets of `num_samples` joint states; each cost is still credited with the entries that it depends on only.
    With many entries joint states never repeat, and this becomes leave-one-out of independent samples.

    **A value of probability zero is never drawn**, so a derivative of its probability is not seen, as with the score.

    Args:
        num_samples: draws without replacement, from 1 to 12; the work for the weights doubles with each.
        baseline: `"built_in"`, or `None`.

    Raises:
        ValueError: where built, for another number or baseline; where planned, for a distribution without finite support.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.UnorderedSet(2))
        >>> round(float(mcgrad.grad(loss)(0.0, jax.random.key(0))), 4)  # two values: exact
        0.75

    References:
        Kool, van Hoof and Welling 2020, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement",
        https://arxiv.org/abs/2002.06043; here with weights that have derivatives of every order.
    """

    baseline: Literal["built_in"] | None = static_field(default="built_in")

    def __post_init__(self) -> None:
        check_field(self, "num_samples", 1, MOST_IN_A_SET, way_out=WITHOUT_LIMIT)
        check_option("UnorderedSet(baseline=...)", self.baseline, ("built_in", None))

    def choose(self, draw: Draw, groups: Groups) -> Chosen:
        k = groups.num_states(self.num_samples)

        def one(log_probs: Array, u: Array) -> Chosen:
            states, possible, log_outside = draw_in_turn(log_probs, u)
            log_p = jnp.where(possible, log_prob(log_probs, states), -jnp.inf)
            weights, baseline = set_weights(log_p, log_outside[-1])
            return Chosen(states, possible, weights, None if self.baseline is None or k == 1 else baseline)

        log_probs = groups.log_probs()
        return jax.vmap(one)(log_probs, groups.uniform(k, log_probs.dtype))


MOST_IN_A_SET = 12
"""Draws of an unordered set; its weights go through all of its subsets, here 4,096."""

WITHOUT_LIMIT = ', or use `mcgrad.ImportanceWithoutReplacement(baseline="importance")`, which has no limit'


def set_weights(log_p: Float[Array, " k"], log_outside: Float[Array, ""]) -> tuple[Array, Array]:
    """The weights and the baseline of a set, as `[k]` and `[k, k]`, from log probabilities of its members and of all others.

    That of what is no member is `-inf`.
    """
    k = len(log_p)
    bits = 1 << np.arange(k)
    log_rest = _drawn_next(log_p, log_outside)
    weights = shares(log_p + log_rest[bits])
    # Given that `i` is the first, `j` is the second with a probability in proportion to `p(j) H({i, j})`.
    second = jnp.where(np.eye(k, dtype=bool), -jnp.inf, log_p[None] + log_rest[bits[:, None] | bits])
    own = jnp.where((second > -jnp.inf).any(1), jnp.exp(log_p), 1)
    return weights, jnp.diag(own) + (1 - own)[:, None] * shares(second)


def _drawn_next(log_p: Array, log_outside: Array) -> Array:
    """`log H(A)` for each subset `A`, a bit mask: the probability that, `A` gone, the others of the set are drawn next.

    By recursion over which of them is first: `H(A) = sum_{a not in A} p(a) / left(A) H(A + a)`, where `left(A)` is the
    probability of all that is not in `A`. What has no probability is not waited for.
    """
    k = len(log_p)
    members = (np.arange(2**k)[:, None] >> np.arange(k)) & 1 == 1
    waiting = jnp.where(members, -jnp.inf, log_p[None])
    log_left = jnp.logaddexp(jax.nn.logsumexp(waiting, axis=1), log_outside)
    log_rest = jnp.zeros(2**k, log_p.dtype)
    for size in reversed(range(k)):
        masks = np.array([sum(1 << a for a in subset) for subset in itertools.combinations(range(k), size)])
        then = waiting[masks] + log_rest[masks[:, None] | (1 << np.arange(k))]
        total = jax.nn.logsumexp(then, axis=1)
        log_rest = log_rest.at[masks].set(jnp.where(total > -jnp.inf, total - log_left[masks], 0))
    return log_rest


def shares(log_weights: Array) -> Array:
    """`exp(log_weights)` divided by its sum along the last axis; zeros where all are zero."""
    top = jnp.max(log_weights, axis=-1, keepdims=True)
    weights = jnp.exp(log_weights - jnp.where(top > -jnp.inf, top, 0))
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), jnp.finfo(weights.dtype).tiny)


@dataclasses.dataclass(frozen=True)
class ImportanceWithoutReplacement(WithoutReplacement):
    r"""Importance-weighted draws without replacement: weighted with the probability of being among them.

    Each value arrives after an exponential time with rate `p(s)`. With the first `k` to arrive, `S`, and the time `T` of
    the one after them,

        E[f(x)] = E[ sum_{s in S} w_s f(s) ],    w_s = p(s) / (1 - exp(-p(s) T))

    and a baseline of `s` from the others: that of `mcgrad.UnorderedSet`, or `b_s = sum_{r in S - s} w_r f(r) + p(s) f(s)`.

    Unbiased, for derivatives of every order. **Weights sum to one in the mean only**, so a constant in the cost adds
    variance to the value; of the gradient the first baseline keeps it away, the second does not. Distributions of finite support;
    `num_samples` evaluations of the rest of the program, later draws with common random numbers; exact where `num_samples`
    is at least the number of values. Batch axes as in `mcgrad.UnorderedSet`, and values of probability zero too.

    Args:
        num_samples: draws without replacement, at least 2: with one, and many values, the variance has no bound.
        baseline: `"unordered_set"`, for up to 12 samples, `"importance"`, or `None`.

    Raises:
        ValueError: where built, for another number or baseline; where planned, for a distribution without finite support.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(logits, key):
        ...     x = mcgrad.sample(key, mcgrad.Categorical(logits=logits), mcgrad.ImportanceWithoutReplacement(2))
        ...     return (x - 1.0) ** 2
        >>> mcgrad.grad(loss)(jnp.zeros(3), jax.random.key(0)).shape
        (3,)

    References:
        Kool, van Hoof and Welling 2019, eq. 9 and, for the baseline `"importance"`, eq. 10, with `T = exp(-kappa)`,
        "Stochastic Beams and Where to Find Them", https://arxiv.org/abs/1903.06059.
    """

    baseline: Literal["unordered_set", "importance"] | None = static_field(default="unordered_set")

    def __post_init__(self) -> None:
        options = ("unordered_set", "importance", None)
        check_option("ImportanceWithoutReplacement(baseline=...)", self.baseline, options)
        most = MOST_IN_A_SET if self.baseline == "unordered_set" else None
        way_out = WITHOUT_LIMIT if most else ""
        check_field(self, "num_samples", 2, most, way_out=way_out)

    def choose(self, draw: Draw, groups: Groups) -> Chosen:
        k = groups.num_states(self.num_samples)

        def one(log_probs: Array, u: Array) -> Chosen:
            states, possible, log_outside = draw_in_turn(log_probs, u[:k])
            # One arrival after the other, each at the rate of what is left; never where nothing is.
            time = jnp.sum(-jnp.log(u[k:, 0]) * jnp.exp(-log_outside))
            log_p = jnp.where(possible, log_prob(log_probs, states), -jnp.inf)
            p = jnp.exp(log_p)
            expected = p * jnp.where(jnp.isfinite(time), time, 1)
            small = expected < jnp.finfo(p.dtype).eps
            ratio = jnp.where(small, 1, expected / jnp.where(small, 1, -jnp.expm1(-expected)))
            weights = jnp.where(possible, jnp.where(jnp.isfinite(time), ratio / time, p), 0)
            baseline = None
            if self.baseline == "unordered_set" and k > 1:
                _, baseline = set_weights(log_p, log_outside[-1])
            elif self.baseline == "importance":
                baseline = jnp.where(jnp.eye(k, dtype=bool), p[:, None], weights[None])
            return Chosen(states, possible, weights, baseline)

        log_probs = groups.log_probs()
        return jax.vmap(one)(log_probs, groups.uniform(2 * k + 1, log_probs.dtype))
