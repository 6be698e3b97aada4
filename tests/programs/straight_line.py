"""Programs without loops: the laws, and the ways in which JAX code is put together."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

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
    MIXED,
    Table,
    constant,
    expect_bernoulli,
    expect_categorical,
    expect_normal,
)

STRAIGHT_LINE = Table()


# One draw from one law.


@STRAIGHT_LINE.add(
    params=np.array([0.6, -0.3]),
    exact=lambda p: p[0] ** 2 + jnp.exp(2 * p[1]) + jnp.exp(-0.5 * jnp.exp(2 * p[1])) * jnp.sin(p[0]),
    kinds=(*CONTINUOUS, "normal"),
)
def normal(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return x**2 + jnp.sin(x)


@STRAIGHT_LINE.add(
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


@STRAIGHT_LINE.add(
    params=np.array([0.4]),
    exact=lambda p: 2.0 * jnp.exp(-2.0 * p[0]),
    kinds=CONTINUOUS,
    baseline=lambda p: jnp.exp(-p[0]),
)
def exponential(params, key):
    x = mcgrad.sample(key, mcgrad.Exponential(jnp.exp(params[0])), name="x")
    return x**2


@STRAIGHT_LINE.add(
    params=np.array([0.3, -0.5]), exact=lambda p: jnp.exp(p[0] + 0.5 * jnp.exp(2 * p[1])), kinds=CONTINUOUS
)
def log_normal(params, key):
    return mcgrad.sample(key, mcgrad.LogNormal(params[0], jnp.exp(params[1])), name="x")


@STRAIGHT_LINE.add(
    params=np.array([0.2, 0.7]), exact=lambda p: jnp.exp(p[0] + gammaln(1.0 + jnp.exp(-p[1]))), kinds=CONTINUOUS
)
def weibull(params, key):
    return mcgrad.sample(key, mcgrad.Weibull(scale=jnp.exp(params[0]), concentration=jnp.exp(params[1])), name="x")


@STRAIGHT_LINE.add(
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


@STRAIGHT_LINE.add(
    params=np.array([0.4, -0.3]),
    exact=lambda p: _jumps_exact(p, -0.08),
    kinds=("score", "measure-valued", "thresholds"),
    order=1,
)
def jumps_at_thresholds(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return jnp.where(2.0 * x > -0.16, 2.0 * x, params[1]) + 3.0 * (x > 0.0)


# The score and weak derivatives are those of the law: they miss how a threshold moves with a parameter, here 0.0183.
@STRAIGHT_LINE.add(
    params=np.array([0.4, -0.3]), exact=lambda p: _jumps_exact(p, 0.3 * p[0] - 0.2), kinds=("thresholds",), order=1
)
def jumps_at_a_moving_threshold(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], jnp.exp(params[1])), name="x")
    return jnp.where(2.0 * x > 0.6 * params[0] - 0.4, 2.0 * x, params[1]) + 3.0 * (x > 0.0)


@STRAIGHT_LINE.add(
    params=np.array([0.3]),
    # With p the probability of success, E[k] = (1 - p) / p and E[k^2] = (1 - p)(2 - p) / p^2.
    exact=lambda p: (lambda q: (1 - q) / q + 0.2 * (1 - q) * (2 - q) / q**2)(jax.nn.sigmoid(p[0])),
    kinds=COUNTS,
)
def geometric(params, key):
    k = mcgrad.sample(key, mcgrad.Geometric(probs=jax.nn.sigmoid(params[0])), name="k").astype(params.dtype)
    return k + 0.2 * k**2


@STRAIGHT_LINE.add(params=np.array([0.6]), exact=lambda p: jnp.exp(p[0]) + (jnp.exp(p[0]) - 1.0) ** 2, kinds=COUNTS)
def poisson(params, key):
    k = mcgrad.sample(key, mcgrad.Poisson(jnp.exp(params[0])), name="k")
    return (k.astype(params.dtype) - 1.0) ** 2


@STRAIGHT_LINE.add(
    params=np.array([0.7]),
    # E[(k - 1)^2] = variance + (mean - 1)^2 for k ~ Binomial(4, q).
    exact=lambda p: (lambda q: 4 * q * (1 - q) + (4 * q - 1) ** 2)(jax.nn.sigmoid(p[0])),
    kinds=FINITE,
)
def binomial(params, key):
    k = mcgrad.sample(key, mcgrad.Binomial(4, logits=params[0]), name="k")
    return (k.astype(params.dtype) - 1.0) ** 2


@STRAIGHT_LINE.add(
    params=np.array([0.5, -0.2, 0.1]),
    exact=lambda p: jax.nn.softmax(p) @ jnp.array([1.44, 0.04, 0.64]),
    kinds=CATEGORICAL,
)
def categorical(params, key):
    x = mcgrad.sample(key, mcgrad.Categorical(logits=params), name="x")
    return (x.astype(params.dtype) - 1.2) ** 2


@STRAIGHT_LINE.add(
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


@STRAIGHT_LINE.add(
    params={"loc": np.array([0.8, -0.6]), "raw": np.array([-0.2, 0.5, -0.4])},
    exact=lambda p: _quadratic_exact(p["loc"], _scale_tril(p["raw"])),
    kinds=CONTINUOUS,
)
def multivariate_normal(params, key):
    loc, scale_tril = params["loc"], _scale_tril(params["raw"])
    x = mcgrad.sample(key, mcgrad.MultivariateNormal(loc, scale_tril=scale_tril), name="x")
    return x @ constant(_QUADRATIC, loc) @ x


@STRAIGHT_LINE.add(
    params=np.array([[0.8, -0.6], [-0.3, -0.5]]),
    exact=lambda p: _quadratic_exact(p[0], jnp.diag(jnp.exp(p[1]))),
    kinds=CONTINUOUS,
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
@STRAIGHT_LINE.add(
    params=np.array([0.4]),
    exact=lambda p: jax.nn.softmax(p[0] * jnp.arange(3.0)) @ jnp.array([0.0, 1.0, 4.0]),
    kinds=("score", "auto"),
)
def users_own_law(params, key):
    x = mcgrad.sample(key, _Tilted(params[0]), name="x")
    return x.astype(params.dtype) ** 2


# Several draws.

_LAYERS = {
    "first": np.array([0.4, -0.3]),
    "weights": np.array([[0.9, -0.5], [0.4, 1.1]]),
    "bias": np.array([0.2, -0.4]),
}


def _layers_cost(first, second):
    return (second @ constant([1.0, -1.5], first) - 1.0) ** 2 + 0.5 * first[0]


def _layers_exact(params):
    def given_first(first):
        logits = first @ params["weights"] + params["bias"]
        return expect_bernoulli(logits, lambda second: _layers_cost(first, second))

    return expect_bernoulli(params["first"], given_first)


@STRAIGHT_LINE.add(params=_LAYERS, exact=_layers_exact, kinds=DISCRETE)
def two_discrete_layers(params, key):
    key_first, key_second = jax.random.split(key)
    first = mcgrad.sample(key_first, mcgrad.Bernoulli(logits=params["first"]), name="first").astype(
        params["bias"].dtype
    )
    logits = first @ params["weights"] + params["bias"]
    second = mcgrad.sample(key_second, mcgrad.Bernoulli(logits=logits), name="second").astype(first.dtype)
    return _layers_cost(first, second)


def _mixture_exact(params):
    def component(loc):
        return expect_normal(loc, 0.8, lambda x: x**2 + jnp.sin(2 * x))

    q = jax.nn.sigmoid(params[0])
    return q * (component(params[1]) + 0.5) + (1 - q) * component(params[2])


def _mixture(params, key, discrete: Any = None, continuous: Any = None):
    key_b, key_x = jax.random.split(key)
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=params[0]), discrete, name="b")
    law = mcgrad.Normal(jnp.where(b == 1, params[1], params[2]), 0.8)
    x = mcgrad.sample(key_x, law, continuous, name="x")
    return x**2 + jnp.sin(2 * x) + 0.5 * b.astype(params.dtype)


_MIXTURE = {"params": np.array([0.3, 1.0, -0.7]), "exact": _mixture_exact}


@STRAIGHT_LINE.add(**_MIXTURE, kinds=MIXED)
def mixture_of_kinds(params, key):
    return _mixture(params, key)


@STRAIGHT_LINE.add(**_MIXTURE, kinds=("auto",))
def sites_that_name_score_and_pathwise(params, key):
    return _mixture(params, key, mcgrad.Score(), mcgrad.Pathwise())


@STRAIGHT_LINE.add(**_MIXTURE, kinds=("auto",))
def sites_that_name_enumerate_and_score(params, key):
    return _mixture(params, key, mcgrad.Enumerate(), mcgrad.Score(num_samples=2))


@STRAIGHT_LINE.add(
    params=np.array([0.7, -0.4]),
    exact=lambda p: sum(
        expect_normal(loc, 0.6, lambda z: 0.1 * z**2 + 0.04 + 0.6 * jax.nn.sigmoid(1.5 * z)) for loc in p
    ),
    kinds=MIXED,
)
def normal_layer_then_bernoulli_layer(params, key):
    key_z, key_b = jax.random.split(key)
    z = mcgrad.sample(key_z, mcgrad.Normal(params, 0.6), name="z")
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=1.5 * z), name="b").astype(params.dtype)
    return jnp.sum((b - 0.2) ** 2 + 0.1 * z**2)  # 0.04 at b = 0, 0.64 at b = 1


@STRAIGHT_LINE.add(
    params=np.array([0.8, 0.6]),
    exact=lambda p: p[1] * (p[0] ** 2 + 1.0) + jnp.cos(p[1]) * p[0],
    kinds=CONTINUOUS,
)
def parameter_downstream_of_the_draw(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 1.0), name="x")
    return params[1] * x**2 + jnp.cos(params[1]) * x


@STRAIGHT_LINE.add(
    params=np.array([0.8, 0.3]),
    exact=lambda p: expect_bernoulli(p[0] + p[1], lambda b: jnp.sum((b - p[1]) ** 2 * jnp.exp(p[1] * b))),
    kinds=DISCRETE,
)
def parameter_up_and_downstream(params, key):
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0] + params[1]), name="b").astype(params.dtype)
    return (b - params[1]) ** 2 * jnp.exp(params[1] * b)


@STRAIGHT_LINE.add(
    params=np.array([0.5, 0.9]),
    exact=lambda p: p[0] ** 2 + jnp.exp(-2 * p[1]) + p[0],
    kinds=CONTINUOUS,
)
def noise_moved_by_hand(params, key):
    e = mcgrad.sample(key, mcgrad.Normal(0.0, jnp.ones((), params.dtype)), name="e")
    x = params[0] + jnp.exp(-params[1]) * e
    return x**2 + x


@STRAIGHT_LINE.add(
    params=np.array([0.6]),
    exact=lambda p: 0.25 + 0.25 + 2 * jax.nn.sigmoid(p[0]),
    kinds=DISCRETE,
)
def ordinary_noise_beside_a_site(params, key):
    key_b, key_noise = jax.random.split(key)
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=params[0]), name="b").astype(params.dtype)
    return (b + 0.5 + 0.5 * jax.random.normal(key_noise, (), params.dtype)) ** 2


# Around the program: aux, pytrees, jit, checkpoint, vmap, arrays.


@STRAIGHT_LINE.add(
    params=np.array([0.4, -0.6]),
    exact=lambda p: expect_bernoulli(p, lambda b: (b[0] + 2 * b[1] - 0.5) ** 2),
    kinds=DISCRETE,
    has_aux=True,
)
def aux_output(params, key):
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params), name="b")
    x = b.astype(params.dtype)
    return (x[0] + 2 * x[1] - 0.5) ** 2, {"draw": b, "twice": 2 * x}


class _Latent(NamedTuple):
    loc: Any
    log_scale: Any


def _tree_cost(weights, x, b):
    return (weights[0] * x + weights[1][0] * b - 1.0) ** 2


@STRAIGHT_LINE.add(
    params={
        "latent": _Latent(np.array(0.3), np.array(-0.4)),
        "logits": np.array(0.5),
        "weights": (np.array(0.9), [np.array(-0.7)]),
    },
    exact=lambda p: expect_bernoulli(
        p["logits"],
        lambda b: expect_normal(
            p["latent"].loc, jnp.exp(p["latent"].log_scale), lambda x: _tree_cost(p["weights"], x, b)
        ),
    ),
    kinds=MIXED,
)
def pytree_of_parameters(params, key):
    key_x, key_b = jax.random.split(key)
    latent = params["latent"]
    x = mcgrad.sample(key_x, mcgrad.Normal(latent.loc, jnp.exp(latent.log_scale)), name="x")
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=params["logits"]), name="b").astype(x.dtype)
    return _tree_cost(params["weights"], x, b)


@jax.jit
def _coin_helper(key, logits):
    return mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)).astype(logits.dtype)


@STRAIGHT_LINE.add(
    params=np.array([0.4, -0.8]),
    exact=lambda p: expect_bernoulli(p, lambda b: (1.5 * b[0] - b[1] + 0.5) ** 2 + b[0]),
    kinds=DISCRETE,
)
def sites_in_a_jitted_helper(params, key):
    key_first, key_second = jax.random.split(key)
    first, second = _coin_helper(key_first, params[0]), _coin_helper(key_second, params[1])
    return (1.5 * first - second + 0.5) ** 2 + first


def _checkpointed_exact(params):
    def after_first(first):
        return expect_bernoulli(params[1] * first - 0.5, lambda second: jnp.sin(2.0 * first + second) + second)

    return expect_bernoulli(params[0], after_first)


@STRAIGHT_LINE.add(params=np.array([0.4, 1.2]), exact=_checkpointed_exact, kinds=DISCRETE)
def sites_under_checkpoint(params, key):
    key_first, key_second = jax.random.split(key)

    @jax.checkpoint
    def layer(key, logits):
        return jnp.sin(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)).astype(logits.dtype) * jnp.pi / 2)

    first = layer(key_first, params[0])
    second = layer(key_second, params[1] * first - 0.5)
    return jax.checkpoint(lambda x, y: jnp.sin(2.0 * x + y) + y)(first, second)


@STRAIGHT_LINE.add(
    params=np.array([0.5, -0.3]),
    exact=lambda p: (
        sum(expect_bernoulli(x * p[0] + p[1], lambda b, x=x: (b + 0.5 * x - 0.2) ** 2) for x in (0.3, -1.2, 1.5)) / 3
    ),
    kinds=DISCRETE,
    args=(np.array([0.3, -1.2, 1.5]),),
)
def users_vmap_of_one_example(params, xs, key):
    def example(x, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=x * params[0] + params[1]), name="b").astype(x.dtype)
        return (b + 0.5 * x - 0.2) ** 2

    return jnp.mean(jax.vmap(example)(xs, jax.random.split(key, 3)))


@STRAIGHT_LINE.add(
    params=np.array([0.5, 0.8]),
    exact=lambda p: jnp.stack([p[0] ** 2 + 0.25, p[1] * p[0], p[0] ** 2 + 0.25 + p[1] ** 2]),
    kinds=CONTINUOUS,
)
def array_of_values(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 0.5), name="x")
    return jnp.stack([x**2, params[1] * x, x**2 + params[1] ** 2])


@STRAIGHT_LINE.add(
    params=np.array([0.7, -0.4]),
    exact=lambda p: 0.5 * ((p[0] - 0.3) ** 2 + 0.49) + 0.5 * p[1],
    kinds=CONTINUOUS,
    kwargs={"shift": 0.3, "weight": 0.5},
)
def keyword_arguments(params, *, shift, weight, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 0.7), name="x")
    return weight * (x - shift) ** 2 + weight * params[1]


# Functions with derivative rules of their own downstream.


def _relu_exact(params):
    return jnp.array([1.0, -0.5, 2.0]) @ (params * norm.cdf(params) + norm.pdf(params))


@STRAIGHT_LINE.add(params=np.array([0.5, -0.3, 0.8]), exact=_relu_exact, kinds=CONTINUOUS, pathwise_order=1)
def followed_by_relu(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params, 1.0), name="x")
    return jnp.sum(constant([1.0, -0.5, 2.0], params) * jax.nn.relu(x))


def _softplus_cost(b):
    return jax.nn.logsumexp(b * constant([2.0, -1.0, 1.5], b)) + jnp.sum(jax.nn.softplus(2.0 * b - 1.0))


@STRAIGHT_LINE.add(
    params=np.array([0.4, -0.6, 0.2]), exact=lambda p: expect_bernoulli(p, _softplus_cost), kinds=DISCRETE
)
def followed_by_softplus_and_logsumexp(params, key):
    return _softplus_cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=params), name="b").astype(params.dtype))


@jax.custom_vjp
def _cube(x):
    return x**3


_cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@STRAIGHT_LINE.add(
    params=np.array([0.6, 0.4]),
    exact=lambda p: p[1] ** 3 * (p[0] ** 3 + 3 * p[0] * 0.36) + p[0],
    kinds=CONTINUOUS,
)
def followed_by_a_custom_vjp(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 0.6), name="x")
    return _cube(params[1] * x) + x


@jax.custom_jvp
def _bent(x):
    return jnp.log1p(jnp.exp(x))


_bent.defjvp(lambda primals, tangents: (_bent(*primals), jax.nn.sigmoid(primals[0]) * tangents[0]))


@STRAIGHT_LINE.add(
    params=np.array([0.6, -0.4]),
    exact=lambda p: sum(expect_normal(loc, 0.8, lambda x: jax.nn.softplus(2 * x)) for loc in p),
    kinds=CONTINUOUS,
)
def followed_by_a_custom_jvp(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params, 0.8), name="x")
    return jnp.sum(_bent(2 * x))


# Two hundred draws.

_MANY = np.linspace(-1.0, 1.0, 200)


@STRAIGHT_LINE.add(
    params=np.array([0.3, 0.5]),
    exact=lambda p: jnp.sum(jax.nn.sigmoid(p[0] + p[1] * _MANY) * (1.0 + 0.5 * _MANY) ** 2),
    kinds=DISCRETE,
)
def two_hundred_latents_summed(params, key):
    places = constant(_MANY, params)
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0] + params[1] * places), name="b").astype(params.dtype)
    return jnp.sum((b * (1.0 + 0.5 * places)) ** 2)


@STRAIGHT_LINE.add(
    params=np.array([0.3, 0.5]),
    # E[prod_i exp(0.1 b_i)]: the factors are independent.
    exact=lambda p: jnp.exp(jnp.sum(jnp.log1p(jax.nn.sigmoid(p[0] + p[1] * _MANY) * jnp.expm1(0.1))) - 12.0),
    kinds=MIXED,
)
def two_hundred_latents_in_one_cost(params, key):
    logits = params[0] + params[1] * constant(_MANY, params)
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
    return jnp.exp(jnp.sum(0.1 * b) - 12.0)


# Drawn indices.

_TABLE = np.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.2]])


@STRAIGHT_LINE.add(
    params=np.array([[0.3, -0.4, 0.2], [-0.5, 0.6, 0.1]]),
    exact=lambda p: jnp.mean(jax.nn.softmax(p) @ jnp.sum(jnp.asarray(_TABLE) ** 2, -1)),
    kinds=CATEGORICAL,
)
def take_of_a_table(params, key):
    index = mcgrad.sample(key, mcgrad.Categorical(logits=params), name="index")
    rows = jnp.take(constant(_TABLE, params), index, axis=0)
    return jnp.mean(jnp.sum(rows**2, axis=-1))


@STRAIGHT_LINE.add(
    params={"logits": np.array([[0.3, -0.4, 0.2], [-0.5, 0.6, 0.1]]), "table": np.array([0.8, -0.5, 1.5])},
    exact=lambda p: jnp.sum(jax.nn.softmax(p["logits"]) @ (p["table"] ** 2 + p["table"])),
    kinds=CATEGORICAL,
)
def table_of_parameters(params, key):
    index = mcgrad.sample(key, mcgrad.Categorical(logits=params["logits"]), name="index")
    entries = params["table"][index]
    return jnp.sum(entries**2 + entries)


@STRAIGHT_LINE.add(
    params=np.array([[0.3, -0.4], [-0.5, 0.6]]),
    exact=lambda p: expect_categorical(
        p, functools.partial(lambda t, i: jnp.sum(t[jnp.arange(2), i]) ** 2, jnp.array([[1.0, 2.0], [-0.5, 0.5]]))
    ),
    kinds=CATEGORICAL,
)
def take_along_the_last_axis(params, key):
    index = mcgrad.sample(key, mcgrad.Categorical(logits=params), name="index")
    picked = jnp.take_along_axis(constant([[1.0, 2.0], [-0.5, 0.5]], params), index[:, None], axis=1)
    return jnp.sum(picked) ** 2
