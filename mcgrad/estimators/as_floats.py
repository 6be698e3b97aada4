"""Draws as floats, for estimators that differentiate costs in draws of few values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mcgrad.program import Site
from mcgrad.program.draw import placeholder


def why_no_derivative(site: Site) -> str | None:
    """Why costs have no derivative in a draw: it is of integers."""
    (draw,) = jax.tree.leaves(placeholder(site))
    if not jnp.issubdtype(draw.dtype, jnp.floating):
        return (
            f"its draws are {draw.dtype}, which have no derivative. Draw floats, "
            "`mcgrad.Bernoulli(..., dtype=jnp.float32)` or `mcgrad.OneHotCategorical(..., dtype=jnp.float32)`, or name the "
            "estimator at the draw of one of these"
        )
    return None


def in_floats(dist: Any) -> Any:
    """The distribution with draws of floats, if it can have them."""
    of_floats = getattr(dist, "in_floats", None)
    return dist if of_floats is None else of_floats()
