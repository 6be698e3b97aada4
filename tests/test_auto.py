"""What `Auto` chooses, and what `explain` says one more evaluation would buy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    assert [site.estimator for site in report.sites] == ["Score", "Score", "Score", "Enumerate"]
    for name, estimator in {"bits": "DisARM()", "classes": "UnorderedSet(2)", "counts": "Score(num_samples=2)"}.items():
        assert told[name].startswith(f"`mcgrad.{estimator}`, right to ")
    assert told["apart"] == "" and str(report).count("with one evaluation more: ") == 3
