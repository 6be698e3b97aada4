"""A path for part of the dependence on the parameters and a weight for the rest: right whatever the split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from jax.scipy import special

import mcgrad


def proposal(noise, law):
    """Marsaglia and Tsang 2000."""
    d = law.concentration - 1 / 3
    return d * (1 + noise / jnp.sqrt(9 * d)) ** 3


def proposal_noise(x, law):
    d = law.concentration - 1 / 3
    return jnp.sqrt(9 * d) * (jnp.cbrt(x / d) - 1)


def spread(a):
    return jnp.sqrt(special.polygamma(1, a))


BY_REJECTION = mcgrad.GeneralizedReparameterization(proposal, proposal_noise)
BY_LOG = mcgrad.GeneralizedReparameterization(
    lambda noise, law: jnp.exp(special.digamma(law.concentration) + noise * spread(law.concentration)),
    lambda x, law: (jnp.log(x) - special.digamma(law.concentration)) / spread(law.concentration),
)


# Gamma laws, the estimator, and the exact variance of its first derivative for cos (by quadrature).
GAMMAS = [(0.7, BY_LOG, 0.4556), (4.0, BY_LOG, 0.5076), (4.0, BY_REJECTION, 0.5165)]


@pytest.mark.parametrize(("a", "estimator", "variance"), GAMMAS)
def test_gamma_draws_first_and_second_derivative(a, estimator, variance):
    def costs(a, key):
        x = mcgrad.sample(key, mcgrad.Gamma(a, 1.0), estimator)
        return jnp.stack([jnp.cos(x), x**2])

    def exact(a):
        """The real part of `(1 - i)^(-a)`, and the second moment."""
        return jnp.stack([2 ** (-a / 2) * jnp.cos(a * jnp.pi / 4), a * (a + 1)])

    def both(function):
        first = jax.jacfwd(function)
        return lambda *args: (first(*args), jax.jacfwd(first)(*args))

    keys = jax.random.split(jax.random.key(0), 80_000)
    first, second = jax.jit(jax.vmap(both(mcgrad.expectation(costs)), (None, 0)))(a, keys)
    exact_first, exact_second = both(exact)(a)
    assert_unbiased(first, exact_first)
    if a > 1:  # the second derivative of a logarithm near zero has no fourth moment to tell by
        assert_unbiased(second, exact_second)
    assert np.var(first[:, 0]) == pytest.approx(variance, rel=0.02)


def test_vectors_with_a_transformation_that_mixes_their_entries():
    """A shift takes the mean out; the weight serves the Cholesky factor; entries of the batch keep their own costs."""
    halfway = mcgrad.GeneralizedReparameterization(
        lambda noise, law: law.loc + 2.0 * jnp.flip(noise, -1) + jnp.sum(law.loc, -1, keepdims=True) * noise,
        lambda x, law: _solved(x, law),
    )

    def _solved(x, law):
        total = jnp.sum(law.loc, -1)[..., None, None]
        matrix = total * jnp.eye(2)[None] + 2.0 * jnp.flip(jnp.eye(2), -1)[None]
        return jnp.linalg.solve(matrix, (x - law.loc)[..., None])[..., 0]

    def cost(params, key):
        loc, log_scale = params
        tril = jnp.asarray([[1.0, 0.0], [0.4, 1.0]]) * jnp.exp(log_scale)
        x = mcgrad.sample(key, mcgrad.MultivariateNormal(loc, scale_tril=tril), halfway)
        return jnp.sum(jnp.mean(x[..., 0] * x[..., 1] + jnp.sin(x[..., 0]), -1))

    def exact(params):
        loc, log_scale = params
        variance = jnp.exp(2 * log_scale)
        return jnp.mean(loc[:, 0] * loc[:, 1] + 0.4 * variance + jnp.sin(loc[:, 0]) * jnp.exp(-variance / 2))

    params = (jnp.asarray([[0.3, -0.8], [0.1, 0.5], [1.0, 0.2]]), jnp.asarray(-0.2))
    keys = jax.random.split(jax.random.key(1), 200_000)
    draws = jax.jit(jax.vmap(mcgrad.grad(cost), (None, 0)))(params, keys)
    jax.tree.map(assert_unbiased, draws, jax.grad(exact)(params))


def test_a_wrong_inverse_is_not_silent():
    wrong = mcgrad.GeneralizedReparameterization(proposal, lambda x, law: 1.01 * proposal_noise(x, law))
    value = mcgrad.expectation(lambda a, key: mcgrad.sample(key, mcgrad.Gamma(a, 1.0), wrong))(4.0, jax.random.key(0))
    assert np.isnan(value)


def test_refusals_and_the_jump_warning():
    def grad_of(dist, cost=jnp.cos, estimator=BY_LOG):
        return mcgrad.grad(lambda p, key: cost(1.0 * mcgrad.sample(key, dist(p), estimator)))(0.3, jax.random.key(0))

    with pytest.raises(TypeError, match=r"GeneralizedReparameterization\(standardize=...\)` must be a function.*float"):
        mcgrad.GeneralizedReparameterization(proposal, 1.0)
    with pytest.raises(ValueError, match="test_generalized.*discrete distribution has no smooth transformation"):
        grad_of(lambda p: mcgrad.Bernoulli(probs=p))
    with pytest.raises(ValueError, match="the support moves with `high`.*unless the transformation follows"):
        grad_of(lambda p: mcgrad.Uniform(0.0, p))
    no_density = mcgrad.distribution(sampler=lambda key, p: p + jax.random.normal(key))
    with pytest.raises(ValueError, match="no log density"):
        grad_of(no_density)
    with pytest.warns(mcgrad.JumpWarning, match="`floor` at .*GeneralizedReparameterization"):
        grad_of(lambda p: mcgrad.Gamma(p, 1.0), jnp.floor)  # the sign of a gamma draw never changes
