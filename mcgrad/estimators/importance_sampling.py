"""Importance sampling: points of a proposal, weighted back to the distribution."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad._arguments import check_field
from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions.half_precision import widened
from mcgrad.distributions.wrappers.autoregressive import by_entries
from mcgrad.distributions.wrappers.foreign import as_distribution
from mcgrad.distributions.wrappers.independent import Independent
from mcgrad.estimators.score import why_no_score
from mcgrad.program import Draw, Estimator, Relation, Rest, Result, Site, WeightedPoints, bring_each


@dataclasses.dataclass(frozen=True)
class ImportanceSampling(Estimator):
    r"""Draws from a proposal `q` instead, and weights the costs that the draw reaches by `p / q`.

        E_p[f(x)] = E_q[ 1/K sum_k w_k f(x_k) ],    w_k = p_theta(x_k) / stop(q(x_k))

    Unbiased, in value and for derivatives of every order; discrete and continuous distributions whose support does not move with
    their parameters. `num_samples` evaluations of the rest of the program, which need not be differentiable in the draw. The
    proposal is held fixed while differentiating, so its dependence on `theta` adds nothing, and need not.

    **Self-normalized**, `sum_k w_k f(x_k) / sum_k w_k`: *biased*, by an amount that falls as `1 / K`, in value and derivatives.
    It serves densities that are known up to a factor, and often has less variance.

    **The proposal must be positive wherever the distribution is**; what can be seen of that is checked: finite supports,
    discrete or continuous, shapes, and, for distributions of scalars with an `icdf`, their ends: where the proposal's are
    inside the distribution's the costs are NaN. Tails that are too light are not seen: the variance is infinite where `p^2 / q`
    is not integrable. A cost that many draws reach gets the product of their weights, whose variance grows exponentially in
    their number; costs of separate entries of a batch get their own weight only. Without a transform, and for auxiliary output,
    the draw is from `p`.

    Args:
        proposal: the distribution to draw from, of the same batch and event shape; or a function of the distribution at this
            draw (its parameters, held fixed) that returns it, for instance `lambda p: mcgrad.Normal(p.loc, 2.0 * p.scale)`.
            `mcgrad.sample(key, dist, proposal=...)` is short for this estimator with one sample.
        num_samples: replicates `K` of this draw and of all later ones.
        self_normalized: whether to divide by the sum of the weights instead of by their number; with `num_samples >= 2`.

    Raises:
        TypeError: where it is built, for a proposal that is neither.
        ValueError: where it is built, for a number of samples that cannot be; where the program is planned, for a distribution
            without log density or with a support that moves; where it is traced, for a proposal of another shape, or that
            surely misses some of the distribution's support.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     wide = mcgrad.Normal(loc, 2.0)
        ...     return 1.0 * (mcgrad.sample(key, mcgrad.Normal(loc, 1.0), proposal=wide) > 3.0)
        >>> mcgrad.grad(loss, num_samples=8)(0.0, jax.random.key(0)).shape
        ()

    References:
        Owen 2013, chapter 9, "Monte Carlo Theory, Methods and Examples"; Ruiz et al. 2016, section 3, "Overdispersed Black-Box
        Variational Inference", https://arxiv.org/abs/1603.01140.
    """

    proposal: Any
    num_samples: int = static_field(default=1)
    self_normalized: bool = static_field(default=False)

    sees_the_impossible = True  # if the proposal draws it

    def __post_init__(self) -> None:
        if hasattr(self.proposal, "sample"):
            object.__setattr__(self, "proposal", as_distribution(self.proposal))
        elif not callable(self.proposal):
            raise TypeError(
                "`mcgrad.ImportanceSampling(proposal=...)` must be a distribution or a function of the distribution, got "
                f"{type(self.proposal).__name__}. Pass `lambda p: proposal`."
            )
        what = "an int of at least 2 where weights are self-normalized" if self.self_normalized else None
        check_field(self, "num_samples", 2 if self.self_normalized else 1, what=what)

    def why_not(self, site: Site) -> str | None:
        return why_no_score(site, "weights of fixed points miss")

    @property
    def num_points(self) -> int:
        return self.num_samples

    def represent(self, draw: Draw) -> WeightedPoints:
        x = self._points(draw, draw.key)

        def weight(own: ImportanceSampling, dist: Any, x: Any) -> Array:
            log_q = own._log_proposal(draw.site, dist, x)
            dist = widened(dist)
            prob = getattr(dist, "prob", None)
            # With a finite derivative where the distribution gives a point no probability; a product over entries would
            # underflow.
            if callable(prob) and not isinstance(dist, Independent):
                return prob(x) * jnp.exp(-log_q)
            return jnp.exp(dist.log_prob(x) - log_q)

        weights = draw.under_vmaps(weight, x, estimator=self)[None]
        return WeightedPoints(jax.tree.map(lambda leaf: leaf[None], x), weights)

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        if self.num_samples == 1:
            return rest.evaluate(draw, self.represent(draw))

        def log_weight(own: ImportanceSampling, dist: Any, x: Any) -> Array:
            return widened(dist).log_prob(x) - own._log_proposal(draw.site, dist, x)

        def one(index: Array) -> tuple[Result, Array]:
            x = self._points(draw, draw.key_beside(index))
            return rest(x, replicate=index), draw.under_vmaps(log_weight, x, estimator=self)

        results, log_weights = jax.vmap(one)(jnp.arange(self.num_samples))

        def weighted(relation: Relation, cost: Array) -> Array:
            weights = bring_each(log_weights, relation, cost.shape[1:])
            if self.self_normalized:
                return jnp.sum(cost * jax.nn.softmax(weights, axis=0).astype(cost.dtype), axis=0)
            return jnp.mean(cost * jnp.exp(weights).astype(cost.dtype), axis=0)

        costs = draw.per_cost(weighted, lambda cost: jnp.mean(cost, axis=0), results.costs)
        aux = rest.simulate(draw.sample()).aux if results.aux else ()
        return Result(costs, aux, jax.tree.map(lambda leaf: leaf[0], results.undrawn))

    def _points(self, draw: Draw, key: Array) -> Any:
        """A draw from the proposal."""

        def points(own: ImportanceSampling, key: PRNGKey, dist: Any) -> Any:
            like = jax.eval_shape(dist.sample, key)
            x = own._proposal_at(draw.site, dist).sample(key)
            return jax.tree.map(lambda leaf, own: leaf.astype(own.dtype), x, like)

        return stop(draw.under_vmaps(points, key=key, estimator=self, frozen=True))

    def _proposal_at(self, site: Site, dist: Any) -> Any:
        given = self.proposal
        proposal = stop(given) if hasattr(given, "sample") else as_distribution(given(stop(dist)))
        proposal = by_entries(proposal) if site.facts.causal else proposal
        if (problem := _mismatch(dist, proposal)) is not None:
            raise ValueError(f"`mcgrad.ImportanceSampling` would be wrong at {site.describe()}: {problem}")
        return proposal

    def _log_proposal(self, site: Site, dist: Any, x: Any) -> Array:
        proposal = self._proposal_at(site, dist)
        return stop(jnp.where(_covers(proposal, dist), widened(proposal).log_prob(x), jnp.nan))


def _covers(proposal: Any, dist: Any) -> Any:
    """Whether the ends of the distribution are within those of the proposal, for continuous ones with an `icdf`."""
    if getattr(dist, "discrete", False) or not all(callable(getattr(each, "icdf", None)) for each in (dist, proposal)):
        return True
    ends = jnp.asarray([0.0, 1.0], jnp.result_type(float)).reshape(2, *[1] * len(dist.batch_shape))
    own, other = (each.icdf(ends.astype(getattr(each, "dtype", ends.dtype))) for each in (dist, proposal))
    return (other[0] <= own[0]) & (own[1] <= other[1])


def _mismatch(dist: Any, proposal: Any) -> str | None:
    """What can be seen to be wrong with a proposal, and the way out."""
    own = (tuple(dist.batch_shape), tuple(dist.event_shape))
    other = (tuple(proposal.batch_shape), tuple(proposal.event_shape))
    if own != other:
        return (
            f"the distribution has batch and event shapes {own[0]} and {own[1]}, the proposal {other[0]} and {other[1]}. Give "
            "the proposal's parameters the shape of the distribution's."
        )
    kinds = [("discrete" if getattr(each, "discrete", False) else "continuous") for each in (dist, proposal)]
    if kinds[0] != kinds[1]:
        return f"the distribution is {kinds[0]}, the proposal {kinds[1]}. Pass a proposal of the same kind."
    own_values, other_values = _support(dist), _support(proposal)
    if other_values is not None and not (own_values is not None and own_values <= other_values):
        return "the proposal never gives some of the values of the distribution. Pass a proposal with the same support."
    return None


def _support(dist: Any) -> set[tuple[float, ...]] | None:
    """The values of a finite support."""
    support = getattr(dist, "support", None)
    with jax.ensure_compile_time_eval():
        values = support() if callable(support) else None
        return None if values is None else {tuple(np.ravel(value).tolist()) for value in np.asarray(values)}
