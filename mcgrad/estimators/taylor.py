"""Control variates by the delta method: the second-order expansion of the cost at the mean of the draw.

Let `h(x)` be the expansion, its coefficients held fixed. Its expectation is known from the mean and the covariance of the draw,
as a function of the parameters, so that for any estimator `G` that is right for every cost, `G[h] - E[h]` has expectation zero
as a function of them. Moved with `t + c (p - t)` in place of a parameter `p`, at a fixed `t` that is equal to it, its derivative in
`p` is `c` times as large, and its expectation still zero whatever the parameters are: so are all derivatives of that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._arguments import check_option, describe
from mcgrad._closures import Closed
from mcgrad._types import static_field
from mcgrad.distributions.half_precision import in_single
from mcgrad.estimators.measure_valued import MeasureValued
from mcgrad.estimators.pathwise import AdaptiveVelocity, Pathwise
from mcgrad.estimators.score import Score
from mcgrad.program import Draw, Estimator, Rest, Result, Site, zero_with_derivative_of
from mcgrad.program.draw import placeholder
from mcgrad.program.estimator import OnJump
from mcgrad.program.site import Facts

Costs: TypeAlias = tuple[Array, ...]
Leaves: TypeAlias = dict[int, Array]


@dataclasses.dataclass(frozen=True)
class Taylor(Estimator):
    r"""A control variate for another estimator: the expansion of the cost to second order at the mean of the draw.

    With an estimator `G` of derivatives of expectations, a cost `f`, the mean `m` and the covariance `S` of a draw,

        d E[f(x)] ~ G[f] - c (G[h] - d E[h]),    h(x) = f(m) + f'(m) (x - m) + (x - m)^T f''(m) (x - m) / 2,
                                                 d E[h] = f'(m) dm + trace(f''(m) dS) / 2

    where `G[f]` and `G[h]` are of the same draws. Unbiased, for derivatives of the orders that `G` has, whatever `f` is; the less
    the cost differs from a quadratic where the draws are, the less variance is left: none for a quadratic with `c = 1`. The value
    of the cost is not changed.

    The coefficient `c` is one for each parameter of the distribution (and each array of costs). `"regressed"` takes the least
    squares fit **over the other samples** of the transform, of whose draws it is independent, so that it adds no bias; held between
    0 and 2, so that few samples cannot make it wild.

    For `Score`, `Pathwise` and `MeasureValued`, of distributions that know their mean and covariance: `Normal`,
    `MultivariateNormal`, `Laplace`, `Logistic`, `Gumbel`, `Uniform`, `Exponential`, `Gamma`, `Beta`, `LogNormal`, `Independent`
    ones of these, and yours with a method `moments`. The cost must have two finite derivatives at the mean, by forward mode,
    and need not have them elsewhere. With `Score` and some tens of samples `Score(baseline=None)` may have less variance: the
    expansion is then fitted together with its constant, a better baseline than the mean.

    Beside the evaluations of `G`, one of the rest of the program at the mean, for its slope and curvature, with later draws from
    the same keys: for each entry of the draw along axes that a cost mixes one second derivative, all at once. `"regressed"` takes
    another at the draw, with its gradient. Inside a `scan` of at most 32 steps; not in a `while_loop`.

    Args:
        estimator: `mcgrad.Score`, `mcgrad.Pathwise` or `mcgrad.MeasureValued`.
        coefficient: `"regressed"`, for a transform of at least three samples (in each chunk); or `c`, a number: near 1 where the
            cost is nearly quadratic over the width of the distribution. **Elsewhere a given coefficient may add variance.**

    Raises:
        TypeError: where it is built, for another estimator.
        ValueError: where it is built, for another `coefficient`; where the program is planned, for a distribution that does not
            know its `moments`, and where `estimator` would be wrong; for `"regressed"` of less than three samples.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(scale, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(1.0, scale), mcgrad.Taylor(mcgrad.Score())) ** 2
        >>> round(float(mcgrad.grad(loss, num_samples=5)(0.5, jax.random.key(0))), 3)  # exact, whatever is drawn
        1.0

    References:
        Paisley, Blei and Jordan 2012, section 3.2, "Variational Bayesian Inference with Stochastic Search",
        https://arxiv.org/abs/1206.6430 (score); Miller et al. 2017, section 3, "Reducing Reparameterization Gradient Variance",
        https://arxiv.org/abs/1705.07880 (pathwise); Mohamed et al. 2020, section 7.4.3, https://arxiv.org/abs/1906.10652
        (the delta method for all three). Their coefficients are fitted to further samples.
    """

    estimator: Score | Pathwise | MeasureValued
    coefficient: float | Literal["regressed"] = static_field(default="regressed")

    def __post_init__(self) -> None:
        own = self.estimator
        if not isinstance(own, (Score, Pathwise, MeasureValued)):
            raise TypeError(
                "`mcgrad.Taylor(estimator=...)` must be a `mcgrad.Score`, `mcgrad.Pathwise` or `mcgrad.MeasureValued`, got "
                f"{describe(own)}. Write `mcgrad.Taylor(mcgrad.Pathwise())`."
            )
        if isinstance(own, Pathwise) and isinstance(own.path, AdaptiveVelocity):
            raise ValueError(
                "`mcgrad.Taylor(estimator=...)` must have a path without coefficients, got one with a `mcgrad.AdaptiveVelocity`. "
                'Use `mcgrad.Pathwise(path="optimal_transport")`, or the adaptive velocity alone.'
            )
        if isinstance(self.coefficient, str):
            check_option("Taylor(coefficient=...)", self.coefficient, ("regressed",), "a number")
        elif isinstance(self.coefficient, bool) or not isinstance(self.coefficient, (int, float)):
            raise TypeError(
                f'`mcgrad.Taylor(coefficient=...)` must be "regressed" or a number, got {describe(self.coefficient)}. Write 1.0.'
            )
        elif not math.isfinite(self.coefficient):
            raise ValueError(f"`mcgrad.Taylor(coefficient=...)` must be finite, got {self.coefficient}. Write 1.0.")

    @property
    def moves_draw(self) -> bool:  # ty: ignore[incompatible-property-override]
        return isinstance(self.estimator, Pathwise)

    def on_jump(self, *, certain: bool) -> OnJump:
        return self.estimator.on_jump(certain=certain)

    def flows(self, facts: Facts) -> bool:
        return self.estimator.flows(facts)

    @property
    def simulated(self) -> Estimator:
        return self.estimator

    @property
    def num_points(self) -> int:
        return self.estimator.num_points

    def why_not(self, site: Site) -> str | None:
        if (reason := self.estimator.why_not(site)) is not None:
            return reason
        if "moments" not in site.facts.knows or site.facts.discrete:
            return (
                f"{site.facts.law} does not know its mean and covariance for an expansion of the cost. Use "
                f"`mcgrad.{type(self.estimator).__name__}()` alone, or give your distribution a method `moments`"
            )
        return None

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        result = self.estimator.estimate(draw, rest)
        moving = [
            i for i in range(len(draw.site.parameters)) if i not in draw.constant and _is_floating(draw.operands[i])
        ]
        leaves: Leaves = {i: draw.operands[i] for i in moving}
        if not leaves:
            return result
        closed = Closed.of(lambda x: rest.simulate(x).costs, placeholder(draw.site))
        frozen = dataclasses.replace(closed, arrays=stop(closed.arrays))
        expansion = _Expansion.of(frozen, draw)
        held = _with(draw, stop(leaves))

        def variate(j: int, coefficients: Any) -> Array:
            scaled = {
                i: stop(x) + c * zero_with_derivative_of(x)
                for (i, x), c in zip(leaves.items(), coefficients, strict=True)
            }
            moved = _with(held, scaled)
            estimate = self.estimator.estimate(moved, rest.with_costs(expansion.of_draw)).costs[j]
            return zero_with_derivative_of(estimate - expansion.expected(moved)[j])

        costs = list(result.costs)
        for j, relation in enumerate(draw.relations):
            if relation is not None:
                coefficients = self._coefficients(j, frozen, expansion, held, stop(leaves), rest)
                costs[j] = costs[j] - variate(j, coefficients).astype(costs[j].dtype)
        return result._replace(costs=tuple(costs))

    def _coefficients(
        self, j: int, cost: Callable[[Array], Costs], expansion: _Expansion, draw: Draw, leaves: Leaves, rest: Rest
    ) -> list[Any]:
        """The coefficient of each parameter, for the costs number `j`; independent of the draw."""
        if not isinstance(self.coefficient, str):
            return [self.coefficient] * len(leaves)
        if draw.num_others < _FEWEST - 1:
            raise ValueError(
                f'`mcgrad.Taylor(coefficient="regressed")` must have at least {_FEWEST} independent samples (in a chunk), got '
                f"{draw.num_others + 1} at {draw.site.describe()}. Use `num_samples=K` in the transform, or give a coefficient: "
                "`mcgrad.Taylor(..., coefficient=1.0)`."
            )
        return self._regressed(j, cost, expansion, draw, leaves, rest)

    def _regressed(
        self, j: int, cost: Callable[[Array], Costs], expansion: _Expansion, draw: Draw, leaves: Leaves, rest: Rest
    ) -> list[Array]:
        """The coefficients that fit the gradients of the other samples best.

        The gradients are of this draw's own parameters, and each of one sample alone: a baseline made of other samples would
        make a coefficient depend on the draw that it is for. In its place is the expectation of the expansion.
        """
        single, alone = dataclasses.replace(draw, replicates=None), self.estimator
        level = stop(expansion.expected(single))
        if isinstance(alone, Score):
            if not isinstance(alone.baseline, str):
                level = tuple(map(jnp.zeros_like, level))
            alone = dataclasses.replace(alone, baseline=None)

        def gradient(fn: Callable[[Array], Costs], expected: Callable[[Draw], Any]) -> Any:
            def total(leaves: Leaves) -> Array:
                moved = _with(single, leaves)
                centered = rest.with_costs(lambda x: tuple(c - b for c, b in zip(fn(x), level, strict=True)))
                return jnp.sum(in_single(alone.estimate(moved, centered).costs[j]) - expected(moved))

            return stop(in_single(jax.grad(total)(leaves)))

        of_cost = gradient(cost, lambda _: 0.0)
        of_variate = gradient(expansion.of_draw, lambda moved: in_single(expansion.expected(moved)[j]))
        others, total_of_others = draw.num_others, draw.total_of_others

        def fit(i: int) -> Array:
            one, two = of_cost[i], of_variate[i]
            mean = total_of_others(two) / others
            products = total_of_others(jnp.vdot(one, two)) - jnp.vdot(total_of_others(one), mean)
            squares = total_of_others(jnp.vdot(two, two)) - others * jnp.vdot(mean, mean)
            slope = products / jnp.where(squares > 0, squares, 1)
            return stop(jnp.clip(jnp.where(squares > 0, slope, 1), 0, 2)).astype(leaves[i].dtype)

        return [fit(i) for i in leaves]


_FEWEST = 3
"""Samples from which on a slope can be fitted to the others."""


@dataclasses.dataclass(frozen=True)
class _Expansion:
    """The expansion of costs at the mean of a draw, to second order.

    Attributes:
        cost: the costs, whose derivatives but those in the draw are held.
        mean: the mean of the draw, held.
    """

    cost: Callable[[Array], Costs]
    mean: Array

    @classmethod
    def of(cls, cost: Callable[[Array], Costs], draw: Draw) -> _Expansion:
        return cls(cost, stop(_moments(draw)[0]))

    def of_draw(self, x: Array) -> Costs:
        """The expansion at a value of the draw."""
        at_mean, first, second = self._along(x - self.mean)
        return tuple(f + d + c / 2 for f, d, c in zip(at_mean, first, second, strict=True))

    def expected(self, draw: Draw) -> Costs:
        """Its expectation over the draw, a function of the draw's parameters."""
        mean, roots = _moments(draw)
        masks = draw.entries_apart()
        wide = jnp.expand_dims(masks, tuple(range(masks.ndim, mean.ndim + 1)))
        curvatures = jax.vmap(jax.vmap(lambda direction: self._along(direction)[2]))(
            jnp.where(wide[:, None], roots[None], 0)
        )
        return tuple(f + jnp.sum(c, axis=(0, 1)) / 2 for f, c in zip(self.of_draw(mean), curvatures, strict=True))

    def _along(self, direction: Array) -> tuple[Costs, Costs, Costs]:
        """The costs at the mean, and their first and second derivative along a direction."""

        def slope(at: Array) -> tuple[Costs, Costs]:
            return jax.jvp(self.cost, (at,), (direction,))

        (at_mean, first), (_, second) = jax.jvp(slope, (self.mean,), (direction,))
        return at_mean, first, second


def _moments(draw: Draw) -> tuple[Array, Array]:
    """Mean and roots of the covariance `[n, *shape of the draw]`, in the dtype of the draw."""
    mean, roots = draw.under_vmaps(lambda dist: dist.moments())
    dtype = placeholder(draw.site).dtype
    return mean.astype(dtype), jnp.moveaxis(roots, draw.site.num_levels, 0).astype(dtype)


def _with(draw: Draw, leaves: Leaves) -> Draw:
    """A draw with other parameters."""
    return dataclasses.replace(draw, operands=tuple(leaves.get(i, x) for i, x in enumerate(draw.operands)))


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
