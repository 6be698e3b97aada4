"""Several coupled draws of a distribution of finite support, of all entries together, and the differences of their costs."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Bool, Float, Int

from mcgrad._arguments import check_field, check_option
from mcgrad._types import static_field
from mcgrad.estimators.binary import dirichlet_copula
from mcgrad.estimators.finite_support import FiniteSupportEstimator, each_value, position
from mcgrad.program import Draw, SignedPoints, zero_with_derivative_of

_OTHERS = 0xCA2
"""Folded into a draw's key: for the draws beside that of a plain run."""


def _log_derivative(p: Array, inside: Array) -> Array:
    """Zeros with the derivatives of `log p` where it is `inside`, and so not zero."""
    return zero_with_derivative_of(p) / jnp.where(inside, stop(p), 1)


def _differences_from_first(
    draw: Draw, positions: Int[Array, "*plates k"], coefficients: Float[Array, "*plates n"]
) -> SignedPoints:
    """`sum_j c_j (f(x_j) - f(x_0))` for values at positions in the support, all entries of a draw together."""
    points = jnp.asarray(draw.facts.support)[jnp.moveaxis(positions, -1, 0)]
    return SignedPoints(points[0], points[1:], jnp.moveaxis(coefficients, -1, 0), relative=True, joint=True)


@dataclasses.dataclass(frozen=True)
class ARSM(FiniteSupportEstimator):
    r"""Augment-REINFORCE-swap-merge: the draw again, with each two of its noise variates swapped.

    For `n` values, `pi` uniform on the simplex and `x_ij` the draw `argmin_k pi_k / p_k` with `pi_i` and `pi_j` swapped,

        dE[f(x)] / dlogit_c = E[ sum_j (1/n - pi_j) (f(x_cj) - 1/n sum_m f(x_mj)) ]

    Unbiased, for the first derivative; a second one raises. A constant in the cost cancels. Distributions of finite support;
    `n (n - 1) / 2` evaluations of the rest of the program more, however many entries there are, which swap together;
    later draws with common random numbers. `mcgrad.LocalExpectation` takes fewer where no cost mixes the entries.

    Raises:
        ValueError: where the program is planned, for a distribution without finite support.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Categorical(logits=logits), mcgrad.ARSM())
        >>> mcgrad.grad(loss)(jnp.zeros(4), jax.random.key(0)).shape
        (4,)

    References:
        Yin, Yue and Zhou 2019, "ARSM: Augment-REINFORCE-Swap-Merge Estimator for Gradient Backpropagation Through
        Categorical Variables", https://arxiv.org/abs/1905.01413.
    """

    def represent(self, draw: Draw) -> SignedPoints:
        p = each_value(draw, draw.prob)  # [*plates, n]
        n, inside = p.shape[-1], stop(p) > 0
        own = position(draw, draw.sample())  # of a plain run
        # Given which of the arrivals, at rates `p`, comes first, it comes at an exponential time, and the others later by times
        # as they were: an exponential distribution has no memory.
        later = -jnp.log(draw.uniform(n, dtype=p.dtype, index=_OTHERS))
        first_time = jnp.take_along_axis(later, own[..., None], axis=-1)
        arrivals = stop(p) * first_time + jnp.where(jax.nn.one_hot(own, n, dtype=bool), 0, later)
        shares = arrivals / jnp.sum(arrivals, axis=-1, keepdims=True)
        first, second = np.triu_indices(n, 1)
        swaps = np.tile(np.arange(n), (len(first) + 1, 1))  # the first swaps nothing
        swaps[1:][np.arange(len(first)), first], swaps[1:][np.arange(len(first)), second] = second, first
        swapped = shares[..., swaps]  # [*plates, 1 + pairs, n]
        late = jnp.log(swapped) - jnp.log(jnp.where(inside, stop(p), 1))[..., None, :]
        x = jnp.argmin(jnp.where(inside[..., None, :], late, jnp.inf), axis=-1)
        x = jnp.concatenate([own[..., None], x[..., 1:]], axis=-1)
        # With derivatives of the logits for `c`, the coefficient of `f(x_cj)` is that of the pair `c, j` and of `j, c`.
        logits = jnp.where(inside, _log_derivative(p, inside), 0)
        logits = logits - jnp.mean(logits, axis=-1, keepdims=True)
        weights = 1 / n - shares
        coefficients = weights[..., second] * logits[..., first] + weights[..., first] * logits[..., second]
        return _differences_from_first(draw, x, coefficients)


