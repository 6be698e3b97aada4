"""mcgrad's programs, each next to the surrogate that one writes for it by hand in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import mcgrad
from benchmarks.peers.jax_case import jax_case
from benchmarks.worker import Case

stop = jax.lax.stop_gradient


def unit(log_weight: jax.Array) -> jax.Array:
    """The weight of a surrogate written by hand."""
    return jnp.exp(log_weight - stop(log_weight))


def case_by_hand(surrogate: Callable[..., jax.Array], params: Any, value: bool = True, **options: Any) -> Case:
    if value:
        return jax_case(jax.value_and_grad(surrogate), params, **options)
    return jax_case(lambda params, key: (None, jax.grad(surrogate)(params, key)), params, **options)


# ---------------------------------------------------------------- a policy that pushes a position, in a scan

NUM_ENVS = 64


def _policy() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)
    return {"in": jax.random.normal(keys[0], (32,)), "bias": jnp.zeros(32), "out": jax.random.normal(keys[1], (32,))}


def _reward(position: jax.Array) -> jax.Array:
    return -((position - 0.5) ** 2)


def _move(position: jax.Array, action: jax.Array) -> jax.Array:
    return 0.8 * position + 0.7 * (2 * action - 1)


def _logits(policy: Any, position: jax.Array) -> jax.Array:
    """A small network, so that a step is more than a few numbers."""
    return jnp.tanh(position[:, None] * policy["in"] + policy["bias"]) @ policy["out"]


def rollout(num_steps: int) -> Case:
    def program(policy: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            position, total = carry
            action = mcgrad.sample(key, mcgrad.Bernoulli(logits=_logits(policy, position)))
            position = _move(position, action)
            return (position, total + jnp.mean(_reward(position))), None

        return jax.lax.scan(step, (jnp.zeros(NUM_ENVS), 0.0), jax.random.split(key, num_steps))[0][1]

    return jax_case(mcgrad.value_and_grad(program, estimator=mcgrad.Score()), _policy())


def rollout_by_hand(num_steps: int) -> Case:
    """Each reward times the weight of its environment's actions so far."""

    def surrogate(policy: Any, key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            position, log_weight = carry
            logits = _logits(policy, position)
            action = mcgrad.Bernoulli(logits=stop(logits)).sample(key)
            log_weight = log_weight + mcgrad.Bernoulli(logits=logits).log_prob(action)
            position = _move(position, action)
            return (position, log_weight), _reward(position) * unit(log_weight)

        start = (jnp.zeros(NUM_ENVS), jnp.zeros(NUM_ENVS))
        return jnp.sum(jnp.mean(jax.lax.scan(step, start, jax.random.split(key, num_steps))[1], axis=1))

    return case_by_hand(surrogate, _policy())


# ---------------------------------------------------------------- logistic regression, 1000 Gaussian weights

ROWS, WEIGHTS = 200, 1000


def _negative_elbo(rows: jax.Array, params: Any, z: jax.Array) -> jax.Array:
    return jnp.sum(jax.nn.softplus(-rows @ z)) + 0.5 * jnp.sum(z**2) - jnp.sum(params["log_scale"])


def _regression() -> tuple[jax.Array, dict[str, jax.Array]]:
    rows = jax.random.normal(jax.random.key(0), (ROWS, WEIGHTS))
    return rows, {"loc": jnp.zeros(WEIGHTS), "log_scale": jnp.full(WEIGHTS, -1.0)}


def regression() -> Case:
    rows, start = _regression()

    def program(params: Any, key: jax.Array) -> jax.Array:
        z = mcgrad.sample(key, mcgrad.Normal(params["loc"], jnp.exp(params["log_scale"])))
        return _negative_elbo(rows, params, z)

    return jax_case(mcgrad.value_and_grad(program, estimator=mcgrad.Pathwise()), start)


def regression_by_hand() -> Case:
    rows, start = _regression()

    def surrogate(params: Any, key: jax.Array) -> jax.Array:
        z = params["loc"] + jnp.exp(params["log_scale"]) * jax.random.normal(key, (WEIGHTS,))
        return _negative_elbo(rows, params, z)

    return case_by_hand(surrogate, start)


# ---------------------------------------------------------------- the survey's toy, 1000 normals beside each other

NORMALS, TARGET = 1000, 3.0


def _toy_cost(x: jax.Array) -> jax.Array:
    return jnp.exp(-0.1 * (x - TARGET) ** 2)


def survey_toy(estimator: str) -> Case:
    """`N(loc, scale)`, a cost of each draw; the measure-valued one with the survey's decomposition."""
    chosen = {"score": mcgrad.Score(), "measure-valued": mcgrad.MeasureValued("size_bias")}[estimator]

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(_toy_cost(mcgrad.sample(key, mcgrad.Normal(params[0], params[1]))))

    return jax_case(mcgrad.value_and_grad(program, estimator=chosen), jnp.ones((2, NORMALS)))


def survey_toy_by_hand(estimator: str) -> Case:
    def score(params: jax.Array, key: jax.Array) -> jax.Array:
        loc, scale = params
        x = stop(loc + scale * jax.random.normal(key, (NORMALS,)))
        log_prob = -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale)
        return jnp.sum(_toy_cost(x) * unit(log_prob))

    def measure_valued(params: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        loc, scale = params
        key_draw, key_loc, key_scale = jax.random.split(key, 3)
        z = jax.random.normal(key_draw, (NORMALS,))
        x = loc + scale * z
        away = jnp.sqrt(2 * jax.random.exponential(key_loc, (NORMALS,)))  # Weibull: both parts of the location
        in_loc = (_toy_cost(loc + scale * away) - _toy_cost(loc - scale * away)) / (scale * jnp.sqrt(2 * jnp.pi))
        maxwell = jnp.sign(z) * jnp.sqrt(z**2 + 2 * jax.random.exponential(key_scale, (NORMALS,)))
        value = _toy_cost(x)
        in_scale = (_toy_cost(loc + scale * maxwell) - value) / scale
        return jnp.sum(value), jnp.stack([in_loc, in_scale])

    if estimator == "score":
        return case_by_hand(score, jnp.ones((2, NORMALS)))
    return jax_case(measure_valued, jnp.ones((2, NORMALS)))


EXAMPLES, LATENTS = 64, 20


def latents(vmapped: bool) -> Case:
    """The gradient of the mean cost of a batch of examples, in one program; or `vmapped`, of that of one example, for each."""
    keys = jax.random.split(jax.random.key(3), 3)
    inner, outer = jax.random.normal(keys[0], (LATENTS, 100)), jax.random.normal(keys[1], (100,))

    def cost(loc: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.tanh(mcgrad.sample(key, mcgrad.Normal(loc, 0.5 * jnp.exp(loc))) @ inner) @ outer

    def estimate(fn: Callable[..., jax.Array]) -> Callable[..., Any]:
        return mcgrad.value_and_grad(fn, estimator=mcgrad.MeasureValued())

    def one_by_one(loc: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.vmap(estimate(cost))(loc, jax.random.split(key, EXAMPLES))
        return jnp.mean(value), gradient / EXAMPLES

    together = estimate(lambda loc, key: jnp.mean(cost(loc, key)))
    return jax_case(one_by_one if vmapped else together, 0.1 * jax.random.normal(keys[2], (EXAMPLES, LATENTS)))


# ---------------------------------------------------------------- credit: 16 examples, 8 latents each


def credit(spelling: str) -> Case:
    """The loss of the README: "reinforce", "by hand", "program" or "vmap" (over the examples, inside the program)."""
    w = jax.random.normal(jax.random.key(5), (8, 5))
    y = jax.random.normal(jax.random.key(6), (16, 5))

    def costs(theta: jax.Array, b: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sum((jnp.tanh(b @ w) - y) ** 2, axis=-1), b * theta - jax.nn.softplus(theta)

    def program(theta: jax.Array, key: jax.Array) -> jax.Array:
        fit, kl = costs(theta, mcgrad.sample(key, mcgrad.Bernoulli(logits=theta)), y)
        return jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl, axis=-1))

    def one_by_one(theta: jax.Array, key: jax.Array) -> jax.Array:
        def one(theta: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
            fit, kl = costs(theta, mcgrad.sample(key, mcgrad.Bernoulli(logits=theta)), y)
            return fit + 0.1 * jnp.sum(kl)

        return jnp.mean(jax.vmap(one)(theta, y, jax.random.split(key, 16)))

    def by_hand(theta: jax.Array, key: jax.Array) -> jax.Array:
        law = mcgrad.Bernoulli(logits=theta)
        b = mcgrad.Bernoulli(logits=stop(theta)).sample(key)
        fit, kl = costs(theta, b, y)
        log_weight = law.log_prob(b)
        fit = fit * unit(jnp.sum(log_weight, axis=-1))
        return jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl * unit(log_weight), axis=-1))

    def reinforce(theta: jax.Array, key: jax.Array) -> jax.Array:
        b = mcgrad.Bernoulli(logits=stop(theta)).sample(key)
        fit, kl = costs(theta, b, y)
        loss = jnp.mean(fit) + 0.1 * jnp.mean(jnp.sum(kl, axis=-1))
        return loss * unit(jnp.sum(mcgrad.Bernoulli(logits=theta).log_prob(b)))

    theta = jax.random.normal(jax.random.key(1), (16, 8))
    if spelling in ("program", "vmap"):
        chosen = {"program": program, "vmap": one_by_one}[spelling]
        return jax_case(mcgrad.value_and_grad(chosen, estimator=mcgrad.Score()), theta)
    return case_by_hand({"by hand": by_hand, "reinforce": reinforce}[spelling], theta)


BUILDERS = {
    fn.__name__: fn
    for fn in (
        rollout,
        rollout_by_hand,
        regression,
        regression_by_hand,
        survey_toy,
        survey_toy_by_hand,
        latents,
        credit,
    )
}
