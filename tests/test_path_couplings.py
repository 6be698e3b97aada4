"""Couplings of the continuous draws of two paths: their laws, Metropolis chains against quadrature, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased

import mcgrad
from mcgrad.estimators.path_couplings import maximal, reflection

# Laws: each path has its own distribution, and both meet as often as the overlap of the two allows.

TRIL = jnp.array([[1.2, 0.0], [0.5, 0.8]])


def coupled_draws(couple, dist, real, num_draws=100_000):
    keys_x, keys = jax.random.split(jax.random.key(0), (2, num_draws))
    x = jax.jit(jax.vmap(real.sample))(keys_x)
    # Apart from the draws of `x`, which a compiler may otherwise compute twice and round in two ways.
    return x, jax.jit(jax.vmap(lambda key, x: couple(key, dist, real, x)))(keys, x)


def assert_meets(x, y, exact):
    met = np.mean(np.all((x == y).reshape(len(x), -1), axis=1))
    error = np.sqrt(exact * (1 - exact) / len(x))
    assert abs(met - exact) < 4 * error
    assert error < 0.02 * exact


def assert_law(draws, law):
    assert scipy.stats.kstest(np.asarray(draws, np.float64), law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("couple", [reflection, maximal])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_two_normal_draws_meet_as_often_as_they_can(couple, dtype):
    real, dist = (mcgrad.Normal(jnp.asarray(loc, dtype), jnp.asarray(1.5, dtype)) for loc in (0.3, 2.1))
    x, y = coupled_draws(couple, dist, real)
    assert y.dtype == dtype
    assert_law(y, scipy.stats.norm(2.1, 1.5))
    assert_meets(x, y, 2 * scipy.stats.norm.cdf(-(2.1 - 0.3) / 1.5 / 2))


@pytest.mark.parametrize("couple", [reflection, maximal])
@pytest.mark.parametrize(
    "scale", [{"scale_tril": TRIL}, {"scale_diag": jnp.array([1.2, 0.8])}], ids=lambda s: next(iter(s))
)
def test_two_multivariate_draws_meet_as_often_as_they_can(couple, scale):
    real, dist = (mcgrad.MultivariateNormal(jnp.array(loc), **scale) for loc in ([0.0, 0.0], [1.0, -0.7]))
    factor = np.asarray(scale.get("scale_tril", jnp.diag(scale.get("scale_diag", jnp.ones(2)))))
    x, y = coupled_draws(couple, dist, real)
    noise = np.linalg.solve(factor, (np.asarray(y) - np.asarray(dist.loc)).T)
    for direction in ([1, 0], [0, 1], [0.6, 0.8]):
        assert_law(np.asarray(direction) @ noise, scipy.stats.norm())
    distance = np.linalg.norm(np.linalg.solve(factor, np.asarray(dist.loc - real.loc)))
    assert_meets(x, y, 2 * scipy.stats.norm.cdf(-distance / 2))


def test_entries_of_one_draw_meet_together():
    real, dist = (mcgrad.Normal(jnp.array(loc), 0.8) for loc in ([0.0, 0.5, 1.0], [0.4, 0.2, 1.9]))
    x, y = coupled_draws(reflection, dist, real)
    for k in range(3):
        assert_law(y[:, k], scipy.stats.norm(dist.loc[k], 0.8))
    assert_meets(x, y, 2 * scipy.stats.norm.cdf(-np.linalg.norm((dist.loc - real.loc) / 0.8) / 2))
    assert np.all(np.any(x == y, axis=1) == np.all(x == y, axis=1))


def test_draws_of_two_scales_share_their_noise_by_reflection_and_meet_by_rejection():
    real, dist = mcgrad.Normal(0.0, 1.0), mcgrad.Normal(0.5, 1.6)
    x, y = coupled_draws(reflection, dist, real)
    np.testing.assert_allclose(y, 0.5 + 1.6 * x, rtol=1e-12)
    x, y = coupled_draws(maximal, dist, real)
    assert_law(y, scipy.stats.norm(0.5, 1.6))
    grid = np.linspace(-12, 12, 200_001)
    overlap = np.minimum(scipy.stats.norm.pdf(grid), scipy.stats.norm.pdf(grid, 0.5, 1.6))
    assert_meets(x, y, np.trapezoid(overlap, grid))


@pytest.mark.slow
def test_gamma_draws_meet_by_rejection():
    real, dist = mcgrad.Gamma(2.0, 1.0), mcgrad.Gamma(3.5, 1.4)
    x, y = coupled_draws(maximal, dist, real)
    laws = [scipy.stats.gamma(2.0), scipy.stats.gamma(3.5, scale=1 / 1.4)]
    assert_law(y, laws[1])
    grid = np.linspace(0, 60, 400_001)
    assert_meets(x, y, np.trapezoid(np.minimum(*(law.pdf(grid) for law in laws)), grid))


@pytest.mark.parametrize("couple", [reflection, maximal])
def test_paths_that_agree_stay_together(couple):
    dist = mcgrad.Normal(0.3, 1.7)
    x, y = coupled_draws(couple, dist, dist)
    np.testing.assert_array_equal(x, y)


# Metropolis chains: the gradient in the step size and in the target, against quadrature.


def metropolis(params, key, num_steps, coupling="reflection", sides="both", start=0.6):
    """The products of neighbors in a random walk of scale `s` with a normal target at `t`."""
    s, t = params

    def step(x, key):
        key_y, key_b = jax.random.split(key)
        y = mcgrad.sample(key_y, mcgrad.Normal(x, s), mcgrad.Pathwise(coupling=coupling))
        accept = jnp.exp(jnp.minimum(0.0, ((x - t) ** 2 - (y - t) ** 2) / 2))
        b = mcgrad.sample(key_b, mcgrad.Bernoulli(probs=accept), mcgrad.SmoothedPerturbation(sides))
        new = jnp.where(b == 1, y, x)
        return new, x * new

    return jnp.mean(jax.lax.scan(step, jnp.asarray(start, s.dtype), jax.random.split(key, num_steps))[1])


@functools.cache
def exact_gradient(params, num_steps, start=0.6):
    """Value and gradient of `metropolis` by the law of the state on a grid that has the kinks of the acceptance at its nodes."""
    grid = jnp.linspace(-9, 9, 1801)
    at = int(round((start + 9) * 100))

    def value(params):
        s, t = params
        rate = jnp.exp(jnp.minimum(0.0, ((grid[:, None] - t) ** 2 - (grid[None] - t) ** 2) / 2))
        moves = jnp.exp(-0.5 * ((grid[:, None] - grid[None]) / s) ** 2) / (s * jnp.sqrt(2 * jnp.pi)) * 0.01 * rate
        kernel = moves + jnp.diag(1 - jnp.sum(moves, axis=1))

        def step(law, _):
            return law @ kernel, (law * grid) @ kernel @ grid

        return jnp.mean(jax.lax.scan(step, jnp.zeros(len(grid)).at[at].set(1.0), length=num_steps)[1])

    of_each = [jax.jit(lambda p, d: jax.jvp(value, (p,), (d,)))(jnp.array(params), d) for d in jnp.eye(2)]
    return float(of_each[0][0]), np.array([derivative for _, derivative in of_each])


def draws_of(program, params, num_draws, seed=3):
    keys = jax.random.split(jax.random.key(seed), num_draws)
    gradient = mcgrad.grad(program)
    with jax.debug_key_reuse(False):
        return jax.jit(lambda keys: jax.lax.map(lambda key: gradient(params, key), keys, batch_size=1000))(keys)


@pytest.mark.parametrize("coupling", ["shared", "reflection", "maximal"])
@pytest.mark.parametrize("sides", ["both", "left"])
def test_three_steps_of_metropolis(coupling, sides):
    params = (1.3, 0.4)
    program = functools.partial(metropolis, num_steps=3, coupling=coupling, sides=sides)
    num_draws = 20_000 if sides == "both" else 100_000
    assert_unbiased(draws_of(program, jnp.array(params), num_draws), exact_gradient(params, 3)[1])


def test_three_steps_in_single_precision():
    params = (1.3, 0.4)
    draws = draws_of(functools.partial(metropolis, num_steps=3), jnp.array(params, jnp.float32), 20_000)
    assert draws.dtype == jnp.float32
    assert_unbiased(np.asarray(draws, np.float64), exact_gradient(params, 3)[1])


def test_chains_side_by_side():
    """Under a `vmap` of the program one chain of several has an alternative."""

    def program(params, key):
        chains = jax.vmap(lambda key: metropolis(params, key, num_steps=5))
        return jnp.mean(chains(jax.random.split(key, 4)))

    params = (1.3, 0.4)
    assert_unbiased(draws_of(program, jnp.array(params), 20_000), exact_gradient(params, 5)[1])


def test_the_tuning_problem_has_little_variance():
    """Arya et al. 2023, section 3: at 1,000 steps, of the published deviation and below; with shared noise far above."""
    params, steps = (2.38, 0.0), 1000
    exact = exact_gradient(params, steps, start=0.0)[1]
    program = functools.partial(metropolis, num_steps=steps, start=0.0)
    draws = np.asarray(draws_of(program, jnp.array(params), 1000)[:, 0])
    assert abs(np.mean(draws) - exact[0]) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert np.std(draws) < 0.05 * np.sqrt(10_000 / steps)
    shared = np.asarray(draws_of(functools.partial(program, coupling="shared"), jnp.array(params), 200)[:, 0])
    assert np.std(shared) > 10 * np.std(draws)
    # What the start costs falls with the length: without it these are the figures of the stationary chain, in polar coordinates.
    (value, exact), (half_value, half) = (exact_gradient(params, n, start=0.0) for n in (steps, steps // 2))
    assert 2 * value - half_value == pytest.approx(0.627984, abs=5e-6)
    assert 2 * exact[0] - half[0] == pytest.approx(-0.003749, abs=5e-6)


def random_walk(s, key, num_steps, dim=10):
    def step(x, key):
        key_y, key_b = jax.random.split(key)
        dist = mcgrad.MultivariateNormal(x, scale_diag=jnp.full(dim, s))
        y = mcgrad.sample(key_y, dist, mcgrad.Pathwise(coupling="reflection"))
        accept = jnp.exp(jnp.minimum(0.0, (jnp.sum(x**2) - jnp.sum(y**2)) / 2))
        new = jnp.where(mcgrad.sample(key_b, mcgrad.Bernoulli(probs=accept), mcgrad.SmoothedPerturbation()) == 1, y, x)
        return new, jnp.sum((new - x) ** 2)

    return jnp.mean(jax.lax.scan(step, jnp.zeros(dim), jax.random.split(key, num_steps))[1])


def test_deviation_falls_with_the_root_of_the_length_in_ten_dimensions():
    def deviation(num_steps):
        return np.std(draws_of(functools.partial(random_walk, num_steps=num_steps), 0.75, 200)) * np.sqrt(num_steps)

    short, long = deviation(250), deviation(4000)
    assert 0.6 < long / short < 1.5  # a chain that never meets again grows by a factor of 4 and more


def test_a_chain_under_checkpoint_and_in_forward_mode_has_the_same_gradient():
    def program(s, key, wrap):
        def step(x, key):
            key_y, key_b = jax.random.split(key)
            y = mcgrad.sample(key_y, mcgrad.Normal(x, s), mcgrad.Pathwise(coupling="reflection"))
            accept = jnp.exp(jnp.minimum(0.0, (x**2 - y**2) / 2))
            b = mcgrad.sample(key_b, mcgrad.Bernoulli(probs=accept), mcgrad.SmoothedPerturbation())
            new = jnp.where(b == 1, y, x)
            return new, x * new

        return jnp.mean(jax.lax.scan(wrap(step), jnp.zeros(()), jax.random.split(key, 300))[1])

    key = jax.random.key(3)
    with jax.debug_key_reuse(False):
        plain, wrapped = (
            jax.jit(mcgrad.grad(functools.partial(program, wrap=wrap)))(2.0, key)
            for wrap in (lambda f: f, jax.checkpoint)
        )
        forward = jax.jit(jax.jacfwd(mcgrad.expectation(functools.partial(program, wrap=lambda f: f))))(2.0, key)
    np.testing.assert_allclose([wrapped, forward], [plain, plain], rtol=1e-9)
    assert plain != 0


def test_a_coupled_draw_in_a_branch_shares_its_noise():
    """In a branch that the real path may not take there is no draw to be coupled with."""

    def program(theta, key):
        def step(x, key):
            key_b, key_y = jax.random.split(key)
            b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=theta - x), mcgrad.SmoothedPerturbation())
            y = jax.lax.cond(
                b == 1,
                lambda key: mcgrad.sample(key, mcgrad.Normal(theta * x, 1.0), mcgrad.Pathwise(coupling="reflection")),
                lambda key: 0.5 * x,
                key_y,
            )
            return y, y

        return jnp.sum(jax.lax.scan(step, jnp.ones(()), jax.random.split(key, 2))[1])

    def exact(theta):
        def second(x):
            p = jax.nn.sigmoid(theta - x)
            return p * theta * x + (1 - p) * 0.5 * x

        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        p = jax.nn.sigmoid(theta - 1)
        moved = theta + jnp.asarray(nodes)
        return p * jnp.asarray(weights / weights.sum()) @ (moved + jax.vmap(second)(moved)) + (1 - p) * (
            0.5 + second(0.5)
        )

    assert_unbiased(draws_of(program, 0.7, 20_000), jax.grad(exact)(0.7))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"`mcgrad.Pathwise\(coupling=...\)` must be"):
        mcgrad.Pathwise(coupling="reflected")

    def program(theta, key):
        return mcgrad.sample(key, mcgrad.Gamma(theta, 1.0), mcgrad.Pathwise(coupling="reflection"))

    with pytest.raises(ValueError, match="Gamma has no reflection"):
        mcgrad.grad(program)(2.0, jax.random.key(0))
    without_density = mcgrad.distribution(sampler=lambda key, loc: loc + jax.random.normal(key))

    def other(theta, key):
        return mcgrad.sample(key, without_density(theta), mcgrad.Pathwise(coupling="maximal"))

    with pytest.raises(ValueError, match="no `log_prob`"):
        mcgrad.grad(other)(2.0, jax.random.key(0))
