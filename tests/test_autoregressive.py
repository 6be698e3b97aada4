"""Distributions of sequences: drawn entry by entry, credited by one pass over all of them."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

TOKENS, LENGTH, WIDTH = 3, 3, 2


@pytest.fixture(autouse=True)
def _keys_of_a_mapped_scan_are_not_reused():
    """JAX's checker takes the keys of a `scan` under `vmap` for consumed."""
    with jax.debug_key_reuse(False):
        yield


START = TOKENS


def init(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"embed": (TOKENS + 1, WIDTH), "place": (LENGTH, WIDTH), "out": (WIDTH, TOKENS)}
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


PARAMS, REFERENCE = init(0), init(1)


def of_all(params, tokens):
    """Logits `[length, tokens]`, by causal attention: entry t from the tokens before t."""
    before = jnp.concatenate([jnp.full(1, START), tokens[:-1]])
    h = params["embed"][before] + params["place"]
    scores = jnp.where(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), h @ h.T, -jnp.inf)
    return jnp.tanh(h + jax.nn.softmax(scores) @ h) @ params["out"]


def of_next(params, token, cache, t):
    """Logits `[tokens]` of the next token, and the cache."""
    h = params["embed"][token] + params["place"][t]
    cache = cache.at[t].set(h)
    scores = jnp.where(jnp.arange(LENGTH) <= t, cache @ h, -jnp.inf)
    return jnp.tanh(h + jax.nn.softmax(scores) @ cache) @ params["out"], cache


CACHE = jnp.zeros((LENGTH, WIDTH))


def decode(key, params):
    def step(carry, given):
        key, t = given
        logits, cache = of_next(params, *carry, t)
        token = jax.random.categorical(key, logits)
        return (token, cache), token

    return jax.lax.scan(step, (jnp.asarray(START), CACHE), (jax.random.split(key, LENGTH), jnp.arange(LENGTH)))[1]


def classes(tokens, params):
    return mcgrad.Categorical(logits=of_all(params, tokens))


Text = mcgrad.autoregressive(decode, classes)
Given = mcgrad.autoregressive(lambda key, params, text: text, lambda tokens, params, text: classes(tokens, params))
"""A text that is given in place of a draw: so that all of them can be gone through."""

TEXTS = jnp.asarray(list(itertools.product(range(TOKENS), repeat=LENGTH)))


def divergence(logits, other):
    ours, theirs = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    finite = jnp.where(jnp.isfinite(ours), ours - theirs, 0.0)
    return jnp.sum(jnp.exp(ours) * finite, axis=-1)


def per_token(tokens):
    before = jnp.concatenate([jnp.zeros(1, tokens.dtype), tokens[:-1]])
    return jnp.sum(1.5 * (tokens >= before) + 0.3 * tokens)


def whole(tokens):
    return 2.0 * jnp.any(tokens == 2) * (tokens[0] + 1.0)


def loss(params, key, reward):
    text = Text(params)
    tokens = mcgrad.sample(key, text, name="text")
    other = Text(REFERENCE).conditionals(tokens)  # first, so that its density could be taken for the draw's
    return jnp.sum(divergence(text.conditionals(tokens).logits, other.logits)) - reward(tokens)


def loss_by_scan(params, key, reward):
    def step(carry, given):
        token, cache, other_cache = carry
        key, t = given
        logits, cache = of_next(params, token, cache, t)
        other, other_cache = of_next(REFERENCE, token, other_cache, t)
        token = mcgrad.sample(key, mcgrad.Categorical(logits=logits))
        return (token, cache, other_cache), (token, divergence(logits, other))

    start = (jnp.asarray(START), CACHE, CACHE)
    given = (jax.random.split(key, LENGTH), jnp.arange(LENGTH))
    tokens, divergences = jax.lax.scan(step, start, given)[1]
    return jnp.sum(divergences) - reward(tokens)


