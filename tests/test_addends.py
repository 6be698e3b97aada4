"""Addends that no draw reaches are weighted with none: gradients are, on every key, those of the program without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

SIZE = 4
MATRIX = np.random.default_rng(0).normal(size=(SIZE, 3))


def offset(theta: Any) -> Any:
    """The addend, large and with a derivative of its own."""
    return 100.0 * jnp.exp(theta)


# Each takes a draw, the addend and the parameters; all are linear in the first two together.
PROGRAMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mean": lambda b, c, theta: jnp.mean(b + c),
    "difference": lambda b, c, theta: jnp.sum(c - b),
    "literal": lambda b, c, theta: jnp.sum(b - 7.0) + jnp.sum(c),
    "one of many axes": lambda b, c, theta: jnp.mean(jnp.broadcast_to(b, (3, SIZE)) + c[None]),
    "smaller addend": lambda b, c, theta: jnp.mean(b + c[:1]),
    "factor behind": lambda b, c, theta: jnp.sum((0.5 * b + c) * jnp.exp(theta)) / 3.0,
    "reshaped": lambda b, c, theta: jnp.sum((b + c).reshape(2, 2).T[:1]),
    "side by side": lambda b, c, theta: jnp.sum(jnp.stack([b, c, b + c])) + jnp.sum(jnp.concatenate([c, b])[1:6]),
    "selected": lambda b, c, theta: jnp.sum(jnp.where(jnp.arange(SIZE) > 1, b, c)),
    "negated twice": lambda b, c, theta: -jnp.sum(-(2.0 * b) + (c - b)),
    "converted": lambda b, c, theta: jnp.sum((b + c).astype(jnp.float32).astype(jnp.float64)),
    "before a product": lambda b, c, theta: jnp.sum((b + c) @ MATRIX),
    "stacked rewards": lambda b, c, theta: jnp.sum(jax.lax.scan(lambda t, x: (t, x[0] + x[1]), 0.0, (b, c))[1]),
    "rewards in a carry": lambda b, c, theta: jax.lax.scan(lambda t, x: (t + (x[0] + x[1]), None), 0.0, (b, c))[0],
    "checkpoint": lambda b, c, theta: jax.checkpoint(lambda b, c: jnp.mean(b + c))(b, c),
}


def loss_of(program: Callable[..., Any], with_offset: bool, estimator: Any) -> Callable[..., Any]:
    def loss(theta: Any, key: Any) -> Any:
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), estimator).astype(theta.dtype)
        return program(b, offset(theta) if with_offset else jnp.zeros_like(theta), theta)

    return loss


def gradients(loss: Callable[..., Any], theta: Any, num: int = 16) -> tuple[Any, Any]:
    return jax.jit(jax.vmap(mcgrad.value_and_grad(loss), (None, 0)))(theta, jax.random.split(jax.random.key(1), num))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_gradient_is_that_without_the_addend(name: str) -> None:
    program, theta = PROGRAMS[name], jnp.linspace(-0.5, 0.5, SIZE)
    found = gradients(loss_of(program, True, mcgrad.Score(baseline=None)), theta)
    without = gradients(loss_of(program, False, mcgrad.Score(baseline=None)), theta)
    alone = jax.value_and_grad(lambda theta: program(jnp.zeros(SIZE), offset(theta), theta))(theta)
    constant = 0.0 if name != "literal" else -7.0 * SIZE  # stands in both of the programs
    tolerance = 1e-3 if name == "converted" else 1e-10
    np.testing.assert_allclose(found[0], without[0] + alone[0] - constant, atol=tolerance)
    np.testing.assert_allclose(found[1], without[1] + alone[1][None], atol=tolerance)


def test_that_weighting_all_would_be_seen() -> None:
    """The same addend behind something that is not linear, so that it cannot be taken apart."""

    def loss(with_offset: bool) -> Callable[..., Any]:
        program = lambda b, c, theta: jnp.mean(jnp.exp(jnp.log(1.0 + b + c)))  # noqa: E731
        return loss_of(program, with_offset, mcgrad.Score(baseline=None))

    theta = jnp.zeros(SIZE)
    found, without = (np.var(gradients(loss(w), theta, 200)[1], axis=0).sum() for w in (True, False))
    assert found > 100 * without


def test_an_addend_that_another_path_reaches_is_not_weighted() -> None:
    def loss(theta: Any, key: Any) -> Any:
        keys = jax.random.split(key)
        b = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=theta), mcgrad.Score(baseline=None))
        x = mcgrad.sample(keys[1], mcgrad.Normal(100.0 * theta, 1.0), mcgrad.Pathwise())
        return jnp.mean(b + x)

    spread = np.std(gradients(loss, jnp.ones(SIZE))[1], axis=0)
    assert spread.max() < 0.2  # with weights: about 12


def test_the_weights_stay_behind_the_sums() -> None:
    """A constant of each entry does not bring the weights from a row's sum to its entries."""

    def loss(theta: Any, key: Any) -> Any:
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), mcgrad.Score())
        x = jnp.tanh(b @ jnp.ones((SIZE, 50)))
        return jnp.mean(jnp.sum(-0.5 * x**2 - 0.9, axis=-1))

    text = str(mcgrad.explain(loss)(jnp.zeros((3, SIZE)), jax.random.key(0)))
    assert "1 cost\n" in text
    assert "cost 0: shape (3,), from `reduce_sum`" in text


