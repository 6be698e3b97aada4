"""The gamma distribution, and that of the logarithm of a gamma draw, with exact pathwise derivatives in the concentration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_term
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.derivatives.weak_derivative import mapped
from mcgrad.distributions.numerics.arithmetic import align, bounded_exp, open_uniform, quotient
from mcgrad.distributions.numerics.exponential import log_exponential_outward
from mcgrad.distributions.numerics.gamma import (
    log_density,
    log_density_of_log,
    log_gamma_velocity,
    log_ratio_velocity,
    probabilities,
)
from mcgrad.distributions.numerics.gamma_function import log_peak
from mcgrad.distributions.numerics.gamma_rejection import log_ratio_to_mean, standard_gamma


@dataclasses.dataclass(frozen=True)
class Gamma(Distribution):
    """Gamma distribution: `p(x) = rate^a x^(a - 1) exp(-rate x) / Gamma(a)` for `x > 0`, with `a = concentration`.

    Draws are differentiable in both parameters, to every order, in forward and reverse mode; in the concentration the
    derivative is the implicit one, `-(dF/da) / p`, by quadrature to the precision of the dtype. **A draw that underflows or
    overflows is the smallest or largest positive number**, with derivative zero: for concentrations below 0.1 in float32, or
    0.01 in float64, take `ExpGamma`, the distribution of `log x`.

    Args:
        concentration: any shape; positive.
        rate: any shape that broadcasts with `concentration`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(concentration, key):
        ...     return mcgrad.sample(key, mcgrad.Gamma(concentration, 2.0))
        >>> keys = jax.random.split(jax.random.key(0), 4000)
        >>> gradients = jax.vmap(mcgrad.pathwise_grad(cost), (None, 0))(3.0, keys)
        >>> bool(abs(gradients.mean() - 1 / 2.0) < 0.02)  # the mean is concentration / rate
        True

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6,
        https://arxiv.org/abs/1805.08498.
    """

    concentration: Float[ArrayLike, "*batch"]
    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration": POSITIVE, "rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        concentration = jnp.broadcast_to(self.concentration, self.batch_shape)
        frozen = jax.lax.stop_gradient(concentration)
        x = jnp.maximum(standard_gamma(key, frozen)[0], jnp.finfo(self.dtype).tiny)
        x, rate = align(_move_gamma(x, concentration), self.rate)
        info = jnp.finfo(self.dtype)
        overflows = jnp.minimum(rate, 1) * info.max <= x  # and not where one of them is NaN
        scaled = quotient(x, jnp.where(overflows, 1, rate))
        return jnp.where(overflows, info.max, jnp.maximum(scaled, info.tiny))

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        inside = jnp.where(x > 0, x, 1.0)
        log_x = jnp.log(inside)
        some = log_density_of_log(rate * inside, jnp.log(rate) + log_x, a) - log_x
        none = special.xlogy(a - 1, jnp.where(x == 0, 0.0, 1.0)) + jnp.log(rate)
        return jnp.where(x > 0, some, jnp.where(x == 0, none, -jnp.inf))

    def moments(self) -> tuple[Array, Array]:
        a, rate = jnp.broadcast_arrays(*align(self.concentration, self.rate))
        return a / rate, (jnp.sqrt(a) / rate)[None]

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in both parameters: those of the logarithm, mapped."""
        logarithm = ExpGamma(self.concentration, self.rate)
        return mapped(logarithm.weak_derivative(key, jnp.log(x), how), bounded_exp, x)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Distribution function, with exact derivatives in the concentration too."""
        return self._mass(_gamma_cdf, 0.0, x)

    def survival(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        return -self._mass(_gamma_minus_survival, -1.0, x)

    def _mass(self, function: Callable[..., Array], before: float, x: ArrayLike) -> Array:
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        info = jnp.finfo(self.dtype)
        reduced = jnp.clip(jnp.where(x > 0, x, 1.0) * rate, info.tiny, info.max)
        return jnp.where(x > 0, function(reduced, a), before)


@dataclasses.dataclass(frozen=True)
class ExpGamma(Distribution):
    """The distribution of `y = log x` for a gamma draw `x`: `p(y) = rate^a exp(a y - rate exp(y)) / Gamma(a)`.

    For small concentrations, where `x` itself underflows. Draws are differentiable as those of `Gamma`.

    Args:
        concentration: any shape; positive.
        rate: any shape that broadcasts with `concentration`; positive.

    Raises:
        ValueError: if a concrete parameter is not positive, or the shapes do not broadcast.
    """

    concentration: Float[ArrayLike, "*batch"]
    rate: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"concentration": POSITIVE, "rate": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        concentration = jnp.broadcast_to(self.concentration, self.batch_shape)
        frozen = jax.lax.stop_gradient(concentration)
        _, y = standard_gamma(key, frozen)
        y, rate = align(_move_log_gamma(y, concentration), self.rate)
        return y - jnp.log(rate)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        x, a, rate = jnp.broadcast_arrays(*align(x, self.concentration, self.rate))
        shifted = x + jnp.log(rate)
        return log_density_of_log(jnp.exp(shifted), shifted, a)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Weak derivatives in `concentration` (Hahn-Jordan) and `rate` (or the draw itself against one of one more concentration).

        The density grows with the concentration beyond the mean `psi(a)` of the logarithm, and shrinks before it. The
        derivative of the distribution function in `log(rate)` is the density `p` of the logarithm, with its maximum where
        `rate exp(x) = a`; `log p` is lower by `a (exp(t) - 1 - t)` at the distance `t`. And `a` times the difference of the laws
        of concentrations `a` and `a + 1` is the derivative in `log(rate)` too.
        """
        key_concentration, key_rate = jax.random.split(key)
        a, rate = (jnp.broadcast_to(parameter, self.batch_shape) for parameter in (self.concentration, self.rate))
        fixed, shift = map(jax.lax.stop_gradient, (a, jnp.log(rate)))

        def increase(y: Array) -> Array:
            at = jnp.exp(y + shift), y + shift, fixed
            return -log_gamma_velocity(*at) * jnp.exp(log_density_of_log(*at))

        turn = (special.digamma(fixed) - shift)[None]
        in_concentration = hahn_jordan_term("concentration", a, increase, turn, key_concentration, x, how)
        drop = -jnp.log(open_uniform(key_rate, self.batch_shape, self.dtype))
        if not how.hahn_jordan:
            more = jnp.logaddexp(x, jnp.log(drop) - shift)
            return in_concentration, WeakDerivative.single("rate", fixed * jnp.log(rate), x, more, True)
        zero, right, mode = jnp.zeros_like(drop), jnp.ones_like(drop), jnp.log(fixed) - shift
        in_rate = WeakDerivative.single(
            "rate",
            weight=jnp.exp(log_peak(fixed)) * jnp.log(rate),
            positive=mode + log_exponential_outward(zero, -right, how.other(drop) / fixed),
            negative=mode + log_exponential_outward(zero, right, drop / fixed),
        )
        return in_concentration, in_rate


def _velocity(x: Array, a: Array) -> tuple[Array]:
    return (x * log_gamma_velocity(x, jnp.log(x), a),)


_gamma_cdf = distribution_function(lambda x, a: probabilities(x, a)[0], log_density, _velocity)
_gamma_minus_survival = distribution_function(lambda x, a: -probabilities(x, a)[1], log_density, _velocity)


_move_gamma = moving_draw(_velocity)
"""A gamma draw of rate one, as a function of it and of its concentration."""

_move_log_gamma = moving_draw(lambda y, a: (log_gamma_velocity(jnp.exp(y), y, a),))
"""The logarithm of a gamma draw of rate one, as a function of it and of the concentration."""


def sample_log_ratio(key: PRNGKey, a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """A differentiable draw of `log(x / a)` for the gamma distribution of concentration `a` and rate one."""
    return _log_ratio_draw(log_ratio_to_mean(key, jax.lax.stop_gradient(a)), a)


_log_ratio_draw = moving_draw(lambda log_ratio, a: (log_ratio_velocity(log_ratio, a),))
