"""Markov chain Monte Carlo kernels: what they leave as it is, gradients against quadrature, and tuning."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from helpers import assert_unbiased
from pages import Page

import mcgrad
from mcgrad import mcmc


def log_density(x):
    """Of no normal distribution, and skewed."""
    return -jnp.sum(2.0 * jnp.sqrt(1 + x**2) - 0.6 * x)


KERNELS = {
    "random walk": (mcmc.random_walk(log_density), 1.3),
    "mala": (mcmc.mala(log_density), 0.9),
    "hmc": (mcmc.hmc(log_density, 3), 0.5),
}


def of_grid(grid):
    density = np.exp(np.asarray(jax.vmap(log_density)(jnp.asarray(grid))))
    return density / density.sum()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_kernel_keeps_its_target(name, dtype):
    kernel, step_size = KERNELS[name]
    grid = np.linspace(-12, 20, 40_001)
    law = of_grid(grid)
    start = np.random.default_rng(0).choice(grid, size=50_000, p=law).astype(dtype)

    def chain(x, key):
        step = lambda state, key: (kernel.step(state, key, step_size)[0], None)  # noqa: E731
        return jax.lax.scan(step, kernel.init(x), jax.random.split(key, 3))[0].position

    with jax.debug_key_reuse(False):
        end = np.asarray(jax.jit(jax.vmap(chain))(start, jax.random.split(jax.random.key(1), len(start))))
    assert end.dtype == dtype
    assert np.mean(end != start) > 0.5
    cdf = np.cumsum(law)
    assert scipy.stats.kstest(end, lambda x: np.interp(x, grid, cdf)).pvalue > 1e-3


def test_unadjusted_langevin_keeps_the_law_that_its_step_gives():
    """For a standard normal target it is autoregressive, with a variance that is known."""
    step_size = 0.8
    shrink = 1 - step_size**2 / 2
    scale = step_size / np.sqrt(1 - shrink**2)
    kernel = mcmc.langevin(lambda x: -0.5 * x**2)

    def one(key):
        key_x, key = jax.random.split(key)
        return kernel.step(kernel.init(scale * jax.random.normal(key_x)), key, step_size)[0].position

    end = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 50_000))
    assert scipy.stats.kstest(np.asarray(end), scipy.stats.norm(scale=scale).cdf).pvalue > 1e-3


def proposed(name, x, z, s):
    """The proposal from the noise, and the log of the ratio that decides of it, written down once more."""
    slope = jax.grad(log_density)
    if name == "random walk":
        y = x + s * z
        return y, log_density(y) - log_density(x)
    if name == "mala":
        y = x + s**2 / 2 * slope(x) + s * z
        back = (x - y - s**2 / 2 * slope(y)) / s
        return y, log_density(y) - log_density(x) - back**2 / 2 + z**2 / 2
    y, p = x, z
    for _ in range(3):
        p = p + s / 2 * slope(y)
        y = y + s * p
        p = p + s / 2 * slope(y)
    return y, log_density(y) - log_density(x) - p**2 / 2 + z**2 / 2


START = 0.7


def exact_two_steps(name, s):
    """The mean of `squared_jump + lag_one` over two steps, by a sum over the noise of both and over what is accepted."""
    noise = jnp.linspace(-7, 7, 1401)
    weights = jnp.exp(-(noise**2) / 2) / jnp.sum(jnp.exp(-(noise**2) / 2))

    def step(x, then):
        def one(z):
            y, log_ratio = proposed(name, x, z, s)
            rate = jnp.exp(jnp.minimum(0.0, log_ratio))
            return rate * (y - x) ** 2 + rate * (x * y + then(y)) + (1 - rate) * (x * x + then(x))

        return jax.lax.map(one, noise, batch_size=100) @ weights

    return step(START, lambda x: step(x, lambda x: 0.0)) / 2


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_of_two_steps(name):
    kernel, step_size = KERNELS[name]

    def objective(state, new, info):
        return mcmc.squared_jump(state, new, info) + mcmc.lag_one(state, new, info)

    program = mcmc.chain_mean(kernel, objective, num_steps=2)
    keys = jax.random.split(jax.random.key(2), 60_000)
    value_and_grad = mcgrad.value_and_grad(program)
    with jax.debug_key_reuse(False):
        draws = jax.jit(
            lambda keys: jax.lax.map(lambda key: value_and_grad(step_size, START, key), keys, batch_size=1000)
        )(keys)
    exact = jax.jit(jax.value_and_grad(functools.partial(exact_two_steps, name)))(step_size)
    assert_unbiased(draws, exact)


def test_positions_of_several_arrays():
    def log_density(position):
        return -0.5 * jnp.sum(position["a"] ** 2) - 2.0 * position["b"] ** 2

    position = {"a": jnp.ones(3), "b": jnp.array(0.5)}
    for kernel in (mcmc.random_walk(log_density), mcmc.mala(log_density), mcmc.hmc(log_density, 2)):
        for step_size in (0.5, {"a": 0.7, "b": 0.3}, {"a": jnp.array([0.5, 0.6, 0.7]), "b": 0.3}):
            state, info = kernel.step(kernel.init(position), jax.random.key(0), step_size)
            assert jax.tree.map(jnp.shape, state.position) == {"a": (3,), "b": ()}
            assert 0 < info.acceptance_rate <= 1
    program = mcmc.chain_mean(kernel, mcmc.squared_jump, num_steps=3)
    gradient = mcgrad.grad(program)({"a": 0.7, "b": 0.3}, position, jax.random.key(0))
    assert all(np.isfinite(leaf) and leaf != 0 for leaf in jax.tree.leaves(gradient))


def test_a_proposal_without_density_is_not_accepted():
    for bound in (-jnp.inf, jnp.nan):
        kernel = mcmc.random_walk(lambda x, bound=bound: jnp.where(x > 0, -x, bound))
        program = mcmc.chain_mean(
            kernel, lambda state, new, info: jnp.minimum(state.position, new.position), num_steps=50
        )
        assert program(3.0, 0.5, jax.random.key(0)) > 0
        with pytest.warns(mcgrad.JumpWarning, match="kernel of `mcgrad.mcmc`"):
            mcgrad.grad(program)(3.0, 0.5, jax.random.key(0))


def test_posterior_means_in_the_scales_of_the_priors():
    """Of 25 observations from a normal distribution, with a normal prior on its mean and a half-normal one on its scale."""
    observed = 1.0 + 1.5 * scipy.stats.norm.ppf((np.arange(25) + 0.5) / 25)

    def log_posterior(x, scales):  # of the mean and the logarithm of the scale
        mean, sigma = x[0], jnp.exp(x[1])
        likelihood = -jnp.sum((observed - mean) ** 2) / (2 * sigma**2) - 25 * x[1]
        return likelihood - (mean / scales[0]) ** 2 / 2 - (sigma / scales[1]) ** 2 / 2 + x[1]

    def wanted(x):
        return x[0] + x[1]

    def exact(scales):
        grid = jnp.stack(jnp.meshgrid(jnp.linspace(-1.5, 3.0, 300), jnp.linspace(-0.8, 1.6, 300)), -1).reshape(-1, 2)
        return jax.nn.softmax(jax.vmap(lambda x: log_posterior(x, scales))(grid)) @ jax.vmap(wanted)(grid)

    def program(scales, key):
        kernel = mcmc.random_walk(lambda x: log_posterior(x, scales))

        def step(state, key):
            state, _ = kernel.step(state, key, jnp.array([0.6, 0.3]))
            return state, wanted(state.position)

        steps = jax.lax.scan(step, kernel.init(jnp.array([1.0, 0.4])), jax.random.split(key, 1000))[1]
        return jnp.mean(steps[200:])

    scales = jnp.array([0.5, 0.8])
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(scales, jax.random.split(jax.random.key(0), 1000))
    assert_unbiased(draws, jax.grad(exact)(scales))


@pytest.mark.slow
def test_adam_finds_the_step_size():
    """The tuning problem of Arya et al. 2023: the least autocorrelation of a standard normal target is at 2.4264."""
    kernel = mcmc.random_walk(lambda x: -0.5 * x**2)
    gradient = mcgrad.grad(mcmc.chain_mean(kernel, mcmc.lag_one, num_steps=10_000))
    adam = optax.adam(optax.exponential_decay(0.1, 100, 0.3))

    def tuned(keys):
        def step(state, key):
            s, moments = state
            updates, moments = adam.update(gradient(s, jnp.zeros(()), key), moments)
            return (optax.apply_updates(s, updates), moments), s

        start = jnp.asarray(1.5)
        return jax.lax.scan(step, (start, adam.init(start)), keys)[1]

    with jax.debug_key_reuse(False):
        fresh = jax.jit(tuned)(jax.random.split(jax.random.key(0), 400))
    assert jnp.mean(fresh[-100:]) == pytest.approx(2.4264, abs=0.05)


@pytest.mark.slow
def test_the_page_runs_and_finds_what_it_says(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    found = Page("tuning_mcmc").run()
    pyplot.close("all")
    assert found["fresh"][-1] == pytest.approx(2.4264, abs=0.15)
    assert found["same"][-1] == pytest.approx(2.4264, abs=0.3)
    np.testing.assert_allclose(jnp.exp(found["log_size"]) / found["scales"], [1.5, 1.5], atol=0.4)


def exact_elbo(params, num_steps, num_leapfrog):
    """Of a normal target and start all is linear: means and covariances of `(x, v)`, and of what is squared, are known."""
    size, loc, scale = params

    def ends(noise):  # the first position and all momenta, standard normal, to what the bound is made of
        x, kinetic = loc + scale * noise[0], []
        for v in noise[1:]:
            p = v
            for _ in range(num_leapfrog):
                p = p - size / 2 * (x - 1.0) / 0.7**2
                x = x + size * p
                p = p - size / 2 * (x - 1.0) / 0.7**2
            kinetic.append(p)
        return jnp.stack([(x - 1.0) / 0.7, *kinetic])

    noise = jnp.zeros(num_steps + 1)
    mean, matrix = ends(noise), jax.jacfwd(ends)(noise)
    squares = jnp.sum(mean**2) + jnp.sum(matrix**2)
    return -squares / 2 + (num_steps + 1) / 2 + jnp.log(scale) + jnp.log(2 * jnp.pi) / 2


@pytest.mark.parametrize("num_leapfrog", [1, 3])
def test_the_bound_of_a_short_chain(num_leapfrog):
    program = mcmc.chain_elbo(lambda x: -0.5 * (x - 1.0) ** 2 / 0.7**2, num_steps=2, num_leapfrog=num_leapfrog)
    params = (jnp.array(0.4), jnp.array(-0.5), jnp.array(1.2))

    def of_params(params, key):
        return program(params[0], mcgrad.Normal(*params[1:]), key)

    keys = jax.random.split(jax.random.key(3), 60_000)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(mcgrad.value_and_grad(of_params), (None, 0)))(params, keys)
    exact = jax.value_and_grad(exact_elbo)(params, 2, num_leapfrog)
    assert_unbiased(draws, exact)
    assert exact[0] < np.log(0.7 * np.sqrt(2 * np.pi))  # that of the target's integral


def test_the_best_reversal_of_a_chain():
    """With the distribution of the last momentum given the position the bound is that of the last position alone."""
    size, scale = 0.5, 1.3
    matrix = np.array([[1 - size**2 / 2, size], [-size + size**3 / 4, 1 - size**2 / 2]])  # of (x, v) to (x', v')
    cov = matrix @ np.diag([scale**2, 1.0]) @ matrix.T

    def reverse(x):
        return mcgrad.Normal(cov[1, 0] / cov[0, 0] * x, np.sqrt(cov[1, 1] - cov[1, 0] ** 2 / cov[0, 0]))

    program = mcmc.chain_elbo(lambda x: -0.5 * x**2, num_steps=1, reverse=reverse)
    for seed in range(3):
        key = jax.random.key(seed)
        with jax.debug_key_reuse(False):
            value, slope = jax.value_and_grad(program)(size, mcgrad.Normal(0.0, scale), key)
            key_start, key_steps = jax.random.split(key)
            x = scale * jax.random.normal(key_start)
            v = jax.random.normal(jax.random.split(key_steps, 1)[0], (1,))[0]
        last = matrix[0] @ np.array([x, v])
        alone = -0.5 * last**2 - scipy.stats.norm(scale=np.sqrt(cov[0, 0])).logpdf(last)
        np.testing.assert_allclose(value, alone, rtol=1e-10)
        assert np.isfinite(slope)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"`mcgrad.mcmc.hmc\(num_leapfrog=...\)` must be a positive int"):
        mcmc.hmc(log_density, 0)
    with pytest.raises(ValueError, match=r"`mcgrad.mcmc.chain_mean\(num_steps=...\)` must be a positive int"):
        mcmc.chain_mean(KERNELS["mala"][0], mcmc.lag_one, num_steps=0)
    for name in ("num_steps", "num_leapfrog"):
        with pytest.raises(ValueError, match=rf"`mcgrad.mcmc.chain_elbo\({name}=...\)` must be a positive int"):
            mcmc.chain_elbo(log_density, **({"num_steps": 2} | {name: 0}))
    wrong = mcmc.chain_elbo(log_density, num_steps=2, reverse=lambda x: mcgrad.Normal(jnp.zeros((3, 1)), 1.0))
    with pytest.raises(
        ValueError, match=r"`mcgrad.mcmc.chain_elbo\(reverse=...\)` must return a distribution of shape \(1,\)"
    ):
        wrong(0.1, mcgrad.Normal(0.0, 1.0), jax.random.key(0))
