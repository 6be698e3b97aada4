"""The von Mises-Fisher distribution on spheres."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mcgrad import _compat, _mesh
from mcgrad._types import PRNGKey
from mcgrad.distributions.base import Coupling, Distribution, WeakDerivative
from mcgrad.distributions.checks import POSITIVE, REAL
from mcgrad.distributions.derivatives.hahn_jordan import hahn_jordan_parts
from mcgrad.distributions.derivatives.quantile_rules import moving
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.beta import log_mean_exp_remainder
from mcgrad.distributions.numerics.gamma_rejection import standard_gamma
from mcgrad.distributions.numerics.quadrature import negligible_drop, per_node, unit_rule

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class VonMisesFisher(Distribution):
    """Von Mises-Fisher distribution of unit vectors: `p(x)` proportional to `exp(concentration mean_direction . x)`.

    Its derivative in the direction turns the draw with it, in the plane of the direction and its change. In the concentration
    the draw moves along the great circle through the direction, so that the quantile of its distance is kept, by quadrature to the
    precision of the dtype. Both to every order. Density and draw are those of the direction divided by its length.

    Args:
        mean_direction: a unit vector `[..., m]`, `m >= 2`.
        concentration: any shape that broadcasts with the batch axes of `mean_direction`; positive.

    Raises:
        ValueError: if a concrete parameter is outside its domain, or the shapes do not broadcast.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def cost(concentration, key):
        ...     return mcgrad.sample(key, mcgrad.VonMisesFisher(jnp.asarray([0.0, 0.6, 0.8]), concentration))[2]
        >>> gradient = mcgrad.pathwise_grad(cost, num_samples=4000)(2.0, jax.random.key(0))
        >>> bool(abs(gradient - 0.8 * 0.174) < 0.01)  # the mean is 0.8 (coth(concentration) - 1 / concentration)
        True

    References:
        Wood 1994, "Simulation of the von Mises Fisher distribution" (the draw), https://doi.org/10.1080/03610919408813161.
        Figurnov, Mohamed, Mnih 2018, "Implicit reparameterization gradients", equation 6 (its derivative in the concentration),
        https://arxiv.org/abs/1805.08498.
    """

    mean_direction: Float[ArrayLike, "*batch m"]
    concentration: Float[ArrayLike, "*batch"]

    domains: ClassVar = {"mean_direction": dataclasses.replace(REAL, event_ndim=1), "concentration": POSITIVE}
    event_ndim: ClassVar[int] = 1
    reparameterized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.event_shape[0] < 2:
            raise ValueError(
                "`mcgrad.VonMisesFisher(mean_direction=...)` must have at least two entries on its last axis, got shape "
                f"{jnp.shape(self.mean_direction)}. On a circle pass `[cos(angle), sin(angle)]`."
            )
        if isinstance(self.mean_direction, _compat.Tracer):
            return
        lengths = np.linalg.norm(np.asarray(self.mean_direction), axis=-1)
        if not (abs(lengths - 1) < 1e-3).all():
            raise ValueError(
                "`mcgrad.VonMisesFisher(mean_direction=...)` must be a unit vector, got one of length "
                f"{float(lengths.flat[np.argmax(abs(lengths - 1))])!r}. Divide it by its length."
            )

    @property
    def _direction(self) -> Array:
        return self.mean_direction / jnp.linalg.norm(self.mean_direction, axis=-1, keepdims=True)

    def sample(self, key: PRNGKey) -> Float[Array, "*batch m"]:
        key_distance, key_around = jax.random.split(key)
        shape = self.batch_shape + self.event_shape
        mu = jnp.broadcast_to(self._direction, shape)
        k = jnp.broadcast_to(self.concentration, shape[:-1])
        log_odds = jnp.expand_dims(_rejection(key_distance, stop(k), (shape[-1] - 1) / 2), -1)
        around = _across(jax.random.normal(key_around, shape, self.dtype), stop(mu))
        return _draw(_at(log_odds, stop(mu), around), mu, k)

    def weak_derivative(self, key: PRNGKey, x: Array, how: Coupling) -> tuple[WeakDerivative, ...]:
        """Hahn-Jordan in both: on the two sides of the direction; and nearer to it, and farther, than where `mu . x` has its mean.

        Where the direction turns, the density changes by the factor `concentration sin(t) c`, for the angle `t` to the direction
        and the cosine `c` of the angle, around it, to where it turns: `sin(t) p(t)` is the law of the angle for one entry more,
        and `|c|` has the density `c (1 - c^2)^((m - 4) / 2)`, up to constants. There is one term for each entry of the direction.
        """
        key_angle, key_side, key_around, key_concentration = jax.random.split(key, 4)
        batch, (m,) = self.batch_shape, self.event_shape
        a, tiny = (m - 1) / 2, jnp.finfo(self.dtype).tiny
        direction, k = jnp.broadcast_to(self._direction, (*batch, m)), jnp.broadcast_to(self.concentration, batch)
        mu, fixed = stop((direction, k))
        log_integral, mean = _normalizer(fixed, a)

        tangents = jnp.eye(m, dtype=self.dtype).reshape(m, *[1] * len(batch), m)
        tangents = tangents - jnp.expand_dims(jnp.moveaxis(mu, -1, 0), -1) * mu[None]  # [m, *batch, m]
        lengths = jnp.linalg.norm(tangents, axis=-1)
        units = tangents / jnp.maximum(jnp.expand_dims(lengths, -1), tiny)
        others = jnp.broadcast_to(jax.random.normal(key_around, (*batch, m), self.dtype), units.shape)
        others = _across(_across(others, mu[None]), units)
        log_odds = jnp.expand_dims(_rejection(key_angle, fixed, a + 0.5), -1)
        u = open_uniform(key_side, (*batch, 1), self.dtype)
        sides = []
        for sign, v in ((1, u), (-1, 1 - u if how.comonotone else u)):
            square = v ** (2 / (m - 2)) if m > 2 else jnp.zeros_like(v)  # 1 - c^2
            around = sign * jnp.sqrt(1 - square)[None] * units + jnp.sqrt(square)[None] * others
            sides.append(_at(log_odds[None], mu[None], around))
        mean_cosine = math.exp(math.lgamma(a) - math.lgamma(a + 0.5)) / (2 * math.sqrt(math.pi))
        rate_of_turn = fixed * mean_cosine * 2 * jnp.exp(_normalizer(fixed, a + 0.5)[0] - log_integral)
        weight = rate_of_turn[None] * lengths * jnp.moveaxis(direction, -1, 0)

        def rate(y: Array) -> Array:
            h, log_h, log_rest = jax.nn.sigmoid(y), jax.nn.log_sigmoid(y), jax.nn.log_sigmoid(-y)
            return -_velocity(y, fixed, a) * jnp.exp(a * (log_h + log_rest) - 2 * fixed * h - log_integral)

        turn = jnp.log(mean) - jnp.log1p(-mean)
        mass, *parts = hahn_jordan_parts(rate, turn[None], key_concentration, turn, how)
        around = _across(x, mu)
        near, far = (_at(jnp.expand_dims(y, -1), mu, around) for y in parts)
        return (
            WeakDerivative(("mean_direction",), weight, *sides),
            WeakDerivative.single("concentration", mass * k, near, far),
        )

    def log_prob(self, x: Float[ArrayLike, "*batch m"]) -> Float[Array, "*batch"]:
        """Log density of a unit vector, for areas on the sphere."""
        x, mu = align(x, self._direction)
        squares, k = align(jnp.sum((x - mu) ** 2, -1), self.concentration)
        a = (self.event_shape[0] - 1) / 2
        sphere = math.log(2) + a * math.log(math.pi) - math.lgamma(a) + (2 * a - 1) * math.log(2)
        return -k * squares / 2 - _normalizer(k, a)[0] - sphere


# In what follows `h = (1 - mu . x) / 2`, in (0, 1), and `a = (m - 1) / 2`. The log odds `y` of `h` have the density
# exp(a log(h (1 - h)) - 2 k h), up to a constant, and the angle between `mu` and `x` is `t` with `exp(y / 2) = tan(t / 2)`.


def _across(vector: Array, unit: Array) -> Array:
    """The direction of the part of a vector that is orthogonal to a unit vector."""
    for _ in range(2):  # once more for what rounding left
        vector = vector - jnp.sum(vector * unit, -1, keepdims=True) * unit
        vector = vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), jnp.finfo(vector.dtype).tiny)
    return vector


def _at(log_odds: Array, mu: Array, around: Array) -> Array:
    """The unit vector at some log odds from `mu`, in the direction of `around`."""
    h, rest = jax.nn.sigmoid(log_odds), jax.nn.sigmoid(-log_odds)
    return (rest - h) * mu + 2 * jnp.sqrt(h * rest) * around


@moving
def _draw(x: Array, mu: Array, k: Array) -> Callable[[Array, Array], Array]:
    tiny = jnp.finfo(x.dtype).tiny
    square = jnp.sum((x - mu) ** 2, -1)
    log_odds = jnp.log(jnp.maximum(square, tiny)) - jnp.log(jnp.maximum(jnp.sum((x + mu) ** 2, -1), tiny))
    less = jnp.expand_dims(square / 2, -1)  # 1 - cos(t)

    def along(mu_dot: Array, k_dot: Array) -> Array:
        # dt/dk = sin(t) / 2 dy/dk, along (cos(t) x - mu) / sin(t)
        rate = jnp.expand_dims(_velocity(log_odds, k, (x.shape[-1] - 1) / 2) * k_dot / 2, -1)
        turned = (1 - less) * mu_dot - jnp.sum(mu_dot * x, -1, keepdims=True) * mu
        return rate * ((x - mu) - less * x) + turned

    return along


def _rejection(key: PRNGKey, k: Array, a: float) -> Array:
    """Draws of the log odds: those of a beta draw of concentrations `a` and `a`, shifted by `log b`, and rejected."""
    b = a / (k + jnp.hypot(k, a))
    shape = jnp.full_like(k, a)

    def propose(state: tuple[PRNGKey, Array, Array]) -> tuple[PRNGKey, Array, Array]:
        key, y, rejected = state
        key, key_uniform, *keys = jax.random.split(key, 4)
        one, two = (standard_gamma(key, shape)[1] for key in keys)
        proposed = one - two + jnp.log(b)
        h = jax.nn.sigmoid(proposed)
        log_u = -jax.random.exponential(key_uniform, k.shape, k.dtype)
        # no comparison holds for NaN, which is so accepted
        accept = 2 * k * (b / (1 + b) - h) + 2 * a * (jnp.log1p(b) - math.log(2) + jnp.log1p(h * (1 - b) / b))
        return key, jnp.where(rejected, proposed, y), rejected & (log_u > accept)

    start = (key, jnp.zeros_like(k), jnp.ones(k.shape, bool))
    return _mesh.while_loop(lambda state: jnp.any(state[2]), propose, start)[1]


def _integrand(lower: Array, h: Array, rest: Array, k: Array, a: Array | float) -> tuple[Array, Array]:
    """At log odds at distances below or above those of `h`: weights times the density over that at `h`, and `|change of h|`.

    The numbers of nodes are enough for `tests/test_von_mises_fisher.py`, from two entries to thousands.
    """
    a = jnp.broadcast_to(jnp.asarray(a, h.dtype), h.shape)
    fall = negligible_drop(h.dtype)
    w, other, sign = jnp.where(lower, h, rest), jnp.where(lower, rest, h), jnp.where(lower, 1, -1).astype(h.dtype)

    def drop(r: Array, w: Array, other: Array, k: Array, a: Array, sign: Array) -> tuple[Array, Array]:
        beyond = log_mean_exp_remainder(r, w, other)
        change = -w * other * jnp.expm1(-r) * jnp.exp(w * r - beyond)
        return a * ((other - w) * r + 2 * beyond) - sign * 2 * k * change, change

    # the end, to 6 %: the logarithm of 1e6, halved eight times
    high = (fall + 5 * a) / a - 2 * jnp.log(jnp.maximum(other, jnp.finfo(h.dtype).tiny))
    low = 1e-6 * high
    for _ in range(8):
        middle = jnp.sqrt(low * high)
        enough = drop(middle, w, other, k, a, sign)[0] > fall
        low, high = jnp.where(enough, low, middle), jnp.where(enough, middle, high)
    end = per_node(stop(high))

    # [..., node]
    nodes, weights = unit_rule(h, 80, 28)
    fallen, change = drop(end * nodes, *map(per_node, (w, other, k, a, sign)))
    return end * weights * jnp.exp(-fallen), change


def _normalizer(k: Array, a: Array | float) -> tuple[Array, Array]:
    """The logarithm of the integral of the density of the log odds, and the mean of `h`; from the mode on both sides."""
    root = stop(jnp.hypot(k, a) + k)
    h, rest = a / (root + a), root / (root + a)
    (below, down), (above, up) = (_integrand(jnp.full(h.shape, side), h, rest, k, a) for side in (True, False))
    total = jnp.sum(below + above, -1)
    mean = h + jnp.sum(above * up - below * down, -1) / total
    return a * (jnp.log(h) + jnp.log(rest)) - 2 * k * h + jnp.log(total), mean


@jax.jit
def _velocity(y: Array, k: Array, a: Array | float) -> Array:
    """`dy/dk = -F_k / p` at a fixed quantile of the log odds: twice the integral of `h - E[h]` times the density over that at `y`.

    It goes over the side where `h - E[h]` has the sign that it has at `y`, so that nothing cancels.
    """
    h, rest = jax.nn.sigmoid(y), jax.nn.sigmoid(-y)
    apart = h - _normalizer(k, a)[1]
    weights, change = _integrand(apart < 0, h, rest, k, a)
    return -2 * jnp.sum(weights * (per_node(jnp.abs(apart)) + change), -1)
