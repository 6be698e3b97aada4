"""Draws inside a `shard_map` of the program have the gradient of the same program under `vmap`, with the same keys."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from on_devices import CPUS, MARKS, close, collectives
from on_devices import mesh as one_axis

import mcgrad

pytestmark = MARKS


def two_axes():
    return jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2, devices=CPUS[:8])


KEY = jax.random.key(5)
WEIGHTS = jnp.asarray([0.5, -0.3, 0.8, 0.2])
BATCH = jax.random.normal(jax.random.key(1), (16, 4))


def of_device(key, axis="data"):
    return jax.random.fold_in(key, jax.lax.axis_index(axis))


def numbered(key, num):
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num))


def bits(key, logits, estimator):
    return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)


# Each program twice: with `shard_map`, given how to make one, and with `vmap` over the parts of the devices.

SPECS = (P(), P("data"), P())


def own_costs(estimator, shard):
    """A mean over devices at the end."""

    def local(w, x, key):
        return jnp.mean(jnp.sin(2.0 * bits(key, x @ w, estimator) + x[:, 0]))

    def shards(w, x, key):
        return jax.lax.pmean(local(w, x, of_device(key)), "data")

    def plain(w, key):
        return jnp.mean(jax.vmap(local, (None, 0, 0))(w, BATCH.reshape(8, 2, 4), numbered(key, 8)))

    return plain if shard is None else lambda w, key: shard(shards, SPECS, P())(w, BATCH, key)


def shared_cost(estimator, shard):
    """A sum over devices before something that is not linear."""

    def local(w, x, key):
        return jnp.sum(bits(key, x @ w, estimator))

    def shards(w, x, key):
        return jnp.sin(jax.lax.psum(local(w, x, of_device(key)), "data"))

    def plain(w, key):
        return jnp.sin(jnp.sum(jax.vmap(local, (None, 0, 0))(w, BATCH.reshape(8, 2, 4), numbered(key, 8))))

    return plain if shard is None else lambda w, key: shard(shards, SPECS, P())(w, BATCH, key)


def chain(estimator, shard):
    """A second draw reads the first ones of all devices."""

    def second(mean, b, x, key):
        return jnp.sum(mcgrad.sample(key, mcgrad.Normal(mean + b * x[:, 1], 1.0)) ** 2)

    def shards(w, x, key):
        k_b, k_z = jax.random.split(of_device(key))
        b = bits(k_b, x @ w, estimator)
        return second(jnp.mean(jax.lax.all_gather(b, "data")), b, x, k_z)[None]

    def plain(w, key):
        keys, x = jax.vmap(jax.random.split)(numbered(key, 8)), BATCH.reshape(8, 2, 4)
        b = jax.vmap(lambda x, key: bits(key, x @ w, estimator))(x, keys[:, 0])
        return jnp.sum(jax.vmap(second, (None, 0, 0, 0))(jnp.mean(b), b, x, keys[:, 1]))

    return plain if shard is None else lambda w, key: jnp.sum(shard(shards, SPECS, P("data"))(w, BATCH, key))


def rollout(estimator, shard):
    """Draws in a loop in the `shard_map`."""

    def local(w, x, key):
        def step(state, key):
            action = bits(key, state @ w, estimator)
            state = 0.9 * state + 0.1 * action[:, None]
            return state, jnp.sum(state**2, axis=-1) + action * w[0]

        return jnp.sum(jax.lax.scan(step, x, jax.random.split(key, 4))[1])

    def shards(w, x, key):
        return jax.lax.psum(local(w, x, of_device(key)), "data")

    def plain(w, key):
        return jnp.sum(jax.vmap(local, (None, 0, 0))(w, BATCH.reshape(8, 2, 4), numbered(key, 8)))

    return plain if shard is None else lambda w, key: shard(shards, SPECS, P())(w, BATCH, key)


def one_draw_of_all(estimator, shard):
    """A draw that is the same on all devices, and one of each."""

    def local(z, w, x, key):
        return jnp.sum(bits(key, x @ w + jnp.sum(z), estimator) * x[:, 0] * (1 + z[0]))

    def shards(w, x, key):
        k_z, k_b = jax.random.split(key)
        return jax.lax.psum(local(bits(k_z, w, estimator), w, x, of_device(k_b)), "data")

    def plain(w, key):
        k_z, k_b = jax.random.split(key)
        z = bits(k_z, w, estimator)
        return jnp.sum(jax.vmap(local, (None, None, 0, 0))(z, w, BATCH.reshape(8, 2, 4), numbered(k_b, 8)))

    return plain if shard is None else lambda w, key: shard(shards, SPECS, P())(w, BATCH, key)


def blocks(estimator, shard):
    """Both axes of a batch over mesh axes of their own, of which one is summed over."""

    def local(w, x, key):
        return jnp.sum(bits(key, x * w[None], estimator) * x, axis=-1)

    def shards(w, x, key):
        return jnp.sin(jax.lax.psum(local(w, x, of_device(of_device(key), "model")), "model"))

    def plain(w, key):
        x = jnp.moveaxis(BATCH.reshape(4, 4, 2, 2), 2, 1)
        keys = jax.vmap(lambda key: numbered(key, 2))(numbered(key, 4))
        sums = jax.vmap(jax.vmap(local), (None, 0, 0))(w.reshape(2, 2), x, keys)
        return jnp.mean(jnp.sin(jnp.sum(sums, axis=1)))

    specs = (P("model"), P("data", "model"), P())
    if shard is None:
        return plain
    return lambda w, key: jnp.mean(shard(shards, specs, P("data"), mesh=two_axes())(w, BATCH, key))


def branches(estimator, shard):
    """Draws in a checkpoint, and in branches that all devices take together."""

    def local(w, x, key):
        k_b, k_z = jax.random.split(key)
        first = jax.checkpoint(lambda x, key: jnp.sin(2.0 * bits(key, x @ w, estimator) + x[:, 0]))(x, k_b)
        second = jax.lax.cond(w[0] > 0, lambda: bits(k_z, x @ w, estimator), lambda: x[:, 0])
        return jnp.sum(first + second**2)

    def shards(w, x, key):
        return local(w, x, of_device(key))[None]

    def plain(w, key):
        return jnp.sum(jax.vmap(local, (None, 0, 0))(w, BATCH.reshape(8, 2, 4), numbered(key, 8)))

    return plain if shard is None else lambda w, key: jnp.sum(shard(shards, SPECS, P("data"))(w, BATCH, key))


PROGRAMS = {
    program.__name__: program for program in (own_costs, shared_cost, chain, rollout, one_draw_of_all, blocks, branches)
}


def scaled(b):
    return jnp.sum(0.3 * b)


ESTIMATORS = {
    "score": mcgrad.Score(),
    "relax": mcgrad.RELAX(scaled),
    "disarm": mcgrad.DisARM(),
    "measure-valued": mcgrad.MeasureValued(),
    "by default": None,
}
ALL = [(program, "score", 1, True) for program in PROGRAMS] + [("own_costs", "score", 3, False)]
ALL = [
    pytest.param(
        program, estimator, num, check, marks=() if (program, estimator, num, check) in ALL else pytest.mark.slow
    )
    for program in PROGRAMS
    for estimator in ESTIMATORS
    for num in (1, 3)
    for check in (True, False)
]


def shard_map(fn, in_specs, out_specs, mesh=None, check_vma=True):
    return jax.shard_map(fn, mesh=mesh or one_axis(), in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)


@functools.cache
def under_vmap(program, estimator, num_samples):
    fn = PROGRAMS[program](ESTIMATORS[estimator], None)
    return jax.jit(mcgrad.value_and_grad(fn, num_samples=num_samples))(WEIGHTS, KEY)


@pytest.mark.parametrize(("program", "estimator", "num_samples", "check_vma"), ALL)
def test_the_gradient_is_that_under_vmap(program, estimator, num_samples, check_vma):
    fn = PROGRAMS[program](ESTIMATORS[estimator], functools.partial(shard_map, check_vma=check_vma))
    value, gradient = jax.jit(mcgrad.value_and_grad(fn, num_samples=num_samples))(WEIGHTS, KEY)
    expected = under_vmap(program, estimator, num_samples)
    close(value, expected[0])
    close(gradient, expected[1])


LOGITS = jnp.linspace(-1.5, 1.0, 8)
STATES = 1.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)  # of one bit on each device


SPREAD = P("data")


def of_bits(fn, estimator, out_specs=SPREAD, **options):
    """The program of what devices make of a logit and a key of their own."""

    def local(logit, key):
        return fn(bits(of_device(key), logit, estimator))

    return lambda logits, key: jnp.sum(shard_map(local, (P("data"), P()), out_specs, **options)(logits, key))


@pytest.mark.parametrize("check_vma", [True, False])
def test_enumeration_sees_what_devices_share(check_vma):
    def cost(b):
        return (jax.lax.pmean(b[0], "data") - 0.2) ** 2

    def expectation(logits):
        chances = jnp.where(STATES == 1, jax.nn.sigmoid(logits)[None], jax.nn.sigmoid(-logits)[None])
        return jnp.sum(jnp.prod(chances, axis=1) * (jnp.mean(STATES, axis=1) - 0.2) ** 2)

    program = of_bits(cost, mcgrad.Enumerate(), P(), check_vma=check_vma)
    close(jax.jit(mcgrad.grad(program))(LOGITS, KEY), jax.grad(expectation)(LOGITS))


def test_each_device_is_credited_with_its_own_draws_and_nothing_is_gathered():
    program = own_costs(mcgrad.Score(), shard_map)
    (cost,) = mcgrad.explain(program)(WEIGHTS, KEY).costs
    assert cost.shape == (8, 2) and cost.credits[0].axes == ("same", "same")
    assert collectives(jax.jit(mcgrad.grad(program)).lower(WEIGHTS, KEY).compile()) == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_the_mesh_that_is_set(kind):
    def local(w, x, key):
        return jax.lax.pmean(jnp.mean(jnp.sin(2.0 * bits(of_device(key), x @ w, None) + x[:, 0])), "data")

    def program(w, key):
        x = jax.device_put(BATCH, NamedSharding(mesh, P("data")))
        return jax.shard_map(local, in_specs=SPECS, out_specs=P())(w, x, key)

    mesh = one_axis(kind)
    with jax.set_mesh(mesh):
        close(jax.jit(mcgrad.grad(program))(WEIGHTS, KEY), under_vmap("own_costs", "by default", 1)[1])


def test_without_jit_and_to_second_order():
    program, plain = (own_costs(mcgrad.Score(), shard) for shard in (shard_map, None))
    close(mcgrad.grad(program)(WEIGHTS, KEY), under_vmap("own_costs", "score", 1)[1])
    hessians = [jax.jit(jax.hessian(mcgrad.expectation(fn)))(WEIGHTS, KEY) for fn in (program, plain)]
    close(*hessians)


def test_pmap_inside_the_program():
    def one(logit, key):
        return jnp.sin(2.0 * bits(key, logit, mcgrad.Score()))

    def program(mapped):
        return lambda logits, key: jnp.sum(mapped(logits, jax.random.split(key, 8)))

    devices = {"devices": CPUS[:8]}
    each = (jax.pmap(one, **devices), jax.vmap(one))
    close(*(jax.jit(mcgrad.grad(program(mapped)))(LOGITS, KEY) for mapped in each))


def test_some_axes_of_the_mesh_may_stay_automatic():
    def local(w, x, key):
        return jax.lax.pmean(jnp.mean(bits(of_device(key), x @ w, mcgrad.Score()) * x[:, 0]), "data")

    def program(axis_names):
        specs = {"in_specs": SPECS, "out_specs": P(), "axis_names": axis_names}
        return lambda w, key: jax.shard_map(local, mesh=two_axes(), **specs)(w, BATCH, key)

    close(*(jax.jit(mcgrad.grad(program(names)))(WEIGHTS, KEY) for names in ({"data"}, {"data", "model"})))


def test_a_path_may_share_noise_and_a_weight_may_not():
    def program(law, estimator, key_of):
        def local(logit, key):
            return jnp.sin(1.0 * mcgrad.sample(key_of(key), law(logit), estimator))

        def loss(logits, key):
            return jnp.sum(shard_map(local, (P("data"), P()), P("data"))(logits, key))

        return mcgrad.grad(loss)

    def same(key):
        return key

    noise = jax.random.normal(KEY, (1,))
    close(program(lambda m: mcgrad.Normal(m, 1.0), None, same)(LOGITS, KEY), jnp.cos(LOGITS + noise))
    with pytest.raises(ValueError, match=r"mesh axis 'data' and its key does not.*jax.lax.axis_index\('data'\)"):
        program(lambda logit: mcgrad.Bernoulli(logits=logit), mcgrad.Score(), same)(LOGITS, KEY)
    # Of keys that only look different.
    with pytest.raises(ValueError, match=r"the draw from Bernoulli at .*uses the same key for several of its entries"):
        looking = lambda key: jax.random.fold_in(key, 0 * jax.lax.axis_index("data"))  # noqa: E731
        program(lambda logit: mcgrad.Bernoulli(logits=logit), mcgrad.Score(), looking)(LOGITS, KEY)


@pytest.mark.parametrize("check_vma", [True, False])
def test_what_devices_do_not_do_together_is_refused(check_vma):
    def chosen(logit, key):
        return jax.lax.cond(logit[0] > 0, lambda: bits(of_device(key), logit, None), lambda: logit)

    def looped(logit, key):
        def step(state):
            x, n = state
            return x + 1.0 + bits(jax.random.fold_in(of_device(key), n), logit, None), n + 1

        return jax.lax.while_loop(lambda state: state[0][0] < 3, step, (logit, 0))[0]

    for local, name in ((chosen, "cond"), (looped, "while")):
        spread = shard_map(local, (P("data"), P()), P("data"), check_vma=check_vma)
        with pytest.raises(
            NotImplementedError, match=rf"the draw at .*test_shards.*`{name}` at .*differs along the mesh axis 'data'"
        ):
            mcgrad.grad(lambda logits, key, f=spread: jnp.sum(f(logits, key)))(LOGITS, KEY)


def test_other_refusals_name_the_line_and_the_way_out():
    def nested(logit, key):
        inner = jax.shard_map(
            lambda logit, key: bits(of_device(key, "model"), logit, None),
            in_specs=(P("model"), P()),
            out_specs=P("model"),
            axis_names={"model"},
            check_vma=False,
        )
        return inner(logit, of_device(key))

    def twice(logits, key):
        specs = {"in_specs": (P("data"), P()), "out_specs": P("data"), "axis_names": {"data"}, "check_vma": False}
        return jnp.sum(jax.shard_map(nested, mesh=two_axes(), **specs)(logits, key))

    with pytest.raises(NotImplementedError, match=r"test_shards.*inside another one.*both by one `jax.shard_map`"):
        mcgrad.grad(twice)(LOGITS, KEY)

    inside_rule = jax.custom_jvp(of_bits(jnp.sin, None))
    inside_rule.defjvp(lambda primals, tangents: (inside_rule(*primals), tangents[0][0]))
    with pytest.raises(NotImplementedError, match=r"test_shards.*a custom derivative rule does not see the draw"):
        mcgrad.grad(inside_rule)(LOGITS, KEY)

    shared = mcgrad.RELAX(lambda b: 0.3 * jax.lax.psum(b, "data"))
    with pytest.raises(NotImplementedError, match=r"`psum\w*` at .*test_shards.*Compute it before the draw"):
        mcgrad.grad(of_bits(jnp.sin, shared))(LOGITS, KEY)

    samples = {"num_samples": 8, "sharding": NamedSharding(one_axis(), P("data"))}
    with pytest.raises(
        NotImplementedError, match=r"sharding=...\)` must spread .*its own `jax.shard_map`.*Leave it out"
    ):
        mcgrad.grad(of_bits(jnp.sin, None), **samples)(LOGITS, KEY)


def test_samplers_that_jax_does_not_have_on_a_mesh_are_refused():
    def local(logit, key):
        return 1.0 * mcgrad.sample(of_device(key), mcgrad.Binomial(10, logits=logit))

    program = shard_map(local, (P("data"), P()), P("data"))
    try:
        mcgrad.grad(lambda logits, key: jnp.sum(program(logits, key)))(LOGITS, KEY)
    except NotImplementedError as error:
        assert "JAX cannot draw from Binomial at " in str(error) and "`check_vma=False`" in str(error)
