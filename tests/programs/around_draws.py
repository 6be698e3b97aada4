"""What JAX code does around draws: other outputs, pytrees, `jit`, `vmap`, own derivative rules, many entries, indices."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import mcgrad
from programs.program import (
    CATEGORICAL,
    CONTINUOUS,
    DISCRETE,
    MIXED,
    SMOOTH,
    Table,
    constant,
    expect_bernoulli,
    expect_categorical,
    expect_normal,
)

AROUND_DRAWS = Table()


# Around the program: aux, pytrees, jit, checkpoint, vmap, arrays.


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(params=np.array([0.4, 1.2]), exact=_checkpointed_exact, kinds=DISCRETE)
def sites_under_checkpoint(params, key):
    key_first, key_second = jax.random.split(key)

    @jax.checkpoint
    def layer(key, logits):
        return jnp.sin(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)).astype(logits.dtype) * jnp.pi / 2)

    first = layer(key_first, params[0])
    second = layer(key_second, params[1] * first - 0.5)
    return jax.checkpoint(lambda x, y: jnp.sin(2.0 * x + y) + y)(first, second)


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(
    params=np.array([0.5, 0.8]),
    exact=lambda p: jnp.stack([p[0] ** 2 + 0.25, p[1] * p[0], p[0] ** 2 + 0.25 + p[1] ** 2]),
    kinds=SMOOTH,
)
def array_of_values(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 0.5), name="x")
    return jnp.stack([x**2, params[1] * x, x**2 + params[1] ** 2])


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(params=np.array([0.5, -0.3, 0.8]), exact=_relu_exact, kinds=CONTINUOUS, pathwise_order=1)
def followed_by_relu(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params, 1.0), name="x")
    return jnp.sum(constant([1.0, -0.5, 2.0], params) * jax.nn.relu(x))


def _softplus_cost(b):
    return jax.nn.logsumexp(b * constant([2.0, -1.0, 1.5], b)) + jnp.sum(jax.nn.softplus(2.0 * b - 1.0))


@AROUND_DRAWS.add(
    params=np.array([0.4, -0.6, 0.2]), exact=lambda p: expect_bernoulli(p, _softplus_cost), kinds=DISCRETE
)
def followed_by_softplus_and_logsumexp(params, key):
    return _softplus_cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=params), name="b").astype(params.dtype))


@jax.custom_vjp
def _cube(x):
    return x**3


_cube.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(
    params=np.array([0.6, -0.4]),
    exact=lambda p: sum(expect_normal(loc, 0.8, lambda x: jax.nn.softplus(2 * x)) for loc in p),
    kinds=CONTINUOUS,
)
def followed_by_a_custom_jvp(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params, 0.8), name="x")
    return jnp.sum(_bent(2 * x))


# Two hundred draws.

_MANY = np.linspace(-1.0, 1.0, 200)


@AROUND_DRAWS.add(
    params=np.array([0.3, 0.5]),
    exact=lambda p: jnp.sum(jax.nn.sigmoid(p[0] + p[1] * _MANY) * (1.0 + 0.5 * _MANY) ** 2),
    kinds=DISCRETE,
)
def two_hundred_latents_summed(params, key):
    places = constant(_MANY, params)
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0] + params[1] * places), name="b").astype(params.dtype)
    return jnp.sum((b * (1.0 + 0.5 * places)) ** 2)


@AROUND_DRAWS.add(
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


@AROUND_DRAWS.add(
    params=np.array([[0.3, -0.4, 0.2], [-0.5, 0.6, 0.1]]),
    exact=lambda p: jnp.mean(jax.nn.softmax(p) @ jnp.sum(jnp.asarray(_TABLE) ** 2, -1)),
    kinds=CATEGORICAL,
)
def take_of_a_table(params, key):
    index = mcgrad.sample(key, mcgrad.Categorical(logits=params), name="index")
    rows = jnp.take(constant(_TABLE, params), index, axis=0)
    return jnp.mean(jnp.sum(rows**2, axis=-1))


@AROUND_DRAWS.add(
    params={"logits": np.array([[0.3, -0.4, 0.2], [-0.5, 0.6, 0.1]]), "table": np.array([0.8, -0.5, 1.5])},
    exact=lambda p: jnp.sum(jax.nn.softmax(p["logits"]) @ (p["table"] ** 2 + p["table"])),
    kinds=CATEGORICAL,
)
def table_of_parameters(params, key):
    index = mcgrad.sample(key, mcgrad.Categorical(logits=params["logits"]), name="index")
    entries = params["table"][index]
    return jnp.sum(entries**2 + entries)


@AROUND_DRAWS.add(
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
