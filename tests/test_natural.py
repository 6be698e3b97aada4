"""Natural gradients: Fisher matrices in closed form against sums and quadrature, scores of programs, and the transform."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_unbiased

import mcgrad
from mcgrad.natural import scores

T = jnp.linspace(-30.0, 30.0, 2_001)  # the trapezoidal rule on the line has all digits
COUNTS = jnp.arange(300)
TABLE = {
    "Normal": (lambda p: mcgrad.Normal(p[0], jnp.exp(p[1])), T, 1.0),
    "LogNormal": (lambda p: mcgrad.LogNormal(p[0], jnp.exp(p[1])), jnp.exp(T), jnp.exp(T)),
    "HalfNormal": (lambda p: mcgrad.HalfNormal(jnp.exp(p[0])), jnp.exp(T), jnp.exp(T)),
    "Exponential": (lambda p: mcgrad.Exponential(p[0] ** 2 + 0.3), jnp.exp(T), jnp.exp(T)),
    "Gamma": (lambda p: mcgrad.Gamma(jnp.exp(p[0]), p[1] ** 2 + 0.5), jnp.exp(T), jnp.exp(T)),
    "InverseGamma": (lambda p: mcgrad.InverseGamma(jnp.exp(p[0]), p[1] ** 2 + 0.5), jnp.exp(T), jnp.exp(T)),
    "Beta": (
        lambda p: mcgrad.Beta(jnp.exp(p[0]), 1.3 * jnp.exp(p[1])),
        jax.nn.sigmoid(T),
        jax.nn.sigmoid(T) * jax.nn.sigmoid(-T),
    ),
    "Poisson": (lambda p: mcgrad.Poisson(jnp.exp(p[0] + p[1])), COUNTS, None),
    "Geometric": (lambda p: mcgrad.Geometric(logits=p[0] * p[1] + 0.2), COUNTS, None),
    "Binomial": (lambda p: mcgrad.Binomial(7, logits=p[0] - p[1] ** 2), COUNTS[:8], None),
    "Bernoulli": (lambda p: mcgrad.Bernoulli(probs=jax.nn.sigmoid(p[0] + p[1])), COUNTS[:2], None),
    "Categorical": (lambda p: mcgrad.Categorical(logits=jnp.stack([p[0], p[1] ** 2, p[0] * p[1]])), COUNTS[:3], None),
}
P = jnp.asarray([0.4, -0.3])


@pytest.mark.parametrize("name", TABLE)
def test_exact_fisher_matrices_are_those_of_scores(name: str) -> None:
    law, x, width = TABLE[name]
    x = jnp.clip(x, 1e-12, 1 - 1e-12) if name == "Beta" else x

    def of_scores(p: Any) -> Any:
        log_p = jax.vmap(law(p).log_prob)(x)
        mass = jnp.exp(log_p) if width is None else jnp.exp(log_p) * width * (T[1] - T[0])
        each = jax.vmap(jax.grad(lambda p, x: law(p).log_prob(x)), (None, 0))(p, x)
        outer = (each[:, :, None] * each[:, None]).reshape(-1, 4)
        some = mass > 0
        return jnp.where(some, mass, 0) @ jnp.where(some[:, None], outer, 0)

    exact = jax.jit(of_scores)(P).reshape(2, 2)
    found = jax.jit(lambda p: mcgrad.natural(law, damping=0.25).update(exact @ P + 0.25 * P, None, p)[0])(P)
    np.testing.assert_allclose(found, P, rtol=1e-6)


@pytest.mark.slow
def test_exact_fisher_matrices_of_vectors() -> None:
    """Those of textbooks; and of several independent distributions, with several entries, their sum."""
    a = jnp.asarray([0.7, 1.4, 2.2])
    trigamma = lambda x: jax.scipy.special.polygamma(1, x)  # noqa: E731
    loc, factor = jnp.asarray([0.3, -0.8, 0.1]), jnp.asarray([[1.0, 0, 0], [0.4, 1.2, 0], [-0.3, 0.2, 0.8]])
    p = jax.nn.softmax(a)
    subsets = mcgrad.Subset(a, 2)
    cases = {
        "Dirichlet": (mcgrad.Dirichlet, jnp.diag(trigamma(a)) - trigamma(jnp.sum(a))),
        "MultivariateNormal": (
            lambda a: mcgrad.MultivariateNormal(loc + a, scale_tril=factor),
            jnp.linalg.inv(factor @ factor.T),
        ),
        "scale": (
            lambda a: mcgrad.MultivariateNormal(loc, scale_tril=jnp.exp(a[:, None] + jnp.zeros((1, 3))) * factor),
            jnp.eye(3) + (factor @ factor.T) * jnp.linalg.inv(factor @ factor.T),
        ),
        "Multinomial": (lambda a: mcgrad.Multinomial(5, logits=a), 5 * (jnp.diag(p) - jnp.outer(p, p))),
        "Subset": (lambda a: mcgrad.Subset(a, 2), jax.jacobian(lambda a: mcgrad.Subset(a, 2).marginals())(a)),
        "several": (
            lambda a: {
                "bits": mcgrad.Independent(mcgrad.Bernoulli(logits=jnp.stack([a, a])), 1),
                "rate": mcgrad.Poisson(jnp.exp(a)),
            },
            jnp.diag(2 * jax.nn.sigmoid(a) * jax.nn.sigmoid(-a) + jnp.exp(a)),
        ),
    }
    assert subsets.support() is not None
    for name, (law, exact) in cases.items():
        at = a if name != "scale" else jnp.zeros(3)
        step = mcgrad.natural(law, damping=0.1)
        found = jax.jit(lambda g, at, step=step: step.update(g, None, at)[0])(exact @ jnp.full(3, 0.4) + 0.04, at)
        np.testing.assert_allclose(found, jnp.full(3, 0.4), rtol=1e-8, err_msg=name)


def chain(params: Any, key: Any) -> Any:
    """A walk of three steps, and a bit that depends on its end; some cost is a threshold."""
    steps, last = jax.random.split(key)

    def step(z: Any, key: Any) -> Any:
        z = mcgrad.sample(key, mcgrad.Normal(z + params["drift"], 0.7))
        return z, None

    z, _ = jax.lax.scan(step, 0.0, jax.random.split(steps, 3))
    b = mcgrad.sample(last, mcgrad.Bernoulli(logits=params["slope"] * z))
    return jnp.where(z > params["drift"], 1.0 * b, 2.0) + z**2


def test_scores_of_a_program_make_up_its_fisher_matrix() -> None:
    params = {"drift": jnp.asarray(0.3), "slope": jnp.asarray(0.8)}
    rows = jax.jit(lambda params, key: scores(chain, params, (key,), 20_000))(params, jax.random.key(0))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = 3 * 0.3 + np.sqrt(3) * 0.7 * nodes
    chance = np.asarray(jax.nn.sigmoid(0.8 * z))
    of_slope = (weights / weights.sum()) @ (z**2 * chance * (1 - chance))
    exact = np.diag([3 / 0.7**2, of_slope])
    assert_unbiased(np.asarray(rows[:, :, None] * rows[:, None]), exact)
    np.testing.assert_allclose(rows.mean(0), 0, atol=5 * np.sqrt(np.diag(exact).max() / len(rows)))

    gradient = {"drift": jnp.asarray(1.0), "slope": jnp.asarray(-0.5)}
    flat = jnp.asarray([1.0, -0.5])
    for num in (1, 64):  # in the dimension of samples, and in that of parameters
        step = mcgrad.natural(chain, num_samples=num, damping=0.2)
        rows = scores(chain, params, (jax.random.key(1),), num)
        found, _ = jax.jit(step.update)(gradient, step.init(params), params, args=(jax.random.key(1),))
        wanted = jnp.linalg.solve(rows.T @ rows / num + 0.2 * jnp.eye(2), flat)
        np.testing.assert_allclose([found["drift"], found["slope"]], wanted, rtol=1e-9)


def test_in_a_chain_of_transforms() -> None:
    """A step of one along the natural gradient of a quadratic cost of normal draws ends where the cost is least."""
    target = jnp.asarray([1.0, -2.0])

    def loss(loc: Any, key: Any) -> Any:
        return 0.5 * jnp.sum((mcgrad.sample(key, mcgrad.Normal(loc, jnp.asarray([0.5, 0.5]))) - target) ** 2) / 0.25

    optimizer = optax.chain(mcgrad.natural(lambda loc: mcgrad.Normal(loc, 0.5), damping=0.0), optax.sgd(1.0))
    loc = jnp.zeros(2)
    gradient = jax.grad(mcgrad.expectation(loss, num_samples=2_000))(loc, jax.random.key(0))
    updates, _ = optimizer.update(gradient, optimizer.init(loc), loc)
    np.testing.assert_allclose(optax.apply_updates(loc, updates), target, atol=0.1)
    by_scores = optax.chain(mcgrad.natural(loss, num_samples=64, damping=1e-2), optax.sgd(1.0))
    updates, _ = by_scores.update(gradient, by_scores.init(loc), loc, args=(jax.random.key(1),))
    np.testing.assert_allclose(optax.apply_updates(loc, updates), target, rtol=0.5)


def test_what_cannot_be_is_refused() -> None:
    key, one = jax.random.key(0), jnp.asarray(1.0)
    with pytest.raises(TypeError, match=r"natural\(fn=...\)` must be a function, got Normal"):
        mcgrad.natural(mcgrad.Normal(0.0, 1.0))
    for damping in (-1.0, np.nan, np.ones(2)):
        with pytest.raises(ValueError, match=r"natural\(damping=...\)` must be one number, at least zero"):
            mcgrad.natural(chain, damping=damping)
    with pytest.raises(ValueError, match=r"natural\(damping=...\)` must be one number above zero"):
        mcgrad.natural(chain, num_samples=3, damping=0.0)
    with pytest.raises(ValueError, match=r"natural\(num_samples=...\)` must be a positive int"):
        mcgrad.natural(chain, num_samples=0)
    with pytest.raises(ValueError, match=r"`update\(gradients, state, params\)`, got no parameters"):
        mcgrad.natural(lambda p: mcgrad.Normal(p, 1.0)).update(one, None)
    with pytest.raises(ValueError, match=r"args=\(...\)\)`, got None for `args`"):
        mcgrad.natural(chain, num_samples=3).update(one, None, one)
    with pytest.raises(ValueError, match=r"whose Fisher matrix has a closed form, got Laplace"):
        mcgrad.natural(lambda p: mcgrad.Laplace(p, 1.0)).update(one, None, one)
    with pytest.raises(TypeError, match="must return distributions of mcgrad, got"):
        mcgrad.natural(lambda p: 2 * p).update(one, None, one)

    def named(p: Any, key: Any) -> Any:
        return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=p), mcgrad.DisARM())

    with pytest.raises(ValueError, match=r"draws that name no estimator, got `DisARM` at .*test_natural.py"):
        mcgrad.natural(named, num_samples=3).update(one, None, one, args=(key,))
