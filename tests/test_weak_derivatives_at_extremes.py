"""Weak derivatives at small and large parameters, in both precisions and every configuration, against quadrature and sums."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import EXTREMES, Extremes
from helpers import RESOLUTION, STANDARD_ERRORS, assert_unbiased, imprecision

import mcgrad

OWN = mcgrad.distribution(
    sampler=lambda key, k: jax.random.exponential(key) ** (1 / k),
    cdf=lambda x, k: -jnp.expm1(-(jnp.maximum(x, 0.0) ** k)),
    log_prob=lambda x, k: jnp.log(k) + (k - 1) * jnp.log(x) - x**k,
)


CASES = {**EXTREMES, "a distribution of a user": Extremes([(0.5,), (1.0,), (6.0,)], ends=(0, np.inf), make=OWN)}


def _cost(t, center, width):
    """Neither even nor odd around the center of the law, nor monotone; it jumps."""
    z = (t - center) / width
    return jnp.tanh(z) + 0.5 * jnp.cos(z + 0.4) + 0.7 * (z > 0.3)


@functools.cache
def _center(name):
    """For each set of parameters the quartiles of what a cost is a function of, and draws of it, sorted."""
    make, sets, of = CASES[name].make, CASES[name].sets, CASES[name].of
    columns = jnp.asarray(sets).T
    keys = jax.random.split(jax.random.key(1), 4000)

    def draws(*params):
        x = jax.vmap(lambda key: make(*params).sample(key))(keys) * 1.0
        return jnp.sort(x if of is None else of(x))

    found = np.asarray(jax.jit(jax.vmap(draws))(*columns))
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75], axis=1)
    return middle, np.maximum((high - low) / 2, 0.5 if make(*sets[0]).discrete else 0.0), found


@functools.cache
def exact(name):
    """`[set, parameter]`, in float64."""
    make, sets, of = CASES[name].make, CASES[name].sets, CASES[name].of
    center, width, draws = _center(name)
    if make(*sets[0]).discrete:
        points = jnp.arange(4000)

        def expectation(params, center, width):
            return _cost(1.0 * points, center, width) @ jnp.exp(jax.vmap(make(*params).log_prob)(points))

        found = [jax.grad(expectation)(jnp.asarray(s), c, w) for s, c, w in zip(sets, center, width, strict=True)]
        return np.asarray(found)
    back = {None: lambda t: t, jnp.log: jnp.exp, jnp.arcsinh: jnp.sinh}[of]
    nodes, weights = np.polynomial.legendre.leggauss(16)
    rows = []
    for params, middle, half, drawn in zip(sets, center, width, draws, strict=True):
        edges = _edges(name, params, drawn, middle + 0.3 * half)
        step = np.diff(edges)[:, None] / 2
        t = jnp.asarray((edges[:-1, None] + step * (1 + nodes[None])).ravel())
        density = jnp.exp(jax.vmap(make(*params).log_prob)(back(t)))
        within = np.isfinite(density) & (density > 1e-290)  # a derivative where it underflows is not a number
        t, mass = t[within], jnp.asarray((step * weights[None]).ravel())[within]
        mass = mass * jax.vmap(jax.grad(back))(t)

        def expectations(params, t=t, mass=mass, middle=middle, half=half):
            law = make(*params)
            density = mass * jnp.exp(jax.vmap(law.log_prob)(back(t)))
            return _cost(t, middle, half) @ density, jnp.sum(density)

        gradient, total = jax.jit(jax.grad(expectations, has_aux=True))(jnp.asarray(params))
        assert abs(total - 1) < 1e-6, (name, params, total)
        rows.append(gradient)
    return np.asarray(rows)


def _edges(name, params, drawn, jump):
    """Cells between quantiles, and beyond them to where nothing is left, up to the ends of the support."""
    low, high = CASES[name].ends or params[-2:]
    spread = (drawn[-1] - drawn[0]) / 20
    beyond = spread * (1.25 ** np.arange(40) - 0.8)
    edges = np.clip(np.concatenate([drawn[::20], drawn[0] - beyond, drawn[-1] + beyond, [jump]]), -600, 600)
    for end, sign in ((low, 1), (high, -1)):
        if np.isfinite(end):  # a density may be infinite there
            half = np.abs(np.median(drawn) - end)
            edges = np.concatenate([edges, end + sign * half * 2.0 ** -np.arange(400), [end]])
    return np.unique(edges[(edges >= low) & (edges <= high)])


def _cases():
    """Each coupling of each decomposition in single precision, where `"shared"` and `"comonotone"` differ; the default in both."""
    for name in CASES:
        for how in (("hahn_jordan", "shared"), ("hahn_jordan", "comonotone"), ("size_bias", "comonotone")):
            yield name, how, jnp.float32
        yield name, ("hahn_jordan", "shared"), jnp.float64
        # of too much variance here to tell, in 96,000 draws
        if name not in ("F", "StudentT", "Poisson"):
            yield name, ("hahn_jordan", "independent"), jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how", "dtype"), list(_cases()))
def test_every_configuration_is_unbiased(name, how, dtype):
    make, sets, of = CASES[name].make, CASES[name].sets, CASES[name].of
    center, width, _ = _center(name)
    estimator = mcgrad.MeasureValued(*how)

    def program(params, center, width, key):
        x = 1.0 * mcgrad.sample(key, make(*params), estimator).astype(dtype)
        return _cost(x if of is None else of(x), center, width)

    arguments = (jnp.asarray(sets, dtype), *(jnp.asarray(value, dtype) for value in (center, width)))

    @jax.jit
    def run(key):
        keys = jax.random.split(key, 4000)
        return jax.vmap(jax.vmap(mcgrad.grad(program), (0, 0, 0, None)), (None, None, None, 0))(*arguments, keys)

    wanted, draws = exact(name), []
    with jax.debug_key_reuse(False):  # sets of parameters are drawn with the same keys
        for key in jax.random.split(jax.random.key(3), 24):
            draws.append(np.asarray(run(key)))
            together = np.concatenate(draws)
            if all(imprecision(together[:, i], row) < 0.95 * RESOLUTION for i, row in enumerate(wanted)):
                break
    assert together.dtype == dtype and STANDARD_ERRORS == 5
    for i, row in enumerate(wanted):
        try:
            assert_unbiased(together[:, i], row)
        except AssertionError as error:
            raise AssertionError(f"{sets[i]}: {error}") from error
