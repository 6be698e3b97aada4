"""Signed points for the first derivative, the score for higher ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad._arguments import describe
from mcgrad.estimators.score import why_no_score
from mcgrad.program import Draw, Estimator, SignedPoints, Site, zero_with_derivative_of
from mcgrad.program.estimator import spelled


@dataclasses.dataclass(frozen=True)
class EveryOrder(Estimator):
    r"""The first derivative of an estimator of signed points, such as `mcgrad.DisARM`, and higher ones of the score.

    With the draw `x`, the weight `w = p_theta(x) / p_stop(theta)(x)`, the gradient `G` in the parameters `theta` of the draw
    that `estimator` makes of the costs, and that of the score,

        f(x) w + (G - stop(f(x) dlog p(x))) (theta - stop(theta))

    The second term is linear in the parameters and of expectation zero, given all that came before the draw: it puts the first
    derivative of `estimator` in place of that of the score and adds nothing to any other in expectation. Unbiased, for derivatives
    of every order, where a second derivative of `estimator` alone raises. The value, the points and the evaluations of the rest
    of the program are those of `estimator`, at the draw of a plain run. Second derivatives have about the variance of
    `mcgrad.Score(baseline=None)`. What `mcgrad.Auto` takes where a cost mixes draws of few values.

    Args:
        estimator: one of signed points: `mcgrad.DisARM`, `mcgrad.ARMS`, `mcgrad.TreeDisARM`, `mcgrad.CARMS`, `mcgrad.ARSM`,
            `mcgrad.LocalExpectation`, `mcgrad.MeasureValued`, or one of yours.

    Raises:
        TypeError: where it is built, for what is no estimator; where the program runs, for one of another representation.
        ValueError: where the program is planned, for a distribution that `estimator` or `mcgrad.Score` would be wrong for.
        NotImplementedError: in a `while_loop`, and in a `scan` of over 32 steps.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.EveryOrder(mcgrad.DisARM()))
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75
        >>> jax.hessian(mcgrad.expectation(loss))(0.0, jax.random.key(0)).shape
        ()

    References:
        Of the first derivative, see `estimator`; of the others, Foerster et al. 2018, eq. 5, "DiCE: The Infinitely Differentiable
        Monte Carlo Estimator", https://arxiv.org/abs/1802.05098. The term between them is of our own.
    """

    estimator: Estimator

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, Estimator):
            raise TypeError(
                f"`mcgrad.EveryOrder(estimator=...)` must be an estimator, got {describe(self.estimator)}. Write "
                "`mcgrad.EveryOrder(mcgrad.DisARM())`."
            )

    def why_not(self, site: Site) -> str | None:
        return self.estimator.why_not(site) or why_no_score(site)

    @property
    def title(self) -> str:
        return f"EveryOrder({self.estimator.title})"

    def represent(self, draw: Draw) -> SignedPoints:
        n = len(draw.site.parameters)
        moving = [i for i in range(n) if i not in draw.constant and jnp.issubdtype(draw.operands[i].dtype, jnp.inexact)]
        leaves = [draw.operands[i] for i in moving]
        signed: list[SignedPoints] = []

        def with_leaves(leaves: list[Any]) -> Draw:
            found = dict(zip(moving, leaves, strict=True))
            return dataclasses.replace(draw, operands=tuple(found.get(i, x) for i, x in enumerate(draw.operands)))

        def coefficients(leaves: list[Any]) -> tuple[Any, Any]:
            found = self.estimator.represent(with_leaves(leaves))
            if isinstance(found, SignedPoints):
                signed.append(found)
                return found.coefficients, (found.value, found.points)
            raise TypeError(
                f"`mcgrad.EveryOrder(estimator=...)` must make `SignedPoints`, got `{type(found).__name__}` of "
                f"`{spelled(self.estimator)}` at {draw.site.describe()}. Use that estimator alone."
            )

        # Both are linear in the parameters, in which the estimator and the score have the same expectation.
        held, away = jax.lax.stop_gradient(leaves), [zero_with_derivative_of(leaf) for leaf in leaves]
        _, linear, (value, points) = jax.jvp(coefficients, (held,), (away,), has_aux=True)
        _, slope = jax.jvp(lambda leaves: with_leaves(leaves).log_prob(value), (held,), (away,))
        return dataclasses.replace(
            signed[0], value=value, points=points, coefficients=linear, log_weight=draw.log_prob(value), slope=slope
        )
