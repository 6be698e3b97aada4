"""Kumaraswamy's distribution on the unit interval."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_term
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.exponential import Exponential
from mcgrad.distributions.numerics.arithmetic import align, log_one_minus_exp, open_uniform, quotient, with_ends
from mcgrad.distributions.numerics.roots import bracket_root


@dataclasses.dataclass(frozen=True)
class Kumaraswamy(Distribution):
    """Kumaraswamy's distribution: `F(x) = 1 - (1 - x^concentration1)^concentration0` for `0 < x < 1`.

    Close to a beta distribution, with a quantile function in closed form: draws are differentiable to every order, and cost two
    powers. **Draws that round to 0 or 1 are the numbers next to these**, with derivative zero.

    Args:
        concentration1: any shape; positive.
        concentration0: any shape that broadcasts with `concentration1`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    concentration1: Float[ArrayLike, "*batch"]
    concentration0: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration1": POSITIVE, "concentration0": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        return self._quantile(open_uniform(key, self.batch_shape, self.dtype))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density; `-inf` outside the unit interval; at its ends the limit, finite where that concentration is one."""
        x, a, b = align(x, self.concentration1, self.concentration0)
        inside = (x > 0) & (x < 1)
        log_x = jnp.log(jnp.where(inside, x, 0.5))
        log_prob = jnp.log(a) + jnp.log(b) + (a - 1) * log_x + (b - 1) * log_one_minus_exp(a * log_x)
        at_zero, at_one = (jnp.where(x == end, 0.0, 1.0) for end in (0, 1))
        # near one the density is that of a^b b (1 - x)^(b - 1)
        at_end = special.xlogy(a - 1, at_zero) + special.xlogy(b - 1, at_one)
        at_end = at_end + jnp.log(a) * jnp.where(x == 1, b, 1.0) + jnp.log(b)
        return jnp.where(inside, log_prob, jnp.where((x == 0) | (x == 1), at_end, -jnp.inf))

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, a, b = align(x, self.concentration1, self.concentration0)
        inside = (x > 0) & (x < 1)
        log_x = jnp.log(jnp.where(inside, x, 0.5))
        cdf = -jnp.expm1(b * log_one_minus_exp(a * log_x))
        return jnp.where(x <= 0, 0.0, jnp.where(x >= 1, 1.0, cdf))

    def icdf(self, u: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return with_ends(self._quantile, u, 0.0, 1.0)

    def _quantile(self, u: ArrayLike) -> Array:
        u, a, b = align(u, self.concentration1, self.concentration0)
        info = jnp.finfo(self.dtype)
        log_rest = jnp.log1p(-u)
        full = log_rest < -200 * b  # x^a is one to rounding, and the division may overflow
        log_power = jnp.where(full, -info.tiny, log_one_minus_exp(quotient(log_rest, jnp.where(full, 1, b))))
        least = jnp.log(info.tiny).astype(log_power.dtype)
        low, high = log_power < a * least, log_power > -a * (info.epsneg / 2)
        log_x = jnp.where(low, least, quotient(log_power, jnp.where(low | high, 1, a)))
        return jnp.clip(jnp.exp(log_x), info.tiny, 1 - info.epsneg)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives: in `concentration1` Hahn-Jordan; in `concentration0` that of an exponential draw, `-log(1 - x^a)`.

        With `t = x^a` the derivative of the log density in `a` is `(1 + log(t) (1 - b t) / (1 - t)) / a`, of one sign beyond the
        point where it is zero and of the other before.
        """
        key1, key0 = jax.random.split(key)
        a, b = (jnp.broadcast_to(value, self.batch_shape) for value in (self.concentration1, self.concentration0))
        frozen, info = jax.lax.stop_gradient((a, b)), jnp.finfo(self.dtype)

        def rate(y: Array) -> Array:  # of y = -log(x), for which a draw near 1 keeps its digits
            log_t = -frozen[0] * jnp.maximum(y, 0)
            return y * frozen[1] * jnp.exp(log_t + (frozen[1] - 1) * log_one_minus_exp(log_t))

        def slope(log_t: Array) -> Array:
            t = jnp.exp(log_t)
            return 1 + log_t * (1 - frozen[1] * t) / jnp.maximum(-jnp.expm1(log_t), info.tiny)

        # For the largest b the turn is where t is about 1 / b.
        ends = jnp.full_like(a, -2 - jnp.log(info.max)), jnp.full_like(a, -info.tiny)
        turn = -bracket_root(slope, *ends)[0] / frozen[0]
        log_x = jnp.log(x)
        in_first = hahn_jordan_term("concentration1", a, rate, turn[None], key1, -log_x, how)
        back = lambda y: jnp.clip(jnp.exp(-y), info.tiny, 1 - info.epsneg)  # noqa: E731
        drop = -log_one_minus_exp(frozen[0] * log_x)
        other = Exponential(b).weak_derivative(key0, drop, how)
        of_drop = lambda e: back(-log_one_minus_exp(-e) / frozen[0])  # noqa: E731
        return *mapped((in_first,), back, x), *mapped(other, of_drop, x, rate="concentration0")
