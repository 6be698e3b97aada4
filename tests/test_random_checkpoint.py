"""Backward passes that keep random sketches: unbiased whatever they keep, smaller the less they keep, refused where not linear."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad


def mlp(params, x):
    for w, b in params:
        x = jnp.tanh(x @ w + b[None]) + jax.nn.relu(x)
    return jnp.mean(x**2)


def of_mlp(batch=16, width=4, depth=3, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    w = [jnp.asarray(rng.normal(size=(width, width)) / width**0.5, dtype) for _ in range(depth)]
    return [(w, jnp.full(width, 0.1, dtype)) for w in w], jnp.asarray(rng.normal(size=(batch, width)), dtype)


def diffusion(params, u):
    """Diffusion with growth, step by step."""

    def step(u, _):
        apart = jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u
        return u + 0.1 * (params["speed"] * apart + params["growth"] * u * (1 - u)), jnp.sum(u)

    last, sums = jax.lax.scan(step, u, length=20)
    return jnp.mean(last**2) + 0.01 * jnp.mean(sums)


def of_diffusion(size=24, dtype=jnp.float64):
    at = np.linspace(-3, 3, size)
    params = {"speed": jnp.asarray(0.8 + 0.2 * np.sin(at), dtype), "growth": jnp.asarray(0.5, dtype)}
    return params, jnp.asarray(np.exp(-(at**2)), dtype)


def repeated(params, x):
    """One array is a factor twice on the way, and once more behind the two."""
    h = jnp.exp(params["a"] * x)
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0])
    y = (turn @ (h * (turn @ (h * (turn @ (h * params["b"])))))) / (1 + h)
    return jnp.sum(jax.nn.softmax(y) * jnp.log(h + 2)) + jax.nn.logsumexp(y)


def of_repeated():
    return {"a": jnp.linspace(-0.3, 0.5, 16), "b": jnp.ones(16)}, jnp.linspace(1.0, -1.0, 16)


def branching(params, x):
    def step(y, row):
        w, up = row
        y = jax.lax.cond(up, lambda y: jnp.sin(y * w) * y, lambda y: jnp.tanh(y) + w, y)
        return jax.jit(lambda y: y * jnp.cos(y))(y), None

    return jnp.sum(jax.lax.scan(step, x, (params, jnp.arange(len(params)) % 2 == 0))[0] ** 2)


def of_branching():
    return jnp.linspace(0.5, 1.0, 3 * 6).reshape(3, 6), jnp.linspace(-1.0, 1.0, 6)


CASES = {
    "mlp": (mlp, of_mlp(), 0.5),
    "diffusion": (diffusion, of_diffusion(), 0.3),
    "repeated": (repeated, of_repeated(), 0.5),
    "branching": (branching, of_branching(), 0.5),
}


def gradient(fn, keep):
    sketched = mcgrad.random_checkpoint(fn, keep=keep)
    return lambda params, x, key: jax.value_and_grad(lambda p, x: sketched(p, x, key=key), argnums=(0, 1))(params, x)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_the_gradients(name):
    """2,000 gradients are within 4 standard errors in each coordinate; all of them when everything is kept."""
    fn, (params, x), keep = CASES[name]
    value, exact = jax.jit(jax.value_and_grad(fn, argnums=(0, 1)))(params, x)
    keys = jax.random.split(jax.random.key(0), 2000)
    values, draws = jax.jit(jax.vmap(gradient(fn, keep), (None, None, 0)))(params, x, keys)
    np.testing.assert_allclose(values, np.full(2000, value), rtol=1e-12)
    spread = []
    for drawn, target in zip(jax.tree.leaves(draws), jax.tree.leaves(exact), strict=True):
        error = np.std(drawn, axis=0) / 2000**0.5
        assert np.all(np.abs(np.mean(drawn, axis=0) - target) < 4 * error + 1e-9)
        spread.append(np.max(error) / np.max(np.abs(target)))
    assert 1e-3 < max(spread) < 0.3
    whole = jax.jit(gradient(fn, 1))(params, x, keys[0])[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), whole, exact)


@pytest.mark.parametrize("name", ["mlp", "diffusion"])
def test_memory_falls_with_what_is_kept(name):
    if name == "mlp":
        fn, (params, x) = mlp, of_mlp(batch=1024, width=16, depth=12, dtype=jnp.float32)
    else:
        fn, (params, x) = diffusion, of_diffusion(size=4096, dtype=jnp.float32)

    def memory(fn, *more):
        compiled = jax.jit(fn).lower(params, x, *more).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * x.size)

    found = {
        keep: memory(lambda p, x, key, keep=keep: gradient(fn, keep)(p, x, key), jax.random.key(0))
        for keep in (0.3, 0.1, 0.02)
    }
    assert found[0.3] > found[0.1] > found[0.02]
    assert found[0.02] < 0.7 * memory(jax.value_and_grad(fn, argnums=(0, 1)))


def test_single_precision_and_batches():
    params, x = of_mlp(dtype=jnp.float32)
    xs = jnp.stack([x, 2 * x])
    keys = jax.random.split(jax.random.key(0))
    value, (of_params, of_x) = jax.vmap(gradient(mlp, 0.2), (None, 0, 0))(params, xs, keys)
    assert value.dtype == of_x.dtype == of_params[0][0].dtype == jnp.float32
    for i in range(2):
        alone = gradient(mlp, 0.2)(params, xs[i], keys[i])[1][1]
        np.testing.assert_allclose(of_x[i], alone, rtol=1e-4, atol=1e-6)


def test_what_is_given_is_kept_as_it_is():
    """Weights, also converted and turned around, and rows of a scan that are arguments."""
    w = jnp.linspace(-1.0, 1.0, 400).reshape(20, 20)

    def fn(x, w, rows):
        y = x @ w.T.astype(jnp.float32).astype(jnp.float64)
        return jnp.sum(jax.lax.scan(lambda y, row: (y * row, None), y, rows)[0])

    rows = jnp.linspace(0.5, 1.5, 60).reshape(3, 20)
    x = jnp.linspace(0.0, 1.0, 20)
    sketched = mcgrad.random_checkpoint(fn, keep=0.1)
    exact = jax.grad(fn)(x, w, rows)
    np.testing.assert_allclose(jax.grad(sketched)(x, w, rows, key=jax.random.key(0)), exact, rtol=1e-10)
    of_w = jax.grad(sketched, argnums=1)(x, w, rows, key=jax.random.key(0))
    np.testing.assert_allclose(of_w, jax.grad(fn, argnums=1)(x, w, rows), rtol=1e-6)  # of `x`, which is given too


def test_what_is_not_linear_is_refused():
    def fn(a, b):
        lower = jnp.exp(a)
        return jnp.sum(jax.scipy.linalg.solve_triangular(lower, b, lower=True))

    a, b = jnp.eye(3), jnp.ones(3)
    with pytest.raises(NotImplementedError, match=r"not linear in it.*jax.checkpoint"):
        jax.grad(mcgrad.random_checkpoint(fn, keep=0.5))(a, b, key=jax.random.key(0))
    with pytest.raises(NotImplementedError, match=r"`triangular_solve` at .*test_random_checkpoint.py:\d+"):
        jax.grad(mcgrad.random_checkpoint(fn, keep=0.5))(a, b, key=jax.random.key(0))
    inside = mcgrad.random_checkpoint(jax.checkpoint(fn), keep=0.5)
    np.testing.assert_allclose(jax.grad(inside)(a, b, key=jax.random.key(0)), jax.grad(fn)(a, b), rtol=1e-12)


def test_first_derivatives_in_reverse_mode_only():
    sketched = mcgrad.random_checkpoint(lambda x: jnp.sum(jnp.sin(x) ** 2), keep=0.5)
    one = lambda x: sketched(x, key=jax.random.key(0))  # noqa: E731
    x = jnp.arange(8.0)
    with pytest.raises(NotImplementedError, match=r"derivative of a derivative of `mcgrad.random_checkpoint`"):
        jax.grad(lambda x: jnp.sum(jax.grad(one)(x) ** 2))(x)
    with pytest.raises(NotImplementedError, match=r"derivative of a derivative of `mcgrad.random_checkpoint`"):
        jax.jvp(jax.grad(one), (x,), (x,))
    with pytest.raises(TypeError, match="jvp"):
        jax.jvp(one, (x,), (x,))


def test_programs_that_draw():
    def program(logits, key):
        key_b, key_z = jax.random.split(key)
        bits = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=logits))
        return jnp.sum(jnp.tanh(logits * mcgrad.sample(key_z, mcgrad.Normal(bits + 0.5, 1.0))) ** 2)

    logits = jnp.linspace(-1.0, 1.0, 8)
    with pytest.raises(
        NotImplementedError, match=r"without draws, and there is one at .*test_random_checkpoint.py:\d+"
    ):
        mcgrad.random_checkpoint(program, keep=0.5)(logits, jax.random.key(0))
    plain = jax.vmap(jax.grad(mcgrad.expectation(program)), (None, 0))
    sketched = jax.vmap(jax.grad(mcgrad.random_checkpoint(mcgrad.expectation(program), keep=0.5)), (None, 0))
    keys = jax.random.split(jax.random.key(1), 20_000)
    with jax.debug_key_reuse(False):
        a, b = jax.jit(lambda keys: (plain(logits, keys), sketched(logits, keys)))(keys)
    assert np.all(np.abs(np.mean(a - b, axis=0)) < 4.5 * np.std(a - b, axis=0) / len(keys) ** 0.5)
    assert np.mean(np.var(b, axis=0)) > 1.1 * np.mean(np.var(a, axis=0))

    def whole(logits, key):  # a part without draws, inside of a program
        z = mcgrad.sample(key, mcgrad.Normal(logits, 1.0))
        return jnp.sum(mcgrad.random_checkpoint(jnp.sin, keep=1.0)(z, key=jax.random.key(3)))

    exact = jax.grad(mcgrad.expectation(lambda x, key: jnp.sum(jnp.sin(mcgrad.sample(key, mcgrad.Normal(x, 1.0))))))
    with jax.debug_key_reuse(False):
        np.testing.assert_allclose(mcgrad.grad(whole)(logits, keys[0]), exact(logits, keys[0]), rtol=1e-10)


def test_what_cannot_be_is_refused():
    for keep in (0, 1.5, -0.1, "half", True):
        with pytest.raises(ValueError, match=r"`mcgrad.random_checkpoint\(keep=...\)` must be a number above 0"):
            mcgrad.random_checkpoint(jnp.sin, keep=keep)
    with pytest.raises(ValueError, match=r"`mcgrad.random_checkpoint` must get a key"):
        mcgrad.random_checkpoint(lambda x: x, keep=0.5)(1.0)
    with pytest.raises(TypeError, match="must be a key"):
        mcgrad.random_checkpoint(lambda x: x, keep=0.5)(1.0, key=3)


def test_a_product_of_two_random_parts_is_refused():
    inner = mcgrad.random_checkpoint(lambda x: jnp.sin(x) ** 2, keep=0.5)
    outer = mcgrad.random_checkpoint(lambda x, key: jnp.sum(jnp.exp(inner(x, key=key)) * jnp.cos(x)), keep=0.5)
    with pytest.raises(NotImplementedError, match=r"`mul` at .*test_random_checkpoint.py"):
        jax.grad(outer)(jnp.arange(8.0) / 8, jax.random.key(0))
