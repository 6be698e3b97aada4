"""Several negatively dependent binary draws."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from mcgrad._arguments import check_field, check_option
from mcgrad._types import static_field
from mcgrad.estimators.antithetic import why_not_binary
from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator
from mcgrad.program.representations import SignedPoints
from mcgrad.program.site import Site
from mcgrad.program.surrogates import zero_with_derivative_of

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class ARMS(Estimator):
    r"""ARMS: leave-one-out over `n` negatively dependent binary draws, corrected for the dependence.

    Each entry has `n` draws `b_i` of the distribution, exchangeable, with correlation `rho <= 0` of any two. Then

        dE[f(b)] / dlogit = E[ 1 / (1 - rho) 1 / (n - 1) sum_i (f(b_i) - mean f) (b_i - p) ]

    Unbiased, for the first derivative; a second one raises. A constant in the cost cancels. `num_samples` evaluations of
    the rest of the program, however many entries there are; later draws with common random numbers. With two samples this
    is `mcgrad.DisARM`.

    Args:
        num_samples: draws `n` of each entry, at least 2.
        copula: how they depend on each other: `"dirichlet"`, from the shares of a uniform point of the simplex, or
            `"gaussian"`, from normal variates that sum to zero.

    Raises:
        ValueError: where it is built, for other options; where the program is planned, for a distribution that is not one of 0
            and 1.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.ARMS(2))
        >>> round(float(mcgrad.grad(loss)(0.0, jax.random.key(0))), 4)
        0.75

    References:
        Dimitriev and Zhou 2021, "ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables",
        https://arxiv.org/abs/2105.14141.
    """

    num_samples: int = static_field(default=4)
    copula: Literal["dirichlet", "gaussian"] = static_field(default="dirichlet")

    def __post_init__(self) -> None:
        check_field(self, "num_samples", 2, "ARMS(num_samples=...)")
        check_option("ARMS(copula=...)", self.copula, ("dirichlet", "gaussian"))

    def why_not(self, site: Site) -> str | None:
        return why_not_binary(site)

    def represent(self, draw: Draw) -> SignedPoints:
        n = self.num_samples
        ones = jnp.ones(draw.plates, jnp.int32)
        p, q = draw.prob(ones), draw.prob(0 * ones)
        # By symmetry everything is about the rarer of the two values, which keeps it exact at both ends.
        rare = stop(jnp.minimum(p, q))
        below, both = {"dirichlet": (_dirichlet, _both_dirichlet), "gaussian": (_gaussian, _both_gaussian)}[self.copula]
        u = draw.uniform(n, dtype=p.dtype)
        is_rare = jnp.moveaxis(below(u, rare), -1, 0)
        b = jnp.where(stop(p <= q)[None], is_rare, ~is_rare).astype(jnp.int32)  # [n, *plates]
        # 1 / (1 - rho) = p q / (m - P), where m is the probability of the rare value and P that of two of them.
        inside = rare > 0
        share = jnp.where(inside, both(rare, n) / jnp.where(inside, rare, 1), 0)
        log_odds = zero_with_derivative_of(p) / jnp.where(inside, stop(p * q), 1)
        factor = jnp.where(inside, (1 - rare) / (1 - share), 0) / (n - 1) * log_odds
        centered = b - jnp.mean(b, axis=0, keepdims=True, dtype=p.dtype)
        return SignedPoints(b[0], b[1:], centered[1:] * factor[None], relative=True, joint=True)


def dirichlet_copula(u: Float[Array, "*plates n"]) -> Float[Array, "*plates n"]:
    """Negatively dependent uniform variates `(1 - d_i)^(n - 1)`, with `d` uniform on the simplex, from independent ones."""
    arrivals = -jnp.log(u)
    total = jnp.sum(arrivals, axis=-1, keepdims=True)
    return ((total - arrivals) / total) ** (u.shape[-1] - 1)


def _dirichlet(u: Float[Array, "*plates n"], rare: Float[Array, "*plates"]) -> Array:
    return dirichlet_copula(u) < rare[..., None]


def _both_dirichlet(rare: Array, n: int) -> Array:
    return jnp.maximum(2 * rare ** (1 / (n - 1)) - 1, 0) ** (n - 1)


def _gaussian(u: Float[Array, "*plates n"], rare: Float[Array, "*plates"]) -> Array:
    """Where normal variates with correlations `-1 / (n - 1)` are below the quantile of `rare`."""
    n = u.shape[-1]
    z = ndtri(u)
    z = (z - jnp.mean(z, axis=-1, keepdims=True)) * math.sqrt(n / (n - 1))
    return z < ndtri(rare)[..., None]


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
"""Of Gauss and Legendre; twelve leave an error of rounding size, for all correlations from -1/2 to 0 and probabilities to 1e-8."""


def _both_gaussian(rare: Array, n: int) -> Array:
    """`P(z_1 < h, z_2 < h)` for `h` the quantile of `rare`, at most one half: an integral over the correlation.

    `Phi(h)^2 + 1 / (2 pi) int_0^asin(rho) exp(-h^2 / (1 + sin t)) dt` (Plackett 1954; Drezner and Wesolowsky 1990). For
    `n = 2` the two are never both below.
    """
    if n == 2:
        return jnp.zeros_like(rare)
    half = math.asin(-1 / (n - 1)) / 2
    slopes = jnp.asarray(1 + np.sin(half * (_NODES + 1)), rare.dtype)
    h = ndtri(rare)
    inner = jnp.exp(-(h[..., None] ** 2) / jnp.expand_dims(slopes, tuple(range(h.ndim))))
    integral = half * jnp.sum(inner * jnp.expand_dims(jnp.asarray(_WEIGHTS, rare.dtype), tuple(range(h.ndim))), -1)
    return jnp.maximum(ndtr(h) ** 2 + integral / (2 * math.pi), 0)
