"""Log densities and their derivatives in float32 against the same in float64, where their terms are large and cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcgrad import distributions as laws
from mcgrad.distributions.numerics.beta import log_odds_log_prob

LARGE = 1e6
# The law, its parameters, and how far its value and the derivatives in the parameters may be off: by what the rounding of a draw
# or of its logarithm makes of the distance to the mean, of a thousandth.
CASES: dict[str, tuple[Callable[..., Any], tuple[float, ...], float, float]] = {
    "Gamma": (laws.Gamma, (LARGE, 1.0), 1e-5, 1e-3),
    "ExpGamma": (laws.ExpGamma, (LARGE, 1.0), 0.02, 1e-2),
    "InverseGamma": (laws.InverseGamma, (LARGE, 1.0), 1e-3, 2e-3),
    "Chi2": (laws.Chi2, (LARGE,), 1e-5, 1e-3),
    "Beta": (laws.Beta, (LARGE, 3 * LARGE), 1e-3, 5e-3),
    "F": (laws.F, (LARGE, 3 * LARGE), 1e-3, 5e-3),
    "Dirichlet": (lambda *a: laws.Dirichlet(jnp.stack(a)), (LARGE, 2 * LARGE, 3 * LARGE), 1e-3, 5e-3),
    "StudentT": (laws.StudentT, (LARGE, 0.3, 2.0), 1e-6, 1e-5),
    "MultivariateStudentT": (
        lambda df, size: laws.MultivariateStudentT(df, jnp.zeros(3, df.dtype), size * jnp.eye(3, dtype=df.dtype)),
        (LARGE, 2.0),
        1e-5,
        1e-5,
    ),
    "Wishart": (lambda df, size: laws.Wishart(df, size * jnp.eye(2, dtype=df.dtype)), (LARGE, 1.0), 1e-2, 1e-2),
    "LKJCholesky": (lambda a: laws.LKJCholesky(3, a), (LARGE,), 1e-4, 0.2),
}


@pytest.mark.parametrize("name", CASES)
def test_log_densities_keep_their_digits(name: str) -> None:
    law, params, off, off_in_params = CASES[name]
    single = tuple(jnp.asarray(value, jnp.float32) for value in params)
    x = jax.vmap(law(*single).sample)(jax.random.split(jax.random.key(0), 20))

    @jax.jit
    def found(x: Any, params: Any) -> Any:
        of_params = lambda params, x: law(*params).log_prob(x)  # noqa: E731
        return jax.vmap(of_params, (None, 0))(params, x), jax.vmap(jax.grad(of_params), (None, 0))(params, x)

    value, score = found(x, single)
    wanted, wanted_score = found(*jax.tree.map(lambda v: v.astype(jnp.float64), (x, single)))
    assert value.dtype == jnp.float32 and np.abs(value - wanted).max() < off * np.abs(wanted).max()
    for one, exact in zip(score, wanted_score, strict=True):
        assert np.abs(one - exact).max() < off_in_params * np.abs(exact).max()


def test_derivatives_of_the_log_odds_density_where_the_concentrations_are_far_apart() -> None:
    a, b, y = (jnp.asarray(value, jnp.float32) for value in ([0.01, 1e-4, 1.0], [1e8, 1e8, 1e8], [7.0, 2.4, -18.0]))
    slope = jax.grad(lambda a: jnp.sum(log_odds_log_prob(y, a, b)))(a)
    a, b, y = (np.asarray(value, float) for value in (a, b, y))
    digamma = np.array([-100.56088545786868, -10000.577051183514, -0.5772156649015329])
    exact = -np.log1p(np.exp(-y)) - digamma + np.log(b)  # psi(a + b) is log(b) to 1e-8
    np.testing.assert_allclose(slope, exact, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_densities_far_out(dtype: Any) -> None:
    """Finite as long as they can be, then minus infinity; and NaN stays."""
    far = jnp.asarray([30.0, 1e3, 1e15, np.inf, np.nan], dtype)
    one = jnp.ones((), dtype)
    x = np.array([30.0, 1e3, 1e15])
    for law, exact in (
        (laws.Weibull(one, 2 * one), np.log(2 * x) - x**2),
        (laws.Gamma(2 * one, one), np.log(x) - x),
        (laws.StudentT(2 * one, 0 * one, one), -1.5 * np.log1p(x**2 / 2) - 1.5 * np.log(2)),
    ):
        found = law.log_prob(far)
        np.testing.assert_allclose(found[:3], exact, rtol=1e-6)
        assert found[3] == -np.inf and (np.isnan(found[4]) or found[4] == -np.inf)
    found = laws.Gumbel(0 * one, one).log_prob(-far[jnp.asarray([0, 1, 3, 4])])
    np.testing.assert_allclose(found[0], 30 - np.exp(30), rtol=1e-5)
    assert list(found[1:3]) == [-np.inf, -np.inf] and np.isnan(found[3])
