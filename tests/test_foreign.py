"""Distributions of other libraries at mcgrad's protocol. Each library is optional: its tests run where it is installed."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad
from mcgrad import distributions as laws
from mcgrad.distributions import as_distribution, pathwise_obstacle

# Distrax and TFP use names that newer JAX deprecates, at import and in use. Not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def their_keys() -> Any:
    """What NumPyro does with a key inside a `cond`, JAX's checker takes for a second use on some versions."""
    with jax.debug_key_reuse(False):
        yield


def library(name: str) -> Any:
    # Skipped, not failed, where it is missing: none of the three is a dependency of mcgrad.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def check(dist: Any, own: Any) -> None:
    """The adapter agrees with mcgrad's own law with the same parameters."""
    wrapped = as_distribution(dist)
    assert as_distribution(wrapped) is wrapped
    leaves, tree = jax.tree.flatten(wrapped)
    again = jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in leaves])
    x = jax.jit(lambda d, key: d.sample(key))(again, jax.random.key(0))
    assert x.shape == wrapped.batch_shape + wrapped.event_shape
    assert (wrapped.batch_shape, wrapped.event_shape) == (own.batch_shape, own.event_shape)
    assert (wrapped.event_ndim, wrapped.discrete) == (own.event_ndim, own.discrete)
    assert (wrapped.reparameterized, bool(wrapped.support_parameters)) == (
        own.reparameterized,
        bool(own.support_parameters),
    )
    np.testing.assert_allclose(wrapped.log_prob(x), own.log_prob(x), rtol=1e-4, atol=1e-6)
    if wrapped.discrete and laws.knows(own, laws.HasSupport) and own.support() is not None:
        np.testing.assert_array_equal(wrapped.support(), own.support())
        assert wrapped.support().dtype == x.dtype
    else:
        assert wrapped.support() is None
    if laws.knows(wrapped, laws.HasCdf) and laws.knows(own, laws.HasCdf):
        np.testing.assert_allclose(wrapped.cdf(x), own.cdf(x), rtol=1e-4)
    if laws.knows(wrapped, laws.HasIcdf) and laws.knows(own, laws.HasIcdf):
        u = jnp.full(wrapped.batch_shape, 0.3)
        np.testing.assert_allclose(wrapped.icdf(u), own.icdf(u), rtol=1e-4)


LOGITS = jnp.asarray([[0.3, -1.0, 2.0], [0.0, 0.0, 1.0]])
LOC = jnp.asarray([0.5, -1.0])


def numpyro_pairs(nd: Any) -> dict[str, tuple[Any, Any]]:
    return {
        "Normal": (nd.Normal(LOC, 2.0), laws.Normal(LOC, 2.0)),
        "Normal of numbers": (nd.Normal(0.0, 1.0), laws.Normal(0.0, 1.0)),
        "HalfNormal": (nd.HalfNormal(2.0), laws.HalfNormal(2.0)),
        "LogNormal": (nd.LogNormal(LOC, 2.0), laws.LogNormal(LOC, 2.0)),
        "Uniform": (nd.Uniform(LOC, 2.0), laws.Uniform(LOC, 2.0)),
        "Exponential": (nd.Exponential(2.0), laws.Exponential(2.0)),
        "Weibull": (nd.Weibull(2.0, 1.5), laws.Weibull(2.0, 1.5)),
        "Bernoulli": (nd.Bernoulli(logits=LOC), laws.Bernoulli(logits=LOC)),
        "Categorical": (nd.Categorical(logits=LOGITS), laws.Categorical(logits=LOGITS)),
        "Binomial": (nd.Binomial(4, probs=0.3), laws.Binomial(4, probs=0.3)),
        "Geometric": (nd.Geometric(probs=0.3), laws.Geometric(probs=0.3)),
        "Poisson": (nd.Poisson(LOC**2), laws.Poisson(LOC**2)),
        "MultivariateNormal": (
            nd.MultivariateNormal(LOC, scale_tril=jnp.eye(2)),
            laws.MultivariateNormal(LOC, scale_tril=jnp.eye(2)),
        ),
        "Independent": (nd.Normal(LOC, 2.0).to_event(1), laws.Independent(laws.Normal(LOC, 2.0), 1)),
    }


