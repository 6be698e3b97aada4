"""The theorems of Bonnet and Price: gradients in mean and variance of normal draws from first and second derivatives."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad.distributions.normal import Normal
from mcgrad.program import Draw, Estimator, Rest, Result, Site, zero_with_derivative_of


@dataclasses.dataclass(frozen=True)
class BonnetPrice(Estimator):
    r"""Normal draws: the derivative in the mean by the slope of the cost, in the variance by half its curvature.

        d E[f(x)] = E[ f'(x) ] d loc + 1/2 E[ f''(x) ] d scale^2

    Unbiased, for the first derivative; a second one raises. Next to `mcgrad.Pathwise`, whose derivative in the scale is
    `f'(x) (x - loc) / scale`, it has less variance where the curvature varies little: none for a quadratic cost. Costs must
    have a continuous slope in the draw, as Huber's loss and elu do: **the curvature that a kink holds is left out**; of relu and
    `abs` of the draw that is all, and the derivative in the scale is zero. One evaluation of the rest of the program and its
    second derivative, which later draws must allow: along batch axes that no cost mixes together all entries at once, one by
    one along the others.

    Raises:
        ValueError: where the program is planned, for a distribution other than `mcgrad.Normal`.
        NotImplementedError: for a second derivative.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(scale, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(1.0, scale), mcgrad.BonnetPrice()) ** 2
        >>> round(float(mcgrad.grad(loss)(0.5, jax.random.key(0))), 5)  # exact, whatever is drawn
        1.0

    References:
        Bonnet 1964; Price 1958; Rezende, Mohamed and Wierstra 2014, equations 7 and 8, "Stochastic Backpropagation and
        Approximate Inference in Deep Generative Models", https://arxiv.org/abs/1401.4082.
    """

    moves_draw = True

    def why_not(self, site: Site) -> str | None:
        return None if isinstance(site.base_dist, Normal) else "the distribution must be `mcgrad.Normal`"

    @property
    def num_points(self) -> int:
        return 2

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        x = draw.sample()
        result = rest(draw.under_vmaps(lambda dist, x: dist.loc + stop(x - dist.loc), x))
        variance = draw.under_vmaps(lambda dist, x: jnp.broadcast_to(dist.scale**2, x.shape), x)
        coefficient = zero_with_derivative_of(variance) / 2

        def one(mask: Array) -> tuple[Array, ...]:
            direction = mask.astype(x.dtype)

            def slope(t: Array) -> Any:
                return jax.jvp(lambda s: rest(x + s * direction).costs, (t,), (jnp.ones_like(t),))[1]

            zero = jnp.zeros((), x.dtype)
            curvatures = jax.jvp(slope, (zero,), (jnp.ones_like(zero),))[1]
            return draw.signed_terms(jnp.where(mask, coefficient, 0), curvatures)

        each = jax.vmap(one)(draw.entries_apart())
        costs = [cost + jnp.sum(term, axis=0) for cost, term in zip(result.costs, each, strict=True)]
        return result._replace(costs=tuple(costs))
