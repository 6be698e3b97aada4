"""Draws with their derivatives, of mcgrad's laws and of JAX's own samplers; TFP's are in `tfp`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.derivatives_case import Sampler, derivatives_case
from benchmarks.worker import Case, serve
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean


def _law(name: str) -> Sampler:
    law = getattr(mcgrad, name)
    return Sampler(lambda key, **params: law(**params).sample(key))


def _mixture(key: jax.Array, logit: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    logits, locs = (jnp.stack([jnp.zeros_like(value), value], -1) for value in (logit, loc))
    components = mcgrad.Normal(locs, jnp.stack([jnp.ones_like(scale), scale], -1))
    return mcgrad.Mixture(mcgrad.Categorical(logits=logits), components).sample(key)


# The parts are gamma draws, which a law draws from keys split from its own.


def _beta_parts(key: jax.Array, concentration1: jax.Array, concentration0: jax.Array) -> tuple[jax.Array, ...]:
    pairs = zip((concentration1, concentration0), jax.random.split(key), strict=True)
    return tuple(mcgrad.ExpGamma(a, jnp.ones_like(a)).sample(key) for a, key in pairs)


def _dirichlet(key: jax.Array, **c: jax.Array) -> jax.Array:
    return mcgrad.Dirichlet(jnp.stack([*c.values()], -1)).sample(key)[..., 0]


def _dirichlet_parts(key: jax.Array, **c: jax.Array) -> tuple[jax.Array, ...]:
    stacked = jnp.stack([*c.values()], -1)
    return tuple(jnp.moveaxis(mcgrad.ExpGamma(stacked, jnp.ones_like(stacked)).sample(key), -1, 0))


def _log_ratio(key: jax.Array, df: jax.Array) -> jax.Array:
    return log_ratio_to_mean(key, df / 2)


def _pair(last: jax.Array) -> jax.Array:
    return jnp.stack([jnp.zeros_like(last), last], -1)


def _factor(l21: jax.Array, l22: jax.Array) -> jax.Array:
    first = jnp.stack([jnp.ones_like(l21), jnp.zeros_like(l21)], -1)
    return jnp.stack([first, jnp.stack([l21, l22], -1)], -2)


def _normal(loc: jax.Array, **entries: jax.Array) -> mcgrad.MultivariateNormal:
    return mcgrad.MultivariateNormal(_pair(loc), scale_tril=_factor(**entries))


def _transported(law: Any, key: jax.Array) -> jax.Array:
    return law.optimal_transport(jax.lax.stop_gradient(law.sample(key)))


def _student_parts(key: jax.Array, df: jax.Array, **_: jax.Array) -> tuple[jax.Array, ...]:
    key_normal, key_gamma = jax.random.split(key)
    z = jax.random.normal(key_normal, (*df.shape, 2), df.dtype)
    return _log_ratio(key_gamma, df), z[..., 0], z[..., 1]


def _sphere(direction: jax.Array, concentration: jax.Array) -> mcgrad.VonMisesFisher:
    axes = (direction, jnp.zeros_like(direction), jnp.ones_like(direction))
    return mcgrad.VonMisesFisher(jnp.stack(axes, -1), concentration)


def _wishart_parts(key: jax.Array, concentration: jax.Array, **_: jax.Array) -> tuple[jax.Array, ...]:
    key_normal, key_gamma = jax.random.split(key)
    shape = concentration.shape
    halves = jnp.stack([concentration / 2, (concentration - 1) / 2], -1)
    logs = mcgrad.ExpGamma(halves, jnp.full_like(halves, 0.5)).sample(key_gamma)
    z = jax.random.normal(key_normal, (*shape, 2, 2), concentration.dtype)[..., 1, 0]
    return z, logs[..., 0], logs[..., 1]


OURS = {
    "Beta": _law("Beta")._replace(parts=_beta_parts),
    "Dirichlet": Sampler(_dirichlet, _dirichlet_parts),
    "StudentT": _law("StudentT")._replace(parts=lambda key, df, **_: (_log_ratio(jax.random.split(key)[1], df),)),
    "F": _law("F")._replace(
        parts=lambda key, **df: tuple(map(_log_ratio, jax.random.split(key), df.values())),
    ),
    "Mixture": Sampler(_mixture),
    "MultivariateNormal": Sampler(
        lambda key, loc, **factor: _normal(loc, **factor).sample(key)[..., 1],
        lambda key, loc, **factor: tuple(jnp.moveaxis(jax.random.normal(key, (*loc.shape, 2), loc.dtype), -1, 0)),
    ),
    "MultivariateNormal, diagonal": Sampler(
        lambda key, loc, scale: mcgrad.MultivariateNormal(_pair(loc), scale_diag=_pair(scale)).sample(key)[..., 1]
    ),
    "MultivariateNormal, transport": Sampler(
        lambda key, loc, **factor: _transported(_normal(loc, **factor), key)[..., 1],
        lambda key, loc, **factor: (_normal(loc, **factor).sample(key)[..., 0],),
    ),
    "MultivariateStudentT": Sampler(
        lambda key, df, loc, **factor: mcgrad.MultivariateStudentT(df, _pair(loc), _factor(**factor)).sample(key)[
            ..., 1
        ],
        _student_parts,
    ),
    "VonMisesFisher": Sampler(
        lambda key, **params: _sphere(**params).sample(key)[..., 0],
        lambda key, **params: tuple(jnp.moveaxis(_sphere(**params).sample(key), -1, 0)[1:]),
    ),
    "Wishart": Sampler(
        lambda key, concentration, **factor: mcgrad.Wishart(concentration, _factor(**factor)).sample(key)[..., 1, 1],
        _wishart_parts,
    ),
    "LKJCholesky": Sampler(
        lambda key, concentration: mcgrad.LKJCholesky(2, concentration).sample(key)[..., 1, 1],
        lambda key, concentration: (mcgrad.LKJCholesky(2, concentration).sample(key)[..., 1, 0],),
    ),
    "Beta, transport": Sampler(lambda key, **c: _transported(mcgrad.Beta(**c), key)),
    "Dirichlet, transport": Sampler(
        lambda key, **c: _transported(mcgrad.Dirichlet(jnp.stack([*c.values()], -1)), key)[..., 0],
        lambda key, **c: tuple(jnp.moveaxis(mcgrad.Dirichlet(jnp.stack([*c.values()], -1)).sample(key), -1, 0)[1:]),
    ),
}
"""The laws whose name and parameters do not say how to draw from them."""


def _jax_log_ratio(key: jax.Array, df: jax.Array) -> jax.Array:
    return jnp.log(jax.random.gamma(key, df / 2) / (df / 2))


def _in_log_space(key: jax.Array, **concentrations: jax.Array) -> tuple[jax.Array, ...]:
    pairs = zip(concentrations.values(), jax.random.split(key), strict=True)
    return tuple(jax.random.loggamma(key, a) for a, key in pairs)


def _standard(sampler: str) -> Sampler:
    draw = getattr(jax.random, sampler)
    return Sampler(lambda key, loc, scale: loc + scale * draw(key, loc.shape, loc.dtype))


JAX = {
    **{name: _standard(name.lower()) for name in ("Normal", "Laplace", "Logistic", "Cauchy", "Gumbel")},
    "HalfNormal": Sampler(lambda key, scale: scale * jnp.abs(jax.random.normal(key, scale.shape, scale.dtype))),
    "LogNormal": Sampler(lambda key, loc, scale: jnp.exp(loc) * jax.random.lognormal(key, scale, loc.shape, loc.dtype)),
    "Uniform": Sampler(lambda key, low, high: jax.random.uniform(key, low.shape, low.dtype, low, high)),
    "Exponential": Sampler(lambda key, rate: jax.random.exponential(key, rate.shape, rate.dtype) / rate),
    "Weibull": Sampler(
        lambda key, scale, concentration: jax.random.weibull_min(key, scale, concentration, scale.shape, scale.dtype)
    ),
    "Pareto": Sampler(
        lambda key, scale, concentration: scale * jax.random.pareto(key, concentration, scale.shape, scale.dtype)
    ),
    "Gamma": Sampler(lambda key, concentration, rate: jax.random.gamma(key, concentration) / rate),
    "ExpGamma": Sampler(lambda key, concentration, rate: jax.random.loggamma(key, concentration) - jnp.log(rate)),
    "InverseGamma": Sampler(lambda key, concentration, rate: rate / jax.random.gamma(key, concentration)),
    "Chi2": Sampler(lambda key, df: jax.random.chisquare(key, df, dtype=df.dtype)),
    "Beta": Sampler(
        lambda key, concentration1, concentration0: jax.random.beta(key, concentration1, concentration0),
        _in_log_space,
    ),
    "Dirichlet": Sampler(
        lambda key, **c: jax.random.dirichlet(key, jnp.stack([*c.values()], -1))[..., 0],
        lambda key, **c: tuple(jnp.moveaxis(jax.random.loggamma(key, jnp.stack([*c.values()], -1)), -1, 0)),
    ),
    "StudentT": Sampler(
        lambda key, df, loc, scale: loc + scale * jax.random.t(key, df),
        lambda key, df, **_: (_jax_log_ratio(jax.random.split(key)[1], df),),
    ),
    "F": Sampler(
        lambda key, df1, df2: jax.random.f(key, df1, df2, dtype=df1.dtype),
        lambda key, df1, df2: (
            _jax_log_ratio(jax.random.split(key)[1], df1),
            _jax_log_ratio(jax.random.split(key)[0], df2),
        ),
    ),
    "TruncatedNormal": Sampler(
        lambda key, loc, scale, low, high: (
            loc + scale * jax.random.truncated_normal(key, (low - loc) / scale, (high - loc) / scale)
        )
    ),
    "InverseGaussian": Sampler(
        lambda key, mean, concentration: concentration * jax.random.wald(key, mean / concentration)
    ),
}
"""As its documentation says to scale and to shift the standard law."""


def derivatives(library: str, law: str, params: dict[str, Sequence[float]], dtype: str) -> Case:
    if library == "mcgrad":
        return derivatives_case(OURS.get(law) or _law(law), params, dtype)
    if law not in JAX:
        raise LookupError("not in jax.random")
    return derivatives_case(JAX[law], params, dtype, fast=False)


if __name__ == "__main__":
    serve({"derivatives": derivatives}, ("jax", "jaxlib"))
