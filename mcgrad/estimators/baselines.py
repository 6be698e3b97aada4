"""Baselines that learn: a running mean of past costs, and a function that the program fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._arguments import describe
from mcgrad._types import PyTree


class MovingAverageState(NamedTuple):
    """What a moving average has seen.

    Attributes:
        total: the sum of past values, each weighted by `decay` to the power of its age.
        weight: the sum of these weights.
    """

    total: Array
    weight: Array

    @property
    def mean(self) -> Array:
        """The weighted mean of past values, without bias to the start; zero before the first."""
        some = self.weight > 0
        return jnp.where(some, self.total / jnp.where(some, self.weight, 1), 0)


class MovingAverage(NamedTuple):
    """A pair of functions, as in optax.

    Attributes:
        init: `init(shape=())` returns the state before any value.
        update: `update(value, state)` returns the state with one more value, of the shape that `init` got.
    """

    init: Callable[..., MovingAverageState]
    update: Callable[[Any, MovingAverageState], MovingAverageState]


def moving_average(decay: float) -> MovingAverage:
    r"""A baseline that is the running mean of past costs, for a training loop or a `scan` over steps of training.

        b_t = sum_{s<t} decay^(t-1-s) c_s / sum_{s<t} decay^(t-1-s)

    **A baseline must not contain the sample that it is subtracted from**: pass `state.mean` to the program, and update the state
    with what it returned afterwards. The gradient is then unbiased in every step, of every order, and at the first, where
    `state.mean` is zero, it is that without a baseline. The sum and its weight are kept apart, so that the mean is not biased to
    the start and a small or large `decay` does not make it grow.

    Args:
        decay: at least 0, the last value alone, and below 1.

    Returns:
        `init` and `update`; states are pytrees of arrays and hold no derivatives.

    Raises:
        TypeError, ValueError: for a `decay` that is no number from 0 on and below 1.

    Example:
        >>> import jax, mcgrad
        >>> average = mcgrad.moving_average(0.9)
        >>> def loss(logits, baseline, key):
        ...     x = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score(baseline))
        ...     return (x + 3.0) ** 2
        >>> def step(carry, key):
        ...     logits, state = carry
        ...     value, gradient = mcgrad.value_and_grad(loss)(logits, state.mean, key)
        ...     return (logits - 0.01 * gradient, average.update(value, state)), value
        >>> keys = jax.random.split(jax.random.key(0), 100)
        >>> (logits, state), values = jax.lax.scan(step, (0.0, average.init()), keys)
        >>> bool(9.0 < state.mean < 16.0)
        True

    References:
        Mnih and Gregor 2014, section 2.3, "Neural Variational Inference and Learning in Belief Networks",
        https://arxiv.org/abs/1402.0030; Kingma and Ba 2015, section 3 (the debiasing), https://arxiv.org/abs/1412.6980.
    """
    if isinstance(decay, bool) or not isinstance(decay, (int, float)):
        raise TypeError(f"`mcgrad.moving_average(decay=...)` must be a number, got {describe(decay)}. Pass 0.9.")
    if not 0 <= decay < 1:
        raise ValueError(f"`mcgrad.moving_average(decay=...)` must be at least 0 and below 1, got {decay}. Pass 0.9.")

    def init(shape: tuple[int, ...] = ()) -> MovingAverageState:
        return MovingAverageState(jnp.zeros(shape), jnp.zeros(()))

    def update(value: Any, state: MovingAverageState) -> MovingAverageState:
        if jnp.shape(value) != jnp.shape(state.total):
            raise ValueError(
                f"`mcgrad.moving_average(...).update(value, state)` must get a value of shape {jnp.shape(state.total)}, got "
                f"{jnp.shape(value)}. Begin with `init({jnp.shape(value)})`, or take a mean."
            )
        value = jax.lax.stop_gradient(jnp.asarray(value, state.total.dtype))
        return MovingAverageState(decay * state.total + value, decay * state.weight + 1)

    return MovingAverage(init, update)


@dataclasses.dataclass(frozen=True)
class Fitted(PyTree):
    """What `fitted` returns: a baseline that is fitted along with the program.

    Attributes:
        value: the baseline, of a shape that broadcasts to the batch shape of the draw.
    """

    value: Float[Array, ...]


def fitted(value: Float[ArrayLike, ...]) -> Fitted:
    r"""A baseline that the program computes before the draw and whose parameters are fitted by the same gradient: a critic.

    `mcgrad.Score(baseline=mcgrad.fitted(critic(phi, state)))` subtracts `b = critic(phi, state)` as any array, and gives `phi` the
    derivative of

        |s| / 2 sum (b - G / s)^2

    where `G` is what the draw is credited with, in the units of the output, and `s` how much the output grows with the baseline:
    the discount of the first cost that depends on the draw, one over the number of examples, the sign of a reward. So `b` learns
    the return from that cost on in the units in which it is subtracted, however the output is written. This term has no
    value, and **no derivative in anything but what `value` is made of**: the expected derivatives of all else, of every order,
    do not change. A parameter that `value` and the rest of the program share gets the sum of both; hold what they share fixed in
    one of them by `jax.lax.stop_gradient`.

    In loops too, with a return for each step; with several samples of the transform each sample is fitted. Derivatives in reverse
    mode (`jax.grad`, `jax.hessian`, ...), not in forward mode alone. The fitting has first derivatives.

    Args:
        value: a floating-point array that the program computes before the draw, and that broadcasts to its batch shape.

    Raises:
        TypeError: for what is no floating-point array.

    Example:
        >>> import jax, mcgrad
        >>> def loss(params, key):
        ...     baseline = mcgrad.fitted(params["critic"])
        ...     x = mcgrad.sample(key, mcgrad.Bernoulli(logits=params["logits"]), mcgrad.Score(baseline))
        ...     return (x + 3.0) ** 2
        >>> gradient = mcgrad.grad(loss)({"logits": 0.0, "critic": 2.0}, jax.random.key(0))
        >>> float(gradient["critic"]) in (2.0 - 9.0, 2.0 - 16.0)
        True

    References:
        Mnih and Gregor 2014, section 2.3 (input-dependent baselines), https://arxiv.org/abs/1402.0030; Schulman et al. 2015,
        section 3.3, https://arxiv.org/abs/1506.05254.
    """
    if not isinstance(value, float) and not jnp.issubdtype(getattr(value, "dtype", object), jnp.floating):
        raise TypeError(
            f"`mcgrad.fitted(value=...)` must be a floating-point array, got {describe(value)}. Pass what your network returns."
        )
    return Fitted(jnp.asarray(value))
