"""Distributions as a third party writes them: the page on it runs as it stands, and what it defines passes the tests of ours."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import test_distribution_protocol as protocol
import test_distributions as ours
import test_weak_derivatives as weak
from distributions import ORDINARY, Ordinary, costs
from helpers import assert_unbiased
from pages import Page

import mcgrad

PAGE = Page("your_own_distribution")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page defines, and under `printed` what it prints."""
    return PAGE.run()


def test_the_page_runs_and_finds_what_it_says(page: dict[str, Any]) -> None:
    said = page["printed"]
    assert "False" not in said and said.count("True") == 13
    assert re.search(r"`mcgrad.Pathwise` would be wrong at .*your_own_distribution.py.*Use `mcgrad.Score\(\)`", said)


def test_the_page_needs_public_names_only() -> None:
    assert PAGE.modules == {"dataclasses", "typing", "jax", "jax.numpy", "mcgrad", "mcgrad.distributions"}
    assert not re.search(r"\._", PAGE.code)
    (imported,) = re.findall(r"^from mcgrad.distributions import (.*)$", PAGE.code, re.M)
    assert all(f"`{name}`" in (mcgrad.distributions.__doc__ or "") for name in imported.split(", "))


def test_what_mcgrad_distributions_adds_to_mcgrad_is_in_its_docstring() -> None:
    added = {name for name in mcgrad.distributions.__all__ if not hasattr(mcgrad, name)}
    assert {"HasCdf", "Domain", "knows"} < added
    assert added <= set(re.findall(r"`(\w+)`", mcgrad.distributions.__doc__ or ""))


GOMPERTZ = Ordinary(
    {"risk": [[0.3], [1.2]], "scale": [0.5, 1.0, 3.0]},
    lambda risk, scale: scipy.stats.gompertz(risk, scale=scale),
    knows="cdf icdf",
    discrete=False,
)
ZIPF = Ordinary(
    {"exponent": [[0.0, 0.4, 1.0], [1.5, 2.0, 3.0]]},
    lambda exponent: scipy.stats.zipfian(exponent, 6),
    knows="support",
    discrete=True,
)
OF_ALL = (
    ours.test_log_prob_is_scipys,
    ours.test_draws_follow_the_law,
    ours.test_derivatives_of_log_prob_are_finite_differences,
    functools.partial(protocol.test_shapes_and_dtypes, dtype=np.float32),
    functools.partial(protocol.test_shapes_and_dtypes, dtype=np.float64),
    protocol.test_jit_vmap_and_pytree,
    protocol.test_traced_parameters_build_the_law_under_jit_and_vmap,
)
OF_CONTINUOUS = (
    ours.test_cdf_and_icdf_are_scipys,
    ours.test_pathwise_derivative_keeps_the_quantile,
    ours.test_density_is_the_derivative_of_the_cdf,
)


@pytest.mark.parametrize("name", ["Reparameterized", "Implicit", "MeasuredZipf"])
def test_what_the_page_defines_passes_the_checks_of_ours(
    page: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dataclasses.replace(ZIPF if "Zipf" in name else GOMPERTZ, make=page[name])
    for table in (ours.SCALAR, ours.CONTINUOUS, ORDINARY):
        monkeypatch.setitem(table, name, case)
    for check in OF_ALL + (() if case.discrete else OF_CONTINUOUS):
        check(name)


def test_the_checks_can_fail(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`Wrong` of the page, whose quantiles are not those of its density."""
    for table in (ours.SCALAR, ours.CONTINUOUS, ORDINARY):
        monkeypatch.setitem(table, "Wrong", dataclasses.replace(GOMPERTZ, make=page["Wrong"]))
    ours.test_log_prob_is_scipys("Wrong")
    for check in (ours.test_cdf_and_icdf_are_scipys, ours.test_draws_follow_the_law):
        with pytest.raises(AssertionError):
            check("Wrong")


@pytest.mark.parametrize("how", weak.HOW)
def test_the_weak_derivative_is_that_of_the_sum(page: dict[str, Any], how: str) -> None:
    """Against the derivative of the sum over the values, in the three costs that ours are checked on."""
    values, at = jnp.arange(1.0, 7.0), jnp.array(0.8)

    def expectations(exponent: jax.Array) -> jax.Array:
        return costs(values) @ jax.nn.softmax(-exponent * jnp.log(values))

    exact = jax.jacfwd(expectations)(at)
    draws = weak.applied(page["MeasuredZipf"], [at], weak.HOW[how], jax.random.key(0))
    assert_unbiased(draws[:, 0], exact)
