"""Estimators as a third party writes them: the page on it runs as it stands, and what it defines keeps the contract."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LOOP_PROGRAMS, PROGRAMS, EstimatorRow, assert_unbiased, exact_derivatives, gradient_draws
from pages import Page

import mcgrad
from mcgrad.program import unwrapped

PAGE = Page("your_own_estimator")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page defines, and under `printed` what it prints."""
    return PAGE.run()


def test_the_page_runs_and_finds_what_it_says(page: dict[str, Any]) -> None:
    said = page["printed"]
    assert "False" not in said and said.count("True") == 7
    assert re.search(r"`Flip` would be wrong at .*your_own_estimator.py.*0 and 1\. Use `mcgrad.Score\(\)`", said)


def test_the_page_needs_public_names_only() -> None:
    assert PAGE.modules == {"dataclasses", "jax", "jax.numpy", "mcgrad", "mcgrad.program"}
    assert not re.search(r"\._(?!replace)", PAGE.code)


ROWS = {
    "PlainScore": {"kind": "score", "order": 2, "on": ("normal", "scan_with_a_cond_on_a_draw", "two_discrete_layers")},
    "Flip": {
        "kind": "binary",
        "order": 1,
        "on": ("bernoulli_with_offset", "two_discrete_layers", "users_vmap_of_one_example"),
    },
    "SelfCritical": {
        "kind": "binary",
        "order": 2,
        "on": ("two_discrete_layers", "users_vmap_of_one_example", "aux_output"),
    },
    "OtherValueEach": {
        "kind": "binary",
        "order": 2,
        "on": ("two_discrete_layers", "users_vmap_of_one_example", "aux_output"),
    },
}


@pytest.mark.parametrize(("name", "on"), [(name, on) for name, row in ROWS.items() for on in row["on"]])
def test_what_the_page_defines_is_unbiased(page: dict[str, Any], name: str, on: str) -> None:
    program, claimed = next(p for p in (*PROGRAMS.values(), *LOOP_PROGRAMS) if p.name == on), ROWS[name]
    row = EstimatorRow(name, lambda program, params: page[name](), claimed["kind"], order=claimed["order"])
    params, exact = program.typed_params(jnp.float64), exact_derivatives(program)
    exact = {what: exact[what] for what in ("value", "gradient", "hessian")[: row.order_on(program) + 1]}
    with jax.debug_key_reuse(False):  # value and derivatives on one key
        draws = gradient_draws(lambda key: row.estimate(program, params, key), exact, jax.random.key(0))
    for what in exact:
        assert_unbiased(draws[what], exact[what])


def test_the_baseline_that_the_page_warns_of_is_biased(page: dict[str, Any]) -> None:
    """The mean of the costs at `b` and at `1 - b` depends on `b` where costs mix two bits."""

    class BothAtOnce(page["OtherValueEach"]):
        def estimate(self, draw: Any, rest: Any) -> Any:
            object.__setattr__(
                all_together := dataclasses.replace(draw), "entries_apart", lambda: jnp.ones((1, 8), bool)
            )
            return super().estimate(all_together, rest)

    with jax.enable_x64(False), jax.debug_key_reuse(False):
        found, exact = page["gradients"](BothAtOnce()), page["exact"]
    assert float(jnp.max(jnp.abs(found.mean(0) - exact) / (found.std(0) / 64))) > 5


@dataclasses.dataclass(frozen=True)
class Centre(mcgrad.LocalEstimator):
    """The middle between a normal draw and its mirror, as the page has it: the mean."""

    def why_not(self, site: Any) -> str | None:
        normal = type(unwrapped(site.base_dist)).__name__ == "Normal"
        return None if normal else "the distribution must be normal"

    def represent(self, draw: Any) -> mcgrad.Flow:
        x = draw.sample()
        mirror = draw.under_vmaps(lambda dist, x: 2 * unwrapped(dist).loc - x, x, frozen=True)
        return mcgrad.Flow((x + mirror) / 2)


