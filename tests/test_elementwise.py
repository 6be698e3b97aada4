"""Functions that are one operation in a program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from mcgrad.distributions.numerics.elementwise import smooth


def plain(x: Any, y: Any) -> Any:
    return jnp.sin(x) * jnp.where(y > 0, y, jnp.expm1(y))


product = smooth(plain)


def test_values_and_derivatives_are_those_of_the_function() -> None:
    x, y = jnp.linspace(-1.0, 2.0, 5), jnp.asarray(-0.3)
    np.testing.assert_allclose(product(x, y), plain(x, y), rtol=1e-12)
    for fn in (jax.jacfwd, jax.jacrev, jax.hessian):
        for argnum in (0, 1):
            np.testing.assert_allclose(fn(product, argnum)(x, y), fn(plain, argnum)(x, y), rtol=1e-12)
    mapped = jax.jit(jax.vmap(jax.vmap(product, (None, 0)), (0, None)))
    np.testing.assert_allclose(mapped(x, x), plain(x[:, None], x[None]), rtol=1e-12)


def test_credit_goes_through_entry_by_entry() -> None:
    def loss(logits: Any, key: Any) -> Any:
        bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score())
        return jnp.sum(product(bits + 0.3, logits))

    explained = str(mcgrad.explain(loss)(jnp.zeros(4), jax.random.key(0)))
    assert "axis 0 same" in explained, explained


def test_a_mixture_of_many_terms_is_planned_without_a_word() -> None:
    """The noncentral chi-squared density rounds and holds fixed inside: it took minutes to see that this changes nothing."""

    def loss(noncentrality: Any, key: Any) -> Any:
        dist = mcgrad.NoncentralChi2(jnp.full(2, 3.0), noncentrality)
        return jnp.sum(dist.log_prob(mcgrad.sample(key, dist)))

    explained = str(mcgrad.explain(loss)(2.0, jax.random.key(0)))  # warnings are errors here
    assert "jump" not in explained and "Pathwise" in explained, explained
