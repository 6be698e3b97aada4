"""Local expectation gradients: exact over one entry at a time."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mcgrad.estimators.finite_support import FiniteSupportEstimator, position, possible
from mcgrad.program import Draw, SignedPoints, zero_with_derivative_of


@dataclasses.dataclass(frozen=True)
class LocalExpectation(FiniteSupportEstimator):
    r"""Local expectation: enumerates the values of each entry of a draw, the other entries as drawn.

        dE[f(x)] = E[ sum_i sum_k dp_i(k) (f(x with x_i = k) - f(x)) ]

    Unbiased, for the first derivative; a second one raises. Distributions of finite support with `n` values: entries along batch
    axes that no cost mixes are taken together, `n - 1` evaluations of the rest of the program more (at the values that were
    not drawn); axes that some cost mixes one entry at a time, `(n - 1) * size`. Later draws are the same in all of them.

    Raises:
        ValueError: where the program is planned, for a distribution without finite support.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.LocalExpectation())
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75

    References:
        Titsias and Lázaro-Gredilla 2015, eq. 9, "Local Expectation Gradients for Black Box Variational Inference",
        https://arxiv.org/abs/1503.01494.
    """

    sees_the_impossible = True

    def represent(self, draw: Draw) -> SignedPoints:
        support = jnp.asarray(draw.facts.support)  # [n, *event]
        n, x = len(support), draw.sample()
        drawn = position(draw, x)
        shifts = jnp.arange(1, n).reshape(n - 1, *[1] * draw.num_plates)
        points = support[(drawn[None] + shifts) % n].astype(x.dtype)
        p = jax.vmap(draw.prob)(points)
        return SignedPoints(x, possible(draw, points, p, x), zero_with_derivative_of(p), relative=True)
