"""What the benchmarks of peers are run on, in numpy alone, so that every environment reads the same numbers.

Exact gradients are those of exact expectations by the complex step, `Im f(x + ih) / h`, which has no cancellation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

PIXELS, LATENTS, BATCH = 784, 200, 64


def gradient(fn: Callable[[np.ndarray], Any], x: np.ndarray) -> np.ndarray:
    """The gradient of an analytic function of a vector."""
    steps = 1e-30j * np.eye(x.size)
    return np.array([np.imag(fn(x + step.reshape(x.shape))) / 1e-30 for step in steps]).reshape(x.shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    exps = np.exp(x - x.real.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


# ---------------------------------------------------------------- against Storchastic


def small_bits(num: int) -> np.ndarray:
    """Logits of `b_d ~ Bernoulli`, with the cost `sum_d (b_d - 0.499)^2`."""
    return (np.zeros(1) if num == 1 else np.linspace(-1, 1, num)).astype(np.float32)


def small_bits_value(logits: np.ndarray) -> Any:
    p = sigmoid(logits)
    return np.sum(p * (1 - 0.499) ** 2 + (1 - p) * 0.499**2)


def table() -> tuple[np.ndarray, np.ndarray]:
    """Logits `[3, 10]` of three one-hot draws, and the cost of each of the 1000 outcomes, about 3."""
    logits = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    return logits, (np.random.default_rng(1).normal(size=(10, 10, 10)) + 3.0).astype(np.float32)


def table_value(logits: np.ndarray) -> Any:
    return np.einsum("i,j,k,ijk->", *softmax(logits), table()[1].astype(np.float64))


def autoencoder() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images `[64, 784]` of zeros and ones, and parameters; `encoder` is `[784, 200]`, `decoder` `[200, 784]`."""
    images = (np.random.default_rng(0).random((BATCH, PIXELS)) < 0.3).astype(np.float32)
    encoder = np.random.default_rng(1).uniform(-1, 1, (LATENTS, PIXELS)) / np.sqrt(PIXELS)
    decoder = np.random.default_rng(2).uniform(-1, 1, (PIXELS, LATENTS)) / np.sqrt(LATENTS)
    return images, {
        "encoder": np.ascontiguousarray(encoder.T, np.float32),
        "encoder_bias": np.zeros(LATENTS, np.float32),
        "decoder": np.ascontiguousarray(decoder.T, np.float32),
        "decoder_bias": np.zeros(PIXELS, np.float32),
    }


# ---------------------------------------------------------------- against GenJAX and NumPyro

MIXED = np.array([0.3, 0.8, -0.5], np.float32)  # logit, loc, log of the scale
CHAIN = 0.4


def mixed_value(params: np.ndarray) -> Any:
    """`b ~ Bernoulli(logit)`, `x ~ Normal(loc if b else -loc, scale)`, cost `(x - 1)^2 + b / 2`."""
    p, loc, variance = sigmoid(params[0]), params[1], np.exp(2 * params[2])
    return p * ((loc - 1) ** 2 + variance + 0.5) + (1 - p) * ((loc + 1) ** 2 + variance)


def bits(num: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, num).astype(np.float32)


def bits_weights(num: int) -> np.ndarray:
    return (np.arange(1, num + 1) / num).astype(np.float32)


def joint_bits_value(logits: np.ndarray) -> Any:
    """`b_i ~ Bernoulli(logits_i)`, cost `(w . b - sum(w) / 3)^2`, which takes all of them together."""
    w, p = bits_weights(logits.size).astype(np.float64), sigmoid(logits)
    return (w @ p - w.sum() / 3) ** 2 + np.sum(w * w * p * (1 - p))


def separate_bits_value(logits: np.ndarray) -> Any:
    """The same draws with the cost `sum_i (w_i b_i - 1/3)^2`, which takes each by itself."""
    w, p = bits_weights(logits.size).astype(np.float64), sigmoid(logits)
    return np.sum(p * (w - 1 / 3) ** 2 + (1 - p) / 9)


def gaussian_chain_value(loc: np.ndarray, num_steps: int) -> Any:
    """`x <- 0.9 x + Normal(loc, 0.3)` from 0, cost `sum x^2`."""
    mean = variance = total = 0.0
    for _ in range(num_steps):
        mean, variance = 0.9 * mean + loc[0], 0.81 * variance + 0.09
        total = total + mean**2 + variance
    return total


def bernoulli_chain_value(logit: np.ndarray, num_steps: int) -> Any:
    """`x <- 0.9 x + 0.1 (2 b - 1)` with `b ~ Bernoulli(logit)`, cost `sum x^2`."""
    p, mean, variance, total = sigmoid(logit)[0], 0.0, 0.0, 0.0
    for _ in range(num_steps):
        mean, variance = 0.9 * mean + 0.1 * (2 * p - 1), 0.81 * variance + 0.04 * p * (1 - p)
        total = total + mean**2 + variance
    return total


def walk(num_steps: int) -> np.ndarray:
    """`p` of the walk of Arya et al. 2022, section 5.1, in the proportion of their figure."""
    return np.full(1, 2.0 * num_steps, np.float32)


def walk_value(p: np.ndarray, num_steps: int) -> Any:
    """`X` goes up by 1 with probability `exp(-X / p)`, else down, from 0; cost `X^2` after the last step."""
    places = np.arange(num_steps + 1)  # never below 0, where it goes up with certainty
    up = np.exp(-places / p[0])
    law = np.zeros(num_steps + 1, up.dtype)
    law[0] = 1.0
    for _ in range(num_steps):
        law = np.roll(law * up, 1) + np.roll(law * (1 - up), -1)
    return law @ places**2


# ---------------------------------------------------------------- against Optax


def normals(num: int) -> np.ndarray:
    """Locations and log scales `[2, num]` of `x ~ Normal`, whose cost `cos(w . x) + 0.1 |x - 1|^2` mixes them all."""
    return np.stack([np.linspace(-0.5, 0.5, num), np.linspace(-1.0, 0.0, num)]).astype(np.float32)


def normals_weights(num: int) -> np.ndarray:
    return (np.arange(1, num + 1) / num).astype(np.float32)


def normals_value(params: np.ndarray) -> Any:
    (loc, log_scale), w = params, normals_weights(params.shape[1]).astype(np.float64)
    variances = np.exp(2 * log_scale)
    return np.exp(-0.5 * (w * w) @ variances) * np.cos(w @ loc) + 0.1 * np.sum((loc - 1) ** 2 + variances)
