"""Calls without `jax.jit`: what changes between them is seen, and many of them are remarked upon."""

from __future__ import annotations

import collections
import warnings

import jax
import jax.numpy as jnp
import pytest

import mcgrad
from mcgrad import _eager


def test_what_a_program_closes_over_may_change_between_calls():
    settings = {"factor": 2.0, "tripled": False}

    def loss(loc, key):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0))
        return settings["factor"] * (3.0 * x if settings["tripled"] else x)

    grad = mcgrad.grad(loss)
    key = jax.random.key(0)
    assert grad(3.0, key) == 2.0
    settings["factor"] = 5.0
    assert grad(3.0, key) == 5.0
    settings["tripled"] = True
    assert grad(3.0, key) == 15.0


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_a_loop_without_jit_is_remarked_upon_once(make_key, monkeypatch):
    monkeypatch.setattr(_eager, "_CALLS", collections.Counter())
    monkeypatch.setattr(_eager, "_MANY", 4)

    def loss(loc, key):
        return mcgrad.sample(key, mcgrad.Normal(loc, 1.0))

    def calls(number):
        for step in range(number):
            mcgrad.grad(lambda loc, key: loss(loc, key))(0.0, make_key(step))  # a new function each time

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls(3)
    with pytest.warns(mcgrad.EagerWarning, match=r"4 times without `jax.jit`.*step = jax.jit"):
        calls(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls(2)


def test_calls_under_jit_are_not_counted(monkeypatch):
    monkeypatch.setattr(_eager, "_MANY", 4)

    def loss(loc, key):
        return mcgrad.sample(key, mcgrad.Normal(loc, 1.0))

    @jax.make_jaxpr
    def steps(loc):
        return sum(mcgrad.grad(loss)(loc, jax.random.key(0)) for _ in range(4))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(jnp.ones(()))
