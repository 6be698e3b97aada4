"""Expected log densities of one distribution under another of its family, which exact Fisher matrices are derivatives of."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array

from mcgrad.distributions.bernoulli import Bernoulli
from mcgrad.distributions.beta import Beta
from mcgrad.distributions.binomial import Binomial
from mcgrad.distributions.dirichlet import Dirichlet
from mcgrad.distributions.exponential import Exponential
from mcgrad.distributions.gamma import Gamma
from mcgrad.distributions.geometric import Geometric
from mcgrad.distributions.half_normal import HalfNormal
from mcgrad.distributions.inverse_gamma import InverseGamma
from mcgrad.distributions.log_normal import LogNormal
from mcgrad.distributions.multinomial import Multinomial
from mcgrad.distributions.multivariate_normal import MultivariateNormal
from mcgrad.distributions.normal import Normal
from mcgrad.distributions.poisson import Poisson
from mcgrad.distributions.wrappers.independent import Independent


@functools.singledispatch
def expected_log_prob(dist: Any, under: Any) -> Array | None:
    """`E[log p(x)]` for `x` of the distribution `under`, of the batch shape, up to what no parameter of `dist` moves.

    Of exponential families in closed form, and of finite supports by a sum; `None` of others. `under` is of the same class, and
    its values are those of `dist`: only the derivatives in `dist` there are of use.
    """
    support = getattr(dist, "support", None)
    values = support() if callable(support) else None
    if values is None:
        return None
    batch = (1,) * len(dist.batch_shape)
    points = values.reshape(len(values), *batch, *values.shape[1:])
    points = jnp.broadcast_to(points, (len(values), *dist.batch_shape, *values.shape[1:]))

    def term(x: Array) -> Array:
        p = jnp.exp(under.log_prob(x))
        return jnp.where(p > 0, p * jnp.where(p > 0, dist.log_prob(x), 0), 0)

    return jnp.sum(jax.vmap(term)(points), axis=0)


def _normal(dist: Any, under: Any) -> Array:
    return -jnp.log(dist.scale) - ((under.loc - dist.loc) ** 2 + under.scale**2) / (2 * dist.scale**2)


expected_log_prob.register(Normal, _normal)
expected_log_prob.register(LogNormal, _normal)


@expected_log_prob.register
def _(dist: HalfNormal, under: HalfNormal) -> Any:
    return -jnp.log(dist.scale) - under.scale**2 / (2 * dist.scale**2)


@expected_log_prob.register
def _(dist: Exponential, under: Exponential) -> Any:
    return jnp.log(dist.rate) - dist.rate / under.rate


@expected_log_prob.register
def _(dist: Poisson, under: Poisson) -> Any:
    return under.rate * jnp.log(dist.rate) - dist.rate


def _gamma(dist: Any, under: Any) -> Array:
    """Of a logarithm of mean `digamma(a) - log(b)`, and of a mean `a / b`; the reciprocal of a draw has the same."""
    a, b = dist.concentration, dist.rate
    mean_log = digamma(under.concentration) - jnp.log(under.rate)
    return a * jnp.log(b) - gammaln(a) + a * mean_log - b * under.concentration / under.rate


expected_log_prob.register(Gamma, _gamma)
expected_log_prob.register(InverseGamma, _gamma)


@expected_log_prob.register
def _(dist: Beta, under: Beta) -> Any:
    def stacked(d: Beta) -> Array:
        return jnp.stack(jnp.broadcast_arrays(d.concentration1, d.concentration0), axis=-1)

    return _dirichlet(stacked(dist), stacked(under))


@expected_log_prob.register
def _(dist: Dirichlet, under: Dirichlet) -> Any:
    return _dirichlet(dist.concentration, under.concentration)


def _dirichlet(a: Any, of: Any) -> Array:
    mean_log = digamma(of) - digamma(jnp.sum(of, axis=-1, keepdims=True))
    return gammaln(jnp.sum(a, axis=-1)) + jnp.sum((a - 1) * mean_log - gammaln(a), axis=-1)


def _by_mean(dist: Any, mean: Array) -> Array:
    """Of a density whose logarithm is affine in the draw, by its values at zero and one, and the mean of the draw."""
    zero, one = dist.log_prob(jnp.zeros_like(mean)), dist.log_prob(jnp.ones_like(mean))
    return zero + mean * (one - zero)


@expected_log_prob.register
def _(dist: Geometric, under: Geometric) -> Any:
    success = jnp.exp(under.log_prob(jnp.zeros(under.batch_shape)))
    return _by_mean(dist, (1 - success) / success)


@expected_log_prob.register
def _(dist: Binomial, under: Binomial) -> Any:
    def trial(d: Binomial) -> Bernoulli:
        return Bernoulli(logits=d.logits, probs=d.probs)

    found = expected_log_prob(trial(dist), trial(under))
    assert found is not None
    return dist.total_count * found


@expected_log_prob.register
def _(dist: Multinomial, under: Multinomial) -> Any:
    p, log_p = under._normalized(), jnp.log(dist._normalized())
    return dist.total_count * jnp.sum(jnp.where(p > 0, p * jnp.where(p > 0, log_p, 0), 0), axis=-1)


@expected_log_prob.register
def _(dist: MultivariateNormal, under: MultivariateNormal) -> Any:
    def factor(d: MultivariateNormal) -> Array:
        if d.scale_tril is not None:
            return jnp.tril(jnp.asarray(d.scale_tril))
        diagonal = jnp.asarray(d.scale_diag)
        return diagonal[..., None] * jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)

    own, other = jnp.broadcast_arrays(factor(dist), factor(under))
    gap = jnp.broadcast_to(jnp.asarray(under.loc) - jnp.asarray(dist.loc), own.shape[:-1])
    both = jnp.concatenate([other, gap[..., None]], axis=-1)
    solved = jax.scipy.linalg.solve_triangular(own, both, lower=True)
    log_determinant = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(own, axis1=-2, axis2=-1))), axis=-1)
    return -log_determinant - jnp.sum(solved**2, axis=(-2, -1)) / 2


@expected_log_prob.register
def _(dist: Independent, under: Independent) -> Array | None:
    found = expected_log_prob(dist.base, under.base)
    return None if found is None else jnp.sum(found, axis=tuple(range(-dist.reinterpreted_batch_ndims, 0)))
