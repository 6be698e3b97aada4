"""One-dimensional distributions known by their log density alone: quantiles and draws by adaptive quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad.distributions.numerics.arithmetic import align, open_uniform
from mcgrad.distributions.numerics.quadrature import gauss_legendre

Support = tuple[float, float]
_stop = jax.lax.stop_gradient


class _Rule(NamedTuple):
    """The accuracy of quadrature in one dtype."""

    num_nodes: int  # Gauss-Legendre nodes of a panel
    num_panels: int  # at first, on each side
    num_splits: int
    reach: int  # logarithm of the largest distance that is looked at, and minus that of the smallest
    negligible: float  # how far below its maximum the logarithm of an integrand counts as zero


def _rule(dtype: Any) -> _Rule:
    # enough for the accuracy stated in `implicit_reparameterization`, by `tests/test_log_density.py`
    return _Rule(16, 10, 44, 600, 42.0) if dtype == jnp.float64 else _Rule(10, 8, 44, 80, 22.0)


def check_support(where: str, support: Any) -> Support:
    """Two numbers, the first below the second."""
    try:
        low, high = (float(bound) for bound in support)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(
            f"`mcgrad.{where}(support=...)` must be two numbers `(low, high)` with low < high, got {support!r}. Infinite "
            "bounds are written `-math.inf` and `math.inf`; a support that moves with the parameters is no such pair."
        )
    return low, high


def log_odds(log_prob: Callable[[Array, Any], Array], support: Support) -> Callable[[Array, Any], Array]:
    """`log F(x; params) - log(1 - F(x; params))` for the distribution of density proportional to `exp(log_prob)` on `support`.

    The nodes do not move: derivatives in `params` are those of the sums over them. Derivatives in `x` come from a panel
    of length zero, `int_x0^x` with `x0 = stop(x)`, so that they are those of the density at `x` itself (to eighth order,
    with four nodes), and a kink of the density elsewhere does no harm.
    """
    ends, end_weights = gauss_legendre(4)

    def function(x: Array, params: Any) -> Array:
        center, frozen = _inside(_stop(x), support), _stop(params)
        panels = _adapt(lambda t: log_prob(t, frozen), center, support)
        nodes, log_weights = _stop(_nodes(lambda t: log_prob(t, frozen), center, support, panels))
        along = lambda t: jax.vmap(lambda t: log_prob(t, params))(t)  # noqa: E731
        flat = along(nodes.reshape(-1, *x.shape)).reshape(nodes.shape) + log_weights
        below, above = special.logsumexp(flat, axis=1)  # [2, node, *batch]
        step = x - _stop(x)
        column = lambda row: jnp.asarray(row, x.dtype).reshape(-1, *[1] * x.ndim)  # noqa: E731
        density = along(center[None] + step[None] * column(ends))

        def relative_mass(log_mass: Array) -> Array:
            return step * jnp.sum(column(end_weights) * jnp.exp(density - log_mass[None]), axis=0)

        return below + jnp.log1p(relative_mass(below)) - above - jnp.log1p(-relative_mass(above))

    return function


def draw_by_inversion(log_prob: Callable[[Array, Any], Array], support: Support, key: Any, params: Any) -> Array:
    """A draw at the quantile of a uniform number, without derivatives."""
    u, params = uniform_for(log_prob, key, params), _stop(params)
    density = lambda t: log_prob(t, params)  # noqa: E731
    return _quantile(density, u, _highest(density, jnp.full_like(u, _start(support)), support), support)


def uniform_for(fn: Callable[..., Array], key: Any, *params: Any) -> Array:
    """A uniform number for each entry of `fn(u, *params)`: entries with a common one would not be independent."""
    floats = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    dtype = jnp.result_type(float, *floats)
    return open_uniform(key, jax.eval_shape(fn, jax.ShapeDtypeStruct((), dtype), *params).shape, dtype)


def _start(support: Support) -> float:
    low, high = support
    if math.isinf(low):
        return 0.0 if math.isinf(high) else high - 1.0
    return low + 1.0 if math.isinf(high) else low + (high - low) / 2


def _inside(x: Array, support: Support) -> Array:
    """A draw that was rounded to a bound is put beside it."""
    low, high = (jnp.asarray(bound, x.dtype) for bound in support)
    tiny = jnp.finfo(x.dtype).tiny
    # subnormal numbers count as zero
    above = jnp.where(low == 0, tiny, jnp.nextafter(low, jnp.asarray(jnp.inf, x.dtype)))
    below = jnp.where(high == 0, -tiny, jnp.nextafter(high, jnp.asarray(-jnp.inf, x.dtype)))
    return jnp.clip(x, above, below)


def _place(tau: Array, center: Array, support: Support) -> tuple[Array, Array]:
    """Points at distance `s(tau)` below (`tau[0]`) and above (`tau[1]`) the center, and `log ds/dtau`.

    `s = exp(tau)` towards infinity, and `s = D sigmoid(tau)` towards a bound at distance `D`, whose surroundings are then
    resolved as finely as those of the center: a power of the distance becomes an exponential of `tau`.
    """
    (center, _), points, slopes = align(center, tau[0]), [], []
    for side, sign, bound in zip(tau, (-1, 1), support, strict=True):
        if math.isinf(bound):
            points.append(center + sign * jnp.exp(side))
            slopes.append(side)
        else:
            distance = sign * (bound - center)
            from_bound = bound - sign * distance * jax.nn.sigmoid(-side)
            from_center = center + sign * distance * jax.nn.sigmoid(side)
            points.append(_inside(jnp.where(side > 0, from_bound, from_center), support))
            slopes.append(jnp.log(distance) + jax.nn.log_sigmoid(side) + jax.nn.log_sigmoid(-side))
    return jnp.stack(points), jnp.stack(slopes)


def _integrand(density: Callable[[Array], Array], center: Array, support: Support, tau: Array) -> Array:
    """Log of the density times `ds/dtau`, at `tau` of shape `[2, ..., *batch]`."""
    points, slopes = _place(tau, center, support)
    values = jax.vmap(density)(points.reshape(-1, *center.shape)).reshape(tau.shape) + slopes
    return jnp.where(jnp.isnan(values), -jnp.inf, values)  # where a user's function overflows


class _Panels(NamedTuple):
    """Intervals of `tau`, unordered, `[2, panel, *batch]`, and the maximum of the log integrand `[2, *batch]`."""

    left: Array
    width: Array
    highest: Array


def _scan(center: Array) -> Array:
    """The first points to look at, `[2, point, *batch]`: every power of e, and farther away every eighth."""
    reach = _rule(center.dtype).reach
    near = np.arange(-40, 41)
    far = np.arange(48, reach + 1, 8)
    tau = _column(np.concatenate([-far[::-1], near, far]), center[None], 0)[None]
    return jnp.broadcast_to(tau, (2, tau.shape[1], *center.shape))


def _adapt(density: Callable[[Array], Array], center: Array, support: Support) -> _Panels:
    """Panels that resolve the density on both sides of the center: the worst is halved, again and again."""
    rule = _rule(center.dtype)
    tau = _scan(center)
    values = _integrand(density, center, support, tau)
    highest = jnp.max(values, axis=1)
    counts = values > highest[:, None] - rule.negligible
    before = jnp.maximum(jnp.argmax(counts, axis=1) - 1, 0)
    after = counts.shape[1] - jnp.argmax(counts[:, ::-1], axis=1)
    first, last = (
        jnp.take_along_axis(tau, jnp.minimum(i, tau.shape[1] - 1)[:, None], axis=1)[:, 0] for i in (before, after)
    )
    reference = jnp.where(jnp.isfinite(highest), highest, 0.0)

    nodes, weights = gauss_legendre(rule.num_nodes)
    # the last two Legendre coefficients tell how well a polynomial fits
    tests = [
        (2 * k + 1) * weights * np.polynomial.legendre.Legendre.basis(k)(2 * nodes - 1)
        for k in (rule.num_nodes - 2, rule.num_nodes - 1)
    ]

    def error(left: Array, width: Array) -> Array:
        tau = _spread(left, width, nodes)  # [2, panel, node, *batch]
        logs = _integrand(density, center, support, tau) - reference[:, None, None]
        height = jnp.exp(jnp.minimum(logs, 80.0))
        fits = [jnp.sum(height * _column(row, height, 2), axis=2) for row in tests]
        # Without a factor `width`: beside a kink of the density its derivatives in parameters jump.
        return jnp.where(width > 0, sum(jnp.abs(fit) for fit in fits), 0.0)

    total = rule.num_panels + rule.num_splits
    fraction = _column(np.arange(total), first[:, None], 1)
    width = jnp.broadcast_to(((last - first) / rule.num_panels)[:, None], (2, total, *center.shape))
    made = fraction < rule.num_panels
    left = jnp.where(made, first[:, None] + fraction * width, last[:, None])
    width = jnp.where(made, width, 0.0)
    errors = error(left, width)

    def split(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, width, errors = state
        worst = jnp.argmax(errors, axis=1)[:, None]
        half = jnp.take_along_axis(width, worst, axis=1) / 2
        start = jnp.take_along_axis(left, worst, axis=1)
        lefts, widths = jnp.concatenate([start, start + half], 1), jnp.concatenate([half, half], 1)
        news = (lefts, widths, error(lefts, widths))
        slot = jnp.arange(total).reshape(1, -1, *[1] * center.ndim)

        def put(old: Array, new: Array) -> Array:
            return jnp.where(slot == worst, new[:, :1], jnp.where(slot == rule.num_panels + i, new[:, 1:], old))

        return put(left, news[0]), put(width, news[1]), put(errors, news[2])

    left, width, _ = _mesh.fori_loop(0, rule.num_splits, split, (left, width, errors))
    return _Panels(left, width, highest)


def _nodes(density: Callable[[Array], Array], center: Array, support: Support, panels: _Panels) -> tuple[Array, Array]:
    """Points and log weights `[2, panel * node, *batch]`. **NaN where the density jumps inside the support.**"""
    rule = _rule(center.dtype)
    nodes, weights = gauss_legendre(rule.num_nodes)
    tau = _spread(panels.left, panels.width, nodes)
    flat = (2, -1, *center.shape)
    log_weights = jnp.log(panels.width)[:, :, None] + _column(np.log(weights), tau, 2)
    tau, log_weights = tau.reshape(flat), log_weights.reshape(flat)
    points, slopes = _place(tau, center, support)
    values = _integrand(density, center, support, tau)
    # A jump to zero would move with the parameters, and with it a mass that no density at the nodes knows of.
    order = jnp.argsort(tau, axis=1)
    ordered = jnp.take_along_axis(values, order, axis=1)
    high = ordered > panels.highest[:, None] - 5.0
    jumps = jnp.any(
        (high[:, :-1] & jnp.isneginf(ordered[:, 1:])) | (high[:, 1:] & jnp.isneginf(ordered[:, :-1])), axis=1
    )
    counts = values > panels.highest[:, None] - 2 * rule.negligible
    points = jnp.where(counts, points, center)
    log_weights = jnp.where(counts, log_weights + slopes, -jnp.inf)
    return points, jnp.where(jumps[:, None], jnp.nan, log_weights)


def _column(row: np.ndarray, like: Array, axis: int) -> Array:
    """A row along one axis of an array."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return jnp.asarray(row, like.dtype).reshape(shape)


