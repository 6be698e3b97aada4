"""Checks of a distribution's derivatives in its parameters: score, density ratio and path."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.diagnostics.agreement import Agreement, mean_zero, not_known
from mcgrad.diagnostics.subject import Subject
from mcgrad.distributions.derivatives.pathwise_check import pathwise_obstacle

_MOST_COORDINATES = 24  # of one parameter; of more, as many random sums of all
_STEP = 0.04  # by which parameters are moved, relatively
_CHUNK = 500  # draws differentiated at once


def derivative_rows(subject: Subject, level: float) -> Iterator[Agreement]:
    """The rows *score*, *parameters moved* and *path and score*."""
    names = ("score", "parameters moved", "path and score")
    if subject.log_prob is None:
        yield from (not_known(name, "there is no log density") for name in names)
        return
    known, left_out = _parameters(subject)
    aside = f"; left out, since the support moves with them: {', '.join(left_out)}" if left_out else ""
    if not known:
        yield from (not_known(name, "of no parameter" + aside) for name in names)
        return
    functions, features = _functions(subject)
    obstacle = pathwise_obstacle(subject.dist)
    scores, differences = _derivatives(subject, known, functions if obstacle is None else None)
    yield mean_zero("score", scores, subject.rounding, level, "the largest mean, in standard errors" + aside)
    yield _moved(subject, known, functions, features, level)
    if obstacle is not None:
        yield not_known("path and score", f"no path: {obstacle}")
    else:
        words = "the largest mean difference for two functions of a draw, in standard errors" + aside
        yield mean_zero("path and score", differences, subject.rounding, level, words)


def _parameters(subject: Subject) -> tuple[list[int], list[str]]:
    """The leaves whose score has mean zero, and the names of those with which the support moves."""
    known, left_out = [], []
    for i, (name, leaf) in enumerate(zip(subject.names, subject.leaves, strict=True)):
        whole = name.endswith("total_count") and np.all(np.asarray(leaf) == np.round(np.asarray(leaf)))
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size and not whole:
            if subject.moves_support[i]:
                left_out.append(f"`{name or 'params'}`")
            else:
                known.append(i)
    return known, left_out


def _functions(subject: Subject) -> tuple[Callable[[Any], Any], np.ndarray]:
    """Two functions of a draw, `[entries, 2]`, and their values at the draws `[n, entries, 2]`.

    They are zero beyond quantiles of the draws: means exist, and where an angle jumps from one end to the other is no step.
    """
    n, entries, size = subject.num_samples, subject.entries, subject.event_size
    weights = np.random.default_rng(subject.seed).uniform(0.4, 1.0, size) * (-1.0) ** np.arange(size)
    spread = np.subtract(*np.quantile(subject.flat, (0.75, 0.25), axis=0))
    # What is constant but for rounding (the diagonal of a correlation matrix) stays as it is.
    constant = spread <= 8 * subject.epsilon * np.max(np.abs(subject.flat), axis=0)
    weights = weights / np.where(constant, 1.0, spread)  # [entries, size]
    low, high = np.quantile(np.sum(subject.flat * weights, axis=-1), (0.02, 0.98), axis=0)
    center, scale = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)

    def functions(x: Any) -> Any:
        dtype = subject.point_dtype
        leaves = [jnp.asarray(leaf, dtype).reshape(entries, -1) for leaf in jax.tree.leaves(x)]
        s = jnp.sum(jnp.concatenate(leaves, -1) * jnp.asarray(weights, dtype), -1)
        t = jnp.clip((s - jnp.asarray(center, dtype)) / jnp.asarray(scale, dtype), -1, 1)
        bump = (1 - t**2) ** 2
        return jnp.stack([bump * (1.3 + t), bump * (t - 0.2)], -1)

    values = jax.jit(jax.vmap(functions))(subject.draws)
    return functions, np.asarray(values, np.float64).reshape(n, entries, 2)


def _derivatives(subject: Subject, known: list[int], functions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[n, coordinates]`, and differences of derivatives by path and by score of both functions."""
    pick = lambda leaves: [leaves[i] for i in known]  # noqa: E731
    tangents = [_tangent(np.asarray(subject.leaves[i], np.float64), subject.seed) for i in known]

    def put(moved: Any, leaves: Any) -> Any:
        leaves = list(leaves)
        for i, value in zip(known, moved, strict=True):
            leaves[i] = value
        return subject.of(leaves)

    def coordinates(gradient: Any) -> Any:
        return jnp.concatenate(
            [t(jnp.asarray(g, subject.point_dtype)) for t, g in zip(tangents, gradient, strict=True)]
        )

    def one(leaves: Any, key: Any) -> tuple[Any, Any]:
        own = pick(leaves)
        x, pull = (
            jax.vjp(lambda p: put(p, leaves).sample(key), own)
            if functions is not None
            else (subject.of(leaves).sample(key), None)
        )
        x = jax.lax.stop_gradient(x)
        log_prob, pull_score = jax.vjp(lambda p: put(p, leaves).log_prob(x), own)
        score = coordinates(pull_score(jnp.ones_like(log_prob))[0])
        if pull is None:
            return score, jnp.zeros(0)
        value, pull_value = jax.vjp(functions, x)
        found = []
        for j in range(2):
            (to_draw,) = pull_value(jnp.zeros_like(value).at[:, j].set(1))
            of_score = pull_score(value[:, j].reshape(log_prob.shape).astype(log_prob.dtype))[0]
            found.append(coordinates(pull(to_draw)[0]) - coordinates(of_score))
        return score, jnp.concatenate(found)

    chunk = jax.jit(lambda leaves, keys: jax.vmap(functools.partial(one, leaves))(keys))
    keys = subject.keys
    chunks = [
        chunk(subject.leaves, keys[i : i + _CHUNK]) for i in range(0, subject.num_samples // _CHUNK * _CHUNK, _CHUNK)
    ]
    scores, differences = (
        np.concatenate([np.asarray(part, np.float64) for part in parts]) for parts in zip(*chunks, strict=True)
    )
    return scores, differences


def _tangent(leaf: np.ndarray, seed: int) -> Callable[[Any], Any]:
    """Coordinates of a gradient, along the directions in which a parameter can go.

    Weights that add up to one, a unit vector, a symmetric or triangular matrix stay such.
    """
    last = leaf.shape[-1] if leaf.ndim else 1
    square = leaf.ndim >= 2 and last > 1 and leaf.shape[-2] == last
    on_simplex = last > 1 and np.all(leaf >= 0) and np.allclose(leaf.sum(-1), 1, atol=1e-3)
    unit = last > 1 and np.allclose(np.sum(leaf**2, -1), 1, atol=1e-3)
    symmetric = square and np.allclose(leaf, np.swapaxes(leaf, -1, -2))
    triangular = square and not symmetric and not np.triu(leaf, 1).any()
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (_MOST_COORDINATES, leaf.size))

    def coordinates(g: Any) -> Any:
        if symmetric:
            g = (g + jnp.swapaxes(g, -1, -2)) / 2
        elif triangular:
            g = jnp.tril(g)
        elif on_simplex:
            g = g - jnp.mean(g, -1, keepdims=True)
        elif unit:
            direction = jnp.asarray(leaf, g.dtype)
            g = g - direction * jnp.sum(g * direction, -1, keepdims=True)
        return g.ravel() if leaf.size <= _MOST_COORDINATES else jnp.asarray(signs, g.dtype) @ g.ravel()

    return coordinates


