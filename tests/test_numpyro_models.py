"""Models and guides of NumPyro as programs, against exact gradients: sums over discrete latents and quadrature over others."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, gradient_draws
from jax.flatten_util import ravel_pytree

import mcgrad

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    numpyro = pytest.importorskip("numpyro")
    dist = pytest.importorskip("numpyro.distributions")
    from numpyro.contrib.control_flow import scan
    from numpyro.infer import SVI, TraceGraph_ELBO
    from numpyro.infer.util import log_density

    import mcgrad.numpyro

# NumPyro uses names that newer JAX deprecates, and warns of plates. Not ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def their_keys() -> Any:
    """NumPyro broadcasts as NumPy does, and what it does with keys JAX's checker takes for a second use on some versions."""
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        yield


def line(low: float, high: float, n: int = 161) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of an integral, by Gauss and Legendre."""
    points, weights = np.polynomial.legendre.leggauss(n)
    return (points + 1) / 2 * (high - low) + low, weights * (high - low) / 2


def each_of(*values: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of a discrete latent, to be summed over."""
    return np.asarray(values), np.ones(len(values))


def bits(n: int) -> tuple[np.ndarray, np.ndarray]:
    return each_of(*itertools.product((0, 1), repeat=n))


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with its guide, values of the guide's parameters, and what to sum each latent over."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    params: Mapping[str, Any]
    latents: Mapping[str, tuple[np.ndarray, np.ndarray]]
    scaled: float = 1.0  # of all terms, where a plate is subsampled

    def exact(self, params: Any) -> jax.Array:
        """The evidence lower bound, a sum over all values of the latents."""
        each = [range(len(weights)) for _, weights in self.latents.values()]
        index = np.array(list(itertools.product(*each)))
        values = {
            name: jnp.asarray(points[i]) for i, (name, (points, _)) in zip(index.T, self.latents.items(), strict=True)
        }
        weights = np.prod([w[i] for i, (_, w) in zip(index.T, self.latents.values(), strict=True)], axis=0)

        def term(values: Any) -> Any:
            with numpyro.handlers.seed(rng_seed=0):
                log_q, _ = log_density(self.guide, (), {}, {**params, **values})
                log_p, _ = log_density(self.model, (), {}, {**params, **values})
            return jnp.exp(log_q / self.scaled), log_p - log_q

        q, log_w = jax.vmap(term)(values)
        return jnp.sum(weights * jnp.where(q > 0, q * log_w, 0.0))


X = jnp.array([0.3, 2.2, 1.9])


def mixture() -> Model:
    def model() -> None:
        means = jnp.array([0.0, 2.0])
        with numpyro.plate("N", 3):
            z = numpyro.sample("z", dist.Categorical(probs=jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(means[z], 1.0), obs=X)

    def guide() -> None:
        logits = numpyro.param("logits", jnp.zeros((3, 2)))
        with numpyro.plate("N", 3):
            numpyro.sample("z", dist.Categorical(logits=logits))

    return Model(model, guide, {"logits": jnp.array([[0.1, 0.4], [-0.3, 0.2], [0.5, 0.0]])}, {"z": bits(3)})


def discrete_autoencoder() -> Model:
    w = jnp.array([[0.5, -1.0, 0.3], [1.2, 0.4, -0.7]])
    b = jnp.array([[1, 0, 1], [0, 1, 1]])

    def model() -> None:
        decoder = numpyro.param("decoder", w)
        with numpyro.plate("N", 2, dim=-2), numpyro.plate("D", 2, dim=-1):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
        with numpyro.plate("N", 2):
            numpyro.sample("x", dist.Bernoulli(logits=z.astype(w.dtype) @ decoder).to_event(1), obs=b)

    def guide() -> None:
        encoder = numpyro.param("encoder", jnp.zeros((3, 2)))
        with numpyro.plate("N", 2, dim=-2), numpyro.plate("D", 2, dim=-1):
            numpyro.sample("z", dist.Bernoulli(logits=b.astype(w.dtype) @ encoder))

    z = each_of(*np.array(bits(4)[0]).reshape(-1, 2, 2))
    return Model(model, guide, {"decoder": w, "encoder": 0.3 * w.T}, {"z": z})


def hidden_markov() -> Model:
    y = jnp.array([0.2, 1.1, 0.9, -0.3])

    def model() -> None:
        def step(z: Any, y: Any) -> Any:
            z = numpyro.sample("z", dist.Bernoulli(probs=jnp.where(z == 1, 0.8, 0.3)))
            numpyro.sample("y", dist.Normal(1.0 * z, 0.7), obs=y)
            return z, None

        scan(step, jnp.zeros((), int), y)

    def guide() -> None:
        logits = numpyro.param("logits", jnp.zeros(4))

        def step(z: Any, logit: Any) -> Any:
            z = numpyro.sample("z", dist.Bernoulli(logits=logit + 0.5 * z))
            return z, None

        scan(step, jnp.zeros((), int), logits)

    return Model(model, guide, {"logits": jnp.array([0.3, -0.2, 0.4, 0.1])}, {"z": bits(4)})


def hierarchical_regression() -> Model:
    x, y = jnp.array([-1.0, 0.5, 2.0]), jnp.array([-0.8, 0.9, 2.5])

    def model() -> None:
        slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        with numpyro.plate("N", 3):
            numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)

    def guide() -> None:
        numpyro.sample("slope", dist.Normal(numpyro.param("m", 0.0), numpyro.param("s", 1.0)))
        numpyro.sample("scale", dist.LogNormal(numpyro.param("l", 0.0), 0.3))

    params = {"m": jnp.array(0.7), "s": jnp.array(0.4), "l": jnp.array(-0.2)}
    return Model(model, guide, params, {"slope": line(-4.0, 5.0), "scale": line(0.05, 5.0)})


