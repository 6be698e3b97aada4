"""The scale of a normal draw by the curvature of the cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from programs.program import expect_normal

import mcgrad

PARAMS = {"loc": jnp.asarray([0.3, -0.5, 0.8]), "log_scale": jnp.asarray([-0.4, 0.1, -0.2])}


def draw(params, key, estimator):
    return mcgrad.sample(key, mcgrad.Normal(params["loc"], jnp.exp(params["log_scale"])), estimator)


def gradients(program, num_draws, estimator=mcgrad.BonnetPrice()):  # noqa: B008
    keys = jax.random.split(jax.random.key(0), num_draws)
    return jax.jit(jax.vmap(mcgrad.grad(program), (None, 0, None)))(PARAMS, keys, estimator)


@pytest.mark.parametrize("later", [mcgrad.Score(), mcgrad.Enumerate()], ids=["score", "enumerate"])
def test_entries_apart_with_a_later_draw(later):
    def program(params, key, estimator):
        keys = jax.random.split(key)
        x = draw(params, keys[0], estimator)
        b = mcgrad.sample(keys[1], mcgrad.Bernoulli(logits=x), later)
        return jnp.sum(jnp.where(b == 1, jnp.sin(x), x**2))

    def exact(params):
        cost = lambda x: jax.nn.sigmoid(x) * jnp.sin(x) + jax.nn.sigmoid(-x) * x**2  # noqa: E731
        each = zip(params["loc"], jnp.exp(params["log_scale"]), strict=True)
        return sum(expect_normal(loc, scale, cost) for loc, scale in each)

    jax.tree.map(assert_unbiased, gradients(program, 40_000), jax.grad(exact)(PARAMS))


def test_entries_that_a_cost_mixes_and_a_program_under_vmap():
    def program(params, key, estimator):
        of_one = lambda loc, log_scale, key: draw({"loc": loc, "log_scale": log_scale}, key, estimator)  # noqa: E731
        x = jax.vmap(of_one)(params["loc"], params["log_scale"], jax.random.split(key, 3))
        return jnp.prod(jnp.cos(x)) + jnp.sum(x) ** 2

    def exact(params):
        loc, scale = params["loc"], jnp.exp(params["log_scale"])
        return jnp.prod(jnp.exp(-(scale**2) / 2) * jnp.cos(loc)) + jnp.sum(loc) ** 2 + jnp.sum(scale**2)

    draws = gradients(program, 20_000)
    jax.tree.map(assert_unbiased, draws, jax.grad(exact)(PARAMS))
    path = gradients(program, 20_000, mcgrad.Pathwise())
    assert np.sum(np.var(draws["log_scale"], 0)) < 0.5 * np.sum(np.var(path["log_scale"], 0))


def test_refusals():
    def program(scale, key):
        return mcgrad.sample(key, mcgrad.Laplace(0.0, scale), mcgrad.BonnetPrice()) ** 2

    with pytest.raises(ValueError, match="BonnetPrice.*test_bonnet_price.*must be `mcgrad.Normal`.*Pathwise"):
        mcgrad.grad(program)(1.0, jax.random.key(0))

    def quadratic(scale, key):
        return mcgrad.sample(key, mcgrad.Normal(0.0, scale), mcgrad.BonnetPrice()) ** 2

    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.grad(mcgrad.grad(quadratic))(1.0, jax.random.key(0))
    assert mcgrad.grad(quadratic)(jnp.float32(1.5), jax.random.key(0)).dtype == jnp.float32


def test_another_law_of_that_name_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Normal(mcgrad.Distribution):
        loc: float
        domains = {"loc": mcgrad.Normal.domains["loc"]}

        def sample(self, key):
            return self.loc + jax.random.laplace(key)

        def log_prob(self, x):
            return -jnp.abs(x - self.loc)

    def loss(loc, key):
        return mcgrad.sample(key, Normal(loc), mcgrad.BonnetPrice()) ** 2

    with pytest.raises(ValueError, match="the distribution must be `mcgrad.Normal`"):
        mcgrad.grad(loss)(1.0, jax.random.key(0))
