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
from mcgrad.distributions.base import POSITIVE, REAL, Distribution, align, open_uniform


@dataclasses.dataclass(frozen=True)
class LocationScale(Distribution, abc.ABC):
    """Base of location-scale laws on the real line: a subclass writes the four functions of the standard law.

    `sample` is `loc + scale * z`, so its derivative is the explicit pathwise one: `dx = d loc + z * d scale`.

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
        return self._standard_log_prob((x - loc) / scale) - jnp.log(scale)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function."""
        x, loc, scale = align(x, self.loc, self.scale)
        return self._standard_cdf((x - loc) / scale)

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Quantile function."""
        u, loc, scale = align(u, self.loc, self.scale)
        return loc + scale * self._standard_icdf(u)

    @abc.abstractmethod
    def _standard_sample(self, key: PRNGKey, shape: Shape) -> Array: ...

    @abc.abstractmethod
    def _standard_log_prob(self, z: Array) -> Array: ...

    @abc.abstractmethod
    def _standard_cdf(self, z: Array) -> Array: ...

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
        return -jnp.log1p(z * z) - math.log(math.pi)

    def _standard_cdf(self, z: Array) -> Array:
        # = 1/2 + arctan(z) / pi, without cancellation in the lower tail
        return jnp.arctan2(jnp.ones_like(z), -z) / math.pi

    def _standard_icdf(self, u: Array) -> Array:
        # = tan(pi (u - 1/2)), without loss of digits in either tail
        distance = 1 / jnp.tan(math.pi * jnp.where(u < 0.5, u, 1 - u))
        return jnp.where(u < 0.5, -distance, distance)


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
        return -z - jnp.exp(-z)

    def _standard_cdf(self, z: Array) -> Array:
        return jnp.exp(-jnp.exp(-z))

    def _standard_icdf(self, u: Array) -> Array:
        return -jnp.log(-jnp.log(u))