def log_prob(params, text, logits_of=of_all):
    return jnp.sum(jax.nn.log_softmax(logits_of(params, text))[jnp.arange(LENGTH), text])


def exact(cost, params, logits_of=of_all):
    """The expectation of `cost(params, text)`, over all texts."""
    chances = jnp.exp(jax.vmap(lambda text: log_prob(params, text, logits_of))(TEXTS))
    return jnp.sum(chances * jax.vmap(lambda text: cost(params, text))(TEXTS))


def in_expectation(estimate, params, logits_of=of_all):
    """The exact expectation of an estimate that is a function of the text drawn."""
    chances = jnp.exp(jax.vmap(lambda text: log_prob(params, text, logits_of))(TEXTS))
    return jax.tree.map(lambda x: jnp.tensordot(chances, x, 1), jax.vmap(estimate)(TEXTS))


def assert_close(found, wanted, tolerance=1e-10):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), found, wanted)


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_gradients_are_those_of_draws_in_a_scan(num_samples):
    """To the last digits, draw by draw: so is the variance."""
    reward = lambda tokens: per_token(tokens) + whole(tokens)  # noqa: E731

    @jax.jit
    @jax.vmap
    def both(key):
        return [mcgrad.value_and_grad(f, num_samples=num_samples)(PARAMS, key, reward) for f in (loss, loss_by_scan)]

    found, wanted = both(jax.random.split(jax.random.key(3), 4))
    assert_close(found, wanted)


def test_gradient_and_second_derivatives_are_exact():
    def program(params, key, text):
        given = Given(params, text)
        tokens = mcgrad.sample(key, given)
        other = of_all(REFERENCE, tokens)
        return jnp.sum(divergence(given.conditionals(tokens).logits, other)) - per_token(tokens) * whole(tokens)

    def cost(params, tokens):
        return jnp.sum(divergence(of_all(params, tokens), of_all(REFERENCE, tokens))) - per_token(tokens) * whole(
            tokens
        )

    moving = ("embed", "out")
    line = {name: jnp.ones_like(PARAMS[name]) for name in moving}

    def derivatives(fn):
        """Value, gradient, and the second derivatives along a line."""

        def along(given):
            return jax.jvp(jax.value_and_grad(lambda given: fn({**PARAMS, **given})), (given,), (line,))

        return along({name: PARAMS[name] for name in moving})

    def estimate(text):
        return derivatives(lambda params: mcgrad.expectation(program)(params, jax.random.key(0), text))

    @jax.jit
    def both():
        return in_expectation(estimate, PARAMS), derivatives(functools.partial(exact, cost))

    assert_close(*both())


def test_credit_is_per_token():
    credits = [cost.credits[0].axes for cost in mcgrad.explain(loss)(PARAMS, jax.random.key(0), per_token).costs]
    assert credits[0] == ("earlier, up to -1",)
    assert "earlier" in {axes[0] for axes in credits}


def passes(program):
    """How often the parallel pass is made, that of the reference left out."""
    text = str(jax.make_jaxpr(mcgrad.expectation(program))(PARAMS, jax.random.key(0)))
    return text.count(f"[{LENGTH},{WIDTH}] = tanh") - 1


def test_one_pass_serves_the_score_and_the_costs():
    assert passes(lambda params, key: loss(params, key, per_token)) == 1


def test_functions_may_close_over_what_the_program_computes():
    def program(params, key):
        scaled = jax.tree.map(lambda x: 1.0 * x, params)
        text = mcgrad.autoregressive(lambda key: decode(key, scaled), lambda tokens: classes(tokens, scaled))()
        tokens = mcgrad.sample(key, text)
        other = Text(REFERENCE).conditionals(tokens)
        return jnp.sum(divergence(text.conditionals(tokens).logits, other.logits)) - whole(tokens)

    @jax.jit
    def both(key):
        return [mcgrad.grad(f)(PARAMS, key) for f in (program, lambda params, key: loss(params, key, whole))]

    assert_close(*both(jax.random.key(8)))


