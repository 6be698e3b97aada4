"""One of two processes that train together, run by a test with its number and a port; prints the parameters."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import mcgrad

TABLE = np.arange(4.0)  # an array that the program closes over


def loss(params, images, numbers, key):
    def one(image, number):
        bits = mcgrad.sample(jax.random.fold_in(key, number), mcgrad.Bernoulli(logits=image @ params + TABLE))
        return jnp.sum((bits - 0.4 * jnp.arange(4)) ** 2)

    return jnp.mean(jax.vmap(one)(images, numbers))


def train(images, numbers, sharding=None):
    """Three steps on a batch, with two samples or, spread over devices, with eight."""
    params, key = jnp.zeros((3, 4)), jax.random.key(0)
    options = {"num_samples": 2} if sharding is None else {"num_samples": 8, "sharding": sharding}
    gradient = jax.jit(mcgrad.grad(loss, **options))
    for step in range(3):
        params = params - 0.5 * gradient(params, images, numbers, jax.random.fold_in(key, step))
    return np.asarray(params)


def data():
    return np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(8, 3), np.arange(8)


def main(number: int, port: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
    assert jax.process_count() == 2 and jax.device_count() == 4
    spread = NamedSharding(jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,)), P("data"))
    own = slice(4 * number, 4 * number + 4)
    images, numbers = (jax.make_array_from_process_local_data(spread, x[own]) for x in data())
    whole = [jax.device_put(x, NamedSharding(spread.mesh, P())) for x in data()]
    for params in (train(images, numbers), train(*whole, spread)):
        print(" ".join(float(x).hex() for x in params.ravel()))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
