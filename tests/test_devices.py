"""A batch that is spread over devices has the gradient of one device.

Each example makes its key of that of the program and of its number, so that the noise is the same however the batch is spread.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from on_devices import CPUS, MARKS, close, collectives, mesh

import mcgrad

pytestmark = MARKS

NUM = 16
PARAMS = {
    "w": 0.3 * jax.random.normal(jax.random.key(1), (5, 3)),
    "v": 0.3 * jax.random.normal(jax.random.key(2), (3, 5)),
}
BATCH = jax.random.uniform(jax.random.key(3), (NUM, 5))
NUMBERS = jnp.arange(NUM)


def autoencoder(estimator, law=mcgrad.Bernoulli):
    def one(params, x, key):
        z = mcgrad.sample(key, law(x @ params["w"]), estimator)
        return jnp.sum((z @ params["v"] - x) ** 2)

    return one


def gaussian(mean):
    return mcgrad.Normal(mean, 0.5)


def bernoulli(logits):
    return mcgrad.Bernoulli(logits=logits)


def rollout(estimator):
    """Six steps of an environment of its own for each example."""

    def one(params, x, key):
        def step(state, key):
            action = mcgrad.sample(key, mcgrad.Bernoulli(logits=(state @ params["w"])[0]), estimator)
            state = 0.9 * state + 0.1 * action
            return state, jnp.sum(state**2) + jnp.sum(params["v"]) * action

        return jnp.sum(jax.lax.scan(step, x, jax.random.split(key, 6))[1])

    return one


MODELS = {
    "by default": autoencoder(None, bernoulli),
    "score": autoencoder(mcgrad.Score(), bernoulli),
    "enumerate": autoencoder(mcgrad.Enumerate(), bernoulli),
    "disarm": autoencoder(mcgrad.DisARM(), bernoulli),
    "measure-valued": autoencoder(mcgrad.MeasureValued(), bernoulli),
    "gaussian": autoencoder(None, gaussian),
    "rollout": rollout(None),
    "rollout beside an alternative": rollout(mcgrad.MeasureValued()),
}


def loss_of(one):
    def loss(params, batch, numbers, key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        return jnp.mean(jax.vmap(one, (None, 0, 0))(params, batch, keys))

    return loss


def automatic(gradient, mean=True):
    spread = NamedSharding(mesh(), P("data"))
    return lambda params, *batch: gradient(params, *jax.device_put(batch[:2], spread), batch[2])


def explicit(gradient, mean=True):
    def spread(params, *batch):
        with jax.set_mesh(mesh(AxisType.Explicit)):
            return gradient(jax.device_put(params, P()), *jax.device_put(batch[:2], P("data")), batch[2])

    return spread


SPECS = {"in_specs": (P(), P("data"), P("data"), P()), "out_specs": P()}


def shard_map(gradient):
    """Each device has the gradient of its own examples, in parameters of its own."""

    def local(params, *batch):
        return jax.lax.pmean(gradient(jax.lax.pcast(params, "data", to="varying"), *batch), "data")

    return jax.shard_map(local, mesh=mesh(), **SPECS)


def shard_map_of_shared_parameters(gradient):
    """JAX sums the gradients of all devices by itself."""
    local = lambda *args: jax.tree.map(lambda g: g / 8, gradient(*args))  # noqa: E731
    return jax.shard_map(local, mesh=mesh(), **SPECS)


def shard_map_unchecked(gradient):
    local = lambda *args: jax.lax.pmean(gradient(*args), "data")  # noqa: E731
    return jax.shard_map(local, mesh=mesh(), check_vma=False, **SPECS)


def pmap(gradient):
    each = jax.pmap(
        lambda *args: jax.lax.pmean(gradient(*args), "data"), "data", in_axes=(None, 0, 0, None), devices=CPUS[:8]
    )

    def spread(params, *batch):
        split = [x.reshape(8, -1, *x.shape[1:]) for x in batch[:2]]
        return jax.tree.map(lambda g: g[0], each(params, *split, batch[2]))

    return spread


WAYS = (
    automatic,
    explicit,
    shard_map,
    shard_map_of_shared_parameters,
    shard_map_unchecked,
    pmap,
)


@functools.cache
def on_one_device(name, num_samples):
    gradient = mcgrad.grad(loss_of(MODELS[name]), num_samples=num_samples)
    return jax.jit(gradient)(PARAMS, BATCH, NUMBERS, jax.random.key(7))


SLOW = "rollout beside an alternative"  # to compile


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == SLOW else n for n in MODELS])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_gradient_is_that_of_one_device(way, name, num_samples):
    gradient = mcgrad.grad(loss_of(MODELS[name]), num_samples=num_samples)
    # `pmap` compiles by itself, and the mesh of explicit axes is set outside of what is compiled.
    spread = way(gradient) if way is pmap else way(jax.jit(gradient)) if way is explicit else jax.jit(way(gradient))
    close(spread(PARAMS, BATCH, NUMBERS, jax.random.key(7)), on_one_device(name, num_samples))


@pytest.mark.parametrize("spec", [P("data"), P(None, "data")], ids=["a batch", "the matrices themselves"])
def test_factors_of_covariances_may_be_spread_by_explicit_axes(spec):
    def loss(loc, factor, key):
        law = mcgrad.MultivariateNormal(loc, scale_tril=factor)
        return jnp.mean(jnp.sin(mcgrad.sample(key, law, mcgrad.Score())))

    loc, factor = jnp.zeros((8, 8)), jnp.stack([jnp.eye(8) + 0.1] * 8)
    gradient, key = jax.jit(mcgrad.grad(loss, (0, 1))), jax.random.key(0)
    expected = gradient(loc, factor, key)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        close(gradient(*jax.device_put((loc, factor), spec), jax.device_put(key, P())), expected)


@pytest.mark.parametrize(
    "name", ["score", "disarm", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gaussian", "rollout"))]
)
def test_data_parallel_takes_one_sum_over_devices_and_no_gather(name):
    gradient = mcgrad.grad(loss_of(MODELS[name]), num_samples=4)
    key, spread = jax.random.key(7), jax.device_put((BATCH, NUMBERS), NamedSharding(mesh(), P("data")))
    for run in (gradient, shard_map(gradient), shard_map_of_shared_parameters(gradient)):
        assert collectives(jax.jit(run).lower(PARAMS, *spread, key).compile()) == [1, 0, 0, 0, 0]
    with jax.set_mesh(mesh(AxisType.Explicit)):
        spread = jax.device_put((BATCH, NUMBERS), P("data"))
        compiled = jax.jit(gradient).lower(jax.device_put(PARAMS, P()), *spread, key).compile()
        fold = jax.vmap(lambda number, key: jax.random.key_data(jax.random.fold_in(key, number)), (0, None))
        own = collectives(jax.jit(fold).lower(spread[1], key).compile())  # JAX 0.9 gathers keys
        assert collectives(compiled) == [1, *own[1:]]


@pytest.mark.parametrize("way", WAYS[:-1], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", ["score", "rollout"])
def test_without_jit(way, name):
    gradient = mcgrad.grad(loss_of(MODELS[name]), num_samples=1)
    close(way(gradient)(PARAMS, BATCH, NUMBERS, jax.random.key(7)), on_one_device(name, 1))


def test_one_axis_of_a_mesh_may_be_mapped_over_and_another_explicit():
    def loss(logits, number, key):
        bits = mcgrad.sample(jax.random.fold_in(key, number[0]), mcgrad.Bernoulli(logits=logits), mcgrad.Score())
        return jnp.sum(jnp.sin(2.0 * bits + 1.0))

    logits, numbers, key = jnp.linspace(-1.0, 1.0, 16).reshape(4, 4), jnp.arange(4), jax.random.key(0)
    expected = jnp.stack([mcgrad.grad(loss)(logits[i], numbers[i : i + 1], key) for i in range(4)])
    with jax.set_mesh(jax.make_mesh((4, 2), ("data", "model"), (AxisType.Explicit,) * 2, devices=CPUS[:8])):
        local = lambda logits, number, key: mcgrad.grad(loss)(logits[0], number, key)[None]  # noqa: E731
        specs = {"in_specs": (P("data"), P("data"), P()), "out_specs": P("data"), "axis_names": {"data"}}
        spread = jax.device_put((logits, numbers), (P("data", "model"), P("data")))
        close(jax.jit(jax.shard_map(local, **specs))(*spread, key), expected)
