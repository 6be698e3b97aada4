"""Distrax's distributions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def rows() -> dict[str, Any]:
    """One row a name; `p` is 1."""
    import distrax as dx

    logits, probs = jnp.asarray([0.3, -0.5, 0.1]), jnp.asarray([0.5, 0.2, 0.3])
    tril, two = jnp.asarray([[1.0, 0.0], [0.4, 0.8]]), jnp.asarray([0.5, -0.3])

    def coupling(p: Any) -> Any:
        def conditioner(x: Any) -> Any:
            return jnp.stack([0.5 * p * jnp.tanh(x), 0.3 * x], -1)

        return dx.MaskedCoupling(
            jnp.asarray([True, False]), conditioner, lambda w: dx.ScalarAffine(shift=w[..., 0], log_scale=w[..., 1])
        )

    def base() -> Any:
        return dx.Independent(dx.Normal(jnp.zeros(2), jnp.ones(2)), 1)

    return {
        "Bernoulli": lambda p: dx.Bernoulli(logits=0.4 * p),
        "Bernoulli, probs": lambda p: dx.Bernoulli(probs=0.3 * p),
        "Beta": lambda p: dx.Beta(1.4 * p, 2.3),
        "Categorical": lambda p: dx.Categorical(logits=p * logits),
        "Categorical, probs": lambda p: dx.Categorical(probs=probs + (p - 1) * jnp.asarray([0.1, -0.1, 0.0])),
        "CategoricalUniform": lambda p: dx.CategoricalUniform(
            low=jnp.asarray(0.3), high=jnp.asarray(2.0), logits=p * logits
        ),
        "Clipped": lambda p: dx.Clipped(dx.Normal(0.3 * p, 1.0), -0.5, 1.5),
        "ClippedLogistic": lambda p: dx.ClippedLogistic(0.3 * p, 1.0, -0.5, 1.5),
        "ClippedNormal": lambda p: dx.ClippedNormal(0.3 * p, 1.0, -0.5, 1.5),
        "Deterministic": lambda p: dx.Deterministic(0.3 * p),
        "Dirichlet": lambda p: dx.Dirichlet(p * jnp.asarray([1.2, 2.0, 3.1])),
        "Distribution": "the base class",
        "EpsilonGreedy": lambda p: dx.EpsilonGreedy(p * logits, 0.3),
        "Gamma": lambda p: dx.Gamma(1.4 * p, 0.7),
        "Greedy": lambda p: dx.Greedy(p * logits),
        "Gumbel": lambda p: dx.Gumbel(0.3 * p, 1.3),
        "Independent": lambda p: dx.Independent(dx.Normal(p * two, 1.3 * jnp.ones(2)), 1),
        "Independent, discrete": lambda p: dx.Independent(dx.Bernoulli(logits=p * two), 1),
        "Joint": lambda p: dx.Joint([dx.Normal(0.3 * p, 1.0), dx.Gamma(2.0, 1.0)]),
        "Joint, named": lambda p: dx.Joint({"a": dx.Normal(0.3 * p, 1.0), "b": dx.Bernoulli(logits=0.4 * p)}),
        "Laplace": lambda p: dx.Laplace(0.3 * p, 1.3),
        "LogStddevNormal": lambda p: dx.LogStddevNormal(0.3 * p, 0.2),
        "Logistic": lambda p: dx.Logistic(0.3 * p, 1.3),
        "MixtureOfTwo": lambda p: dx.MixtureOfTwo(0.4 * p, dx.Normal(-1.0, 0.7), dx.Normal(1.0, 0.5)),
        "MixtureSameFamily": lambda p: dx.MixtureSameFamily(
            dx.Categorical(logits=p * two), dx.Normal(jnp.asarray([-1.0, 1.0]), jnp.ones(2))
        ),
        "Multinomial": lambda p: dx.Multinomial(4, logits=p * logits),
        "MultivariateNormalDiag": lambda p: dx.MultivariateNormalDiag(p * two, jnp.asarray([0.8, 1.3])),
        "MultivariateNormalDiagPlusLowRank": lambda p: dx.MultivariateNormalDiagPlusLowRank(
            p * two, jnp.asarray([0.8, 1.3]), jnp.asarray([[0.5], [0.3]])
        ),
        "MultivariateNormalFromBijector": lambda p: dx.MultivariateNormalFromBijector(
            p * two, dx.DiagLinear(jnp.asarray([0.8, 1.3]))
        ),
        "MultivariateNormalFullCovariance": lambda p: dx.MultivariateNormalFullCovariance(p * two, tril @ tril.T),
        "MultivariateNormalTri": lambda p: dx.MultivariateNormalTri(p * two, tril),
        "Normal": lambda p: dx.Normal(0.3 * p, 1.3),
        "Normal, numbers": lambda p: dx.Normal(0.3, 1.3),
        "Normal, 16 bits": lambda p: dx.Normal(jnp.asarray(0.3 * p, jnp.bfloat16), jnp.asarray(1.3, jnp.bfloat16)),
        "OneHotCategorical": lambda p: dx.OneHotCategorical(logits=p * logits),
        "Quantized": lambda p: dx.Quantized(dx.Normal(0.3 * p, 1.7)),
        "Quantized, bounds": lambda p: dx.Quantized(dx.Normal(0.3 * p, 1.7), low=-2, high=3),
        "Softmax": lambda p: dx.Softmax(p * logits),
        "Transformed": lambda p: dx.Transformed(dx.Normal(0.3 * p, 0.8), dx.Lambda(jnp.exp)),
        "Transformed, affine": lambda p: dx.Transformed(dx.Normal(0.3, 0.8), dx.ScalarAffine(0.3 * p, 2.0)),
        "Transformed, chain": lambda p: dx.Transformed(
            dx.Normal(0.3 * p, 0.8), dx.Chain([dx.ScalarAffine(0.0, 2.0), dx.Tanh()])
        ),
        "Transformed, closed over": lambda p: dx.Transformed(
            dx.Normal(0.3, 0.8), dx.Lambda(lambda x: p * jnp.sinh(x), lambda y: jnp.arcsinh(y / p))
        ),
        "Transformed, inverse": lambda p: dx.Transformed(
            dx.Normal(0.3 * p, 0.8), dx.Inverse(dx.ScalarAffine(0.5, 2.0))
        ),
        "Transformed, flow": lambda p: dx.Transformed(base(), coupling(p)),
        "Transformed, inverse flow": lambda p: dx.Transformed(base(), dx.Inverse(coupling(p))),
        "Transformed, spline": lambda p: dx.Transformed(
            dx.Uniform(0.0, 1.0),
            dx.RationalQuadraticSpline(p * jnp.asarray([0.3, -0.5, 0.2, 0.1, -0.4, 0.3, 0.2]), 0.0, 1.0),
        ),
        "Uniform": lambda p: dx.Uniform(0.3 * p, 1.3),
        "VonMises": lambda p: dx.VonMises(0.3 * p, 1.3),
        "VonMises, batch": lambda p: dx.VonMises(p * two, jnp.asarray([1.3, 0.7])),
        "VonMises, large": lambda p: dx.VonMises(0.3 * p, 30.0),
        "Normal, batch": lambda p: jax.vmap(lambda loc: dx.Normal(loc, 1.3))(p * two),
    }
