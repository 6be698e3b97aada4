"""Gradients on meshes of 1 to 64 devices that XLA makes of the processor: what their compiled programs hold and send."""

from __future__ import annotations

import os

NUM_DEVICES = 64
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={NUM_DEVICES}"

import re  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import mcgrad  # noqa: E402
from benchmarks.worker import Case, serve  # noqa: E402

PIXELS, HIDDEN, BITS = 784, 64, 32
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}


def mesh_of(num_devices: int, kind: AxisType = AxisType.Auto) -> Any:
    return jax.make_mesh((num_devices,), ("data",), (kind,), devices=jax.devices()[:num_devices])


def facts_of(step: Any) -> dict[str, Any]:
    """Temporary memory of a device, and the collectives of the program: how many of each, and the bytes of their results."""
    counts, sent = dict.fromkeys(COLLECTIVES, 0), 0
    for result, name in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", step.as_text()):
        counts[name] += 1
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            sent += BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
    return {"bytes": step.memory_analysis().temp_size_in_bytes, "counts": counts, "sent": sent}


def case(facts: dict[str, Any], step: Any = None) -> Case:
    return Case(step or (lambda: None), lambda count, seed: np.zeros((count, 1)), facts)


def parameters() -> dict[str, Any]:
    shapes = {"hidden": (PIXELS, HIDDEN), "logits": (HIDDEN, BITS), "decoder": (BITS, PIXELS)}
    return {name: jnp.full(shape, 0.01) for name, shape in shapes.items()}


def loss(params: Any, images: jax.Array, numbers: jax.Array, key: jax.Array) -> jax.Array:
    """An autoencoder with 32 bits; the key of an example is made of its number."""

    def one(image: jax.Array, number: jax.Array) -> jax.Array:
        hidden = jnp.tanh(image @ params["hidden"])
        law = mcgrad.Bernoulli(logits=hidden @ params["logits"])
        bits = mcgrad.sample(jax.random.fold_in(key, number), law, mcgrad.Score())
        return jnp.mean((jnp.tanh(bits @ params["decoder"]) - image) ** 2)

    return jnp.mean(jax.vmap(one)(images, numbers))


def batch(way: str, num_examples: int, num_devices: int) -> Case:
    """Four samples of the autoencoder for each example of a batch that is spread over devices."""
    gradient = mcgrad.grad(loss, num_samples=4)
    kind = AxisType.Explicit if way == "explicit axes" else AxisType.Auto
    mesh = mesh_of(num_devices, kind)
    arrays = jnp.zeros((num_examples, PIXELS)), jnp.arange(num_examples)
    with jax.set_mesh(mesh):
        params, spread = jax.device_put(
            (parameters(), arrays), (NamedSharding(mesh, P()), NamedSharding(mesh, P("data")))
        )
        if way == "shard_map":

            def local(*args: Any) -> Any:
                return jax.tree.map(lambda g: g / num_devices, gradient(*args))

            run: Any = jax.shard_map(local, in_specs=(P(), P("data"), P("data"), P()), out_specs=P())
        else:
            run = gradient
        step = jax.jit(run).lower(params, *spread, jax.random.key(0)).compile()
    size = 4 * sum(x.size for x in jax.tree.leaves(params))
    return case({**facts_of(step), "gradient": size})


def program(params: jax.Array, key: jax.Array) -> jax.Array:
    """A weighted draw and one that moves."""
    k_b, k_z = jax.random.split(key)
    b = mcgrad.sample(k_b, mcgrad.Bernoulli(logits=params), mcgrad.Score())
    z = mcgrad.sample(k_z, mcgrad.Normal(params, 1.0))
    return jnp.sum(jnp.sin(b * z + 0.3))


def samples(num_samples: int, num_devices: int, chunk_size: int | None, run: bool = False) -> Case:
    """Samples of that program over devices, or on one without a mesh; to be timed if they `run`."""
    sharding = NamedSharding(mesh_of(num_devices), P("data")) if num_devices > 1 else None
    gradient = mcgrad.grad(program, num_samples=num_samples, chunk_size=chunk_size, sharding=sharding)
    arguments = jnp.linspace(-1.0, 1.0, 8), jax.random.key(0)
    step = jax.jit(gradient).lower(*arguments).compile()
    if sharding is not None:
        arguments = jax.device_put(arguments, NamedSharding(sharding.mesh, P()))
    return case(facts_of(step), (lambda: jax.block_until_ready(step(*arguments))) if run else None)


if __name__ == "__main__":
    serve({"batch": batch, "samples": samples}, ("jax", "jaxlib", "numpy"))
