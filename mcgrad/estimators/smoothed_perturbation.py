"""Smoothed perturbation analysis: a discrete draw and its neighbors."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._arguments import check_option
from mcgrad._types import static_field
from mcgrad.distributions import Bernoulli, Binomial
from mcgrad.program import Alternatives, Draw, Estimator, SignedPoints, Site, zero_with_derivative_of
from mcgrad.program.density import probability


@dataclasses.dataclass(frozen=True)
class SmoothedPerturbation(Estimator):
    r"""Smoothed perturbation analysis (stochastic triples) of an integer-valued draw: what if it were one more, or one less.

    Summation by parts of `E[f(x)] = sum_k p(k) f(k)`, with the distribution function `F`, gives

        d E[f(x)] = E[ -dF(x) / p(x) (f(x + 1) - f(x)) ]            (right)
                  = E[  dF(x - 1) / p(x) (f(x - 1) - f(x)) ]        (left)

    and for `sides="both"` each with the share of `p(x)` in the probability of both values, so that what divides is the latter:
    of all shares those that depend on nothing but the two values, these have the least variance where the cost differs as much
    seen from either. Unbiased, for the first derivative; a second one raises. For distributions on integers
    with a `cdf`: `Bernoulli`, `Binomial`, `Geometric`, `NegativeBinomial`, `Poisson`, `Categorical` (of classes in their order)
    and those of a user. Values without probability are stepped over where the support is known.
    Later draws share their keys with those of the real path, so what the perturbation does not reach cancels.
    Two evaluations of the rest of the program more for `"both"`, one for a single side, batch axes that no cost mixes
    together.

    **Inside a `scan`** one alternative path is carried beside the real one, whatever the number of steps: a second
    simulation, where `mcgrad.Score` has a variance that grows with the number of steps. States count as merged where
    they agree up to rounding.

    Parameters must lie inside their domain: at a probability of exactly 0 or 1 one side is never seen.

    Args:
        sides: `"both"`, `"right"` or `"left"`.

    Raises:
        ValueError: where it is built, for other `sides`; where the program is planned, for a distribution that is not on
            integers or has no `cdf`.
        NotImplementedError: for a second derivative, and inside a `while_loop`.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.SmoothedPerturbation())
        ...     return 3.0 * b
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Gong and Ho 1987; Fu and Hu 1997, chapter 3, "Conditional Monte Carlo"; Arya et al. 2022, table 1 and section 4
        (pruning), "Automatic Differentiation of Programs with Discrete Randomness", https://arxiv.org/abs/2210.08572.
    """

    sides: Literal["both", "right", "left"] = static_field(default="both")

    follows_alternatives = True
    sees_the_impossible = True

    def __post_init__(self) -> None:
        check_option("SmoothedPerturbation(sides=...)", self.sides, ("both", "right", "left"))

    def why_not(self, site: Site) -> str | None:
        facts = site.facts
        if not (facts.discrete and facts.scalar_event and {"cdf", "log_prob"} <= facts.knows):
            return (
                "the distribution must be one of integers with a `cdf`, such as Bernoulli, Binomial, Geometric, Poisson or "
                "Categorical"
            )
        if facts.support is not None and np.any(np.diff(np.sort(facts.support)) != 1):
            return (
                f"the values of the distribution must be consecutive integers, and are {facts.support.tolist()}. "
                "Draw a position by `mcgrad.Categorical`"
            )
        return None

    def alternatives(self, draw: Draw, x: Any) -> Alternatives:
        steps = {"both": (1, -1), "right": (1,), "left": (-1,)}[self.sides]

        # What is possible asks for no parameter where none but the ends stop a step: inside a `scan` that keeps a step small.
        gapless = isinstance(draw.site.base_dist, (Bernoulli, Binomial))

        def neighbors(dist: Any, x: Array) -> list[tuple[Array, Array, Array]]:
            here = stop(probability(dist, x))
            beside = [_beside(dist, x, step, draw.facts.support, gapless) for step in steps]
            seen_from = [here + stop(probability(dist, y)) if self.sides == "both" else here for y in beside]
            return [_alternative(dist, x, *pair) for pair in zip(beside, seen_from, strict=True)]

        return Alternatives(*(jnp.stack(parts) for parts in zip(*draw.under_vmaps(neighbors, x), strict=True)))

    def represent(self, draw: Draw) -> SignedPoints:
        x = draw.sample()
        found = self.alternatives(draw, x)
        return SignedPoints(x, found.values, found.coefficients, relative=True)


def _beside(dist: Any, x: Array, step: int, support: np.ndarray | None, gapless: bool) -> Array:
    """The next value above or below that has probability; `x` itself where there is none."""
    if support is None:
        return jnp.where(stop(probability(dist, x + step)) > 0, x + step, x)
    if gapless:
        return jnp.clip(x + step, int(np.min(support)), int(np.max(support)))
    values = jnp.asarray(support, x.dtype)
    possible = stop(jax.vmap(lambda value: probability(dist, jnp.full_like(x, value)))(values)) > 0  # [n, *batch]
    values = values.reshape(-1, *[1] * x.ndim)
    beyond = possible & ((values - x[None]) * step > 0)
    distance = jnp.where(beyond, jnp.abs(values - x[None]), values.size)
    nearest = jnp.min(distance, axis=0)
    return jnp.where(nearest < values.size, x + step * nearest, x).astype(x.dtype)


def _alternative(dist: Any, x: Array, y: Array, probability: Array) -> tuple[Array, Array, Array]:
    """A value `y` beside the draw, its coefficient, of value zero, and its size, which is zero where `y` is `x`.

    `probability` is that of the draws that see the step between the two. The size takes `F (1 - F)` for the derivative of the
    distribution function `F`: the derivative in a location on the scale of log odds.
    """
    below = dist.cdf(jnp.minimum(x, y))
    coefficient = jnp.sign(x - y).astype(probability.dtype) * zero_with_derivative_of(below) / probability
    size = jnp.maximum(stop(below * (1 - below)) / probability, jnp.finfo(probability.dtype).eps)
    return y, jnp.where(y == x, 0, coefficient), jnp.where(y == x, 0, size)
