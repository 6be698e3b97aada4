"""Weak derivatives of the laws themselves: applied to three costs, against quadrature."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import WEAK, Weak, WeakOfVector, costs
from helpers import assert_unbiased

import mcgrad

# with a density to integrate; the others are in test_measure_valued.py
CASES = {name: case for name, case in WEAK.items() if isinstance(case, Weak) and case.interval is not None}
VECTORS = {name: case for name, case in WEAK.items() if isinstance(case, WeakOfVector)}
HOW = {
    "hahn_jordan, shared": mcgrad.Coupling(True, False),
    "hahn_jordan, comonotone": mcgrad.Coupling(True, True),
    "size_bias, shared": mcgrad.Coupling(False, False),
}


@functools.cache
def exact(name):
    """The derivatives `[parameter, cost]` of expectations, by Gauss-Legendre quadrature of the density in cells."""
    make, params, (low, high) = CASES[name].make, CASES[name].params, CASES[name].interval
    law = make(*params)
    number = 20_001 if law.support_parameters else 401
    if high == np.inf:
        edges = jnp.tan(jnp.linspace(-np.pi / 2 + 1e-9, np.pi / 2 - 1e-9, number))
    else:
        edges = (jnp.geomspace if low > 0 else jnp.linspace)(low, high, number)
    edges = jnp.sort(jnp.append(edges, 0.6))
    if law.support_parameters:  # no density tells of mass at an end that moves
        of_cells = lambda p: costs((edges[1:] + edges[:-1]) / 2) @ jnp.diff(make(*p).cdf(edges))  # noqa: E731
        return np.asarray(jax.jit(jax.jacfwd(of_cells))(jnp.array(params))).T
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = jnp.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + half * (1 + nodes[None])).ravel()
    weights = (half * weights[None]).ravel()

    def expectations(p):
        return costs(x) @ (weights * jnp.exp(jax.vmap(make(*p).log_prob)(x)))

    return np.asarray(jax.jit(jax.jacrev(expectations))(jnp.array(params))).T


def applied(law, params, how, key, number=4_000):
    """Draws of the weak derivative in each parameter applied to the costs, `[draw, parameter, cost]`."""

    @jax.jit
    def run(params, key):
        key_draw, key_parts = jax.random.split(key)
        rows = [jnp.full(number, p) for p in params]
        x = law(*rows).sample(key_draw)

        def weights(*rows):
            return [term.weight for term in law(*rows).weak_derivative(jax.random.clone(key_parts), x, how)]

        gaps = [
            costs(1.0 * term.positive) - costs(1.0 * term.negative)
            for term in law(*rows).weak_derivative(jax.random.clone(key_parts), x, how)
        ]
        total = []
        for k in range(len(rows)):
            ones = [jnp.ones_like(row) if i == k else jnp.zeros_like(row) for i, row in enumerate(rows)]
            slopes = jax.jvp(weights, rows, ones)[1]
            total.append(sum(jnp.sum(w[None] * gap, axis=1) for w, gap in zip(slopes, gaps, strict=True)))
        return jnp.moveaxis(jnp.stack(total), -1, 0)

    return np.asarray(run(list(params), key))


def _cases():
    """One configuration of one law of a kind; all of them with `-m slow`."""
    for name in CASES:
        for how in HOW:
            default = how == "hahn_jordan, shared" and name in ("Gamma", "StudentT", "InverseGaussian")
            yield pytest.param(name, how, marks=() if default else pytest.mark.slow)


@pytest.mark.parametrize(("name", "how"), list(_cases()))
def test_against_quadrature(name, how):
    case = CASES[name]
    draws = applied(case.make, case.params, HOW[how], jax.random.key(0), case.num_draws)
    for k in range(len(case.params)):
        assert_unbiased(draws[:, k], exact(name)[k])


def test_a_wrong_coefficient_fails():
    class Wrong(mcgrad.Gamma):
        def weak_derivative(self, key, x, how):
            return tuple(t._replace(weight=1.1 * t.weight) for t in super().weak_derivative(key, x, how))

    draws = applied(Wrong, CASES["Gamma"].params, HOW["hahn_jordan, comonotone"], jax.random.key(0))
    for k in range(2):
        with pytest.raises(AssertionError, match="biased"):
            assert_unbiased(draws[:, k], exact("Gamma")[k])


BY_DEFAULT = ("hahn_jordan, shared", "hahn_jordan, independent")  # of a law whose weights depend on the draw


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=() if name == "MultivariateStudentT" and how in BY_DEFAULT else pytest.mark.slow)
        for name in VECTORS
        for how in [*HOW, "hahn_jordan, independent"]
    ],
)
def test_vectors_and_matrices(name, how):
    """Against closed forms."""
    case = VECTORS[name]
    estimator = mcgrad.MeasureValued(*how.split(", "))

    def program(params, key):
        return case.cost(1.0 * mcgrad.sample(key, case.make(params), estimator))

    number = 5_000 if how == "hahn_jordan, shared" else 20_000

    @jax.jit
    def draws(params, keys):
        return jax.lax.map(lambda keys: jax.vmap(mcgrad.grad(program), (None, 0))(params, keys), keys.reshape(10, -1))

    found = draws(case.params, jax.random.split(jax.random.key(0), number))
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(jax.grad(case.expectation)(case.params))
    assert_unbiased(
        [array.reshape(number, -1)[:, jnp.ravel(exact) != 0] for array, exact in zip(found, wanted, strict=True)],
        [jnp.ravel(exact)[jnp.ravel(exact) != 0] for exact in wanted],
    )
    # what stands above the diagonal is not read
    assert all(
        not array.reshape(number, -1)[:, jnp.ravel(exact) == 0].any()
        for array, exact in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("probs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mixtures(probs):
    """Weights and components, a batch of two, against quadrature."""
    weights = jnp.array([[0.4, -0.3, 0.1], [0.2, 0.5, -0.7]])
    params = (jax.nn.softmax(weights) if probs else weights, jnp.array([-1.0, 0.5, 2.0]), jnp.array([0.6, 0.9, 0.4]))

    def law(params):
        weights, loc, scale = params
        mixing = mcgrad.Categorical(**{"probs" if probs else "logits": weights})
        return mcgrad.Mixture(mixing, mcgrad.Normal(jnp.tile(loc, (2, 1)), scale[None]))

    def program(params, key):
        return jnp.sum(jnp.array([1.0, 0.7]) * costs(mcgrad.sample(key, law(params)))[1])

    def expectation(params):
        x = jnp.linspace(-8, 8, 8001)
        density = jnp.exp(jax.vmap(lambda x: law(params).log_prob(jnp.full(2, x)))(x))
        return jnp.sum(costs(x)[1] @ density * jnp.array([1.0, 0.7])) * (x[1] - x[0])

    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.jit(jax.vmap(mcgrad.measure_valued_grad(program), (None, 0)))(params, keys)
    for found, wanted in zip(draws, jax.grad(expectation)(params), strict=True):
        assert_unbiased(found.reshape(len(keys), -1), wanted.ravel())


# by its functions: `cdf`, `sampler`, parameters of one law, and how its parameters meet the entries
OWN = {
    "two changes of sign": (lambda x, s: jax.nn.sigmoid(x / s), lambda key, s: s * jax.random.logistic(key, s.shape)),
    "a support that moves": (
        lambda x, s: jnp.clip(x / s, 0, 1),
        lambda key, s: s * jax.random.uniform(key, s.shape),
    ),
    "garbage outside the support": (
        lambda x, s: 1 - jnp.exp(-s * x),
        lambda key, s: jax.random.exponential(key, s.shape) / s,
    ),
    "four changes of sign": (
        lambda x, s: 0.5 * jax.scipy.special.ndtr((x - 2) / s) + 0.5 * jax.scipy.special.ndtr((x + 2) / s),
        lambda key, s: (
            s * jax.random.normal(key, s.shape) + 2 * jax.random.rademacher(jax.random.fold_in(key, 1), s.shape)
        ),
    ),
}


def test_a_distribution_function_that_is_one_from_the_start_gives_no_number():
    """`1 - exp(-x^2)` is a distribution function for positive numbers only: without a bound it would give a derivative of zero."""
    wrong = mcgrad.distribution(
        sampler=lambda key, s: s * jax.random.weibull_min(key, 1.0, 2.0), cdf=lambda x, s: 1 - jnp.exp(-((x / s) ** 2))
    )
    gradient = mcgrad.measure_valued_grad(lambda s, key: jnp.tanh(mcgrad.sample(key, wrong(s))))
    assert np.isnan(jax.jit(gradient)(0.8, jax.random.key(0)))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "a support that moves" else pytest.mark.slow) for name in OWN]
)
def test_a_law_of_a_user_by_its_distribution_function(name):
    """All entries of a batch are moved together; and one parameter that all of them share."""
    cdf, sampler = OWN[name]
    law = mcgrad.distribution(
        sampler=lambda key, s, shared: sampler(key, s * shared), cdf=lambda x, s, shared: cdf(x, s * shared)
    )
    s, shared = jnp.array([0.8, 1.3]), jnp.asarray(1.1)

    def program(params, key):
        x = mcgrad.sample(key, law(*params), mcgrad.MeasureValued())
        return jnp.sum(costs(x)[2] * jnp.array([1.0, 0.6]))

    def expectation(params):
        edges = jnp.concatenate([jnp.linspace(0, 30, 60_001), -jnp.linspace(0, 30, 60_001)[1:]]).sort()
        masses = jnp.diff(jnp.clip(jax.vmap(lambda x: cdf(x, params[0] * params[1]))(edges), 0, 1), axis=0)
        return jnp.sum(costs((edges[1:] + edges[:-1]) / 2)[2] @ masses * jnp.array([1.0, 0.6]))

    keys = jax.random.split(jax.random.key(0), 8_000)
    draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))((s, shared), keys)
    for found, wanted in zip(draws, jax.grad(expectation)((s, shared)), strict=True):
        assert_unbiased(found.reshape(len(keys), -1), jnp.ravel(wanted))
