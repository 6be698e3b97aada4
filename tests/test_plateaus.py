"""Equality with a value that others stay at, what is no number outside of a domain, and other jumps that hide in one operation."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

relu, f32 = jax.nn.relu, jnp.float32


def rebate(x: Any) -> Any:
    payoff = relu(jnp.exp(x) - 1)
    return jnp.where(payoff == 0, 0.5, payoff)


def censored(x: Any) -> Any:
    y = jnp.minimum(jnp.exp(x), 2.0)
    return jnp.where(y == 2.0, -1.0, jnp.log(y))


JUMPS = {
    "equal to zero after relu": lambda x: jnp.where(relu(x) == 0, 3.0, relu(x)),
    "unequal": lambda x: jnp.where(relu(x) != 0, 1.0, relu(x)),
    "relu as a condition": lambda x: jnp.where(relu(x), 1.0, 0.0),
    "full": lambda x: (jax.nn.relu6(x + 6.0) == 6.0) * 1.0,
    "saturated": lambda x: (jnp.tanh(1e3 * x) == 1.0) * 1.0,
    "count_nonzero": lambda x: 1.0 * jnp.count_nonzero(jnp.clip(x, 0.0, 1.0)),
    "isin": lambda x: 1.0 * jnp.isin(relu(x), jnp.zeros(1)),
    "a rebate": rebate,
    "censored": censored,
    "in a branch": lambda x: jax.lax.cond(relu(x) == 0, lambda: 3 + 0 * x, lambda: relu(x)),
    "in a scan": lambda x: jax.lax.scan(lambda c, _: (jnp.where(relu(x) == 0, 3.0, c), None), x, None, length=2)[0],
    "isnan": lambda x: jnp.where(jnp.isnan(jnp.log(x)), 1.0, x),
    "isfinite": lambda x: 1.0 * jnp.isfinite(jnp.sqrt(x)),
    "nan_to_num": lambda x: jnp.nan_to_num(jnp.arccosh(x), nan=5.0),
    "eight bits": lambda x: x.astype(jnp.float8_e4m3fn).astype(x.dtype),
    "few bits": lambda x: jax.lax.reduce_precision(x, 5, 2) ** 2,
    "logarithm of a complex number": lambda x: jnp.log(jax.lax.complex(-jnp.ones_like(x), x)).imag,
    "root of a complex number": lambda x: jnp.sqrt(jax.lax.complex(-jnp.ones_like(x), x)).imag,
    "qr": lambda x: jnp.linalg.qr(jnp.asarray([[0.0, 1.0], [1.0, 2.0]], x.dtype).at[0, 0].set(x))[1][0, 0],
}
CONTINUOUS = {
    "a guard of a division": lambda x: x / jnp.where(jnp.abs(x) == 0, 1.0, 2 + jnp.abs(x)),
    "a guard of a norm": lambda x: jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x**2 + 1)) - 1),
    "an entropy of what may be zero": lambda x: jnp.sum(jax.scipy.special.entr(jnp.stack([relu(x), 0.3]))),
    "xlogy": lambda x: jax.scipy.special.xlogy(relu(x), relu(x)),
    "nan_to_num": lambda x: jnp.nan_to_num(jnp.sin(x)),
    "a guard against what is not finite": lambda x: jnp.where(jnp.isfinite(x), x, 0.0) ** 2,
    "logsumexp": lambda x: jax.nn.logsumexp(jnp.stack([x, 2 * x, -jnp.inf])),
    "logaddexp": lambda x: jnp.logaddexp(x, 0.3),
    "equality that never holds": lambda x: jnp.where(jnp.exp(x) == 3.0, 7.0, x),
    "continuous at a plateau": lambda x: jnp.where(relu(x) == 0, 0.0, 2 * relu(x)),
    "sixteen bits": lambda x: x.astype(jnp.bfloat16).astype(x.dtype) ** 2,
    "a complex number off the cut": lambda x: jnp.log(jax.lax.complex(2.0 + x**2, x)).imag,
    "a norm of complex numbers": lambda x: jnp.abs(jnp.fft.fft(jnp.stack([x, x**2, jnp.ones_like(x)]))[1]) ** 2,
    "least squares by qr": lambda x: _by_qr(x),
    "an orthogonal projection": lambda x: _projected(x),
}


def _by_qr(x: Any) -> Any:
    a = jnp.stack(
        [jnp.stack([x, jnp.ones_like(x)]), jnp.asarray([1.0, 2.0], x.dtype), jnp.asarray([0.5, -1.0], x.dtype)]
    )
    q, r = jnp.linalg.qr(a)
    return jnp.sum(jax.scipy.linalg.solve_triangular(r, q.T @ jnp.arange(3.0, dtype=x.dtype)))


def _projected(x: Any) -> Any:
    q, _ = jnp.linalg.qr(jnp.stack([jnp.stack([x]), jnp.ones(1, x.dtype), jnp.ones(1, x.dtype)]))
    return jnp.sum((q @ q.T)[0])


def program(cost: Any) -> Any:
    return lambda t, key: cost(mcgrad.sample(key, mcgrad.Normal(t, 1.0)))


@pytest.mark.parametrize("name", JUMPS)
def test_the_default_does_not_follow_a_path_over_a_jump(name: str) -> None:
    fn, t = program(JUMPS[name]), f32(0.2)
    for key in jax.random.split(jax.random.key(3), 3):
        np.testing.assert_allclose(
            mcgrad.grad(fn)(t, key), mcgrad.grad(fn, estimator=mcgrad.Score())(t, key), rtol=1e-5
        )
    with pytest.warns(mcgrad.JumpWarning, match=r"test_plateaus\.py"):
        mcgrad.pathwise_grad(fn)(t, jax.random.key(3))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_what_is_continuous_keeps_its_path_without_a_word(name: str) -> None:
    fn, t = program(CONTINUOUS[name]), f32(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in jax.random.split(jax.random.key(3), 3):
            found = mcgrad.grad(fn)(t, key)
            np.testing.assert_allclose(found, mcgrad.pathwise_grad(fn)(t, key), rtol=1e-5)
            expected = jax.grad(lambda t, key=key: CONTINUOUS[name](t + jax.random.normal(key, dtype=t.dtype)))(t)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_gradients_are_those_of_the_means() -> None:
    """By quadrature, one of each kind."""
    z = np.linspace(-8, 8, 160_001)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    for name in ("equal to zero after relu", "isnan", "few bits", "root of a complex number"):
        values = np.asarray(jax.vmap(JUMPS[name])(jnp.asarray(z + 0.2, f32)), np.float64)
        exact = np.sum(density * z * np.where(np.isfinite(values), values, 0.0))
        found = np.asarray(jax.jit(jax.vmap(mcgrad.grad(program(JUMPS[name])), (None, 0)))(f32(0.2), keys))
        assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(len(keys)), name
