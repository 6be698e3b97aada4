"""Negatively dependent binary draws: antithetic pairs, and several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Float

from mcgrad._arguments import check_field, check_option
from mcgrad._types import static_field
from mcgrad.distributions.numerics.error_function import ndtr, ndtri
from mcgrad.program import Draw, Estimator, SignedPoints, Site, zero_with_derivative_of

_OTHERS = 0xA25
"""Folded into a draw's key: for the draws beside that of a plain run."""


class _Binary(Estimator):
    """Base of estimators for draws of 0 and 1."""

    def why_not(self, site: Site) -> str | None:
        binary = site.facts.support is not None and np.array_equal(site.facts.support, [0, 1])
        return None if binary else "the distribution must be one of 0 and 1, such as `mcgrad.Bernoulli`"


def _probabilities(draw: Draw) -> tuple[Array, Array, Array, Array]:
    """Those of 1 and of 0, frozen; whether both are positive; and zeros with the derivatives of the log odds."""
    ones = jnp.ones(draw.plates, jnp.int32)
    p, q = draw.prob(ones), draw.prob(0 * ones)
    inside = stop(p * q) > 0
    return stop(p), stop(q), inside, zero_with_derivative_of(p) / jnp.where(inside, stop(p * q), 1)


def _as_drawn(draw: Draw, bits: Array) -> Array:
    """Bits as the distribution draws them: integers or floats."""
    return bits.astype(draw.site.equation.outputs[0].dtype)


class _AntitheticPair(_Binary):
    """A draw `b = 1[u < p]` and its antithetic `c = 1[u > 1 - p]` of one uniform `u`, all entries together.

    JAX draws `b` so too: in a plain run, by which an earlier draw is compared with other values, it has the same noise.
    """

    def represent(self, draw: Draw) -> SignedPoints:
        p, q, inside, log_odds = _probabilities(draw)
        u = draw.uniform(dtype=p.dtype, index=None)
        b, c = (u < p).astype(jnp.int32), (u > q).astype(jnp.int32)
        weight = jnp.where(inside, self.weight(p, u.astype(p.dtype), b, c), 0)
        b, c = (_as_drawn(draw, x) for x in (b, c))
        return SignedPoints(b, c[None], -(weight * log_odds)[None], relative=True, joint=True)

    def weight(self, p: Array, u: Array, b: Array, c: Array) -> Array:
        """What multiplies `f(b) - f(c)` in the derivative in the log odds."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ARM(_AntitheticPair):
    r"""Augment-REINFORCE-merge, for binary draws.

    With `u ~ Uniform(0, 1)` for each entry, `b = 1[u < p]` and `c = 1[u > 1 - p]`, both of the distribution,

        dE[f(b)] / dlogit = E[ (1/2 - u) (f(b) - f(c)) ]

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
        return 0.5 - u


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


@dataclasses.dataclass(frozen=True)
class ARMS(_Binary):
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
        check_field(self, "num_samples", 2)
        check_option("ARMS(copula=...)", self.copula, ("dirichlet", "gaussian"))

    def represent(self, draw: Draw) -> SignedPoints:
        n = self.num_samples
        p, q, inside, log_odds = _probabilities(draw)
        # The first is what JAX draws, as in `_AntitheticPair`; the others are drawn given it.
        u = draw.uniform(dtype=p.dtype, index=None)
        # By symmetry everything is about the rarer of the two values, which keeps it exact at both ends.
        rare, one_is_rare = jnp.minimum(p, q), p <= q
        copula, both = (_dirichlet if self.copula == "dirichlet" else _gaussian)(rare, n)
        others = copula(jnp.where(one_is_rare, u, 1 - u), draw.uniform(n - 1, dtype=p.dtype, index=_OTHERS))
        is_rare = jnp.moveaxis(others < rare[..., None], -1, 0)
        first = (u < p).astype(jnp.int32)
        b = jnp.where(one_is_rare[None], is_rare, ~is_rare).astype(jnp.int32)
        b = jnp.concatenate([first[None], b])  # [n, *plates]
        # 1 / (1 - rho) = p q / (m - P), where m is the probability of the rare value and P that of two of them.
        share = jnp.where(inside, both / jnp.where(inside, rare, 1), 0)
        factor = jnp.where(inside, (1 - rare) / (1 - share), 0) / (n - 1) * log_odds
        centered = b - jnp.mean(b, axis=0, keepdims=True, dtype=p.dtype)
        b = _as_drawn(draw, b)
        return SignedPoints(b[0], b[1:], centered[1:] * factor[None], relative=True, joint=True)


def dirichlet_copula(first: Float[Array, "*plates"], u: Float[Array, "*plates k"]) -> Float[Array, "*plates k"]:
    """Negatively dependent uniform variates beside a first one, from independent ones.

    All `n = k + 1` are `(1 - d_i)^(n - 1)`, with `d` uniform on the simplex: given `d_1`, the others share `1 - d_1` so too.
    """
    power, first, arrivals = u.shape[-1], first[..., None], -jnp.log(u)
    total = jnp.sum(arrivals, axis=-1, keepdims=True)
    # 1 - d_i = d_1 + (1 - d_1) (1 - share_i)
    return (-jnp.expm1(jnp.log(first) / power) + first ** (1 / power) * (total - arrivals) / total) ** power


_Copula: TypeAlias = Callable[[Array, Array], Array]


def _dirichlet(rare: Float[Array, "*plates"], n: int) -> tuple[_Copula, Array]:
    """A copula of `n` variates, and the probability that two of them are below `rare`, at most one half."""
    return dirichlet_copula, jnp.maximum(2 * rare ** (1 / (n - 1)) - 1, 0) ** (n - 1)


def _gaussian(rare: Float[Array, "*plates"], n: int) -> tuple[_Copula, Array]:
    """The same of normal variates with correlations `rho = -1 / (n - 1)` and the quantile `h` of `rare`.

    `P(z_1 < h, z_2 < h) = Phi(h)^2 + 1 / (2 pi) int_0^asin(rho) exp(-h^2 / (1 + sin t)) dt` (Plackett 1954; Drezner and
    Wesolowsky 1990). For `n = 2` the two are never both below.
    """

    def copula(first: Array, u: Array) -> Array:  # the variates sum to zero
        z = ndtri(u)
        centered = (z - jnp.mean(z, axis=-1, keepdims=True)) * math.sqrt(n / (n - 1))
        return ndtr(centered - ndtri(first)[..., None] / (n - 1))

    if n == 2:
        return copula, jnp.zeros_like(rare)
    h, half = ndtri(rare), math.asin(-1 / (n - 1)) / 2
    # Twelve nodes leave an error of rounding size, for all correlations from -1/2 to 0 and probabilities to 1e-8.
    nodes, weights = np.polynomial.legendre.leggauss(16)
    slopes, weights = jnp.asarray([1 + np.sin(half * (nodes + 1)), half * weights], rare.dtype)
    integral = jnp.sum(jax.vmap(lambda slope, weight: weight * jnp.exp(-(h**2) / slope))(slopes, weights), axis=0)
    return copula, jnp.maximum(ndtr(h) ** 2 + integral / (2 * math.pi), 0)
