"""What mcgrad costs over a surrogate written by hand: operations, compile time, run time, variance.

Run with `python -m benchmarks.overhead`. Times are medians of rounds that alternate between the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import mcgrad

PIXELS, LATENTS, BATCH = 784, 200, 64


def unit(log_weight: jax.Array) -> jax.Array:
    """The weight of the surrogate written by hand."""
    return jnp.exp(log_weight - jax.lax.stop_gradient(log_weight))


def log_bernoulli(b: jax.Array, logits: jax.Array) -> jax.Array:
    return mcgrad.Bernoulli(logits=logits).log_prob(b)


# ---------------------------------------------------------------- an autoencoder of images


def autoencoder(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, Callable[..., jax.Array]]:
    """Logits of the latents, their divergence from the prior, and the reconstruction cost of each example."""
    logits = x @ params["encoder"]
    p = jax.nn.sigmoid(logits)
    divergence = jnp.sum(p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits) + jnp.log(2.0), axis=-1)

    def reconstruction(b: jax.Array) -> jax.Array:
        out = b @ params["decoder"]
        return jnp.sum(jax.nn.softplus(out) - x * out, axis=-1)

    return logits, divergence, reconstruction


def program(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    logits, divergence, reconstruction = autoencoder(params, x)
    b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
    return jnp.mean(reconstruction(b) + divergence)


def by_hand(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    logits, divergence, reconstruction = autoencoder(params, x)
    b = mcgrad.Bernoulli(logits=jax.lax.stop_gradient(logits)).sample(key)
    weight = unit(jnp.sum(log_bernoulli(b, logits), axis=-1))
    return jnp.mean(reconstruction(b) * weight + divergence)


def autoencoder_arguments() -> tuple[Any, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "encoder": 0.05 * jax.random.normal(keys[0], (PIXELS, LATENTS)),
        "decoder": 0.05 * jax.random.normal(keys[1], (LATENTS, PIXELS)),
    }
    return params, jax.random.uniform(keys[2], (BATCH, PIXELS)), jax.random.key(1)


def compiled(fn: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    """The compiled value and gradient, and the seconds that tracing and compiling took."""
    jax.clear_caches()
    began = time.perf_counter()
    step = jax.jit(jax.value_and_grad(fn)).lower(*arguments).compile()
    return step, time.perf_counter() - began


def operations(step: Any) -> float:
    """Floating-point operations of a compiled step, as XLA counts them."""
    analysis = step.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def flops_ratio() -> float:
    """Operations of mcgrad's autoencoder step over those of the one written by hand."""
    arguments = autoencoder_arguments()
    ours, _ = compiled(mcgrad.expectation(program, estimator=mcgrad.Score()), arguments)
    hand, _ = compiled(by_hand, arguments)
    return operations(ours) / operations(hand)


def seconds(steps: list[Any], arguments: tuple[Any, ...], rounds: int = 30) -> list[float]:
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, kept in zip(steps, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            kept.append(time.perf_counter() - began)
    return [float(np.median(kept)) for kept in times]


# ---------------------------------------------------------------- credit: 16 examples, 8 latents each


def toy() -> dict[str, Callable[..., jax.Array]]:
    """The loss of the README in four spellings."""
    w = jax.random.normal(jax.random.key(5), (8, 5))
    y = jax.random.normal(jax.random.key(6), (16, 5))

    def costs(theta: jax.Array, b: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sum((jnp.tanh(b @ w) - y) ** 2, axis=-1), b * theta - jax.nn.softplus(theta)

    def whole(theta: jax.Array, key: jax.Array) -> jax.Array:
        fit, kl = costs(theta, mcgrad.sample(key, mcgrad.Bernoulli(logits=theta)), y)
        return jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl, axis=-1))

    def one_by_one(theta: jax.Array, key: jax.Array) -> jax.Array:
        def one(theta: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
            fit, kl = costs(theta, mcgrad.sample(key, mcgrad.Bernoulli(logits=theta)), y)
            return fit + 0.1 * jnp.sum(kl)

        return jnp.mean(jax.vmap(one)(theta, y, jax.random.split(key, 16)))

    def hand(theta: jax.Array, key: jax.Array) -> jax.Array:
        b = mcgrad.Bernoulli(logits=jax.lax.stop_gradient(theta)).sample(key)
        fit, kl = costs(theta, b, y)
        log_weight = log_bernoulli(b, theta)
        fit = fit * unit(jnp.sum(log_weight, axis=-1))
        return jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl * unit(log_weight), axis=-1))

    def reinforce(theta: jax.Array, key: jax.Array) -> jax.Array:
        b = mcgrad.Bernoulli(logits=jax.lax.stop_gradient(theta)).sample(key)
        fit, kl = costs(theta, b, y)
        loss = jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl, axis=-1))
        return loss * unit(jnp.sum(log_bernoulli(b, theta)))

    return {
        "plain REINFORCE on the whole loss": reinforce,
        "written by hand, example by example": hand,
        "mcgrad.Score": mcgrad.expectation(whole, estimator=mcgrad.Score()),
        "mcgrad.Score, vmap inside the program": mcgrad.expectation(one_by_one, estimator=mcgrad.Score()),
    }


def total_variance(surrogate: Callable[..., jax.Array], num_draws: int = 20_000) -> float:
    theta = jax.random.normal(jax.random.key(1), (16, 8))
    keys = jax.random.split(jax.random.key(3), num_draws)
    draws = jax.lax.map(lambda key: jax.grad(surrogate)(theta, key), keys, batch_size=1000)
    return float(jnp.sum(jnp.var(draws, axis=0)))


def main() -> None:
    """Print both tables."""
    console = Console()
    table = Table(title=f"autoencoder {PIXELS}-{LATENTS}-{PIXELS}, batch {BATCH}: value and gradient")
    for heading in ("", "operations", "trace and compile (s)", "a step (ms)"):
        table.add_column(heading, justify="left" if not heading else "right")
    arguments = autoencoder_arguments()
    ours = mcgrad.expectation(program, estimator=mcgrad.Score())
    compiled(ours, arguments)  # warm both up once: the first compilation of a process pays for more than itself
    rounds = [(compiled(by_hand, arguments), compiled(ours, arguments)) for _ in range(5)]
    (hand_step, _), (our_step, _) = rounds[-1]
    compile_times = np.median([[hand, our] for (_, hand), (_, our) in rounds], axis=0)
    run_times = seconds([hand_step, our_step], arguments)
    flops = [operations(hand_step), operations(our_step)]
    for name, f, c, r in zip(("by hand", "mcgrad"), flops, compile_times, run_times, strict=True):
        table.add_row(name, f"{f:,.0f}", f"{c:.2f}", f"{1e3 * r:.2f}")
    ratios = (flops[1] / flops[0], compile_times[1] / compile_times[0], run_times[1] / run_times[0])
    table.add_row("ratio", *(f"{r:.3f}" for r in ratios))
    console.print(table)
    credit = Table(title="credit: 16 examples, 8 Bernoulli latents each, 20,000 gradients")
    credit.add_column("surrogate")
    credit.add_column("total gradient variance", justify="right")
    for name, surrogate in toy().items():
        credit.add_row(name, f"{total_variance(surrogate):.2f}")
    console.print(credit)


if __name__ == "__main__":
    main()
