"""Values of a draw that cannot come up now, but would if a parameter moved: a check of values as a program runs.

At `Bernoulli(probs=0.0)` the derivative of an expectation is `f(1) - f(0)`, and no draw ever sees `f(1)`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad._debug import check_when_run, checks_are_on
from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator, spelled


def check_possible(draw: Draw, estimator: Estimator) -> None:
    """Refuse, when the program runs under `mcgrad.debug_checks`, a draw with values that its estimator misses."""
    misses = not (estimator.flow or estimator.biased or estimator.sees_the_impossible)
    if checks_are_on() and misses and draw.facts.discrete and "log_prob" in draw.facts.knows:
        check_when_run(functools.partial(_refuse, draw, estimator), *_gains(draw))


def _refuse(draw: Draw, estimator: Estimator, *gains: np.ndarray) -> None:
    if any(np.any(np.abs(gain) > 0) for gain in gains):
        raise FloatingPointError(
            f"`{spelled(estimator)}` would be wrong at {draw.site.describe()}: a value of probability zero gets some as a "
            "parameter moves, and no draw shows what it costs. Use `mcgrad.MeasureValued()`, or `mcgrad.Enumerate()` where the "
            "support is finite; exclude a value for good by log odds, `logits=-jnp.inf`."
        )


def _gains(draw: Draw) -> list[Array]:
    """Derivatives, in the parameters that may move, of what is impossible now; of the draw itself where it is sure."""
    n = len(draw.site.parameters)
    operands = [jax.lax.stop_gradient(x) if _is_number(x) else x for x in draw.operands]
    moving = [i for i in range(n) if i not in draw.constant and _is_number(operands[i])]

    def of_impossible(leaves: list[Any]) -> Array:
        given = dict(zip(moving, leaves, strict=True))
        moved = Draw(draw.site, tuple(given.get(i, x) for i, x in enumerate(operands)), draw.relations)
        support = draw.facts.support
        if support is None:  # a value that is sure: it loses what the others get
            log_p = moved.log_prob(draw.sample())
            return jnp.sum(jnp.where(log_p == 0, log_p, 0))
        points = jnp.asarray(support.reshape(len(support), *[1] * draw.num_plates, *support.shape[1:]))
        points = jnp.broadcast_to(points, (len(support), *draw.plates, *support.shape[1:]))
        p = jax.vmap(moved.prob)(points)
        weights = np.random.default_rng(0).uniform(
            1, 2, (len(support), *[1] * draw.num_plates)
        )  # so that nothing cancels
        return jnp.sum(jnp.where(p == 0, p * weights.astype(p.dtype), 0))

    return jax.grad(of_impossible)([operands[i] for i in moving]) if moving else []


def _is_number(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
