"""The noise of a gradient, tracked while training."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from mcgrad.diagnostics.statistics import signal_to_noise


class GradientNoise(NamedTuple):
    """State of `mcgrad.gradient_noise`: an exponentially weighted mean and variance of the gradients so far.

    Attributes:
        total_weight: the sum of the weights so far, `1 - decay**t`.
        square_weight: the sum of the squares of the weights, once these sum to one; `1 / square_weight` is the effective
            number of gradients.
        mean: the weighted mean, entry by entry.
        spread: the weighted mean square deviation from it, entry by entry, before its correction for bias.
    """

    total_weight: Float[Array, ""]
    square_weight: Float[Array, ""]
    mean: PyTree[Float[Array, ...]]
    spread: PyTree[Float[Array, ...]]

    @property
    def variance(self) -> PyTree[Float[Array, ...]]:
        """Of one gradient, entry by entry: `spread / (1 - square_weight)`; infinite until two gradients were seen."""

        def corrected(leaf: Array) -> Array:
            known = self.square_weight < 1
            return jnp.where(known, leaf / jnp.where(known, 1 - self.square_weight, 1).astype(leaf.dtype), jnp.inf)

        return jax.tree.map(corrected, self.spread)

    @property
    def signal_to_noise(self) -> PyTree[Float[Array, ""]]:
        """Of one gradient, for each leaf, as in `mcgrad.gradient_statistics`; 0 until two gradients were seen."""
        return jax.tree.map(lambda m, v: signal_to_noise(m, v, self.square_weight), self.mean, self.variance)

    @property
    def total_signal_to_noise(self) -> Float[Array, ""]:
        """Of one gradient as a whole, as in `mcgrad.gradient_statistics`; 0 until two gradients were seen."""
        return signal_to_noise(self.mean, self.variance, self.square_weight)


def gradient_noise(decay: float = 0.99) -> optax.GradientTransformation:
    r"""Tracks mean, variance and signal-to-noise of the gradients that pass through it, and changes nothing.

    With weights `w_i` in proportion to `decay**(t - i)` that sum to one over the gradients `g_1, ..., g_t`,

        mean = sum_i w_i g_i,    variance = sum_i w_i (g_i - mean)**2 / (1 - sum_i w_i**2)

    Both are unbiased at every step for independent, identically distributed gradients. While training moves the parameters,
    the variance also includes how far the mean gradient moved within the last `1 / (1 - decay)` steps. Put this first in an
    `optax.chain`, where it sees the gradients before anything changes them. After a gradient that is not finite all of these
    are NaN.

    Args:
        decay: the ratio of the weight of each gradient to that of the next newer one, in `(0, 1)`.

    Returns:
        An `optax.GradientTransformation` whose state is a `GradientNoise`.

    Raises:
        ValueError: for a `decay` outside `(0, 1)`.

    Example:
        >>> import jax.numpy as jnp, mcgrad, optax
        >>> optimizer = optax.chain(mcgrad.gradient_noise(0.9), optax.sgd(0.1))
        >>> state = optimizer.init(jnp.zeros(2))
        >>> for sign in (1.0, -1.0, 1.0):
        ...     updates, state = optimizer.update(jnp.array([3.0 + sign, 0.0]), state)
        >>> state[0].signal_to_noise.shape
        ()

    References:
        West 1979, "Updating mean and variance estimates: an improved method", https://doi.org/10.1145/359146.359153;
        Kingma and Ba 2015, section 3 (correction of the first steps), "Adam", https://arxiv.org/abs/1412.6980.
    """
    if not 0 < decay < 1:
        raise ValueError(
            f"`mcgrad.gradient_noise(decay=...)` must be in (0, 1), got {decay!r}. Pass 0.99, for instance."
        )

    def init(params: Any) -> GradientNoise:
        mean, spread = (
            jax.tree.map(jnp.zeros_like, params) for _ in range(2)
        )  # not one array twice: they may be donated
        return GradientNoise(jnp.zeros(()), jnp.ones(()), mean, spread)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, GradientNoise]:
        total_weight = decay * state.total_weight + (1 - decay)
        a = (1 - decay) / total_weight  # of the newest gradient, once the weights sum to one; 1 at the first step

        def spread(s: Array, m: Array, g: Array) -> Array:
            return (1 - a).astype(s.dtype) * (s + a.astype(s.dtype) * (g - m) ** 2)

        return updates, GradientNoise(
            total_weight,
            (1 - a) ** 2 * state.square_weight + a**2,
            jax.tree.map(lambda m, g: m + a.astype(m.dtype) * (g - m), state.mean, updates),
            jax.tree.map(spread, state.spread, state.mean, updates),
        )

    return optax.GradientTransformation(init, update)
