"""Probabilities and log densities of values, by any distribution."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad._arguments import describe
from mcgrad.distributions.derivatives.pathwise_check import name_of
from mcgrad.distributions.half_precision import widened


def probability(dist: Any, x: Any) -> Array:
    """Probability of a value, by the distribution's own `prob` if it has one."""
    own = getattr(widened(dist), "prob", None)
    return own(x) if callable(own) else jnp.exp(log_density(dist, x))


def log_density(dist: Any, x: Any) -> Array:
    """Log density of a value; refuses a `log_prob` that returns none, or not one for each entry."""
    dist = widened(dist)
    value = dist.log_prob(x)
    law = name_of(dist)
    if not isinstance(value, (int, float)) and not hasattr(value, "dtype"):
        raise TypeError(
            f"The `log_prob` of {law} must return the log density, an array, got {describe(value)}. Look for a missing "
            "`return`."
        )
    batch = tuple(dist.batch_shape)
    if np.shape(value) != batch:
        raise ValueError(
            f"The `log_prob` of {law} must return one log density for each entry, of the `batch_shape` {batch}, got shape "
            f"{np.shape(value)}. Sum over event axes only."
        )
    return value
