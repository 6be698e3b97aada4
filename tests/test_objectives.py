"""Bounds of many samples and their gradients, against enumeration and quadrature over all samples."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_unbiased, derivatives, gradient_draws

import mcgrad

# Discrete: two examples, two binary latents each, a model of which both parameters and latents are in the log weight.
X = jnp.array([0.3, -0.5])
DISCRETE = {"q": jnp.array([[0.4, -0.9], [1.1, 0.2]]), "p": jnp.array([0.7, -0.4])}


def of_states(params, z, x):
    """`log p(x, z) - log q(z)` of the examples."""
    q = mcgrad.Bernoulli(logits=params["q"])
    prior = jnp.sum(mcgrad.Bernoulli(logits=jnp.zeros_like(z)).log_prob(z), axis=-1)
    likelihood = mcgrad.Normal(z @ params["p"], jnp.ones_like(x)).log_prob(x)
    return prior + 3 * likelihood + z[:, 0] * z[:, 1] - jnp.sum(q.log_prob(z), axis=-1)


def discrete(params, key, *, x=X):
    x = x.astype(params["p"].dtype)
    return of_states(params, 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=params["q"])).astype(x.dtype), x)


def exact_discrete(params, num_samples, bound):
    """The sum over examples of the expected bound, by enumeration of all samples of each."""
    states = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)))  # [4, 2]
    log_q = jax.vmap(lambda z: jnp.sum(mcgrad.Bernoulli(logits=params["q"]).log_prob(z), -1))(
        jnp.broadcast_to(states[:, None], (4, 2, 2))
    )
    log_weights = jax.vmap(lambda z: of_states(params, jnp.broadcast_to(z, (2, 2)), X))(states)  # [4, examples]
    index = jnp.array(list(itertools.product(range(4), repeat=num_samples)))  # [4**K, K]
    probabilities = jnp.exp(jnp.sum(log_q[index], axis=1))
    return jnp.sum(probabilities * bound(jnp.swapaxes(log_weights[index], 0, 1)))


def log_mean_exp(log_weights):
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(len(log_weights))


DISCRETE_BOUNDS = {
    "iwae": (lambda k: lambda *a: mcgrad.expectation(mcgrad.iwae(discrete, k))(*a), log_mean_exp),
    "vimco": (lambda k: mcgrad.vimco(discrete, k), log_mean_exp),
    "vimco, arithmetic": (lambda k: mcgrad.vimco(discrete, k, others="arithmetic"), log_mean_exp),
    "vargrad": (lambda k: mcgrad.vargrad(discrete, k), lambda w: jnp.mean(w, axis=0)),
}


@pytest.mark.parametrize("num_samples", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_discrete_bounds_are_unbiased_to_second_order(num_samples):
    estimators = {name: make(num_samples) for name, (make, _) in DISCRETE_BOUNDS.items()}
    exact = {
        name: derivatives(lambda params, b=bound: exact_discrete(params, num_samples, b), DISCRETE, 2)
        for name, (_, bound) in DISCRETE_BOUNDS.items()
    }

    def estimate(key):
        found = {}
        for (name, bound), own in zip(estimators.items(), jax.random.split(key, len(estimators)), strict=True):
            total = derivatives(lambda params, b=bound, k=own: jnp.sum(b(params, k)), DISCRETE, 2)
            found |= {f"{name}: {what}": value for what, value in total.items()}
        return found

    exact = {f"{name}: {what}": np.asarray(v) for name, values in exact.items() for what, v in values.items()}
    draws = gradient_draws(estimate, exact, jax.random.key(1))
    for name in exact:
        assert_unbiased(draws[name], exact[name])


def test_vimco_has_less_variance_than_the_score():
    bounds = {name: DISCRETE_BOUNDS[name][0](3) for name in ("iwae", "vimco", "vimco, arithmetic")}

    @jax.jit
    def variances(keys):
        def total(bound):
            gradient = jax.grad(lambda params, key: jnp.sum(bound(params, key)))
            draws = jax.vmap(lambda key: gradient(DISCRETE, jax.random.clone(key)))(jax.random.clone(keys))
            return sum(jnp.sum(jnp.var(leaf, axis=0)) for leaf in jax.tree.leaves(draws))

        return {name: total(bound) for name, bound in bounds.items()}

    found = variances(jax.random.split(jax.random.key(2), 8192))
    assert found["vimco"] < 0.5 * found["iwae"] and found["vimco, arithmetic"] < 0.5 * found["iwae"]


def test_vargrad_is_the_log_variance_loss():
    def loss(params, z):  # half the sample variance, draws held fixed
        log_weights = jax.vmap(lambda z: of_states(params, z, X))(z)
        return -0.5 * jnp.sum(jnp.var(log_weights, axis=0, ddof=1))

    @jax.jit
    def both(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        z = jax.vmap(lambda key: mcgrad.Bernoulli(logits=DISCRETE["q"]).sample(key))(keys).astype(float)
        found = jax.grad(lambda params: jnp.sum(mcgrad.vargrad(discrete, 3)(params, jax.random.key(seed))))(DISCRETE)
        return found["q"], jax.grad(loss)(DISCRETE, z)["q"]

    for seed in range(3):
        np.testing.assert_allclose(*both(seed), atol=1e-12)


# Continuous: q ~ Normal(loc, exp(log_scale)), a model with one parameter.
CONTINUOUS = {"q": jnp.array([0.4, -0.3]), "p": jnp.array(0.8)}


def of_value(params, z):
    q = mcgrad.Normal(params["q"][0], jnp.exp(params["q"][1]))
    return (
        mcgrad.Normal(0.0, 1.0).log_prob(z) + mcgrad.Normal(params["p"] * z, 0.7).log_prob(1.2) - q.log_prob(z)
    ).astype(z.dtype)


def continuous(params, key):
    return of_value(params, mcgrad.sample(key, mcgrad.Normal(params["q"][0], jnp.exp(params["q"][1]))))


def exact_continuous(params, num_samples):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_weights = jax.vmap(lambda e: of_value(params, params["q"][0] + jnp.exp(params["q"][1]) * e))(jnp.asarray(nodes))
    index = jnp.array(list(itertools.product(range(40), repeat=num_samples))).T
    joint = jnp.prod(jnp.asarray(weights / weights.sum())[index], axis=0)
    return jnp.sum(joint * log_mean_exp(log_weights[index]))


@pytest.mark.parametrize("num_samples", [1, 2])
def test_continuous_bounds_are_unbiased(num_samples):
    bounds = {
        "dreg": mcgrad.dreg(continuous, num_samples),
        "stl": mcgrad.sticking_the_landing(continuous, num_samples),
    }
    if num_samples > 1:
        bounds |= {
            "iwae": mcgrad.expectation(mcgrad.iwae(continuous, num_samples)),
            "vimco": mcgrad.vimco(continuous, num_samples),
        }
    exact = {what: np.asarray(v) for what, v in _exact_first(num_samples).items()}

    def estimate(key):
        keys = jax.random.split(key, len(bounds))
        found = {}
        for (name, bound), own in zip(bounds.items(), keys, strict=True):
            values = derivatives(lambda params, b=bound, k=own: b(params, k), CONTINUOUS, 1)
            found |= {(name, what): value for what, value in values.items()}
        return found

    targets = {(name, what): v for name in bounds for what, v in exact.items()}
    draws = gradient_draws(estimate, targets, jax.random.key(3))
    for name, what in targets:
        if name == "stl" and what == "gradient" and num_samples > 1:
            with pytest.raises(AssertionError, match="biased"):
                assert_unbiased(draws[name, what], exact[what])
        else:
            assert_unbiased(draws[name, what], exact[what])


def _exact_first(num_samples):
    return derivatives(lambda params: exact_continuous(params, num_samples), CONTINUOUS, 1)


def test_the_signal_to_noise_ratio_of_dreg_does_not_fall():
    def ratio(bound, num_samples, keys):
        gradients = jax.vmap(jax.grad(bound(continuous, num_samples)), (None, 0))(CONTINUOUS, jax.random.clone(keys))[
            "q"
        ]
        return jnp.linalg.norm(gradients.mean(0)) / jnp.sqrt(jnp.sum(gradients.var(0)))

    iwae = lambda fn, k: mcgrad.expectation(mcgrad.iwae(fn, k))  # noqa: E731
    keys = jax.random.split(jax.random.key(4), 16384)
    found = {
        (name, k): float(jax.jit(functools.partial(ratio, bound, k))(jax.random.clone(keys)))
        for name, bound in {"iwae": iwae, "dreg": mcgrad.dreg}.items()
        for k in (2, 32)
    }
    assert found["dreg", 32] > 1.2 * found["dreg", 2]
    assert found["iwae", 32] < 0.6 * found["iwae", 2]


def dreg_by_hand(params, noise):
    def log_weights(params, noise, fixed):
        z = params["q"][0] + jnp.exp(params["q"][1]) * noise
        model = mcgrad.Normal(0.0, 1.0).log_prob(z) + mcgrad.Normal(params["p"] * z, 0.7).log_prob(1.2)
        return model - mcgrad.Normal(fixed[0], jnp.exp(fixed[1])).log_prob(z)

    v = jax.nn.softmax(log_weights(params, noise, params["q"]))
    jacobian = jax.jacrev(log_weights)(params, noise, params["q"])
    return {"q": v**2 @ jacobian["q"], "p": v @ jacobian["p"]}


def test_dreg_is_the_published_gradient():
    noise = jax.vmap(jax.random.normal)(jax.random.split(jax.random.key(5), 4))
    found = jax.jit(jax.grad(mcgrad.dreg(continuous, 4)))(CONTINUOUS, jax.random.key(5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, dreg_by_hand(CONTINUOUS, noise))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("vargrad", "sticking_the_landing")]


@pytest.mark.parametrize("name", ["iwae", "vimco", "dreg", *SLOW])
def test_transforms_dtypes_and_values(name):
    fn, params = (continuous, CONTINUOUS) if name in ("dreg", "sticking_the_landing") else (discrete, DISCRETE)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    bound = getattr(mcgrad, name)(fn, 5)
    surrogate = mcgrad.expectation(bound) if name == "iwae" else bound

    def value_and_grad(params, seed):
        return jax.value_and_grad(lambda params: jnp.sum(surrogate(params, jax.random.key(seed))))(params)

    value, gradient = jax.jit(value_and_grad)(params, 0)
    log_weights = jax.vmap(lambda key: fn(params, key))(jax.random.split(jax.random.key(0), 5))
    expected = jnp.mean(log_weights, 0) if name == "vargrad" else log_mean_exp(log_weights)
    np.testing.assert_allclose(value, jnp.sum(expected), rtol=1e-5)
    assert {leaf.dtype for leaf in (value, *jax.tree.leaves(gradient))} == {jnp.dtype(jnp.float32)}
    mapped = jax.jit(jax.vmap(value_and_grad, (None, 0)))(params, jnp.arange(2))
    first = jax.tree.map(lambda x: x[0], mapped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), first, (value, gradient))


@pytest.mark.parametrize("others", ["geometric", "arithmetic"])
def test_weights_of_zero_give_no_nan(others):
    def log_weight(logits, key):
        return jnp.where(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits)) == 1, logits, -jnp.inf)

    bound = jax.value_and_grad(mcgrad.vimco(log_weight, 2, others=others))
    draws = jax.jit(jax.vmap(bound, (None, 0)))(0.2, jax.random.split(jax.random.key(6), 64))
    possible = np.isfinite(draws[0])
    assert 0 < possible.sum() < 64 and np.isfinite(draws[1][possible]).all()


def named(params, key):
    return 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=params), mcgrad.Enumerate())


@pytest.mark.parametrize("name", ["vimco", "vargrad", "dreg", "sticking_the_landing"])
def test_a_draw_that_names_an_estimator_is_refused(name):
    with pytest.raises(ValueError, match=f"mcgrad.{name}` must choose .*test_objectives.py:.* `mcgrad.Enumerate`"):
        getattr(mcgrad, name)(named, 2)(0.3, jax.random.key(0))


@pytest.mark.parametrize("name", ["iwae", "vimco", "vargrad", "dreg", "sticking_the_landing"])
def test_what_cannot_be_is_refused(name):
    make = getattr(mcgrad, name)
    with pytest.raises(ValueError, match=rf"mcgrad.{name}\(num_samples=...\)` must be"):
        make(discrete, 0)
    with pytest.raises(ValueError, match="must find the argument named `key`"):
        make(lambda params: params, 2)(0.3)
    with pytest.raises(TypeError, match="must be a key"):
        make(discrete, 2)(DISCRETE, jnp.zeros(2))
    with pytest.raises(TypeError, match="got (a pytree|tuple)"):
        make(lambda params, key: (params, params), 2)(0.3, jax.random.key(0))


def test_vimco_needs_other_samples_and_a_known_mean():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        mcgrad.vimco(discrete, 1)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        mcgrad.vargrad(discrete, 1)
    with pytest.raises(ValueError, match=r"vimco\(others=...\)` must be"):
        mcgrad.vimco(discrete, 2, others="harmonic")


@pytest.mark.parametrize("name", ["dreg", "sticking_the_landing"])
def test_paths_are_needed_and_second_derivatives_refused(name):
    bound = getattr(mcgrad, name)
    with pytest.raises(ValueError, match="Bernoulli at .*test_objectives.py"):
        jax.jit(bound(discrete, 2))(DISCRETE, jax.random.key(0))
    with pytest.raises(NotImplementedError, match="right to first order"):
        jax.eval_shape(jax.hessian(bound(continuous, 2)), CONTINUOUS, jax.random.key(0))
