"""Double control variates: leave-one-out whose costs, and whose baselines, lose their linear part."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._arguments import check_field
from mcgrad._types import static_field
from mcgrad.estimators.as_floats import in_floats, why_no_derivative
from mcgrad.estimators.finite_support import FiniteSupportEstimator, each_value
from mcgrad.program import Draw, Relation, Rest, Result, Site, bring_each, unit_weight, zero_with_derivative_of


@dataclasses.dataclass(frozen=True)
class DoubleControl(FiniteSupportEstimator):
    r"""Double control variates: leave-one-out of `n` draws, after the linear part of the cost is taken off all of them.

    With independent draws `x_k` of mean `m`, the slope `L_k = 1/(n-1) sum_{j != k} df(x_j)` of the others, and
    `c_k = (x_k - m) . L_k`, of expectation zero given these,

        dE[f(x)] = E[ 1/n sum_k (f(x_k) - a c_k - 1/(n-1) sum_{j != k} (f(x_j) - a c_j)) dlog p(x_k) + a/n sum_k df(x_k) . dm ]

    The first control variate is in the cost, the second in its baseline. Unbiased for every coefficient `a`, for derivatives of
    every order; exact for costs that are linear in the draw, at `a = 1`. The value is the mean of the `n` costs. Distributions of
    finite support whose draws are floats, such as `Bernoulli` and `OneHotCategorical`, where this is named at the draw; **the cost
    must be differentiable at the draws**, and need not be correct between them, but is of use only where its slope tells of its
    differences. Each cost is credited with the entries that it depends on. `n` evaluations of the rest of the program, with `n`
    derivatives forward of each; later draws with common random numbers.

    Args:
        num_samples: `n`, at least 2.
        coefficient: `a`, a number: near 1 where costs are nearly linear in the draw, less where their slope tells little.

    Raises:
        ValueError: where it is built, for another number of samples or a `coefficient` that is no number; where the program is
            planned, for a distribution without finite support, or of integer draws.
        NotImplementedError: in a `while_loop`, and in a `scan` of over 32 steps.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.DoubleControl())
        >>> round(float(mcgrad.grad(loss)(0.0, jax.random.key(0))), 4)  # linear: exact
        0.75

    References:
        Titsias and Shi 2022, section 3, "Double Control Variates for Gradient Estimation in Discrete Latent Variable Models",
        https://arxiv.org/abs/2111.05300, with `-a` for the coefficient, which they learn; here for every finite support
        and every order.
    """

    num_samples: int = static_field(default=2)
    coefficient: float = static_field(default=1.0)

    def __post_init__(self) -> None:
        check_field(self, "num_samples", 2)
        a = self.coefficient
        if isinstance(a, bool) or not isinstance(a, (int, float)) or not math.isfinite(a):
            raise ValueError(f"`mcgrad.DoubleControl(coefficient=...)` must be a finite number, got {a!r}. Pass 1.0.")

    @property
    def num_points(self) -> int:
        return self.num_samples

    def why_not(self, site: Site) -> str | None:
        return super().why_not(site) or why_no_derivative(site)

    def drawn(self, dist: Any) -> Any:
        return in_floats(dist)

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        n = self.num_samples
        xs = jax.vmap(draw.sample)(jnp.arange(n))  # [n, *site shape]
        log_weights = jax.vmap(draw.log_prob)(xs)
        p, support = each_value(draw, draw.prob), jnp.asarray(draw.facts.support)
        mean = jnp.tensordot(p, support.astype(p.dtype), 1).astype(xs.dtype)
        moved, away = zero_with_derivative_of(mean), xs - stop(mean)[None]

        def at(x: Array) -> tuple[Result, tuple[Array, ...], tuple[Array, ...]]:
            """The rest at a draw; the slopes of its costs towards each draw; and as the mean moves."""
            _, slopes, result = jax.linearize(lambda x: ((found := rest(x)).costs, found), x, has_aux=True)
            return result, jax.vmap(slopes)(away), slopes(moved)

        results, towards, along = jax.vmap(at)(xs)  # `towards` is `[j, k, *cost]`: the slope at `j` towards `k`
        a = self.coefficient

        def combined(relation: Relation, cost: Array, towards: Array, along: Array) -> Array:
            weights = unit_weight(bring_each(log_weights, relation, cost.shape[1:]).astype(cost.dtype))
            own = jnp.diagonal(towards, axis1=0, axis2=1)
            control = (jnp.sum(towards, axis=0) - jnp.moveaxis(own, -1, 0)) / (n - 1)  # `c_k`
            linear = a * control
            left = stop(cost - linear)
            others = (jnp.sum(left, axis=0, keepdims=True) - left) / (n - 1)
            credited = cost * weights - (weights - 1) * (linear + others) + a * along
            return jnp.mean(credited, axis=0)

        costs = draw.per_cost(combined, lambda cost, *_: jnp.mean(cost, axis=0), results.costs, towards, along)
        aux, undrawn = jax.tree.map(lambda x: x[0], (results.aux, results.undrawn))
        return Result(costs, aux, undrawn)
