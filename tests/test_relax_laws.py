"""LAX and RELAX: what is refused, laws of one's own and of other libraries."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import pytest
from helpers import assert_unbiased
from programs.program import expect_bernoulli

import mcgrad


def refused(match, law, control, error=ValueError, kind=mcgrad.RELAX):
    def program(theta, key):
        return jnp.sum(1.0 * mcgrad.sample(key, law(theta), kind(control)))

    with pytest.raises(error, match=match):
        jax.eval_shape(mcgrad.grad(program), 0.4, jax.random.key(0))


def test_what_cannot_be_is_refused():
    bits = lambda p: mcgrad.Bernoulli(logits=p + jnp.zeros((4, 3)))  # noqa: E731
    for kind in (mcgrad.RELAX, mcgrad.LAX):
        with pytest.raises(TypeError, match=rf"mcgrad.{kind.__name__}\(control=...\)` must be a function.*got float"):
            kind(0.5)
    refused(
        r"RELAX` would be wrong at .*test_relax_laws.py.*batch shape \(4, 3\), got float64 of shape \(4,\)",
        bits,
        lambda z: z[:, 0],
    )
    refused(r"batch shape \(4, 3\), got int32 of shape \(4, 3\)", bits, lambda z: jnp.zeros((4, 3), jnp.int32))
    refused(r"got float64 of shape \(4, 3\), float64 of shape \(4, 3\)", bits, lambda z: (z, z))
    refused(r"got nothing", bits, lambda z: None)
    refused(
        r"batch shape \(\), got float64 of shape \(2,\)",
        lambda p: mcgrad.MultivariateNormal(p + jnp.zeros(2), scale_tril=jnp.eye(2)),
        jnp.sin,
        kind=mcgrad.LAX,
    )
    refused(
        r"must be continuous, and a number made of a comparison.*test_relax_laws.py.*jumps",
        bits,
        lambda z: 1.0 * (z > 0),
    )
    refused(r"must be continuous, and `sign` at .*jumps", lambda p: mcgrad.Normal(p, 1.0), jnp.sign, kind=mcgrad.LAX)
    refused(r"has no relaxation; .*Score", lambda p: mcgrad.Poisson(jnp.exp(p)), jnp.sin)
    refused(r"has no relaxation; .*LAX\(control\)` is for continuous", lambda p: mcgrad.Normal(p, 1.0), jnp.sin)
    refused(r"Bernoulli is discrete, so it has no path.*RELAX\(control\)", bits, jnp.sin, kind=mcgrad.LAX)
    refused(r"support moves with .*`high`", lambda p: mcgrad.Uniform(0.0, jnp.exp(p)), jnp.sin, kind=mcgrad.LAX)
    own = mcgrad.distribution(sampler=lambda key, loc: loc + jax.random.normal(key))
    refused(r"no log density", own, jnp.sin, kind=mcgrad.LAX)
    kinked = mcgrad.distribution(
        sampler=lambda key, p: jnp.floor(p + jax.random.normal(key)), log_prob=lambda x, p: -((x - p) ** 2)
    )
    refused(r"so it has no path", kinked, jnp.sin, kind=mcgrad.LAX)


@dataclasses.dataclass(frozen=True)
class Signs(mcgrad.Distribution):
    """Minus or plus one, in pairs: a law of one's own, with a relaxation."""

    logits: jax.Array

    domains = {}
    discrete = True
    batch_shape = property(lambda self: self.logits.shape[:-1])
    event_shape = property(lambda self: self.logits.shape[-1:])
    event_ndim = 1

    @property
    def bits(self):
        return mcgrad.Independent(mcgrad.Bernoulli(logits=self.logits), 1)

    def sample(self, key):
        return 2 * self.bits.sample(key) - 1

    def log_prob(self, x):
        return self.bits.log_prob((x + 1) // 2)

    def relaxation(self, key, x, coupled):
        return self.bits.relaxation(key, (x + 1) // 2, coupled)


def test_a_law_of_ones_own():
    logits = jnp.asarray([[0.4, -0.3], [0.2, 0.8]])

    def loss(logits, key):
        x = mcgrad.sample(key, Signs(logits), mcgrad.RELAX(lambda z: jnp.tanh(z[:, 0] - z[:, 1])))
        return jnp.sum(jnp.max(x * jnp.asarray([[1.0, 0.7]]), axis=1))

    def exact(logits):
        return expect_bernoulli(logits, lambda b: jnp.sum(jnp.max((2 * b - 1) * jnp.asarray([[1.0, 0.7]]), axis=1)))

    draws = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(logits, jax.random.split(jax.random.key(16), 40_000))
    assert_unbiased(draws, jax.grad(exact)(logits))


@dataclasses.dataclass(frozen=True)
class Coin(mcgrad.Distribution):
    """One where a uniform number in `(p - 1, p)` is above zero: a `mcgrad.Relaxation` written by hand."""

    p: jax.Array

    domains = {"p": mcgrad.distributions.PROBABILITY}
    discrete = True

    def sample(self, key):
        return jax.random.bernoulli(key, self.p, self.batch_shape).astype(jnp.int32)

    def log_prob(self, x):
        return jnp.log(jnp.where(x == 1, self.p, 1 - self.p))

    def relaxation(self, key, x, coupled):
        assert not coupled
        key_free, key_given = jax.random.split(key)
        u, v = (jax.random.uniform(k, self.batch_shape) for k in (key_free, key_given))
        return mcgrad.Relaxation(u - 1 + self.p, jnp.where(x == 1, self.p * v, (self.p - 1) * v), self.log_prob(x))


def test_a_relaxation_by_hand():
    def loss(p, key, control):
        return jnp.exp(1.0 * mcgrad.sample(key, Coin(p), mcgrad.RELAX(control)))

    draws = {}
    for name, control in (("nothing", jnp.zeros_like), ("line", lambda z: 2.0 + 0.5 * z)):
        one = mcgrad.grad(lambda p, key, control=control: loss(p, key, control))
        draws[name] = jax.jit(jax.vmap(one, (None, 0)))(0.3, jax.random.split(jax.random.key(0), 40_000))
        assert_unbiased(draws[name], jnp.e - 1)
    assert draws["line"].var() < draws["nothing"].var() / 10


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical"])
@pytest.mark.parametrize(("parameter", "function"), [("logits", jnp.sin), ("probs", jax.nn.softmax)])
def test_laws_of_another_library(name, parameter, function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numpyro = pytest.importorskip("numpyro.distributions")
        p = jnp.asarray([0.4, -0.7, 0.9])

        def loss(p, key):
            law = getattr(numpyro, name)(**{parameter: function(p)})
            x = mcgrad.sample(key, law, mcgrad.RELAX(lambda z: 0.3 * jnp.sum(jnp.sin(z))))
            return jnp.sum(cost(x))

        def cost(x):
            return (x + 1.0) ** 2 * (1.0 + jnp.arange(x.shape[-1]) if x.ndim else 1.0)

        draws = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(p, jax.random.split(jax.random.key(15), 40_000))

        def expected(p):
            law = getattr(mcgrad, name)(**{parameter: function(p)})
            return sum(jnp.sum(law.prob(x) * cost(x)) for x in (jnp.full(law.batch_shape, k) for k in law.support()))

        assert_unbiased(draws, jax.grad(expected)(p))