def test_a_sum_from_zero_changes_nothing() -> None:
    """`total = 0; total = total + cost`: no addend."""

    def loss(theta: Any, key: Any) -> Any:
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), mcgrad.Score())
        return jnp.zeros(()) + jnp.sum(jnp.where(jnp.arange(SIZE) > 0, jnp.tanh(b.astype(theta.dtype)), 0.0))

    text = str(mcgrad.explain(loss)(jnp.zeros(SIZE), jax.random.key(0)))
    assert "cost 0: shape (4,), from `tanh`" in text or "cost 0: shape (4,), from `select_n`" in text


STEPS: list[Callable[..., Any]] = [
    lambda x, y, theta: x + 0.7 * y,
    lambda x, y, theta: y - x,
    lambda x, y, theta: -x / 2.0,
    lambda x, y, theta: jnp.where(jnp.arange(SIZE) % 2 == 0, x, y),
    lambda x, y, theta: x * jnp.exp(theta),
    lambda x, y, theta: jnp.broadcast_to(jnp.sum(x, keepdims=True), (SIZE,)) + y,
]


@pytest.mark.parametrize("seed", range(6))
def test_random_linear_programs(seed: int) -> None:
    """Chains of linear operations on draws and addends."""

    def program(b: Any, c: Any, theta: Any) -> Any:
        rng = np.random.default_rng(seed)
        values = [b, c, b + c]
        for _ in range(8):
            x, y = (values[i] for i in rng.integers(len(values), size=2))
            values.append(STEPS[rng.integers(len(STEPS))](x, y, theta))
        return jnp.sum(jnp.stack(values[-3:]))

    theta = jnp.linspace(-1.0, 1.0, SIZE)
    found = gradients(loss_of(program, True, mcgrad.Score(baseline=None)), theta)
    without = gradients(loss_of(program, False, mcgrad.Score(baseline=None)), theta)
    alone = jax.value_and_grad(lambda theta: program(jnp.zeros(SIZE), offset(theta), theta))(theta)
    np.testing.assert_allclose(found[0], without[0] + alone[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[1], without[1] + alone[1][None], rtol=1e-9, atol=1e-9)


def test_long_sums_are_within_pythons_recursion_limit() -> None:
    def loss(theta: Any, key: Any) -> Any:
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), mcgrad.Score()).astype(theta.dtype)
        total = 0.0
        for _ in range(600):
            total = total + b + theta
        return total

    text = str(mcgrad.explain(loss)(0.0, jax.random.key(0)))
    assert "1 cost\n" in text


@pytest.mark.parametrize(
    ("law", "lost"),
    [
        (lambda b: mcgrad.Normal(b, 0.7), lambda b, x: (x - b) ** 2 / (2 * 0.7**2)),
        (lambda b: mcgrad.StudentT(3.0, b, 0.7), lambda b, x: 2 * jnp.log1p((x - b) ** 2 / (3 * 0.7**2))),
        (
            lambda b: mcgrad.Gamma(2.5, jnp.exp(b)),
            lambda b, x: jnp.exp(b) * x - 2.5 - 2.5 * jnp.log(jnp.exp(b) * x / 2.5),
        ),
    ],
    ids=("Normal", "StudentT", "Gamma"),
)
def test_what_no_draw_reaches_in_a_log_density_is_left_out(law, lost):
    """Constants, and what depends on the data alone: on every key the gradient is that of what is lost from the mode."""
    x = jnp.asarray([0.3, 1.2, 2.5])
    logits, keys = jnp.asarray([0.4, -0.3, 0.9]), jax.random.split(jax.random.key(1), 8)

    def loss(logits, key):
        return jnp.sum(law(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))).log_prob(x))

    def by_hand(logits, key):
        b = 1.0 * mcgrad.Bernoulli(logits=logits).sample(key)
        return -lost(b, x) * (b - jax.nn.sigmoid(logits))

    found = jax.jit(jax.vmap(mcgrad.grad(loss, estimator=mcgrad.Score()), (None, 0)))(logits, keys)
    np.testing.assert_allclose(found, jax.vmap(by_hand, (None, 0))(logits, keys), rtol=1e-9)
