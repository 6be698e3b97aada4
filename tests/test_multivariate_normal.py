"""Normal distributions of vectors: densities and draws against SciPy, batches of factors."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from distributions import ORDINARY
from distributions.vectors import TRIL

import mcgrad


@pytest.mark.parametrize("kind", ["tril", "diag"])
def test_multivariate_normal_is_scipys(kind: str) -> None:
    dist = ORDINARY[f"MultivariateNormal, {kind}"].dist()
    scale = TRIL if kind == "tril" else np.diag([0.5, 2.0])
    frozen = scipy.stats.multivariate_normal(np.ones(2), scale @ scale.T)
    x = np.array([[0.3, -4.0], [1.0, 1.0], [9.0, 2.0]])
    np.testing.assert_allclose(dist.log_prob(x), frozen.logpdf(x), rtol=1e-12)
    draws = np.asarray(jax.vmap(dist.sample)(jax.random.split(jax.random.key(1), 20_000)))[:, 0]
    whitened = np.linalg.solve(scale, (draws - 1).T)
    for row in whitened:
        assert scipy.stats.kstest(row, scipy.stats.norm.cdf).pvalue > 1e-4
    assert abs(np.mean(whitened[0] * whitened[1])) < 5 / np.sqrt(20_000)


def test_multivariate_normal_batches_of_matrices_and_what_is_above_the_diagonal() -> None:
    tril = jnp.stack([jnp.asarray(TRIL), jnp.eye(2)])
    loc = jnp.ones((3, 1, 2))
    dist = mcgrad.MultivariateNormal(loc, scale_tril=tril)
    x = dist.sample(jax.random.key(0))
    assert dist.batch_shape == (3, 2) and x.shape == (3, 2, 2)
    for i, j in itertools.product(range(3), range(2)):
        frozen = scipy.stats.multivariate_normal(np.ones(2), np.asarray(tril[j] @ tril[j].T))
        np.testing.assert_allclose(dist.log_prob(x)[i, j], frozen.logpdf(x[i, j]), rtol=1e-10)
    full = jnp.asarray(TRIL) + jnp.asarray([[0.0, 7.0], [0.0, 0.0]])
    use = lambda L: mcgrad.MultivariateNormal(jnp.ones(2), scale_tril=L)  # noqa: E731, N806
    drawn = [jax.jit(lambda L: use(L).sample(jax.random.key(1)))(L) for L in (full, jnp.asarray(TRIL))]  # noqa: N803
    np.testing.assert_array_equal(*drawn)
    densities = [jax.jit(lambda L: use(L).log_prob(jnp.zeros(2)))(L) for L in (full, jnp.asarray(TRIL))]  # noqa: N803
    np.testing.assert_array_equal(*densities)
