"""Equinox: a module is the parameter, with functions, counters and settings among its leaves."""

import jax
import jax.numpy as jnp
import optax
import pytest
from recipe import ROWS, Recipe, assert_mean, assert_same

import mcgrad

eqx = pytest.importorskip("equinox")


class Model(eqx.Module):
    encoder: eqx.nn.MLP
    decoder: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    calls: jax.Array

    def __init__(self, key):
        keys = jax.random.split(key)
        self.encoder = eqx.nn.MLP(6, 4, 16, 1, key=keys[0])
        self.decoder = eqx.nn.Linear(4, 6, key=keys[1])
        self.dropout = eqx.nn.Dropout(0.0)
        self.calls = jnp.zeros((), jnp.int32)


def recipe():
    def encode(model, x):
        return jax.vmap(model.encoder)(x)

    def decode(model, z):
        return jax.vmap(model.decoder)(model.dropout(z, key=jax.random.key(0)))

    return Recipe(encode, decode)


def test_a_discrete_model_learns():
    made, model, optimizer = recipe(), Model(jax.random.key(0)), optax.adam(0.03)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, key):
        value, gradient = mcgrad.value_and_grad(made.loss, num_samples=4)(model, ROWS, key)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    def train(key):
        nonlocal model, state
        model, state = step(model, state, key)

    made.check_trained(train, lambda: made.exact(model, ROWS))


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_gradients_are_those_by_enumeration(make_key):
    made, model, key = recipe(), Model(jax.random.key(0)), make_key(1)
    exact = eqx.filter_grad(made.exact)(model, ROWS)
    for found in (
        mcgrad.grad(made.loss, estimator=mcgrad.Enumerate())(model, ROWS, key),
        eqx.filter_grad(mcgrad.expectation(made.loss, estimator=mcgrad.Enumerate()))(model, ROWS, key),
    ):
        assert jax.tree.structure(found) == jax.tree.structure(exact)
        assert_same(found, exact)
    assert_mean(mcgrad.gradient_statistics(made.loss, 4_000, estimator=mcgrad.DisARM())(model, ROWS, key), exact)


def test_auxiliary_output_may_be_an_updated_module():
    made, model = recipe(), Model(jax.random.key(0))

    def counted(model, x, key):
        return made.loss(model, x, key), eqx.tree_at(lambda m: m.calls, model, model.calls + 1)

    for num_samples in (1, 2):
        gradient, other = mcgrad.grad(counted, has_aux=True, num_samples=num_samples)(model, ROWS, jax.random.key(0))
        assert isinstance(other, Model) and (other.calls == 1).all()
        assert other.dropout.p == 0.0 and isinstance(other.dropout.p, float)
        assert other.encoder.activation is model.encoder.activation and gradient.calls is None
    gradient, other = eqx.filter_jit(mcgrad.grad(counted, has_aux=True))(model, ROWS, jax.random.key(0))
    assert other.calls == 1 and jax.tree.structure(other) == jax.tree.structure(model)


def test_diagnostics_take_modules():
    made, model = recipe(), Model(jax.random.key(0))
    estimators = {"score": mcgrad.Score(), "exact": mcgrad.Enumerate()}
    found = mcgrad.compare(made.loss, estimators, num_samples=200)(model, ROWS, jax.random.PRNGKey(0))
    assert {report.verdict for report in found.reports.values()} == {"agrees"}
    each = mcgrad.per_sample_grad(made.loss, num_samples=3)(model, ROWS, jax.random.key(0))
    assert each.decoder.weight.shape == (3, 6, 4) and each.calls is None
    assert len(mcgrad.explain(made.loss)(model, ROWS, jax.random.key(0)).sites) == 1
