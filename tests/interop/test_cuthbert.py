"""cuthbert: its particle filter, as it is, with draws by mcgrad, differentiated by mcgrad."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipe import assert_mean

import mcgrad

pytest.importorskip("cuthbert")
from cuthbert import filter as run_filter  # noqa: E402
from cuthbert.smc import particle_filter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # in its placeholders

Y = np.array([0.4, -0.3, 1.1, 0.9], np.float32)


def exact(a):
    """The likelihood by Kalman's filter; the first state comes before the first observation."""
    mean, variance, total = 0.0, 1.0, 0.0
    for y in Y:
        mean, variance = a * mean, a**2 * variance + 0.25
        total += mcgrad.Normal(mean, jnp.sqrt(variance + 0.49)).log_prob(y)
        gain = variance / (variance + 0.49)
        mean, variance = mean + gain * (y - mean), variance * (1 - gain)
    return jnp.exp(total)


def log_likelihood(a, key, gradient, resampling, num_particles):
    def resample(key, log_weights, particles, n):
        ancestors, copies = mcgrad.smc.resample(key, log_weights, gradient=gradient, resampling=resampling)
        return ancestors, copies, jax.tree.map(lambda x: x[ancestors], particles)

    made = particle_filter.build_filter(
        init_sample=lambda key: mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)),
        propagate_sample=lambda key, x, y: mcgrad.sample(key, mcgrad.Normal(a * x, 0.5)),
        log_potential=lambda before, x, y: mcgrad.Normal(x, 0.7).log_prob(y),
        n_filter_particles=num_particles,
        resampling_fn=resample,
    )
    key_first, key_second, key_others = jax.random.split(key, 3)
    first = made.init_prepare(key=key_first)._replace(key=key_second)  # which cuthbert would split once more
    return run_filter(made, Y, first, key=key_others).log_normalizing_constant[-1]


def test_the_score_of_ancestors_is_unbiased_for_the_likelihood():
    def likelihood(a, key):
        return jnp.exp(log_likelihood(a, key, mcgrad.Score(), mcgrad.WithReplacement, 3) - jnp.log(exact(0.7)))

    statistics = mcgrad.gradient_statistics(likelihood, 400_000)(0.7, jax.random.key(0))
    assert_mean(statistics, jax.grad(lambda a: exact(a) / exact(0.7))(0.7))


def test_stopped_gradients_are_those_of_the_log_likelihood_of_many_particles():
    """Up to a bias in the order of one over the number of particles; without resampling they are far off."""

    def mean_of(form):
        program = functools.partial(log_likelihood, gradient=form, resampling=mcgrad.Systematic, num_particles=30)
        return mcgrad.gradient_statistics(program, 4_000)(0.7, jax.random.key(1)).mean

    wanted = jax.grad(lambda a: jnp.log(exact(a)))(0.7)
    assert abs(mean_of("stop_gradient") - wanted) < 0.03
    assert abs(mean_of("ignore") - wanted) > 0.1
