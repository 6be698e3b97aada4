"""Paths of the multivariate normal law with coefficients: right for any, and better when learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_unbiased

import mcgrad

LOC = jnp.asarray([0.3, -0.5, 0.8])
TRIL = jnp.asarray([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.3, 1.2]])
RANDOM = mcgrad.AdaptiveVelocity(*0.7 * jax.random.normal(jax.random.key(7), (2, 2, 3)))


def cost(x):
    return jnp.exp(0.3 * x[..., 0] - 0.2 * x[..., 1]) + x[..., 0] * x[..., 2] ** 2


def exact(loc, tril):
    """From the moments of the normal law."""
    covariance = jnp.tril(tril) @ jnp.tril(tril).T
    a = jnp.asarray([0.3, -0.2, 0.0])
    second = loc[2] ** 2 + covariance[2, 2]
    return jnp.exp(a @ loc + a @ covariance @ a / 2) + loc[0] * second + 2 * loc[2] * covariance[0, 2]


def loss(tril, velocity, key, loc=LOC):
    law = mcgrad.MultivariateNormal(loc, scale_tril=jnp.tril(tril))
    return cost(mcgrad.sample(key, law, mcgrad.Pathwise(path=velocity)))


gradient = mcgrad.grad(loss)


def size(velocity, tril, key):
    return jnp.sum(gradient(tril, velocity, key) ** 2)


def test_any_coefficients_are_right_to_second_order():
    """Also such as depend on the parameters."""
    direction = jnp.asarray([[0.5, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.2, 0.6, 0.5]])
    moved = lambda t: (LOC + t * jnp.asarray([0.4, 0.1, 0.6]), TRIL + t * direction)  # noqa: E731

    def program(t, key):
        velocity = mcgrad.AdaptiveVelocity(RANDOM.rows * (1 + t), RANDOM.columns)
        loc, tril = moved(t)
        return loss(tril, velocity, key, loc)

    keys = jax.random.split(jax.random.key(0), 200_000)
    first, second = jax.jit(jax.vmap(jax.value_and_grad(mcgrad.grad(program)), (None, 0)))(0.0, keys)
    along = lambda t: exact(*moved(t))  # noqa: E731
    assert_unbiased(first, jax.grad(along)(0.0))
    assert_unbiased(second, jax.grad(jax.grad(along))(0.0))


def test_the_gradient_and_its_derivative_in_the_coefficients_are_the_formula():
    keys = jax.random.split(jax.random.key(1), 3)

    def by_hand(velocity, tril, key):
        """Jankowiak and Karaletsos 2019, with `B` for rows and `C` for columns."""
        z = jax.random.normal(jax.random.clone(key), (3,))
        g = jax.grad(cost)(LOC + tril @ z)
        turned = jnp.outer(tril.T @ g, z)
        return jnp.tril(jnp.outer(g, z) + velocity.rows.T @ velocity.columns * (turned - turned.T))

    def both(velocity, tril, key):
        wanted = by_hand(velocity, tril, key)
        slope = jax.grad(lambda velocity: jnp.sum(by_hand(velocity, tril, key) ** 2))(velocity)
        found = gradient(tril, velocity, key), jax.grad(size)(velocity, tril, key)
        return found, (wanted, slope)

    start = mcgrad.AdaptiveVelocity.init(jax.random.key(2), dimension=3, rank=2)
    velocities = jax.tree.map(lambda *leaves: jnp.stack(leaves), RANDOM, start, RANDOM)
    found, wanted = jax.jit(jax.vmap(both, (0, None, 0)))(velocities, TRIL, keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, wanted)
    plain = mcgrad.grad(loss)(TRIL, "sampler", jax.random.clone(keys[1]))
    np.testing.assert_allclose(found[0][1], plain, rtol=1e-12, atol=1e-12)
    assert jnp.any(found[1].rows[1] != 0)  # a start from which learning gets away


@pytest.mark.parametrize("at", ["draw", "transform"])
def test_one_velocity_for_a_batch_a_vmap_and_the_steps_of_a_scan(at):
    """The sum over draws of one path each."""
    own, key = (mcgrad.Pathwise(path=RANDOM) if at == "draw" else None), jax.random.key(3)
    default = mcgrad.Pathwise(path=RANDOM) if at == "transform" else None

    def draws(tril, key):  # [steps, mapped, 2, 2, 2, 3]
        def one(key):
            law = mcgrad.MultivariateNormal(jnp.zeros((2, 2, 2, 3)), scale_tril=jnp.tril(tril))
            return mcgrad.sample(key, law, own)

        steps = jax.random.split(key)
        return jax.lax.scan(lambda _, key: (None, jax.vmap(one)(jax.random.split(key))), None, steps)[1]

    def by_hand(tril, key):
        z = draws(TRIL, jax.random.clone(key)) @ jnp.linalg.inv(TRIL).T
        g = jax.grad(lambda x: jnp.sum(cost(x)))(draws(TRIL, jax.random.clone(key)))
        turned = jnp.einsum("...a,...b->ab", g @ tril, z)
        return jnp.tril(jnp.einsum("...a,...b->ab", g, z) + RANDOM.rows.T @ RANDOM.columns * (turned - turned.T))

    found = mcgrad.grad(lambda tril, key: jnp.sum(cost(draws(tril, key))), estimator=default)(TRIL, key)
    np.testing.assert_allclose(found, jax.jit(by_hand)(TRIL, jax.random.clone(key)), rtol=1e-9)


def test_a_vmap_over_nothing_but_the_coefficients():
    """Paths of one draw beside each other."""
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), RANDOM)
    both = lambda tril, key: jnp.sum(jax.vmap(lambda v: loss(tril, v, key))(stacked))  # noqa: E731
    with jax.debug_key_reuse(False):
        found = mcgrad.grad(both)(TRIL, jax.random.key(4))
        each = [gradient(TRIL, jax.tree.map(lambda leaf, i=i: leaf[i], stacked), jax.random.key(4)) for i in (0, 1)]
    np.testing.assert_allclose(found, sum(each), rtol=1e-9)


def test_learning_lowers_the_variance_below_that_of_the_samplers_path():
    optimizer = optax.adam(0.02)

    def step(state, key):
        velocity, moments = state
        slopes = jax.vmap(jax.grad(size), (None, None, 0))(velocity, TRIL, jax.random.split(key, 32))
        updates, moments = optimizer.update(jax.tree.map(lambda s: jnp.mean(s, 0), slopes), moments)
        return (optax.apply_updates(velocity, updates), moments), None

    start = mcgrad.AdaptiveVelocity.init(jax.random.key(4), dimension=3)
    steps = jax.random.split(jax.random.key(5), 300)
    (learned, _), _ = jax.jit(lambda *args: jax.lax.scan(step, *args))((start, optimizer.init(start)), steps)
    draws = jax.jit(jax.vmap(gradient, (None, None, 0)))
    keys = jax.random.split(jax.random.key(6), 40_000)
    before, after = draws(TRIL, start, keys), draws(TRIL, learned, jax.random.clone(keys))
    assert_unbiased(after, jax.grad(exact, 1)(LOC, TRIL))
    assert np.sum(np.var(after, 0)) < 0.9 * np.sum(np.var(before, 0))  # 0.83; of optimal transport 0.88


def test_refusals():
    with pytest.raises(
        TypeError, match=r"AdaptiveVelocity.rows=.*must be an array of floating-point numbers, got \[\["
    ):
        mcgrad.AdaptiveVelocity([[1.0]], jnp.ones((1, 1)))
    with pytest.raises(TypeError, match="AdaptiveVelocity.columns=.*must be an array of floating-point numbers"):
        mcgrad.AdaptiveVelocity(jnp.ones((1, 1)), jnp.ones((1, 1), int))
    for shape in ((3,), (2, 3), (1, 1, 3)):
        with pytest.raises(ValueError, match=r"AdaptiveVelocity.*two arrays of one shape `\[m, d\]`, got .*init"):
            mcgrad.AdaptiveVelocity(jnp.ones(shape), jnp.ones((3,) if shape == (3,) else (1, 3)))
    with pytest.raises(ValueError, match='Pathwise.path=.*"optimal_transport" or a `mcgrad.AdaptiveVelocity`, got'):
        mcgrad.Pathwise(path=(RANDOM.rows, RANDOM.columns))

    def refused(law, velocity, message):
        path, key = mcgrad.Pathwise(path=velocity), jax.random.key(0)
        for own, default in ((path, None), (None, path)):
            program = lambda p, key, own=own: jnp.sum(mcgrad.sample(key, law(p), own))  # noqa: E731
            with pytest.raises(ValueError, match=f"Pathwise` would be wrong.*test_adaptive_velocity.*{message}"):
                mcgrad.grad(program, estimator=default)(jnp.ones(2), key)

    normal = lambda p: mcgrad.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.diag(p))  # noqa: E731
    diagonal = lambda p: mcgrad.MultivariateNormal(jnp.zeros(2), scale_diag=p)  # noqa: E731
    short = mcgrad.AdaptiveVelocity(jnp.ones((1, 2)), jnp.ones((1, 2)))
    stacked = jax.tree.map(lambda leaf: leaf[None], short)
    refused(lambda p: mcgrad.Normal(p, 1.0), short, "Normal has no path with learned coefficients, only .*Use `mcgrad")
    refused(diagonal, short, "MultivariateNormal has no path with learned coefficients, only .*with `scale_tril` has")
    refused(normal, RANDOM, r"must be arrays of shape `\[m, 2\]` for a distribution of 2 dimensions, got \(2, 3\)")
    refused(normal, stacked, r"must be arrays of shape `\[m, 2\]` for a distribution of 2 dimensions, got \(1, 1, 2\)")
