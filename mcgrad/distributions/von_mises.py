"""The von Mises distribution on the circle."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_parts
from mcgrad.distributions.derivatives.quantile_rules import distribution_function, moving_draw
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.error_function import ndtri
from mcgrad.distributions.numerics.quadrature import negligible_drop, per_node, unit_rule


@dataclasses.dataclass(frozen=True)
class VonMises(Distribution):
    """Von Mises distribution: `p(x) = exp(concentration cos(x - loc)) / (2 pi I_0(concentration))` for angles `x`.

    A draw is a quantile of the deviation from `loc`, found by Newton's method, and wrapped to `[-pi, pi)`. Its derivative
    is 1 in `loc`, and in the concentration the one that keeps the quantile of the deviation, by quadrature to the precision
    of the dtype, to every order.

    **Costs must be functions of the angle**, with the same value and derivative at `-pi` and `pi`, as those of `cos(x)` and
    `sin(x)` are: a draw that moves over this point jumps to the other end, and the derivative of a cost such as `x ** 2`
    is biased. A score function is right for every cost.

    Args:
        loc: the mean direction, in radians; any shape; finite.
        concentration: any shape that broadcasts with `loc`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(concentration, key):
        ...     return jnp.cos(mcgrad.sample(key, mcgrad.VonMises(1.0, concentration)) - 1.0)
        >>> keys = jax.random.split(jax.random.key(0), 4000)
        >>> slopes = jax.vmap(mcgrad.pathwise_grad(cost), (None, 0))(2.0, keys)
        >>> bool(abs(slopes.mean() - 0.1642) < 0.01)  # 1 - A / concentration - A^2 with A = I_1 / I_0
        True

    References:
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6,
        https://arxiv.org/abs/1805.08498.
    """

    loc: Float[ArrayLike, "*batch"]
    concentration: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"loc": REAL, "concentration": POSITIVE}
    reparameterized: ClassVar[bool] = True

    def sample(self, key: PRNGKey) -> Float[Array, "*batch"]:
        """One draw, in `[-pi, pi)`."""
        u = open_uniform(key, self.batch_shape, self.dtype)
        k = jnp.broadcast_to(self.concentration, self.batch_shape)
        deviation, loc = align(_deviation(_solve(u, jax.lax.stop_gradient(k)), k), self.loc)
        return _wrap(loc + deviation)

    def log_prob(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Log density of an angle, which need not be in `[-pi, pi)`."""
        x, loc, k = align(x, self.loc, self.concentration)
        finite = jnp.abs(x) != jnp.inf
        return jnp.where(finite, _log_density(jnp.where(finite, x, 0.0) - loc, k), -jnp.inf)

    def cdf(self, x: Float[ArrayLike, "*batch"]) -> Float[Array, "*batch"]:
        """Probability of the angles from `-pi` to `x`."""
        x, loc, k = jnp.broadcast_arrays(*align(x, self.loc, self.concentration))
        end = jnp.clip(x, -np.pi, np.pi)

        def turns(deviation: Array) -> Array:
            """The distribution function of the deviation, one more with every turn."""
            inside = _wrap(deviation)
            return _deviation_cdf(inside, k) + jax.lax.stop_gradient(jnp.round((deviation - inside) / (2 * np.pi)))

        between = turns(end - loc) - turns(-np.pi - loc)
        return jnp.where(x <= -np.pi, 0.0, jnp.where(x >= np.pi, 1.0, between))

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Hahn-Jordan in both: on the two sides of `loc`; and nearer to it, and farther, than where `cos` has its mean.

        The density falls on both sides of `loc`, so the deviation of the part on one side is where it has fallen, between its
        largest and its least value, in proportion to a uniform number: `exp(k cos(d)) = u exp(k) + (1 - u) exp(-k)`.
        """
        key_loc, key_concentration = jax.random.split(key)
        shape, dtype = self.batch_shape, self.dtype
        loc, k = (jnp.broadcast_to(parameter, shape) for parameter in (self.loc, self.concentration))
        fixed, center = jax.lax.stop_gradient((k, loc))
        normalizer, rest = _normalizer(fixed)
        u = open_uniform(key_loc, shape, dtype)
        right, left = (
            2 * jnp.arcsin(jnp.minimum(jnp.sqrt(-jnp.log1p(above * jnp.expm1(-2 * fixed)) / (2 * fixed)), 1))
            for above in (u, 1 - u if how.comonotone else u)
        )
        height = -jnp.expm1(-2 * fixed) / (2 * normalizer)
        deviation = _wrap(x - center)

        def rate(distance: Array) -> Array:
            near = jnp.clip(distance, 0, np.pi)
            found = -2 * _velocity(near, fixed)[0] * jnp.exp(_log_density(near, fixed))
            return jnp.where(near == distance, found, 0)

        turn = 2 * jnp.arcsin(jnp.sqrt(rest / 2))[None]
        weight, *distances = hahn_jordan_parts(rate, turn, key_concentration, jnp.abs(deviation), how)
        side = jnp.where(deviation < 0, -1, 1).astype(dtype)
        near, far = (_wrap(center + side * distance) for distance in distances)
        return (
            WeakDerivative.single("loc", height * loc, _wrap(center + right), _wrap(center - left)),
            WeakDerivative.single("concentration", weight * k, near, far),
        )


def _wrap(x: Array) -> Array:
    turned = x - 2 * np.pi * jnp.floor((x + np.pi) / (2 * np.pi))
    turned = jnp.where(turned < np.pi, turned, turned - 2 * np.pi)  # the product may round
    return jnp.where(jnp.abs(turned) > np.pi, 0.0, turned)  # whole turns are lost in the digits of a huge angle


# In what follows `theta` is the deviation, `t = theta + s` another one, and densities are relative to that at 0 or at
# `theta`, so that nothing overflows. `drop = cos(theta) - cos(theta + s) = 2 sin(s / 2) sin(theta + s / 2)` is a rational function
# of `h = tan(s / 4)`, with `ds = 4 dh / (1 + h^2)`; Gauss-Legendre nodes in `h` cost an exponential each, and no sine.


_NODES = 36, 16  # of float64 and float32; enough for `tests/test_von_mises.py`, at all concentrations


def _drops(theta: Array, end: Array) -> tuple[Array, Array]:
    """Drops at nodes from `h = 0` to `end`, and the weights of an integral over `s`, for `_sum`: `[..., node]`."""
    h = per_node(end) * unit_rule(theta, *_NODES)[0]
    scale = 1 / (1 + h * h)
    sine, cosine = 2 * h * scale, (1 - h * h) * scale  # of s / 2
    drop = 2 * sine * (per_node(jnp.sin(theta)) * cosine + per_node(jnp.cos(theta)) * sine)
    return drop, scale


def _sum(values: Array, end: Array) -> Array:
    """The integral over `4 h`, from values at the nodes."""
    _, weights = unit_rule(jnp.zeros((), values.dtype), *_NODES)
    return 4 * end * jnp.matmul(values, weights, precision=jax.lax.Precision.HIGHEST)


def _fallen(theta: Array, k: Array) -> Array:
    """`h` of the distance from `theta >= 0` to pi, or to where the density has fallen to nothing."""
    fall = negligible_drop(theta.dtype)
    sine, cosine = jnp.sin(theta / 2), jnp.cos(theta / 2)
    square = fall / 2 / k
    inside = (square < cosine * cosine) & (cosine > 0)  # below zero where theta is pi, rounded up
    # Sine and cosine of half the angle at the end; those of half the distance have only positive terms with them.
    y, z = jnp.sqrt(sine * sine + square), jnp.sqrt(jnp.where(inside, cosine * cosine - square, 0))
    near = square / ((y * cosine + z * sine) * (1 + z * cosine + y * sine))
    return jnp.where(inside, jax.lax.stop_gradient(near), cosine / (1 + sine))


def _below_pi(theta: Array) -> Array:
    """`pi - theta`, with the digits of pi that the dtype does not hold."""
    pi = float(np.asarray(np.pi, theta.dtype))
    rest = np.pi - pi + _REST_OF_PI
    # For theta <= 1 these digits are below rounding. The `where` keeps XLA from folding the constant into pi.
    return (pi - theta) + jnp.where(theta > 1, jnp.asarray(rest, theta.dtype), 0)


_REST_OF_PI = 1.2246467991473532e-16
"""Pi, less the float64 that is nearest to it."""


def _normalizer(k: Array) -> tuple[Array, Array]:
    """`pi I_0(k) exp(-k)` and `1 - I_1(k) / I_0(k)`, sums of positive terms."""
    zero = jnp.zeros_like(k)
    end = jax.lax.stop_gradient(_fallen(zero, k))
    rise, weights = _drops(zero, end)
    density = weights * jnp.exp(-per_node(k) * rise)
    total = _sum(density, end)
    return total, _sum(rise * density, end) / total


@jax.jit
def _velocity(theta: Array, k: Array) -> tuple[Array]:
    """The derivative of the quantile `theta` in `k`: the integral of `(cos(t) - A) exp(k (cos(t) - cos(theta)))`.

    `A = I_1 / I_0` is the mean of `cos(t)`. The integral goes from `|theta|` to pi where `cos(theta) < A`, and to 0 where
    not, so that nothing cancels and the exponential stays small.
    """
    side, theta = jnp.where(theta < 0, -1, 1).astype(theta.dtype), jnp.abs(theta)
    inside = _normalizer(k)[1] - 2 * jnp.sin(theta / 2) ** 2  # cos(theta) - A
    end = jnp.where(inside < 0, _fallen(theta, k), -jnp.tan(theta / 4))
    drop, weights = _drops(theta, end)
    integrand = weights * (per_node(inside) - drop) * jnp.exp(-per_node(k) * drop)
    return (side * _sum(integrand, end),)


def _mass_beyond(theta: Array, k: Array, normalizer: Array) -> tuple[Array, Array]:
    """The mass beyond `theta >= 0` over the density there, and twice the mass beyond."""
    end = _fallen(theta, k)
    drop, weights = _drops(theta, end)
    mass = _sum(weights * jnp.exp(-per_node(k) * drop), end)
    return mass, mass * jnp.exp(-2 * k * jnp.sin(theta / 2) ** 2) / normalizer


def _cdf(theta: Array, k: Array) -> Array:
    _, tails = _mass_beyond(jnp.abs(theta), k, _normalizer(k)[0])
    return jnp.where(theta < 0, tails / 2, 1 - tails / 2)


def _log_density(theta: Array, k: Array) -> Array:
    return -2 * k * jnp.sin(theta / 2) ** 2 - jnp.log(2 * _normalizer(k)[0])


_deviation = moving_draw(_velocity)
_deviation_cdf = distribution_function(_cdf, _log_density, _velocity)


@jax.jit
def _solve(u: Array, k: Array) -> Array:
    """The quantile of `u`, by Halley's method on the log of the mass beyond, as a function of the log distance to pi.

    That function is nearly linear at pi, where no step overshoots then. The starting point is a normal quantile of the same
    variance of `sin(theta / 2)`, at most that of the uniform distribution.
    """
    tails = 2 * jnp.minimum(u, 1 - u)
    normalizer, rest = _normalizer(k)
    normal = 2 * jnp.arcsin(jnp.minimum(-ndtri(tails / 2) * jnp.sqrt(rest / 2), 1))
    largest = np.pi * (1 - 2 * jnp.finfo(u.dtype).eps)
    theta = jnp.minimum(jnp.minimum(normal, np.pi * (1 - tails)), largest)
    for _ in range(3 if u.dtype == jnp.float64 else 2):  # to rounding, by `tests/test_von_mises.py`
        mass, found = _mass_beyond(theta, k, normalizer)
        left = _below_pi(theta)
        # With `m` the mass beyond over the density, the slope is `left / m`, and the curvature that times `bend`.
        newton = mass / left * jnp.log(found / tails)
        bend = 1 - left * (1 / mass - k * jnp.sin(theta))
        step = newton / jnp.maximum(1 - newton * bend / 2, 0.5)
        theta = jnp.clip(theta - left * jnp.expm1(-step), 0, largest)
    return jnp.where(u < 0.5, -theta, theta)
