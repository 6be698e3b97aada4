"""Loops: what a rollout costs over a surrogate written by hand, and the variance of one alternative path against the score.

Run with `python -m benchmarks.loops`; writes `benchmarks/results/alternative_path.png`. Times are medians of rounds that
alternate between the two.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mcgrad
from benchmarks.overhead import compiled, seconds

RESULTS = Path(__file__).parent / "results"
NUM_ENVS = 64
stop = jax.lax.stop_gradient

# ---------------------------------------------------------------- a policy that pushes a position, 64 environments


def _reward(position: jax.Array) -> jax.Array:
    return -((position - 0.5) ** 2)


def _move(position: jax.Array, action: jax.Array) -> jax.Array:
    return 0.8 * position + 0.7 * (2 * action - 1)


def _logits(policy: Any, position: jax.Array) -> jax.Array:
    """A small network, so that a step is more than a few numbers."""
    return jnp.tanh(position[:, None] * policy["in"] + policy["bias"]) @ policy["out"]


def rollout(policy: Any, key: jax.Array, num_steps: int) -> jax.Array:
    def step(carry: Any, key: jax.Array) -> Any:
        position, total = carry
        action = mcgrad.sample(key, mcgrad.Bernoulli(logits=_logits(policy, position)))
        position = _move(position, action)
        return (position, total + jnp.mean(_reward(position))), None

    return jax.lax.scan(step, (jnp.zeros(NUM_ENVS), 0.0), jax.random.split(key, num_steps))[0][1]


def rollout_by_hand(policy: Any, key: jax.Array, num_steps: int) -> jax.Array:
    """Each reward times the weight of its environment's actions so far."""

    def step(carry: Any, key: jax.Array) -> Any:
        position, log_weight = carry
        logits = _logits(policy, position)
        action = mcgrad.Bernoulli(logits=stop(logits)).sample(key)
        log_weight = log_weight + mcgrad.Bernoulli(logits=logits).log_prob(action)
        position = _move(position, action)
        return (position, log_weight), _reward(position) * jnp.exp(log_weight - stop(log_weight))

    start = (jnp.zeros(NUM_ENVS), jnp.zeros(NUM_ENVS))
    return jnp.sum(jnp.mean(jax.lax.scan(step, start, jax.random.split(key, num_steps))[1], axis=1))


def rollout_table() -> Table:
    table = Table(title=f"policy rollout, {NUM_ENVS} environments: value and gradient by score")
    for heading in ("steps", "", "trace and compile (s)", "run (ms)"):
        table.add_column(heading, justify="left" if not heading else "right")
    keys = jax.random.split(jax.random.key(0), 2)
    policy = {"in": jax.random.normal(keys[0], (32,)), "bias": jnp.zeros(32), "out": jax.random.normal(keys[1], (32,))}
    arguments = (policy, jax.random.key(1))
    for num_steps in track((10, 100, 1000), description="rollouts", transient=True):
        ours = mcgrad.expectation(functools.partial(rollout, num_steps=num_steps), estimator=mcgrad.Score())
        hand = functools.partial(rollout_by_hand, num_steps=num_steps)
        compiled(ours, arguments)  # warm both up once
        rounds = [(compiled(hand, arguments), compiled(ours, arguments)) for _ in range(3)]
        (hand_step, _), (our_step, _) = rounds[-1]
        compile_times = np.median([[h, o] for (_, h), (_, o) in rounds], axis=0)
        run_times = seconds([hand_step, our_step], arguments)
        for name, c, r in zip(("by hand", "mcgrad"), compile_times, run_times, strict=True):
            table.add_row(str(num_steps), name, f"{c:.2f}", f"{1e3 * r:.2f}")
        ratios = (compile_times[1] / compile_times[0], run_times[1] / run_times[0])
        table.add_row(str(num_steps), "ratio", *(f"{r:.3f}" for r in ratios), end_section=True)
    return table


# ---------------------------------------------------------------- one alternative path


