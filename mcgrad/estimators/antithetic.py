"""Antithetic pairs of binary draws."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator
from mcgrad.program.representations import SignedPoints
from mcgrad.program.site import Site
from mcgrad.program.surrogates import zero_with_derivative_of

stop = jax.lax.stop_gradient


def why_not_binary(site: Site) -> str | None:
    """Why an estimator for binary draws would be wrong at a site."""
    support = site.facts.support
    if support is not None and np.array_equal(support, [0, 1]):
        return None
    return "the distribution must be one of 0 and 1, such as `mcgrad.Bernoulli`"


@dataclasses.dataclass(frozen=True)
class _AntitheticPair(Estimator):
    """A draw `b = 1[u > 1 - p]` and its antithetic `c = 1[u < p]` of one uniform `u`, all entries together."""

    def why_not(self, site: Site) -> str | None:
        return why_not_binary(site)

    def represent(self, draw: Draw) -> SignedPoints:
        u = draw.uniform(dtype=jnp.result_type(float))
        ones = jnp.ones(draw.plates, jnp.int32)
        p, q = draw.prob(ones), draw.prob(0 * ones)
        b, c = (u > stop(q)).astype(jnp.int32), (u < stop(p)).astype(jnp.int32)
        # Derivatives in the log odds: those of `p` over `p q`.
        inside = stop(p * q) > 0
        log_odds = zero_with_derivative_of(p) / jnp.where(inside, stop(p * q), 1)
        weight = jnp.where(inside, self.weight(stop(p), u.astype(p.dtype), b, c), 0)
        return SignedPoints(b, c[None], -(weight * log_odds)[None], relative=True, joint=True)

    def weight(self, p: Array, u: Array, b: Array, c: Array) -> Array:
        """What multiplies `f(b) - f(c)` in the derivative in the log odds."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ARM(_AntitheticPair):
    r"""Augment-REINFORCE-merge, for binary draws.

    With `u ~ Uniform(0, 1)` for each entry, `b = 1[u > 1 - p]` and `c = 1[u < p]`, both of the distribution,

        dE[f(b)] / dlogit = E[ (u - 1/2) (f(b) - f(c)) ]

    Unbiased, for the first derivative; a second one raises. One evaluation of the rest of the program more, however many
    entries there are. `mcgrad.DisARM` is its mean given the pair, and never worse.

    Raises:
        ValueError: where the program is planned, for a distribution that is not one of 0 and 1.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.ARM())
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Yin and Zhou 2019, eq. 8, "ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks",
        https://arxiv.org/abs/1807.11143.
    """

    def weight(self, p: Array, u: Array, b: Array, c: Array) -> Array:
        return u - 0.5


@dataclasses.dataclass(frozen=True)
class DisARM(_AntitheticPair):
    r"""DisARM, also called U2G: antithetic pairs of binary draws, with the noise of `mcgrad.ARM` integrated out.

    With the pair `b`, `c` of `mcgrad.ARM`,

        dE[f(b)] / dlogit = E[ 1/2 (f(b) - f(c)) (-1)^c 1[b != c] max(p, 1 - p) ]

    Unbiased, for the first derivative; a second one raises. One evaluation of the rest of the program more, however many
    entries there are.

    Raises:
        ValueError: where the program is planned, for a distribution that is not one of 0 and 1.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.DisARM())
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75

    References:
        Dong, Mnih and Tucker 2020, eq. 6, "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables",
        https://arxiv.org/abs/2006.10680; Yin, Ho, Yan, Qian and Zhou 2020, eq. 4, "Probabilistic Best Subset Selection via
        Gradient-Based Optimization", https://arxiv.org/abs/2006.06448.
    """

    def weight(self, p: Array, u: Array, b: Array, c: Array) -> Array:
        sign = jnp.where(c == 0, 1, -1)
        return jnp.where(b != c, 0.5 * sign * jnp.maximum(p, 1 - p), 0)