NORMALS = {
    "mcgrad": [lambda lib, m: mcgrad.Normal(m, 1.0), lambda lib, m: mcgrad.Independent(mcgrad.Normal(m, 1.0), 1)],
    "numpyro.distributions": [
        lambda lib, m: lib.Normal(m, 1.0),
        lambda lib, m: lib.Normal(m, 1.0).to_event(1),
        lambda lib, m: lib.Normal(m, 1.0).expand((2,)).to_event(1),
        lambda lib, m: mcgrad.Independent(lib.Normal(m, 1.0), 1),
    ],
    "distrax": [
        lambda lib, m: lib.Normal(m, jnp.ones(2)),
        lambda lib, m: lib.Independent(lib.Normal(m, jnp.ones(2)), 1),
    ],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("library", "number"), [(name, i) for name, each in NORMALS.items() for i in range(len(each))])
def test_normal_laws_are_known_and_mirrored_under_a_vmap(library: str, number: int) -> None:
    found = pytest.importorskip(library)
    loc = jnp.arange(6.0).reshape(2, 3)

    def means(key: jax.Array) -> jax.Array:
        one = lambda m, key: mcgrad.sample(key, NORMALS[library][number](found, m), Centre())  # noqa: E731
        return jax.vmap(one, (1, 0))(loc, jax.random.split(key, 3))

    with jax.debug_key_reuse(False):
        np.testing.assert_allclose(mcgrad.expectation(means)(jax.random.key(0)), loc.T, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_normal_laws_of_tfp_are_unwrapped() -> None:
    tfd = pytest.importorskip("tensorflow_probability.substrates.jax").distributions
    for law in (normal := tfd.Normal(jnp.zeros(2), 1.0), tfd.Independent(normal, 1)):
        assert unwrapped(mcgrad.distributions.as_distribution(law)) is normal


def test_laws_made_of_a_normal_one_are_not_taken_for_it() -> None:
    for law in (mcgrad.LogNormal(0.0, 1.0), mcgrad.TruncatedNormal(0.0, 1.0, -1.0, 1.0)):
        with pytest.raises(ValueError, match="`Centre` would be wrong .* must be normal"):
            mcgrad.expectation(lambda key, law=law: mcgrad.sample(key, law, Centre()))(jax.random.key(0))


# What the page does not return: a draw that moves, and several weighted points.


def test_a_flow_moves_each_draw_by_its_velocity() -> None:
    """An exponential draw of rate `r` moves by `-x / r`."""

    @dataclasses.dataclass(frozen=True)
    class ByHand(mcgrad.LocalEstimator):
        def represent(self, draw: Any) -> mcgrad.Flow:
            x, rate = jax.lax.stop_gradient(draw.sample()), draw.dist.rate
            return mcgrad.Flow(x * jax.lax.stop_gradient(rate) / rate)

    def loss(rate: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = mcgrad.sample(key, mcgrad.Exponential(rate), ByHand())
        return x**2, x

    one = mcgrad.grad(loss, has_aux=True)
    gradients, x = jax.vmap(one, (None, 0))(jnp.asarray(2.0), jax.random.split(jax.random.key(0), 20))
    np.testing.assert_allclose(gradients, 2 * x * -x / 2.0, rtol=1e-12)


def test_weighted_points_at_all_values_are_exact_to_second_order() -> None:
    @dataclasses.dataclass(frozen=True)
    class BothValues(mcgrad.Estimator):
        def represent(self, draw: Any) -> mcgrad.WeightedPoints:
            points = jnp.arange(2)
            return mcgrad.WeightedPoints(points, jax.vmap(draw.prob)(points))

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.exp(1.3 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), BothValues()))

    def exact(logits: jax.Array) -> jax.Array:
        return 1 + jax.nn.sigmoid(logits) * (jnp.exp(1.3) - 1)

    at, key = jnp.asarray(0.4), jax.random.key(0)
    with jax.debug_key_reuse(False):  # three derivatives on one key
        for derivative in (lambda fn: fn, jax.grad, jax.hessian):
            got = derivative(mcgrad.expectation(loss))(at, key)
            np.testing.assert_allclose(got, derivative(exact)(at), rtol=1e-12)