def chain(logits: jax.Array, key: jax.Array, num_steps: int) -> jax.Array:
    """`x <- 0.9 x + 0.1 (2 b - 1)` with `b ~ Bernoulli(logits)`, cost `sum x^2`."""

    def step(x: jax.Array, key: jax.Array) -> Any:
        x = 0.9 * x + 0.1 * (2 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)) - 1)
        return x, x**2

    return jnp.sum(jax.lax.scan(step, 0.0, jax.random.split(key, num_steps))[1])


def chain_gradient(logits: float, num_steps: int) -> float:
    """The exact gradient, from the recursion of mean and variance."""

    def cost(logits: Any) -> Any:
        p = jax.nn.sigmoid(logits)
        mean = variance = total = 0.0
        for _ in range(num_steps):
            mean, variance = 0.9 * mean + 0.1 * (2 * p - 1), 0.81 * variance + 0.04 * p * (1 - p)
            total = total + mean**2 + variance
        return total

    return float(jax.jvp(cost, (logits,), (1.0,))[1])


NUM_CHAINS = 64

ESTIMATORS = {
    "score, reward-to-go": mcgrad.Score(),
    "alternative path": mcgrad.SmoothedPerturbation(),
}


def alternative_path() -> tuple[Table, Path]:
    table = Table(title="Bernoulli chain, derivative in the logit: score against one alternative path")
    one, many = "one chain (ms)", f"{NUM_CHAINS} (ms)"
    for heading in ("steps", "estimator", "mean (exact)", "variance", "ratio", one, "ratio", many, "ratio"):
        table.add_column(heading, justify="left" if heading == "estimator" else "right", no_wrap=True)
    lengths = (10, 30, 100, 300, 1000)
    variances: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for num_steps in track(lengths, description="alternative paths", transient=True):
        keys = jax.random.split(jax.random.key(num_steps), 4000)
        exact = chain_gradient(0.4, num_steps)
        program = functools.partial(chain, num_steps=num_steps)
        rows, steps, mapped = {}, [], []
        for name, estimator in ESTIMATORS.items():
            step = jax.value_and_grad(mcgrad.expectation(program, estimator=estimator))
            steps.append(jax.jit(step).lower(0.4, keys[0]).compile())
            mapped.append(jax.jit(jax.vmap(step, (None, 0))).lower(0.4, keys[:NUM_CHAINS]).compile())
            draws = jax.jit(lambda keys, step=step: jax.lax.map(lambda k: step(0.4, k)[1], keys, batch_size=500))(keys)
            rows[name] = (float(draws.mean()), float(draws.std() / np.sqrt(len(keys))), float(draws.var()))
            variances[name].append(rows[name][2])
        times = seconds(steps, (0.4, keys[0]), rounds=50)
        times_mapped = seconds(mapped, (0.4, keys[:NUM_CHAINS]), rounds=50)
        first = next(iter(rows.values()))[2]
        for (name, (mean, error, variance)), *both in zip(rows.items(), times, times_mapped, strict=True):
            timed = zip(both, (times[0], times_mapped[0]), strict=True)
            shown = (f"{mean:.4g} ± {error:.2g} ({exact:.4g})", f"{variance:,.3g}", f"{variance / first:.3g}")
            ratios = [text for time, score in timed for text in (f"{1e3 * time:.3f}", f"{time / score:.2f}")]
            table.add_row(str(num_steps), name, *shown, *ratios)
        table.add_section()
    return table, _picture(lengths, variances)


def _picture(lengths: tuple[int, ...], variances: dict[str, list[float]]) -> Path:
    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(variances.items(), "os", strict=True):
        axes.loglog(lengths, values, marker=marker, label=name)
    axes.set_xlabel("steps of the chain")
    axes.set_ylabel("variance of the gradient, one sample")
    axes.set_title("Bernoulli chain: derivative in the logit")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "alternative_path.png"
    figure.savefig(path, dpi=150)
    return path


def main() -> None:
    """Print both tables and write the picture."""
    console = Console()
    console.print(rollout_table())
    table, path = alternative_path()
    console.print(table)
    console.print(f"picture: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