def _spread(left: Array, width: Array, nodes: np.ndarray) -> Array:
    """Nodes in intervals `[2, panel, *batch]`, as `[2, panel, node, *batch]`."""
    left, width = left[:, :, None], width[:, :, None]
    return left + width * _column(nodes, left, 2)


def _highest(density: Callable[[Array], Array], center: Array, support: Support) -> Array:
    """The mode of a density with one maximum: the highest of points at all distances, again from there."""

    def step(_: int, center: Array) -> Array:
        points = _place(_scan(center), center, support)[0]
        points = jnp.concatenate([center[None], points.reshape(-1, *center.shape)])
        values = jax.vmap(density)(points)
        best = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values), axis=0)[None]
        return jnp.take_along_axis(points, best, axis=0)[0]

    # Each step at least halves the distance to the maximum: from any place to one part in 1e12 of where it is.
    return _mesh.fori_loop(0, 40, step, center)


def _quantile(density: Callable[[Array], Array], u: Array, center: Array, support: Support) -> Array:
    """The point below which a fraction `u` of the mass lies."""
    rule = _rule(center.dtype)
    nodes, weights = gauss_legendre(rule.num_nodes)
    panels = _adapt(density, center, support)
    shift = jnp.max(panels.highest, axis=0)

    def mass(left: Array, right: Array) -> Array:
        tau = _spread(left, right - left, nodes)
        logs = _integrand(density, center, support, tau) - align(shift, tau)[0]
        return (right - left) * jnp.sum(jnp.exp(logs) * _column(weights, tau, 2), axis=2)

    # Masses from the far end of each side inwards, so that those of the tails keep their digits.
    order = jnp.argsort(-panels.left, axis=1)
    left, width = (jnp.take_along_axis(array, order, axis=1) for array in panels[:2])
    masses = mass(left, left + width)
    reached = jnp.cumsum(masses, axis=1)
    total = reached[0, -1] + reached[1, -1]
    wanted = jnp.stack([u * total, (1 - u) * total])
    upper = u * total > reached[0, -1]
    panel = jnp.minimum(jnp.sum(reached < wanted[:, None], axis=1, keepdims=True), left.shape[1] - 1)
    low, size, inner, until = (jnp.take_along_axis(array, panel, axis=1) for array in (left, width, masses, reached))
    end, rest = low + size, wanted[:, None] - (until - inner)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        near, far = bounds
        middle = near + (far - near) / 2
        enough = mass(middle, end) >= rest
        return jnp.where(enough, middle, near), jnp.where(enough, far, middle)

    near, _ = _mesh.fori_loop(0, jnp.finfo(u.dtype).nmant + 2, halve, (low, end))
    below, above = _place(near[:, 0], center, support)[0]
    return jnp.where(upper, above, below)
