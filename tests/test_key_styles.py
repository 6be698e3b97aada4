"""Keys of every age and make: old-style ones, sequences and streams of keys, under the names that people use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LOOP_PROGRAMS, assert_unbiased

import mcgrad


@pytest.fixture(autouse=True)
def keys_may_be_used_twice():
    """The same key, typed and old-style, goes into many calls here; JAX's checker is off for its users by default."""
    with jax.debug_key_reuse(False):
        yield


def loss(theta, key):
    key_b, key_z = jax.random.split(key)
    b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=theta))
    z = mcgrad.sample(key_z, mcgrad.Normal(theta * b, 1.0))
    return (z - 2.0) ** 2 + 3.0 * b


def typed(seed):
    return jax.random.wrap_key_data(jax.random.PRNGKey(seed))


def same(found, expected):
    return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


def draw(key, theta):
    return theta + jax.random.normal(key)


def density(x, theta):
    return jax.scipy.stats.norm.logpdf(x, theta)


CALLS = {
    "sample": lambda theta, key: mcgrad.sample(key, mcgrad.Normal(theta, 1.0)),
    "expectation": mcgrad.expectation(loss),
    "grad": mcgrad.grad(loss),
    "num_samples": mcgrad.value_and_grad(loss, num_samples=4),
    "chunk_size": mcgrad.grad(loss, num_samples=4, chunk_size=2),
    "score_grad": mcgrad.score_grad(lambda theta, x: x**2, sampler=draw, log_prob=density, num_samples=2),
    "pathwise_grad": mcgrad.pathwise_grad(lambda theta, x: x**2, sampler=draw, num_samples=2),
    "iwae": mcgrad.grad(mcgrad.iwae(loss, 3)),
    "vimco": jax.grad(mcgrad.vimco(loss, 3)),
    "vargrad": jax.grad(mcgrad.vargrad(loss, 3)),
    "dreg": jax.grad(mcgrad.dreg(lambda theta, key: -(mcgrad.sample(key, mcgrad.Normal(theta, 1.0)) ** 2), 3)),
    "finite_difference_grad": mcgrad.finite_difference_grad(loss, step=0.1, num_samples=3),
    "spsa_grad": mcgrad.spsa_grad(loss, step=0.1, num_samples=4, chunk_size=2),
    "per_sample_grad": mcgrad.per_sample_grad(loss, num_samples=3),
    "gradient_statistics": mcgrad.gradient_statistics(loss, 50),
}


@pytest.mark.parametrize("name", CALLS)
def test_old_style_keys_give_the_numbers_of_typed_ones(name):
    theta, call = jnp.asarray(0.3), CALLS[name]
    expected = call(theta, typed(1))
    assert same(call(theta, jax.random.PRNGKey(1)), expected)
    if name in ("sample", "expectation", "grad", "num_samples", "score_grad"):
        keys = [jax.random.split(key, 3) for key in (typed(2), jax.random.PRNGKey(2))]
        assert same(jax.vmap(call, (None, 0))(theta, keys[1]), jax.vmap(call, (None, 0))(theta, keys[0]))


def test_numpy_holds_keys_too():
    assert mcgrad.grad(loss)(0.3, np.asarray(jax.random.PRNGKey(1))) == mcgrad.grad(loss)(0.3, typed(1))


def test_diagnostics_and_explain_take_old_style_keys():
    found, expected = (
        mcgrad.compare(loss, [mcgrad.Score(), mcgrad.MeasureValued()], num_samples=100)(0.3, key)
        for key in (jax.random.PRNGKey(0), typed(0))
    )
    assert {n: r.variance for n, r in found.reports.items()} == {n: r.variance for n, r in expected.reports.items()}
    assert str(mcgrad.explain(loss)(0.3, jax.random.PRNGKey(0))) == str(mcgrad.explain(loss)(0.3, typed(0)))
    assert mcgrad.check_distribution(mcgrad.Normal(0.0, 1.0), jax.random.PRNGKey(0), num_samples=1000).agrees
    assert mcgrad.samples_for(loss, 0.5)(0.3, jax.random.PRNGKey(0)) == mcgrad.samples_for(loss, 0.5)(0.3, typed(0))


LOOPS = [program for program in LOOP_PROGRAMS if program.name in ("bernoulli_chain", "rollout_by_fori_loop")]


