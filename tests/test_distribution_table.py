"""The table of distributions is complete, and says of each what the class really has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from distributions import DISTRIBUTIONS, METHODS, ORDINARY

import mcgrad
import mcgrad.distributions


def known(dist: Any) -> set[str]:
    """What a distribution has beyond `sample` and `log_prob`; a `support` that it cannot list is none."""
    found = {name for name in METHODS if getattr(dist, name, None) is not None}
    return found - {"support"} if "support" in found and dist.support() is None else found


def test_every_distribution_has_a_row() -> None:
    """One that is exported and missing from the table is one that no test runs."""
    exported = {
        name
        for name in dir(mcgrad)
        if isinstance(value := getattr(mcgrad, name), type)
        and issubclass(value, mcgrad.Distribution)
        and value is not mcgrad.Distribution
    }
    assert exported == set(DISTRIBUTIONS)


def test_every_optional_method_is_in_the_table() -> None:
    """One method a protocol; what `noise` gives is for an adaptive velocity, what `noise_of` gives has a way back, and a density
    is asked of all."""
    protocols = [getattr(mcgrad.distributions, name) for name in dir(mcgrad.distributions) if name.startswith("Has")]
    optional = {name for protocol in protocols for name in vars(protocol) if not name.startswith("_")}
    assert optional - {"noise", "of_noise", "log_prob"} == set(METHODS)


@pytest.mark.parametrize("name", ORDINARY)
def test_a_row_claims_what_the_class_has(name: str) -> None:
    case, row = ORDINARY[name], DISTRIBUTIONS[name.split(", ")[0]]
    dist = case.dist()
    assert type(dist).__name__ == name.split(", ")[0]
    assert set(case.knows.split()) == known(dist)
    assert callable(dist.log_prob)
    assert type(dist).sample is not mcgrad.Distribution.sample
    assert (dist.discrete, dist.reparameterized) == (case.discrete, not case.discrete)
    assert (tuple(dist.support_parameters), dist.event_ndim) == (row.moving, row.event_ndim)


@pytest.mark.parametrize("name", [name for name, case in ORDINARY.items() if "noise_of" in case.knows.split()])
def test_the_noise_of_a_draw_is_what_it_is_made_of(name: str) -> None:
    dist = ORDINARY[name].dist()
    x = dist.sample(jax.random.key(0))
    noise = dist.noise_of(x)
    np.testing.assert_allclose(dist.of_noise(noise), x, rtol=1e-10)
    np.testing.assert_allclose(
        jax.jacrev(dist.of_noise)(noise), jax.jacrev(dist.of_noise)(0 * noise), atol=1e-10
    )  # affine


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_a_row_claims_is_checked_or_left_out_for_a_reason(name: str) -> None:
    row = DISTRIBUTIONS[name]
    for kind in ("ordinary", "corners", "weak", "extremes", "twice"):
        assert getattr(row, kind), f"{kind}: give cases, or the reason why there are none"
    knows = row.knows.split()
    if "weak_derivative" not in knows:
        assert isinstance(row.weak, str) and isinstance(row.extremes, str)
    if row.discrete:
        assert isinstance(row.corners, str) and isinstance(row.twice, str)
    paths = () if isinstance(row.twice, str) else [case.path for case in row.twice.values()]
    assert ("optimal_transport" in knows) == any(getattr(path, "path", None) == "optimal_transport" for path in paths)
    for case in row.ordinary.values():
        if isinstance(case.reference, str):  # where else it is checked
            assert name in (Path(__file__).parent / case.reference).read_text()


def test_the_check_can_fail() -> None:
    class Silent(mcgrad.Normal):
        weak_derivative = None

    assert known(Silent(0.0, 1.0)) == known(mcgrad.Normal(0.0, 1.0)) - {"weak_derivative"}