def topics() -> Model:
    words = jnp.array([0, 2])
    topics = jnp.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])

    def model() -> None:
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.array([2.0, 3.0])))
        with numpyro.plate("W", 2):
            z = numpyro.sample("z", dist.Categorical(theta))
            numpyro.sample("x", dist.Categorical(topics[z]), obs=words)

    def guide() -> None:
        numpyro.sample("theta", dist.Dirichlet(numpyro.param("a", jnp.ones(2))))
        logits = numpyro.param("logits", jnp.zeros((2, 2)))
        with numpyro.plate("W", 2):
            numpyro.sample("z", dist.Categorical(logits=logits))

    points, weights = line(0.0, 1.0)
    params = {"a": jnp.array([2.5, 3.5]), "logits": jnp.array([[0.3, 0.0], [-0.4, 0.1]])}
    return Model(model, guide, params, {"theta": (np.stack([points, 1 - points], -1), weights), "z": bits(2)})


def masked_and_subsampled() -> Model:
    def model() -> None:
        with numpyro.plate("N", 6, subsample_size=3), numpyro.handlers.mask(mask=jnp.array([True, True, False])):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=X)

    def guide() -> None:
        logits = numpyro.param("logits", jnp.zeros(3))
        with numpyro.plate("N", 6, subsample_size=3):
            numpyro.sample("z", dist.Bernoulli(logits=logits))

    return Model(model, guide, {"logits": jnp.array([0.1, -0.4, 0.6])}, {"z": bits(3)}, scaled=2.0)


def gamma_guide() -> Model:
    counts = jnp.array([2, 3, 1])

    def model() -> None:
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("N", 3):
            numpyro.sample("x", dist.Poisson(rate), obs=counts)

    def guide() -> None:
        numpyro.sample("rate", dist.Gamma(numpyro.param("a", 1.0), numpyro.param("b", 1.0)))

    return Model(model, guide, {"a": jnp.array(3.5), "b": jnp.array(1.4)}, {"rate": line(1e-6, 20.0, 401)})


def two_layers() -> Model:
    def model() -> None:
        with numpyro.plate("D", 2):
            top = numpyro.sample("top", dist.Bernoulli(0.4))
        with numpyro.plate("D", 2):
            low = numpyro.sample("low", dist.Bernoulli(logits=1.5 * top - 0.5))
        with numpyro.plate("N", 3):
            numpyro.sample("x", dist.Normal(1.0 * low.sum(), 1.0), obs=X)

    def guide() -> None:
        a, b = numpyro.param("a", jnp.zeros(2)), numpyro.param("b", jnp.zeros(2))
        with numpyro.plate("D", 2):
            low = numpyro.sample("low", dist.Bernoulli(logits=a))
        with numpyro.plate("D", 2):
            numpyro.sample("top", dist.Bernoulli(logits=b + 1.0 * low[::-1]))

    params = {"a": jnp.array([0.4, -0.2]), "b": jnp.array([-0.3, 0.2])}
    return Model(model, guide, params, {"low": bits(2), "top": bits(2)})


MODELS = {
    make.__name__: make()
    for make in (
        mixture,
        discrete_autoencoder,
        hidden_markov,
        hierarchical_regression,
        topics,
        masked_and_subsampled,
        gamma_guide,
        two_layers,
    )
}


