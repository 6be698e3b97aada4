"""Augment-REINFORCE-swap-merge, for draws of finite support."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop

from mcgrad.estimators.finite_support import FiniteSupportEstimator, differences_from_first, each_value, log_derivative
from mcgrad.program import Draw, SignedPoints


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
        u = draw.uniform(n, dtype=p.dtype)
        arrivals = -jnp.log(u)
        shares = arrivals / jnp.sum(arrivals, axis=-1, keepdims=True)
        first, second = np.triu_indices(n, 1)
        swaps = np.tile(np.arange(n), (len(first) + 1, 1))  # the first swaps nothing
        swaps[1:][np.arange(len(first)), first], swaps[1:][np.arange(len(first)), second] = second, first
        swapped = shares[..., swaps]  # [*plates, 1 + pairs, n]
        late = jnp.log(swapped) - jnp.log(jnp.where(inside, stop(p), 1))[..., None, :]
        x = jnp.argmin(jnp.where(inside[..., None, :], late, jnp.inf), axis=-1)
        # With derivatives of the logits for `c`, the coefficient of `f(x_cj)` is that of the pair `c, j` and of `j, c`.
        logits = log_derivative(p)
        logits = logits - jnp.mean(logits, axis=-1, keepdims=True)
        weights = 1 / n - shares
        coefficients = weights[..., second] * logits[..., first] + weights[..., first] * logits[..., second]
        return differences_from_first(draw, x, coefficients)
