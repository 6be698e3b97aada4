"""DisARM for more than two values: binary choices along a tree."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Bool

from mcgrad._arguments import check_option
from mcgrad._types import static_field
from mcgrad.estimators.finite_support import FiniteSupportEstimator, differences_from_first, each_value, log_derivative
from mcgrad.program import Draw, SignedPoints


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
    numbers. For two values this is `mcgrad.DisARM`.

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
        u = draw.uniform(left.shape[-1], dtype=p.dtype)
        b, c = u > goes_right, u < goes_left
        x, y = _leaf(b, sides), _leaf(c, sides)
        passes = jnp.asarray(np.moveaxis(sides[0] | sides[1], 0, -1))  # [values, nodes]
        first, second = passes[x], passes[y]
        together = jnp.where(b != c, jnp.where(c, -1, 1) * jnp.maximum(goes_left, goes_right), 0)
        apart = jnp.where(first, b - goes_left, goes_left - c)
        weight = 0.5 * jnp.where(first & second, together, jnp.where(first | second, apart, 0))
        log_odds = log_derivative(left) - log_derivative(right)
        coefficient = -jnp.sum(jnp.where(inside, weight, 0) * log_odds, axis=-1)
        return differences_from_first(draw, jnp.stack([x, y], axis=-1), coefficient[..., None])


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