def test_texts_of_a_batch_are_credited_apart():
    def decode_batch(key, params, n):
        return jax.vmap(lambda key: decode(key, params))(jax.random.split(key, n.shape[0]))

    def classes_of_batch(tokens, params, n):
        return mcgrad.Categorical(logits=jax.vmap(functools.partial(of_all, params))(tokens))

    Batch = mcgrad.autoregressive(decode_batch, classes_of_batch)

    def program(params, key):
        texts = mcgrad.sample(key, Batch(params, jnp.zeros(4)))
        return jnp.mean(jax.vmap(whole)(texts))

    def one_by_one(params, key):
        texts = jax.vmap(lambda key: mcgrad.sample(key, Text(params)))(jax.random.split(key, 4))
        return jnp.mean(jax.vmap(whole)(texts))

    batch = Batch(PARAMS, jnp.zeros(4))
    assert (batch.batch_shape, batch.event_shape) == ((4,), (LENGTH,))
    assert mcgrad.explain(program)(PARAMS, jax.random.key(0)).costs[0].credits[0].axes[0] == "same"

    @jax.jit
    def both(key):
        return [mcgrad.grad(f)(PARAMS, key) for f in (program, one_by_one)]

    assert_close(*both(jax.random.key(2)))


def test_an_old_policy_may_draw():
    """Ratios of each token and those before it; exact, also for texts that come from a buffer."""
    Buffer = mcgrad.autoregressive(lambda key, text: text, lambda tokens, text: classes(tokens, REFERENCE))

    def program(params, key, text):
        tokens = mcgrad.sample(key, Text(params), proposal=Buffer(text))
        return per_token(tokens) * tokens[0]

    @jax.jit
    def both():
        estimate = lambda text: mcgrad.value_and_grad(program)(PARAMS, jax.random.key(0), text)  # noqa: E731
        found = in_expectation(estimate, REFERENCE)
        return found, jax.value_and_grad(functools.partial(exact, lambda _, text: per_token(text) * text[0]))(PARAMS)

    assert_close(*both())


def test_forbidden_tokens_temperature_and_the_end_of_a_text():
    """Logits of -inf; after token 0 only token 0: no token after the end has a score, and nothing is NaN."""

    def masked(params, tokens):
        logits = of_all(params, tokens) / 0.7
        ended = jnp.concatenate([jnp.zeros(1, bool), jnp.cumsum(tokens == 0)[:-1] > 0])
        kept = logits >= jax.lax.top_k(logits, 2)[0][:, -1:]
        return jnp.where(jnp.where(ended[:, None], jnp.arange(TOKENS) == 0, kept), logits, -jnp.inf)

    Masked = mcgrad.autoregressive(
        lambda key, params, text: text, lambda tokens, params, text: mcgrad.Categorical(logits=masked(params, tokens))
    )

    def cost(tokens):
        return jnp.sum(jnp.where(tokens > 0, 1.0, 0.0)) ** 2 + tokens[0]

    def program(params, key, text):
        return cost(mcgrad.sample(key, Masked(params, text)))

    @jax.jit
    def both():
        estimate = lambda text: mcgrad.grad(program)(PARAMS, jax.random.key(0), text)  # noqa: E731
        estimates = jax.vmap(estimate)(TEXTS)
        possible = jax.vmap(lambda text: log_prob(PARAMS, text, masked) > -jnp.inf)(TEXTS)
        chances = jnp.exp(jax.vmap(lambda text: log_prob(PARAMS, text, masked))(TEXTS))
        found = jax.tree.map(lambda x: jnp.tensordot(chances, x, 1), estimates)

        def surrogate(params):
            chance = jax.vmap(lambda text, own: jnp.where(own, jnp.exp(log_prob(params, text, masked)), 0.0))
            return jnp.sum(chance(TEXTS, possible) * jax.vmap(cost)(TEXTS))

        return found, jax.jacfwd(surrogate)(PARAMS)

    found, wanted = both()
    assert all(map(lambda x: bool(jnp.isfinite(x).all()), jax.tree.leaves(found)))
    assert_close(found, wanted)


