"""The demo: variational autoencoders of real handwritten digits, trained with three gradient estimators."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits

from mcgrad.diagnostics.pictures import save
from mcgrad.distributions import Bernoulli, Normal
from mcgrad.estimators import Pathwise, Score
from mcgrad.program import Estimator
from mcgrad.sample import sample
from mcgrad.transforms import expectation, value_and_grad

NUM_LATENTS, NUM_HIDDEN, BATCH, CHUNK = 24, 128, 64, 50
NUM_TEST = 297  # of 1,797 digits; the rest is for training


class Variant(NamedTuple):
    """One row of the table: a loss (negative ELBO) and the estimator of its draws."""

    name: str
    loss: Callable[..., Array]
    estimator: Estimator
    num_samples: int
    latent_outputs: int


class Trained(NamedTuple):
    """The result of training one variant."""

    params: Any
    elbos: list[float]
    test_elbo: float
    gradient_variance: float
    seconds_per_step: float


def init(key: Array, latent_outputs: int) -> dict[str, Array]:
    """Initial weights of an encoder and a decoder with one hidden layer each."""
    k_in, k_latent, k_hidden, k_out = jax.random.split(key, 4)
    dense = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    return {
        "encoder": dense(k_in, (64, NUM_HIDDEN)),
        "latent": dense(k_latent, (NUM_HIDDEN, latent_outputs)),
        "decoder": dense(k_hidden, (NUM_LATENTS, NUM_HIDDEN)),
        "pixels": dense(k_out, (NUM_HIDDEN, 64)),
        "bias": jnp.zeros(64),
    }


def encode(params: dict[str, Array], x: Float[Array, "batch 64"]) -> Array:
    return jnp.tanh((x - 0.3) @ params["encoder"]) @ params["latent"]


def decode(params: dict[str, Array], z: Array) -> Array:
    return jnp.tanh(z @ params["decoder"]) @ params["pixels"] + params["bias"][None, :]


def negative_elbo(params: dict[str, Array], x: Array, z: Array, divergence: Array) -> Array:
    """Of the Bernoulli likelihood of gray values in [0, 1], and divergences of the latents."""
    pixels = optax.sigmoid_binary_cross_entropy(decode(params, z), x)
    return jnp.mean(jnp.sum(divergence, axis=-1) + jnp.sum(pixels, axis=-1))


def bernoulli_loss(params: dict[str, Array], x: Array, key: Array) -> Array:
    """Negative ELBO with Bernoulli(1/2) priors; the divergence in closed form."""
    logits = encode(params, x)
    z = sample(key, Bernoulli(logits=logits), name="z")
    p = jax.nn.sigmoid(logits)
    divergence = p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits) + jnp.log(2.0)
    return negative_elbo(params, x, z - 0.5, divergence)


def gaussian_loss(params: dict[str, Array], x: Array, key: Array) -> Array:
    """Negative ELBO with standard normal priors; the divergence in closed form."""
    loc, log_scale = jnp.split(encode(params, x), 2, axis=-1)
    z = sample(key, Normal(loc, jnp.exp(log_scale)), name="z")
    divergence = 0.5 * (loc**2 + jnp.exp(2 * log_scale) - 1) - log_scale
    return negative_elbo(params, x, z, divergence)


def run(*, steps: int, seed: int, num_samples: int, output: Path) -> Path:
    """Train all variants, print the table, write the picture; returns its path."""
    console = Console()
    digits = np.asarray(load_digits().data, np.float32) / 16
    digits = digits[np.random.default_rng(seed).permutation(len(digits))]
    train, test = jnp.asarray(digits[NUM_TEST:]), jnp.asarray(digits[:NUM_TEST])
    variants = (
        Variant("Bernoulli, score", bernoulli_loss, Score(baseline=None), 1, NUM_LATENTS),
        Variant(f"Bernoulli, score, leave-one-out of {num_samples}", bernoulli_loss, Score(), num_samples, NUM_LATENTS),
        Variant("Gaussian, pathwise", gaussian_loss, Pathwise(), 1, 2 * NUM_LATENTS),
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ELBO {task.fields[elbo]}"),
    )
    results = {}
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        for variant in variants:
            report = functools.partial(progress.update, progress.add_task(variant.name, total=steps, elbo="..."))
            results[variant.name] = _train(variant, train, test, steps, jax.random.key(seed), report)
    console.print(_table(results))
    path = _picture(variants, results, test, jax.random.key(seed + 1), output)
    console.print(f"Picture: {path}", soft_wrap=True)
    return path


def _train(variant: Variant, train: Array, test: Array, steps: int, key: Array, report: Callable[..., None]) -> Trained:
    k_init, k_train, k_test, k_variance = jax.random.split(key, 4)
    params = init(k_init, variant.latent_outputs)
    optimizer = optax.adam(2e-3)
    gradient = value_and_grad(variant.loss, estimator=variant.estimator, num_samples=variant.num_samples)

    def step(state: Any, key: Array) -> Any:
        params, moments = state
        k_batch, k_loss = jax.random.split(key)
        x = train[jax.random.choice(k_batch, len(train), (BATCH,), replace=False)]
        loss, grads = gradient(params, x, k_loss)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), -loss

    chunk = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    state: Any = (params, optimizer.init(params))
    keys = jax.random.split(k_train, steps)
    elbos: list[float] = []
    times: list[float] = []
    for start in range(0, steps, CHUNK):
        began = time.perf_counter()
        state, values = jax.block_until_ready(chunk(state, keys[start : start + CHUNK]))
        times.append((time.perf_counter() - began) / len(values))
        elbos += [float(v) for v in values]
        report(completed=start + len(values), elbo=f"{np.mean(elbos[-200:]):.2f}")
    params = state[0]
    test_keys = jax.random.split(k_test, 20)
    test_elbo = -jnp.mean(jax.jit(jax.vmap(lambda k: expectation(variant.loss)(params, test, k)))(test_keys))
    flat = jax.jit(lambda k: ravel_pytree(gradient(params, train[:BATCH], k)[1])[0])
    draws = jax.lax.map(flat, jax.random.split(k_variance, 200))
    variance = float(jnp.sum(jnp.var(draws, axis=0, ddof=1)))
    # The first chunk compiles; a last one of another length does too.
    steady = times[1 : steps // CHUNK] or times
    return Trained(params, elbos, float(test_elbo), variance, float(np.median(steady)))


def _table(results: dict[str, Trained]) -> Table:
    table = Table(title="Autoencoders of 8x8 digits: the same model, three gradients")
    table.add_column("latents and estimator", no_wrap=True)
    for heading in ("held-out ELBO (nats)", "gradient variance", "ms a step"):
        table.add_column(heading, justify="right")
    for name, trained in results.items():
        table.add_row(
            name,
            f"{trained.test_elbo:.2f}",
            f"{trained.gradient_variance:.3g}",
            f"{1e3 * trained.seconds_per_step:.2f}",
        )
    return table


def _picture(variants: Any, results: dict[str, Trained], test: Array, key: Array, output: Path) -> Path:
    path = output / "autoencoders.png"
    save(lambda: _figure(variants, results, test, key), path)
    return path


def _figure(variants: Any, results: dict[str, Trained], test: Array, key: Array) -> Any:
    shown = 8
    figure = Figure(figsize=(12, 4.6))
    left, right = cast(Any, figure).subfigures(1, 2, width_ratios=[1.15, 1])
    axes: Any = left.subplots(1 + len(variants), shown)
    rows = [("digits", test[:shown])]
    for variant in variants:
        params = results[variant.name].params
        code = encode(params, test[:shown])
        # Reconstructions from the mean of the code.
        z = jnp.split(code, 2, axis=-1)[0] if variant.loss is gaussian_loss else jax.nn.sigmoid(code) - 0.5
        rows.append((variant.name.replace(", ", ",\n"), jax.nn.sigmoid(decode(params, z))))
    for row, (name, images) in zip(axes, rows, strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(np.asarray(image).reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    curves = right.subplots()
    for name, trained in results.items():
        width = min(50, len(trained.elbos))
        smooth = np.convolve(trained.elbos, np.ones(width) / width, mode="valid")
        (line,) = curves.plot(np.arange(len(smooth)) + width, smooth, label=name)
        end = (len(smooth) + width, smooth[-1])
        offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        curves.annotate(f"{smooth[-1]:.1f}", end, color=line.get_color(), **offset)
    curves.set(xlabel="step", ylabel=f"ELBO, mean of {width} steps (nats)", title="training")
    curves.legend(loc="lower right")
    return figure