def distrax_pairs(dx: Any) -> dict[str, tuple[Any, Any]]:
    return {
        "Normal": (dx.Normal(LOC, 2.0), laws.Normal(LOC, 2.0)),
        "Uniform": (dx.Uniform(LOC, 2.0), laws.Uniform(LOC, 2.0)),
        "Laplace": (dx.Laplace(LOC, 2.0), laws.Laplace(LOC, 2.0)),
        "Logistic": (dx.Logistic(LOC, 2.0), laws.Logistic(LOC, 2.0)),
        "Gumbel": (dx.Gumbel(LOC, 2.0), laws.Gumbel(LOC, 2.0)),
        "Bernoulli": (dx.Bernoulli(logits=LOC), laws.Bernoulli(logits=LOC)),
        "Categorical": (dx.Categorical(logits=LOGITS), laws.Categorical(logits=LOGITS)),
        "Categorical probs": (dx.Categorical(probs=jnp.ones(3) / 3), laws.Categorical(probs=jnp.ones(3) / 3)),
        "OneHotCategorical": (dx.OneHotCategorical(logits=LOGITS), laws.OneHotCategorical(logits=LOGITS)),
        "MultivariateNormal": (
            dx.MultivariateNormalDiag(LOC, jnp.ones(2)),
            laws.MultivariateNormal(LOC, scale_diag=jnp.ones(2)),
        ),
        "Independent": (dx.Independent(dx.Normal(LOC, 2.0), 1), laws.Independent(laws.Normal(LOC, 2.0), 1)),
    }


def tfp_pairs(tfd: Any) -> dict[str, tuple[Any, Any]]:
    return {
        "Normal": (tfd.Normal(LOC, 2.0), laws.Normal(LOC, 2.0)),
        "LogNormal": (tfd.LogNormal(LOC, 2.0), laws.LogNormal(LOC, 2.0)),
        "Uniform": (tfd.Uniform(LOC, 2.0), laws.Uniform(LOC, 2.0)),
        "Exponential": (tfd.Exponential(2.0), laws.Exponential(2.0)),
        "Gumbel": (tfd.Gumbel(LOC, 2.0), laws.Gumbel(LOC, 2.0)),
        "Weibull": (tfd.Weibull(1.5, 2.0), laws.Weibull(2.0, 1.5)),
        "Bernoulli": (tfd.Bernoulli(logits=LOC), laws.Bernoulli(logits=LOC)),
        "Categorical": (tfd.Categorical(logits=LOGITS), laws.Categorical(logits=LOGITS)),
        "OneHotCategorical": (tfd.OneHotCategorical(logits=LOGITS), laws.OneHotCategorical(logits=LOGITS)),
        "Poisson": (tfd.Poisson(LOC**2), laws.Poisson(LOC**2)),
        "Geometric": (tfd.Geometric(probs=0.3), laws.Geometric(probs=0.3)),
        "MultivariateNormal": (
            tfd.MultivariateNormalTriL(LOC, jnp.eye(2)),
            laws.MultivariateNormal(LOC, scale_tril=jnp.eye(2)),
        ),
        "Independent": (tfd.Independent(tfd.Normal(LOC, 2.0), 1), laws.Independent(laws.Normal(LOC, 2.0), 1)),
    }


