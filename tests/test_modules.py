"""Leaves without a derivative among parameters, and other leaves than arrays in arguments and auxiliary output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

KEY = jax.random.key(0)
TREE = {
    "loc": 0.3,
    "steps": np.arange(3),
    "mask": jnp.ones(2, bool),
    "name": "layer",
    "key": jax.random.key(1),
    "none": None,
}


@pytest.fixture(autouse=True)
def keys_may_be_used_twice():
    """One key goes into many calls here; JAX's checker is off for its users by default."""
    with jax.debug_key_reuse(False):
        yield


def loss(tree, key):
    return (mcgrad.sample(key, mcgrad.Normal(tree["loc"], 1.0)) + tree["steps"][2]) ** 2


@pytest.mark.parametrize("num_samples", [1, 2])
def test_leaves_without_a_derivative_have_none(num_samples):
    exact = mcgrad.grad(lambda loc, key: loss({**TREE, "loc": loc}, key), num_samples=num_samples)(0.3, KEY)
    expected = {**dict.fromkeys(TREE), "loc": exact}
    assert mcgrad.grad(loss, num_samples=num_samples)(TREE, KEY) == expected
    value, found = mcgrad.value_and_grad(loss, num_samples=num_samples)(TREE, KEY)
    assert found == expected and value == mcgrad.expectation(loss, num_samples=num_samples)(TREE, KEY)
    both = mcgrad.grad(lambda scale, tree, key: scale * loss(tree, key), (0, 1), num_samples=num_samples)
    of_scale, of_tree = both(jnp.asarray(1.0), TREE, KEY)
    assert np.isclose(of_scale, value) and of_tree == expected


def test_arguments_without_any_are_refused():
    for tree, kind in (({"n": 1}, "int"), (np.arange(2), "int64"), ({"a": "a", "b": True}, "str, bool")):
        with pytest.raises(TypeError, match=rf"grad\(argnums=...\)` must name .* got {kind} for 0. Convert"):
            mcgrad.grad(lambda tree, key: mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)))(tree, KEY)
    assert mcgrad.grad(lambda tree, key: mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)))({}, KEY) == {}


@pytest.mark.parametrize("options", [{}, {"num_samples": 4}, {"num_samples": 4, "chunk_size": 2}], ids=str)
def test_auxiliary_output_may_hold_functions(options):
    def program(loc, key):
        return loss({**TREE, "loc": loc}, key), {"fn": jnp.tanh, "name": "layer", "loc": loc, "one": 1.0, "none": None}

    gradient, aux = mcgrad.grad(program, has_aux=True, **options)(jnp.asarray(0.3), KEY)
    assert aux["fn"] is jnp.tanh and aux["name"] == "layer" and aux["none"] is None
    shape = (4,) if options else ()
    assert aux["loc"].shape == aux["one"].shape == shape and np.all(aux["one"] == 1)


def test_what_comes_back_are_arrays_of_jax():
    value, aux = mcgrad.expectation(lambda t, key: (1.0, (2, t, jnp.zeros(()))), has_aux=True)(0.3, KEY)
    assert all(isinstance(x, jax.Array) for x in (value, *aux))


def test_diagnostics_take_other_leaves():
    found = mcgrad.gradient_statistics(loss, 50)(TREE, KEY)
    plain = mcgrad.gradient_statistics(lambda loc, key: loss({**TREE, "loc": loc}, key), 50)(0.3, KEY)
    assert found.mean["loc"] == plain.mean and found.mean["name"] is None
    compared = mcgrad.compare(loss, [mcgrad.Score(), mcgrad.Pathwise()], num_samples=50)(TREE, KEY)
    assert set(compared.reports) == {"Score", "Pathwise"} and len(mcgrad.explain(loss)(TREE, KEY).sites) == 1
