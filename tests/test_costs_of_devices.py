"""Costs that devices, or entries of a named `vmap`, share through a collective are credited with the draws of all, or refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from jax.sharding import PartitionSpec as P
from on_devices import CPUS, MARKS, close, mesh

import mcgrad

pytestmark = MARKS

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


@pytest.mark.parametrize("name", ["psum", "pmax"])
def test_a_collective_along_a_vmap_with_a_name_reads_an_axis_of_the_draw(name):
    along, over = {"psum": (jax.lax.psum, jnp.sum), "pmax": (jax.lax.pmax, jnp.max)}[name]

    def drawn(logits, key):
        return jnp.arange(1.0, 5.0) * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score())

    def named(logits, key):
        one = lambda logits, key: along(drawn(logits, key), "batch")  # noqa: E731
        return jnp.sum(jnp.sin(jax.vmap(one, axis_name="batch", out_axes=None)(logits, jax.random.split(key, 4))))

    def plain(logits, key):
        return jnp.sum(jnp.sin(over(jax.vmap(drawn)(logits, jax.random.split(key, 4)), axis=0)))

    close(
        *(mcgrad.grad(fn)(LOGITS.reshape(2, 4)[jnp.asarray([0, 1, 1, 0])], jax.random.key(0)) for fn in (named, plain))
    )
