"""Samples spread over the values of a draw: each as always by itself, the mean over them of less variance, nothing biased."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased
from programs.program import expect_normal

import mcgrad
from mcgrad.program.point_sets import POINT_SETS, Samples, generating_vector, sobol_directions

SETS = [kind for kind in POINT_SETS if kind != "independent"]


def points(kind, number, size, num_sets, seed=0):
    """`[num_sets, number, size]`."""

    def one(key):
        keys = jax.random.split(key, number)
        sample = lambda key: Samples(kind, ("samples",), number).uniform(key, (size,), jnp.float64)  # noqa: E731
        return jax.vmap(sample, axis_name="samples")(keys)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), num_sets)))


@pytest.mark.parametrize("kind", SETS)
def test_each_point_is_uniform_with_independent_coordinates(kind):
    found = points(kind, 8, 5, 4000)
    assert found.min() > 0 and found.max() < 1
    for index in (0, 3):
        for axis in (0, 4):
            assert scipy.stats.kstest(found[:, index, axis], "uniform").pvalue > 1e-4
        correlations = np.corrcoef(found[:, index], rowvar=False) - np.eye(5)
        assert np.abs(correlations).max() < 5 / np.sqrt(4000)
        squares = np.corrcoef((found[:, index] - 0.5) ** 2, rowvar=False) - np.eye(5)
        assert np.abs(squares).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("kind", ["stratified", "sobol"])
def test_one_point_in_each_interval(kind):
    found = np.sort(np.floor(16 * points(kind, 16, 3, 5)), axis=1)
    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(16.0)[None, :, None], found.shape))


def test_sobol_is_a_net():
    """Each square of the 16 that an axis in two or four parts gives holds as many points."""
    found = points("sobol", 16, 2, 5)
    for across in (2, 4, 8):
        cells = np.floor(found[..., 0] * across) * 16 + np.floor(found[..., 1] * (16 // across))
        assert all(len(np.unique(cell)) == 16 for cell in cells)
    assert sobol_directions(16, 3).shape == (3, 4, 4)


def test_pairs_are_opposite_and_independent_of_each_other():
    found = points("antithetic", 4, 1, 3000)[..., 0]
    np.testing.assert_allclose(found[:, 0] + found[:, 1], 1, rtol=1e-12)
    assert abs(np.corrcoef(found[:, 0], found[:, 2])[0, 1]) < 0.1


@pytest.mark.parametrize("number", [5, 64, 1000])
def test_generating_vectors_have_no_common_factor(number):
    vector = generating_vector(number, 4)
    assert len(set(vector.tolist())) == (4 if number > 8 else 2)
    assert (np.gcd(vector, number) == 1).all()


def test_each_kind_of_draw_moves_as_it_should():
    """The derivative of a quantile in the parameters is `-dF / p`, whichever way it is computed."""
    laws = {
        mcgrad.Normal: (0.3, 0.8),
        mcgrad.HalfNormal: (0.8,),
        mcgrad.LogNormal: (0.3, 0.8),
        mcgrad.Uniform: (0.3, 1.8),
        mcgrad.Exponential: (0.8,),
        mcgrad.Laplace: (0.3, 0.8),
        mcgrad.Logistic: (0.3, 0.8),
        mcgrad.Cauchy: (0.3, 0.8),
        mcgrad.Gumbel: (0.3, 0.8),
        mcgrad.Weibull: (0.7, 1.8),
        mcgrad.Kumaraswamy: (0.7, 1.8),
        mcgrad.Pareto: (0.7, 1.8),
        mcgrad.TruncatedNormal: (0.3, 0.8, -0.5, 1.5),
    }

    @functools.partial(jax.jit, static_argnums=0)
    def both(law, parameters):
        x, moved = jax.value_and_grad(lambda p: law(*p).icdf(jnp.asarray(0.37)))(parameters)
        return moved, jax.grad(lambda p: law(*p).cdf(x))(parameters), jnp.exp(law(*parameters).log_prob(x))

    for law, parameters in laws.items():
        moved, found, density = both(law, [jnp.asarray(p) for p in parameters])
        np.testing.assert_allclose(moved, [-f / density for f in found], rtol=1e-8, atol=1e-12, err_msg=law.__name__)


def program(params, key):
    """A batch that a cost mixes, a vector, draws in a `vmap` and in a `scan`, and a discrete draw."""
    keys = jax.random.split(key, 4)
    x = mcgrad.sample(keys[0], mcgrad.Independent(mcgrad.Normal(params * jnp.ones(2), 0.5), 1))
    y = mcgrad.sample(keys[1], mcgrad.MultivariateNormal(x, scale_tril=jnp.asarray([[0.5, 0.0], [0.2, 0.4]])))
    one = lambda key: mcgrad.sample(key, mcgrad.Logistic(params, 0.1))  # noqa: E731
    each = jax.vmap(one)(jax.random.split(keys[2], 2))

    def step(total, key):
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=params))
        return total + b * (1.0 + total), total

    total = jax.lax.scan(step, 0.0, jax.random.split(keys[3], 2))[0]
    return jnp.sum(y) ** 2 + jnp.prod(each) + total


def exact(p):
    # var(y1 + y2) = 2 / 4 + (.5 + .2)^2 + .4^2
    q = jax.nn.sigmoid(p)
    return 4 * p**2 + 0.5 + 0.49 + 0.16 + p**2 + 2 * q + q**2


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "stratified")) for k in SETS])
def test_programs_stay_unbiased(kind):
    gradient = mcgrad.value_and_grad(program, num_samples=8, chunk_size=4, points=kind)
    keys = jax.random.split(jax.random.key(1), 4000)
    with jax.debug_key_reuse(False):  # chunks with a `scan` in them
        draws = jax.jit(jax.vmap(gradient, (None, 0)))(0.4, keys)
    assert_unbiased(draws, jax.value_and_grad(exact)(0.4))


@pytest.mark.parametrize("kind", ["antithetic", pytest.param("sobol", marks=pytest.mark.slow)])
def test_scores_to_second_order(kind):
    """The baseline of an antithetic pair is the mean over the other pairs; with its own partner in it, it would be biased."""

    def loss(p, key):
        x = mcgrad.sample(key, mcgrad.Normal(p, 0.7), mcgrad.Score(), name="x")
        return jnp.exp(x) + 5.0

    surrogate = mcgrad.expectation(loss, num_samples=4, points=kind)
    keys = jax.random.split(jax.random.key(2), 100_000 if kind == "antithetic" else 400_000)
    draws = jax.jit(jax.vmap(lambda key: (jax.grad(surrogate)(0.2, key), jax.hessian(surrogate)(0.2, key))))
    with jax.debug_key_reuse(False):
        value = float(np.exp(0.2 + 0.7**2 / 2))
        assert_unbiased(draws(keys), (value, value))


def test_taylor_leaves_the_partner_out():
    def loss(p, key):
        return jnp.exp(mcgrad.sample(key, mcgrad.Normal(p, 0.7), mcgrad.Taylor(mcgrad.Pathwise())))

    gradient = mcgrad.grad(loss, num_samples=6, points="antithetic")
    draws = jax.jit(jax.vmap(lambda key: gradient(0.2, key)))(jax.random.split(jax.random.key(3), 20_000))
    assert_unbiased(draws, float(np.exp(0.2 + 0.7**2 / 2)))


def logistic_regression():
    """Twenty weights, 200 examples."""
    rng = np.random.default_rng(0)
    x, truth = jnp.asarray(rng.normal(size=(200, 20))), rng.normal(size=20)
    y = jnp.asarray(rng.uniform(size=200) < 1 / (1 + np.exp(-x @ truth)), float)

    def loss(loc, key):
        w = mcgrad.sample(key, mcgrad.Normal(loc, jnp.exp(-1.0)))
        return -jnp.sum(mcgrad.Bernoulli(logits=x @ w).log_prob(y))

    return loss, jnp.asarray(truth), x, y


@pytest.mark.parametrize(("kind", "gain"), [("stratified", 20), ("lattice", 20), ("sobol", 20), ("antithetic", 10)])
def test_variance_of_64_samples(kind, gain):
    loss, loc, *_ = logistic_regression()
    variances = {}
    for name in ("independent", kind):
        gradient = mcgrad.grad(loss, num_samples=64, points=name)
        keys = jax.random.split(jax.random.key(4), 200)
        draws = jax.jit(
            lambda keys, gradient=gradient: jax.lax.map(lambda key: gradient(loc, key), keys, batch_size=20)
        )(keys)
        variances[name] = float(jnp.sum(jnp.var(draws, axis=0)))
    assert gain * variances[kind] < variances["independent"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lattice", "sobol"])
def test_ten_thousand_randomizations(kind):
    loss, loc, x, y = logistic_regression()
    gradient = mcgrad.grad(loss, num_samples=64, points=kind)
    keys = jax.random.split(jax.random.key(5), 10_000)
    draws = jax.jit(lambda keys: jax.lax.map(lambda key: gradient(loc, key), keys, batch_size=20))(keys)
    width = jnp.exp(-1.0) * jnp.linalg.norm(x, axis=1)

    def exact(loc):
        of_one = lambda m, s, y: expect_normal(m, s, lambda z: jax.nn.softplus(z) - y * z)  # noqa: E731
        return jnp.sum(jax.vmap(of_one)(x @ loc, width, y))

    assert_unbiased(draws, jax.grad(exact)(loc))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lattice", "sobol"])
def test_the_slope_of_the_variance(kind):
    """In four dimensions, against the number of samples; -1 of independent ones, -1.7 of a scrambled sequence in the reference."""
    directions = jnp.asarray(np.random.default_rng(1).normal(size=(30, 4)))

    def loss(loc, key):
        return jnp.mean(jax.nn.softplus(directions @ mcgrad.sample(key, mcgrad.Normal(loc, 0.5))))

    loc, numbers, variances = jnp.asarray([1.0, -0.7, 0.4, 0.9]), (16, 64, 256, 1024), []
    for number in numbers:
        gradient = mcgrad.grad(loss, num_samples=number, points=kind)
        keys = jax.random.split(jax.random.key(0), 150)
        draws = jax.jit(lambda keys, fn=gradient: jax.lax.map(lambda key: fn(loc, key), keys, batch_size=10))(keys)
        variances.append(float(jnp.sum(jnp.var(draws, axis=0))))
    assert np.polyfit(np.log(numbers), np.log(variances), 1)[0] < -1.7


def test_float32_and_jax_by_itself():
    def loss(p, key):
        return mcgrad.sample(key, mcgrad.Normal(p, 1.0), points="sobol") ** 2

    assert mcgrad.grad(loss, num_samples=4)(jnp.float32(0.5), jax.random.key(0)).dtype == jnp.float32
    plain = jax.grad(loss)(0.5, jax.random.key(1))
    np.testing.assert_allclose(mcgrad.grad(loss)(0.5, jax.random.key(1)), plain)  # one sample: an ordinary draw


def test_refusals():
    def loss(p, key, estimator=None, points=None):
        return mcgrad.sample(key, mcgrad.Normal(p, 1.0), estimator, points=points) ** 2

    def key():
        return jax.random.key(0)

    with pytest.raises(ValueError, match=r"`mcgrad.expectation\(points=...\)` must be \"independent\", \"antithetic\""):
        mcgrad.grad(loss, num_samples=4, points="halton")
    with pytest.raises(ValueError, match=r"`mcgrad.sample\(points=...\)` must be"):
        loss(0.5, key(), points="grid")
    for kind, number, chunk, what in (
        ("antithetic", 5, None, "even number"),
        ("antithetic", 6, 3, "even number"),
        ("sobol", 12, None, "power of two"),
        ("lattice", 1, None, "several samples"),
        ("stratified", 4, 1, "several samples"),
        ("lattice", 2**17, None, "at most 65536"),
    ):
        with pytest.raises(ValueError, match=f'points="{kind}".* must .*{what}'):
            mcgrad.grad(loss, num_samples=number, chunk_size=chunk, points=kind)
    with pytest.raises(ValueError, match="cannot be had at .*test_point_sets.*even number.*independent"):
        mcgrad.grad(loss, num_samples=3)(0.5, key(), None, "antithetic")
    with pytest.raises(ValueError, match="without `sharding`"):
        mcgrad.grad(loss, num_samples=4, points="lattice", sharding=jax.P("data"))
    for kind, number in (("lattice", 4), ("antithetic", 2)):
        with pytest.raises(ValueError, match=f'must have independent samples, got `points="{kind}"` .*test_point_sets'):
            mcgrad.grad(loss, num_samples=number, points=kind)(0.5, key(), mcgrad.Score("leave_one_out"))
    with pytest.raises(ValueError, match="at least 3 independent samples .*got 1"):
        mcgrad.grad(loss, num_samples=8, points="sobol")(0.5, key(), mcgrad.Taylor(mcgrad.Pathwise()))

    def gamma(p, key, points=None):
        return mcgrad.sample(key, mcgrad.Gamma(p, 1.0), points=points)

    with pytest.raises(ValueError, match='draw from Gamma at .*no `icdf`.*points="independent"'):
        mcgrad.grad(gamma, num_samples=4, points="sobol")(0.5, key())
    mcgrad.grad(gamma, num_samples=4, points="sobol")(0.5, key(), "independent")

    def walk(p, key):
        def step(state):
            x, key = state
            key, now = jax.random.split(key)
            return x + jnp.abs(mcgrad.sample(now, mcgrad.Normal(p, 1.0))), key

        return jax.lax.while_loop(lambda state: state[0] < 3.0, step, (0.0, key))[0]

    with pytest.raises(ValueError, match="in a `while_loop` samples stop at different steps"):
        jax.jacfwd(mcgrad.expectation(walk, num_samples=4, points="sobol"))(0.5, key())

    foreign = pytest.importorskip("numpyro.distributions")
    with pytest.raises(ValueError, match="NumPyro's Normal.*no `icdf`, of mcgrad's or yours"):
        mcgrad.grad(lambda p, key: mcgrad.sample(key, foreign.Normal(p, 1.0)), num_samples=4, points="sobol")(
            0.5, key()
        )
