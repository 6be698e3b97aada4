"""NumPyro's `TraceGraph_ELBO` on the programs of the JAX libraries.

The gradient of `E_q[f]` is that of its loss with the program's draws as guide, the same draws with fixed parameters as
model, and a factor `exp(-f)`: the two densities differ by a term whose gradient has mean zero. NumPyro chooses the
estimator of a draw by itself: pathwise where the law has it, the score elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer import TraceGraph_ELBO

from benchmarks import inputs
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case, serve


def _case(draws: Callable[[jax.Array], Any], cost: Callable[[Any], jax.Array], params: Any) -> Case:
    """`draws(params)` makes the draws, and `cost` is of what it returns."""

    def model(params: jax.Array) -> None:
        numpyro.factor("cost", -cost(draws(jax.lax.stop_gradient(params))))

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        return TraceGraph_ELBO().loss(key, {}, model, draws, params)

    return jax_case(lambda params, key: (None, jax.grad(loss)(params, key)), params)


def mixed(bit: str, normal: str) -> Case:
    del bit, normal

    def draws(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        b = numpyro.sample("b", dist.Bernoulli(logits=params[0]))
        x = numpyro.sample("x", dist.Normal(jnp.where(b == 1, params[1], -params[1]), jnp.exp(params[2])))
        return x, b

    return _case(draws, lambda drawn: (drawn[0] - 1) ** 2 + 0.5 * drawn[1], inputs.MIXED)


def bits(estimator: str, num: int, joint: bool) -> Case:
    del estimator
    w = inputs.bits_weights(num)

    def draws(logits: jax.Array) -> list[jax.Array]:
        return [numpyro.sample(f"b{i}", dist.Bernoulli(logits=logits[i])) for i in range(num)]

    def cost(b: list[jax.Array]) -> jax.Array:
        if joint:
            return (sum(w[i] * b[i] for i in range(num)) - jnp.sum(w) / 3) ** 2
        return sum((w[i] * b[i] - 1 / 3) ** 2 for i in range(num))

    return _case(draws, cost, inputs.bits(num))


def gaussian_chain(estimator: str, num_steps: int) -> Case:
    del estimator

    def draws(loc: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + numpyro.sample("e", dist.Normal(loc[0], 0.3))
            return x, x**2

        return scan(step, jnp.float32(0.0), None, length=num_steps)[1]

    return _case(draws, jnp.sum, jnp.full(1, inputs.CHAIN))


def bernoulli_chain(estimator: str, num_steps: int) -> Case:
    del estimator

    def draws(logit: jax.Array) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = 0.9 * x + 0.1 * (2 * numpyro.sample("b", dist.Bernoulli(logits=logit[0])) - 1)
            return x, x**2

        return scan(step, jnp.float32(0.0), None, length=num_steps)[1]

    return _case(draws, jnp.sum, jnp.full(1, inputs.CHAIN))


if __name__ == "__main__":
    builders = {fn.__name__: fn for fn in (mixed, bits, gaussian_chain, bernoulli_chain)}
    serve(builders, ("numpyro", "jax", "jaxlib"))
