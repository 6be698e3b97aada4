"""What estimators for distributions of finite support share."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad.program import Draw, Estimator, Rest, Result, Site


class FiniteSupportEstimator(Estimator):
    """Base of estimators that go through the values of a draw."""

    def why_not(self, site: Site) -> str | None:
        known = site.facts.support is not None
        return None if known else "the distribution has no finite support that is known beforehand"

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        return rest.evaluate(draw, draw.represented(self.represent))


def each_value(draw: Draw, fn: Callable[[Array], Array]) -> Array:
    """`fn` of a value of the draw's shape, at every value of the support; `[*plates, n]` for one of shape `plates`."""
    support = jnp.asarray(draw.facts.support)  # [n, *event]
    rows = jnp.expand_dims(support, tuple(range(1, 1 + draw.num_plates)))
    points = jnp.broadcast_to(rows, (len(support), *draw.plates, *support.shape[1:]))
    return jnp.moveaxis(jax.vmap(fn)(points), 0, -1)


def position(draw: Draw, x: Array) -> Array:
    """Where in the support a value of the draw is; of shape `plates`."""
    support = jnp.asarray(draw.facts.support)  # [n, *event]
    same = support.reshape(len(support), *[1] * draw.num_plates, *support.shape[1:]) == x[None]
    return jnp.argmax(jnp.all(same, axis=range(1 + draw.num_plates, same.ndim)), axis=0)


def possible(draw: Draw, points: Array, p: Array, instead: Array) -> Array:
    """Points `[n, *site shape]` of probabilities `p`, without those that log odds exclude for good, whose costs may be infinite."""
    excluded = jnp.expand_dims(p == 0, tuple(range(p.ndim, points.ndim)))
    return jnp.where(excluded, instead, points) if draw.by_log_odds else points
