"""cuthbert: its particle filter, as it is, with draws by mcgrad, differentiated by mcgrad."""

import jax
import jax.numpy as jnp
import pytest
from recipe import assert_mean

import mcgrad

pytest.importorskip("cuthbert")
from cuthbert import filter as run_filter  # noqa: E402
from cuthbert.smc import particle_filter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # in its placeholders

Y = jnp.array([0.4, -0.3, 1.1, 0.9])
PARTICLES = 30


def exact(a):
    """The likelihood by Kalman's filter; the first state comes before the first observation."""
    mean, variance, total = 0.0, 1.0, 0.0
    for y in Y:
        mean, variance = a * mean, a**2 * variance + 0.25
        total += mcgrad.Normal(mean, jnp.sqrt(variance + 0.49)).log_prob(y)
        gain = variance / (variance + 0.49)
        mean, variance = mean + gain * (y - mean), variance * (1 - gain)
    return jnp.exp(total)


def log_likelihood(a, key, gradient, resampling):
    def resample(key, log_weights, particles, n):
        ancestors, copies = mcgrad.smc.resample(key, log_weights, gradient=gradient, resampling=resampling)
        return ancestors, copies, jax.tree.map(lambda x: x[ancestors], particles)

    made = particle_filter.build_filter(
        init_sample=lambda key: mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)),
        propagate_sample=lambda key, x, y: mcgrad.sample(key, mcgrad.Normal(a * x, 0.5)),
        log_potential=lambda before, x, y: mcgrad.Normal(x, 0.7).log_prob(y),
        n_filter_particles=PARTICLES,
        resampling_fn=resample,
    )
    key_first, key_second, key_others = jax.random.split(key, 3)
    first = made.init_prepare(key=key_first)._replace(key=key_second)  # which cuthbert would split once more
    return run_filter(made, Y, first, key=key_others).log_normalizing_constant[-1]


def test_the_score_of_ancestors_is_unbiased_for_the_likelihood():
    def likelihood(a, key):
        return jnp.exp(log_likelihood(a, key, mcgrad.Score(), mcgrad.WithReplacement) - jnp.log(exact(0.7)))

    statistics = mcgrad.gradient_statistics(likelihood, 40_000)(0.7, jax.random.key(0))
    assert_mean(statistics, jax.grad(lambda a: exact(a) / exact(0.7))(0.7))


def test_stopped_gradients_are_those_of_the_log_likelihood_of_many_particles():
    """Up to a bias in the order of one over the number of particles; without resampling they are far off."""
    found = {
        form: mcgrad.gradient_statistics(
            lambda a, key, form=form: log_likelihood(a, key, form, mcgrad.Systematic), 4_000
        )(0.7, jax.random.key(1))
        for form in ("stop_gradient", "ignore")
    }
    wanted = jax.grad(lambda a: jnp.log(exact(a)))(0.7)
    assert abs(found["stop_gradient"].mean - wanted) < 0.03
    assert abs(found["ignore"].mean - wanted) > 0.1