@dataclasses.dataclass(frozen=True)
class CARMS(FiniteSupportEstimator):
    r"""CARMS: leave-one-out over `n` negatively dependent draws, each pair corrected for the dependence.

    Each entry has `n` exchangeable draws `x_i` of the distribution, of which any two have the joint probabilities `J`. Then

        dE[f(x)] = E[ 1/(n (n-1)) sum_{i != j} r(x_i, x_j)/2 (f(x_i) - f(x_j)) (dlog p(x_i) - dlog p(x_j)) ],
        r(a, b) = p(a) p(b) / J(a, b)

    The draws, that of a plain run and others, are quantiles of uniform variates from a Dirichlet copula, over the values in a
    random order: one of those with another first and another last, so that all pairs of values come up. With two values, the
    rarer one first, this is `mcgrad.ARMS`; with independent draws it would be `mcgrad.Score` with leave-one-out.

    Unbiased, for the first derivative; a second one raises. A constant in the cost cancels. Distributions of finite support;
    `num_samples` evaluations of the rest of the program, however many entries there are; later draws with common random
    numbers. `J` takes work in proportion to the square of the number of values. **With two samples and many values the
    correction costs more variance than the dependence saves**; take three or more.

    Args:
        num_samples: draws `n` of each entry, at least 2.

    Raises:
        ValueError: where built, for another number; where planned, for a distribution without finite support.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Categorical(logits=logits), mcgrad.CARMS(3))
        >>> mcgrad.grad(loss)(jnp.zeros(4), jax.random.key(0)).shape
        (4,)

    References:
        Dimitriev and Zhou 2021, "CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator",
        https://arxiv.org/abs/2110.14002. The draws are by quantiles, over orders of the values of our
        own, for which `J` is a short sum.
    """

    num_samples: int = static_field(default=4)

    def __post_init__(self) -> None:
        check_field(self, "num_samples", 2)

    def represent(self, draw: Draw) -> SignedPoints:
        n = self.num_samples
        p = each_value(draw, draw.prob)  # [*plates, values]
        frozen = stop(p)
        low, high = _intervals(frozen)  # [*plates, orders, values]
        num_orders = low.shape[-2]
        noise = draw.uniform(n + 1, dtype=p.dtype, index=_OTHERS)
        order = jnp.minimum((noise[..., n] * num_orders).astype(jnp.int32), num_orders - 1)
        chosen = jnp.take_along_axis(high, order[..., None, None], axis=-2)  # [*plates, 1, values]
        inside = frozen[..., None, :] > 0
        # The first is the draw of a plain run, anywhere in its interval; the others are drawn given that.
        first = position(draw, draw.sample())[..., None]
        width = jnp.take_along_axis(frozen, first, axis=-1)[..., 0]
        top = jnp.take_along_axis(chosen[..., 0, :], first, axis=-1)[..., 0]
        u = dirichlet_copula(jnp.clip(top - width * noise[..., 0], 0, 1), noise[..., 1:n])[
            ..., None
        ]  # [*plates, n - 1, 1]
        # The first value whose interval reaches over `u`; the last one's does up to rounding.
        reaching = jnp.where(
            inside & (chosen >= jnp.minimum(u, jnp.max(chosen, axis=-1, keepdims=True))), chosen, jnp.inf
        )
        others = jnp.argmin(reaching, axis=-1).astype(jnp.int32)
        x = jnp.concatenate([first.astype(jnp.int32), others], axis=-1)  # [*plates, n]
        own = jnp.take_along_axis(frozen, x, axis=-1)
        # The corner of a first and a last value has at least the probability of independence, so that the ratio is at most
        # the number of orders, which single precision may not see.
        independent = own[..., :, None] * own[..., None, :]
        share = independent / jnp.maximum(_joint(low, high, x, n), independent / num_orders)
        share = jnp.where(x[..., :, None] == x[..., None, :], 0, share)
        scores = zero_with_derivative_of(jnp.take_along_axis(p, x, axis=-1)) / own  # of the log probabilities
        coefficients = jnp.sum(share * (scores[..., :, None] - scores[..., None, :]), axis=-1) / (n * (n - 1))
        return _differences_from_first(draw, x, coefficients[..., 1:])


def _intervals(p: Float[Array, "*plates values"]) -> tuple[Array, Array]:
    """The interval of the unit line that each value has in each order of the values, as `[*plates, orders, values]`.

    There is an order for each two values: one is the first, the other the last, and those between them stand as they are.
    """
    values = np.arange(p.shape[-1])
    first, last = np.triu_indices(len(values), 1) if len(values) > 1 else np.zeros((2, 1), int)
    place = np.where(values == last[:, None], len(values), values)
    place = np.where(values == first[:, None], -1, place)
    before = jnp.asarray(place[:, None] < place[..., None], p.dtype)  # [orders, value, those before it]
    low = jnp.einsum("...v,owv->...ow", p, before)
    return low, low + p[..., None, :]


def _joint(low: Array, high: Array, x: Int[Array, "*plates n"], n: int) -> Float[Array, "*plates n n"]:
    """The joint probabilities of each two draws, in the mean over the orders.

    The copula of two of the variates is `C(u, v) = max(u^a + v^a - 1, 0)^(1/a)` with `a = 1 / (n - 1)`.
    """

    def edge(values: Array) -> Array:  # [*plates, orders, n]
        at = jnp.take_along_axis(values, x[..., None, :], axis=-1)
        return jnp.clip(at, 0, 1) ** (1 / (n - 1))

    def copula(u: Array, v: Array) -> Array:
        return jnp.maximum(u[..., :, None] + v[..., None, :] - 1, 0) ** (n - 1)

    low, high = edge(low), edge(high)
    both = copula(high, high) - copula(low, high) - copula(high, low) + copula(low, low)
    return jnp.mean(both, axis=-3)


