"""The delta method as a control variate: exact for quadratic costs, unbiased for others, refused where it cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import assert_unbiased
from programs.program import expect_normal

import mcgrad

OWN = {"pathwise": mcgrad.Pathwise(), "score": mcgrad.Score(), "measure-valued": mcgrad.MeasureValued()}
TRIL = jnp.asarray([[0.8, 0.0], [0.3, 0.6]])

# What each makes of three numbers, and the same in SciPy.
KNOWN = {
    "Normal": (lambda p: mcgrad.Normal(p[0], p[1]), lambda p: scipy.stats.norm(p[0], p[1])),
    "Laplace": (lambda p: mcgrad.Laplace(p[0], p[1]), lambda p: scipy.stats.laplace(p[0], p[1])),
    "Logistic": (lambda p: mcgrad.Logistic(p[0], p[1]), lambda p: scipy.stats.logistic(p[0], p[1])),
    "Gumbel": (lambda p: mcgrad.Gumbel(p[0], p[1]), lambda p: scipy.stats.gumbel_r(p[0], p[1])),
    "Uniform": (lambda p: mcgrad.Uniform(p[0], p[2]), lambda p: scipy.stats.uniform(p[0], p[2] - p[0])),
    "Exponential": (lambda p: mcgrad.Exponential(p[1]), lambda p: scipy.stats.expon(scale=1 / p[1])),
    "Gamma": (lambda p: mcgrad.Gamma(p[2], p[1]), lambda p: scipy.stats.gamma(p[2], scale=1 / p[1])),
    "Beta": (lambda p: mcgrad.Beta(p[1], p[2]), lambda p: scipy.stats.beta(p[1], p[2])),
    "LogNormal": (lambda p: mcgrad.LogNormal(p[0], p[1]), lambda p: scipy.stats.lognorm(p[1], scale=np.exp(p[0]))),
}
PARAMS = np.array([0.4, 0.7, 2.3])


@pytest.mark.parametrize("name", KNOWN)
def test_moments_are_those_of_scipy(name):
    make, reference = KNOWN[name]
    mean, roots = make(PARAMS).moments()
    np.testing.assert_allclose(mean, reference(PARAMS).mean(), rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(roots**2), reference(PARAMS).var(), rtol=1e-12)


def test_moments_of_vectors():
    loc = jnp.ones((3, 2))
    mean, roots = mcgrad.MultivariateNormal(loc, scale_tril=TRIL).moments()
    np.testing.assert_allclose(jnp.einsum("nbi,nbj->bij", roots, roots), jnp.broadcast_to(TRIL @ TRIL.T, (3, 2, 2)))
    nested = mcgrad.Independent(mcgrad.MultivariateNormal(loc, scale_tril=TRIL), 1)
    mean, roots = nested.moments()
    assert mean.shape == (3, 2)
    np.testing.assert_allclose(
        jnp.einsum("nai,nbj->aibj", roots, roots).reshape(6, 6), np.kron(np.eye(3), TRIL @ TRIL.T)
    )


def _each():
    for name in (*KNOWN, "MultivariateNormal"):
        for own in OWN:
            slow = name in ("Beta", "Gamma") and own == "measure-valued"
            if (name, own) != ("Uniform", "score"):  # whose support moves
                yield pytest.param(name, own, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("name", "own"), list(_each()))
def test_no_variance_is_left_for_a_quadratic_cost(name, own):
    if name == "MultivariateNormal":
        make = lambda p: mcgrad.MultivariateNormal(p[:2], scale_tril=TRIL * p[2])  # noqa: E731
        exact = lambda p: jnp.prod(p[:2]) + p[2] ** 2 * (TRIL @ TRIL.T)[0, 1] + p[0]  # noqa: E731
    else:
        make = KNOWN[name][0]
        exact = lambda p: (lambda mean, roots: mean**2 + jnp.sum(roots**2) + mean)(*make(p).moments())  # noqa: E731

    def program(p, key):
        x = mcgrad.sample(key, make(p), mcgrad.Taylor(OWN[own], 1.0))
        return x[0] * x[1] + x[0] if x.ndim else x**2 + x

    gradient = jax.jit(mcgrad.grad(program, num_samples=2))(jnp.asarray(PARAMS), jax.random.key(0))
    np.testing.assert_allclose(gradient, jax.grad(exact)(jnp.asarray(PARAMS)), rtol=1e-9)


def layers(params, key, first, second):
    """A batch under `vmap`, a second layer with a cost of all of its entries, and a later draw of a bit."""
    keys = jax.random.split(key, 3)
    one = lambda loc, key: mcgrad.sample(key, mcgrad.Normal(loc, 0.5), first)  # noqa: E731
    x = jax.vmap(one)(params["loc"], jax.random.split(keys[0], 2))
    y = mcgrad.sample(keys[1], mcgrad.Normal(jnp.sin(x), jnp.exp(params["log_scale"])), second)
    b = mcgrad.sample(keys[2], mcgrad.Bernoulli(logits=y[0]))
    return jnp.exp(0.5 * jnp.sum(y)) * params["weight"] + 0.2 * b


def layers_exact(params):
    scale = jnp.exp(params["log_scale"])
    each = [expect_normal(loc, 0.5, lambda x: jnp.exp(0.5 * jnp.sin(x))) for loc in params["loc"]]
    of_bit = jnp.vectorize(lambda x: expect_normal(jnp.sin(x), scale, jax.nn.sigmoid))
    bit = expect_normal(params["loc"][0], 0.5, of_bit)
    return params["weight"] * each[0] * each[1] * jnp.exp(0.25 * scale**2) + 0.2 * bit


LAYERS = {"loc": jnp.asarray([0.3, -0.4]), "log_scale": jnp.asarray(-0.5), "weight": jnp.asarray(0.8)}


@pytest.mark.parametrize("own", ["pathwise", pytest.param("score", marks=pytest.mark.slow)])
def test_layers_with_few_samples(own):
    """A coefficient that the draw itself had a part in would be seen most with three samples."""
    taylor, gradient = mcgrad.Taylor(OWN[own]), mcgrad.grad(layers, num_samples=3)
    keys = jax.random.split(jax.random.key(1), 20_000 if own == "pathwise" else 400_000)
    draws = jax.jit(jax.vmap(lambda key: gradient(LAYERS, key, taylor, taylor)))(keys)
    assert_unbiased(draws, jax.grad(layers_exact)(LAYERS))


def test_float32_and_a_scan():
    def program(loc, key):
        def step(x, key):
            x = 0.5 * x + mcgrad.sample(key, mcgrad.Normal(loc, 0.3), mcgrad.Taylor(mcgrad.Pathwise(), 1.0))
            return x, x**2

        return jnp.sum(jax.lax.scan(step, jnp.zeros_like(loc), jax.random.split(key, 3))[1])

    with jax.debug_key_reuse(False):  # every expansion runs the later steps on their keys
        keys = jax.random.split(jax.random.key(0), 2000)
        draws = jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(jnp.float32(0.7), keys)
    assert draws.dtype == jnp.float32
    assert_unbiased(draws, 2 * 0.7 * (1.0 + 1.5**2 + 1.75**2))


def test_refusals():
    with pytest.raises(TypeError, match=r"`mcgrad.Taylor\(estimator=...\)` must be a `mcgrad.Score`.*got .*Enumerate"):
        mcgrad.Taylor(mcgrad.Enumerate())
    velocity = mcgrad.AdaptiveVelocity.init(jax.random.key(0), dimension=2)
    with pytest.raises(ValueError, match="without coefficients"):
        mcgrad.Taylor(mcgrad.Pathwise(path=velocity))
    with pytest.raises(ValueError, match=r"coefficient=...\)` must be \"regressed\""):
        mcgrad.Taylor(mcgrad.Pathwise(), "fitted")
    with pytest.raises(TypeError, match=r"coefficient=...\)` must be \"regressed\" or a number, got .*True"):
        mcgrad.Taylor(mcgrad.Pathwise(), True)
    with pytest.raises(ValueError, match="must be finite, got nan"):
        mcgrad.Taylor(mcgrad.Pathwise(), float("nan"))

    def program(p, key, dist, own):
        return mcgrad.sample(key, dist(p), mcgrad.Taylor(own)) ** 2.0

    for num_samples, chunk_size in ((1, None), (2, None), (4, 2), (4, 1)):
        gradient = mcgrad.grad(program, num_samples=num_samples, chunk_size=chunk_size)
        with pytest.raises(ValueError, match="at least 3 independent samples .*test_taylor.*coefficient=1.0"):
            gradient(0.7, jax.random.key(0), lambda p: mcgrad.Normal(0.0, p), mcgrad.Pathwise())
    gradient = mcgrad.grad(program, num_samples=4)
    with pytest.raises(ValueError, match="Weibull does not know its mean.*`mcgrad.Pathwise\\(\\)` alone"):
        gradient(0.7, jax.random.key(0), lambda p: mcgrad.Weibull(1.0, p), mcgrad.Pathwise())
    with pytest.raises(ValueError, match="the support moves"):
        gradient(0.7, jax.random.key(0), lambda p: mcgrad.Uniform(0.0, p), mcgrad.Score())
    with pytest.raises(ValueError, match="Cauchy does not know its mean"):
        gradient(0.7, jax.random.key(0), lambda p: mcgrad.Cauchy(0.0, p), mcgrad.Score())
    with pytest.raises(NotImplementedError, match="second derivative"):
        measured = mcgrad.grad(program, num_samples=3)
        jax.grad(measured)(0.7, jax.random.key(0), lambda p: mcgrad.Normal(0.0, p), mcgrad.MeasureValued())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "num_samples", "draws", "reference"),
    [
        (mcgrad.Score(), 1, 40_000, 2.394e6),
        (mcgrad.Score(), 1000, 120, 8.13e5),
        (mcgrad.Pathwise(), 1, 40_000, 8883.0),
        (mcgrad.Taylor(mcgrad.Pathwise()), 26, 1500, 789.0),
        (mcgrad.Taylor(mcgrad.Score(baseline=None)), 26, 3000, 3.755e5),
    ],
    ids=["score", "leave-one-out", "pathwise", "pathwise, regressed", "score, regressed"],
)
def test_variances_of_the_survey(estimator, num_samples, draws, reference):
    """Bayesian logistic regression, Mohamed et al. 2020, section 8.3, at the start, in the mean, for one sample: an independent
    computation in NumPy, whose coefficients are fitted to 25 further samples."""
    data = pytest.importorskip("sklearn.datasets").load_breast_cancer()
    features = (data.data - data.data.mean(0)) / data.data.std(0)
    x, y = jnp.asarray(np.concatenate([features, np.ones((569, 1))], 1)), jnp.asarray(data.target, float)

    def negative_elbo(loc, key):
        w = mcgrad.sample(key, mcgrad.Normal(loc, jnp.ones_like(loc)), estimator)
        return -jnp.sum(mcgrad.Bernoulli(logits=x @ w).log_prob(y))

    gradient = mcgrad.grad(negative_elbo, num_samples=num_samples)
    keys = jax.random.split(jax.random.key(1), draws)
    found = jax.jit(lambda keys: jax.lax.map(lambda key: gradient(jnp.zeros(31), key), keys, batch_size=20))(keys)
    assert num_samples * float(jnp.mean(jnp.var(found, axis=0, ddof=1))) == pytest.approx(reference, rel=0.05)
