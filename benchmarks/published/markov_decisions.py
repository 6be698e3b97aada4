"""Derivatives of three orders of a policy's value: the demonstration of Farquhar et al. 2019 (LOADED-DiCE)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.published.figures import Figure, gradients
from benchmarks.runner import Session

TITLE = "Farquhar et al. 2019 (LOADED-DiCE)"
SET_UP = (
    "A random decision process of 5 states and 4 actions, discount 0.95, 50 steps and the exact value V after them, 4,096 "
    "episodes; correlation with the exact derivative of order 1, of its first entry's (order 2) and of that one's (order 3), mean "
    "over 5 batches. Their process is that of a seed of another library (read off its plot), ours another: figures compare only "
    "roughly. Temporal differences are costs looked up by the state before and after, with the plain score: no baseline."
)
STATES, ACTIONS, DISCOUNT, STEPS, EPISODES, BATCHES = 5, 4, 0.95, 50, 4096, 5
SPELLINGS: dict[str, tuple[float, ...] | None] = {
    "rewards, score (theirs: DiCE)": (0.68, -0.04, -0.10),
    "rewards, with V as baseline": None,
    "temporal differences, score (theirs: Mao et al.)": (1.0, 0.91, 0.62),
}
LOADED = (1.0, 0.99, 0.87)


def process() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Transitions `[A, S, S]`, rewards `[S]` and logits `[A, S]`."""
    rng = np.random.default_rng(0)
    transitions = rng.random((ACTIONS, STATES, STATES))
    transitions /= transitions.sum(-1, keepdims=True)
    rewards, logits = 10 * (rng.normal(size=STATES) + 5), rng.normal(size=(ACTIONS, STATES))
    return tuple(jnp.asarray(x, jnp.float32) for x in (transitions, rewards, logits))


TRANSITIONS, REWARDS, LOGITS = process()


def values(logits: jax.Array) -> jax.Array:
    """Of each state."""
    move = jnp.einsum("as,ast->st", jax.nn.softmax(logits, axis=0), TRANSITIONS)
    return jnp.linalg.solve(jnp.eye(STATES) - DISCOUNT * move, REWARDS)


def episode(logits: jax.Array, key: jax.Array, spelling: str) -> jax.Array:
    """The discounted return; by temporal differences it is the same sum, less the value of the first state."""
    key_start, key_steps = jax.random.split(key)
    known = jax.lax.stop_gradient(values(LOGITS))
    differences = REWARDS[:, None] + DISCOUNT * known - known[:, None]

    def step(state: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        key, discount = xs
        key_action, key_move = jax.random.split(key)
        to_come = discount * (known[state] - REWARDS[state])
        estimator = mcgrad.Score(baseline=to_come if "baseline" in spelling else None)
        action = mcgrad.sample(key_action, mcgrad.Categorical(logits=logits[:, state]), estimator)
        after = jax.random.categorical(key_move, jnp.log(TRANSITIONS[action, state]))
        if spelling.startswith("rewards"):
            return after, discount * REWARDS[state]
        return after, discount * differences[state, after]  # one number: as a sum, each term would have its own credit

    start = jax.random.randint(key_start, (), 0, STATES)
    discounts = DISCOUNT ** jnp.arange(STEPS)
    last, costs = jax.lax.scan(step, start, (jax.random.split(key_steps, STEPS), discounts))
    return jnp.sum(costs) + (DISCOUNT**STEPS * known[last] if spelling.startswith("rewards") else known[start])


def three_orders(gradient: Callable[[jax.Array], jax.Array], logits: jax.Array) -> tuple[jax.Array, ...]:
    """The gradient, and its derivatives in the first logit."""
    first = jnp.zeros_like(logits).at[0, 0].set(1.0)
    second = lambda x: jax.jvp(gradient, (x,), (first,))[1]  # noqa: E731
    return gradient(logits), second(logits), jax.jvp(second, (logits,), (first,))[1]


def measure(session: Session) -> list[Figure]:
    exact = [np.ravel(x) for x in three_orders(jax.grad(lambda logits: jnp.mean(values(logits))), LOGITS)]
    figures = []
    for spelling, published in SPELLINGS.items():
        one = functools.partial(episode, spelling=spelling)

        def estimate(key: jax.Array, one: Any = one) -> Any:
            return three_orders(lambda logits: mcgrad.grad(one)(logits, key), LOGITS)

        count = session.draws(EPISODES)
        rows = gradients(estimate, BATCHES * count, batch=512).reshape(BATCHES, count, 3, -1).mean(1)
        for order in range(3):
            found = [np.corrcoef(batch[order], exact[order])[0, 1] for batch in rows]
            ours = float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(BATCHES))
            # the process is another, so that only the estimator which is good on any is held to a figure
            claim = {"claim": "at least", "slack": 0.02} if spelling.startswith("temporal") else {}
            told = None if published is None else published[order]
            figures.append(Figure(f"{spelling}, order {order + 1}", *ours, told, **claim))
            if claim:
                figures.append(Figure(f"the same beside LOADED-DiCE, order {order + 1}", *ours, LOADED[order]))
    return figures
