"""blackjax: its own draws are warned of, with their line; by its hook for acceptances its kernels are programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

blackjax = pytest.importorskip("blackjax")


def log_density(x):
    return -0.5 * jnp.sum(x**2)


def raw_random_walk(step_size):
    return blackjax.normal_random_walk(log_density, step_size * jnp.ones(1))


def random_walk(step_size):
    """Of blackjax's parts: only the draws are sites."""

    def propose(key, x):
        return mcgrad.sample(
            key,
            mcgrad.MultivariateNormal(x, scale_diag=step_size * jnp.ones(1)),
            mcgrad.Pathwise(coupling="reflection"),
        )

    module = blackjax.mcmc.random_walk
    ratio = blackjax.mcmc.proposal.compute_asymmetric_acceptance_ratio(module.build_rmh_transition_energy(None))
    generate = module.rmh_proposal(log_density, propose, ratio, sample_proposal=mcgrad.mcmc.accept)
    return blackjax.SamplingAlgorithm(
        lambda x: module.init(x, log_density), lambda key, state: (generate(key, state)[0], None)
    )


def hmc(step_size):
    proposal = functools.partial(blackjax.mcmc.hmc.hmc_proposal, sample_proposal=mcgrad.mcmc.accept)
    return blackjax.hmc(log_density, step_size, jnp.ones(1), 2, build_proposal=proposal)


def lag_one(kernel):
    def program(step_size, key):
        made = kernel(step_size)

        def step(state, key):
            new, _ = made.step(key, state)
            return new, jnp.sum(state.position * new.position)

        return jnp.mean(jax.lax.scan(step, made.init(jnp.array([0.7])), jax.random.split(key, 2))[1])

    return program


def exact(name, s):
    """By a sum over the noise of both steps and over what is accepted."""
    noise = jnp.linspace(-6, 6, 401)
    weights = jax.nn.softmax(-(noise**2) / 2)

    def step(x, then):
        def one(z):
            if name == "random walk":
                y, log_ratio = x + s * z, 0.0
            else:
                y, p = x, z
                for _ in range(2):
                    p = p - s / 2 * y
                    y = y + s * p
                    p = p - s / 2 * y
                log_ratio = (z**2 - p**2) / 2
            rate = jnp.exp(jnp.minimum(0.0, log_ratio + (x**2 - y**2) / 2))
            return rate * (x * y + then(y)) + (1 - rate) * (x * x + then(x))

        return jax.vmap(one)(noise) @ weights

    return step(0.7, lambda x: step(x, lambda x: 0.0)) / 2


@pytest.mark.parametrize(("name", "kernel", "step_size"), [("random walk", random_walk, 0.7), ("hmc", hmc, 1.1)])
def test_gradients_of_two_steps(name, kernel, step_size):
    keys = jax.random.split(jax.random.key(0), 40_000)
    values, slopes = jax.jit(jax.vmap(mcgrad.value_and_grad(lag_one(kernel)), (None, 0)))(step_size, keys)
    target = jax.jit(jax.value_and_grad(functools.partial(exact, name)))(step_size)
    for found, wanted in zip((values, slopes), target, strict=True):
        error = np.std(found) / len(keys) ** 0.5
        assert abs(np.mean(found) - wanted) < 4.5 * error < 0.25 * abs(wanted)


def test_raw_draws_are_warned_of_with_their_line():
    with pytest.warns(mcgrad.JumpWarning, match=r"bernoulli` at .*proposal.py:\d+.*cannot see that it is a draw"):
        mcgrad.grad(lag_one(raw_random_walk))(1.5, jax.random.key(0))
