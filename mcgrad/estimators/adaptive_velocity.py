"""Paths of the multivariate normal distribution with coefficients that are learned."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mcgrad._types import PRNGKey, PyTree
from mcgrad.program import Site


@dataclasses.dataclass(frozen=True)
class AdaptiveVelocity(PyTree):
    r"""Adaptive velocity field: a path of `MultivariateNormal(loc, scale_tril=L)` with coefficients that are free to learn.

    `mcgrad.Pathwise(path=mcgrad.AdaptiveVelocity(rows, columns))` differentiates the draw `x = loc + L z` as

        dx = dloc + dL z + L W z,    W = A - A^T,    A_ij = dL_ij sum_m rows_mi columns_mj

    The last term turns the noise, which leaves the distribution as it is. So **the gradient is unbiased for any coefficients**
    that do not depend on the draw itself, and derivatives of every order are; of the coefficients its variance is a quartic
    polynomial. They are arrays that the program may get as an argument, to be learned by descending the squared norm of the
    gradient, whose mean is the variance and a constant. With `A = 0` the path is the sampler's.

    Args:
        rows: `[m, d]`, of a distribution of `d` dimensions; `m = 1` has `2 d` coefficients, `m = d` any matrix.
        columns: `[m, d]`.

    Raises:
        TypeError: for what is no real floating-point array.
        ValueError: for arrays that are not of one shape `[m, d]`; where the program is planned, for a distribution of another
            dimension, for one other than `MultivariateNormal`, and for its `scale_diag`, which leaves no plane to turn in.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(tril, velocity, key):
        ...     dist = mcgrad.MultivariateNormal(jnp.zeros(3), scale_tril=tril)
        ...     return jnp.prod(mcgrad.sample(key, dist, mcgrad.Pathwise(path=velocity)))
        >>> def size(velocity, tril, key):  # descend its gradient by optax, beside that of the loss
        ...     return jnp.sum(mcgrad.grad(loss)(tril, velocity, key) ** 2)
        >>> velocity = mcgrad.AdaptiveVelocity.init(jax.random.key(0), dimension=3)
        >>> jax.jit(jax.grad(size))(velocity, jnp.eye(3), jax.random.key(1)).rows.shape
        (1, 3)

    References:
        Jankowiak and Karaletsos 2019, on adaptive velocity fields, "Pathwise Derivatives for Multivariate Distributions",
        https://arxiv.org/abs/1806.01856; `rows` and `columns` are their `B` and `C`.
    """

    rows: Float[Array, "m d"]
    columns: Float[Array, "m d"]

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            value = getattr(self, name)
            if not (isinstance(value, (np.ndarray, jax.Array)) and jnp.issubdtype(value.dtype, jnp.floating)):
                raise TypeError(
                    f"`mcgrad.AdaptiveVelocity({name}=...)` must be an array of floating-point numbers, got {value!r}. Start "
                    "from `mcgrad.AdaptiveVelocity.init(key, dimension=d)`."
                )
        if self.rows.ndim != 2 or self.rows.shape != self.columns.shape:
            raise ValueError(
                "`mcgrad.AdaptiveVelocity(rows=..., columns=...)` must be two arrays of one shape `[m, d]`, got "
                f"{self.rows.shape} and {self.columns.shape}. Start from `mcgrad.AdaptiveVelocity.init(key, dimension=d)`."
            )

    @classmethod
    def init(cls, key: PRNGKey, *, dimension: int, rank: int = 1) -> AdaptiveVelocity:
        """A start for learning: the sampler's path, `rows` zero, with standard normal `columns`, so that `rows` can move."""
        columns = jax.random.normal(key, (rank, dimension))
        return cls(jnp.zeros_like(columns), columns)

    def why_not(self, site: Site) -> str | None:
        """Why this path would be wrong at `site`."""
        if "adaptive_velocity" not in site.facts.knows:
            return f"{site.facts.law} has no path with learned coefficients, only `mcgrad.MultivariateNormal` with `scale_tril` has"
        (d,) = site.base_draw.shape[-1:]
        if len(self.rows.shape) != 2 or self.rows.shape[-1] != d:
            return (
                f"`mcgrad.AdaptiveVelocity(rows=..., columns=...)` must be arrays of shape `[m, {d}]` for a distribution of {d} "
                f"dimensions, got {self.rows.shape}. Start from `mcgrad.AdaptiveVelocity.init(key, dimension={d})`"
            )
        return None

    def move(self, key: PRNGKey, dist: Any) -> Any:
        """A draw, with the derivative of this path."""
        return dist.adaptive_velocity(dist.noise(key), self.rows, self.columns)
