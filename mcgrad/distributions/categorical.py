"""Distributions of one of finitely many classes: as an integer, or as a one-hot vector."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Num

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Relaxation, WeakDerivative
from mcgrad.distributions.classes import Bits, Classes
from mcgrad.distributions.numerics.arithmetic import align, largest_log_odds, open_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneClass(Classes, abc.ABC):
    """Base of `Categorical` and `OneHotCategorical`."""

    def _draw(self, key: PRNGKey) -> Array:
        logits = self._given if self.probs is None else jnp.log(self._given)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.int32)

    def log_prob(self, x: Num[ArrayLike, "*batch *event"]) -> Float[Array, "*batch"]:
        if self.probs is None:
            return self._select(jax.nn.log_softmax(self._given, axis=-1), x, -jnp.inf)
        chosen, total = align(self._select(self._given, x, 0.0), jnp.sum(self._given, axis=-1))
        return jnp.log(chosen) - jnp.log(total)  # selected first: no `log` of the classes that are not asked for

    def prob(self, x: Num[ArrayLike, "*batch *event"]) -> Float[Array, "*batch"]:
        return self._select(self._normalized(), x, 0.0)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in the probabilities: each class, by the derivative of its probability, against the draw itself."""
        weight = jnp.moveaxis(self._normalized(), -1, 0)  # [n, *batch]
        every = self.support().reshape(self.num_classes, *[1] * len(self.batch_shape), *self.event_shape)
        x = jnp.broadcast_to(x, (self.num_classes, *x.shape))
        is_draw = jnp.zeros(weight.shape, bool)
        return (WeakDerivative(("logits", "probs"), weight, jnp.broadcast_to(every, x.shape), x, is_draw),)

    def relaxation(self, key: PRNGKey, x: Array, coupled: bool) -> Relaxation:
        """Perturbed log probabilities `[*batch, n]`: Gumbel draws at `log p`, of which that of the draw is the largest.

        Classes that do not come up stand low and still, and the others' probabilities are normalized without them.
        """
        keys = jax.random.split(key)
        shape, dtype = (*self.batch_shape, self.num_classes), self._given.dtype
        noise = [jnp.log(-jnp.log(open_uniform(k, shape, dtype))) for k in keys]  # minus Gumbel draws
        least = -largest_log_odds(dtype)
        if self.probs is None:
            log_p, possible = self._given, self._given > -jnp.inf
        else:
            possible = self._given > 0
            log_p = jnp.log(jnp.where(possible, self._given, 1.0))  # where the logarithm has a derivative
        masked = jnp.where(possible, log_p, -jnp.inf)
        comes_up = jax.lax.stop_gradient(jax.nn.log_softmax(masked, axis=-1)) > least
        log_p = jax.nn.log_softmax(jnp.where(comes_up, log_p, -jnp.inf), axis=-1)
        log_p = jnp.where(comes_up, log_p, 0.0)
        is_draw = self._is_class(x)

        def given_draw(noise: Array, log_p: Array) -> Array:
            # The largest is a Gumbel draw at log sum p = 0; the others lie below it: -log(exp(-largest) + exp(noise) / p).
            minus_largest = jnp.sum(jnp.where(is_draw, noise, 0.0), axis=-1, keepdims=True)
            others = -jnp.logaddexp(jnp.broadcast_to(minus_largest, shape), noise - log_p)
            return jnp.where(comes_up, jnp.where(is_draw, -minus_largest, others), least)

        held = jax.lax.stop_gradient(log_p)
        free = given_draw(noise[1 if coupled else 0], held) + (log_p - held)
        log_prob = jnp.sum(jnp.where(is_draw, log_p, 0.0), axis=-1)
        return Relaxation(
            free, given_draw(noise[1], log_p), log_prob, jnp.where(comes_up, log_p, least), of_classes=True
        )

    @abc.abstractmethod
    def support(self) -> Array:
        """The values `[n, *event]`, one for each class."""

    @abc.abstractmethod
    def _select(self, values: Array, x: ArrayLike, outside: float) -> Array:
        """`values[..., k]` for the class `k` that `x` stands for, or `outside` where it stands for none."""

    @abc.abstractmethod
    def _is_class(self, x: Array) -> Array:
        """One-hot booleans for the class of a draw: `[*batch, n]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Categorical(OneClass):
    """Distribution of a class `k` in `{0, ..., n - 1}`: `P(k) = softmax(logits)[k] = probs[k] / sum(probs)`.

    Probabilities are normalized in `log_prob` too, so that a derivative in `probs` is the one along the simplex, and
    the score has mean zero in every direction.

    Args:
        logits: unnormalized log probabilities `[..., n]`; `-inf` excludes a class.
        probs: in place of `logits`, probabilities `[..., n]`; zero allowed; their sum must be one.

    Raises:
        ValueError: if not exactly one parameter is given, or a concrete one is outside its domain.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> mcgrad.Categorical(logits=jnp.zeros((5, 3))).batch_shape
        (5,)
    """

    def sample(self, key: PRNGKey) -> Int[Array, "*batch"]:
        """One draw of class indices."""
        return self._draw(key)

    def cdf(self, x: ArrayLike) -> Float[Array, "*batch"]:
        indices, x, p = align(self.support(), jnp.expand_dims(x, -1), self._normalized())
        return jnp.sum(jnp.where(indices <= x, p, 0.0), axis=-1)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Int[Array, "*batch"]:
        """Quantile function: the first class whose distribution function is at least `u`."""
        u, p = align(jnp.expand_dims(u, -1), self._normalized())
        below = jnp.cumsum(p, axis=-1) < u
        return jnp.minimum(jnp.sum(below, axis=-1, dtype=jnp.int32), self.num_classes - 1)

    def support(self) -> Int[Array, " n"]:
        """The class indices."""
        return jnp.arange(self.num_classes, dtype=jnp.int32)

    def _is_class(self, x: Array) -> Array:
        return jax.nn.one_hot(x, self.num_classes, dtype=bool)

    def _select(self, values: Array, x: ArrayLike, outside: float) -> Array:
        n = self.num_classes
        shape = jnp.broadcast_shapes(jnp.shape(x), values.shape[:-1])
        x, values = jnp.broadcast_to(x, shape), jnp.broadcast_to(values, (*shape, n))
        index = jnp.clip(x.astype(jnp.int32), 0, n - 1)
        chosen = jnp.take_along_axis(values, index[..., None], axis=-1, mode="promise_in_bounds")[..., 0]
        return jnp.where(x == index, chosen, outside)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneHotCategorical(OneClass, Bits):
    """Distribution of a one-hot vector of `n` entries: the one stands at `k` with `P(k) = softmax(logits)[k]`.

    Args:
        logits: unnormalized log probabilities `[..., n]`; `-inf` excludes a class.
        probs: in place of `logits`, probabilities `[..., n]`; zero allowed; their sum must be one.
        dtype: of the draws, integers by default.

    Raises:
        TypeError: for a `dtype` that is not of numbers.
        ValueError: if not exactly one parameter is given, or a concrete one is outside its domain.
    """

    event_ndim: ClassVar[int] = 1

    def sample(self, key: PRNGKey) -> Num[Array, "*batch n"]:
        """One draw of one-hot vectors."""
        return jax.nn.one_hot(self._draw(key), self.num_classes, dtype=self.dtype)

    def support(self) -> Num[Array, "n n"]:
        """The `n` one-hot vectors."""
        return jnp.eye(self.num_classes, dtype=self.dtype)

    def _is_class(self, x: Array) -> Array:
        return x == 1

    def _select(self, values: Array, x: ArrayLike, outside: float) -> Array:
        x, values = align(x, values)
        is_one_hot = (jnp.sum(x == 1, axis=-1) == 1) & jnp.all((x == 0) | (x == 1), axis=-1)
        # selected, not multiplied: `0 * -inf` is NaN
        return jnp.where(is_one_hot, jnp.sum(jnp.where(x == 1, values, 0.0), axis=-1), outside)
