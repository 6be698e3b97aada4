"""Samples that are spread over devices, and examples over processes, have the gradient of one device."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_processes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from on_devices import CPUS, MARKS, close, collectives, mesh

import mcgrad

pytestmark = MARKS


def two_draws(params, key):
    k_b, k_z = jax.random.split(key)
    b = mcgrad.sample(k_b, mcgrad.Bernoulli(logits=params), mcgrad.Score())
    z = mcgrad.sample(k_z, mcgrad.Normal(params, 1.0))
    return jnp.sum(jnp.sin(b * z + 0.3))


def chain(params, key):
    """What its loop carries does not differ from device to device at first."""

    def step(state, key):
        state = 0.5 * state + mcgrad.sample(key, mcgrad.Bernoulli(logits=params[0] + state))
        return state, jnp.sin(state)

    return jnp.sum(jax.lax.scan(step, 0.0, jax.random.split(key, 3))[1])


SHARDINGS = {
    "automatic": (lambda: mesh(), NamedSharding(mesh(), P("data"))),
    "the mesh that is set": (lambda: mesh(), P("data")),
    "explicit": (lambda: mesh(AxisType.Explicit), P("data")),
    "one of two axes": (lambda: jax.make_mesh((4, 2), ("data", "model"), devices=CPUS[:8]), P("data")),
    "two axes": (
        lambda: jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2, devices=CPUS[:8]),
        P(("data", "model")),
    ),
}


@pytest.mark.parametrize("loss", [two_draws, chain])
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("name", SHARDINGS)
def test_samples_over_devices_are_those_of_one(name, chunk_size, loss):
    set_mesh, sharding = SHARDINGS[name]
    params, key = jnp.linspace(-1.0, 1.0, 3), jax.random.key(0)
    options = {"num_samples": 64, "chunk_size": chunk_size}
    expected = jax.jit(mcgrad.value_and_grad(loss, **options))(params, key)
    spread = jax.jit(mcgrad.value_and_grad(loss, **options, sharding=sharding))
    if name == "automatic":
        close(spread(params, key), expected)
    with jax.set_mesh(set_mesh()):
        close(spread(params, key), expected)


def test_samples_over_an_explicit_mesh_take_parameters_of_any_sharding():
    params, key = jnp.linspace(-1.0, 1.0, 8), jax.random.key(0)
    gradients = [mcgrad.grad(weighted_draw, num_samples=16, sharding=s) for s in (None, P("data"))]
    found = [mcgrad.gradient_statistics(weighted_draw, 16, sharding=s) for s in (None, P("data"))]
    expected = jax.jit(gradients[0])(params, key), found[0](params, key).mean
    with jax.set_mesh(mesh(AxisType.Explicit)):
        for spec in (P("data"), P()):
            spread = jax.device_put(params, spec), jax.device_put(key, P())
            close(jax.jit(gradients[1])(*spread), expected[0])
        close(found[1](*spread).mean, expected[1])


def test_samples_over_devices_without_jit_to_second_order_and_with_aux():
    def loss(params, key):
        return two_draws(params, key), jax.random.key_data(key)

    params, key, sharding = jnp.linspace(-1.0, 1.0, 3), jax.random.key(0), NamedSharding(mesh(), P("data"))
    options = {"num_samples": 16, "has_aux": True}
    expected = mcgrad.grad(loss, **options)(params, key)
    close(mcgrad.grad(loss, **options, sharding=sharding)(params, key), expected)
    one, spread = (mcgrad.expectation(two_draws, num_samples=16, sharding=s) for s in (None, sharding))
    close(jax.jit(jax.hessian(spread))(params, key), jax.jit(jax.hessian(one))(params, key))
    mapped = [jax.vmap(jax.grad(f), (0, None)) for f in (spread, one)]
    close(*(jax.jit(f)(jnp.stack([params, -params]), key) for f in mapped))


def test_statistics_comparisons_and_named_gradients_over_devices_are_those_of_one():
    params, key, sharding = jnp.linspace(-1.0, 1.0, 3), jax.random.key(0), NamedSharding(mesh(), P("data"))
    one, spread = (mcgrad.gradient_statistics(two_draws, 160, 7, sharding=s)(params, key) for s in (None, sharding))
    close(spread, one)
    a, b = (
        mcgrad.compare(weighted_draw, [mcgrad.Score()], num_samples=160, chunk_size=16, sharding=s)(params, key)
        for s in (None, sharding)
    )
    close(
        [b.reports["Score"].distance, b.reports["Score"].variance],
        [a.reports["Score"].distance, a.reports["Score"].variance],
    )
    assert [a.chunk_size, b.chunk_size] == [16, 10]  # 20 gradients a device, in two chunks
    close(
        *(jax.jit(mcgrad.score_grad(weighted_draw, num_samples=8, sharding=s))(params, key) for s in (sharding, None))
    )


def test_statistics_and_comparisons_refuse_shardings_that_cannot_be():
    params, key, sharding = jnp.zeros(3), jax.random.key(0), NamedSharding(mesh(), P("data"))
    with pytest.raises(ValueError, match=r"`mcgrad.gradient_statistics\(sharding=...\)` must spread.*for 12 samples"):
        mcgrad.gradient_statistics(two_draws, 12, sharding=sharding)(params, key)
    with pytest.raises(ValueError, match=r"`mcgrad.compare\(sharding=...\)` must spread.*for 12 samples. Take 16"):
        mcgrad.compare(two_draws, [mcgrad.Score()], num_samples=12, sharding=sharding)(params, key)
    for run in (mcgrad.gradient_statistics, mcgrad.compare):
        with pytest.raises(TypeError, match=rf"`mcgrad.{run.__name__}\(sharding=...\)` must be a `jax.sharding"):
            run(two_draws, {"score": mcgrad.Score()} if run is mcgrad.compare else 16, sharding="data")
    for named in (mcgrad.score_grad, mcgrad.pathwise_grad, mcgrad.measure_valued_grad):
        with pytest.raises(ValueError, match="for 12 samples. Take 16"):
            named(two_draws, num_samples=12, sharding=sharding)(params, key)


def weighted_draw(params, key):
    return jnp.sum(jnp.sin(mcgrad.sample(key, mcgrad.Bernoulli(logits=params), mcgrad.Score()) + 0.3))


def compiled(loss, num_samples, chunk_size=None, sharding=None):
    gradient = mcgrad.grad(loss, num_samples=num_samples, chunk_size=chunk_size, sharding=sharding)
    return jax.jit(gradient).lower(jnp.linspace(-1.0, 1.0, 8), jax.random.key(0)).compile()


@pytest.mark.parametrize(("loss", "chunk_size"), [(weighted_draw, None), (weighted_draw, 1024), (two_draws, None)])
def test_a_million_samples_take_the_memory_of_those_of_one_device(loss, chunk_size):
    spread = compiled(loss, 2**20, chunk_size, NamedSharding(mesh(), P("data")))
    own = compiled(loss, 2**17, chunk_size)
    assert spread.memory_analysis().temp_size_in_bytes <= 1.2 * own.memory_analysis().temp_size_in_bytes
    # One sum over devices is for the gradient; with all samples at once another is for the baseline.
    assert collectives(spread) == [2 if chunk_size is None else 1, 0, 0, 0, 0]


def test_shardings_of_samples_that_cannot_be_are_refused():
    def run(sharding, num_samples=16, chunk_size=None):
        gradient = mcgrad.grad(two_draws, num_samples=num_samples, chunk_size=chunk_size, sharding=sharding)
        return gradient(jnp.zeros(3), jax.random.key(0))

    spread = NamedSharding(mesh(), P("data"))
    with pytest.raises(
        TypeError, match=r"`mcgrad.expectation\(sharding=...\)` must be a `jax.sharding.NamedSharding` or"
    ):
        run("data")
    for spec in (P(), P(None), P("data", None)):
        with pytest.raises(ValueError, match=r"must shard one axis, that of the samples, got P"):
            run(spec)
    with pytest.raises(ValueError, match=r"got 8 devices for 12 samples. Take 16 samples"):
        run(spread, 12)
    with pytest.raises(ValueError, match=r"got 8 devices for 1 samples. Take 8 samples"):
        run(spread, 1)
    with pytest.raises(ValueError, match=r"must divide the samples of one device, 2 of 16 over 8 devices, got 4"):
        run(spread, 16, 4)
    with pytest.raises(ValueError, match=r"must name axes of the mesh, got 'data' where there is no mesh. Set it"):
        run(P("data"))
    with jax.set_mesh(jax.make_mesh((8,), ("model",), devices=CPUS[:8])):
        with pytest.raises(
            ValueError, match=r"must be of the mesh that is set, .*'model': 8.*got one of the mesh .*'data': 8"
        ):
            run(spread)
        with pytest.raises(ValueError, match=r"got 'data' where there is the mesh .*'model': 8"):
            run(P("data"))
    with pytest.raises(ValueError, match=r"got 'data' inside `jax.shard_map` or `jax.pmap` over 'data'. Leave it out"):
        jax.shard_map(lambda: run(P("data")), mesh=mesh(), in_specs=(), out_specs=P())()


@pytest.mark.slow  # starts two processes
def test_two_processes_train_as_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, two_processes.__file__]
    both = [
        subprocess.Popen([*command, number, port], env=environment, stdout=subprocess.PIPE, text=True)
        for number in ("0", "1")
    ]
    printed = [process.communicate(timeout=300)[0].splitlines()[-2:] for process in both]
    assert [process.returncode for process in both] == [0, 0] and printed[0] == printed[1]
    spread = NamedSharding(jax.make_mesh((4,), ("data",), (AxisType.Auto,), devices=CPUS[:4]), P("data"))
    with jax.enable_x64(False):
        one = [two_processes.train(*two_processes.data()), two_processes.train(*two_processes.data(), spread)]
    for line, params in zip(printed[0], one, strict=True):
        np.testing.assert_allclose([float.fromhex(x) for x in line.split()], params.ravel(), rtol=1e-5, atol=1e-7)
