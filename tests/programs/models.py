"""Programs made of the operations of ordinary model code: a batch of examples through networks and along axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from programs.program import (
    CATEGORICAL,
    DISCRETE,
    MIXED,
    SMOOTH,
    Table,
    constant,
    expect_bernoulli,
    expect_categorical,
    expect_normal,
)

MODELS = Table()

_RANDOM = np.random.default_rng(20)
_INPUTS = np.array([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0], [-0.7, 0.1, 0.9], [0.4, 0.4, 0.6]])  # [batch 4, features 3]
_WEIGHTS = np.array([[0.6, -0.4], [0.3, 0.8], [-0.5, 0.2]])  # [features 3, latents 2]
_DECODER = np.array([[1.5, -1.0], [0.8, 2.0]])  # [latents 2, outputs 2]
_TARGETS = np.array([[0.5, -0.9], [0.9, 0.4], [-0.3, -0.6], [0.1, 0.8]])  # [batch 4, outputs 2]


def mean_over_examples(logits, costs):
    """Exact mean over a batch of independent Bernoulli latents: `costs(i, b)` is the cost of example `i`."""
    return sum(expect_bernoulli(logits[i], lambda b, i=i: costs(i, b)) for i in range(len(logits))) / len(logits)


def _mlp_cost(b, target):
    hidden = jax.nn.relu(b @ constant(_DECODER, b) + 0.3)
    return jnp.sum((jnp.tanh(hidden) - target) ** 2, axis=-1)


@MODELS.add(
    params=_WEIGHTS,
    exact=lambda w: mean_over_examples(_INPUTS @ w, lambda i, b: _mlp_cost(b, _TARGETS[i])),
    kinds=DISCRETE,
)
def batch_through_an_mlp(params, key):
    logits = constant(_INPUTS, params) @ params
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
    return jnp.mean(_mlp_cost(b, constant(_TARGETS, params)))


@MODELS.add(
    params={"encoder": _WEIGHTS[:, 0], "decoder": np.array([0.9, -0.6])},
    exact=lambda p: (
        sum(
            expect_normal(
                x @ p["encoder"], 0.5, lambda z, y=y: jnp.sum((jnp.tanh(z * p["decoder"]) - y) ** 2) + 0.1 * z**2
            )
            for x, y in zip(_INPUTS, _TARGETS, strict=True)
        )
        / 4
    ),
    kinds=(*SMOOTH, "normal"),
)
def batch_of_normals_through_a_decoder(params, key):
    loc = constant(_INPUTS, params["encoder"]) @ params["encoder"]
    z = mcgrad.sample(key, mcgrad.Normal(loc, 0.5), name="z")  # [batch]
    outputs = jnp.tanh(z[:, None] * params["decoder"][None, :])
    return jnp.mean(jnp.sum((outputs - constant(_TARGETS, z)) ** 2, axis=-1)) + 0.1 * jnp.mean(z**2)


_IMAGES = np.array([[[0.6, -0.8], [1.2, 0.1]], [[-0.4, 0.9], [0.3, -1.1]]])  # [batch 2, height 2, width 2]
_KERNEL = np.array([[[[1.0, -0.7]], [[0.5, 0.9]]], [[[-0.8, 0.4]], [[0.6, -0.3]]]])  # [2, 2, in 1, out 2]


def _conv_cost(images):
    """One number per image, from `[batch, height, width]`."""
    out = jax.lax.conv_general_dilated(
        images[..., None], constant(_KERNEL, images), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.sum((jnp.tanh(out) - 0.4) ** 2, axis=(1, 2, 3))


@MODELS.add(
    params=np.array([0.7, -0.3]),
    exact=lambda p: mean_over_examples(p[0] * _IMAGES + p[1], lambda i, b: _conv_cost(b[None])[0]),
    kinds=DISCRETE,
)
def convolution(params, key):
    logits = params[0] * constant(_IMAGES, params) + params[1]
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
    return jnp.mean(_conv_cost(b))


_EMBEDDING = np.array([[1.0, -0.6], [-0.5, 1.2], [0.7, 0.9]])  # [tokens 3, width 2]
_LENGTHS = np.array([1.0, -0.7])  # how each of the two examples scales the logits


def _attention_cost(tokens, embedding):
    """One number per example, from tokens `[batch, time]`."""
    x = jnp.take(embedding, tokens, axis=0)
    scores = jnp.einsum("btd,bsd->bts", x, 2.0 * x)
    mixed = jnp.einsum("bts,bsd->btd", jax.nn.softmax(scores, axis=-1), x[..., ::-1])
    return jnp.sum(mixed[:, -1] * x[:, 0], axis=-1) ** 2


def _attention_exact(params):
    def example(length):
        logits = length * params
        return expect_categorical(logits, lambda t: _attention_cost(t[None], jnp.asarray(_EMBEDDING))[0])

    return (example(_LENGTHS[0]) + example(_LENGTHS[1])) / 2


@MODELS.add(params=np.array([[0.5, -0.4, 0.2], [-0.3, 0.1, 0.6]]), exact=_attention_exact, kinds=CATEGORICAL)
def attention(params, key):
    logits = constant(_LENGTHS, params)[:, None, None] * params[None]
    tokens = mcgrad.sample(key, mcgrad.Categorical(logits=logits), name="tokens")
    return jnp.mean(_attention_cost(tokens, constant(_EMBEDDING, params)))


_LABELS = np.array([0, 2, 1, 2])
_HEAD = np.array([[1.2, -0.8, 0.3], [-0.5, 0.9, 1.4]])  # [latents 2, classes 3]


def _log_likelihood(b, labels):
    log_probs = jax.nn.log_softmax(b @ constant(_HEAD, b), axis=-1)
    return jnp.sum(jax.nn.one_hot(labels, 3, dtype=b.dtype) * log_probs, axis=-1)


@MODELS.add(
    params=_WEIGHTS,
    exact=lambda w: -mean_over_examples(_INPUTS @ w, lambda i, b: _log_likelihood(b, _LABELS[i])),
    kinds=DISCRETE,
)
def categorical_log_likelihood(params, key):
    logits = constant(_INPUTS, params) @ params
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
    return -jnp.mean(_log_likelihood(b, jnp.asarray(_LABELS)))


# Along an axis: latents [batch 3, 4], logits params[0] * places + params[1]; the batch axis must stay apart.

_PLACES = _RANDOM.normal(size=(3, 4))
_COLUMNS = np.array([1.0, -0.5, 1.5, 0.7])


def _along_axis(name, cost, *, kinds=DISCRETE):
    """A program whose cost for the rows `b` of a batch is `cost(b, like)`, one number per row."""

    def program(params, key):
        logits = params[0] * constant(_PLACES, params) + params[1]
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
        return jnp.mean(cost(b))

    program.__name__ = name
    exact = lambda p: mean_over_examples(p[0] * _PLACES + p[1], lambda i, b: cost(b[None])[0])  # noqa: E731
    MODELS.add(params=np.array([0.8, -0.2]), exact=exact, kinds=kinds)(program)


def _weighted(b):
    return b * constant(_COLUMNS, b)[None, :]


def _sorted(b):
    return jnp.sum(jnp.sort(_weighted(b), axis=1) * constant([2.0, 1.0, -1.0, 1.0], b)[None, :], axis=1)


def _cumulated(b):
    return jnp.sum(jnp.cumsum(_weighted(b), axis=1) ** 2, axis=1)


def _sliced(b):
    start = jnp.argmax(jnp.asarray([0, 3, 1]))  # a traced index, 1
    window = jax.lax.dynamic_slice_in_dim(_weighted(b), start, 2, axis=1)
    return jnp.prod(1.0 + window, axis=1)


def _multiplied(b):
    form = constant(np.outer(_COLUMNS, _COLUMNS) - np.eye(4), b)
    return jnp.einsum("bi,ij,bj->b", b, form, b)


def _rearranged(b):
    left, right = jnp.split(_weighted(b), 2, axis=1)
    stacked = jnp.stack([left, right[:, ::-1]], axis=1)  # [batch, 2, 2]
    padded = jnp.pad(stacked, ((0, 0), (1, 0), (0, 1)), constant_values=0.5)
    joined = jnp.concatenate([padded.reshape(b.shape[0], -1), jnp.repeat(left, 2, axis=1)], axis=1)
    clipped = jnp.clip(jnp.where(joined > 0.2, joined, joined**2), -0.4, 1.2)
    return jnp.max(clipped, axis=1) + jnp.sum(clipped, axis=1) ** 2


def _ranked(b):
    best = jnp.argmax(_weighted(b) + constant([0.0, 0.1, 0.2, 0.3], b)[None, :], axis=1)  # [batch]
    return jnp.take_along_axis(jnp.flip(_weighted(b), 1), best[:, None], axis=1)[:, 0] ** 2 + b[:, 0]


_along_axis("sort_along_another_axis", _sorted)
_along_axis("cumsum_along_another_axis", _cumulated)
_along_axis("dynamic_slice_along_another_axis", _sliced)
_along_axis("einsum_of_a_quadratic_form", _multiplied)
_along_axis("split_stack_pad_concatenate_where_clip", _rearranged)
_along_axis("argmax_and_take_along_axis", _ranked)


# A cost that mixes the batch: sound only if the weight of every draw reaches it.


@MODELS.add(
    params=np.array([0.8, -0.2]),
    exact=lambda p: expect_bernoulli(
        p[0] * _PLACES[:2, :3] + p[1], lambda b: jnp.var(b.mean(1)) + jnp.prod(b[0] + b[1])
    ),
    kinds=DISCRETE,
)
def batch_statistics_mix_the_examples(params, key):
    logits = params[0] * constant(_PLACES[:2, :3], params) + params[1]
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), name="b").astype(params.dtype)
    return jnp.var(b.mean(1)) + jnp.prod(b[0] + b[1])


@MODELS.add(
    params={"encoder": _WEIGHTS[:, 0], "second": np.array([1.0, -0.4])},
    exact=lambda p: (
        sum(
            expect_normal(
                x @ p["encoder"],
                0.5,
                lambda z, y=y: expect_bernoulli(
                    z * p["second"][0] + p["second"][1], lambda b, z=z, y=y: (z + b - y[0]) ** 2
                ),
            )
            for x, y in zip(_INPUTS, _TARGETS, strict=True)
        )
        / 4
    ),
    kinds=MIXED,
)
def batch_with_two_kinds_of_latents(params, key):
    key_z, key_b = jax.random.split(key)
    z = mcgrad.sample(key_z, mcgrad.Normal(constant(_INPUTS, params["encoder"]) @ params["encoder"], 0.5), name="z")
    logits = z * params["second"][0] + params["second"][1]
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=logits), name="b").astype(z.dtype)
    return jnp.mean((z + b - constant(_TARGETS[:, 0], z)) ** 2)
