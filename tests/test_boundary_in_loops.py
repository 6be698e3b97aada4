"""Costs of loops that jump where a comparison with a draw of the step changes: against exact values, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from jax.scipy.stats import norm

import mcgrad

BOUNDARY, FROM_ABOVE = mcgrad.PathwiseWithBoundary(), mcgrad.PathwiseWithBoundary("right")


def draws_of(program, params, num_draws, seed=3):
    keys = jax.random.split(jax.random.key(seed), num_draws)
    gradient = mcgrad.grad(program)
    with jax.debug_key_reuse(False):
        return jax.jit(lambda keys: jax.lax.map(lambda key: gradient(params, key), keys, batch_size=2000))(keys)


def counter(theta, key, estimator):
    """How many events come before time 3, at the rate `exp(theta)`."""

    def step(carry, key):
        time, count = carry
        time = time + mcgrad.sample(key, mcgrad.Exponential(jnp.exp(theta)), estimator)
        return (time, jnp.where(time < 3.0, count + 1, count)), None

    return 1.0 * jax.lax.scan(step, (jnp.zeros_like(theta), 0), jax.random.split(key, 25))[0][1]


def test_the_event_counter():
    """The derivative of `3 exp(theta)`; seen from above, the boundary has no variance at all."""
    score = 5.05  # the standard deviation of the score, each count credited with the draws before it
    both = draws_of(functools.partial(counter, estimator=BOUNDARY), 0.0, 20_000)
    assert_unbiased(both, 3.0)
    assert np.std(both) < score / 2
    for dtype, rounding in ((jnp.float32, 1e-5), (jnp.float64, 1e-12)):
        above = draws_of(functools.partial(counter, estimator=FROM_ABOVE), jnp.zeros((), dtype), 1000)
        assert above.dtype == dtype
        np.testing.assert_allclose(above, 3.0, atol=rounding)
        assert np.std(above) < score / 5


def growth(params, key):
    """Events that make further ones more likely, some of which do not count; what happens and how long it takes has a price."""

    def step(carry, keys):
        time, count = carry
        rate = jnp.exp(params[0]) * (1 + 0.5 * count)
        time = time + mcgrad.sample(keys[0], mcgrad.Exponential(rate), FROM_ABOVE)
        chance = jnp.where(time < params[2], jax.nn.sigmoid(params[1] - 0.2 * count), 0.0)
        bit = mcgrad.sample(keys[1], mcgrad.Bernoulli(probs=chance), mcgrad.SmoothedPerturbation())
        count = jnp.where((time < params[2]) & (bit == 1), count + 1, count)
        return (time, count), None

    count = jax.lax.scan(step, (0.0, 0.0), jax.random.split(key, (30, 2)))[0][1]
    return count**2


def growth_exact(params):
    n = jnp.arange(16)
    up = jnp.exp(params[0]) * (1 + 0.5 * n) * jax.nn.sigmoid(params[1] - 0.2 * n)
    generator = jnp.diag(up[:-1], 1) - jnp.diag(up)
    return jax.scipy.linalg.expm(params[2] * generator, max_squarings=24)[0] @ n**2


def test_with_discrete_draws_and_thresholds_that_move():
    """The master equation; the horizon is a parameter too."""
    params = jnp.array([0.0, 0.5, 1.5])
    assert_unbiased(draws_of(growth, params, 40_000), jax.grad(growth_exact)(params))


def switching(params, key):
    """Two walkers, each sent back where it passes a place: what a step does jumps, and so does all that comes after."""

    def step(x, key):
        y = 0.8 * x + mcgrad.sample(key, mcgrad.Normal(params[0] * jnp.ones(2), 0.7), BOUNDARY)
        x = jnp.where(y > params[1] + jnp.array([0.0, 0.1]), -0.5 * y - 0.3, y)
        return x, jnp.sum(x**2)

    costs = jax.lax.scan(step, jnp.zeros(2), jax.random.split(key, 4))[1]
    return jnp.sum(costs)


def switching_exact(params):
    grid = jnp.linspace(-6, 6, 801)
    step = grid[1] - grid[0]

    def one(edge):
        # a density on both sides of the edge, and the share of the cell that the edge cuts
        part = jnp.clip((grid + step / 2 - edge) / step, 0, 1)
        density = norm.pdf(grid, params[0], 0.7)
        total = 0.0
        for _ in range(4):
            ups, downs = density * part * step, density * (1 - part) * step
            back = -0.5 * grid - 0.3
            total = total + ups @ back**2 + downs @ grid**2
            density = ups @ norm.pdf(grid[None], 0.8 * back[:, None] + params[0], 0.7) + downs @ norm.pdf(
                grid[None], 0.8 * grid[:, None] + params[0], 0.7
            )
        return total

    return one(params[1]) + one(params[1] + 0.1)


def test_jumps_of_the_state_with_axes_that_stay_apart():
    params = jnp.array([0.3, 0.4])
    assert_unbiased(draws_of(switching, params, 40_000), jax.jit(jax.grad(switching_exact))(params))


def _of_the_next_step(carry, x):
    return (carry[0] + x, jnp.where(carry[0] < 3.0, carry[1] + 1, carry[1])), 0.0


def _of_a_square(carry, x):
    return (carry[0] + x, jnp.where((carry[0] + x) ** 2 < 3.0, carry[1] + 1, carry[1])), 0.0


def _rounded(carry, x):
    return (carry[0] + x, jnp.floor(carry[0] + x)), 0.0


def _with_a_later_draw(carry, x):
    later = mcgrad.sample(jax.random.key(3), mcgrad.Normal(0.0, 1.0))
    return (carry[0] + x, jnp.where(carry[0] + x < later, carry[1] + 1, carry[1])), 0.0


def _after_the_loop(carry, x):
    return (carry[0] + x, carry[1]), carry[0] + x


REFUSED = {
    _of_the_next_step: "the comparison at .* is of what an earlier step drew: compare in the step that draws",
    _of_a_square: "the comparison at .* is not of something affine in the draw",
    _rounded: "`floor` at .* jumps other than by a comparison",
    _with_a_later_draw: "involves something that is drawn later: draw that first",
    _after_the_loop: "stands outside of the step that draws",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body.__name__)
def test_other_jumps_of_a_loop_are_refused(body):
    def program(theta, key):
        def step(carry, key):
            return body(carry, mcgrad.sample(key, mcgrad.Exponential(jnp.exp(theta)), BOUNDARY))

        (_, count), times = jax.lax.scan(step, (0.0, 0.0), jax.random.split(key, 5))
        return count + jnp.sum(jnp.where(times > 2.0, 1.0, 0.0))

    with pytest.raises(
        ValueError, match=f"PathwiseWithBoundary` would be wrong at .*test_boundary_in_.*{REFUSED[body]}"
    ):
        jax.eval_shape(mcgrad.grad(program), 0.0, jax.random.key(0))


def test_a_draw_whose_factor_is_zero_poisons_the_gradient():
    def program(theta, key):
        def step(time, inputs):
            key, factor = inputs
            time = time + factor * mcgrad.sample(key, mcgrad.Exponential(jnp.exp(theta)), BOUNDARY)
            return time, jnp.where(time < 1.0, 1.0, 0.0)

        return jnp.sum(jax.lax.scan(step, 0.0, (jax.random.split(key, 3), jnp.array([1.0, 0.0, 1.0])))[1])

    assert np.isnan(jax.jit(mcgrad.grad(program))(0.0, jax.random.key(0)))


def test_sides_outside_of_loops():
    def program(loc, key, sides):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.PathwiseWithBoundary(sides))
        return jnp.where(x > 0.5, x**2, 2.0)

    def exact(loc):
        x = 0.5 + jnp.linspace(0, 10, 20_001)
        return jnp.trapezoid(x**2 * norm.pdf(x, loc), x) + 2 * norm.cdf(0.5, loc)

    for sides in ("left", "right"):
        assert_unbiased(draws_of(functools.partial(program, sides=sides), 0.4, 80_000), jax.grad(exact)(0.4))
    with pytest.raises(ValueError, match=r"PathwiseWithBoundary\(sides=...\)` must be"):
        mcgrad.PathwiseWithBoundary("above")
