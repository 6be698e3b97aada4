"""Mixtures, with pathwise derivatives in the weights too."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.categorical import Categorical
from mcgrad.distributions.derivatives.implicit import implicit_reparameterization
from mcgrad.distributions.derivatives.pathwise_check import name_of, sampler_obstacle
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.wrappers.base import Wrapper, leaf_names, of_inner
from mcgrad.distributions.wrappers.foreign import as_distribution
from mcgrad.distributions.wrappers.independent import Independent


@dataclasses.dataclass(frozen=True)
class Mixture(Wrapper):
    """The distribution of a draw from a component that is itself chosen at random: `p(x) = sum_k w_k p_k(x)`.

    Draws are differentiable in the parameters of the components **and in the weights**, to every order: for single numbers
    the distribution function `F = sum_k w_k F_k` of the whole mixture is kept fixed, `dx = -dF / p(x)`, so that no component
    stands out and a draw moves to where the mass moves. For vectors of numbers that are independent within a component (an
    `Independent` of single numbers) the conditional distribution functions of the mixture are,

        F(x_i | x_1, ..., x_{i-1}) = sum_k r_k F_k(x_i),   r_k proportional to w_k p_k(x_1) ... p_k(x_{i-1}).

    **The derivatives of a draw above a hundredth of the largest number may overflow.**

    Other components, and those without a `cdf`, have no pathwise derivative here and are refused; discrete ones too. Scores
    and enumeration work for whatever the components allow. (A sampler that picks a component and differentiates that alone,
    as libraries usually do, has a derivative of zero in the weights.)

    Args:
        mixing: a `Categorical` of n classes: the weights.
        components: a distribution whose last batch axis is that of the n components.

    Raises:
        TypeError: if `mixing` is no `Categorical`, or `components` no distribution.
        ValueError: if their shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(logits, key):
        ...     components = mcgrad.Normal(jnp.asarray([-1.0, 2.0]), 1.0)
        ...     return mcgrad.sample(key, mcgrad.Mixture(mcgrad.Categorical(logits=logits), components))
        >>> gradient = mcgrad.pathwise_grad(cost, num_samples=10_000)(jnp.zeros(2), jax.random.key(0))
        >>> bool(abs(gradient[1] - 0.75) < 0.05)  # the mean is softmax(logits) @ [-1, 2]
        True

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", section 4 and equation 6,
        https://arxiv.org/abs/1805.08498.
    """

    mixing: Any
    components: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", as_distribution(self.components))
        if not isinstance(self.mixing, Categorical):
            raise TypeError(
                f"`mcgrad.Mixture(mixing=...)` must be a `mcgrad.Categorical`, got {type(self.mixing).__name__}. "
                "Pass `mcgrad.Categorical(logits=...)` or `mcgrad.Categorical(probs=...)`."
            )
        shape, wanted = self.components.batch_shape, self.mixing.num_classes
        fits = shape[-1:] == (wanted,) and len(self.mixing.batch_shape) <= len(shape) - 1
        if not fits or jnp.broadcast_shapes(self.mixing.batch_shape, shape[:-1]) != shape[:-1]:
            raise ValueError(
                "`mcgrad.Mixture(components=...)` must have the batch shape of the mixture with one axis of "
                f"{wanted} components behind it, got batch shape {shape} for weights of batch shape "
                f"{self.mixing.batch_shape}. Give the parameters of the components that last axis."
            )

    @property
    def _inner(self) -> Any:
        return self.components

    @property
    def batch_shape(self) -> Shape:
        """The batch axes of the components but the last."""
        return tuple(self.components.batch_shape[:-1])

    @functools.cached_property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        if self.discrete:
            return f"{self.law} is discrete"
        numbers = _numbers(self.components)
        if numbers is None:
            return (
                f"draws of {name_of(self.components)} are vectors that `mcgrad.Independent` did not make of single numbers, "
                "so the conditional distribution functions of the mixture are not known"
            )
        if getattr(numbers, "cdf", None) is None:
            return f"{name_of(numbers)} has no `cdf`, which says how a draw moves with the weights"
        if math.prod(self.event_shape) > 1 and self.support_parameters:
            return f"the support of {name_of(numbers)} moves, and with it the conditional distribution functions jump"
        return sampler_obstacle(lambda key, law: law.sample(key), self, self.law, leaf_names(self))

    def sample(self, key: PRNGKey) -> Array:
        key_index, key_draw = jax.random.split(key)
        log_weights = jnp.broadcast_to(self._log_weights(), (*self.batch_shape, self.mixing.num_classes))
        index = jax.random.categorical(key_index, log_weights, axis=-1)
        draws = self.components.sample(key_draw)
        index = index.reshape(*self.batch_shape, *[1] * (1 + self.event_ndim))
        x = jnp.take_along_axis(draws, index, axis=len(self.batch_shape)).reshape(*self.batch_shape, *self.event_shape)
        numbers = _numbers(self.components)
        if self.discrete or getattr(numbers, "cdf", None) is None:
            return jax.lax.stop_gradient(x)
        if not self.event_shape:
            return implicit_reparameterization(
                x, self, cdf=lambda x, law: law._conditional_log_odds(x[..., None])[..., 0]
            )
        flat = x.reshape(*self.batch_shape, -1)
        moved = implicit_reparameterization(flat, self, standardization=lambda x, law: law._conditional_log_odds(x))
        return moved.reshape(x.shape)

    @of_inner()
    def log_prob(self, x: Array) -> Array:
        """The log density."""
        logs = self.components.log_prob(self._beside_components(x))
        possible = jnp.any(logs > -jnp.inf, axis=-1)
        logs = jnp.where(possible[..., None], logs, 0.0)
        if self.mixing.probs is None:
            mixed = special.logsumexp(sum(align(logs, self._log_weights())), axis=-1)
        else:  # a weight of zero has a derivative as a factor, and none as a logarithm
            logs, weights = align(logs, self._weights())
            top = jax.lax.stop_gradient(jnp.max(jnp.where(weights > 0, logs, -jnp.inf), axis=-1, keepdims=True))
            top = jnp.where(top > -jnp.inf, top, 0.0)
            # above the top are components of weight zero only; exp(80) is finite in float32
            mixed = top[..., 0] + jnp.log(jnp.sum(weights * jnp.exp(jnp.minimum(logs - top, 80.0)), axis=-1))
        return jnp.where(possible, mixed, -jnp.inf)

    @of_inner()
    def cdf(self, x: Array) -> Array:
        """The distribution function of single numbers."""
        return self._weighed(self.components.cdf, x)

    @of_inner()
    def survival(self, x: Array) -> Array:
        """One minus the distribution function."""
        return self._weighed(self.components.survival, x)

    @of_inner()
    def prob(self, x: Array) -> Array:
        """The probability."""
        return self._weighed(self.components.prob, x)

    def _weighed(self, of_components: Callable[[Array], Array], x: Array) -> Array:
        values, weights = align(of_components(self._beside_components(x)), self._weights())
        return jnp.sum(values * weights, axis=-1)

    @of_inner()
    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Terms in the weights, a draw of each component against the draw itself, and those of the components by their weights."""
        key_draws, key_parts = jax.random.split(key)
        batch, n = self.batch_shape, self.mixing.num_classes
        weights = jnp.moveaxis(jnp.broadcast_to(self._weights(), (*batch, n)), -1, 0)  # [n, *batch]
        draws = jax.lax.stop_gradient(self.components.sample(key_draws))

        def by_component(array: Array) -> Array:
            """From `[m, *batch, n, ...]` to `[m * n, *batch, ...]`."""
            array = jnp.moveaxis(array, 1 + len(batch), 1)
            return array.reshape(-1, *array.shape[2:])

        each = by_component(draws[None])
        drawn = jnp.broadcast_to(x[None], each.shape)
        terms = [WeakDerivative(("logits", "probs"), weights, each, drawn, jnp.zeros(weights.shape, bool))]
        for term in self.components.weak_derivative(key_parts, draws, how):
            # neither part is the draw, which may be of another component
            scaled = by_component(term.weight)
            scaled = scaled * jax.lax.stop_gradient(jnp.tile(weights, (len(term.weight), *[1] * len(batch))))
            terms.append(WeakDerivative(term.parameters, scaled, *map(by_component, (term.positive, term.negative))))
        return tuple(terms)

    def support(self) -> Array | None:
        """The values of the components, where they are finitely many."""
        support = getattr(self.components, "support", None)
        return support() if callable(support) else None

    def _weights(self) -> Array:
        """`[*batch, n]`, with finite derivatives also where one is zero."""
        return jnp.moveaxis(jax.vmap(self.mixing.prob)(self.mixing.support()), 0, -1)

    def _log_weights(self) -> Array:
        return jnp.moveaxis(jax.vmap(self.mixing.log_prob)(self.mixing.support()), 0, -1)

    def _beside_components(self, x: Array) -> Array:
        return jnp.expand_dims(x, -1 - self.event_ndim)

    def _conditional_log_odds(self, x: Array) -> Array:
        """`log F - log(1 - F)` of each entry of `[*batch, d]` given those before it. Unlike `F`, precise in both tails."""
        numbers: Any = _numbers(self.components)
        shape = (*self.batch_shape, self.mixing.num_classes, x.shape[-1])
        points = x.reshape(*self.batch_shape, 1, *self.event_shape)
        below = jnp.broadcast_to(numbers.cdf(points).reshape(shape), shape)
        survival = getattr(numbers, "survival", None)
        above = 1 - below if survival is None else jnp.broadcast_to(survival(points).reshape(shape), shape)
        logs = jnp.zeros(shape, x.dtype)
        if x.shape[-1] > 1:
            density = numbers.log_prob(points).reshape(shape)
            logs = jnp.cumsum(jnp.concatenate([logs[..., :1], density[..., :-1]], axis=-1), axis=-1)
            logs = logs - jax.lax.stop_gradient(jnp.max(logs, axis=-2, keepdims=True))
        weights, _ = align(self._weights()[..., None], logs)
        masses = weights * jnp.exp(logs)
        below, above = jnp.sum(masses * below, axis=-2), jnp.sum(masses * above, axis=-2)
        # a draw that a component holds at the largest or smallest number does not move
        info, size = jnp.finfo(x.dtype), jnp.abs(x)
        held = (size >= info.max) | ((size <= info.tiny) & ((below == 0) | (above == 0)))
        return jnp.where(held, x, jnp.log(jnp.where(held, 1, below)) - jnp.log(jnp.where(held, 1, above)))


def _numbers(dist: Any) -> Any:
    """The distribution of single numbers that a component is made of, or `None`."""
    if isinstance(dist, Independent):
        dist = dist.base
    return dist if tuple(dist.event_shape) == () else None