def test_sequences_of_numbers():
    """An autoregressive process, by its score: exact in the mean, whatever the distribution of entries is."""
    draw = lambda key, slope: jax.lax.scan(  # noqa: E731
        lambda x, key: (x_next := slope * x + jax.random.normal(key), x_next), jnp.ones(()), jax.random.split(key, 4)
    )[1]
    all_at_once = lambda x, slope: mcgrad.Normal(slope * jnp.concatenate([jnp.ones(1), x[:-1]]), 1.0)  # noqa: E731
    Process = mcgrad.autoregressive(draw, all_at_once)

    def program(slope, key):
        x = mcgrad.sample(key, Process(slope))
        return jnp.sum(x)

    def by_scan(slope, key):
        def step(x, key):
            x = mcgrad.sample(key, mcgrad.Normal(slope * x, 1.0), mcgrad.Score())
            return x, x

        return jnp.sum(jax.lax.scan(step, jnp.ones(()), jax.random.split(key, 4))[1])

    key = jax.random.key(4)
    assert_close(mcgrad.grad(program)(0.3, key), mcgrad.grad(by_scan)(0.3, key))


@pytest.mark.parametrize(
    "name", ["Pathwise", "LocalExpectation", "SumAndSample", "MeasureValued", "StraightThrough", "CARMS"]
)
def test_estimators_that_perturb_single_draws_are_refused(name):
    estimator = getattr(mcgrad, name)(*[2] * (name == "CARMS"))
    program = lambda params, key: whole(mcgrad.sample(key, Text(params), estimator))  # noqa: E731
    with pytest.raises(ValueError, match=f"mcgrad.{name}` would be wrong at the draw from autoregressive"):
        mcgrad.explain(program)(PARAMS, jax.random.key(0))


def test_log_densities_are_those_of_whole_texts():
    text = Text(PARAMS)
    assert_close(text.log_prob(TEXTS[5]), log_prob(PARAMS, TEXTS[5]))
    assert (text.batch_shape, text.event_shape, text.discrete) == ((), (LENGTH,), True)
    joint = mcgrad.Independent(text, 0)
    assert_close(joint.log_prob(TEXTS[5]), log_prob(PARAMS, TEXTS[5]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mcgrad.autoregressive(3, classes), r"autoregressive\(sampler=...\)` must be a function, got 3"),
        (lambda: mcgrad.autoregressive(decode, None), r"autoregressive\(conditionals=...\)` must be a function"),
        (
            lambda: mcgrad.autoregressive(lambda key, p: (decode(key, p), 1.0), classes)(PARAMS).batch_shape,
            r"autoregressive\(sampler=...\)` must return one array",
        ),
        (
            lambda: mcgrad.autoregressive(decode, lambda x, p: mcgrad.Categorical(logits=p["out"]))(PARAMS).batch_shape,
            r"got batch shape \(2,\) and event shape \(\) for draws of shape \(3,\)",
        ),
        (
            lambda: mcgrad.autoregressive(decode, lambda x, p: of_all(p, x))(PARAMS).batch_shape,
            "must be a distribution",
        ),
        (lambda: Text(PARAMS).conditionals(TEXTS), r"must get sequences of shape \(3,\).*jax.vmap"),
        (
            lambda: mcgrad.grad(lambda p, key: 1.0 * jnp.sum(mcgrad.sample(key, Text(p), mcgrad.Enumerate())))(
                PARAMS, jax.random.key(0)
            ),
            "support",
        ),
        (lambda: jax.grad(lambda p: 1.0 * jnp.sum(mcgrad.sample(jax.random.key(0), Text(p))))(PARAMS), "mcgrad.grad"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