LIBRARIES = {
    "numpyro": ("numpyro.distributions", numpyro_pairs),
    "distrax": ("distrax", distrax_pairs),
    "tfp": ("tensorflow_probability.substrates.jax.distributions", tfp_pairs),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_laws_agree_with_mcgrads_own(name: str) -> None:
    module, pairs = LIBRARIES[name]
    for law, (dist, own) in pairs(library(module)).items():
        try:
            check(dist, own)
        except AssertionError as error:
            raise AssertionError(f"{name} {law}: {error}") from error


def test_numpyro_support_that_moves() -> None:
    nd = library("numpyro.distributions")
    moves = lambda dist: as_distribution(dist).support_parameters  # noqa: E731
    assert {"low", "high"} <= set(moves(nd.Uniform(0.0, 1.0)))
    assert moves(nd.TruncatedNormal(0.0, 1.0, low=jnp.asarray(0.5)))
    assert "scale" in moves(nd.Pareto(1.0, 2.0))
    assert moves(nd.Delta(1.0)) == ("v",)
    assert moves(nd.Uniform(jnp.zeros(2), 1.0).to_event(1))
    for fixed in (nd.Gamma(1.0, 2.0), nd.Beta(1.0, 2.0), nd.Dirichlet(jnp.ones(3)), nd.Binomial(3, 0.5)):
        assert moves(fixed) == ()
    shift = nd.transforms.AffineTransform(jnp.asarray(1.0), 2.0)
    assert moves(nd.TransformedDistribution(nd.Normal(0.0, 1.0), [shift])) == ()
    assert moves(nd.TransformedDistribution(nd.Exponential(1.0), [shift])) != ()
    # NumPyro itself calls the support of this one real
    assert moves(nd.TransformedDistribution(nd.Normal(0.0, 1.0), [nd.transforms.ExpTransform(), shift])) != ()


def test_numpyro_obstacles() -> None:
    nd = library("numpyro.distributions")
    mixture = nd.MixtureSameFamily(nd.Categorical(logits=jnp.zeros(2)), nd.Normal(jnp.zeros(2), 1.0))
    obstacle = pathwise_obstacle(as_distribution(mixture))
    assert "depends on `mixing_distribution.logits`, but its derivative" in obstacle
    assert "does not declare VonMises reparameterized" in pathwise_obstacle(as_distribution(nd.VonMises(0.0, 1.0)))
    assert pathwise_obstacle(as_distribution(nd.Poisson(1.0))) == "NumPyro's Poisson is discrete"
    for right in (nd.Gamma(1.0, 2.0), nd.Beta(1.0, 2.0), nd.StudentT(3.0, 0.0, 1.0), nd.Dirichlet(jnp.ones(3))):
        assert pathwise_obstacle(as_distribution(right)) is None


def test_numpyro_support_of_a_traced_count_is_unknown() -> None:
    nd = library("numpyro.distributions")
    known = as_distribution(nd.BetaBinomial(1.0, 1.0, 3))
    assert known.support().shape == (4,) and as_distribution(nd.Multinomial(3, jnp.ones(2) / 2)).support() is None
    seen = []
    jax.jit(lambda n: (seen.append(as_distribution(nd.Binomial(n, 0.5)).support()), n)[1])(jnp.asarray(3))
    assert seen == [None]


def test_distrax_supports_and_obstacles() -> None:
    dx = library("distrax")
    mixture = dx.MixtureSameFamily(dx.Categorical(jnp.zeros(2)), dx.Normal(jnp.zeros(2), jnp.ones(2)))
    assert "depends on `mixture_distribution.logits`" in pathwise_obstacle(as_distribution(mixture))
    moves = lambda dist: as_distribution(dist).support_parameters  # noqa: E731
    assert moves(dx.Deterministic(1.0)) == ("loc",) and moves(dx.Gamma(1.0, 2.0)) == ()
    assert moves(dx.Transformed(dx.Normal(0.0, 1.0), dx.ScalarAffine(1.0, 2.0))) == ()
    chain = dx.Chain([dx.ScalarAffine(1.0, 2.0), dx.Lambda(jnp.exp)])
    assert moves(dx.Transformed(dx.Normal(0.0, 1.0), chain)) != ()


def test_tfp_supports_and_obstacles() -> None:
    tfd = library("tensorflow_probability.substrates.jax.distributions")
    tfb = library("tensorflow_probability.substrates.jax.bijectors")
    mixture = as_distribution(tfd.MixtureSameFamily(tfd.Categorical(jnp.zeros(2)), tfd.Normal(jnp.zeros(2), 1.0)))
    assert "depends on `mixture_distribution.logits`" in pathwise_obstacle(mixture) and not mixture.discrete
    assert as_distribution(tfd.Independent(tfd.Poisson(jnp.ones(2)), 1)).discrete  # its draws are floats
    moves = lambda dist: as_distribution(dist).support_parameters  # noqa: E731
    assert moves(tfd.TruncatedNormal(0.0, 1.0, -1.0, 1.0)) == ("low", "high")
    assert moves(tfd.Gamma(1.0, 2.0)) == moves(tfd.Gumbel(0.0, 1.0)) == ()
    assert moves(tfb.Shift(1.0)(tfd.Normal(0.0, 1.0))) == ()
    assert moves(tfb.Shift(1.0)(tfb.Exp()(tfd.Normal(0.0, 1.0)))) != ()


# Recognition


def test_own_laws_are_returned_as_they_are() -> None:
    dist = laws.Normal(0.0, 1.0)
    assert as_distribution(dist) is dist


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plain:
    """A stranger's distribution, of nobody's base class."""

    rate: Any
    batch_shape = ()
    event_shape = ()
    reparameterized = False

    def sample(self, key: Any) -> Any:
        return jax.random.exponential(key) / self.rate

    def log_prob(self, x: Any) -> Any:
        return jnp.log(self.rate) - self.rate * x


class Unregistered:
    """A distribution whose parameters JAX does not see."""

    batch_shape = event_shape = ()
    reparameterized = True

    def sample(self, key: Any) -> Any:
        return jax.random.normal(key)

    def log_prob(self, x: Any) -> Any:
        return -x


def test_the_protocol_is_enough() -> None:
    dist = Plain(2.0)
    assert as_distribution(dist) is dist
    assert pathwise_obstacle(dist) == "Plain is not reparameterized"
    assert laws.Independent(dist, 0).event_ndim == 0


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (3.0, r"`mcgrad.sample\(dist=...\)` must be a distribution, got float\. Pass one of mcgrad, NumPyro"),
        (laws.Normal, r"must be a distribution, got <class .*Normal'>\. Call it with its parameters: `Normal\(...\)`"),
        (jax.random, r"must be a distribution, got module"),
        (Unregistered(), r"must be a pytree, got Unregistered, whose parameters JAX cannot see"),
    ],
)
def test_what_is_no_distribution_is_refused(value: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        as_distribution(value)


# In programs, and what cannot be used


def _gradient(make: Any, estimator: Any) -> Any:
    program = lambda p, key: jnp.sum(jnp.cos(mcgrad.sample(key, make(p), estimator)))  # noqa: E731
    return jax.jit(jax.vmap(mcgrad.grad(program), (None, 0)))(
        jnp.asarray(0.7), jax.random.split(jax.random.key(0), 500)
    )


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("estimator", [mcgrad.Pathwise(), mcgrad.Score(), None])
def test_a_draw_in_a_program_has_the_gradient_of_mcgrads_own(name: str, estimator: Any) -> None:
    """Constructors of TFP fail on placeholders, those of Distrax on numbers of Python."""
    nd = library(LIBRARIES[name][0])
    gradients = _gradient(lambda p: nd.Normal(p, 0.8), estimator)
    exact = -np.sin(0.7) * np.exp(-0.32)
    assert abs(np.mean(gradients) - exact) < 5 * np.std(gradients) / np.sqrt(500)


def test_the_location_of_a_levy_distribution_moves_its_support() -> None:
    nd = library("numpyro.distributions")
    assert as_distribution(nd.Levy(0.3, 1.3)).support_parameters == ("loc",)


def test_what_cannot_be_used_is_refused() -> None:
    dx = library("distrax")
    joint = dx.Joint([dx.Normal(0.0, 1.0), dx.Gamma(2.0, 1.0)])
    with pytest.raises(
        TypeError, match="whose draw is one array, got Distrax's Joint, whose draw has 2. Draw its parts"
    ):
        as_distribution(joint)
    nd = library("numpyro.distributions")
    with pytest.raises(TypeError, match="drawn from while JAX traces its parameters, got NumPyro's ImproperUniform"):
        as_distribution(nd.ImproperUniform(nd.constraints.real, (), ()))
    tfd = library("tensorflow_probability.substrates.jax.distributions")
    joint = tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), lambda a: tfd.Normal(a, 1.0)])
    with pytest.raises(TypeError, match="`mcgrad.sample"):
        as_distribution(joint)


def test_a_log_density_that_is_not_that_of_the_draws_is_none() -> None:
    """Censored distributions draw what is not censored."""
    nd = library("numpyro.distributions")
    censored = lambda p: nd.LeftCensoredDistribution(nd.Normal(p, 0.8), jnp.asarray(True))  # noqa: E731
    assert not laws.knows(as_distribution(censored(0.3)), laws.HasLogProb)
    with pytest.raises(ValueError, match="the distribution has no log density"):
        _gradient(censored, mcgrad.Score())


def test_tfp_has_no_density_outside_of_a_support() -> None:
    """An importance weight of a wider proposal would count what is drawn there."""
    tfd = library("tensorflow_probability.substrates.jax.distributions")
    for dist in (
        tfd.Exponential(1.3),
        tfd.Geometric(probs=0.3),
        tfd.Poisson(1.3),
        tfd.GeneralizedPareto(0.3, 1.0, 0.2),
    ):
        assert as_distribution(dist).log_prob(jnp.asarray(-1.0)) == -np.inf
    assert as_distribution(tfd.HalfCauchy(0.3, 1.3)).support_parameters == ("loc",)
    np.testing.assert_array_equal(as_distribution(tfd.ProbitBernoulli(0.3)).support(), [0, 1])
