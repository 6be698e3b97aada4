"""Programs of several draws that meet in a cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from programs.program import (
    CONTINUOUS,
    DISCRETE,
    MIXED,
    SMOOTH,
    Table,
    constant,
    expect_bernoulli,
    expect_normal,
)

SEVERAL_DRAWS = Table()


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


@SEVERAL_DRAWS.add(params=_LAYERS, exact=_layers_exact, kinds=DISCRETE)
def two_discrete_layers(params, key):
    key_first, key_second = jax.random.split(key)
    first = mcgrad.sample(key_first, mcgrad.Bernoulli(logits=params["first"]), name="first").astype(
        params["bias"].dtype
    )
    logits = first @ params["weights"] + params["bias"]
    second = mcgrad.sample(key_second, mcgrad.Bernoulli(logits=logits), name="second").astype(first.dtype)
    return _layers_cost(first, second)


def _floats_cost(bits, one_hot):
    return (
        jnp.sin(jnp.sum(bits * constant([1.0, -1.5], bits)) + one_hot @ constant([0.3, 1.0, -0.8], bits))
        + bits[0] * one_hot[1]
    )


@SEVERAL_DRAWS.add(
    params=np.array([0.4, -0.3, 0.8]),
    exact=lambda p: expect_bernoulli(
        p[:2], lambda bits: jax.nn.softmax(p) @ jax.vmap(lambda x: _floats_cost(bits, x))(jnp.eye(3))
    ),
    kinds=("score", "enumerate", "floats", "auto"),
)
def bits_and_classes_as_floats(params, key):
    key_bits, key_class = jax.random.split(key)
    bits = mcgrad.sample(key_bits, mcgrad.Bernoulli(logits=params[:2], dtype=params.dtype), name="bits")
    one_hot = mcgrad.sample(key_class, mcgrad.OneHotCategorical(logits=params, dtype=params.dtype), name="class")
    return _floats_cost(bits, one_hot)


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


@SEVERAL_DRAWS.add(**_MIXTURE, kinds=MIXED)
def mixture_of_kinds(params, key):
    return _mixture(params, key)


@SEVERAL_DRAWS.add(**_MIXTURE, kinds=("auto",))
def sites_that_name_score_and_pathwise(params, key):
    return _mixture(params, key, mcgrad.Score(), mcgrad.Pathwise())


@SEVERAL_DRAWS.add(**_MIXTURE, kinds=("auto",))
def sites_that_name_enumerate_and_score(params, key):
    return _mixture(params, key, mcgrad.Enumerate(), mcgrad.Score(num_samples=2))


@SEVERAL_DRAWS.add(
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


@SEVERAL_DRAWS.add(
    params=np.array([0.8, 0.6]),
    exact=lambda p: p[1] * (p[0] ** 2 + 1.0) + jnp.cos(p[1]) * p[0],
    kinds=SMOOTH,
)
def parameter_downstream_of_the_draw(params, key):
    x = mcgrad.sample(key, mcgrad.Normal(params[0], 1.0), name="x")
    return params[1] * x**2 + jnp.cos(params[1]) * x


@SEVERAL_DRAWS.add(
    params=np.array([0.8, 0.3]),
    exact=lambda p: expect_bernoulli(p[0] + p[1], lambda b: jnp.sum((b - p[1]) ** 2 * jnp.exp(p[1] * b))),
    kinds=DISCRETE,
)
def parameter_up_and_downstream(params, key):
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0] + params[1]), name="b").astype(params.dtype)
    return (b - params[1]) ** 2 * jnp.exp(params[1] * b)


@SEVERAL_DRAWS.add(
    params=np.array([0.5, 0.9]),
    exact=lambda p: p[0] ** 2 + jnp.exp(-2 * p[1]) + p[0],
    kinds=CONTINUOUS,
)
def noise_moved_by_hand(params, key):
    e = mcgrad.sample(key, mcgrad.Normal(0.0, jnp.ones((), params.dtype)), name="e")
    x = params[0] + jnp.exp(-params[1]) * e
    return x**2 + x


@SEVERAL_DRAWS.add(
    params=np.array([0.6]),
    exact=lambda p: 0.25 + 0.25 + 2 * jax.nn.sigmoid(p[0]),
    kinds=DISCRETE,
)
def ordinary_noise_beside_a_site(params, key):
    key_b, key_noise = jax.random.split(key)
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=params[0]), name="b").astype(params.dtype)
    return (b + 0.5 + 0.5 * jax.random.normal(key_noise, (), params.dtype)) ** 2
