"""A published figure beside ours, and what all tables of them need."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

NUM_GROUPS = 10  # of draws, from whose spread the error of a variance is known
STANDARD_ERRORS = 4.0


class Figure(NamedTuple):
    """A published figure, ours, and what is claimed of the two.

    Attributes:
        what: the figure in words.
        ours: ours; `error` is its standard error.
        published: the published one, or `None` where no number is printed.
        claim: "same", or the figure is to be "at most" or "at least" the published one; empty where it is only shown.
        slack: how far the published one may be off: its rounding, its own error, or how well a plot is read.
    """

    what: str
    ours: float
    error: float = 0.0
    published: float | None = None
    claim: str = ""
    slack: float = 0.0

    @property
    def met(self) -> bool | None:
        """Whether the claim holds; `None` for a figure that is only shown."""
        if not self.claim or self.published is None:
            return None
        allowed, over = self.slack + STANDARD_ERRORS * self.error, self.ours - self.published
        return {"same": abs(over), "at most": over, "at least": -over}[self.claim] <= allowed

    @property
    def verdict(self) -> str:
        if self.met is None:
            return "ours only" if self.published is None else "shown"
        return {"same": "reproduced"}.get(self.claim, "reached or beaten") if self.met else "**not reached**"


@functools.partial(jax.jit, static_argnames=("estimate", "batch"))
def _run(estimate: Callable[..., Any], keys: jax.Array, arguments: Any, batch: int) -> jax.Array:
    return jax.lax.map(lambda key: ravel_pytree(estimate(key, *arguments))[0], keys, batch_size=batch)


def gradients(
    estimate: Callable[..., Any], count: int, *arguments: Any, seed: int = 0, batch: int = 1000
) -> np.ndarray:
    """`[count, d]`: `estimate(key, *arguments)` of as many keys, flat, in one run; compiled once for a function and shapes."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(_run(estimate, keys, arguments, min(batch, count)), np.float64)


def variance(rows: np.ndarray) -> tuple[float, float]:
    """The total variance of rows, and its standard error."""
    groups = [group.var(axis=0, ddof=1).sum() for group in np.array_split(rows, NUM_GROUPS)]
    return float(rows.var(axis=0, ddof=1).sum()), float(np.std(groups, ddof=1) / np.sqrt(NUM_GROUPS))


def mean(rows: np.ndarray) -> tuple[float, float]:
    """The mean of a column, and its standard error."""
    return float(rows.mean()), float(rows.std(ddof=1) / np.sqrt(len(rows)))
