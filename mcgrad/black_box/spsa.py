"""Simultaneous perturbation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey
from mcgrad.black_box.differences import check_positive, difference_grad


def spsa_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    step: Float[Array, ""] | float,
    num_samples: int = 1,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The gradient by simultaneous perturbation (SPSA): all entries move at once, by random signs.

        g_i = (f(params + c D, key) - f(params - c D, key)) / (2 c D_i),    D_i = +1 or -1

    Biased: `E[g_i]` is the exact derivative in entry `i` of `E[f]` averaged over `params_i +- c` in that entry and over the
    two points `params_j - c`, `params_j + c` in each other; off by `c^2 (d_i^3 / 6 + sum_{j != i} d_i d_j^2 / 2) E[f]` to
    leading order, and exact where `E[f]` is quadratic. First derivatives only; `fn` need not be differentiable. Two
    evaluations a sample whatever the number of parameters, but the variance of an entry contains the squares of all others:
    for linear `E[f]` it is at least `sum_{j != i} (d_j E[f])^2`, over `num_samples`.

    Args:
        fn: see `mcgrad.finite_difference_grad`; all values of a sample get the same key. If it takes no key, call the gradient
            with the keyword `key=`.
        step: `c`, a positive number in the units of the parameters. Where it is lost in rounding the gradient is NaN.
        num_samples: how many pairs are averaged, each with its own direction and key.
        argnums, chunk_size, has_aux: see `mcgrad.finite_difference_grad`.

    Returns:
        A function as of `mcgrad.finite_difference_grad`.

    Raises:
        TypeError, NotImplementedError: see `mcgrad.finite_difference_grad`.
        ValueError: for an invalid option; for no key.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(params):
        ...     return jnp.sum(jnp.round(8 * params) ** 2)
        >>> mcgrad.spsa_grad(cost, step=0.5, num_samples=16)(jnp.ones(3), key=jax.random.key(0)).shape
        (3,)

    References:
        Spall 1992, section II, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
        Approximation", https://doi.org/10.1109/9.119632.
    """
    check_positive(step, "spsa_grad(step=...)")

    def signs(key: PRNGKey, num: int, params: Any) -> Array:
        flat, _ = ravel_pytree(params)
        return jax.random.rademacher(key, (num, 1, flat.size), flat.dtype)

    return difference_grad("spsa_grad", fn, argnums, signs, step, num_samples, chunk_size, has_aux)
