"""Names that are imported when they are first asked for."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import mcgrad

PACKAGES = (mcgrad, mcgrad.distributions, mcgrad.estimators)

# A module that is first imported while JAX traces must not keep an array of that trace.
IN_A_TRACE = """
import jax, mcgrad

@jax.jit
def ask(x):
    for name in dir(mcgrad):
        getattr(mcgrad, name)
    return mcgrad.grad(lambda x, key: mcgrad.sample(key, mcgrad.Gamma(x, 1.0)) ** 2)(x, jax.random.key(0))

with jax.checking_leaks():
    ask(1.5)
outside = mcgrad.grad(lambda x, key: mcgrad.sample(key, mcgrad.Gamma(x, 1.0)) ** 2)(1.5, jax.random.key(0))
assert abs(ask(1.5) - outside) < 1e-5
"""
LITTLE = """
import sys, mcgrad

late = ("mcgrad.diagnostics", "mcgrad.distributions.wishart", "mcgrad.estimators.relax", "mcgrad.mcmc", "matplotlib", "rich")
assert not (found := [name for name in late if name in sys.modules]), found
from mcgrad import *
assert callable(sample) and callable(natural) and callable(perturbed) and callable(compare) and RELAX is mcgrad.RELAX
import mcgrad.sample, mcgrad.natural
assert mcgrad.sample is sample and mcgrad.natural is natural and mcgrad.distributions.Wishart is Wishart
"""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_is_there(package: types.ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        thing = getattr(package, name)
        assert getattr(thing, "__name__", name) in (name, f"mcgrad.{name}")
        assert getattr(package, name) is thing


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'mcgrad.distributions' has no attribute 'Norml'"):
        getattr(mcgrad.distributions, "Norml")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'Norml'"):
        exec("from mcgrad import Norml")


@pytest.mark.parametrize("program", [IN_A_TRACE, LITTLE], ids=["in a trace", "little"])
def test_in_a_new_process(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)
