"""The score of a linear Gaussian model by a particle filter: the tutorial of Arya et al. 2022 (StochasticAD)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Arya et al. 2022 (StochasticAD), particle filter"
SET_UP = (
    "A state turned by a 2 x 2 matrix θ, noise 0.02 I, observed with noise 0.01 I, 1,000 particles resampled "
    "systematically at each step; the gradient in θ of the log likelihood. Theirs are histograms and curves without "
    "numbers, on data of a seed of Julia: the claims are that differentiating the resampling agrees with the Kalman "
    "filter's exact gradient and leaving it out does not, and that the latter has less variance. Ours: norm of the mean's "
    "distance from the exact gradient over that gradient's norm, and the total variance by steps."
)
STEPS, NUM_PARTICLES, NUM_GRADIENTS = (5, 20), 1000, 400
TURN, START = 0.3, jnp.array([1.0, -0.5])
STATE_NOISE, NOISE, START_NOISE = 0.02, 0.01, 0.001
THETA = jnp.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]], jnp.float32)


def observations(num_steps: int, key: jax.Array) -> jax.Array:
    key_start, *keys = jax.random.split(key, 1 + 2 * num_steps)
    x, found = START + jnp.sqrt(START_NOISE) * jax.random.normal(key_start, (2,)), []
    for i in range(num_steps):
        found.append(x + jnp.sqrt(NOISE) * jax.random.normal(keys[2 * i], (2,)))
        x = THETA @ x + jnp.sqrt(STATE_NOISE) * jax.random.normal(keys[2 * i + 1], (2,))
    return jnp.stack(found)


def exact(theta: jax.Array, y: jax.Array) -> jax.Array:
    """The log likelihood, by the Kalman filter."""

    def step(carry: tuple[jax.Array, jax.Array], y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        mean, cov = carry
        innovation = cov + NOISE * jnp.eye(2)
        log_density = jax.scipy.stats.multivariate_normal.logpdf(y, mean, innovation)
        gain = cov @ jnp.linalg.inv(innovation)
        mean, cov = mean + gain @ (y - mean), cov - gain @ cov
        return (theta @ mean, theta @ cov @ theta.T + STATE_NOISE * jnp.eye(2)), log_density

    return jnp.sum(jax.lax.scan(step, (START, START_NOISE * jnp.eye(2)), y)[1])


def filtered(theta: jax.Array, y: jax.Array, key: jax.Array, gradient: str) -> jax.Array:
    model = mcgrad.smc.Model(
        mcgrad.Independent(mcgrad.Normal(START, jnp.full(2, jnp.sqrt(START_NOISE))), 1),
        lambda x: mcgrad.Independent(mcgrad.Normal(x @ theta.T, jnp.full(x.shape, jnp.sqrt(STATE_NOISE))), 1),
        lambda x, y: jnp.sum(mcgrad.Normal(x, jnp.sqrt(NOISE)).log_prob(y), -1),
    )
    return mcgrad.smc.bootstrap_filter(model, y, key, num_particles=NUM_PARTICLES, gradient=gradient).log_likelihood


def measure(session: Session) -> list[Figure]:
    figures = []
    for num_steps in STEPS:
        y = observations(num_steps, jax.random.key(5))
        wanted = np.asarray(jax.grad(exact)(THETA, y)).ravel()
        variances, size = {}, np.linalg.norm(wanted)
        for name, gradient in (("differentiated", "stop_gradient"), ("left out", "ignore")):
            count = session.draws(NUM_GRADIENTS)
            rows = gradients(
                lambda key, gradient=gradient, y=y: mcgrad.grad(filtered)(THETA, y, key, gradient), count, batch=20
            )
            variances[name] = float(rows.var(axis=0, ddof=1).sum())
            off, error = np.linalg.norm(rows.mean(0) - wanted) / size, np.sqrt(variances[name] / count) / size
            # the logarithm of an unbiased likelihood has a bias of the order of one over the particles
            claim = {"published": 0.0, "claim": "same", "slack": 0.02} if name == "differentiated" else {}
            figures.append(
                Figure(f"{num_steps} steps, resampling {name}: distance from exact", float(off), float(error), **claim)
            )
        figures += [
            Figure(f"{num_steps} steps, resampling {name}: variance", found) for name, found in variances.items()
        ]
        over = variances["left out"] / variances["differentiated"]
        figures.append(Figure(f"{num_steps} steps, variance left out / differentiated", over, 0.0, 1.0, "at most"))
    return figures
