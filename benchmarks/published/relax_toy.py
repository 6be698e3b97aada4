"""One bit near the tie: the toy of Tucker et al. 2017 and Grathwohl et al. 2018, with the baseline that decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Grathwohl et al. 2018, the toy of RELAX"
SET_UP = (
    "One bit, cost (b - 0.499)², logarithm of the variance of the derivative in the logit. At p = 0.5: the score, REBAR "
    "with η = 1 at four temperatures λ (exact to two digits by 400,000 draws of the paper's formula), and the score with "
    "the constant baseline E[f], which has no variance at all there: RELAX's gain on this toy is a baseline's. Then 10,000 "
    "steps of Adam at 0.01, one gradient each, the control variate trained beside the logit: where their curves are by "
    "then (read off their figure). Theirs of REBAR has no claim: at p = 0.5 the best η is 0, so that it falls below the "
    "score only as far as its logit happens to walk away."
)
T, STEPS, NUM_GRADIENTS = 0.499, 10_000, 400_000
Control = Callable[[Any, jax.Array], jax.Array]


def cost(b: jax.Array) -> jax.Array:
    return (b - T) ** 2


def rebar(phi: Any, z: jax.Array) -> jax.Array:
    """`eta` times the cost at the relaxed bit."""
    return phi["eta"] * cost(jax.nn.sigmoid(z / jnp.exp(phi["log_temperature"])))


def relax(phi: Any, z: jax.Array) -> jax.Array:
    """REBAR's, and a network of ten units."""
    return rebar(phi, z) + jnp.tanh(z * phi["in"] + phi["bias"]) @ phi["out"]


def start(temperature: float) -> Any:
    key_in, key_out = jax.random.split(jax.random.key(0))
    network = {
        "in": jax.random.normal(key_in, (10,)),
        "bias": jnp.zeros(10),
        "out": 0.1 * jax.random.normal(key_out, (10,)),
    }
    return {"eta": jnp.ones(()), "log_temperature": jnp.log(temperature), **network}


def loss(logit: jax.Array, phi: Any, key: jax.Array, control: Control | None) -> jax.Array:
    estimator = mcgrad.Score() if control is None else mcgrad.RELAX(lambda z: control(phi, z))
    return cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), estimator))


def log_variance(logit: jax.Array, phi: Any, control: Control | None, count: int) -> tuple[float, float]:
    rows = gradients(lambda key: mcgrad.grad(loss)(logit, phi, key, control), count)[:, 0]
    fourth = np.mean((rows - rows.mean()) ** 4) / rows.var() ** 2
    return float(np.log(rows.var())), float(np.sqrt(max(fourth - 1, 0) / count))


def trained(control: Control | None) -> tuple[jax.Array, Any]:
    """Logit and control variate after training both, the second to lower the square of the gradient."""
    optimizer = optax.adam(0.01)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = carry

        def square(phi: Any) -> tuple[jax.Array, jax.Array]:
            gradient = mcgrad.grad(loss)(params[0], phi, key, control)
            return gradient**2, gradient

        towards, gradient = jax.grad(square, has_aux=True)(params[1])
        updates, state = optimizer.update((gradient, towards), state)
        return (optax.apply_updates(params, updates), state), None

    params = (jnp.zeros(()), start(0.5))
    return jax.jit(lambda keys: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0])(
        jax.random.split(jax.random.key(2), STEPS)
    )


def baseline_variance(count: int) -> float:
    def with_baseline(logit: jax.Array, key: jax.Array) -> jax.Array:
        expected = jax.nn.sigmoid(logit) * (1 - T) ** 2 + jax.nn.sigmoid(-logit) * T**2
        return cost(
            mcgrad.sample(key, mcgrad.Bernoulli(logits=logit), mcgrad.Score(baseline=jax.lax.stop_gradient(expected)))
        )

    return float(gradients(lambda key: mcgrad.grad(with_baseline)(jnp.zeros(()), key), count).var())


def measure(session: Session) -> list[Figure]:
    count, zero = session.draws(NUM_GRADIENTS), jnp.zeros(())
    figures = [Figure("score, p = 0.5", *log_variance(zero, start(0.5), None, count), -4.159, "same", 0.05)]
    for temperature, published in ((0.1, -2.48), (0.5, -3.80), (1.0, -4.00), (2.0, -4.10)):
        ours = log_variance(zero, start(temperature), rebar, count)
        figures.append(Figure(f"REBAR, η = 1, λ = {temperature:g}, p = 0.5", *ours, published, "same", 0.05))
    figures.append(
        Figure(
            "score with the baseline E[f], p = 0.5 (the variance itself)",
            baseline_variance(count),
            0.0,
            0.0,
            "same",
            1e-15,
        )
    )
    for name, control, published, claim, slack in (
        ("score", None, -4.2, "same", 0.1),
        ("REBAR", rebar, -4.7, "", 0.0),
        ("RELAX", relax, -9.5, "at most", 0.0),
    ):
        ours = log_variance(*trained(control), control, count)
        figures.append(Figure(f"{name} after 10,000 steps", *ours, published, claim, slack))
    return figures
