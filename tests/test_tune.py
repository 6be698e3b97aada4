"""The estimator of each draw under a budget."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased
from programs.program import expect_bernoulli

import mcgrad

PARAMS = {"first": jnp.asarray([0.4, -0.6, 0.2]), "second": jnp.asarray([0.3, -0.1])}
CANDIDATES = {
    "Score(4)": mcgrad.Score(num_samples=4),
    "DisARM": mcgrad.DisARM(),
    "StraightThrough": mcgrad.StraightThrough(),
    "Enumerate": mcgrad.Enumerate(),
}


def cost(first: Any, second: Any) -> Any:
    return (jnp.sum(first) - 1.3) ** 2 + 3.0 * jnp.sum(first) * (second[0] - second[1]) + 5.0


def program(params: Any, key: Any) -> Any:
    keys = jax.random.split(key)
    first = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=params["first"], dtype=float), name="first")
    second = mcgrad.sample(keys[1], mcgrad.Bernoulli(logits=params["second"] + first[:2], dtype=float), name="second")
    return cost(first, second)


def exact(params: Any) -> Any:
    return expect_bernoulli(
        params["first"],
        lambda first: expect_bernoulli(params["second"] + first[:2], lambda second: cost(first, second)),
    )


@pytest.mark.slow
def test_each_draw_gets_its_own_under_a_budget() -> None:
    """Within the budget, of less variance than any one estimator for all, and without bias; and explained."""
    budget, key = 16, jax.random.key(0)
    found = mcgrad.tune(program, budget=budget, estimators=CANDIDATES, num_samples=1_000)(PARAMS, key)
    assert isinstance(found, mcgrad.Tuning) and [place.split(" ")[0] for place in found.choices] == ["first", "second"]
    assert found.cost <= budget and found.unit == "evaluations"
    assert "StraightThrough" not in found.choices.values()  # biased
    alike = {"Auto": mcgrad.Auto(), **{name: CANDIDATES[name] for name in ("Score(4)", "DisARM")}}
    same = mcgrad.compare(program, alike, num_samples=1_000)(PARAMS, key)
    for report in same.reports.values():
        assert found.variance < 1.2 * report.variance / max(budget // report.evaluations, 1)
    assert all(trial.cost <= budget for trial in found.trials)
    report = mcgrad.explain(program, estimator=found.estimator)(PARAMS, key)
    of_class = {"Score(4)": "Score", "Auto": "Score"}
    assert [site.estimator for site in report.sites] == [of_class.get(n, n) for n in found.choices.values()]

    gradient = mcgrad.grad(program, estimator=found.estimator, num_samples=found.num_samples)
    draws = jax.jit(jax.vmap(gradient, (None, 0)))(PARAMS, jax.random.split(jax.random.key(1), 8_000))
    assert_unbiased(draws, jax.jit(jax.grad(exact))(PARAMS))
    total = sum(float(jnp.var(leaf, axis=0).sum()) for leaf in jax.tree.leaves(draws))
    np.testing.assert_allclose(total, found.variance, rtol=0.5)
    text = str(found)
    assert text.startswith(f"{found.num_samples} sample") and text.count("in the budget") == len(found.trials)


def one_draw(logits: Any, key: Any) -> Any:
    return (jnp.sum(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))) - 1.0) ** 2


@pytest.mark.slow
def test_in_milliseconds_and_to_second_order() -> None:
    some = {"Score(2)": mcgrad.Score(num_samples=2)}
    arguments = (jnp.zeros(3), jax.random.key(0))
    found = mcgrad.tune(one_draw, budget=1e3, unit="milliseconds", estimators=some, num_samples=64)(*arguments)
    assert (
        found.cost <= 1e3 and found.num_samples >= 1 and set(t.estimator for t in found.trials) == {"Auto", "Score(2)"}
    )
    found = mcgrad.tune(one_draw, budget=2, order=2, num_samples=64)(*arguments)
    assert {trial.estimator for trial in found.trials} == {"Auto", "Score(2)", "UnorderedSet(2)"}
    hessian = jax.hessian(mcgrad.expectation(one_draw, estimator=found.estimator))(*arguments)
    assert hessian.shape == (3, 3)


def test_what_cannot_be_is_refused() -> None:
    arguments = (jnp.zeros(3), jax.random.key(0))
    for budget in (0, -1.0, "16", True):
        with pytest.raises(ValueError, match=r"tune\(budget=...\)` must be a number above zero"):
            mcgrad.tune(one_draw, budget=budget)
    with pytest.raises(ValueError, match=r"tune\(unit=...\)` must be"):
        mcgrad.tune(one_draw, budget=3, unit="seconds")
    with pytest.raises(ValueError, match=r"tune\(order=...\)` must be 1 or 2, got 3"):
        mcgrad.tune(one_draw, budget=3, order=3)
    with pytest.raises(
        ValueError, match=r"tune\(budget=...\)` must be at least 1 evaluations, which one gradient takes, got 0.5"
    ):
        mcgrad.tune(one_draw, budget=0.5, estimators=[mcgrad.Score()], num_samples=8)(*arguments)

    def named(logits: Any, key: Any) -> Any:
        return jnp.sum(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score()))

    with pytest.raises(ValueError, match="a draw that names no estimator"):
        mcgrad.tune(named, budget=4)(*arguments)
