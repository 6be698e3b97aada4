"""Importance sampling: points of a proposal, weighted back to the law."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions.foreign import as_distribution
from mcgrad.distributions.independent import Independent
from mcgrad.program.estimator import Estimator, WeightedPoints
from mcgrad.program.site import Site, SiteHandle


@dataclasses.dataclass(frozen=True)
class ImportanceSampling(Estimator):
    r"""Draws from a proposal `q` instead, and weights the costs that the draw reaches by `p / q`.

        E_p[f(x)] = E_q[ w f(x) ],    w = p_theta(x) / stop(q(x))

    Unbiased, in value and for derivatives of every order; discrete and continuous laws whose support does not move with
    their parameters. One evaluation of the rest of the program, which need not be differentiable in the draw. The
    proposal is held fixed while differentiating, so its dependence on `theta` adds nothing, and need not.

    **The proposal must be positive wherever the law is**; what can be seen of that is checked (finite supports, discrete or
    continuous, shapes), bounded continuous proposals and tails that are too light are not: the variance is infinite where
    `p^2 / q` is not integrable. A cost that many draws reach gets the product of their weights, whose variance grows
    exponentially in their number; costs of separate entries of a batch get their own weight only. Without a transform, and
    for auxiliary output, the draw is from `p`.

    Args:
        proposal: a function of the law at this draw (its parameters, held fixed) that returns the distribution to draw from,
            of the same batch and event shape; for instance `lambda p: mcgrad.Normal(p.loc, 2.0 * p.scale)`.

    Raises:
        TypeError: where it is built, for a proposal that is no function.
        ValueError: where the program is planned, for a law without log density or with a support that moves; where it is
            traced, for a proposal of another shape, or that surely misses some of the law's support.

    Example:
        >>> import jax, mcgrad
        >>> wide = mcgrad.ImportanceSampling(lambda p: mcgrad.Normal(p.loc, 2.0 * p.scale))
        >>> def loss(loc, key):
        ...     return 1.0 * (mcgrad.sample(key, mcgrad.Normal(loc, 1.0), wide) > 3.0)
        >>> mcgrad.grad(loss, num_samples=8)(0.0, jax.random.key(0)).shape
        ()

    References:
        Owen 2013, chapter 9; Ruiz et al. 2016, section 3 (overdispersed proposals).
    """

    proposal: Callable[[Any], Any] = static_field()

    def __post_init__(self) -> None:
        if not callable(self.proposal):
            raise TypeError(
                "`mcgrad.ImportanceSampling(proposal=...)` must be a function of the law, got "
                f"{type(self.proposal).__name__}. Pass `lambda p: proposal`."
            )

    def obstacle(self, site: Site) -> str | None:
        facts = site.facts
        if not facts.has_log_prob:
            return "the law has no log density. Give it one, `mcgrad.distribution(..., log_prob=...)`."
        if facts.support_parameters:
            moving = " and ".join(f"`{name}`" for name in facts.support_parameters)
            return (
                f"the support moves with {moving}, so weights of fixed points miss what happens at its edge. Use "
                "`mcgrad.Pathwise()`, or shift and scale a draw with constant bounds."
            )
        return None

    def represent(self, site: SiteHandle) -> WeightedPoints:
        def propose(dist: Any) -> Any:
            proposal = as_distribution(self.proposal(stop(dist)))
            if (problem := _mismatch(dist, proposal)) is not None:
                raise ValueError(f"`mcgrad.ImportanceSampling` would be wrong at {site.site.describe()}: {problem}")
            return proposal

        def draw(dist: Any, key: PRNGKey) -> Any:
            like = jax.eval_shape(dist.sample, key)
            return jax.tree.map(lambda x, own: x.astype(own.dtype), propose(dist).sample(key), like)

        def weight(dist: Any, x: Any) -> Array:
            log_proposal = stop(propose(dist).log_prob(x))
            prob = getattr(dist, "prob", None)
            # With a finite derivative where the law gives a point no probability; a product over entries would underflow.
            if callable(prob) and not isinstance(dist, Independent):
                return prob(x) * jnp.exp(-log_proposal)
            return jnp.exp(dist.log_prob(x) - log_proposal)

        x = stop(site.random(draw))
        return WeightedPoints(jax.tree.map(lambda leaf: leaf[None], x), weights=site.map(weight, x)[None])


def _mismatch(dist: Any, proposal: Any) -> str | None:
    """What can be seen to be wrong with a proposal, and the way out."""
    own = (tuple(dist.batch_shape), tuple(dist.event_shape))
    other = (tuple(proposal.batch_shape), tuple(proposal.event_shape))
    if own != other:
        return (
            f"the law has batch and event shapes {own[0]} and {own[1]}, the proposal {other[0]} and {other[1]}. Give the "
            "proposal's parameters the shape of the law's."
        )
    if bool(getattr(dist, "discrete", False)) != bool(getattr(proposal, "discrete", False)):
        return "one of law and proposal is discrete, the other is not. Take a proposal of the kind of the law."
    own_values, other_values = _support(dist), _support(proposal)
    if other_values is not None and not (own_values is not None and own_values <= other_values):
        return "the proposal never gives some of the values that the law may. Take a proposal with the law's support."
    return None


def _support(dist: Any) -> set[tuple[float, ...]] | None:
    """The values of a finite support."""
    support = getattr(dist, "support", None)
    with jax.ensure_compile_time_eval():
        values = support() if callable(support) else None
        return None if values is None else {tuple(np.ravel(value).tolist()) for value in np.asarray(values)}