@pytest.mark.parametrize("name", MODELS)
def test_value_and_gradient_are_exact_on_average(name: str) -> None:
    model = MODELS[name]
    value, gradient = jax.value_and_grad(model.exact)(model.params)
    bound = mcgrad.value_and_grad(mcgrad.numpyro.elbo(model.model, model.guide))

    def estimate(key: Any) -> Any:
        value, gradient = bound(model.params, key)
        return {"value": value, "gradient": ravel_pytree(gradient)[0]}

    exact = {"value": value, "gradient": ravel_pytree(gradient)[0]}
    draws = gradient_draws(estimate, exact, jax.random.key(1))
    for part in exact:
        assert_unbiased(draws[part], exact[part])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("masked_and_subsampled", "hidden_markov")])
def test_variance_is_at_most_that_of_trace_graph(name: str) -> None:
    """NumPyro's own estimator with credit; it counts the scale of a plate twice and does not see draws inside its `scan`."""
    model = MODELS[name]
    keys = jax.random.split(jax.random.key(2), 4096)
    ours = mcgrad.grad(mcgrad.numpyro.elbo(model.model, model.guide))
    theirs = jax.grad(lambda params, key: TraceGraph_ELBO().loss(key, params, model.model, model.guide))

    def total_variance(gradient: Callable[..., Any]) -> float:
        found = jax.jit(jax.vmap(gradient, (None, 0)))(model.params, keys)
        return sum(float(jnp.var(leaf, axis=0).sum()) for leaf in jax.tree.leaves(found))

    assert total_variance(ours) <= 1.05 * total_variance(theirs)


def test_estimators_by_site() -> None:
    model = MODELS["two_layers"]
    bound = mcgrad.numpyro.elbo(model.model, model.guide, sites={"top": mcgrad.DisARM(), "low": mcgrad.Score()})
    chosen = {draw.name: draw.estimator for draw in mcgrad.explain(bound)(model.params, jax.random.key(0)).sites}
    assert chosen == {"top": "DisARM", "low": "Score"}


def test_an_unknown_site_is_refused_with_those_that_there_are() -> None:
    model = MODELS["two_layers"]
    bound = mcgrad.numpyro.elbo(model.model, model.guide, sites={"bottom": mcgrad.Score()})
    with pytest.raises(ValueError, match=r"got 'bottom'. Those of this model and guide are 'low', 'top'"):
        mcgrad.grad(bound)(model.params, jax.random.key(0))
    with pytest.raises(TypeError, match="must be an estimator"):
        mcgrad.numpyro.elbo(model.model, model.guide, sites={"low": "score"})


def test_a_latent_of_the_model_alone_cancels() -> None:
    def model() -> None:
        numpyro.sample("extra", dist.Normal(3.0, 1.0))
        MODELS["mixture"].model()

    bound = mcgrad.numpyro.elbo(model, MODELS["mixture"].guide)
    own = mcgrad.numpyro.elbo(MODELS["mixture"].model, MODELS["mixture"].guide)
    found, wanted = (mcgrad.grad(b)(MODELS["mixture"].params, jax.random.key(3)) for b in (bound, own))
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=1e-6)


def test_stochastic_variational_inference_learns() -> None:
    """By NumPyro's own loop, the guide ends near the posterior."""
    model = MODELS["mixture"]
    svi = SVI(model.model, model.guide, numpyro.optim.Adam(0.05), loss=mcgrad.numpyro.ELBO(4))
    fitted = svi.run(jax.random.key(0), 600, progress_bar=False).params["logits"]
    log_p = jnp.log(jnp.array([0.3, 0.7])) - 0.5 * (X[:, None] - jnp.array([0.0, 2.0])) ** 2
    np.testing.assert_allclose(jax.nn.softmax(fitted), jax.nn.softmax(log_p), atol=0.1)


@pytest.mark.parametrize("bound", [mcgrad.iwae, mcgrad.vimco], ids=["iwae", "vimco"])
def test_loss_of_a_bound_of_several_draws(bound: Any) -> None:
    model, key = MODELS["mixture"], jax.random.key(3)
    loss = mcgrad.numpyro.ELBO(4, bound=bound).loss
    of_weight = mcgrad.expectation(bound(mcgrad.numpyro.elbo(model.model, model.guide), 4))
    found = jax.grad(lambda params: loss(key, params, model.model, model.guide))(model.params)
    wanted = jax.grad(of_weight)(model.params, key)
    np.testing.assert_allclose(found["logits"], -wanted["logits"], rtol=1e-6)
