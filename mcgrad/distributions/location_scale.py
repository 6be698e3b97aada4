"""Location-scale laws: `x = loc + scale * z` with `z` from a standard law."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import (
    POSITIVE,
    REAL,
    Coupling,
    Distribution,
    WeakDerivative,
    align,
    open_uniform,
    quotient,
)
from mcgrad.distributions.levels import parts_by_levels

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class LocationScale(Distribution, abc.ABC):
    """Base of location-scale laws on the real line: a subclass writes the five functions of the standard law.

    `sample` is `loc + scale * z`, so its derivative is the explicit pathwise one: `dx = d loc + z * d scale`.

    The standard density falls on both sides of its maximum at 0.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.
    """

    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"loc": REAL, "scale": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw."""
        loc, scale, z = align(self.loc, self.scale, self._standard_sample(key, self.batch_shape))
        return loc + scale * z

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density."""
        x, loc, scale = align(x, self.loc, self.scale)
        return self._standard_log_prob(quotient(x - loc, scale)) - jnp.log(scale)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function."""
        return self._standard_cdf(self._standardized(x))

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """One minus the distribution function."""
        return self._standard_survival(self._standardized(x))

    def _standardized(self, x: ArrayLike) -> Array:
        """`(x - loc) / scale`, held to finite numbers, whose derivatives are no NaN."""
        x, loc, scale = align(x, self.loc, self.scale)
        largest = jnp.finfo(self.dtype).max
        return jnp.clip(quotient(x - loc, scale), -largest, largest)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Quantile function."""
        u, loc, scale = align(u, self.loc, self.scale)
        return loc + scale * self._standard_icdf(u)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `loc` (Hahn-Jordan) and in `scale` (Hahn-Jordan, or the negative part is the draw itself).

        Those in `loc`, and the latter in `scale`, come from the point on one side of the mode where the log density has
        fallen by a standard exponential `e`. Points uniform under the graph of the standard density `p` give the second:
        for a draw `z`, the height `exp(-e) p(z)` is uniform below `p(z)`, and the `m` beyond `z` with that density has the
        density `-m p'(m)`, by the length `m` of the level set. In the first the height is uniform below `p(0)`, and `m` has
        the density `|p'(m)| / p(0)`.
        With `d p / d loc = -p' / scale` and `d p / d scale = (-m p'(m) - p) / scale`, before scaling, that is all. The
        derivative of the distribution function in `scale` is `-z p(z) / scale`, whose levels give the Hahn-Jordan parts; for
        some symmetric laws in closed form: `|z|` beyond and before the maximum of `|z| p(z)`, with tails in proportion to it.
        """
        key_loc, key_scale = jax.random.split(key)
        shape = self.batch_shape
        loc, scale = (jnp.broadcast_to(parameter, shape) for parameter in (self.loc, self.scale))
        u = open_uniform(key_loc, shape, self.dtype)
        above = -jnp.log(u)
        below = -jnp.log1p(-u) if how.comonotone else above
        mode, right = jnp.zeros(shape, self.dtype), jnp.ones(shape, self.dtype)
        density = jnp.exp(self._standard_log_prob(mode))
        in_loc = WeakDerivative(
            parameters=("loc",),
            weight=(stop(density / scale) * loc)[None],
            positive=(loc + scale * self._standard_outward(mode, right, above))[None],
            negative=(loc + scale * self._standard_outward(mode, -right, below))[None],
        )
        z = (x - loc) / scale
        if how.hahn_jordan and self._scale_turns:
            turns = jnp.stack([jnp.full_like(mode, turn) for turn in self._scale_turns])
            weight, *parts = parts_by_levels(
                lambda z: -z * jnp.exp(self._standard_log_prob(z)), turns, key_scale, z, how
            )
            positive, negative = (loc + scale * part for part in parts)
            return in_loc, WeakDerivative(("scale",), (weight * jnp.log(scale))[None], positive[None], negative[None])
        drop = -jnp.log(open_uniform(key_scale, shape, self.dtype))
        away = jnp.where(z < 0, -right, right)
        if how.hahn_jordan and self._scale_weight is not None:
            inner_drop = -jnp.log(-jnp.expm1(-drop)) if how.comonotone else drop
            in_scale = WeakDerivative(
                parameters=("scale",),
                weight=self._scale_weight * jnp.log(scale)[None],
                positive=(loc + scale * away * self._standard_level(right, drop))[None],
                negative=(loc + scale * away * self._standard_level(-right, inner_drop))[None],
            )
        else:
            in_scale = WeakDerivative(
                parameters=("scale",),
                weight=jnp.log(scale)[None],
                positive=(loc + scale * self._standard_outward(z, away, drop))[None],
                negative=x[None],
                positive_is_draw=jnp.zeros((1, *shape), bool),
            )
        return in_loc, in_scale

    _scale_turns: ClassVar[tuple[float, ...]] = ()
    """Where `z p(z)` turns, for a law that has no `_standard_level`."""

    _scale_weight: ClassVar[float | None] = None
    """The maximum of `2 z p(z)`, for a symmetric law that has `_standard_level`."""

    def _standard_level(self, side: Array, drop: Array) -> Array:
        """The positive `z` beyond (1) or before (-1) the maximum of `z p(z)` where its logarithm is lower by `drop`."""
        raise NotImplementedError

    @abc.abstractmethod
    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        """On the side (1 or -1) of `z`, the point whose log density is lower by `drop`."""

    @abc.abstractmethod
    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array: ...

    @abc.abstractmethod
    def _standard_log_prob(self, z: Array) -> Array: ...

    @abc.abstractmethod
    def _standard_cdf(self, z: Array) -> Array: ...

    def _standard_survival(self, z: Array) -> Array:
        return self._standard_cdf(-z)  # of a symmetric law

    @abc.abstractmethod
    def _standard_icdf(self, u: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Laplace(LocationScale):
    """Laplace law: `p(x) = exp(-|x - loc| / scale) / (2 scale)`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.laplace(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        return -jnp.abs(z) - math.log(2)

    def _standard_cdf(self, z: Array) -> Array:
        tail = 0.5 * jnp.exp(jnp.where(z < 0, z, -z))  # no `abs`: its derivative at 0 is 0, that of the cdf is 1/2
        return jnp.where(z < 0, tail, 1 - tail)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return z + side * drop

    _scale_weight: ClassVar[float | None] = math.exp(-1)

    def _standard_level(self, side: Array, drop: Array) -> Array:
        return exponential_level(side, drop)

    def _standard_icdf(self, u: Array) -> Array:
        z = jnp.log(2 * jnp.where(u < 0.5, u, 1 - u))
        return jnp.where(u < 0.5, z, -z)


@dataclasses.dataclass(frozen=True)
class Logistic(LocationScale):
    """Logistic law: `F(x) = sigmoid((x - loc) / scale)`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        # `jax.random.logistic` draws -87 in place of -16 where its uniform is 0.
        return special.logit(open_uniform(key, shape, self.dtype))

    def _standard_log_prob(self, z: Array) -> Array:
        return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)

    def _standard_cdf(self, z: Array) -> Array:
        return jax.nn.sigmoid(z)

    def _standard_icdf(self, u: Array) -> Array:
        return special.logit(u)

    _scale_turns: ClassVar[tuple[float, ...]] = (-1.5434046384182085, 1.5434046384182085)  # z tanh(z / 2) = 1

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        # p(z) = 1 / (4 cosh^2(z / 2)): log cosh(z / 2) rises by drop / 2, and arccosh(exp(a)) = a + log(1 + sqrt(1 - exp(-2 a)))
        half = jnp.abs(z) / 2
        a = half + jnp.log1p(jnp.exp(-2 * half)) - math.log(2) + drop / 2
        return 2 * side * (a + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * a))))


