"""NumPyro: its distributions in a program, with the keys that it hands out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad

dist = pytest.importorskip("numpyro.distributions")

LOGITS = jnp.asarray([0.3, -0.2, 0.5], jnp.float32)
WEIGHTS = jnp.asarray([1.0, -2.0, 0.7], jnp.float32)
KINDS = {
    "bernoulli": (lambda t: dist.Bernoulli(logits=t), jax.nn.sigmoid),
    "categorical": (
        lambda t: dist.Categorical(logits=jnp.stack([0 * t, t, -t], axis=-1)),
        lambda t: jax.nn.softmax(jnp.stack([0 * t, t, -t], axis=-1))[..., 1:] @ jnp.asarray([1.0, 2.0]),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to_event", [0, 1])
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_discrete_events_take_the_estimators_of_single_draws(kind, to_event, make_key):
    """`E[sum_i w_i x_i]` by its means, without noise by enumeration, entry by entry."""
    make, mean = KINDS[kind]

    def loss(t, key, estimator):
        x = mcgrad.sample(key, make(t).to_event(to_event), estimator)
        assert x.shape == (3,)
        return jnp.sum(WEIGHTS * x)

    exact = jax.grad(lambda t: WEIGHTS @ mean(t))(LOGITS)
    for estimator in (mcgrad.Enumerate(), mcgrad.LocalExpectation()):
        found = mcgrad.grad(lambda t, key, e=estimator: loss(t, key, e))(LOGITS, make_key(0))
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    noisy = [mcgrad.RELAX(lambda z: jnp.zeros(z.shape[:1])), mcgrad.Score()]
    if kind == "bernoulli":
        noisy.append(mcgrad.DisARM())
    for estimator in noisy:
        program = lambda t, key, e=estimator: loss(t, key, e)  # noqa: E731
        found = mcgrad.gradient_statistics(program, 40_000)(LOGITS, make_key(1))
        assert 5 * found.standard_error.max() < 0.1 * jnp.linalg.norm(exact)
        assert (jnp.abs(found.mean - exact) < 5 * found.standard_error + 1e-6).all()


def test_events_of_one_draw_are_credited_entry_by_entry():
    def loss(t, key):
        return jnp.sum(WEIGHTS * mcgrad.sample(key, dist.Bernoulli(logits=t).to_event(1), mcgrad.Score(baseline=None)))

    assert mcgrad.explain(loss)(LOGITS, jax.random.key(0)).costs[0].credits[0].axes == ("same",)
    with pytest.raises(ValueError, match="baseline"):
        wrong = mcgrad.Score(baseline=jnp.zeros(2))
        mcgrad.grad(lambda t, key: jnp.sum(mcgrad.sample(key, dist.Normal(t, 1.0).to_event(1), wrong)))(
            LOGITS, jax.random.key(0)
        )


def test_numbers_of_python_are_parameters():
    for law, exact in ((lambda t: dist.Normal(t, 1.0), 1.4), (lambda t: dist.Normal(0.0, t), 1.4)):
        loss = lambda t, key, law=law: mcgrad.sample(key, law(t), mcgrad.Score()) ** 2  # noqa: E731
        found = mcgrad.gradient_statistics(loss, 20_000)(0.7, jax.random.PRNGKey(0))
        assert abs(found.mean - exact) < 5 * found.standard_error < 0.2
