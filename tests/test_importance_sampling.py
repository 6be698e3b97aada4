"""Importance sampling: right whatever the proposal, credited like the score, and refused where the proposal cannot be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives, gradient_draws
from jax.scipy.stats import norm
from programs.program import expect_bernoulli, expect_categorical

import mcgrad

PARAMS = {"rare": jnp.array([0.2, 0.1]), "bits": jnp.array([0.4, -0.7, 0.9]), "class": jnp.array([0.3, -0.2, 0.5])}
WIDE = mcgrad.ImportanceSampling(lambda p: mcgrad.Normal(p.loc + 1.5, 1.3 * p.scale))
EVEN_BITS = mcgrad.ImportanceSampling(lambda p: mcgrad.Bernoulli(logits=0.2 * p.logits + 0.1))
UNIFORM = mcgrad.ImportanceSampling(lambda p: mcgrad.Categorical(logits=jnp.zeros_like(p.logits)))


def rare(params, key):
    """A tail of a normal law whose scale moves too; nothing to differentiate along the path."""
    loc, log_scale = params["rare"]
    x = mcgrad.sample(key, mcgrad.Normal(loc, jnp.exp(log_scale)), WIDE)
    return jnp.where(x > 2.0, 3.0 + loc, 0.0)


def exact_rare(params):
    loc, log_scale = params["rare"]
    return (3.0 + loc) * norm.sf(2.0, loc, jnp.exp(log_scale))


def mixed(params, key):
    """Entries apart and together, a draw inside a `vmap`, and a draw that depends on another."""
    keys = jax.random.split(key, 3)
    bits = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=params["bits"]), EVEN_BITS).astype(params["bits"].dtype)
    logits = params["class"] + bits[0]
    classes = jax.vmap(lambda key: mcgrad.sample(key, mcgrad.Categorical(logits=logits), UNIFORM))(
        jax.random.split(keys[1], 2)
    )
    return (
        2.0
        + jnp.sum(jnp.sin(bits * jnp.arange(1.0, 4.0, dtype=bits.dtype)))
        + jnp.max(bits) * (1.0 * classes[0])
        + (1.0 * classes[1]) ** 2
    )


def exact_mixed(params):
    def of_bits(bits):
        def of_classes(classes):
            return 2.0 + jnp.sum(jnp.sin(bits * jnp.arange(1.0, 4.0))) + jnp.max(bits) * classes[0] + classes[1] ** 2.0

        return expect_categorical(jnp.broadcast_to(params["class"] + bits[0], (2, 3)), of_classes)

    return expect_bernoulli(params["bits"], of_bits)


@pytest.mark.parametrize("num_samples", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_value_gradient_and_hessian_are_unbiased(num_samples):
    programs = {"rare": (rare, exact_rare), "mixed": (mixed, exact_mixed)}
    exact, estimators = {}, {}
    for name, (program, expected) in programs.items():
        estimators[name] = mcgrad.expectation(program, num_samples=num_samples)
        for what, value in derivatives(expected, PARAMS, 2).items():
            exact[name, what] = np.asarray(value)

    def estimate(key):
        found = {}
        for (name, estimator), own in zip(estimators.items(), jax.random.split(key), strict=True):
            for what, value in derivatives(lambda p, e=estimator, k=own: e(p, k), PARAMS, 2).items():
                found[name, what] = value
        return found

    draws = gradient_draws(estimate, exact, jax.random.key(1))
    for name in exact:
        assert_unbiased(draws[name], exact[name])


def test_a_good_proposal_has_less_variance_than_the_score():
    def tail(loc, key, estimator):
        return jnp.where(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), estimator) > 3.0, 1.0, 0.0)

    def variance(estimator):
        gradient = jax.jit(jax.vmap(mcgrad.grad(lambda loc, key: tail(loc, key, estimator)), (None, 0)))
        return float(jnp.var(gradient(0.0, jax.random.split(jax.random.key(2), 16384))))

    shifted = mcgrad.ImportanceSampling(lambda p: mcgrad.Normal(p.loc + 3.0, p.scale))
    assert variance(shifted) < 0.05 * variance(mcgrad.Score())


def test_separate_entries_get_their_own_weight_only():
    def total(logits, key):
        return jnp.sum(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), EVEN_BITS))

    logits = jnp.linspace(-1.0, 1.0, 200)
    gradients = jax.jit(jax.vmap(mcgrad.grad(total), (None, 0)))(logits, jax.random.split(jax.random.key(3), 4096))
    exact = jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
    # One entry: the score times p / q where the draw is one. The other 199 add nothing.
    q = jax.nn.sigmoid(0.2 * logits + 0.1)
    np.testing.assert_allclose(gradients.var(0), exact**2 * (1 / q - 1), rtol=0.25)
    np.testing.assert_allclose(gradients.mean(0), exact, atol=5 * float(gradients.std(0).max()) / 64)


def test_float32_jit_and_an_impossible_value():
    params = jax.tree.map(lambda x: x.astype(jnp.float32), PARAMS)
    found = jax.jit(mcgrad.value_and_grad(mixed, num_samples=2))(params, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}

    def never(logits, key):  # the law gives class 0 no probability, the proposal does
        return 1.0 * mcgrad.sample(key, mcgrad.Categorical(logits=logits), UNIFORM)

    logits = jnp.array([-jnp.inf, 0.0, 0.3])
    gradients = jax.jit(jax.vmap(mcgrad.grad(never), (None, 0)))(logits, jax.random.split(jax.random.key(0), 64))
    assert np.isfinite(gradients[:, 1:]).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(
        TypeError,
        match=r"ImportanceSampling\(proposal=...\)` must be a distribution or a function of the distribution, got float",
    ):
        mcgrad.ImportanceSampling(0.5)
    with pytest.raises(
        ValueError, match=r"num_samples=...\)` must be an int of at least 2 where weights are self-norm.*got 1"
    ):
        mcgrad.ImportanceSampling(mcgrad.Normal(0.0, 1.0), self_normalized=True)
    with pytest.raises(ValueError, match=r"sample\(proposal=...\)` must come without `estimator`.*Score"):
        mcgrad.sample(jax.random.key(0), mcgrad.Normal(0.0, 1.0), mcgrad.Score(), proposal=mcgrad.Normal(0.0, 2.0))

    def refused(law, proposal, match):
        def program(theta, key):
            return 1.0 * jnp.sum(mcgrad.sample(key, law(theta), mcgrad.ImportanceSampling(proposal)))

        with pytest.raises(ValueError, match=match):
            jax.eval_shape(mcgrad.grad(program), 0.4, jax.random.key(0))

    def normal(theta):
        return mcgrad.Normal(theta, 1.0)

    refused(
        normal, lambda p: mcgrad.Normal(jnp.zeros(2), 1.0), r"test_importance_sampling.py.*shapes \(\) and \(\), the"
    )
    refused(normal, lambda p: mcgrad.Poisson(2.0), "the distribution is")
    refused(lambda t: mcgrad.Poisson(t), lambda p: mcgrad.Bernoulli(probs=0.5), "never gives some of the values")
    refused(lambda t: mcgrad.Uniform(0.0, t), lambda p: p, "support moves with .*`high`")
    law = mcgrad.distribution(sampler=lambda key, loc: loc + jax.random.normal(key))
    refused(law, lambda p: mcgrad.Normal(0.0, 1.0), "no log density")


def test_an_event_of_many_entries_does_not_underflow():
    def loss(logits, key):
        law = mcgrad.Independent(mcgrad.Bernoulli(logits=logits), 1)
        return jnp.mean(mcgrad.sample(key, law, mcgrad.ImportanceSampling(lambda p: p)).astype(jnp.float32))

    value, gradient = mcgrad.value_and_grad(loss)(jnp.zeros(400, jnp.float32), jax.random.key(0))
    assert gradient.dtype == jnp.float32 and np.isfinite(gradient).all()
    np.testing.assert_allclose(value, 0.5, atol=0.1)


def test_a_proposal_that_the_program_computes_at_several_samples():
    """`proposal=` with parameters of its own, under a `vmap` that maps some of them, and for a batch of vectors."""
    several = lambda proposal: mcgrad.ImportanceSampling(proposal, num_samples=3)  # noqa: E731

    def program(params, key, estimator):
        keys = jax.random.split(key, 4)
        wide = mcgrad.Normal(params["loc"] + jnp.asarray([0.2, -0.1, 0.0]), jnp.asarray(1.4))
        x = estimator(keys[0], mcgrad.Normal(params["loc"], jnp.ones(3)), wide)

        def inner(key, logit):
            return 1.0 * estimator(key, mcgrad.Bernoulli(logits=logit), mcgrad.Bernoulli(logits=0.3 * params["loc"][0]))

        bits = jax.vmap(inner)(keys[1:3], params["logits"])
        tril = jnp.asarray([[1.2, 0.0], [0.1, 1.1]])
        law = mcgrad.MultivariateNormal(params["logits"], scale_tril=jnp.eye(2))
        v = estimator(keys[3], law, mcgrad.MultivariateNormal(params["logits"], scale_tril=tril))
        return jnp.sum(x**2) + bits[0] * bits[1] + 2.0 * bits[0] * (v[0] > 0.2) + v[1]

    def exact(params):
        p = jax.nn.sigmoid(params["logits"])
        above = norm.sf(0.2, params["logits"][0], 1.0)
        return jnp.sum(params["loc"] ** 2 + 1) + p[0] * p[1] + 2 * p[0] * above + params["logits"][1]

    def by_argument(key, law, proposal):
        return mcgrad.sample(key, law, proposal=proposal)

    def by_estimator(key, law, proposal):
        return mcgrad.sample(key, law, several(proposal))

    params = {"loc": jnp.asarray([0.3, -0.5, 0.8]), "logits": jnp.asarray([0.4, -0.6])}
    keys = jax.random.split(jax.random.key(7), 60_000)
    for spelling in (by_argument, by_estimator):
        gradient = mcgrad.grad(functools.partial(program, estimator=spelling))
        of_each = jax.jit(functools.partial(jax.lax.map, functools.partial(gradient, params), batch_size=2000))
        draws = of_each(jax.random.clone(keys))
        assert_unbiased(draws, jax.grad(exact)(params))


def test_self_normalised_weights_have_the_bias_that_enumeration_finds():
    """Two values and two samples: four cases."""
    q = 0.4

    def program(p, key):
        normalized = mcgrad.ImportanceSampling(mcgrad.Bernoulli(probs=q), num_samples=2, self_normalized=True)
        return jnp.exp(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(probs=p), normalized))

    def mean(p):
        weight = jnp.stack([(1 - p) / (1 - q), p / q])
        total = 0.0
        for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
            ratio = (weight[first] * np.exp(first) + weight[second] * np.exp(second)) / (weight[first] + weight[second])
            total = total + (q if first else 1 - q) * (q if second else 1 - q) * ratio
        return total

    keys = jax.random.split(jax.random.key(0), 20_000)
    values, gradients = jax.jit(jax.vmap(mcgrad.value_and_grad(program), (None, 0)))(0.7, keys)
    assert_unbiased(values, mean(0.7))
    assert_unbiased(gradients, jax.grad(mean)(0.7))
    assert abs(mean(0.7) - (0.3 + 0.7 * np.e)) > 0.1  # not the expectation


@pytest.mark.parametrize(("low", "covers"), [(-0.1, True), (0.2, False)])
def test_a_proposal_that_ends_inside_the_law_is_not_silent(low, covers):
    def program(scale, key):
        keys = jax.random.split(key)
        x = mcgrad.sample(keys[0], mcgrad.Exponential(1 / scale), proposal=mcgrad.Exponential(0.5))
        y = mcgrad.sample(keys[1], mcgrad.Kumaraswamy(scale, 2.0), proposal=mcgrad.Uniform(low, 1.5))
        return x + y

    assert np.isfinite(jax.jit(mcgrad.grad(program))(1.0, jax.random.key(0))) == covers
