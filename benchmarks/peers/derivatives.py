"""Draws with their derivatives, of mcgrad's laws and of JAX's own samplers; TFP's are in `tfp`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.derivatives_case import Sampler, derivatives_case
from benchmarks.worker import Case, serve
from mcgrad.distributions.gamma_rejection import log_ratio_to_mean


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


OURS = {
    "Beta": _law("Beta")._replace(parts=_beta_parts),
    "Dirichlet": Sampler(_dirichlet, _dirichlet_parts),
    "StudentT": Sampler(
        lambda key, df, scale: mcgrad.StudentT(df, 0.0, scale).sample(key),
        lambda key, df, scale: (_log_ratio(jax.random.split(key)[1], df),),
    ),
    "F": _law("F")._replace(
        parts=lambda key, **df: tuple(map(_log_ratio, jax.random.split(key), df.values())),
    ),
    "VonMises": Sampler(lambda key, concentration: mcgrad.VonMises(0.0, concentration).sample(key)),
    "Mixture": Sampler(_mixture),
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
        lambda key, df, scale: scale * jax.random.t(key, df),
        lambda key, df, scale: (_jax_log_ratio(jax.random.split(key)[1], df),),
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
