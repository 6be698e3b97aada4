"""The multinomial distribution: how often each class is drawn in independent trials."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mcgrad import _mesh
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.distributions.checks import check_shapes, check_trials
from mcgrad.distributions.classes import Classes
from mcgrad.distributions.numerics.arithmetic import align, is_count, open_uniform
from mcgrad.distributions.numerics.counts import binomial
from mcgrad.distributions.numerics.gamma import log_poisson
from mcgrad.distributions.numerics.gamma_function import log_peak


@dataclasses.dataclass(frozen=True)
class Multinomial(Classes):
    """Multinomial distribution of vectors of counts: `P(x) = n! prod_k p_k^x_k / x_k!` for counts that add up to `n = total_count`.

    Probabilities are normalized, `p = softmax(logits)` or `p = probs / sum(probs)`, as those of `Categorical`.

    Args:
        total_count: the number of trials `n`; integers of any shape.
        logits: unnormalized log probabilities `[..., k]`, whose leading axes broadcast with `total_count`; `-inf` excludes
            a class.
        probs: in place of `logits`, probabilities `[..., k]`; zero allowed; their sum must be one.

    Raises:
        ValueError: if not exactly one of `logits` and `probs` is given, a concrete parameter is outside its domain, or
            the shapes do not broadcast.
        TypeError: if `total_count` is no integer.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> int(mcgrad.Multinomial(7, logits=jnp.zeros(3)).sample(jax.random.key(0)).sum())
        7
    """

    total_count: Int[ArrayLike, "*batch"]

    event_ndim: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if isinstance(self.total_count, (list, tuple)):
            object.__setattr__(self, "total_count", jnp.asarray(self.total_count))
        check_trials("Multinomial", self.total_count)
        super().__post_init__()
        shapes = {"total_count": (jnp.shape(self.total_count), 0), "probabilities": (jnp.shape(self._given), 1)}
        check_shapes("Multinomial", shapes)
        object.__setattr__(self, "total_count", jnp.asarray(self.total_count, jnp.int32))

    @property
    def batch_shape(self) -> Shape:
        return jnp.broadcast_shapes(jnp.shape(self.total_count), jnp.shape(self._given)[:-1])

    def sample(self, key: PRNGKey) -> Int[Array, "*batch k"]:
        """One draw of counts: class by class, binomial among the trials that are left."""
        n = jnp.broadcast_to(self.total_count, self.batch_shape).astype(self.dtype)
        p = jnp.broadcast_to(self._normalized(), self.batch_shape + self.event_shape)
        p = jnp.moveaxis(p, -1, 0)  # [k, *batch]
        left = jnp.cumsum(p[::-1], axis=0)[::-1]
        ratios = jnp.minimum(p / jnp.where(left == 0, 1.0, left), 1.0)

        # `jax.random.multinomial` fails JAX's check for reused keys under `vmap`.
        def step(rest: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            k, ratio = at
            count = binomial(jax.random.fold_in(key, k), rest, ratio)
            return rest - count, count

        _, counts = _mesh.scan(step, n, (jnp.arange(self.num_classes), ratios))
        return jnp.moveaxis(counts, 0, -1).astype(jnp.int32)

    def log_prob(self, x: Int[ArrayLike, "*batch k"]) -> Float[Array, "*batch"]:
        """Log probability of a vector of counts; `-inf` for what is none, or does not add up to `total_count`."""
        x, given, n = align(x, self._given, jnp.expand_dims(self.total_count, -1))
        inside = jnp.all(is_count(x), -1) & (jnp.sum(x, -1) == n[..., 0])
        x = jnp.where(inside[..., None], x, 0).astype(self.dtype)
        n = jnp.where(inside, n[..., 0], 0).astype(self.dtype)
        some = x > 0
        if self.probs is None:
            log_p, p = jax.nn.log_softmax(given, axis=-1), jax.nn.softmax(given, axis=-1)
        else:
            total = jnp.sum(given, -1, keepdims=True)
            log_p, p = jnp.log(jnp.where(some, given, 1.0)) - jnp.log(total), given / total
        # That of Poisson counts of means `n p`, given their sum: nothing of the size of the counts cancels.
        most = jnp.maximum(n, 1)
        log_n = jnp.log(most)
        x, mean, log_mean = jnp.broadcast_arrays(x, n[..., None] * p, log_n[..., None] + log_p)
        of_all = jnp.where(n > 0, log_peak(most) - log_n, 0.0)
        return jnp.where(inside, jnp.sum(log_poisson(x, mean, log_mean), -1) - of_all, -jnp.inf)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in the probabilities: each class in place of that of one trial, against the draw itself.

        The weight is `n` times the probability.
        Given the draw, the trial is one of class `j` with probability `x_j / n`, and the others have the distribution of `n - 1`.
        """
        n = jnp.broadcast_to(self.total_count, self.batch_shape)
        u = open_uniform(key, self.batch_shape, self.dtype)
        trial = jnp.minimum((u * n).astype(jnp.int32), n - 1)
        of_trial = jnp.sum(jnp.cumsum(x, -1) <= trial[..., None], -1)
        others = x - jax.nn.one_hot(of_trial, self.num_classes, dtype=x.dtype)
        every = jnp.eye(self.num_classes, dtype=x.dtype).reshape(-1, *[1] * n.ndim, self.num_classes)
        positive = jnp.where((n == 0)[None, ..., None], x[None], others[None] + every)  # where the weight is zero
        weight = n[None] * jnp.moveaxis(jnp.broadcast_to(self._normalized(), x.shape), -1, 0)  # [k, *batch]
        is_draw = jnp.zeros(weight.shape, bool)
        return (WeakDerivative(("logits", "probs"), weight, positive, jnp.broadcast_to(x, positive.shape), is_draw),)
