"""What all distributions share: shapes, dtypes, `jit`, `vmap` and pytrees, finite supports, what the base class says."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import ORDINARY, call

import mcgrad
from mcgrad.distributions import pathwise_obstacle

NAMES = sorted(ORDINARY)
# What is the same for every distribution, and slow for its many small operations: every third by default, all with `-m slow`.
SOME = [pytest.param(name, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, name in enumerate(NAMES)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtypes(name: str, dtype: Any) -> None:
    dist = ORDINARY[name].dist(dtype)
    x = jax.eval_shape(dist.sample, jax.random.key(0))
    assert x.shape == dist.batch_shape + dist.event_shape and len(dist.event_shape) == dist.event_ndim
    assert x.dtype == (jnp.int32 if dist.discrete else dtype)
    log_prob = jax.eval_shape(dist.log_prob, x)
    assert log_prob.shape == dist.batch_shape and log_prob.dtype == dtype


@pytest.mark.parametrize("name", SOME)
def test_jit_vmap_and_pytree(name: str) -> None:
    dist = ORDINARY[name].dist(np.float32)
    x = jax.jit(lambda d, key: d.sample(key))(dist, jax.random.key(0))
    log_prob = dist.log_prob(x)
    assert np.isfinite(log_prob).all()
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), dist)
    mapped = jax.jit(jax.vmap(lambda d: d.log_prob(x)))(twice)
    np.testing.assert_allclose(mapped, jnp.stack([log_prob, log_prob]), rtol=1e-4)

    leaves, tree = jax.tree.flatten(dist)
    again = jax.tree.unflatten(tree, leaves)
    np.testing.assert_array_equal(call(again, "log_prob", x), call(dist, "log_prob", x))
    jax.tree.map(lambda leaf: -leaf, dist)  # a gradient is no distribution, and is not checked as one
    jax.tree.map(lambda leaf: None, dist)


@pytest.mark.parametrize("name", SOME)
def test_traced_parameters_build_the_law_under_jit_and_vmap(name: str) -> None:
    case = ORDINARY[name]
    make, params = case.make, {key: jnp.asarray(value, np.float64) for key, value in case.params.items()}
    x = call(make(**params), "sample", jax.random.key(2))
    expected = call(make(**params), "log_prob", x)
    np.testing.assert_allclose(jax.jit(lambda params: make(**params).log_prob(x))(params), expected, rtol=1e-9)
    stacked = jax.tree.map(lambda value: jnp.stack([value] * 2), params)
    mapped = jax.jit(jax.vmap(lambda params: make(**params).log_prob(x)))(stacked)
    np.testing.assert_allclose(mapped, jnp.stack([expected] * 2), rtol=1e-9)


def test_python_and_integer_parameters_become_floats_of_the_common_dtype() -> None:
    assert mcgrad.Normal(0, 1).loc.dtype == jnp.float64  # the default under x64
    mixed = mcgrad.Normal(np.float32(0), 1)
    assert mixed.loc.dtype == mixed.scale.dtype == mixed.sample(jax.random.key(0)).dtype == jnp.float32
    assert mcgrad.Normal(jnp.zeros(2, jnp.float32), np.float64(1)).dtype == jnp.float64
    assert mcgrad.Bernoulli(probs=1).probs.dtype == jnp.float64
    assert mcgrad.Normal(jnp.zeros(3), jnp.ones((2, 1))).batch_shape == (2, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if "support" in ORDINARY[name].knows.split()])
def test_support_holds_all_probability(name: str) -> None:
    dist = ORDINARY[name].dist()
    values = dist.support()
    assert values.dtype == jnp.int32 and values.shape[1:] == dist.event_shape
    shape = (values.shape[0], *dist.batch_shape, *dist.event_shape)
    spread = values.reshape(values.shape[0], *(1,) * len(dist.batch_shape), *dist.event_shape)
    log_prob = jax.jit(jax.vmap(dist.log_prob))(jnp.broadcast_to(spread, shape))
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), np.ones(dist.batch_shape), rtol=1e-12)
    prob = jax.jit(jax.vmap(dist.prob))(jnp.broadcast_to(spread, shape))
    np.testing.assert_allclose(prob, jnp.exp(log_prob), rtol=1e-12)


def test_binomial_support_is_known_where_the_count_is_concrete() -> None:
    assert mcgrad.Binomial(jnp.asarray([2, 3]), probs=0.5).support().shape == (4,)
    seen = []
    jax.jit(lambda n: (seen.append(mcgrad.Binomial(n, probs=0.5).support()), n)[1])(jnp.asarray(3))
    assert seen == [None]


def test_the_base_class_says_what_is_missing() -> None:
    @dataclasses.dataclass(frozen=True)
    class Empty(mcgrad.Distribution):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define `sample\(key\)`"):
        Empty().sample(jax.random.key(0))
    assert not mcgrad.distributions.knows(Empty(), mcgrad.distributions.HasLogProb)


def test_obstacles_of_own_laws() -> None:
    assert pathwise_obstacle(mcgrad.Poisson(1.0)) == "Poisson is discrete"

    @dataclasses.dataclass(frozen=True)
    class Opaque(mcgrad.Distribution):
        pass

    assert pathwise_obstacle(Opaque()) == "Opaque is not reparameterized"


def test_a_support_may_be_computed_and_be_unknown_where_a_parameter_is_traced() -> None:
    """As those of NumPyro and Distrax are, whose counts of values come from parameters."""

    @dataclasses.dataclass(frozen=True)
    class UpTo(mcgrad.Distribution):
        logits: Any
        number: Any

        discrete = True

        def sample(self, key: Any) -> Any:
            return jnp.where(jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)), self.number, 0)

        def log_prob(self, x: Any) -> Any:
            return jax.nn.log_sigmoid(jnp.where(x == 0, -self.logits, self.logits))

        def support(self) -> Any:
            try:
                return jnp.arange(0, int(jnp.max(self.number)) + 1, self.number)
            except jax.errors.ConcretizationTypeError:
                return None

    def program(logits: Any, key: Any) -> Any:
        return jnp.sin(1.0 * mcgrad.sample(key, UpTo(logits, jnp.asarray(3)), mcgrad.Score()))

    keys = jax.random.split(jax.random.key(0), 4)
    found = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(0.3, keys)
    p = jax.nn.sigmoid(0.3)
    choices = [float(jnp.sin(3.0) * (1 - p)), 0.0]
    assert all(min(abs(float(value) - choice) for choice in choices) < 1e-6 for value in found)
