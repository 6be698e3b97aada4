"""Distributions of ancestors against sums over all of them: draws, densities, gradients, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad

SCHEMES = [mcgrad.WithReplacement, mcgrad.Stratified, mcgrad.Systematic, mcgrad.Residual]
LOG_WEIGHTS = jnp.array([0.3, -0.4, 1.1, -2.0])
N = len(LOG_WEIGHTS)
EVERY = jnp.array(list(itertools.product(range(N), repeat=N)))


def at(positions: Any, ends: Any) -> Any:
    return jnp.minimum(jnp.sum(positions[:, None] >= ends[None], -1), N - 1)


def cells(ends: Any) -> tuple[Any, Any]:
    """The pieces of [0, 1) between the fractions of the ends: their middles, and their lengths."""
    cuts = jnp.sort(jnp.concatenate([jnp.zeros(1), jnp.mod(ends[:-1], 1.0), jnp.ones(1)]))
    return jax.lax.stop_gradient(cuts[1:] + cuts[:-1]) / 2, jnp.diff(cuts)


def exact(scheme: Any, f: Any, log_weights: Any) -> Any:
    """The expectation of a function of all ancestors, from the positions of a scheme."""
    weights = jax.nn.softmax(log_weights)
    ends, strata = N * jnp.cumsum(weights), jnp.arange(N)
    middles, lengths = cells(ends)
    if scheme is mcgrad.Systematic:
        return sum(length * f(at(strata + u, ends)) for u, length in zip(middles, lengths, strict=True))
    if scheme is mcgrad.Stratified:
        which = jnp.array(list(itertools.product(range(len(middles)), repeat=N)))
        return jnp.prod(lengths[which], -1) @ jax.vmap(lambda c: f(at(strata + middles[c], ends)))(which)
    if scheme is mcgrad.WithReplacement:
        return jnp.prod(weights[EVERY], -1) @ jax.vmap(f)(EVERY)
    sure = np.floor(np.asarray(N * jax.lax.stop_gradient(weights))).astype(int)
    first, left = np.repeat(np.arange(N), sure), N * weights - sure
    others = jnp.array(list(itertools.product(range(N), repeat=N - len(first))))
    together = jnp.concatenate([jnp.broadcast_to(first, (len(others), len(first))), others], -1)
    return jnp.prod((left / (N - len(first)))[others], -1) @ jax.vmap(f)(together)


def cost(ancestors: Any) -> Any:
    """Not a sum over ancestors."""
    values = jnp.array([1.0, -0.3, 0.6, 2.0])[ancestors]
    return jnp.tanh(values @ jnp.array([1.0, 0.5, -0.7, 0.4])) + 0.3 * jnp.max(values)


def by_density(scheme: Any, log_weights: Any) -> Any:
    log_prob = jax.vmap(lambda x: jnp.sum(scheme(log_weights).log_prob(x)))(EVERY)
    return jnp.sum(jnp.where(log_prob > -jnp.inf, jnp.exp(log_prob) * jax.vmap(cost)(EVERY), 0.0))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_densities_and_their_derivatives_are_those_of_the_positions(scheme: Any) -> None:
    def both(log_weights: Any) -> Any:
        fns = [lambda lw: exact(scheme, cost, lw), lambda lw: by_density(scheme, lw)]
        return [(fn(log_weights), jax.grad(fn)(log_weights), jax.hessian(fn)(log_weights)) for fn in fns]

    both = jax.jit(both) if scheme is not mcgrad.Residual else both
    for log_weights in (LOG_WEIGHTS, LOG_WEIGHTS[::-1] * 0.7):
        wanted, found = both(log_weights)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_draws_have_their_probabilities(scheme: Any, dtype: Any) -> None:
    dist = scheme(LOG_WEIGHTS.astype(dtype))
    draws = jax.jit(jax.vmap(dist.sample))(jax.random.split(jax.random.key(0), 20_000))
    place = np.asarray(draws @ jnp.array([N**3, N**2, N, 1]))
    probabilities = np.exp(np.asarray(jax.vmap(lambda x: jnp.sum(dist.log_prob(x)))(EVERY), float))
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    frequencies = np.bincount(place, minlength=N**N) / len(place)
    assert not frequencies[probabilities == 0].any()
    assert (abs(frequencies - probabilities) <= 5 * np.sqrt(probabilities / len(place)) + 1e-9).all()
    mean = np.mean(np.asarray(draws)[..., None] == np.arange(N), axis=(0, 1))
    np.testing.assert_allclose(mean, jax.nn.softmax(LOG_WEIGHTS), atol=0.01)


@pytest.mark.parametrize("scheme", SCHEMES[:3])
def test_scores_of_first_and_second_order(scheme: Any) -> None:
    direction = jnp.array([0.7, -1.2, 0.1, 0.9])

    def program(t: Any, key: Any) -> Any:
        return cost(mcgrad.sample(key, scheme(LOG_WEIGHTS + t * direction), mcgrad.Score()))

    def reference(t: Any) -> Any:
        return exact(scheme, cost, LOG_WEIGHTS + t * direction)

    expectation = mcgrad.expectation(program)
    first = jax.grad(expectation)
    with jax.debug_key_reuse(False):
        draws = jax.jit(jax.vmap(lambda key: (expectation(0.0, key), first(0.0, key), jax.grad(first)(0.0, key))))(
            jax.random.split(jax.random.key(1), 400_000)
        )
    found = (reference(0.0), jax.grad(reference)(0.0), jax.grad(jax.grad(reference))(0.0))
    assert_unbiased(draws, found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_particles_in_single_precision(scheme: Any) -> None:
    """Every draw has a probability, none is of a particle without weight, and each is drawn as often as its weight says."""
    n = 1000
    log_weights = jnp.where(jnp.arange(n) % 7 == 0, -jnp.inf, 2 * jnp.sin(jnp.arange(n) * 1.7)).astype(jnp.float32)
    dist = scheme(log_weights)
    keys = jax.random.split(jax.random.key(2), 500)
    draws, log_prob = jax.jit(jax.vmap(lambda key: (x := dist.sample(key), dist.log_prob(x))))(keys)
    assert np.isfinite(log_prob).all() and draws.dtype == jnp.int32
    assert not np.asarray(jnp.isinf(log_weights)[draws]).any()
    counts = np.asarray(jax.vmap(lambda x: jnp.bincount(x, length=n))(draws))
    shares = n * np.asarray(jax.nn.softmax(log_weights))
    spread = {mcgrad.Systematic: 1, mcgrad.Stratified: 2, mcgrad.Residual: np.inf, mcgrad.WithReplacement: np.inf}
    assert (abs(counts - shares) <= spread[scheme] + 1e-3).all()
    assert scheme is not mcgrad.Residual or (counts >= np.floor(shares - 1e-3)).all()
    errors = abs(counts.mean(0) - shares) / np.sqrt(np.maximum(shares, 1e-9) / len(draws))
    assert errors.max() < 5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batches_edges_and_halves(scheme: Any) -> None:
    rows = jnp.stack([LOG_WEIGHTS, jnp.zeros(N), jnp.array([-jnp.inf, 0.0, -jnp.inf, -jnp.inf])])
    log_prob_of = jax.jit(lambda log_weights, x: scheme(log_weights).log_prob(x))
    x = jax.jit(lambda key: scheme(rows).sample(key))(jax.random.key(0))
    log_prob = log_prob_of(rows, x)
    each = jax.jit(jax.vmap(lambda row, x: scheme(row).log_prob(x)))(rows, x)
    np.testing.assert_array_equal(log_prob, each)
    assert (x[2] == 1).all() and (jnp.exp(log_prob[2]) == 1).all()
    assert scheme is mcgrad.WithReplacement or (x[1] == jnp.arange(N)).all()
    for impossible in (jnp.array([0, 1, 2, 4]), jnp.array([-1, 1, 2, 2]), jnp.array([0.5, 1, 2, 2])):
        assert jnp.sum(log_prob_of(LOG_WEIGHTS, impossible)) == -jnp.inf
    half = scheme(LOG_WEIGHTS.astype(jnp.bfloat16))
    kinds = jax.eval_shape(lambda key: (x := half.sample(key), half.log_prob(x)), jax.random.key(1))
    assert [kind.dtype for kind in kinds] == [jnp.int32, jnp.bfloat16]
    one = scheme(jnp.array([3.0]))
    assert one.sample(jax.random.key(0)) == 0 and one.log_prob(jnp.zeros(1, int)) == 0


def test_the_score_of_residual_ancestors_is_refused() -> None:
    """Their distribution jumps where a share passes an integer: the expectation of a cost is not continuous there."""

    def expected(t: Any) -> Any:
        return exact(mcgrad.Residual, cost, jnp.log(jnp.array([0.25 + t, 0.25 - t, 0.3, 0.2])))

    def of_sum(t: Any) -> Any:
        return exact(mcgrad.Residual, lambda a: jnp.sum(a**2), jnp.log(jnp.array([0.25 + t, 0.25 - t, 0.3, 0.2])))

    assert abs(expected(1e-7) - expected(-1e-7)) > 0.01
    assert abs(of_sum(1e-7) - of_sum(-1e-7)) < 1e-5

    def program(log_weights: Any, key: Any) -> Any:
        return cost(mcgrad.sample(key, mcgrad.Residual(log_weights)))

    with pytest.raises(
        ValueError, match=r"`mcgrad.Score` would be wrong .*Residual.* support moves with `log_weights`"
    ):
        mcgrad.grad(program)(LOG_WEIGHTS, jax.random.key(0))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_refused(scheme: Any) -> None:
    name = scheme.__name__
    for log_weights, message in (
        (jnp.zeros(0), "must have at least one particle"),
        (jnp.full((2, 3), -jnp.inf), "must leave at least one particle possible"),
        (jnp.array([0.0, jnp.inf]), "must be finite or -inf"),
        (1.0, "must have at least 1 axes"),
    ):
        with pytest.raises(ValueError, match=rf"`mcgrad.{name}\(log_weights=...\)` {message}"):
            scheme(log_weights)
