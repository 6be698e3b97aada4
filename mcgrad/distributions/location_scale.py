"""Location-scale distributions: `x = loc + scale * z` with `z` from a standard distribution."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_parts
from mcgrad.distributions.numerics.arithmetic import align, open_uniform, quotient

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Standardized(Distribution, abc.ABC):
    """Base of distributions on the real line with fields `loc` and `scale`: a subclass writes functions of the standard one.

    `sample` is `loc + scale * z`, so its derivative is the explicit pathwise one: `dx = d loc + z * d scale`.

    The standard density falls on both sides of its maximum at 0, and may have parameters of its own.
    """

    if TYPE_CHECKING:  # in the order that the subclass gives them
        loc: Any
        scale: Any

    reparameterized: ClassVar[bool] = True
    keeps_nan: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        loc, scale, z = align(self.loc, self.scale, self._standard_sample(key, self.batch_shape))
        return loc + scale * z

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, loc, scale = align(x, self.loc, self.scale)
        return self._standard_log_prob(quotient(x - loc, scale)) - jnp.log(scale)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._standard_cdf(self._standardized(x))

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return self._standard_survival(self._standardized(x))

    def _standardized(self, x: ArrayLike) -> Array:
        """`(x - loc) / scale`, held to finite numbers, whose derivatives are no NaN."""
        x, loc, scale = align(x, self.loc, self.scale)
        largest = jnp.finfo(self.dtype).max
        return jnp.clip(quotient(x - loc, scale), -largest, largest)

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
        above = -jnp.log(open_uniform(key_loc, shape, self.dtype))
        mode, right = jnp.zeros(shape, self.dtype), jnp.ones(shape, self.dtype)
        log_density = stop(self)._standard_log_prob
        density = jnp.exp(log_density(mode))
        in_loc = WeakDerivative.single(
            "loc",
            weight=stop(density / scale) * loc,
            positive=loc + scale * self._standard_outward(mode, right, above),
            negative=loc + scale * self._standard_outward(mode, -right, how.other(above)),
        )
        z = (x - loc) / scale
        if how.hahn_jordan and self._scale_turns:
            turns = jnp.stack([jnp.full_like(mode, turn) for turn in self._scale_turns])
            weight, *parts = hahn_jordan_parts(lambda z: -z * jnp.exp(log_density(z)), turns, key_scale, z, how)
            most = jnp.sqrt(jnp.finfo(self.dtype).max)
            positive, negative = (loc + scale * jnp.clip(part, -most, most) for part in parts)
            return in_loc, WeakDerivative.single("scale", weight * jnp.log(scale), positive, negative)
        drop = -jnp.log(open_uniform(key_scale, shape, self.dtype))
        away = jnp.where(z < 0, -right, right)
        if how.hahn_jordan and self._scale_weight is not None:
            positive = loc + scale * away * self._standard_level(right, drop)
            negative = loc + scale * away * self._standard_level(-right, how.other(drop))
            return in_loc, WeakDerivative.single("scale", self._scale_weight * jnp.log(scale), positive, negative)
        outward = loc + scale * self._standard_outward(z, away, drop)
        return in_loc, WeakDerivative.single("scale", jnp.log(scale), outward, x, False)

    _scale_turns: ClassVar[tuple[float, ...]] = ()
    """The extrema of `z p(z)`, for a distribution that has no `_standard_level`."""

    _scale_weight: ClassVar[float | None] = None
    """The maximum of `2 z p(z)`, for a symmetric distribution that has `_standard_level`."""

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
        return self._standard_cdf(-z)  # of a symmetric distribution


@dataclasses.dataclass(frozen=True)
class LocationScale(Standardized):
    """Base of location-scale distributions, which have no further parameters and know their quantiles.

    Args:
        loc: any shape; finite.
        scale: any shape that broadcasts with `loc`; positive.
    """

    loc: Float[ArrayLike, "*batch"]
    scale: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"loc": REAL, "scale": POSITIVE}

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        u, loc, scale = align(u, self.loc, self.scale)
        return loc + scale * self._standard_icdf(u)

    @property
    def moments(self) -> Callable[[], tuple[Array, Array]] | None:
        """Mean and covariance, as of `HasMoments`; `None` for a distribution that has none."""
        return None if self._standard_moments is None else self._moments

    def _moments(self) -> tuple[Array, Array]:
        assert self._standard_moments is not None
        mean, deviation = self._standard_moments
        loc, scale = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.loc, self.scale))
        return loc + mean * scale, (deviation * scale)[None]

    _standard_moments: ClassVar[tuple[float, float] | None] = None
    """Mean and standard deviation of the standard distribution."""

    @abc.abstractmethod
    def _standard_icdf(self, u: Array) -> Array: ...
