"""What estimators for distributions of finite support share: the values of a draw, and what refusals say."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mcgrad.program.draw import Draw
from mcgrad.program.site import Site


def each_value(draw: Draw, fn: Callable[[Array], Array]) -> Array:
    """`fn` of a value of the draw's shape, at every value of the support; `[*plates, n]` for one of shape `plates`."""
    support = jnp.asarray(draw.facts.support)  # [n, *event]
    rows = jnp.expand_dims(support, tuple(range(1, 1 + draw.num_plates)))
    points = jnp.broadcast_to(rows, (len(support), *draw.plates, *support.shape[1:]))
    return jnp.moveaxis(jax.vmap(fn)(points), 0, -1)


def values_at(draw: Draw, positions: Int[Array, "*shape"]) -> Array:
    """The values at positions in the support, `[*shape, *event]`."""
    return jnp.asarray(draw.facts.support)[positions]


def why_no_values(site: Site) -> str | None:
    """Why estimators that go through the values of a draw would be wrong at a site, or `None`."""
    return None if site.facts.support is not None else "the distribution has no finite support that is known beforehand"
