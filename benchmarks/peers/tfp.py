"""Draws of TFP-on-JAX with a derivative in the shape of their law."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from tensorflow_probability.substrates.jax import distributions as tfd
from tensorflow_probability.substrates.jax.distributions import gamma
from tensorflow_probability.substrates.jax.internal import samplers

from benchmarks.peers.derivatives_case import Sampler, derivatives_case
from benchmarks.peers.draws_case import draws_case
from benchmarks.worker import Case, serve

LAWS = {
    "Gamma": lambda c: tfd.Gamma(c, 1.0),
    "Beta": lambda c: tfd.Beta(c, 2.0),
    "Dirichlet": lambda c: tfd.Dirichlet(c[:, None] * jnp.ones(3)),
    "StudentT": lambda c: tfd.StudentT(c, 0.0, 1.0),
    "VonMises": lambda c: tfd.VonMises(0.0, c),
}


@functools.cache
def _sampler(law: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda key, concentrations: LAWS[law](concentrations).sample(seed=key)


def draws(law: str, concentration: float) -> Case:
    return draws_case(_sampler(law), concentration)


def _mixture(logit: jax.Array, loc: jax.Array, scale: jax.Array) -> tfd.Distribution:
    logits, locs = (jnp.stack([jnp.zeros_like(value), value], -1) for value in (logit, loc))
    components = tfd.Normal(locs, jnp.stack([jnp.ones_like(scale), scale], -1))
    return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), components, reparameterize=True)


BUILT = {
    **{name: getattr(tfd, name) for name in ("Normal", "LogNormal", "Uniform", "Exponential", "Laplace", "Logistic")},
    **{name: getattr(tfd, name) for name in ("Cauchy", "Gumbel", "HalfNormal", "Gamma", "ExpGamma", "Chi2", "Beta")},
    "Weibull": lambda scale, concentration: tfd.Weibull(concentration, scale),
    "Pareto": lambda scale, concentration: tfd.Pareto(concentration, scale),
    "Kumaraswamy": lambda concentration1, concentration0: tfd.Kumaraswamy(concentration1, concentration0),
    "InverseGamma": lambda concentration, rate: tfd.InverseGamma(concentration, scale=rate),
    "Dirichlet": lambda **c: tfd.Dirichlet(jnp.stack([*c.values()], -1)),
    "StudentT": tfd.StudentT,
    "VonMises": tfd.VonMises,
    "TruncatedNormal": tfd.TruncatedNormal,
    "InverseGaussian": lambda mean, concentration: tfd.InverseGaussian(mean, concentration),
    "Mixture": _mixture,
}
"""The laws by mcgrad's names of their parameters."""

# The gamma draws that a law is made of, from seeds split as it splits its own.


def _log_gamma(seed: jax.Array, concentration: jax.Array) -> jax.Array:
    return gamma.random_gamma([], concentration, seed=seed, log_space=True)


PARTS = {
    "Beta": lambda key, **c: tuple(map(_log_gamma, samplers.split_seed(key, salt="beta"), c.values())),
    "Dirichlet": lambda key, **c: tuple(jnp.moveaxis(_log_gamma(key, jnp.stack([*c.values()], -1)), -1, 0)),
    "StudentT": lambda key, df, **_: (
        jnp.log(gamma.random_gamma([], df / 2, 0.5, seed=samplers.split_seed(key, salt="student_t")[1]) / df),
    ),
}


def derivatives(law: str, params: dict[str, Sequence[float]], dtype: str) -> Case:
    if law not in BUILT:
        raise LookupError("not in TFP")

    def sample(key: jax.Array, **values: jax.Array) -> jax.Array:
        x = BUILT[law](**values).sample(seed=key)
        return x[..., 0] if law == "Dirichlet" else x

    return derivatives_case(Sampler(sample, PARTS.get(law, lambda key, **_: ())), params, dtype, fast=False)


if __name__ == "__main__":
    serve({"draws": draws, "derivatives": derivatives}, ("tfp-nightly", "jax", "jaxlib"))
