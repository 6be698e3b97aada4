"""LAX, RELAX and REBAR: unbiased whatever the surrogate, to second order; trained, closed over and refused as they should be."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives, gradient_draws
from jax.test_util import check_grads
from programs.program import expect_bernoulli, expect_categorical

import mcgrad
from mcgrad.distributions import binomial as bernoulli_file
from mcgrad.distributions import categorical as categorical_file
from mcgrad.program.surrogates import unit_weight, zero_with_derivative_of

stop = jax.lax.stop_gradient
rng = np.random.default_rng(0)
MIX = jnp.asarray(rng.normal(size=(3, 2)))


def logistic_grid(step=0.25, most=36.0):
    """Values of a uniform variable and their weights: the trapezoidal rule in its log odds."""
    noise = np.arange(-most, most + step / 2, step)
    weights = step / (np.exp(noise / 2) + np.exp(-noise / 2)) ** 2
    return 1 / (1 + np.exp(-noise)), weights / weights.sum()


def nodes_of(shape):
    """Nodes `[n, *shape]` of uniform noise and their weights `[n]`."""
    u, weights = logistic_grid(0.25 if len(shape) == 0 else 0.9, 36.0 if len(shape) == 0 else 30.0)
    grid = jnp.stack(jnp.meshgrid(*[jnp.asarray(u)] * max(int(np.prod(shape)), 1), indexing="ij"), -1)
    every = functools.reduce(np.multiply.outer, [weights] * grid.shape[-1]).ravel()
    return grid.reshape(-1, *shape), jnp.asarray(every)


def surrogate(z):
    return jnp.tanh(z - 0.3) + 0.4 * jnp.sin(z)


LAWS = {
    "bernoulli": (lambda p: mcgrad.Bernoulli(logits=p[0]), bernoulli_file, (), surrogate),
    "bernoulli, probs": (lambda p: mcgrad.Bernoulli(probs=jax.nn.sigmoid(p[0])), bernoulli_file, (), surrogate),
    "categorical": (
        lambda p: mcgrad.Categorical(logits=p),
        categorical_file,
        (3,),
        lambda z: jnp.tanh(z[0] - z[1]) + 0.4 * jnp.sin(z[2]),
    ),
    "one-hot, probs": (
        lambda p: mcgrad.OneHotCategorical(probs=jax.nn.softmax(p)),
        categorical_file,
        (3,),
        lambda z: jnp.tanh(z[0] - z[1]) + 0.4 * jnp.sin(z[2]),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_control_variate_has_mean_zero_to_second_order(name, monkeypatch):
    """By quadrature in the noise and enumeration of the draw; the usual form is right to first order only."""
    make, file, shape, control = LAWS[name]
    grid, weights = nodes_of(shape)
    params = jnp.asarray([0.7, -0.4, 0.2])
    values = make(params).support()

    def mean(params, form):
        law = make(params)

        def at(x, noise):
            monkeypatch.setattr(file, "open_uniform", lambda key, shape, dtype: jnp.broadcast_to(noise, shape))
            return form(law.relaxation(jax.random.key(0), x, False))

        of_each = jax.vmap(lambda x: weights @ jax.vmap(functools.partial(at, x))(grid))(values)
        return stop(jax.vmap(law.prob)(values)) @ of_each

    def ours(at):
        return control(at.free) - unit_weight(at.log_prob) * control(at.given)

    def usual(at):  # the weight of the value of c(z') alone
        return control(at.free) - control(at.given) + (1 - unit_weight(at.log_prob)) * stop(control(at.given))

    first, second = jax.jit(lambda p: (jax.grad(mean)(p, ours), jax.hessian(mean)(p, ours)))(params)
    accuracy = 1e-9 if shape == () else 1e-4
    np.testing.assert_allclose(first, 0.0, atol=accuracy)
    np.testing.assert_allclose(second, 0.0, atol=accuracy)
    first, second = jax.jit(lambda p: (jax.grad(mean)(p, usual), jax.hessian(mean)(p, usual)))(params)
    np.testing.assert_allclose(first, 0.0, atol=accuracy)
    assert np.abs(second).max() > 0.02


PARAMS = {
    "bits": jnp.asarray([[0.4, -0.7, 0.9], [-0.2, 0.5, 0.1]]),
    "class": jnp.asarray([0.3, -0.2, 0.5]),
    "normal": jnp.asarray([0.2, -0.3]),
    "chain": jnp.asarray([0.4, -0.6]),
}


def layers(params, key):
    """Surrogates of an example, of an entry and of the whole batch, of draws in a `vmap` and after one another."""
    keys = jax.random.split(key, 5)
    scale = jnp.exp(params["normal"][1])

    def of_example(z):  # [2, 3] to [2, 1]: all bits of an example together
        return 0.6 * jnp.tanh(scale * z @ MIX)[:, :1]

    bits = mcgrad.sample(keys[0], mcgrad.Bernoulli(logits=params["bits"]), mcgrad.RELAX(of_example)) * 1.0
    logits = params["class"] + bits[0, 0] * jnp.asarray([0.5, -0.3, 0.0])

    def one(key, place):
        def of_class(z):  # closes over what the `vmap` maps over, and over an earlier draw
            return 0.5 * jnp.sin(place * z[0] + bits[0, 0]) + 0.1 * z[1] * scale

        return mcgrad.sample(key, mcgrad.Categorical(logits=logits), mcgrad.RELAX(of_class, coupled=True)) * 1.0

    classes = jax.vmap(one)(jax.random.split(keys[1], 2), jnp.asarray([0.5, -1.0]))
    together = mcgrad.LAX(lambda x: 0.4 * jnp.sum(jnp.sin(x)))
    x = mcgrad.sample(keys[2], mcgrad.Normal(params["normal"][0] + bits[1], scale), together)
    return jnp.sum(jnp.max(bits @ MIX, axis=1)) + (classes[0] - 0.5 * classes[1]) ** 2 + x[0] * x[1] + x[2]


def exact_layers(params):
    def of_bits(bits):
        logits = params["class"] + bits[0, 0] * jnp.asarray([0.5, -0.3, 0.0])
        classes = expect_categorical(jnp.broadcast_to(logits, (2, 3)), lambda k: (1.0 * k[0] - 0.5 * k[1]) ** 2)
        x = params["normal"][0] + bits[1]
        return jnp.sum(jnp.max(bits @ MIX, axis=1)) + classes + x[0] * x[1] + x[2]

    return expect_bernoulli(params["bits"], of_bits)


def chain(params, key):
    """Draws in a `scan` and in a `cond`, with surrogates that close over the carry."""

    def step(state, inputs):
        key, t = inputs

        def drawn(key, state):
            control = mcgrad.RELAX(lambda z: jnp.sin(z) * (state + params["chain"][1]) * t)
            return mcgrad.sample(key, mcgrad.Bernoulli(logits=params["chain"][0] + 0.5 * state), control) * 1.0

        b = jax.lax.cond(t > 1.5, drawn, lambda key, state: state, key, state)
        state = 0.5 * state + b
        return state, (state - params["chain"][1]) ** 2

    last, costs = jax.lax.scan(step, jnp.asarray(0.3), (jax.random.split(key, 3), jnp.asarray([1.0, 2.0, 3.0])))
    return jnp.sum(costs) + last**3


def exact_chain(params):
    def go(t, state):
        if t == 4:
            return state**3
        nexts = [(1.0, 0.5 * state + state)]
        if t > 1:
            p = jax.nn.sigmoid(params["chain"][0] + 0.5 * state)
            nexts = [(1 - p, 0.5 * state), (p, 0.5 * state + 1.0)]
        return sum(p * ((s - params["chain"][1]) ** 2 + go(t + 1, s)) for p, s in nexts)

    return go(1, jnp.asarray(0.3))


CASES = [
    ("layers", 2, 1),
    ("chain", 1, 2),
    *(pytest.param(name, n, 2, marks=pytest.mark.slow) for name, n in (("layers", 1), ("layers", 5), ("chain", 5))),
]


@pytest.mark.parametrize(("name", "num_samples", "order"), CASES)
def test_value_gradient_and_hessian_are_unbiased(name, num_samples, order):
    program, expected = {"layers": (layers, exact_layers), "chain": (chain, exact_chain)}[name]
    exact = jax.tree.map(np.asarray, jax.jit(lambda p: derivatives(expected, p, order))(PARAMS))
    estimator = mcgrad.expectation(program, num_samples=num_samples)
    with jax.debug_key_reuse(False):  # it takes a key that a `scan` under `vmap` transposes for used twice
        draws = gradient_draws(
            lambda key: derivatives(lambda p: estimator(p, key), PARAMS, order), exact, jax.random.key(1)
        )
    for what in exact:
        assert_unbiased(draws[what], exact[what])


# Wrong estimators, as a third party would write them.


@dataclasses.dataclass(frozen=True)
class Wrong(mcgrad.LocalEstimator):
    """RELAX at a scalar bit or a pair of bits, with a mistake."""

    mistake: str = mcgrad._types.static_field()

    def represent(self, draw):
        x = draw.sample()
        at = draw.dist.relaxation(jax.random.fold_in(draw.key, 1), x, False)
        if self.mistake == "given another draw":
            at = at._replace(given=draw.dist.relaxation(jax.random.fold_in(draw.key, 2), draw.sample(3), False).given)

        def control(z):  # of all entries together, for each of them
            return jnp.broadcast_to(1.0 + jnp.sum(surrogate(z)), z.shape)

        log_weight = jnp.broadcast_to(jnp.sum(at.log_prob), at.log_prob.shape)
        if self.mistake == "own weight only":
            log_weight = at.log_prob
        value = control(at.free) - unit_weight(log_weight) * control(at.given)
        if self.mistake == "no path":
            value = -unit_weight(log_weight) * stop(control(at.given))
        if self.mistake == "value of the surrogate weighted alone":
            value = control(at.free) - control(at.given) + (1 - unit_weight(log_weight)) * stop(control(at.given))
        return mcgrad.WeightedPoint(x, draw.log_prob(x), control=zero_with_derivative_of(value) / at.log_prob.size)


def pair(logits, key, estimator):
    return jnp.max(jnp.asarray([1.0, 0.7]) * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator))


def exact_pair(logits):
    return expect_bernoulli(logits, lambda b: jnp.max(jnp.asarray([1.0, 0.7]) * b))


@pytest.mark.parametrize(
    ("mistake", "order"),
    [
        ("none", 2),
        ("given another draw", 0),
        ("own weight only", 0),
        ("no path", 0),
        ("value of the surrogate weighted alone", 1),
    ],
)
def test_a_wrong_control_variate_fails(mistake, order):
    """It is right up to the given order."""
    logits = jnp.asarray([0.4, -0.3])
    exact = jax.tree.map(np.asarray, derivatives(exact_pair, logits, 2))
    program = mcgrad.expectation(functools.partial(pair, estimator=Wrong(mistake)))
    draws = gradient_draws(
        lambda key: derivatives(lambda p: program(p, key), logits, 2), exact, jax.random.key(2), batch=4096
    )
    for k, what in enumerate(("value", "gradient", "hessian")):
        if k <= order:
            assert_unbiased(draws[what], exact[what])
        else:
            with pytest.raises(AssertionError, match="biased"):
                assert_unbiased(draws[what], exact[what])


@pytest.mark.parametrize("coupled", [False, True])
def test_derivatives_in_what_the_surrogate_closes_over(coupled):
    """None in the loss, on any key; in the square of the gradient that of the variance, by differences on the same keys."""
    phi = jnp.asarray([0.6, 0.8])
    keys = jax.random.split(jax.random.key(7), 64)

    def loss(phi, logits, key):
        def control(z):
            return jnp.sum(phi[0] * jnp.tanh(phi[1] * z + logits))  # closes over the parameters too

        return pair(logits, key, mcgrad.RELAX(control, coupled=coupled))

    logits = jnp.asarray([0.4, -0.3])
    value = mcgrad.expectation(loss)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(value), (None, None, 0)))(phi, logits, keys), 0.0)
    np.testing.assert_array_equal(jax.vmap(jax.grad(value), (None, None, 0))(phi, logits, keys[:2]), 0.0)

    def squares(phi, keys):
        gradients = jax.vmap(jax.grad(value, 1), (None, None, 0))(phi, logits, keys)
        return jnp.sum(jnp.mean(gradients**2, axis=0))

    check_grads(jax.jit(lambda phi: squares(phi, keys)), (phi,), order=2, rtol=1e-4)


def test_the_surrogate_is_evaluated_twice():
    """In the compiled gradient, and in the derivative that trains the surrogate."""
    matrix = jnp.ones((5, 7))

    def loss(logits, matrix, key):
        control = mcgrad.RELAX(lambda z: jnp.sum(jnp.tanh(z @ matrix)))
        return 1.0 * jnp.max(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), control))

    gradient = mcgrad.grad(loss)
    args = (jnp.zeros(5), matrix, jax.random.key(0))
    for fn in (gradient, jax.grad(lambda *args: jnp.sum(gradient(*args) ** 2), 1)):
        compiled = jax.jit(fn).lower(*args).compile().as_text()
        assert len(re.findall(r"= f64\S* tanh\(", compiled)) == 2


def test_lax_with_the_cost_is_the_path_and_with_nothing_the_score():
    law = lambda p: mcgrad.Gamma(jnp.exp(p), jnp.asarray([1.0, 2.0]))  # noqa: E731
    cost = lambda x: jnp.sin(x) + 0.1 * x**2  # noqa: E731
    params = jnp.asarray([0.3, -0.2])

    def gradients(estimator):
        def loss(p, key):
            return jnp.sum(cost(mcgrad.sample(key, law(p), estimator)))

        return jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(params, jax.random.split(jax.random.key(8), 20))

    np.testing.assert_allclose(gradients(mcgrad.LAX(cost)), gradients(mcgrad.Pathwise()), rtol=1e-9)
    np.testing.assert_allclose(gradients(mcgrad.LAX(lambda x: 0.0 * x)), gradients(mcgrad.Score()), rtol=1e-9)


def test_lax_of_a_cost_that_jumps():
    def loss(loc, key):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.LAX(lambda x: jax.nn.sigmoid(4.0 * x - 2.0)))
        return 1.0 * (x > 0.5)

    keys = jax.random.split(jax.random.key(9), 100_000)
    draws = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(0.2, keys)
    assert_unbiased(draws, jax.scipy.stats.norm.pdf(0.3))


# Batches: each entry of the draw is weighted with its own surrogate, or those that a cost mixes with one.


def test_entries_get_their_own_surrogate_only():
    logits = jnp.linspace(-1.0, 1.0, 100)
    costs = jnp.linspace(1.0, 2.0, 100)

    def total(logits, key, estimator):
        return jnp.sum(costs * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator))

    def draws(estimator):
        gradient = mcgrad.grad(functools.partial(total, estimator=estimator))
        return jax.jit(jax.vmap(gradient, (None, 0)))(logits, jax.random.split(jax.random.key(10), 4096))

    own = draws(mcgrad.RELAX(lambda z: costs * jax.nn.sigmoid(z)))
    exact = costs * jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
    np.testing.assert_allclose(own.mean(0), exact, atol=5 * float(own.std(0).max()) / 64)
    one = draws(mcgrad.RELAX(lambda z: jnp.sum(costs * jax.nn.sigmoid(z))))  # for all together: as many times the noise
    np.testing.assert_allclose(one.mean(0), exact, atol=5 * float(one.std(0).max()) / 64)
    assert float(jnp.sum(own.var(0))) < 0.01 * float(jnp.sum(one.var(0)))


def test_the_joint_surrogate_of_an_example_is_that_written_by_hand(monkeypatch):
    """`(c - c(z')) d log p + dc(z) - dc(z')` of each example of a batch, on the same noise."""
    logits, key = PARAMS["bits"], jax.random.key(11)
    noise = [jnp.asarray(rng.uniform(size=(2, 3))) for _ in range(2)]
    in_turn = itertools.cycle(noise)  # that of z, that of z' given the draw
    monkeypatch.setattr(bernoulli_file, "open_uniform", lambda key, shape, dtype: next(in_turn))

    def cost(b):
        return jnp.max(b @ MIX, axis=1)

    def control(z):
        return jnp.sin(z @ MIX)[:, 0]

    def loss(logits, key):
        estimator = mcgrad.RELAX(lambda z: control(z)[:, None])
        return jnp.mean(cost(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator)))

    b = mcgrad.Bernoulli(logits=logits).sample(jax.random.clone(key))

    def perturbed(logits, noise):
        p = jax.nn.sigmoid(logits)
        return jax.scipy.special.logit(jnp.where(b == 1, 1 - p + p * noise, (1 - p) * noise))

    def by_hand(moved):
        z, z_given = moved + perturbed(logits, noise[0]), moved + perturbed(moved, noise[1])
        log_prob = jnp.sum(mcgrad.Bernoulli(logits=moved).log_prob(b), axis=1)
        return jnp.mean(stop(cost(1.0 * b) - control(z_given)) * log_prob + control(z) - control(z_given))

    np.testing.assert_allclose(mcgrad.grad(loss)(logits, key), jax.grad(by_hand)(logits), rtol=1e-10)


# Control flow, precision, certain draws.


def test_a_draw_inside_a_while_loop():
    """In forward mode: a walk until the first one, at most six steps."""

    def program(logit, key, estimator):
        def step(state):
            key, count, _ = state
            key, own = jax.random.split(key)
            stopped = mcgrad.sample(own, mcgrad.Bernoulli(logits=logit), estimator(logit))
            return key, count + 1.0, stopped

        _, count, _ = jax.lax.while_loop(
            lambda state: (state[1] < 6) & (state[2] == 0), step, (key, 0.0 * logit, jnp.asarray(0, jnp.int32))
        )
        return count**2

    def exact(logit):
        p = jax.nn.sigmoid(logit)
        return sum(p * (1 - p) ** (n - 1) * n**2 for n in range(1, 6)) + (1 - p) ** 5 * 36.0

    def estimate(key, estimator):
        found = mcgrad.expectation(functools.partial(program, estimator=estimator))
        value, gradient = jax.jvp(lambda p: found(p, key), (0.3,), (1.0,))
        return {"value": value, "gradient": gradient}

    def relax(logit):
        return mcgrad.RELAX(lambda z: 4.0 + 0.5 * jnp.sin(z - logit))

    expected = {"value": np.asarray(exact(0.3)), "gradient": np.asarray(jax.grad(exact)(0.3))}
    relaxed, score = (
        gradient_draws(functools.partial(estimate, estimator=estimator), expected, jax.random.key(12))
        for estimator in (relax, lambda logit: mcgrad.Score(baseline=None))
    )
    for name in expected:
        assert_unbiased(relaxed[name], expected[name])
    assert relaxed["gradient"].var() < 0.8 * score["gradient"].var()


def test_a_surrogate_given_to_the_transform():
    """A function of plain arrays, a pytree that is a function, and one with arrays that a batch of draws shares."""
    logits = jnp.asarray([[0.4, -0.7, 0.9], [-0.2, 0.5, 0.1]])

    def loss(logits, key):
        def one(logits, key):
            return jnp.sum(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits))) ** 2

        return jnp.mean(jax.vmap(one)(logits, jax.random.split(key, 2)))

    def of(control):
        return mcgrad.grad(loss, estimator=mcgrad.RELAX(control))(logits, jax.random.key(13))

    scale = jnp.asarray([0.3, 0.7, 1.0])
    plain = of(lambda z: jnp.sum(scale * jnp.sin(z)))
    np.testing.assert_allclose(of(jax.tree_util.Partial(lambda scale, z: jnp.sum(scale * jnp.sin(z)), scale)), plain)
    estimator = mcgrad.RELAX(jax.tree_util.Partial(lambda scale, z: jnp.sum(scale * jnp.sin(z)), scale))
    assert [leaf.shape for leaf in jax.tree.leaves(estimator)] == [(3,)]
    trained = jax.grad(lambda e: jnp.sum(mcgrad.grad(loss, estimator=e)(logits, jax.random.key(13)) ** 2))(estimator)
    assert np.abs(trained.control.args[0]).min() > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_precision_and_explanation(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), {"bits": PARAMS["bits"], "loc": PARAMS["normal"]})

    def loss(params, key):
        keys = jax.random.split(key)
        b = mcgrad.sample(
            keys[0], mcgrad.Bernoulli(probs=jax.nn.sigmoid(params["bits"])), mcgrad.RELAX(lambda z: jnp.sin(z))
        )
        x = mcgrad.sample(keys[1], mcgrad.Normal(params["loc"], 1.0), mcgrad.LAX(jnp.sin))
        return jnp.sum(b.astype(dtype)) * jnp.sum(x)

    found = jax.jit(jax.hessian(mcgrad.expectation(loss, num_samples=2)))(params, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert [site.estimator for site in mcgrad.explain(loss)(params, jax.random.key(0)).sites] == ["RELAX", "LAX"]


CERTAIN = {
    "logits": lambda p: mcgrad.Bernoulli(logits=p + jnp.asarray([-jnp.inf, 0.3, jnp.inf, 900.0])),
    "probs": lambda p: mcgrad.Bernoulli(probs=p + jnp.asarray([0.0, 0.3, 1.0, 1e-320])),
    "classes": lambda p: mcgrad.Categorical(logits=p + jnp.asarray([-jnp.inf, 0.3, -900.0, 1.0])),
    "probs of classes": lambda p: mcgrad.OneHotCategorical(probs=p + jnp.asarray([0.0, 0.3, 0.7, 0.0])),
    "one class": lambda p: mcgrad.OneHotCategorical(probs=p + jnp.asarray([0.0, 1.0, 0.0, 0.0])),
}


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CERTAIN)
def test_certain_draws_have_the_score_only(name, dtype):
    phi, p = jnp.asarray([0.7, 0.2], dtype), jnp.zeros(4, dtype)
    keys = jax.random.split(jax.random.key(14), 8)

    def losses(p, phi, relax):
        def loss(key):
            def control(z):
                return phi[0] * jnp.sum(jnp.tanh(phi[1] * z)) + jnp.sum(1e-3 * z**2)

            law = jax.tree.map(lambda leaf: leaf.astype(dtype), CERTAIN[name](p))
            x = mcgrad.sample(key, law, mcgrad.RELAX(control) if relax else mcgrad.Score(baseline=None))
            return jnp.sum(jnp.asarray([1.0, 2.0, 4.0, 8.0], dtype) * x.astype(dtype))

        return jax.vmap(mcgrad.expectation(loss))(keys)

    @jax.jit
    def found(p, phi):
        relaxed, score = (jax.jacfwd(functools.partial(losses, relax=relax))(p, phi) for relax in (True, False))
        trained = jax.grad(lambda phi: jnp.sum(jax.jacfwd(functools.partial(losses, relax=True))(p, phi) ** 2))(phi)
        return relaxed, score, trained, jax.hessian(lambda p: jnp.sum(losses(p, phi, True)))(p)

    relaxed, score, trained, hessian = found(p, phi)
    assert all(np.isfinite(array).all() for array in (relaxed, trained, hessian))
    if "class" not in name:
        np.testing.assert_array_equal(relaxed[:, [0, 2, 3]], score[:, [0, 2, 3]])
        assert (relaxed[:, 1] != score[:, 1]).all()
    if name == "one class":
        np.testing.assert_allclose(relaxed, score, atol=1e-6)
