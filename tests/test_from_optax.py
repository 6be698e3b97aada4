"""The new spelling of each estimator of `optax.monte_carlo`, on the cases of optax's own tests.

Their exact means are known; where an optax is installed that still has the old functions (up to 0.2.6), these are compared too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_unbiased

import mcgrad

MEAN, LOG_SCALE = jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray([-0.2, 0.1, -0.4])
WEIGHTS = jnp.asarray([1.0, 2.0, 3.0])

# The expectation is a function of mean and variance of each entry.
CASES = {
    "constant": (lambda x: jnp.asarray(2.0), lambda m, v: jnp.asarray(2.0)),
    "linear": (lambda x: jnp.sum(x), lambda m, v: jnp.sum(m)),
    "quadratic": (lambda x: jnp.sum(x**2) / 2, lambda m, v: jnp.sum(m**2 + v) / 2),
    "weighted linear": (lambda x: WEIGHTS @ x, lambda m, v: WEIGHTS @ m),
    "weighted quadratic": (lambda x: (WEIGHTS @ x) ** 2, lambda m, v: (WEIGHTS @ m) ** 2 + WEIGHTS**2 @ v),
    "cubic": (lambda x: jnp.sum(x**3), lambda m, v: jnp.sum(m**3 + 3 * m * v)),
    "quartic": (lambda x: jnp.sum(x**4), lambda m, v: jnp.sum(m**4 + 6 * m**2 * v + 3 * v**2)),
    "cosine": (lambda x: jnp.sum(jnp.cos(2 * x)), lambda m, v: jnp.sum(jnp.cos(2 * m) * jnp.exp(-2 * v))),
}

SPELLINGS = {
    "score_function_jacobians": mcgrad.Score(),
    "pathwise_jacobians": mcgrad.Pathwise(),
    "measure_valued_jacobians": mcgrad.MeasureValued(),
}


def program(function, params, key):
    mean, log_scale = params
    return function(mcgrad.sample(key, mcgrad.Independent(mcgrad.Normal(mean, jnp.exp(log_scale)), 1)))


def exact(name):
    return jax.grad(lambda params: CASES[name][1](params[0], jnp.exp(2 * params[1])))([MEAN, LOG_SCALE])


def draws(name, estimator, num_draws, num_samples):
    """`[num_draws, ...]` of each parameter."""
    gradient = mcgrad.grad(
        lambda params, key: program(CASES[name][0], params, key), estimator=estimator, num_samples=num_samples
    )
    keys = jax.random.split(jax.random.key(0), num_draws)
    with jax.debug_key_reuse(False):
        return jax.jit(jax.vmap(lambda key: gradient([MEAN, LOG_SCALE], key)))(keys)


def check(found, target):
    if any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(target)):
        assert_unbiased(found, target)
    else:  # of a constant: no fraction of the norm to resolve
        for leaf in jax.tree.leaves(found):
            assert (jnp.abs(jnp.mean(leaf, 0)) <= 5 * jnp.std(leaf, 0) / np.sqrt(len(leaf)) + 1e-12).all()


@pytest.mark.parametrize("old", SPELLINGS)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in ("constant", "weighted quadratic"))) for n in CASES]
)
def test_estimators(name, old):
    few = old == "score_function_jacobians"
    check(draws(name, SPELLINGS[old], 40_000 if few else 20_000, 8 if few else 1), exact(name))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("coefficient", ["regressed", 1.0])
@pytest.mark.parametrize("name", ["quadratic", "cubic", "quartic"])
def test_control_delta_method(name, coefficient, estimator):
    check(draws(name, mcgrad.Taylor(estimator, coefficient), 20_000, 8), exact(name))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(optax, "multi_normal"), reason="an optax without `multi_normal`")
@pytest.mark.filterwarnings("ignore:The function .* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("old", SPELLINGS)
@pytest.mark.parametrize("name", CASES)
def test_the_old_functions_have_the_same_mean(name, old):
    try:
        function = getattr(optax.monte_carlo, old)
    except AttributeError:
        pytest.skip("an optax without `monte_carlo`: 0.2.7 or newer")
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        found = function(CASES[name][0], [MEAN, LOG_SCALE], optax.multi_normal, jax.random.key(0), 400_000)
    check(list(found), exact(name))
