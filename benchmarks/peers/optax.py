"""The estimators of `optax.monte_carlo`, which Optax had up to 0.2.6, on the normals that all three of them take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from benchmarks import inputs
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case, serve

JACOBIANS = {
    "score": optax.monte_carlo.score_function_jacobians,
    "pathwise": optax.monte_carlo.pathwise_jacobians,
    "measure-valued": optax.monte_carlo.measure_valued_jacobians,
}


def normals(estimator: str, num: int, num_samples: int, summed: bool) -> Case:
    w = inputs.normals_weights(num)

    def cost(x: jax.Array) -> jax.Array:
        return jnp.cos(jnp.sum(w * x) if summed else w @ x) + 0.1 * jnp.sum((x - 1) ** 2)

    def gradient(params: jax.Array, key: jax.Array) -> tuple[None, jax.Array]:
        found = JACOBIANS[estimator](cost, [params[0], params[1]], optax.multi_normal, key, num_samples)
        return None, jnp.stack([jnp.mean(each, axis=0) for each in found])

    return jax_case(gradient, inputs.normals(num), batch=200)


if __name__ == "__main__":
    serve({"normals": normals}, ("optax", "jax", "jaxlib"))
