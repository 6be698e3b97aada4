"""Couplings of a continuous draw on two paths: by which paths that once differ meet, and then stay together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.half_precision import in_single, widened
from mcgrad.distributions.numerics.arithmetic import open_uniform
from mcgrad.program.density import log_density


def reflection(key: PRNGKey, dist: Any, real: Any, x: Array) -> Array:
    """A draw of `dist`, given a draw `x` of `real`: the maximal coupling by reflection of normal distributions.

    With the noise `z` of `x` and the noise `v` that would give `x` on this path, both have `x` where `u <= p(v) / p(z)`, with
    the standard normal density `p` of all entries together; else `z` is reflected at the plane between the two. Where the two
    differ in scale both have the noise `z`.

    References:
        Bou-Rabee, Eberle and Zimmer 2020, section 2.3.1, https://arxiv.org/abs/1805.00452; Jacob, O'Leary and Atchade 2020,
        section 4.1, https://arxiv.org/abs/1708.03625.
    """
    wide, wide_real = widened(dist), widened(real)
    z, v = wide_real.noise_of(in_single(x)), wide.noise_of(in_single(x))
    apart = v - z
    far = jnp.sum(apart**2)
    along = jnp.sum(apart * z)
    same_scale = jnp.asarray(True)
    for name in set(dist.domains) - {"loc"}:
        for a, b in zip(*(jax.tree.leaves(getattr(d, name)) for d in (dist, real)), strict=True):
            same_scale &= jnp.all(a == b)
    meets = same_scale & (_log_uniform(key, z.dtype) <= -(along + far / 2))
    mirrored = z - 2 * apart * (along / jnp.where(far > 0, far, 1))
    other = wide.of_noise(jnp.where(same_scale, mirrored, z)).astype(x.dtype)
    return jnp.where(meets, x, other)


def maximal(key: PRNGKey, dist: Any, real: Any, x: Array) -> Array:
    """A draw of `dist`, given a draw `x` of `real`: the maximal coupling by rejection, for all entries together.

    Both have `x` where `u <= q(x) / p(x)`; else draws `y` of `dist` are made until `u > p(y) / q(y)`. How often has a geometric
    distribution, of which a part below the rounding of the densities is cut off.

    References:
        Jacob, O'Leary and Atchade 2020, algorithm 2, https://arxiv.org/abs/1708.03625.
    """
    key_x, key_y = jax.random.split(key)

    def log_ratio(x: Array) -> Float[Array, ""]:
        return jnp.sum(log_density(dist, x)) - jnp.sum(log_density(real, x))

    dtype = log_ratio(x).dtype
    most = int(min(1 / jnp.finfo(dtype).eps, jnp.iinfo(jnp.int32).max))

    def missing(state: tuple[Array, Bool[Array, ""], Array]) -> Bool[Array, ""]:
        _, found, tries = state
        return ~found & (tries < most)

    def again(state: tuple[Array, Bool[Array, ""], Array]) -> tuple[Array, Bool[Array, ""], Array]:
        _, _, tries = state
        key_draw, key_u = jax.random.split(jax.random.fold_in(jax.random.clone(key_y), tries))
        y = dist.sample(key_draw)
        return y, _log_uniform(key_u, dtype) > -log_ratio(y), tries + 1

    meets = _log_uniform(key_x, dtype) <= log_ratio(x)
    return jax.lax.while_loop(missing, again, (x, meets, jnp.zeros((), jnp.int32)))[0]


def _log_uniform(key: PRNGKey, dtype: Any) -> Float[Array, ""]:
    return jnp.log(open_uniform(key, (), dtype))
