"""Draws that share a random key, however the key was written, and draws that do not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad
from mcgrad.program import key_bits
from mcgrad.program.trace import from_jaxpr

SCORE = mcgrad.Score()
split, fold_in = jax.random.split, jax.random.fold_in


def draw(p, key, estimator=None):
    return mcgrad.sample(key, mcgrad.Normal(p, 1.0), estimator)


def two(keys):
    """A program with two draws, by the keys that a function makes of one."""

    def program(p, key):
        one, other = keys(key)
        return draw(p, one) * draw(p, other)

    return program


def unpacked(key):
    one, other = split(key)
    return one


def old(key):
    return jax.random.wrap_key_data(jax.random.key_data(key))


def carried(p, key):
    def step(carry, _):
        key, own = split(carry[1])
        return (carry[0] + draw(p, own, SCORE), key), None

    return jax.lax.scan(step, (0.0, key), None, length=3)[0][0]


def scanned(p, keys):
    return jax.lax.scan(lambda total, key: (total + draw(p, key, SCORE), None), 0.0, keys)[0]


def counted(p, key_of_step):
    def step(carry):
        return carry[0] + draw(p, key_of_step(carry[1]), SCORE), carry[1] + 1

    return jax.lax.while_loop(lambda carry: carry[1] < 3, step, (0.0, 0))[0]


SHARED = {
    "unpacked and indexed": two(lambda key: (unpacked(key), split(key)[0])),
    "of two and of three": two(lambda key: (split(key)[0], split(key, 3)[0])),
    "split and fold_in": two(lambda key: (split(key)[1], fold_in(key, 1))),
    "from the front and from the back": two(lambda key: (split(key)[1], split(key)[-1])),
    "wrapped": two(lambda key: (key, old(key))),
    "split from an old one": two(lambda key: (old(jax.random.key_data(split(old(key)))[0]), split(key)[0])),
    "in vmap": two(lambda key: (jax.vmap(split)(split(key))[1, 0], split(split(key)[1])[0])),
    "chosen by an index": two(lambda key: (split(key, 4)[jnp.argmax(jnp.arange(4))], split(key, 4)[3])),
    "chosen by a condition": two(lambda key: (jnp.where(jnp.arange(2)[1] > 0, key, split(key)[0]), key)),
    "number that is computed": two(lambda key: (fold_in(key, jnp.int32(jnp.float32(3.0) * 2)), fold_in(key, 6))),
    "a row of a scan": lambda p, key: scanned(p, split(key, 3)) * draw(p, split(key, 3)[1], SCORE),
    "carried by a scan": lambda p, key: carried(p, key) * draw(p, split(key)[1], SCORE),
    "in a branch": lambda p, key: (
        draw(p, key) + jax.lax.cond(p > 0, lambda: draw(p, split(key)[0]), lambda: draw(p, key))
    ),
    "in a checkpoint": lambda p, key: (
        jax.checkpoint(lambda key: draw(p, key))(fold_in(key, 1)) * draw(p, split(key)[1])
    ),
    "in branches that come up together": lambda p, key: (
        jax.lax.cond(p > 0.2, lambda: draw(p, key), lambda: 0.0)
        + jax.lax.cond(p <= 0.2, lambda: 0.0, lambda: draw(p, key))
    ),
    "in other branches of other steps": lambda p, key: jax.lax.scan(
        lambda total, keys: (
            total + jax.lax.cond(total < 0.5, lambda: draw(p, keys[0]), lambda: 2 * draw(p, keys[1])),
            None,
        ),
        0.0,
        jnp.stack([split(key, 4)[:3], split(key, 4)[1:]], 1),
    )[0],
    "in one of many entries": lambda p, key: (
        jnp.sum(jax.vmap(draw, (None, 0))(p, split(key, 2000))) * draw(p, split(key, 2000)[-1])
    ),
}

ALONE = {
    "in a scan that splits the same key in each step": (
        lambda p, key: jax.lax.scan(lambda total, _: (total + scanned(p, split(key, 2)), None), 0.0, None, length=3)[0],
        "in several steps of the `scan` at",
    ),
    "in every other step": (
        lambda p, key: scanned(p, jax.vmap(lambda n: fold_in(key, n % 2))(jnp.arange(4))),
        "in several steps of the `scan` at",
    ),
    "in a while loop": (
        lambda p, key: counted(p, lambda n: fold_in(key, 0 * n)),
        "in several steps of the `while_loop` at",
    ),
    "for several entries": (
        lambda p, key: jnp.sum(jax.vmap(lambda key: draw(p, key, SCORE))(jnp.stack([key, key]))),
        "for several of its entries",
    ),
}

APART = {
    "split": two(split),
    "fold_in": two(lambda key: (fold_in(key, 0), fold_in(key, 1))),
    "split and fold_in": two(lambda key: (split(key)[1], fold_in(key, 2))),
    "clone": two(lambda key: (key, jax.random.clone(key))),
    "clone of what was split": two(lambda key: (split(key)[0], split(jax.random.clone(key))[0])),
    "two keys of an array": two(lambda key: split(split(key)[0], 2)),
    "in two branches": lambda p, key: jax.lax.cond(p > 0, lambda: draw(p, key), lambda: 2 * draw(p, key)),
    "in branches of two choices by the same number": lambda p, key: (
        jax.lax.cond(p > 0.2, lambda: draw(p, key), lambda: 0.0)
        + jax.lax.cond(p > 0.2, lambda: 0.0, lambda: draw(p, key))
    ),
    "in branches of a choice and of its opposite": lambda p, key: (
        jax.lax.cond(p > 0.2, lambda: draw(p, key), lambda: 0.0)
        + jax.lax.cond(p <= 0.2, lambda: draw(p, key), lambda: 0.0)
    ),
    "a number that is not known": two(
        lambda key: (fold_in(key, 0), fold_in(key, jnp.int32(1e6 * draw(0.0, split(key)[1]))))
    ),
    "carried": carried,
    "scanned": lambda p, key: scanned(p, split(key, 3)),
    "counted": lambda p, key: counted(p, lambda n: fold_in(key, n)),
    "the same noise in each step, along the path": lambda p, key: jax.lax.scan(
        lambda total, _: (total + draw(p, key), None), 0.0, None, length=3
    )[0],
    "one step": lambda p, key: scanned(p, key[None]),
}


@pytest.fixture(autouse=True)
def _without_the_checker_of_jax():
    with jax.debug_key_reuse(False):
        yield


@pytest.mark.parametrize("under", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("program", SHARED.values(), ids=SHARED)
def test_draws_that_share_a_key_are_refused(program, under):
    with pytest.raises(ValueError, match=r"at .*test_keys.py:\d+.* uses the same key as the draw .*test_keys.py:\d+"):
        under(mcgrad.expectation(program))(0.3, jax.random.key(0))


@pytest.mark.parametrize(("program", "where"), ALONE.values(), ids=ALONE)
def test_a_draw_that_uses_a_key_again_is_refused(program, where):
    with pytest.raises(ValueError, match=rf"test_keys.py:\d+.* uses the same key {where}"):
        jax.jit(mcgrad.expectation(program))(0.3, jax.random.key(0))


@pytest.mark.parametrize("program", APART.values(), ids=APART)
def test_draws_with_keys_of_their_own_are_silent(program):
    assert np.isfinite(jax.jit(mcgrad.expectation(program))(0.3, jax.random.key(0)))


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_are_told_apart(kind):
    assert np.isfinite(mcgrad.expectation(APART["split"])(0.3, jax.random.key(0, impl=kind)))
    with pytest.raises(ValueError, match="uses the same key as"):
        mcgrad.expectation(SHARED["of two and of three"])(0.3, jax.random.key(0, impl=kind))


def test_a_number_that_is_not_known_is_not_taken_for_another():
    def program(n, p, key):
        return draw(p, fold_in(key, n % 3)) * draw(p, fold_in(key, 1))

    assert np.isfinite(jax.jit(mcgrad.expectation(program))(0, 0.3, jax.random.key(0)))
    with pytest.raises(ValueError, match="uses the same key as"):
        mcgrad.expectation(program)(1, 0.3, jax.random.key(0))


@pytest.mark.parametrize("key_of", [fold_in, lambda key, n: split(key, 2000)[n]], ids=["fold_in", "an index"])
def test_the_numbers_of_many_examples_make_keys_of_their_own(key_of):
    def program(numbers, p, key):
        return jnp.sum(jax.vmap(lambda n: draw(p, key_of(key, n), SCORE))(numbers))

    assert np.isfinite(jax.jit(mcgrad.expectation(program))(jnp.arange(2000), 0.3, jax.random.key(0)))
    with pytest.raises(ValueError, match="uses the same key for several of its entries"):
        mcgrad.expectation(program)(jnp.zeros(2000, int), 0.3, jax.random.key(0))


def test_clones_from_outside_are_meant():
    def program(p, one, other):
        return draw(p, one) * draw(p, other)

    key = jax.random.key(0)
    assert np.isfinite(mcgrad.expectation(program)(0.3, key, jax.random.clone(key)))
    with pytest.raises(ValueError, match="uses the same key as"):
        mcgrad.expectation(program)(0.3, key, key)


def test_clones_by_another_way_do_not_share_a_cost_by_the_score():
    def program(p, key):
        return draw(p, split(key)[0], SCORE) * draw(p, split(jax.random.clone(key), 3)[0], SCORE)

    with pytest.raises(ValueError, match="uses a clone of the key"):
        mcgrad.expectation(program)(0.3, jax.random.key(0))


def test_keys_that_are_computed_in_numpy_are_those_of_jax():
    def program(key):
        one, other = jax.random.split(key)
        many = jax.random.split(one, (2, 7))
        numbers = jnp.arange(14, dtype=jnp.uint32).reshape(2, 7)
        folded = jax.vmap(jax.random.fold_in, (None, 0))(other, numbers[0])
        each = jax.vmap(jax.vmap(jax.random.fold_in))(many, numbers)
        return (
            many[1, 2:6:2],
            jax.random.fold_in(many[0, 3], 7),
            folded,
            each.T,
            jax.random.clone(one),
            many.reshape(14),
        )

    key = jax.random.key(3)
    found = from_jaxpr(jax.make_jaxpr(program)(key)).evaluate(jax.random.key_data(key), by=key_bits.evaluate)
    for bits, keys in zip(found, program(key), strict=True):
        np.testing.assert_array_equal(bits, jax.random.key_data(keys))
