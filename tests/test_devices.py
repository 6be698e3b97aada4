"""A batch or samples that are spread over devices have the gradient of one device; costs that devices share are credited right.

The devices are eight that XLA makes of the processor, see `conftest.py`. Each example makes its key of that of the program and of
its number, so that the noise is the same however the batch is spread.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_processes
from helpers import assert_unbiased
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mcgrad

CPUS = jax.devices("cpu")
pytestmark = pytest.mark.skipif(len(CPUS) < 8, reason="XLA_FLAGS must have --xla_force_host_platform_device_count=8")


@pytest.fixture(autouse=True)
def runs_share_keys():
    """Runs on one key are compared on purpose here."""
    with jax.debug_key_reuse(False):
        yield


NUM = 16
PARAMS = {
    "w": 0.3 * jax.random.normal(jax.random.key(1), (5, 3)),
    "v": 0.3 * jax.random.normal(jax.random.key(2), (3, 5)),
}
BATCH = jax.random.uniform(jax.random.key(3), (NUM, 5))
NUMBERS = jnp.arange(NUM)


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((8,), ("data",), (kind,), devices=CPUS[:8])


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


def close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


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


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(compiled):
    """How many of each a compiled program has."""
    text = compiled.as_text()
    return [text.count(f" {name}(") + text.count(f" {name}-start(") for name in COLLECTIVES]


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


LOGITS = jnp.linspace(-1.5, 1.0, 8)
STATES = (np.arange(256)[:, None] >> np.arange(8)) & 1  # of one bit on each device


def own_key(key):
    return jax.random.fold_in(key, jax.lax.axis_index("data"))


def bit(logit, key, estimator=None):
    return mcgrad.sample(own_key(key), mcgrad.Bernoulli(logits=logit[0]), estimator)


def exact(cost):
    """The gradient of the expectation of a function of the bits of all devices, one logit a device."""

    def expectation(logits):
        chances = jnp.where(STATES == 1, jax.nn.sigmoid(logits)[None], jax.nn.sigmoid(-logits)[None])
        return jnp.sum(jnp.prod(chances, axis=1) * jax.vmap(cost)(1.0 * STATES))

    return jax.grad(expectation)(LOGITS)


def gradients(loss, num=4096, seed=0, check_vma=True, **options):
    """Gradients of the logit of each device, `[num, 8]`."""

    def local(logits, keys):
        return jax.vmap(mcgrad.grad(loss, **options), (None, 0))(logits, keys)

    specs = {"in_specs": (P("data"), P()), "out_specs": P(None, "data"), "check_vma": check_vma}
    return jax.jit(jax.shard_map(local, mesh=mesh(), **specs))(LOGITS, jax.random.split(jax.random.key(seed), num))


def square(b):
    return (jnp.mean(b) - 0.2) ** 2 + 0.5 * b[3] * b[5]


def by_mean(logit, key):
    b = 1.0 * bit(logit, key, mcgrad.Score())
    i = jax.lax.axis_index("data")
    third, fifth = (jax.lax.psum(jnp.where(i == k, b, 0.0), "data") for k in (3, 5))
    return (jax.lax.pmean(b, "data") - 0.2) ** 2 + 0.5 * third * fifth


def by_all_gather(logit, key):
    return jax.lax.pmean(square(jax.lax.all_gather(1.0 * bit(logit, key, mcgrad.Score()), "data")), "data")


def by_baseline(logit, key):
    b = 1.0 * bit(logit, key, mcgrad.Score(baseline=jnp.asarray(0.3)))
    return square(jax.lax.all_gather(b, "data")) * jnp.where(jax.lax.axis_index("data") == 0, 1.0, 0.0)


COUPLED = {
    "psum": (by_mean, square),
    "all_gather": (by_all_gather, square),
    "a baseline": (by_baseline, square),
    "pmax": (
        lambda logit, key: jax.lax.pmax(bit(logit, key, mcgrad.Score()) * (1.0 + jax.lax.axis_index("data")), "data"),
        lambda b: jnp.max(b * jnp.arange(1.0, 9.0)),
    ),
    "ppermute": (
        lambda logit, key: jax.lax.pmean(
            (lambda b: b * jax.lax.ppermute(b, "data", [(i, (i + 1) % 8) for i in range(8)]))(
                1.0 * bit(logit, key, mcgrad.Score())
            ),
            "data",
        ),
        lambda b: jnp.mean(b * jnp.roll(b, 1)),
    ),
}


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", COUPLED)
def test_a_cost_that_devices_share_is_credited_with_the_draws_of_all(name, num_samples):
    loss, cost = COUPLED[name]
    assert_unbiased(gradients(loss, 2**19 // num_samples, num_samples=num_samples), exact(cost))


@pytest.mark.parametrize("estimator", [mcgrad.Score(), mcgrad.DisARM(), mcgrad.Enumerate(), mcgrad.MeasureValued()])
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_collective_at_the_end_of_the_program_leaves_each_device_its_own_draws(estimator, check_vma):
    def loss(logit, key):
        return jax.lax.pmean(jnp.sin(2.0 * bit(logit, key, estimator) + 1.0), "data")

    with_own = gradients(loss, 2**11, check_vma=check_vma)
    # Without the check JAX counts the cost once for each device that has it.
    assert_unbiased(with_own / (1 if check_vma else 8), exact(lambda b: jnp.mean(jnp.sin(2 * b + 1))))


@pytest.mark.parametrize(
    "estimator", [mcgrad.DisARM(), mcgrad.Enumerate(), mcgrad.MeasureValued(), mcgrad.Score(num_samples=2)]
)
def test_estimators_that_run_the_rest_again_refuse_what_devices_share(estimator):
    def loss(logit, key):
        return jnp.sin(jax.lax.pmean(1.0 * bit(logit, key, estimator), "data"))

    with pytest.raises(ValueError, match=r"the draw from Bernoulli at .*`psum\w*` at .*'data'.*`mcgrad.Score\(\)`"):
        gradients(loss)


def test_where_jax_does_not_check_which_draws_differ_a_shared_cost_is_refused():
    def loss(logit, key):
        return jnp.sin(jax.lax.pmean(1.0 * bit(logit, key, mcgrad.Score()), "data"))

    message = r"`psum` at .*along the mapped axis 'data'.*`check_vma=True`.*the last operation"
    with pytest.raises(ValueError, match=message):
        gradients(loss, check_vma=False)
    with pytest.raises(ValueError, match=message):
        jax.vmap(mcgrad.grad(loss), (0, None), axis_name="data")(LOGITS[:, None], jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        jax.pmap(mcgrad.grad(loss), "data", in_axes=(0, None), devices=CPUS[:8])(LOGITS[:, None], jax.random.key(0))


def test_a_path_goes_through_collectives_as_jax_does():
    def loss(loc, key):
        z = mcgrad.sample(own_key(key), mcgrad.Normal(loc[0], 1.0))
        return jnp.sin(jax.lax.pmean(z, "data"))

    def plain(loc, key):
        return jnp.sin(jax.lax.pmean(loc[0] + jax.random.normal(own_key(key)), "data"))

    specs = {"in_specs": (P("data"), P()), "out_specs": P("data")}
    both = [jax.shard_map(g, mesh=mesh(), **specs) for g in (mcgrad.grad(loss), jax.grad(plain))]
    close(*(jax.jit(g)(LOGITS, jax.random.key(0)) for g in both))


def test_devices_that_share_noise_are_refused():
    def loss(logit, key):
        return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logit[0]))

    with pytest.raises(
        ValueError, match=r"mesh axis 'data' and its key does not.*fold_in\(key, jax.lax.axis_index\('data'\)\)"
    ):
        gradients(loss)


def test_explain_names_the_axis_that_a_cost_is_shared_along():
    found = []

    def local(logit, key):
        found.append(mcgrad.explain(by_mean)(logit, key))
        return logit

    jax.shard_map(local, mesh=mesh(), in_specs=(P("data"), P()), out_specs=P("data"))(LOGITS, jax.random.key(0))
    assert found[0].costs[0].credits[0].devices == ("data",)
    assert "credited to Bernoulli: one draw\n      of all devices along 'data'" in str(found[0])


def test_a_shard_map_of_the_program_that_draws_nothing_is_an_operation():
    def spread(b):
        sum_of_sines = jax.shard_map(
            lambda b: jax.lax.psum(jnp.sum(jnp.sin(b)), "data"), mesh=mesh(), in_specs=P("data"), out_specs=P()
        )
        return sum_of_sines(b) ** 2

    def loss(f, logits, key):
        return f(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score()))

    both = [
        jax.jit(mcgrad.grad(functools.partial(loss, f)))(LOGITS, key=jax.random.key(0))
        for f in (spread, lambda b: jnp.sum(jnp.sin(b)) ** 2)
    ]
    close(*both)


def test_one_draw_that_all_devices_use_counts_once():
    def loss(logit, x, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), mcgrad.Score())
        return jnp.sin(jax.lax.psum(b * x[0], "data"))

    def local(logit, x, keys):
        return jax.vmap(mcgrad.grad(loss), (None, None, 0))(logit, x, keys)

    keys, x = jax.random.split(jax.random.key(0), 2**12), jnp.linspace(0.1, 0.3, 8)
    got = jax.jit(jax.shard_map(local, mesh=mesh(), in_specs=(P(), P("data"), P()), out_specs=P()))(0.3, x, keys)
    assert_unbiased(got, jax.grad(jax.nn.sigmoid)(0.3) * jnp.sin(jnp.sum(x)))


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
