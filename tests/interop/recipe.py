"""A small model with discrete latents that every library writes in its own way: four bits a row, from which the row is told.

Its expectation is a sum over 16 states, so the loss and its gradient are known.
"""

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad

ROWS = jnp.asarray(np.random.default_rng(0).integers(2, size=(8, 6)), jnp.float32)
STATES = jnp.asarray([[n >> bit & 1 for bit in range(4)] for n in range(16)], jnp.float32)
STEPS = 400
LEVEL = 0.9
"""What the loss falls below, from 2 or more; it is 1.5 where every entry of a row is told as 1/2."""


class Recipe:
    """`loss(model, x, key)` and its expectation `exact(model, x)`, of an encoder `(model, x)` to logits and a decoder `(model, z)`.

    Attributes:
        traced: how often the loss has been traced.
    """

    def __init__(self, encode, decode):
        self.encode, self.decode, self.traced = encode, decode, 0

    def loss(self, model, x, key):
        self.traced += 1
        z = mcgrad.sample(key, mcgrad.Bernoulli(logits=self.encode(model, x))).astype(x.dtype)
        return jnp.mean(jnp.sum((self.decode(model, z) - x) ** 2, axis=-1))

    def exact(self, model, x):
        logits = self.encode(model, x)[:, None]
        chances = jnp.exp(jnp.sum(STATES[None] * logits - jax.nn.softplus(logits), axis=-1))  # [row, state]
        costs = jnp.sum((self.decode(model, STATES)[None] - x[:, None]) ** 2, axis=-1)
        return jnp.mean(jnp.sum(chances * costs, axis=1))

    def check_trained(self, train, value):
        """`train(key)` makes a step, `value()` is the exact loss; it falls to the level, and the step is compiled once."""
        before = value()
        train(jax.random.key(1))
        traced = self.traced
        for key in jax.random.split(jax.random.key(2), STEPS):
            train(key)
        assert self.traced == traced, "compiled again"
        assert before > 1.8 and value() < LEVEL, (before, value())


def assert_same(found, exact):
    """Gradients that differ by rounding at most."""
    leaves = jax.tree.leaves(found)
    assert len(leaves) == len(jax.tree.leaves(exact)) > 0
    for a, b in zip(leaves, jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def assert_mean(statistics, exact):
    """The mean of `mcgrad.gradient_statistics` is the exact gradient, and 5 standard errors are small beside it."""
    rows = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (statistics.mean, exact)]
    error = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(statistics.standard_error)])
    assert 5 * error.max() < 0.1 * np.linalg.norm(rows[1])
    assert (np.abs(rows[0] - rows[1]) < 5 * error + 1e-5).all()