@pytest.mark.parametrize("program", LOOPS, ids=lambda program: program.name)
@pytest.mark.parametrize("estimator", [mcgrad.Score(baseline=None), mcgrad.MeasureValued()], ids=["score", "measure"])
def test_loops_split_old_style_keys(program, estimator):
    def gradient(key):
        surrogate = mcgrad.expectation(program.fn, estimator=estimator)
        return jax.jit(jax.jacrev(lambda params: program.call(surrogate, params, key)))(program.params)

    assert same(gradient(jax.random.PRNGKey(3)), gradient(typed(3)))


@pytest.mark.parametrize("name", ["key", "rng", "rng_key", "rngs", "seed"])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_the_key_is_found_by_its_name(name, make):
    scope: dict = {"loss": loss}
    exec(
        f"def program(theta, {name}): return loss(theta, {name})\ndef only(theta, *, {name}): return loss(theta, {name})",
        scope,
    )
    argname = {"key_argname": name} if name == "seed" else {}
    expected = mcgrad.grad(loss, num_samples=3)(0.3, typed(1))
    gradient = functools.partial(mcgrad.grad, num_samples=3, **argname)
    assert gradient(scope["program"])(0.3, make(1)) == expected
    assert gradient(scope["program"])(0.3, **{name: make(1)}) == expected
    assert gradient(scope["only"])(0.3, **{name: make(1)}) == expected
    with pytest.raises(TypeError, match=f"{name}=...\\)` must be a key, got none"):
        gradient(scope["program"])(0.3)


def test_the_key_is_found_by_its_type_where_its_name_says_nothing():
    expected = mcgrad.grad(loss, num_samples=3)(0.3, typed(1))
    for key in (typed(1), jax.random.PRNGKey(1)):
        assert mcgrad.grad(lambda *args: loss(*args), num_samples=3)(0.3, key) == expected
    assert mcgrad.grad(lambda theta, seed: loss(theta, seed), num_samples=3)(0.3, typed(1)) == expected
    # Two numbers of 32 bits may be anything.
    with pytest.raises(
        ValueError, match="may have one in `seed`. Name its key argument `key`, or pass `key_argname='seed'`"
    ):
        mcgrad.grad(lambda theta, seed: loss(theta, seed), num_samples=3)(0.3, jax.random.PRNGKey(1))


