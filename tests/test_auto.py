"""What `Auto` chooses, and what `explain` says one more evaluation would buy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased

import mcgrad
from mcgrad.estimators.auto import WITH_TWO_EVALUATIONS

CONTRACT = (Path(__file__).parent.parent / "benchmarks/results/CONTRACT.md").read_text()
ROWS = {"DisARM": "disarm", "UnorderedSet": "unordered set", "Score": "score, 2 points"}


@pytest.mark.parametrize("estimator", [e for e, _ in WITH_TWO_EVALUATIONS], ids=lambda e: type(e).__name__)
def test_the_table_of_auto_is_what_was_measured(estimator: Any) -> None:
    (text,) = [text for e, text in WITH_TWO_EVALUATIONS if e is estimator]
    table = CONTRACT.split("**variance of the gradient over that of")[1].split("**")[1]
    (row,) = re.findall(rf"^\| {ROWS[type(estimator).__name__]} \|(.*)\|$", table, re.M)
    ratios = [float(cell) for cell in row.split("|") if cell.strip()]
    least, most = map(float, re.findall(r", ([\d.]+) to ([\d.]+)$", text)[0])
    np.testing.assert_allclose([least, most], [min(ratios), max(ratios)], rtol=0.05)
    assert f"{least:g} to {most:g} ({np.median(ratios):.2g})" in " ".join(mcgrad.Auto.__doc__.split())


def loss(logits: Any, key: Any) -> Any:
    keys = jax.random.split(key, 4)
    bits = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=logits), name="bits")
    classes = mcgrad.sample(keys[1], mcgrad.Categorical(logits=logits[:, None] * jnp.arange(3.0)[None]), name="classes")
    counts = mcgrad.sample(keys[2], mcgrad.Poisson(jnp.exp(logits)), name="counts")
    apart = mcgrad.sample(keys[3], mcgrad.Bernoulli(logits=logits), name="apart")
    return (jnp.sum(bits) + jnp.sum(classes) + jnp.sum(counts)) ** 2.0 + jnp.sum(1.0 * apart)


@pytest.mark.parametrize("asked", [None, mcgrad.Auto(), mcgrad.Score()])
def test_explain_tells_what_one_more_evaluation_would_buy(asked: Any) -> None:
    report = mcgrad.explain(loss, estimator=asked)(jnp.zeros(3), jax.random.key(0))
    told = {site.name: site.with_one_more for site in report.sites}
    if isinstance(asked, mcgrad.Score):
        assert set(told.values()) == {""} and "one evaluation more" not in str(report)
        return
    chosen = ["EveryOrder(LocalExpectation)", "EveryOrder(TreeDisARM)", "Score", "Enumerate"]
    assert [site.estimator for site in report.sites] == chosen
    assert told["counts"].startswith("`mcgrad.Score(num_samples=2)`, right to ")
    assert str(report).count("with one evaluation more: ") == 1


def chosen(program: Any, *args: Any, estimator: Any = None) -> list[str]:
    return [site.estimator for site in mcgrad.explain(program, estimator=estimator)(*args).sites]


def bits_of(law: Any = mcgrad.Bernoulli, effect: bool = False, times: int = 1) -> Any:
    def program(logits: Any, key: Any) -> Any:
        total = 0.0
        for own in jax.random.split(key, times):
            bits = mcgrad.sample(own, law(logits=logits))
            if effect:
                jax.debug.callback(lambda x: None, bits)
            total = total + jnp.sum(jnp.sin(1.0 * bits)) * jnp.cos(total)
        return (total - 1.0) ** 2

    return program


def in_a_scan(logits: Any, key: Any) -> Any:
    def step(total: Any, key: Any) -> Any:
        return jnp.sin(total + jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)))), None

    return jax.lax.scan(step, 0.0, jax.random.split(key, 3))[0]


RULE = {
    "few bits": (bits_of(), 4, ["EveryOrder(LocalExpectation)"]),
    "bits": (bits_of(), 5, ["EveryOrder(DisARM)"]),
    "classes": (bits_of(mcgrad.Categorical), (4, 3), ["EveryOrder(TreeDisARM)"]),
    "few classes": (bits_of(mcgrad.Categorical), (2, 3), ["EveryOrder(LocalExpectation)"]),
    "three draws": (bits_of(times=3), 5, ["EveryOrder(DisARM)"] * 3),
    "four draws": (bits_of(times=4), 5, ["Score"] * 4),
    "with effects": (bits_of(effect=True), 5, ["Score"]),
    "in a loop": (in_a_scan, 5, ["Score"]),
}


@pytest.mark.parametrize("case", RULE)
def test_the_rule_of_its_table(case: str) -> None:
    program, shape, wanted = RULE[case]
    assert chosen(program, jnp.zeros(shape), jax.random.key(0)) == wanted
    assert chosen(program, jnp.zeros(shape), jax.random.key(0), estimator=mcgrad.Score()) == ["Score"] * len(wanted)


def test_with_several_samples_it_is_leave_one_out_as_before() -> None:
    arguments = jnp.linspace(-1.0, 1.0, 6), jax.random.key(0)
    auto, score = (
        jax.hessian(mcgrad.expectation(bits_of(), estimator=estimator, num_samples=3))(
            *arguments[:1], jax.random.key(0)
        )
        for estimator in (None, mcgrad.Score())
    )
    np.testing.assert_array_equal(auto, score)


def test_effects_are_had_once() -> None:
    """A callback of the cost runs as often as in a plain run."""
    seen: list[Any] = []

    def program(logits: Any, key: Any) -> Any:
        bits = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))
        jax.debug.callback(seen.append, bits)
        return jnp.sum(1.0 * bits) ** 2

    jax.block_until_ready(mcgrad.grad(program)(jnp.zeros(8), jax.random.key(0)))
    jax.effects_barrier()
    assert len(seen) == 1


@pytest.mark.parametrize("size", [3, 6])
def test_value_of_one_sample_is_the_programs_own_and_every_order_is_right(size: int) -> None:
    logits, program = jnp.linspace(-1.0, 1.0, size), bits_of()

    def exact(logits: Any) -> Any:
        states = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
        p = jax.nn.sigmoid(logits)
        weights = jnp.prod(jnp.where(states, p, 1 - p), axis=1)
        return weights @ (jnp.sum(jnp.sin(1.0 * states), axis=1) - 1.0) ** 2

    value = mcgrad.expectation(program)(logits, jax.random.key(3))
    np.testing.assert_allclose(value, program(logits, jax.random.key(3)), rtol=1e-12)
    for num_samples, order in ((1, 1), (1, 2), (2, 1), (5, 1)):
        transformed = mcgrad.expectation(program, num_samples=num_samples)
        derivative = {1: jax.grad, 2: lambda fn: jax.jacfwd(jax.jacrev(fn))}[order]
        keys = jax.random.split(jax.random.key(num_samples), 100_000)
        draws = jax.jit(jax.vmap(derivative(transformed), (None, 0)))(logits, keys)
        assert_unbiased(draws, derivative(exact)(logits))
