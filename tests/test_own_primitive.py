"""Primitives as a third party adds them: the page on it runs as it stands, and what it registers keeps credit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import Page

import mcgrad
from mcgrad.program import primitives

PAGE = Page("your_own_primitive")


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """What the page defines, and under `printed` what it prints; what it registers is forgotten at the end."""
    rows = dict(primitives._RULES)
    yield PAGE.run()
    primitives._RULES.clear()
    primitives._RULES.update(rows)


def test_the_page_runs_and_finds_what_it_says(page: dict[str, Any]) -> None:
    said = page["printed"]
    assert "False" not in said and said.count("True") == 4
    assert re.search(r"shape \(\), from `reduce_sum`(.|\n)*shape \(8,\), from `integer_pow`", said)


def test_the_page_needs_public_names_only() -> None:
    assert {name.split(".")[0] for name in PAGE.modules} == {"jax", "numpy", "mcgrad"}
    assert not re.search(r"\._|_src", PAGE.code)


def test_with_a_row_the_variance_is_that_of_a_reshape_and_a_sum(page: dict[str, Any]) -> None:
    assert abs(page["registered"] / page["reshaped"] - 1) < 0.05
    assert page["without"] > 5 * page["reshaped"]


def test_a_row_with_something_else_for_linear_is_refused() -> None:
    with pytest.raises(ValueError, match=r"register\(linear=...\)` must be .* a function or None, got 'both'"):
        mcgrad.program.register("block_sum", linear="both")  # ty: ignore[invalid-argument-type]


ORDER = np.random.default_rng(0).permutation(16)
BACK = np.argsort(ORDER)
FOURIER = np.exp(-2j * np.pi * np.outer(np.arange(4), np.arange(4)) / 4)
TARGET = jnp.linspace(-0.5, 1.5, 16)

# By name: an operation on sixteen numbers, and the same as sums and products over blocks of four, or as a permutation.
SPELLINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "segment_sum": (lambda x: jax.ops.segment_sum(x, np.arange(16) // 4, 4), lambda x: x.reshape(4, 4).sum(-1)),
    "at set": (lambda x: jnp.zeros(16).at[ORDER].set(x) - TARGET, lambda x: x[BACK] - TARGET),
    "at add": (lambda x: TARGET.at[ORDER].add(x), lambda x: TARGET + x[BACK]),
    "fft": (
        lambda x: jnp.fft.fft(x.reshape(4, 4)).real.sum(-1),
        lambda x: (x.reshape(4, 4) @ FOURIER.real).sum(-1),
    ),
}
COSTS = {"squares": lambda y: jnp.sum((y - 0.7) ** 2), "a sum": jnp.sum}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", SPELLINGS)
def test_scatters_and_transforms_have_the_variance_of_their_other_spelling(name: str, cost: str) -> None:
    logits, keys = jnp.linspace(-1.0, 1.0, 16), jax.random.split(jax.random.key(0), 1000)

    def gradients(operation: Callable[[Any], Any]) -> Any:
        def program(logits: Any, key: Any) -> Any:
            bits = 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
            return COSTS[cost](operation(jnp.sin(bits + logits)))

        one = mcgrad.grad(program, estimator=mcgrad.Score(baseline=None))
        return jax.jit(jax.vmap(one, (None, 0)))(logits, keys)

    with jax.debug_key_reuse(False):
        found, expected = (gradients(operation) for operation in SPELLINGS[name])
    np.testing.assert_allclose(found.var(0).sum(), expected.var(0).sum(), rtol=0.05)
    np.testing.assert_allclose(found.mean(0), expected.mean(0), atol=5 * float(np.max(found.std(0))) / np.sqrt(1000))


def test_a_row_that_says_what_becomes_of_derivatives_is_believed(page: dict[str, Any]) -> None:
    steps, program = page["own_floor_p"], page["rounded"]
    rows = dict(primitives._RULES)
    estimators = []
    for path in ("steps", "keeps"):
        mcgrad.program.register(steps, axes="elementwise", path=path)
        estimators.append(mcgrad.explain(program)(0.3, jax.random.key(0)).sites[0].estimator)
    primitives._RULES.clear()
    primitives._RULES.update(rows)
    assert estimators == ["Score", "Pathwise"]
    with pytest.raises(ValueError, match=r"register\(path=...\)` must be one of 'keeps', .* got 'smooth'"):
        mcgrad.program.register("own_floor", path="smooth")  # ty: ignore[invalid-argument-type]
