"""The noncentral chi-squared distribution."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.checks import Domain
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.numerics.arithmetic import align
from mcgrad.distributions.numerics.counts import poisson
from mcgrad.distributions.numerics.elementwise import smooth
from mcgrad.distributions.numerics.gamma import log_density_of_log, log_gamma_velocity, log_poisson, probabilities
from mcgrad.distributions.numerics.gamma_rejection import standard_gamma
from mcgrad.distributions.numerics.quadrature import per_node

stop = jax.lax.stop_gradient
_MOST = 4e9  # half of it is drawn as a 32-bit count
_MOST_DF = 1e28  # its product with the noncentrality does not overflow

_BOUNDED = Domain(
    "be positive and at most 1e28",
    lambda v: (v > 0) & (v <= _MOST_DF),
    "Pass a value above zero, for instance `jnp.exp(x)`, and for larger ones take `mcgrad.Normal`.",
)

_COUNTED = Domain(
    "lie between 0 and 4e9",
    lambda v: (v >= 0) & (v <= _MOST),
    "For larger ones take `mcgrad.Normal` with the mean and the variance of the distribution.",
)


@dataclasses.dataclass(frozen=True)
class NoncentralChi2(Distribution):
    """Noncentral chi-squared distribution, of `sum_i (z_i + c_i)^2` for `df` normal draws `z_i` and `sum_i c_i^2 = noncentrality`.

    The mixture of chi-squared laws of `df + 2 j` degrees of freedom with Poisson weights of mean `noncentrality / 2`; `df` need
    not be whole. Draws are differentiable in both parameters, to every order, by the derivative that keeps the quantile, to
    the precision of the dtype: also where `df <= 1`, and at noncentrality zero. It takes a few thousand exponentials a draw.
    **A draw that underflows is the smallest positive number**, with derivative zero.

    Args:
        df: degrees of freedom; any shape; positive, at most 1e28.
        noncentrality: any shape that broadcasts with `df`; from 0 to 4e9.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.

    Example:
        >>> import jax, mcgrad
        >>> def cost(noncentrality, key):
        ...     return mcgrad.sample(key, mcgrad.NoncentralChi2(0.5, noncentrality))
        >>> gradient = mcgrad.pathwise_grad(cost, num_samples=2000)(3.0, jax.random.key(0))
        >>> bool(abs(gradient - 1) < 0.05)  # the mean is df + noncentrality
        True

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6,
        https://arxiv.org/abs/1805.08498.
    """

    df: Float[ArrayLike, "*batch"]
    noncentrality: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"df": _BOUNDED, "noncentrality": _COUNTED}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        key_poisson, key_gamma = jax.random.split(key)
        df, noncentrality = (jnp.broadcast_to(value, self.batch_shape) for value in (self.df, self.noncentrality))
        mean = stop(noncentrality) / 2
        valid = (mean >= 0) & (mean <= _MOST / 2) & (df <= _MOST_DF)
        pairs = poisson(key_poisson, jnp.where(valid, mean, 0.0)).astype(self.dtype)
        x, _ = standard_gamma(key_gamma, jnp.where(valid, stop(df) / 2 + pairs, jnp.nan))
        return _draw(jnp.maximum(2 * x, jnp.finfo(self.dtype).tiny), df, noncentrality)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` below zero; at zero finite for `df = 2`, infinite for less."""
        x, df, noncentrality = jnp.broadcast_arrays(*align(x, self.df, self.noncentrality))
        inside = (x > 0) & (x < jnp.inf)
        at_zero = special.xlogy(df / 2 - 1, jnp.where(x == 0, 0.0, 1.0)) - math.log(2) - noncentrality / 2
        at_end = jnp.where(x == 0, at_zero, -jnp.inf)
        return jnp.where(inside, _log_density(jnp.where(inside, x, 1.0), df, noncentrality), at_end)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, to a rounding error of one: far down the lower tail relative digits are lost."""
        x, df, noncentrality = jnp.broadcast_arrays(*align(x, self.df, self.noncentrality))
        inside = (x > 0) & (x < jnp.inf)
        at_end = jnp.where(x == jnp.inf, 1.0, 0.0)
        return jnp.where(inside, _distribution_function(jnp.where(inside, x, 1.0), df, noncentrality), at_end)


def _terms(x: Array, df: Array, noncentrality: Array) -> tuple[Array, Array]:
    """Indices `j`, `[..., term]`, and the logarithms of terms whose sum is the density of `log(x)`.

    A term is a Poisson weight times the chi-squared density. As functions of `j` the terms go as `q^j / (j! Gamma(df / 2 + j))`
    with `q = noncentrality x / 4`, nearly normal around the solution `c` of `c (c + n) = q`, `n = df / 2 - 1`. Where they spread
    over more numbers than there are terms, equidistant ones do: the sum over them converges as fast as that of a normal density,
    and there is nothing at zero.
    """
    n, twice_root = df / 2 - 1, jnp.sqrt(noncentrality) * jnp.sqrt(x)
    root = jnp.hypot(n, twice_root)
    center = stop(jnp.where(n > 0, twice_root * (twice_root / (jnp.abs(n) + root)) / 2, (root - n) / 2))
    n = jnp.maximum(n, 0)
    j, stride = _around(center, stop(jnp.sqrt(center * (center + n) / (2 * center + n + 1))))
    # added so that a noncentrality of zero has its derivatives, and no logarithm of zero
    mean = noncentrality / 2 + (1e-300 if x.dtype == jnp.float64 else 1e-36)
    # the logarithm also where the half underflows
    half, log_half, mean = (jnp.broadcast_to(per_node(y), j.shape) for y in (x / 2, jnp.log(x) - math.log(2), mean))
    log_terms = log_poisson(j, mean) + log_density_of_log(half, log_half, per_node(df) / 2 + j)
    return j, log_terms + jnp.log(per_node(stride))


def _around(center: Array, width: Array) -> tuple[Array, Array]:
    """Numbers over all that has weight, `[..., term]`, from zero on and whole if they suffice so, and their distance."""
    # enough for `tests/test_noncentral_chi2.py`: weights are negligible beyond `reach` widths, and `tail` more for small centers
    terms, reach, tail = (112, 8.5, 20) if center.dtype == jnp.float64 else (56, 6.0, 12)
    first = jnp.maximum(jnp.floor(center - reach * width - 2), 0)
    stride = jnp.maximum((center + reach * width + tail - first) / (terms - 1), 1)
    row = jnp.arange(terms, dtype=center.dtype).reshape((1,) * center.ndim + (-1,))
    return per_node(first) + per_node(stride) * row, stride


@jax.jit
def _velocity(x: Array, df: Array, noncentrality: Array) -> tuple[Array, Array]:
    """The derivatives of a quantile in `df` and in the noncentrality: means over `j` given `x`.

    In `df` of those of the chi-squared laws, and in the noncentrality of `x / (df + 2 j)`, since `dF/dnoncentrality` is minus the
    density for `df + 2`.
    """
    j, log_terms = _terms(x, df, noncentrality)
    weights, a = jax.nn.softmax(log_terms, -1), per_node(df) / 2 + j
    half, log_half = (jnp.broadcast_to(per_node(value), j.shape) for value in (x / 2, jnp.log(x) - math.log(2)))
    in_df = jnp.sum(weights * log_gamma_velocity(half, log_half, a), -1) / 2
    return x * in_df, x * jnp.sum(weights / (2 * a), -1)


@smooth
def _log_density(x: Array, df: Array, noncentrality: Array) -> Array:
    return special.logsumexp(_terms(x, df, noncentrality)[1], axis=-1) - jnp.log(x)


@smooth
def _cdf(x: Array, df: Array, noncentrality: Array) -> Array:
    mean = noncentrality / 2
    j, _ = _around(mean, jnp.sqrt(mean))
    half = jnp.clip(x / 2, jnp.finfo(x.dtype).tiny, jnp.finfo(x.dtype).max)
    below, _ = probabilities(jnp.broadcast_to(per_node(half), j.shape), per_node(df) / 2 + j)
    return jnp.sum(jax.nn.softmax(log_poisson(j, jnp.broadcast_to(per_node(mean), j.shape)), -1) * below, -1)


_draw = moving_draw(_velocity)
_distribution_function = distribution_function(_cdf, _log_density, _velocity)
