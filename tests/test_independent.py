"""Independent entries as one draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from mcgrad.distributions import pathwise_obstacle


def test_independent_sums_the_axes_it_takes() -> None:
    base = mcgrad.Bernoulli(logits=jnp.arange(6.0).reshape(2, 3))
    dist = mcgrad.Independent(base, 1)
    x = dist.sample(jax.random.key(0))
    assert (dist.batch_shape, dist.event_shape, dist.event_ndim) == ((2,), (3,), 1)
    np.testing.assert_allclose(dist.log_prob(x), base.log_prob(x).sum(-1))
    np.testing.assert_allclose(dist.prob(x), jnp.exp(dist.log_prob(x)), rtol=1e-12)
    assert dist.support().shape == (8, 3) and len(np.unique(dist.support(), axis=0)) == 8
    assert mcgrad.Independent(base, 0).log_prob(x).shape == (2, 3)
    nested = mcgrad.Independent(mcgrad.OneHotCategorical(logits=jnp.zeros((2, 3))), 1)
    assert nested.event_shape == (2, 3) and nested.support().shape == (9, 2, 3) and nested.event_ndim == 2
    assert mcgrad.Independent(mcgrad.Bernoulli(logits=jnp.zeros(13)), 1).support() is None  # 8192 values
    assert mcgrad.Independent(mcgrad.Bernoulli(logits=jnp.zeros((2, 0))), 1).support().shape == (1, 0)
    assert mcgrad.Independent(mcgrad.Poisson(jnp.ones(2)), 1).support() is None
    uniform = mcgrad.Independent(mcgrad.Uniform(jnp.zeros(3), 1.0), 1)
    assert uniform.support_parameters == ("low", "high") and uniform.reparameterized and not uniform.discrete
    assert pathwise_obstacle(dist) == "Bernoulli is discrete" and dist.law == "Independent(Bernoulli)"
    silent = mcgrad.Independent(
        mcgrad.distribution(sampler=lambda key, a: a + jax.random.normal(key, a.shape))(jnp.ones(2)), 1
    )
    assert silent.log_prob is None and silent.prob is None
