"""Flax Linen: trees of parameters, batch statistics beside them, and a dictionary of random streams."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipe import ROWS, Recipe, assert_mean, assert_same

import mcgrad

nn = pytest.importorskip("flax.linen")


class Model(nn.Module):
    rate: float = 0.1

    def setup(self):
        self.hidden, self.out, self.decoder = nn.Dense(16), nn.Dense(4), nn.Dense(6)
        self.dropout, self.norm = nn.Dropout(self.rate), nn.BatchNorm(momentum=0.9)

    def encode(self, x, train):
        hidden = self.norm(self.hidden(x), use_running_average=not train)
        return self.out(self.dropout(nn.relu(hidden), deterministic=not train))

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x):
        return self.decode(self.encode(x, train=False))


def recipe(model, train=False, key=None):
    """Of the variables of the model; the batch statistics of a call in training are dropped."""

    def encode(variables, x):
        rngs = {"dropout": key} if train else {}
        logits, _ = model.apply(variables, x, train, method="encode", rngs=rngs, mutable=["batch_stats"])
        return logits

    return Recipe(encode, lambda variables, z: model.apply(variables, z, method="decode"))


def test_a_discrete_model_learns():
    model, optimizer = Model(), optax.adam(0.03)
    variables = model.init(jax.random.key(0), ROWS)
    params, stats = variables["params"], variables["batch_stats"]
    state, made = optimizer.init(params), recipe(model)

    def loss(params, stats, x, rngs):
        made.traced += 1
        variables = {"params": params, "batch_stats": stats}
        streams = {"dropout": rngs["dropout"]}
        logits, changed = model.apply(variables, x, True, method="encode", rngs=streams, mutable=["batch_stats"])
        z = mcgrad.sample(rngs["latents"], mcgrad.Bernoulli(logits=logits)).astype(x.dtype)
        return jnp.mean(jnp.sum((made.decode(variables, z) - x) ** 2, axis=-1)), changed["batch_stats"]

    @jax.jit
    def step(params, stats, state, key):
        latents, dropout = jax.random.split(key)
        gradient = mcgrad.grad(loss, has_aux=True, num_samples=4)
        found, stats = gradient(params, stats, ROWS, {"latents": latents, "dropout": dropout})
        updates, state = optimizer.update(found, state)
        return optax.apply_updates(params, updates), jax.tree.map(lambda s: jnp.mean(s, axis=0), stats), state

    def train(key):
        nonlocal params, stats, state
        params, stats, state = step(params, stats, state, key)

    made.check_trained(train, lambda: made.exact({"params": params, "batch_stats": stats}, ROWS))


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_gradients_are_those_by_enumeration(make_key):
    model = Model()
    variables = model.init(make_key(0), ROWS)
    made = recipe(model, train=True, key=make_key(3))
    exact = jax.grad(made.exact)(variables, ROWS)
    assert_same(mcgrad.grad(made.loss, estimator=mcgrad.Enumerate())(variables, ROWS, make_key(1)), exact)
    statistics = mcgrad.gradient_statistics(made.loss, 4_000, estimator=mcgrad.DisARM())(variables, ROWS, make_key(1))
    assert_mean(statistics, exact)


def test_leaves_without_a_derivative_are_passed_over():
    model = Model()
    variables = model.init(jax.random.key(0), ROWS)
    tree = {**variables, "steps": jnp.arange(3), "mask": np.ones(2, bool), "key": jax.random.key(1)}
    made = recipe(model)
    of_tree = lambda tree, x, key: made.loss({n: tree[n] for n in variables}, x, key)  # noqa: E731
    found = mcgrad.grad(of_tree, estimator=mcgrad.Enumerate())(tree, ROWS, jax.random.key(1))
    assert found["steps"] is found["mask"] is found["key"] is None
    assert_same({n: found[n] for n in variables}, jax.grad(made.exact)(variables, ROWS))


class Stochastic(nn.Module):
    """A block with a draw of its own, of whose three runs `nn.scan` makes one loop, recomputed in the backward pass."""

    @nn.compact
    def __call__(self, h, _):
        bit = mcgrad.sample(self.make_rng("bits"), mcgrad.Bernoulli(logits=nn.Dense(1)(h)[0]))
        return nn.tanh(nn.Dense(4)(h) + bit), None


def test_blocks_in_a_scan_that_are_recomputed():
    scanned = nn.scan(
        nn.remat(Stochastic), variable_axes={"params": 0}, split_rngs={"params": True, "bits": True}, length=3
    )
    model, h = scanned(), jnp.linspace(-1.0, 1.0, 4)
    params = model.init({"params": jax.random.key(0), "bits": jax.random.key(1)}, h, None)

    def loss(params, key):
        return jnp.sum(model.apply(params, h, None, rngs={"bits": key})[0] ** 2)

    def exact(params):
        """By hand, over the eight ways."""
        rows = params["params"]

        def after(h, step, chance):
            if step == 3:
                return chance * jnp.sum(h**2)
            one, two = (jax.tree.map(lambda leaf: leaf[step], rows[name]) for name in ("Dense_0", "Dense_1"))
            if one["kernel"].shape[-1] != 1:
                one, two = two, one
            p = jax.nn.sigmoid((h @ one["kernel"] + one["bias"])[0])
            out = h @ two["kernel"] + two["bias"]
            return after(jnp.tanh(out + 1), step + 1, chance * p) + after(jnp.tanh(out), step + 1, chance * (1 - p))

        return after(h, 0, 1.0)

    gradient = jax.jit(mcgrad.grad(loss, estimator=mcgrad.Enumerate()))
    assert_same(gradient(params, jax.random.key(2)), jax.grad(exact)(params))
    assert_mean(
        mcgrad.gradient_statistics(loss, 20_000, estimator=mcgrad.Score())(params, jax.random.key(3)),
        jax.grad(exact)(params),
    )
