"""Laws from plain functions, and whether a pathwise derivative through a sampler is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad
from mcgrad.distributions import distribution, pathwise_obstacle


def normal(key: Any, loc: Any, scale: Any) -> Any:
    return loc + scale * jax.random.normal(key, loc.shape)


def normal_log_prob(x: Any, loc: Any, scale: Any) -> Any:
    return -(((x - loc) / scale) ** 2) / 2 - jnp.log(scale)


def exponential_icdf(u: Any, rate: Any) -> Any:
    return -jnp.log1p(-u) / rate


def exponential_cdf(x: Any, rate: Any) -> Any:
    return -jnp.expm1(-rate * x)


def exponential(key: Any, rate: Any) -> Any:
    return jax.random.exponential(key, rate.shape) / rate


def test_a_class_of_distributions_that_are_pytrees() -> None:
    law = distribution(normal, normal_log_prob)
    dist = law(jnp.zeros(3), 2.0)
    assert isinstance(dist, law) and jax.tree.leaves(dist)[1] == 2.0
    assert (dist.batch_shape, dist.event_shape, dist.event_ndim) == ((3,), (), 0)
    assert dist.reparameterized and not dist.discrete and dist.law == "distribution(normal)"
    assert (
        dist.cdf is None
        and dist.icdf is None
        and getattr(dist, "support", None) is None
        and dist.support_parameters == ()
    )
    x = dist.sample(jax.random.key(0))
    np.testing.assert_array_equal(dist.log_prob(x), normal_log_prob(x, jnp.zeros(3), 2.0))
    gradient = jax.grad(lambda d: d.sample(jax.random.key(1)).sum())(dist)
    np.testing.assert_array_equal(gradient.params[0], np.ones(3))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, dist)
    assert doubled.params[1] == 4.0
    mapped = jax.vmap(lambda d, key: d.sample(key), in_axes=(law(0, None), 0))
    assert mapped(dist, jax.random.split(jax.random.key(2), 3)).shape == (3,)


def test_quantile_function_alone_draws_each_entry_by_itself() -> None:
    law = distribution(icdf=exponential_icdf)
    dist = law(jnp.ones((2, 1000), jnp.float32))
    x = dist.sample(jax.random.key(0))
    assert x.shape == dist.batch_shape == (2, 1000) and x.dtype == jnp.float32
    assert len(np.unique(x)) > 1990 and dist.log_prob is None
    assert 0.9 < x.mean() < 1.1
    assert dist.reparameterized and dist.icdf(0.5).shape == (2, 1000)
    gradient = jax.grad(lambda d: d.sample(jax.random.key(1)).sum())(dist)
    np.testing.assert_allclose(gradient.params[0], -dist.sample(jax.random.key(1)), rtol=1e-6)


@pytest.mark.parametrize(
    "given", [{"cdf": exponential_cdf}, {"icdf": exponential_icdf}, {"cdf": exponential_cdf, "icdf": exponential_icdf}]
)
@pytest.mark.parametrize("stopped", [True, False])
def test_sampler_with_a_distribution_function_is_implicit(given: Any, stopped: bool) -> None:
    def sampler(key: Any, rate: Any) -> Any:
        return exponential(key, jax.lax.stop_gradient(rate) if stopped else rate)

    dist = distribution(sampler, **given)(jnp.asarray([2.0, 3.0]))
    assert dist.reparameterized
    x, gradient = jax.value_and_grad(lambda d: d.sample(jax.random.key(0)).sum())(dist)
    expected = sampler(jax.random.key(0), dist.params[0])
    assert x == pytest.approx(expected.sum())
    np.testing.assert_allclose(gradient.params[0], -expected / dist.params[0], rtol=1e-6)


def test_discrete_draws_keep_their_dtype() -> None:
    dist = distribution(lambda key, rate: jax.random.poisson(key, rate), cdf=lambda x, rate: x * rate)(2.0)
    assert dist.discrete and not dist.reparameterized
    assert jnp.issubdtype(dist.sample(jax.random.key(0)).dtype, jnp.integer)
    by_quantile = distribution(icdf=lambda u, p: (u < p).astype(jnp.int32))(jnp.asarray([0.5, 0.5]))
    assert by_quantile.discrete and pathwise_obstacle(by_quantile) == "distribution(<lambda>) is discrete"


def test_draws_of_several_arrays() -> None:
    def sampler(key: Any, loc: Any) -> Any:
        key_a, key_b = jax.random.split(key)
        return {"a": normal(key_a, loc, 1.0), "b": normal(key_b, loc[:, None], 1.0)}

    def log_prob(x: Any, loc: Any) -> Any:
        return normal_log_prob(x["a"], loc, 1.0) + normal_log_prob(x["b"], loc[:, None], 1.0)[:, 0]

    dist = distribution(sampler, log_prob)(jnp.zeros(3))
    x = dist.sample(jax.random.key(0))
    assert dist.batch_shape == (3,) and dist.event_shape == {"a": (), "b": (1,)} and dist.event_ndim == 0
    assert dist.log_prob(x).shape == (3,) and dist.reparameterized
    without = distribution(lambda key, loc: (normal(key, loc, 1.0), loc), event_ndim=1)(jnp.zeros((2, 3)))
    assert without.batch_shape == (2,) and without.event_shape == ((3,), (3,))
    half = distribution(lambda key, p: {"x": p, "k": jax.random.bernoulli(key, p)})(0.5)
    assert pathwise_obstacle(half) == "a part of a draw from distribution(<lambda>) is discrete"


def test_one_pytree_of_parameters_and_event_axes_read_off_the_log_density() -> None:
    def draw(key: Any, params: Any) -> Any:
        return normal(key, params["loc"], jnp.exp(params["log_scale"]))

    def log_prob(x: Any, params: Any) -> Any:
        return normal_log_prob(x, params["loc"], jnp.exp(params["log_scale"])).sum(-1)

    params = {"loc": jnp.zeros((2, 3)), "log_scale": 0.0}
    dist = distribution(draw, log_prob, event_ndim=None)(params)
    assert (dist.batch_shape, dist.event_shape, dist.event_ndim) == ((2,), (3,), 1)
    whole = distribution(draw, event_ndim=None)(params)
    assert (whole.batch_shape, whole.event_shape) == ((), (2, 3))
    kept = distribution(draw, lambda x, params: log_prob(x, params)[:, None] + x * 0, event_ndim=None)(params)
    assert kept.batch_shape == (2, 3)


def test_parameters_may_be_traced() -> None:
    law = distribution(normal, normal_log_prob)
    shapes = []

    @jax.jit
    def program(loc: Any) -> Any:
        dist = law(loc, 1.0)
        shapes.append((dist.batch_shape, dist.reparameterized))
        return dist.sample(jax.random.key(0))

    jax.vmap(jax.grad(lambda loc: program(loc).sum()))(jnp.zeros((4, 3)))
    assert shapes == [((3,), True)]


# What a sampler hides


def categorical_mixture(key: Any, logits: Any, locs: Any) -> Any:
    key_class, key_noise = jax.random.split(key)
    return locs[jax.random.categorical(key_class, logits)] + jax.random.normal(key_noise)


def counting_loop(key: Any, limit: Any) -> Any:
    return jax.lax.while_loop(lambda c: c < limit, lambda c: c + 1.0, 0.0) + jax.random.normal(key)


def straight_through_zero(key: Any, a: Any) -> Any:
    @jax.custom_jvp
    def hidden(a: Any) -> Any:
        return a

    hidden.defjvp(lambda primals, tangents: (primals[0], jnp.zeros_like(tangents[0])))
    return jax.jit(hidden)(a) + jax.random.normal(key)


def stopped_in_scan(key: Any, a: Any) -> Any:
    return jax.lax.scan(lambda c, k: (c + jnp.floor(a), None), jax.random.normal(key), None, length=3)[0]


def all_through(key: Any, a: Any) -> Any:
    @jax.custom_vjp
    def twice(a: Any) -> Any:
        return 2 * a

    twice.defvjp(lambda a: (2 * a, None), lambda _, g: (2 * g,))
    total = jax.lax.scan(lambda c, k: (c * a + jax.random.normal(k), None), 0.0, jax.random.split(key, 3))[0]
    total = jax.lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * a, c[1] + 1), (total, 0))[0]
    total = jax.checkpoint(jnp.sin)(total) + jax.jit(twice)(a)
    return jax.lax.cond(total.size > 0, lambda: total, lambda: 0.0)


@pytest.mark.parametrize(
    ("sampler", "params", "blamed"),
    [
        (categorical_mixture, (jnp.zeros(3), jnp.arange(3.0)), "params[0]"),
        (counting_loop, (2.5,), "params[0]"),
        (straight_through_zero, (2.5,), "params[0]"),
        (stopped_in_scan, (2.5,), "params[0]"),
        (
            lambda key, p: jax.lax.stop_gradient(p["a"]) * p["b"] + jax.random.normal(key),
            ({"a": 1.0, "b": 2.0},),
            "params[0]['a']",
        ),
        (lambda key, a: jax.lax.cond(a > 0, lambda: 1.0, lambda: 2.0), (1.0,), "params[0]"),
        (lambda key, a: jnp.where(jax.random.uniform(key) < a, 1.0, 0.0), (0.5,), "params[0]"),
        (all_through, (0.5,), None),
        (lambda key, a, unused: a * jax.random.normal(key), (1.0, 2.0), None),
        (lambda key, n, a: jax.lax.stop_gradient(n) * a + jax.random.normal(key), (3, 1.0), None),
        (jax.random.gamma, (2.0,), None),
        (lambda key, a: jax.random.beta(key, a, 2.0), (2.0,), None),
        (lambda key: jax.random.normal(key), (), None),
    ],
)
def test_a_parameter_without_derivative_is_named(sampler: Any, params: Any, blamed: str | None) -> None:
    dist = distribution(sampler)(*params)
    obstacle = pathwise_obstacle(dist)
    assert dist.reparameterized == (blamed is None)
    if blamed is None:
        assert obstacle is None
    else:
        assert f"depends on `{blamed}`, but its derivative in `{blamed}` is identically zero" in obstacle


def test_a_distribution_function_without_the_parameter_is_no_help() -> None:
    dist = distribution(exponential, cdf=lambda x, rate: -jnp.expm1(-x))(jnp.ones(2))
    assert "derivative in `params[0]` is identically zero" in pathwise_obstacle(dist)


# Refusals


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({}, ValueError, r"something to draw with, got neither `sampler=` nor `icdf=`"),
        ({"cdf": exponential_cdf, "log_prob": normal_log_prob}, ValueError, r"something to draw with"),
        ({"sampler": 3}, TypeError, r"distribution\(sampler=...\)` must be a function, got 3"),
        (
            {"sampler": normal, "event_ndim": -1},
            ValueError,
            r"event_ndim=...\)` must be a number of axes or None, got -1",
        ),
        ({"sampler": normal, "event_ndim": 1.0}, ValueError, r"must be a number of axes or None, got 1.0"),
    ],
)
def test_what_makes_no_distribution_is_refused(kwargs: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        distribution(**kwargs)


@pytest.mark.parametrize(
    ("law", "match"),
    [
        (
            distribution(normal, lambda x, loc, scale: normal_log_prob(x, loc, scale).sum()),
            r"must return shape \(2, 3\), the draw's \(2, 3\) without its last 0 axes .* got shape \(\). Pass event_ndim=2",
        ),
        (
            distribution(normal, lambda x, loc, scale: x[0], event_ndim=None),
            r"leading axes of a draw, got shape \(3,\)",
        ),
        (distribution(normal, event_ndim=3), r"the same batch axes, got 3 for draws of shape \(2, 3\)"),
        (
            distribution(lambda key, loc, scale: (loc, loc[0])),
            r"the same batch axes, got 0 for draws of shape \(2, 3\) and \(3,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(law: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        _ = law(jnp.zeros((2, 3)), 1.0).batch_shape


def test_a_quantile_function_that_is_not_elementwise_is_refused() -> None:
    law = distribution(icdf=lambda u, rate: jnp.broadcast_to(u, (3,) + u.shape) / rate)
    with pytest.raises(ValueError, match=r"must be elementwise in u, got shape \(3, 3\) for u of shape \(3,\)"):
        law(2.0).sample(jax.random.key(0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Module:
    """A module as some libraries have it: with settings and functions among its leaves."""

    loc: Any
    size: Any
    activation: Any

    def sample(self, key):
        return self.activation(self.loc) + jax.random.normal(key, (self.size,))

    def log_prob(self, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, self.activation(self.loc)))


@pytest.mark.parametrize(
    "wrapped", [lambda module: module, lambda module: {"inner": [module]}], ids=["alone", "inside"]
)
def test_modules_with_other_leaves_are_parameters(wrapped):
    inner = lambda given: given if isinstance(given, Module) else given["inner"][0]  # noqa: E731
    Made = mcgrad.distribution(lambda key, m: inner(m).sample(key), lambda x, m: inner(m).log_prob(x), event_ndim=None)

    def loss(loc, key):
        return jnp.sum(mcgrad.sample(key, Made(wrapped(Module(loc, 3, jnp.tanh)))) ** 2)

    key = jax.random.key(0)
    x = jnp.tanh(0.3) + jax.random.normal(key, (3,))
    slope = 1 - jnp.tanh(0.3) ** 2
    np.testing.assert_allclose(mcgrad.grad(loss)(0.3, jax.random.clone(key)), jnp.sum(2 * x) * slope)
    score = mcgrad.grad(loss, estimator=mcgrad.Score())(0.3, jax.random.clone(key))
    np.testing.assert_allclose(score, jnp.sum(x**2) * jnp.sum(x - jnp.tanh(0.3)) * slope)
    with pytest.raises(TypeError, match="`reparameterized` too, got Module. Pass `Made"):
        mcgrad.sample(jax.random.clone(key), Module(0.3, 3, jnp.tanh))
