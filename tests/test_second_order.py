"""Second derivatives of draws: the same number in every nesting of forward and reverse mode.

That one of these numbers is right is the matter of each law's own tests, against moments or quantiles.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

TRANSPORT = mcgrad.Pathwise(path="optimal_transport")
VELOCITY = mcgrad.AdaptiveVelocity(jnp.asarray([[0.3, -0.8]]), jnp.asarray([[0.5, 1.1]]))


def _tril(p):
    return jnp.asarray([[1.0, 0.0], [0.4, 0.8]]) * p[0] + p[1] * jnp.eye(2)


def _unit(p):
    return jnp.append(p, 0.5) / jnp.sqrt(jnp.sum(p**2) + 0.25)


# Laws of two positive parameters, and the path.
LAWS = {
    "Gamma": (lambda p: mcgrad.Gamma(p[0], p[1]), None),
    "ExpGamma": (lambda p: mcgrad.ExpGamma(p[0], p[1]), None),
    "InverseGamma": (lambda p: mcgrad.InverseGamma(p[0], p[1]), None),
    "Beta": (lambda p: mcgrad.Beta(p[0], p[1]), None),
    "Beta by optimal transport": (lambda p: mcgrad.Beta(p[0], p[1]), TRANSPORT),
    "Dirichlet": (lambda p: mcgrad.Dirichlet(jnp.append(p, 1.3)), None),
    "Dirichlet by optimal transport": (lambda p: mcgrad.Dirichlet(jnp.append(p, 1.3)), TRANSPORT),
    "StudentT": (lambda p: mcgrad.StudentT(2 + p[0], 0.3, p[1]), None),
    "F": (lambda p: mcgrad.F(p[0], p[1]), None),
    "VonMises": (lambda p: mcgrad.VonMises(p[0], p[1]), None),
    "VonMisesFisher": (lambda p: mcgrad.VonMisesFisher(_unit(p), p[1]), None),
    "TruncatedNormal": (lambda p: mcgrad.TruncatedNormal(p[0], p[1], -0.4, 2.0), None),
    "InverseGaussian": (lambda p: mcgrad.InverseGaussian(p[0], p[1]), None),
    "NoncentralChi2": (lambda p: mcgrad.NoncentralChi2(p[0], p[1]), None),
    "Kumaraswamy": (lambda p: mcgrad.Kumaraswamy(p[0], p[1]), None),
    "Mixture": (
        lambda p: mcgrad.Mixture(mcgrad.Categorical(logits=p), mcgrad.Normal(jnp.asarray([0.0, 1.0]), p)),
        None,
    ),
    "MultivariateNormal by optimal transport": (lambda p: mcgrad.MultivariateNormal(p, scale_tril=_tril(p)), TRANSPORT),
    "MultivariateNormal by an adaptive velocity": (
        lambda p: mcgrad.MultivariateNormal(p, scale_tril=_tril(p)),
        mcgrad.Pathwise(path=VELOCITY),
    ),
    "MultivariateStudentT": (lambda p: mcgrad.MultivariateStudentT(2 + p[0], p, scale_tril=_tril(p)), None),
    "Wishart": (lambda p: mcgrad.Wishart(3 + p[0], scale_tril=_tril(p)), None),
    "LKJCholesky": (lambda p: mcgrad.LKJCholesky(3, p[0] + 0.1 * p[1]), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_every_nesting_gives_the_same(name):
    law, path = LAWS[name]

    def value(p, key):
        x = mcgrad.sample(key, law(p), path)
        return jnp.sum(jnp.sin(x) * (1 + jnp.arange(x.size).reshape(x.shape)))

    estimate = mcgrad.expectation(value)
    modes = (jax.jacfwd, jax.jacrev)

    @jax.jit
    def hessians(p, key):
        f = lambda p: estimate(p, key)  # noqa: E731
        return jnp.stack([outer(inner(f))(p) for inner in modes for outer in modes])

    with jax.debug_key_reuse(False):
        found = hessians(jnp.asarray([0.9, 1.6]), jax.random.key(1))
    assert jnp.any(found != 0)
    np.testing.assert_allclose(found, jnp.broadcast_to(found[0], found.shape), rtol=1e-9, atol=1e-11)
