"""Programs of one draw from one distribution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

import mcgrad
from programs.program import (
    CATEGORICAL,
    CONTINUOUS,
    COUNTS,
    DISCRETE,
    FINITE,
    SMOOTH,
    Table,
    constant,
)

ONE_DRAW = Table()


@ONE_DRAW.add(
    params=np.array([0.6, -0.3]),
    exact=lambda p: p[0] ** 2 + jnp.exp(2 * p[1]) + jnp.exp(-0.5 * jnp.exp(2 * p[1])) * jnp.sin(p[0]),
    kinds=(*SMOOTH, "normal"),
)
def normal(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return x**2 + jnp.sin(x)


@ONE_DRAW.add(
    params=np.array([1.2]),
    exact=lambda p: 100.0 + 8.16 * jax.nn.sigmoid(p[0]),
    kinds=DISCRETE,
    offset=True,
    baseline=lambda p: 104.0 + 0.1 * jnp.sin(p[0]),
)
def bernoulli_with_offset(params, key):
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0]), name="b")
    return (
        0.4 * b.astype(params.dtype) + 10.0
    ) ** 2  # a constant that is added would be seen, and left out of the credit


@ONE_DRAW.add(
    params=np.array([0.4]),
    exact=lambda p: 2.0 * jnp.exp(-2.0 * p[0]),
    kinds=SMOOTH,
    baseline=lambda p: jnp.exp(-p[0]),
)
def exponential(params, key):
    x = mcgrad.sample(key, mcgrad.Exponential(jnp.exp(params[0])), name="x")
    return x**2


@ONE_DRAW.add(params=np.array([0.3, -0.5]), exact=lambda p: jnp.exp(p[0] + 0.5 * jnp.exp(2 * p[1])), kinds=SMOOTH)
def log_normal(params, key):
    return mcgrad.sample(key, mcgrad.LogNormal(params[0], jnp.exp(params[1])), name="x")


@ONE_DRAW.add(
    params=np.array([0.2, 0.7]), exact=lambda p: jnp.exp(p[0] + gammaln(1.0 + jnp.exp(-p[1]))), kinds=CONTINUOUS
)
def weibull(params, key):
    return mcgrad.sample(key, mcgrad.Weibull(scale=jnp.exp(params[0]), concentration=jnp.exp(params[1])), name="x")


@ONE_DRAW.add(
    params=np.array([0.3, 1.7]),
    exact=lambda p: (p[1] ** 4 - p[0] ** 4) / (4.0 * (p[1] - p[0])),
    kinds=("pathwise", "measure-valued", "auto"),
)
def uniform(params, key):
    return mcgrad.sample(key, mcgrad.Uniform(params[0], params[1]), name="x") ** 3


def _jumps_exact(p: Any, threshold: Any) -> jax.Array:
    scale = jnp.exp(p[1])
    above = norm.sf(threshold, p[0], scale)
    # E[x; x > c] = loc P + scale^2 p(c)
    mean_above = p[0] * above + scale**2 * norm.pdf(threshold, p[0], scale)
    return 2.0 * mean_above + (1.0 - above) * p[1] + 3.0 * norm.sf(0.0, p[0], scale)


@ONE_DRAW.add(
    params=np.array([0.4, -0.3]),
    exact=lambda p: _jumps_exact(p, -0.08),
    kinds=("score", "measure-valued", "thresholds"),
    order=1,
)
def jumps_at_thresholds(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return jnp.where(2.0 * x > -0.16, 2.0 * x, params[1]) + 3.0 * (x > 0.0)


# The score and weak derivatives are those of the law: they miss how a threshold moves with a parameter, here 0.0183.
@ONE_DRAW.add(
    params=np.array([0.4, -0.3]), exact=lambda p: _jumps_exact(p, 0.3 * p[0] - 0.2), kinds=("thresholds",), order=1
)
def jumps_at_a_moving_threshold(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return jnp.where(2.0 * x > 0.6 * params[0] - 0.4, 2.0 * x, params[1]) + 3.0 * (x > 0.0)


@ONE_DRAW.add(
    params=np.array([0.3]),
    # With p the probability of success, E[k] = (1 - p) / p and E[k^2] = (1 - p)(2 - p) / p^2.
    exact=lambda p: (lambda q: (1 - q) / q + 0.2 * (1 - q) * (2 - q) / q**2)(jax.nn.sigmoid(p[0])),
    kinds=COUNTS,
)
def geometric(params, key):
    k = mcgrad.sample(key, mcgrad.Geometric(probs=jax.nn.sigmoid(params[0])), name="k").astype(params.dtype)
    return k + 0.2 * k**2


@ONE_DRAW.add(params=np.array([0.6]), exact=lambda p: jnp.exp(p[0]) + (jnp.exp(p[0]) - 1.0) ** 2, kinds=COUNTS)
def poisson(params, key):
    k = mcgrad.sample(key, mcgrad.Poisson(jnp.exp(params[0])), name="k")
    return (k.astype(params.dtype) - 1.0) ** 2


@ONE_DRAW.add(
    params=np.array([0.7]),
    # E[(k - 1)^2] = variance + (mean - 1)^2 for k ~ Binomial(4, q).
    exact=lambda p: (lambda q: 4 * q * (1 - q) + (4 * q - 1) ** 2)(jax.nn.sigmoid(p[0])),
    kinds=FINITE,
)
def binomial(params, key):
    k = mcgrad.sample(key, mcgrad.Binomial(4, logits=params[0]), name="k")
    return (k.astype(params.dtype) - 1.0) ** 2


@ONE_DRAW.add(
    params=np.array([0.5, -0.2, 0.1]),
    exact=lambda p: jax.nn.softmax(p) @ jnp.array([1.44, 0.04, 0.64]),
    kinds=CATEGORICAL,
)
def categorical(params, key):
    x = mcgrad.sample(key, mcgrad.Categorical(logits=params), name="x")
    return (x.astype(params.dtype) - 1.2) ** 2


@ONE_DRAW.add(
    params=np.array([0.5, -0.2, 0.1]),
    exact=lambda p: jax.nn.softmax(p) @ jnp.array([1.0, 4.0, 0.25]),
    kinds=("score", "enumerate", "relaxed", "measure-valued", "auto"),
)
def one_hot_categorical(params, key):
    x = mcgrad.sample(key, mcgrad.OneHotCategorical(logits=params), name="x").astype(params.dtype)
    return (x @ constant([1.0, -2.0, 0.5], params)) ** 2


_QUADRATIC = np.array([[1.0, 0.4], [0.4, 0.5]])


def _scale_tril(raw):
    return jnp.stack([jnp.stack([jnp.exp(raw[0]), jnp.zeros_like(raw[0])]), jnp.stack([raw[1], jnp.exp(raw[2])])])


def _quadratic_exact(loc, scale_tril):
    return loc @ _QUADRATIC @ loc + jnp.trace(_QUADRATIC @ scale_tril @ scale_tril.T)


@ONE_DRAW.add(
    params={"loc": np.array([0.8, -0.6]), "raw": np.array([-0.2, 0.5, -0.4])},
    exact=lambda p: _quadratic_exact(p["loc"], _scale_tril(p["raw"])),
    kinds=SMOOTH,
)
def multivariate_normal(params, key):
    loc, scale_tril = params["loc"], _scale_tril(params["raw"])
    x = mcgrad.sample(key, mcgrad.MultivariateNormal(loc, scale_tril=scale_tril), name="x")
    return x @ constant(_QUADRATIC, loc) @ x


@ONE_DRAW.add(
    params=np.array([[0.8, -0.6], [-0.3, -0.5]]),
    exact=lambda p: _quadratic_exact(p[0], jnp.diag(jnp.exp(p[1]))),
    kinds=SMOOTH,
)
def independent_normals(params, key):
    law = mcgrad.Independent(mcgrad.Normal(params[0], jnp.exp(params[1])), 1)
    x = mcgrad.sample(key, law, name="x")
    return x @ constant(_QUADRATIC, params) @ x


_Tilted = mcgrad.distribution(
    sampler=lambda key, tilt: jax.random.choice(key, 3, p=jax.nn.softmax(tilt * jnp.arange(3, dtype=tilt.dtype))),
    log_prob=lambda x, tilt: jax.nn.log_softmax(tilt * jnp.arange(3, dtype=tilt.dtype))[x],
)


# Not measure-valued: a discrete law without a `weak_derivative`. Laws of a user with a `cdf` are in tests/test_weak_derivatives.py.
@ONE_DRAW.add(
    params=np.array([0.4]),
    exact=lambda p: jax.nn.softmax(p[0] * jnp.arange(3.0)) @ jnp.array([0.0, 1.0, 4.0]),
    kinds=("score", "auto"),
)
def users_own_law(params, key):
    x = mcgrad.sample(key, _Tilted(params[0]), name="x")
    return x.astype(params.dtype) ** 2
