"""Integrals of the normal density. JAX 0.12 cannot differentiate them where values differ from device to device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import special

from mcgrad import _mesh


def _with_slope(fn: Callable[[Any], jax.Array], slope: Callable[[Any, Any], jax.Array]) -> Callable[[Any], jax.Array]:
    """The function, with a derivative in elementary functions where types tell what differs."""

    @jax.custom_jvp
    def on_mesh(x: Any) -> jax.Array:
        return fn(x)

    @on_mesh.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        y = on_mesh(*primals)
        return y, tangents[0] * slope(*primals, y)

    return lambda x: on_mesh(x) if _mesh.varying_axes(jax.typeof(x)) else fn(x)


ndtr = _with_slope(special.ndtr, lambda x, _: jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi))
erf = _with_slope(special.erf, lambda x, _: jnp.exp(-x * x) * (2 / math.sqrt(math.pi)))
erfc = _with_slope(special.erfc, lambda x, _: jnp.exp(-x * x) * (-2 / math.sqrt(math.pi)))
ndtri = _with_slope(special.ndtri, lambda _, y: jnp.exp(y * y / 2) * math.sqrt(2 * math.pi))
