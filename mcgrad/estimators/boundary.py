"""The pathwise estimator with the term that a jump of the cost adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._arguments import check_option
from mcgrad._types import static_field
from mcgrad.program import Alternatives, Draw, Estimator, Rest, Result, SignedPoints, Site, zero_with_derivative_of
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

    **Inside a `scan`** one threshold of all steps, chosen in proportion to the density there, is followed by two simulations
    beside the real one, just below and just above it, whatever the number of steps. A comparison must be of a draw of its own
    step, and may be of earlier draws too: `time + wait < horizon` belongs to the `wait` of this step. Values and gradients are
    NaN where the draw has a factor of zero in such a comparison: then it tells of earlier draws only.

    **Which draws see a threshold** (`sides`): what happens there does not depend on the draw, so it may be counted for draws
    above it only, with the weight `1 / P(x > c)`, or for draws below. A simulation that ends where a waiting time passes a
    horizon ends so once, and what the boundary adds to it is the rate of events times what one more of them does.

    Args:
        sides: `"both"`, `"right"`, only draws above a threshold, or `"left"`, only draws below. One side has a large variance
            where it has little probability.

    Raises:
        ValueError: where it is built, for other `sides`; where the program is planned, for a distribution without a `cdf` or a
            pathwise derivative, or of vectors, and for a jump that is no such comparison (`floor`, `argmax`, a comparison of
            squares, of entries with each other, with a later draw, in a loop with earlier draws only), with its line.
        NotImplementedError: for a second derivative, and inside a `while_loop`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def profit(price, key):
        ...     value = mcgrad.sample(key, mcgrad.Normal(1.0 + 0.1 * price, 0.5), mcgrad.PathwiseWithBoundary())
        ...     return jnp.where(value > price, price, 0.0)
        >>> mcgrad.grad(profit)(0.8, jax.random.key(0)).shape
        ()

    References:
        Lee, Yu and Yang 2018, theorem 1, "Reparameterization Gradient for Non-differentiable Models",
        https://arxiv.org/abs/1806.00176; Fu and Hu 1997, chapter 3 (conditional Monte Carlo), and Arya et al. 2022, section 4
        (pruning), https://arxiv.org/abs/2210.08572, for loops.
    """

    sides: Literal["both", "right", "left"] = static_field(default="both")

    moves_draw = True
    follows_thresholds = True
    follows_alternatives = True
    pairs = True

    def __post_init__(self) -> None:
        check_option("PathwiseWithBoundary(sides=...)", self.sides, ("both", "right", "left"))

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
        draw = rest.with_crossings(draw, x)
        if draw.crossings is None:
            return rest(x)
        found, n = self.alternatives(draw, x), len(draw.crossings.equations)
        reach = jnp.concatenate([draw.crossings.reaches(x)] * 2)
        slopes = dict(zip(draw.crossings.equations, draw.crossings.slopes, strict=True))
        decision = Decision(slopes, jnp.repeat(jnp.asarray([-1, 1]), n), reach)
        points = jnp.concatenate([found.values, found.against])
        coefficients = jnp.concatenate([found.coefficients, -found.coefficients])
        return rest.evaluate(draw, SignedPoints(x, points, coefficients, decision=decision))

    def alternatives(self, draw: Draw, x: Array) -> Alternatives:
        """At each threshold the draw itself just below, against just above."""
        crossings, here = draw.crossings, stop(x)
        if crossings is None:
            none = jnp.zeros((1, *draw.plates), here.dtype)
            return Alternatives(here[None], none, none, here[None])
        place = crossings.places  # [n, *plates]
        moving = crossings.slopes != 0
        # comparisons that tie at one place are decided together, so each has its share of the jump
        together = jnp.abs(stop(place)[:, None] - stop(place)[None]) <= crossings.reaches(x)[:, None]
        shares = jnp.sum(together & moving[None], axis=1)
        level = self._at(draw, lambda dist, c: dist.cdf(c), place)
        # where the distribution gives no density there is nothing to weigh, and perhaps nothing to evaluate
        inside, density = jnp.isfinite(place), stop(level * (1 - level))
        if "log_prob" in draw.facts.knows:
            log_density = stop(jax.vmap(draw.log_prob)(stop(place)))
            inside, density = log_density > -jnp.inf, jnp.exp(log_density) * crossings.extents
        weight = self._weight(draw, here, stop(place), stop(level)) / jnp.maximum(shares, 1)
        points = jnp.where(moving & inside, stop(place), here[None])
        size = jnp.where(inside, weight * jnp.maximum(density, jnp.finfo(density.dtype).eps), 0)
        return Alternatives(
            points,
            jnp.where(moving, weight * zero_with_derivative_of(level), 0),
            jnp.where(moving, size, jnp.inf),
            points,
        )

    def _weight(self, draw: Draw, x: Array, place: Array, level: Array) -> Array:
        """The weight of a draw that sees a threshold: one in the mean over the draws."""
        if self.sides == "both":
            return jnp.ones_like(level)
        if self.sides == "left":
            return jnp.where(x <= place, 1 / jnp.where(level > 0, level, 1), 0)
        above = self._at(draw, _survival, place)
        return jnp.where(x > place, 1 / jnp.where(above > 0, above, 1), 0)

    @staticmethod
    def _at(draw: Draw, fn: Callable[[Any, Array], Array], places: Array) -> Array:
        return jax.vmap(lambda place: draw.under_vmaps(fn, place))(places)


def _survival(dist: Any, x: Array) -> Array:
    own = getattr(dist, "survival", None)
    return stop(1 - dist.cdf(x) if own is None else own(x))
