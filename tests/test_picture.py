"""The picture of an explanation: a box for each draw and cost, a line for each credit."""

import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp

import mcgrad


def program(params, key):
    k_z, k_b = jax.random.split(key)
    z = mcgrad.sample(k_z, mcgrad.Normal(params, 1.0), name="z <1>")
    b = mcgrad.sample(k_b, mcgrad.Bernoulli(logits=z), mcgrad.Score(), name="b")
    return jnp.mean((b - z) ** 2) + jnp.max(b) + jnp.sum(params)


def test_the_picture_has_all_that_explain_found(tmp_path):
    report = mcgrad.explain(program)(jnp.zeros(5), jax.random.key(0))
    path = report.draw(tmp_path / "program.svg")
    root = ElementTree.parse(path).getroot()
    found = {kind: root.findall(f"{{http://www.w3.org/2000/svg}}{kind}") for kind in ("line", "rect", "text")}
    credits = [credit for cost in report.costs for credit in cost.credits]
    assert len(found["line"]) == len(credits) > 2
    assert len(found["rect"]) == 1 + len(report.sites) + len(report.costs)
    dashed = sum("stroke-dasharray" in line.attrib for line in found["line"])
    assert dashed == sum(not credit.weighted for credit in credits) > 0
    texts = [text.text for text in found["text"]]
    assert {"z <1>", "b", "cost 0", "same", "mixed"} <= set(texts)
    assert root[0].text == str(report)


def test_a_program_without_draws_has_a_picture():
    assert mcgrad.explain(lambda t, key: 2.0 * t)(1.0, jax.random.key(0))._repr_svg_().count("<rect") == 1
