"""Several negatively dependent draws of a distribution of finite support."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Float, Int

from mcgrad._arguments import check_field
from mcgrad._types import static_field
from mcgrad.estimators.binary import dirichlet_copula
from mcgrad.estimators.finite_support import FiniteSupportEstimator, differences_from_first, each_value, log_derivative
from mcgrad.program import Draw, SignedPoints


@dataclasses.dataclass(frozen=True)
class CARMS(FiniteSupportEstimator):
    r"""CARMS: leave-one-out over `n` negatively dependent draws, each pair corrected for the dependence.

    Each entry has `n` exchangeable draws `x_i` of the distribution, of which any two have the joint probabilities `J`. Then

        dE[f(x)] = E[ 1/(n (n-1)) sum_{i != j} r(x_i, x_j)/2 (f(x_i) - f(x_j)) (dlog p(x_i) - dlog p(x_j)) ],
        r(a, b) = p(a) p(b) / J(a, b)

    The draws are quantiles of uniform variates from a Dirichlet copula, over the values in a random order: one of those
    with another first and another last, so that all pairs of values come up. With two values, the rarer one first, this is
    `mcgrad.ARMS`; with independent draws it would be `mcgrad.Score` with leave-one-out.

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
        noise = draw.uniform(n + 1, dtype=p.dtype)
        order = jnp.minimum((noise[..., n] * num_orders).astype(jnp.int32), num_orders - 1)
        chosen = jnp.take_along_axis(high, order[..., None, None], axis=-2)  # [*plates, 1, values]
        inside = frozen[..., None, :] > 0
        u = dirichlet_copula(noise[..., :n])[..., None]  # [*plates, n, 1]
        # The first value whose interval reaches over `u`; the last one's does up to rounding.
        reaching = jnp.where(
            inside & (chosen >= jnp.minimum(u, jnp.max(chosen, axis=-1, keepdims=True))), chosen, jnp.inf
        )
        x = jnp.argmin(reaching, axis=-1).astype(jnp.int32)  # [*plates, n]
        own = jnp.take_along_axis(frozen, x, axis=-1)
        # The corner of a first and a last value has at least the probability of independence, so that the ratio is at most
        # the number of orders, which single precision may not see.
        independent = own[..., :, None] * own[..., None, :]
        share = independent / jnp.maximum(_joint(low, high, x, n), independent / num_orders)
        share = jnp.where(x[..., :, None] == x[..., None, :], 0, share)
        scores = log_derivative(jnp.take_along_axis(p, x, axis=-1))
        coefficients = jnp.sum(share * (scores[..., :, None] - scores[..., None, :]), axis=-1) / (n * (n - 1))
        return differences_from_first(draw, x, coefficients[..., 1:])


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
