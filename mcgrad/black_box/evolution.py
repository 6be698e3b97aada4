"""Evolution strategies: the gradient of the function smoothed by a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey
from mcgrad.black_box.differences import Directions, check_positive, difference_grad


def evolution_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    scale: Float[Array, ""] | float,
    orthogonal: bool = False,
    guide: Any = None,
    guide_share: float = 0.5,
    num_samples: int = 1,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    r"""The gradient by evolution strategies, with antithetic pairs.

        g = (f(params + s e, key) - f(params - s e, key)) e / (2 s),    e ~ N(0, I)

    Unbiased for the gradient of the smoothed `F(params) = E f(params + s e)`, which is smooth even where `f` jumps. As an
    estimate of the gradient of `E[f]` itself it is biased, by `s^2 / 2 grad laplacian E[f]` to leading order, and not at all
    where `E[f]` is quadratic. First derivatives only (the one-sided form of every order is `mcgrad.Score` at a draw of
    `mcgrad.Normal(params, scale)`); `fn` need not be differentiable. Two evaluations a sample.

    `orthogonal=True` makes the directions of a chunk orthogonal, as many as there are entries at a time, with the lengths
    of Gaussian vectors: each is still Gaussian, so the mean is the same.

    `guide` takes directions to favor, such as recent gradients of a cheaper model: with an orthonormal basis `U`
    `[n, k]` of their span, `e ~ N(0, C)` with `C = (1 - guide_share) / n I + guide_share / k U U^T`. **The mean is then
    `C` times the gradient of `E[f]` smoothed by `N(0, s^2 C)`**: a direction of ascent, not the gradient. The squared
    length of `e` has mean 1, where it is `n` without `guide`.

    Args:
        fn: see `mcgrad.finite_difference_grad`; all values of a sample get the same key. If it takes no key, call the gradient
            with the keyword `key=`.
        scale: `s`, a positive number in the units of the parameters. Where it is lost in rounding the gradient is NaN.
        orthogonal: see above; needs several samples.
        guide: a pytree like the arguments named by `argnums`, with a leading axis `k` on every leaf.
        guide_share: the share of the variance inside the span of `guide`, at least 0 and below 1.
        num_samples: how many pairs are averaged, each with its own direction and key.
        argnums, chunk_size, has_aux: see `mcgrad.finite_difference_grad`.

    Returns:
        A function as of `mcgrad.finite_difference_grad`.

    Raises:
        TypeError, NotImplementedError: see `mcgrad.finite_difference_grad`.
        ValueError: for an invalid option; for a `guide` of other shapes; for no key.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(params, key):
        ...     return jnp.sum(params + jax.random.normal(key, (3,)) > 0).astype(float)
        >>> gradient = mcgrad.evolution_grad(cost, scale=0.1, orthogonal=True, num_samples=6)
        >>> gradient(jnp.zeros(3), jax.random.key(0)).shape
        (3,)

    References:
        Salimans et al. 2017, section 2, "Evolution Strategies as a Scalable Alternative to Reinforcement Learning",
        https://arxiv.org/abs/1703.03864; Choromanski et al. 2018, section 3 (orthogonal), "Structured Evolution with Compact
        Architectures for Scalable Policy Optimization", https://arxiv.org/abs/1804.02395; Maheswaranathan et al. 2019,
        section 3 (guided; their `alpha` is `1 - guide_share` and their `beta` is 1), "Guided evolutionary strategies",
        https://arxiv.org/abs/1806.10230.
    """
    check_positive(scale, "evolution_grad(scale=...)")
    if orthogonal and guide is not None:
        raise ValueError(
            "`mcgrad.evolution_grad(orthogonal=True)` must have no `guide`, got both. Leave out one of them: orthogonal "
            "directions are drawn alike in all of space."
        )
    if orthogonal and (chunk_size or num_samples) == 1:
        raise ValueError(
            "`mcgrad.evolution_grad(orthogonal=True)` must have several samples at once, got 1. Raise `num_samples`, or "
            "`chunk_size`."
        )
    if not 0 <= guide_share < 1:
        raise ValueError(
            f"`mcgrad.evolution_grad(guide_share=...)` must be at least 0 and below 1, got {guide_share}. At 1 nothing "
            "outside the span of `guide` is seen."
        )
    directions = _orthogonal if orthogonal else _gaussian if guide is None else _guided(guide, guide_share)
    return difference_grad("evolution_grad", fn, argnums, directions, scale, num_samples, chunk_size, has_aux)


def _gaussian(key: PRNGKey, num: int, params: Any) -> Array:
    flat, _ = ravel_pytree(params)
    return jax.random.normal(key, (num, 1, flat.size), flat.dtype)


def _orthogonal(key: PRNGKey, num: int, params: Any) -> Array:
    """Gaussian vectors that are orthogonal within blocks of at most `n`."""
    flat, _ = ravel_pytree(params)
    n = flat.size
    key_frame, key_length = jax.random.split(key)
    blocks, width = -(-num // n), min(num, n)
    columns = jax.random.orthogonal(key_frame, n, (blocks,), flat.dtype, m=width)
    unit = jnp.swapaxes(columns, 1, 2).reshape(-1, n)[:num]
    # The length of a Gaussian vector is independent of where it points.
    length = jnp.linalg.norm(jax.random.normal(key_length, (num, n), flat.dtype), axis=1, keepdims=True)
    return (length * unit)[:, None]


def _guided(guide: Any, share: float) -> Directions:
    shapes = jax.tree.map(jnp.shape, guide)
    k = min((leaf.shape[0] for leaf in map(jnp.asarray, jax.tree.leaves(guide)) if leaf.ndim), default=0)

    def directions(key: PRNGKey, num: int, params: Any) -> Array:
        flat, _ = ravel_pytree(params)
        n, dtype = flat.size, flat.dtype
        if not 0 < k <= n or shapes != jax.tree.map(lambda leaf: (k, *leaf.shape), params):
            raise ValueError(
                "`mcgrad.evolution_grad(guide=...)` must have the structure of the parameters, with a leading axis of between 1 "
                f"and {n} directions on every leaf, got shapes {shapes} for {jax.tree.map(jnp.shape, params)}. Stack the "
                "directions: `jax.tree.map(lambda *d: jnp.stack(d), *directions)`."
            )
        rows = jax.vmap(lambda tree: ravel_pytree(tree)[0])(guide)
        basis, _ = jnp.linalg.qr(rows.astype(dtype).T)  # [n, k]
        key_all, key_inside = jax.random.split(key)
        everywhere = jax.random.normal(key_all, (num, n), dtype)
        inside = jax.random.normal(key_inside, (num, k), dtype) @ basis.T
        return (math.sqrt((1 - share) / n) * everywhere + math.sqrt(share / k) * inside)[:, None]

    return directions
