"""Flax NNX: modules that change in place, by dropout streams and batch norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipe import ROWS, Recipe, assert_mean, assert_same

import mcgrad

nnx = pytest.importorskip("flax.nnx")


class Model(nnx.Module):
    def __init__(self, rngs, rate=0.1):
        self.hidden = nnx.Linear(6, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(16, 4, rngs=rngs)
        self.decoder = nnx.Linear(4, 6, rngs=rngs)


def recipe():
    def encode(model, x):
        return model.out(model.dropout(jax.nn.relu(model.norm(model.hidden(x)))))

    return Recipe(encode, lambda model, z: model.decoder(z))


def states(model):
    return [np.asarray(x) for x in (model.norm.mean[...], model.norm.var[...], model.dropout.rngs.count[...])]


def assert_same_state(found, expected):
    for a, b in zip(states(found), states(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_discrete_model_learns():
    made, model = recipe(), Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        value, gradient = mcgrad.value_and_grad(made.loss, num_samples=4)(model, ROWS, key)
        optimizer.update(model, gradient)
        return value

    def value():
        still = nnx.clone(model)
        still.eval()
        return made.exact(still, ROWS)

    made.check_trained(lambda key: step(model, optimizer, key), value)
    assert model.dropout.rngs.count[...] == 401 and np.abs(model.norm.mean[...]).max() > 0.1


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.parametrize("spelling", ["mcgrad.grad", "nnx.grad", "nnx.value_and_grad", "jit"])
def test_gradients_and_state_are_those_by_enumeration(make_key, spelling):
    made, model, by_hand = recipe(), Model(nnx.Rngs(0)), Model(nnx.Rngs(0))
    options = {"estimator": mcgrad.Enumerate()}
    surrogate = mcgrad.expectation(made.loss, **options)
    gradient = {
        "mcgrad.grad": mcgrad.grad(made.loss, **options),
        "nnx.grad": nnx.grad(surrogate),
        "nnx.value_and_grad": lambda *args: nnx.value_and_grad(surrogate)(*args)[1],
        "jit": nnx.jit(mcgrad.grad(made.loss, **options)),
    }[spelling]
    for n in range(2):  # the same masks of dropout, and running statistics, one after the other
        exact = nnx.grad(made.exact)(by_hand, ROWS)
        found = gradient(model, ROWS, make_key(n))
        assert type(found) is type(exact)
        assert_same(found, exact)
        assert_same_state(model, by_hand)


def test_samples_have_masks_of_their_own_and_one_step_of_the_state():
    made, model, by_hand = recipe(), Model(nnx.Rngs(0), rate=0.5), Model(nnx.Rngs(0), rate=0.5)
    made.exact(by_hand, ROWS)
    exact = mcgrad.expectation(made.loss, estimator=mcgrad.Enumerate())
    one = exact(nnx.clone(model), ROWS, jax.random.key(0))
    for chunk_size in (None, 2):
        found = nnx.clone(model)
        several = mcgrad.expectation(made.loss, estimator=mcgrad.Enumerate(), num_samples=4, chunk_size=chunk_size)
        assert abs(several(found, ROWS, jax.random.key(0)) - one) > 1e-3
        assert_same_state(found, by_hand)  # the batch is the same, so its statistics are


def test_streams_may_be_the_only_randomness():
    made, model = recipe(), Model(nnx.Rngs(0))

    def with_streams(model, x, rngs):
        return made.loss(model, x, rngs.latents())

    rngs = nnx.Rngs(0, latents=1)
    key = nnx.Rngs(0, latents=1).latents()
    value = mcgrad.value_and_grad(with_streams)(nnx.clone(model), ROWS, rngs)[0]
    assert value == mcgrad.expectation(made.loss)(nnx.clone(model), ROWS, key) and rngs.latents.count[...] == 1
    values = [mcgrad.expectation(with_streams, num_samples=3)(nnx.clone(model), ROWS, rngs) for _ in range(2)]
    assert rngs.latents.count[...] == 3 and values[0] != values[1]


def test_diagnostics_leave_modules_as_they_are():
    made, model = recipe(), Model(nnx.Rngs(0), rate=0.0)
    exact = nnx.grad(made.exact)(nnx.clone(model), ROWS)
    before = nnx.clone(model)
    found = mcgrad.gradient_statistics(made.loss, 4_000, estimator=mcgrad.DisARM())(model, ROWS, jax.random.PRNGKey(0))
    assert_mean(found, exact)
    estimators = {"score": mcgrad.Score(), "exact": mcgrad.Enumerate()}
    compared = mcgrad.compare(made.loss, estimators, num_samples=100)(model, ROWS, jax.random.key(0))
    assert {report.verdict for report in compared.reports.values()} == {"agrees"}
    mcgrad.explain(made.loss)(model, ROWS, jax.random.key(0))
    assert_same_state(model, before)


def test_a_program_that_adds_variables_is_refused():
    def loss(model, key):
        model.extra = nnx.Variable(jnp.zeros(()))
        return mcgrad.sample(key, mcgrad.Normal(jnp.sum(model.hidden.bias[...]), 1.0))

    with pytest.raises(NotImplementedError, match="keep the variables of the modules"):
        mcgrad.expectation(loss)(Model(nnx.Rngs(0)), jax.random.key(0))


@pytest.mark.parametrize("bound", [mcgrad.iwae, mcgrad.vimco, mcgrad.vargrad])
def test_bounds_of_many_samples_keep_the_state(bound):
    made, model, by_hand = recipe(), Model(nnx.Rngs(0)), Model(nnx.Rngs(0))
    made.exact(by_hand, ROWS)
    objective = bound(lambda model, x, key: -made.loss(model, x, key), 3)
    surrogate = mcgrad.expectation(objective) if bound is mcgrad.iwae else objective
    value, gradient = nnx.value_and_grad(surrogate)(model, ROWS, jax.random.key(0))
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert_same_state(model, by_hand)
