"""Points for the samples of one draw that cover the unit cube better than independent ones, each of them uniform by itself.

All sets are randomized, and each point alone is uniform on `(0, 1)^d`, so that the mean of any function over a set is unbiased.
Within a set the points depend on each other: with `x_i` and `x_j` from one set, `E[s(x_i) f(x_j)]` is not zero, and a baseline made
of the other samples would be biased. Points of different antithetic pairs are independent.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._arguments import check_option
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import HasIcdf, HasNormalNoise, knows
from mcgrad.distributions.wrappers.foreign import ForeignDistribution
from mcgrad.distributions.wrappers.independent import Independent

PointSet: TypeAlias = Literal["independent", "antithetic", "stratified", "lattice", "sobol"]
POINT_SETS = get_args(PointSet)

MOST_POINTS = 2**16
"""Of a lattice: products of two numbers below are exact in 32 bits."""


class Samples(NamedTuple):
    """The samples of the transform that share a set of points.

    Attributes:
        point_set: the kind of the set.
        axes: names of the mapped axes of the samples.
        number: of samples.
    """

    point_set: PointSet
    axes: tuple[str, ...]
    number: int

    @property
    def num_others(self) -> int:
        """How many samples are independent of this one."""
        return self.number - 2 if self.point_set == "antithetic" else 0

    def uniform(self, key: PRNGKey, shape: Shape, dtype: Any) -> Array:
        """The point of this sample, in (0, 1); `key` is a different one for each sample, as the keys of its draw are."""
        index = jax.lax.axis_index(self.axes[0])
        data = jax.random.key_data(key)
        first = _compat.total_over(jnp.where(index == 0, data, jnp.zeros_like(data)), self.axes[0])
        shared = jax.random.fold_in(jax.random.wrap_key_data(first, impl=jax.random.key_impl(key)), _KEY_OF_SET)
        size = int(np.prod(shape))
        u = _MAKERS[self.point_set](shared, index.astype(jnp.uint32), self.number, size, dtype).reshape(shape)
        return jnp.clip(u, jnp.finfo(dtype).tiny, 1 - jnp.finfo(dtype).epsneg)


def total_of_others(x: Array, axes: tuple[str, ...], samples: Samples | None) -> Array:
    """The sum over the samples that are independent of this one: all others, or those of other antithetic pairs."""
    total = _compat.total_over(x, *axes) - x
    if samples is None:
        return total
    assert samples.point_set == "antithetic", samples.point_set
    return total - jax.lax.ppermute(x, axes[0], [(i, i ^ 1) for i in range(samples.number)])


_KEY_OF_SET = 0x5E7
"""Folded into the key of the draw of the first sample."""


def check_points(points: Any, number: int, sharding: Any) -> None:
    """Refuse points of another kind, of too few or too many samples, or over devices."""
    check_option("expectation(points=...)", points, POINT_SETS)
    if points == "independent":
        return
    if sharding is not None:
        raise ValueError(
            f'`mcgrad.expectation(points="{points}")` must come without `sharding`, since each device would have the same '
            "points. Leave one of them out."
        )
    if (reason := why_not_number(points, number)) is not None:
        raise ValueError(f'`mcgrad.expectation(points="{points}")` must {reason}, got {number}. Change `num_samples`.')


def why_not_number(points: str, number: int) -> str | None:
    """What a number of samples (of one chunk) must be, if it is not."""
    if points == "antithetic" and number % 2:
        return "have pairs of samples, an even number (in a chunk)"
    if points == "sobol" and (number < 2 or number & (number - 1)):
        return "have a power of two of samples (in a chunk)"
    if number < 2:
        return "have several samples (in a chunk)"
    return f"have at most {MOST_POINTS} samples in a chunk" if number > MOST_POINTS else None


def can_draw(dist: Any) -> bool:
    """Whether draws can be made of uniform numbers, and move with the parameters as they should.

    Quantile functions of other libraries often have no derivative in a parameter, or a wrong one.
    """
    if isinstance(dist, Independent):
        return can_draw(dist.base)
    if isinstance(dist, ForeignDistribution) and not dist.discrete:
        return False
    single = tuple(dist.event_shape) == ()
    return knows(dist, HasNormalNoise) or (knows(dist, HasIcdf) and single)


def draw_from_uniform(dist: Any, uniform: Any) -> Array:
    """A draw made of uniform numbers in (0, 1); `uniform(shape)` gives them."""
    if isinstance(dist, Independent):
        return draw_from_uniform(dist.base, uniform)
    u = uniform((*dist.batch_shape, *dist.event_shape))
    if knows(dist, HasNormalNoise):
        return dist.of_noise(jax.scipy.special.ndtri(u))
    assert knows(dist, HasIcdf)
    return dist.icdf(u)


def _antithetic(key: PRNGKey, index: Array, number: int, size: int, dtype: Any) -> Array:
    u = jax.random.uniform(jax.random.fold_in(key, index // 2), (size,), dtype)
    return jnp.where(index % 2 == 0, u, 1 - u)


def _stratified(key: PRNGKey, index: Array, number: int, size: int, dtype: Any) -> Array:
    """A Latin hypercube (McKay et al. 1979): along each axis, one point in each of as many equal intervals."""
    key_order, key_inside = jax.random.split(key)
    order = jax.vmap(lambda key: jax.random.permutation(key, number))(jax.random.split(key_order, size))
    inside = jax.random.uniform(jax.random.fold_in(key_inside, index), (size,), dtype)
    return (order[:, index].astype(dtype) + inside) / number


def _lattice(key: PRNGKey, index: Array, number: int, size: int, dtype: Any) -> Array:
    """Shifted rank-one lattices, folded by the baker's transformation (Hickernell 2002), of a few dimensions each.

    The points of each are in another random order (Latin supercube sampling, Owen 1998): few points have no lattice that is good in
    many dimensions, and entries of different lattices are then as if they were independent, but for what is in one entry alone.
    """
    key_order, key_shift = jax.random.split(key)
    blocks = -(-size // BLOCK)
    order = jax.vmap(lambda key: jax.random.permutation(key, number))(jax.random.split(key_order, blocks))
    place = order[:, index].astype(jnp.uint32)
    steps = jnp.outer(place, jnp.asarray(generating_vector(number, BLOCK), jnp.uint32)) % number
    u = steps.ravel()[:size].astype(dtype) / number + jax.random.uniform(key_shift, (size,), dtype)
    return 1 - jnp.abs(2 * (u - jnp.floor(u)) - 1)


def _sobol(key: PRNGKey, index: Array, number: int, size: int, dtype: Any) -> Array:
    """Sobol's sequence with Matousek's random linear scrambling, a digital shift, and a point anywhere in its interval."""
    key_matrix, key_shift, key_inside = jax.random.split(key, 3)
    directions = jnp.asarray(sobol_directions(number, size), jnp.int32)  # [size, bits, bits of the index]
    bits = directions.shape[-1]
    lower = jnp.tril(jax.random.bernoulli(key_matrix, 0.5, (size, bits, bits)).astype(jnp.int32), -1)
    matrix = lower + jnp.eye(bits, dtype=jnp.int32)[None]
    digits = (index.astype(jnp.int32) >> jnp.arange(bits)) & 1
    shift = jax.random.bernoulli(key_shift, 0.5, (size, bits)).astype(jnp.int32)
    scrambled = (jnp.einsum("dij,djk,k->di", matrix, directions, digits) + shift) % 2
    inside = jax.random.uniform(jax.random.fold_in(key_inside, index), (size,), dtype)
    place = scrambled.astype(dtype) @ (2.0 ** jnp.arange(bits - 1, -1, -1, dtype=dtype))
    return (place + inside) / number


_MAKERS = {"antithetic": _antithetic, "stratified": _stratified, "lattice": _lattice, "sobol": _sobol}


@functools.cache
def generating_vector(number: int, size: int) -> np.ndarray:
    """The generating vector of a lattice of `number` points in `size` dimensions, found component by component.

    Each component is the one, among those without a common factor with the number, that makes the worst error of functions
    with mixed second derivatives least, with weight `1 / j` of the dimension `j`: Sloan and Reztsov 2002,
    https://doi.org/10.1090/S0025-5718-01-01342-4; Dick, Kuo and Sloan 2013, section 5.3, https://doi.org/10.1017/S0962492913000044.
    """
    points = np.arange(number)
    coprime = np.flatnonzero(np.gcd(np.arange(number), number) == 1) if number > 1 else np.zeros(1, int)
    generator = np.random.default_rng(number)
    product, found = np.ones(number), []
    for j in range(size):
        half = coprime[: -(-len(coprime) // 2)]  # the others are its mirror images
        candidates = half if len(half) <= _CANDIDATES else generator.choice(half, _CANDIDATES, replace=False)
        place = points[None] * candidates[:, None] % number / number
        kernel = 1 + 2 * np.pi**2 * (place**2 - place + 1 / 6) / (1 + j)
        best = int(np.argmin(kernel @ product))
        product = product * kernel[best]
        product /= product.max()
        found.append(candidates[best])
    return np.asarray(found, np.uint32)


BLOCK = 4
"""Dimensions of one lattice."""

_CANDIDATES = 64
"""Components that are tried for each dimension."""


@functools.cache
def sobol_directions(number: int, size: int) -> np.ndarray:
    """The binary digits of Sobol's direction numbers, those of Joe and Kuo in SciPy, `[size, bits, bits]`."""
    from scipy.stats import qmc  # SciPy comes with JAX

    bits = number.bit_length() - 1
    points = (qmc.Sobol(size, scramble=False).random(number) * number).astype(np.int64)
    # In the order of Gray's code, the point of index i is the one before with the direction of the lowest bit of i added.
    places = 2 ** np.arange(bits)
    directions = points[places] ^ points[places - 1]  # [bits of the index, size]
    return np.moveaxis(directions[:, :, None] >> np.arange(bits)[::-1] & 1, 0, -1)