def test_what_to_write_without_a_key_or_with_two():
    with pytest.raises(ValueError, match=r"more than one key, `a` and `b`. Pass one named `key` and split it"):
        mcgrad.grad(lambda theta, a, b: loss(theta, a), num_samples=2)(0.3, typed(0), typed(1))
    with pytest.raises(ValueError, match="has none. Name its key argument `key`"):
        mcgrad.grad(lambda theta: loss(theta, typed(0)), num_samples=2)(0.3)
    with pytest.raises(ValueError, match=r"key_argname=...\)` must name an argument of the call, got 'k'"):
        mcgrad.grad(loss, key_argname="k")(0.3, typed(0))
    with pytest.raises(TypeError, match="must be a key, got an array of uint32 and shape .3,.*wrap_key_data"):
        mcgrad.grad(loss)(0.3, jnp.zeros(3, jnp.uint32))
    with pytest.raises(TypeError, match="must be a key, got an array of int32"):
        mcgrad.grad(loss)(0.3, jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_streams_by_name_are_all_split(make):
    def program(theta, rngs):
        b = mcgrad.sample(rngs["sample"], mcgrad.Bernoulli(logits=theta))
        return 3.0 * b + jax.random.normal(rngs["dropout"])

    def of_batch(theta, batch):
        return program(theta, batch["rngs"]) + jnp.sum(batch["x"])

    rngs = {"sample": make(0), "dropout": make(1)}
    values, _ = jax.vmap(lambda s, d: (program(0.3, {"sample": s, "dropout": d}), 0))(
        jax.random.split(make(0), 4), jax.random.split(make(1), 4)
    )
    assert np.isclose(mcgrad.expectation(program, num_samples=4)(0.3, rngs), np.mean(values))
    if make is jax.random.key:  # in other arguments, two numbers of 32 bits may be anything
        batch = {"x": jnp.zeros(2), "rngs": rngs}
        assert np.isclose(mcgrad.expectation(of_batch, num_samples=4)(0.3, batch), np.mean(values))
    assert mcgrad.gradient_statistics(program, 20)(0.3, rngs).total_variance >= 0


@pytest.mark.parametrize(
    ("implementation", "estimator"),
    [("rbg", None), ("unsafe_rbg", mcgrad.Score()), ("rbg", mcgrad.MeasureValued())],
    ids=["auto", "score", "measure"],
)
def test_keys_of_every_implementation(implementation, estimator):
    def program(theta, key):
        key_b, key_z = jax.random.split(key)
        b = mcgrad.sample(key_b, mcgrad.Bernoulli(logits=theta))
        return 3.0 * b + 0.3 * mcgrad.sample(key_z, mcgrad.Normal(theta * b, 1.0))

    exact = jax.grad(lambda theta: jax.nn.sigmoid(theta) * (3.0 + 0.3 * theta))(0.3)
    gradient = mcgrad.grad(program, estimator=estimator, num_samples=2)
    # Under `vmap`, JAX draws the bits of the whole batch from its first key: independent all the same.
    keys = jax.random.split(jax.random.key(5, impl=implementation), 8_000)
    assert_unbiased(jax.jit(jax.vmap(gradient, (None, 0)))(0.3, keys), exact)
    assert np.isfinite(gradient(0.3, keys[0]))


def test_old_style_keys_of_another_default():
    with jax.default_prng_impl("rbg"):
        found = mcgrad.grad(loss, num_samples=2)(0.3, jax.random.PRNGKey(1))
        assert found == mcgrad.grad(loss, num_samples=2)(0.3, jax.random.key(1))


def test_draws_that_share_a_key_are_refused_in_every_style():
    outside = jax.random.PRNGKey(7)

    def bit(theta, key):
        return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=theta), mcgrad.Score())

    def in_a_loop(theta, key):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + bit(theta, key)), (0, 0.0))[1]

    def in_two_styles(theta, key):
        return bit(theta, key) * bit(theta, jax.random.wrap_key_data(key))

    def twice_split(theta, key):
        return bit(theta, jax.random.split(key)[0]) * bit(theta, jax.random.split(key)[0])

    for program in (in_two_styles, twice_split):
        with pytest.raises(ValueError, match="uses the same key as"):
            mcgrad.expectation(program)(0.3, jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="same key in several steps of the `while_loop`"):
        mcgrad.expectation(in_a_loop)(0.3, jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="not made of the argument `key`"):
        shared = lambda theta, key: bit(theta, key) * bit(theta, outside)  # noqa: E731
        mcgrad.expectation(shared, num_samples=2)(0.3, jax.random.PRNGKey(0))


def hidden(loc, seed, other):
    """Two arguments that hold keys: neither is found by itself."""
    return mcgrad.sample(seed, mcgrad.Normal(loc, 1.0)) ** 2 + 0.0 * jnp.sum(jax.random.key_data(other))


@pytest.mark.parametrize(
    "run",
    [
        lambda fn, **name: mcgrad.iwae(fn, 2, **name),
        lambda fn, **name: mcgrad.vimco(fn, 2, **name),
        lambda fn, **name: mcgrad.vargrad(fn, 2, **name),
        lambda fn, **name: mcgrad.dreg(fn, 2, **name),
        lambda fn, **name: mcgrad.sticking_the_landing(fn, 2, **name),
        lambda fn, **name: mcgrad.per_sample_grad(fn, num_samples=2, **name),
        lambda fn, **name: mcgrad.gradient_statistics(fn, 10, **name),
        lambda fn, **name: mcgrad.samples_for(fn, 0.5, 100, **name),
        lambda fn, **name: mcgrad.compare(fn, [mcgrad.Pathwise()], num_samples=10, **name),
        lambda fn, **name: mcgrad.least_variance(fn, [mcgrad.Pathwise()], num_samples=10, **name),
        lambda fn, **name: mcgrad.grad(mcgrad.iwae(fn, 2, **name)),
    ],
)
def test_the_key_may_be_named_everywhere(run):
    args = (1.0, jax.random.key(0), jax.random.key(1))
    with pytest.raises(ValueError, match="must find the argument named `key`"):
        run(hidden)(*args)
    run(hidden, key_argname="seed")(*args)
    with pytest.raises(ValueError, match="key_argname=...\\)` must name an argument of the call, got 'sead'"):
        run(hidden, key_argname="sead")(*args)