@dataclasses.dataclass(frozen=True)
class Cauchy(LocationScale):
    """Cauchy law: `p(x) = 1 / (pi scale (1 + z^2))`, `z = (x - loc) / scale`. **It has no mean.**

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return self._standard_icdf(open_uniform(key, shape, self.dtype))

    def _standard_log_prob(self, z: Array) -> Array:
        size = jnp.abs(z)
        far = size > 1  # where the square may overflow
        beyond = jnp.where(far, size, 1)
        inside = jnp.where(far, 1 / beyond, z)
        return -jnp.log1p(inside * inside) - 2 * jnp.log(beyond) - math.log(math.pi)

    def _standard_cdf(self, z: Array) -> Array:
        # = 1/2 + arctan(z) / pi, without cancellation in the lower tail
        return jnp.arctan2(jnp.ones_like(z), -z) / math.pi

    def _standard_icdf(self, u: Array) -> Array:
        # = tan(pi (u - 1/2)), without loss of digits in either tail
        distance = 1 / jnp.tan(math.pi * jnp.where(u < 0.5, u, 1 - u))
        return jnp.where(u < 0.5, -distance, distance)

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        # 1 + z^2 grows by the factor exp(drop)
        return side * jnp.sqrt(z * z * jnp.exp(drop) + jnp.expm1(drop))

    _scale_weight: ClassVar[float | None] = 1 / math.pi

    def _standard_level(self, side: Array, drop: Array) -> Array:
        # 2 z / (1 + z^2) = exp(-drop), whose two solutions are inverse to each other
        return jnp.exp(side * drop) * jnp.power(1 + jnp.sqrt(-jnp.expm1(-2 * drop)), side)


@dataclasses.dataclass(frozen=True)
class Gumbel(LocationScale):
    """Gumbel law (of maxima): `F(x) = exp(-exp(-(x - loc) / scale))`.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.
    """

    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array:
        return jax.random.gumbel(key, shape, self.dtype)

    def _standard_log_prob(self, z: Array) -> Array:
        return log_exponential_density(-z)

    def _standard_cdf(self, z: Array) -> Array:
        return jnp.exp(-jnp.exp(jnp.minimum(-z, 8.0)))  # zero beyond, in every precision; no infinity to differentiate

    def _standard_survival(self, z: Array) -> Array:
        return -jnp.expm1(-jnp.exp(jnp.minimum(-z, 8.0)))

    def _standard_icdf(self, u: Array) -> Array:
        return -jnp.log(-jnp.log(u))

    _scale_turns: ClassVar[tuple[float, ...]] = (-0.8064659942363268, 1.3499764854011256)  # z (1 - exp(-z)) = 1

    def _standard_outward(self, z: Array, side: Array, drop: Array) -> Array:
        return -log_exponential_outward(-z, -side, drop)


def exponential_level(side: Array, drop: Array) -> Array:
    """The `z` beyond (1) or before (-1) the maximum of `z exp(-z)` where its logarithm is lower by `drop`."""
    return jnp.exp(log_exponential_outward(jnp.zeros_like(drop), side, drop))


def log_exponential_density(y: Array) -> Array:
    """`y - exp(y)`, the log density of the logarithm of a standard exponential draw.

    Where the exponential overflows its derivative is zero and not infinite, for in a mixture a weight of zero may multiply it.
    """
    most = math.log(jnp.finfo(y.dtype).max) - 1
    return jnp.where(y > most, -jnp.inf, y - jnp.exp(jnp.minimum(y, most)))


def log_exponential_outward(y: Array, side: Array, drop: Array) -> Array:
    """On the side (1 or -1) of `y`, the point where `y - exp(y)` is lower by `drop`.

    `y - exp(y)` is the log density of the logarithm of a standard exponential draw, whose negative is a Gumbel draw. The
    point solves `exp(y) - 1 - y = height`, by Newton's method from the bounds of Chatzigeorgiou 2013 (theorem 1) on the Lambert
    function, from which it converges on one side: four steps reach rounding error.
    """
    height = jnp.expm1(y) - y + drop
    root = jnp.sqrt(2 * height)
    y = jnp.where(side > 0, jnp.log1p(root + height), -(root + height))
    for _ in range(4):
        slope = jnp.expm1(y)
        y = y - (slope - y - height) / jnp.where(slope == 0, 1, slope)
    return y