def _moved(subject: Subject, known: list[int], functions: Any, values: np.ndarray, level: float) -> Agreement:
    """Draws of moved parameters, weighted by the ratio of densities, against those of the parameters themselves."""
    leaves = list(subject.leaves)
    for i in known:
        leaves[i] = jnp.asarray(_move(np.asarray(leaves[i], np.float64)), leaves[i].dtype)
    keys = jax.random.split(subject.other_key, subject.num_samples)

    def weighted(own: Any, other: Any, key: Any) -> tuple[Any, Any]:
        x = subject.of(other).sample(key)
        log_weight = subject.of(own).log_prob(x) - subject.of(other).log_prob(x)
        return jnp.exp(jnp.asarray(log_weight, subject.point_dtype)), functions(x)

    w, f = jax.jit(jax.vmap(weighted, (None, None, 0)))(subject.leaves, tuple(leaves), keys)
    w = np.asarray(w, np.float64).reshape(subject.num_samples, -1, 1)
    f = np.asarray(f, np.float64)
    differences = np.concatenate([w - 1, w * f - values], axis=-1)  # draws of both are independent
    words = f"weighted means of 1 and two functions with parameters {_STEP:.0%} off, in standard errors"
    return mean_zero("parameters moved", differences.reshape(subject.num_samples, -1), subject.rounding, level, words)


def _move(leaf: np.ndarray) -> np.ndarray:
    """A parameter a little nearer to zero; weights that add up to one nearer to each other, unit vectors where they are."""
    last = leaf.shape[-1] if leaf.ndim else 1
    if last > 1 and np.all(leaf >= 0) and np.allclose(leaf.sum(-1), 1, atol=1e-3):
        powers = leaf ** (1 - _STEP)
        return powers / powers.sum(-1, keepdims=True)
    if last > 1 and (np.allclose(np.sum(leaf**2, -1), 1, atol=1e-3) or _unit_diagonal(leaf)):
        return leaf
    return leaf * (1 - _STEP)


def _unit_diagonal(leaf: np.ndarray) -> bool:
    if leaf.ndim < 2 or leaf.shape[-1] != leaf.shape[-2]:
        return False
    return bool(np.allclose(np.diagonal(leaf, axis1=-2, axis2=-1), 1))
