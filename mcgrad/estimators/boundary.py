"""The pathwise estimator with the term that a jump of the cost adds."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad.program import Draw, Estimator, Rest, Result, SignedPoints, Site, zero_with_derivative_of
from mcgrad.program.estimator import OnJump
from mcgrad.program.thresholds import Decision


@dataclasses.dataclass(frozen=True)
class PathwiseWithBoundary(Estimator):
    r"""Pathwise, also where costs jump: at each threshold `c` of the draw, what the jump adds.

        d E[f(x)] = E[ f'(x) dx/dtheta ] + sum_c (f(c-) - f(c+)) dF(c; theta)

    with the distribution function `F`; `dF` is total: a threshold that moves with `theta` counts too. Thresholds are found in
    the program: comparisons (`<`, `<=`, `>`, `>=`), or `sign`, of something affine in the draw, whether they end in `where`, in
    `cond` or as a number. Where the cost does not jump there, as at the joint of Huber's loss, the term is zero by itself.

    Unbiased, for the first derivative; a second one raises. Distributions of scalars with a pathwise derivative and a `cdf`. Two
    evaluations of the rest of the program more for each threshold, for all entries of a batch at once that no cost
    mixes together, one by one along axes that some cost does.

    Raises:
        ValueError: where the program is planned, for a distribution without a `cdf` or a pathwise derivative, or of vectors;
            where it is traced, for a jump that is no such comparison (`floor`, `argmax`, a comparison of squares, of
            entries with each other, or with a later draw), with its line.
        NotImplementedError: for a second derivative, and inside loops.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def profit(price, key):
        ...     value = mcgrad.sample(key, mcgrad.Normal(1.0 + 0.1 * price, 0.5), mcgrad.PathwiseWithBoundary())
        ...     return jnp.where(value > price, price, 0.0)
        >>> mcgrad.grad(profit)(0.8, jax.random.key(0)).shape
        ()

    References:
        Lee, Yu and Yang 2018, theorem 1, "Reparameterization Gradient for Non-differentiable Models",
        https://arxiv.org/abs/1806.00176.
    """

    moves_draw = True
    follows_thresholds = True

    def on_jump(self, *, certain: bool) -> OnJump:
        return "ignore"

    def why_not(self, site: Site) -> str | None:
        facts = site.facts
        if facts.pathwise_obstacle is not None:
            return facts.pathwise_obstacle
        scalars = facts.scalar_event and "cdf" in facts.knows
        return None if scalars else "the distribution must be one of scalars with a `cdf`"

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        x = draw.sample_path()
        thresholds = rest.thresholds(draw)
        if not thresholds:
            return rest(x)
        here = stop(x)
        slopes, places = {}, []
        for equation, margin in thresholds:
            at_draw, slope = jax.jvp(margin, (here,), (jnp.ones_like(here),))
            slopes[equation] = stop(slope)
            # affine: one step of Newton's method; without a slope the comparison does not depend on the draw
            places.append(here - at_draw / jnp.where(slope == 0, 1, slope))
        moving = jnp.stack([slope != 0 for slope in slopes.values()])
        place = jnp.stack(places)  # [threshold, *plates]
        reach = _ROUNDING * jnp.finfo(place.dtype).eps * (jnp.abs(stop(place)) + jnp.abs(here)[None])
        # comparisons that tie at one place are decided together, so each has its share of the jump
        together = jnp.abs(stop(place)[:, None] - stop(place)[None]) <= reach[:, None]
        shares = jnp.sum(together & moving[None], axis=1)
        level = jax.vmap(lambda place: draw.under_vmaps(lambda dist, c: dist.cdf(c), place))(place)
        coefficients = jnp.where(moving, zero_with_derivative_of(level) / jnp.maximum(shares, 1), 0)
        # where the distribution gives no density there is nothing to weigh, and perhaps nothing to evaluate
        inside = (
            jax.vmap(draw.log_prob)(stop(place)) > -jnp.inf if "log_prob" in draw.facts.knows else jnp.isfinite(place)
        )
        points = jnp.where(moving & inside, stop(place), here[None])

        def both(below: Any, above: Any) -> Array:
            return jnp.concatenate([below, above])

        n = len(thresholds)
        decision = Decision(slopes, jnp.repeat(jnp.asarray([-1, 1]), n), both(reach, reach))
        return rest.evaluate(
            draw, SignedPoints(x, both(points, points), both(coefficients, -coefficients), decision=decision)
        )


_ROUNDING = 64
"""Units in the last place within which a draw counts as on a threshold: more than the roundings of the affine function that is
compared, and so few that a draw lies there with a probability of rounding size."""
