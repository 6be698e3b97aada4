"""The inverse Gaussian distribution."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_term
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.numerics.arithmetic import align, quotient
from mcgrad.distributions.numerics.error_function import ndtr
from mcgrad.distributions.numerics.normal_tail import tail_moments

_LOG_2PI = math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class InverseGaussian(Distribution):
    """Inverse Gaussian distribution, with `c = concentration`: `p(x) = sqrt(c / (2 pi x^3)) exp(-c (x - mean)^2 / (2 mean^2 x))`.

    Also Wald's distribution: the time at which a Brownian motion with drift first reaches a level. The variance is
    `mean^3 / concentration`. Draws choose between the two roots of a quadratic equation by a coin whose bias depends on the
    parameters, so their derivative is no derivative of the root (`jax.random.wald` gives that, and it is wrong), but the one
    that keeps the quantile, to the precision of the dtype and to every order. **A draw that overflows or underflows is the
    largest or smallest number**.

    Args:
        mean: any shape; positive.
        concentration: any shape that broadcasts with `mean`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.

    References:
        Michael, Schucany and Haas 1976, "Generating random variates using transformations with multiple roots" (the draw),
        https://doi.org/10.1080/00031305.1976.10479147.
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6 (its derivative),
        https://arxiv.org/abs/1805.08498.
    """

    mean: Float[ArrayLike, "*batch"]
    concentration: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"mean": POSITIVE, "concentration": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        key_normal, key_root = jax.random.split(key)
        shape, dtype = self.batch_shape, self.dtype
        mean, concentration = (jnp.broadcast_to(value, shape) for value in (self.mean, self.concentration))
        frozen_mean, frozen_concentration = map(jax.lax.stop_gradient, (mean, concentration))
        info = jnp.finfo(dtype)
        z = jax.random.normal(key_normal, shape, dtype)
        # x / mean + mean / x - 2 = 2 w: the roots are inverse to each other
        w = jnp.minimum(z * (frozen_mean / frozen_concentration) * z / 2, info.max / 16)
        root = 1 + w + jnp.sqrt(w) * jnp.sqrt(w + 2)
        smaller = jax.random.uniform(key_root, shape, dtype) * (1 + root) <= root
        x = jnp.where(
            smaller, frozen_mean / root, jnp.minimum(root, info.max / jnp.maximum(frozen_mean, 1)) * frozen_mean
        )
        return _draw(jnp.clip(x, info.tiny, info.max), mean, concentration)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, mean, concentration = align(x, self.mean, self.concentration)
        inside = (x > 0) & (x < jnp.inf)
        return jnp.where(inside, _log_density(jnp.where(inside, x, mean), mean, concentration), -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, mean, concentration = jnp.broadcast_arrays(*align(x, self.mean, self.concentration))
        inside = (x > 0) & (x < jnp.inf)
        at_end = jnp.where(x == jnp.inf, 1.0, 0.0)
        return jnp.where(inside, _distribution_function(jnp.where(inside, x, mean), mean, concentration), at_end)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Hahn-Jordan in both: the derivative of the log density has the sign of `x - mean` in `mean`, and is positive between
        the two roots of `concentration (x - mean)^2 = mean^2 x` in `concentration`."""
        keys = jax.random.split(key)
        params = [jnp.broadcast_to(value, self.batch_shape) for value in (self.mean, self.concentration)]
        mean, concentration = fixed = jax.lax.stop_gradient(params)
        w = mean / concentration / 2
        root = 1 + w + jnp.sqrt(w) * jnp.sqrt(w + 2)

        def rate(index: int) -> Callable[[Array], Array]:  # no number below zero
            return lambda points: -_velocity(points, *fixed)[index] * jnp.exp(_log_density(points, *fixed))

        return (
            hahn_jordan_term("mean", params[0], rate(0), mean[None], keys[0], x, how),
            hahn_jordan_term(
                "concentration", params[1], rate(1), jnp.stack([mean / root, mean * root]), keys[1], x, how
            ),
        )


def _log_density(x: Array, mean: Array, concentration: Array) -> Array:
    deviation = jnp.sqrt(concentration) / jnp.sqrt(x) * quotient(x - mean, mean)  # concentration / x may overflow
    return (jnp.log(concentration) - 3 * jnp.log(x) - _LOG_2PI) / 2 - deviation * deviation / 2


def _cdf(x: Array, mean: Array, concentration: Array) -> Array:
    """`Phi(a) + exp(2 concentration / mean) Phi(-b)`; the second term is `phi(a)` times Mills' ratio at `b`."""
    a, b = jnp.sqrt(concentration) / jnp.sqrt(x) * ((x - mean) / mean), _standardized(x, mean, concentration)
    (mills,) = tail_moments(b, jnp.full_like(b, jnp.inf), 1)
    return ndtr(a) + jnp.exp(-a * a / 2 - _LOG_2PI / 2) * mills


def _standardized(x: Array, mean: Array, concentration: Array) -> Array:
    b = jnp.sqrt(concentration) / jnp.sqrt(x) * (1 + x / mean)
    return jnp.minimum(b, jnp.finfo(b.dtype).max / 16)  # its inverse is Mills' ratio


def _velocity(x: Array, mean: Array, concentration: Array) -> tuple[Array, Array]:
    """With `y = x / mean`, `b = sqrt(concentration / x) (1 + y)`, Mills' ratio `M = (1 - Phi(b)) / phi(b)` and `R = 1 - b M`:

    `dx / dmean = 2 y^2 b M / (1 + y)` and `dx / dconcentration = x / concentration ((1 - y) + 2 y R) / (1 + y)`,

    where `R` is an integral itself, so that nothing cancels but at the draw where the derivative changes sign.
    """
    y = x / mean
    b = _standardized(x, mean, concentration)
    mills, rest = tail_moments(b, jnp.full_like(b, jnp.inf), 2)
    part = y / (1 + y)
    return 2 * y * part * b * mills, x / concentration * ((mean - x) / (mean + x) + 2 * part * rest)


_draw = moving_draw(_velocity)
_distribution_function = distribution_function(_cdf, _log_density, _velocity)