@dataclasses.dataclass(frozen=True)
class TreeDisARM(FiniteSupportEstimator):
    r"""DisARM of a draw made by binary choices: an antithetic pair of walks down a tree whose leaves are the values.

    At node `i` a walk goes left with the probability `s_i` of what is on the left there, of log odds `a_i`. Both walks,
    to `x` and to `y`, use the same uniform variates, antithetic at each node, with choices `b_i` and `c_i`. Then

        dE[f(x)] = E[ 1/2 (f(x) - f(y)) sum_i g_i da_i ],
        g_i = (-1)^(c_i) 1[b_i != c_i] max(s_i, 1 - s_i)    where both walks pass node i,
        g_i = b_i - s_i    where only the first does,    g_i = s_i - c_i    where only the second does

    Unbiased, for the first derivative; a second one raises. A constant in the cost cancels. Distributions of finite support; one
    evaluation of the rest of the program more, however many values and entries there are; later draws with common random
    numbers. The first walk ends at the draw of a plain run. For two values this is `mcgrad.DisARM`.

    Args:
        tree: `"balanced"`, which halves the values in their order, or `"stick_breaking"`, which asks for the first, then
            the second, and so on: better where the first values are the likely ones.

    Raises:
        ValueError: where built, for another tree; where planned, for a distribution without finite support.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Categorical(logits=logits), mcgrad.TreeDisARM())
        >>> mcgrad.grad(loss)(jnp.zeros(4), jax.random.key(0)).shape
        (4,)

    References:
        Dong, Mnih and Tucker 2021 (stick breaking and tree), "Coupled Gradient Estimators for Discrete Latent Variables",
        https://arxiv.org/abs/2106.08056.
    """

    tree: Literal["balanced", "stick_breaking"] = static_field(default="balanced")

    def __post_init__(self) -> None:
        check_option("TreeDisARM(tree=...)", self.tree, ("balanced", "stick_breaking"))

    def represent(self, draw: Draw) -> SignedPoints:
        p = each_value(draw, draw.prob)  # [*plates, values]
        sides = _sides(p.shape[-1], self.tree)
        left, right = (jnp.einsum("...v,iv->...i", p, jnp.asarray(side, p.dtype)) for side in sides)
        inside = (stop(left) > 0) & (stop(right) > 0)
        total = jnp.where(inside, stop(left + right), 1)
        # At a node with nothing on one side the walk, if it comes there, goes to the other.
        goes_left = jnp.where(inside, stop(left) / total, stop(left) > 0)
        goes_right = jnp.where(inside, stop(right) / total, stop(left) <= 0)
        # The first walk ends at the draw of a plain run; the variates on its way are drawn given that.
        x = position(draw, draw.sample())
        on_left, passes = (jnp.asarray(np.moveaxis(side, 0, -1)) for side in (sides[0], sides[0] | sides[1]))
        b, first = on_left[x], passes[x]  # [*plates, nodes]
        v = draw.uniform(left.shape[-1], dtype=p.dtype, index=_OTHERS)
        u = jnp.where(first, jnp.where(b, goes_right + v * goes_left, v * goes_right), v)
        c = u < goes_left
        y = _leaf(c, sides)
        second = passes[y]
        together = jnp.where(b != c, jnp.where(c, -1, 1) * jnp.maximum(goes_left, goes_right), 0)
        apart = jnp.where(first, b - goes_left, goes_left - c)
        weight = 0.5 * jnp.where(first & second, together, jnp.where(first | second, apart, 0))
        log_odds = _log_derivative(left, inside) - _log_derivative(right, inside)
        coefficient = -jnp.sum(jnp.where(inside, weight, 0) * log_odds, axis=-1)
        return _differences_from_first(draw, jnp.stack([x, y], axis=-1), coefficient[..., None])


def _sides(num_values: int, tree: str) -> np.ndarray:
    """Which values stand left and right of each inner node, as `[2, nodes, values]`."""
    every = np.arange(num_values)
    sides, waiting = [], [every]
    for values in waiting:  # which grows meanwhile
        if len(values) > 1:
            at = 1 if tree == "stick_breaking" else len(values) // 2
            both = [values[:at], values[at:]]
            sides.append([np.isin(every, side) for side in both])
            waiting += both
    return np.swapaxes(np.array(sides, bool).reshape(-1, 2, num_values), 0, 1)


def _leaf(goes_left: Bool[Array, "*plates nodes"], sides: np.ndarray) -> Array:
    """The position of the value that a walk ends at: the one that disagrees with no node."""
    left, right = (jnp.expand_dims(jnp.asarray(side), tuple(range(goes_left.ndim - 1))) for side in sides)
    choice = goes_left[..., None]
    return jnp.argmax(jnp.all(jnp.where(choice, ~right, ~left), axis=-2), axis=-1).astype(jnp.int32)
