"""Measure-valued derivatives: the difference of two distributions, drawn together."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._arguments import check_field, check_option
from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions.base import Coupling, WeakDerivative
from mcgrad.estimators.finite_support import possible
from mcgrad.estimators.weak_derivative_by_cdf import directions, weak_derivative_by_cdf, why_no_weak_derivative
from mcgrad.program import Alternatives, Draw, Estimator, Flow, SignedPoints, Site, zero_with_derivative_of
from mcgrad.program.reach import MAX_UNROLLED_STEPS

Decomposition: TypeAlias = Literal["hahn_jordan", "size_bias"]
CouplingName: TypeAlias = Literal["shared", "comonotone", "independent"]

_BESIDE, _AGAIN, _BESIDE_AGAIN = 0x3EA, 0x3EB, 0x3EC
"""Folded into a draw's key: for the parts beside its draw, for an independent draw, for the parts beside that."""


@dataclasses.dataclass(frozen=True)
class MeasureValued(Estimator):
    r"""Measure-valued (weak) derivatives: the derivative of a distribution is a multiple of the difference of two distributions.

    With `dp = c (p+ - p-)` for each parameter of each entry `x_i` of a draw,

        d E[f(x)] = E[ sum_i c_i (f(x with x_i+ for x_i) - f(x with x_i- for x_i)) ]

    Unbiased, for the first derivative; a second one raises. For all distributions of mcgrad (`Transformed` and `Mixture` by
    what they are made of), though the support of `Uniform`, `Pareto` or `TruncatedNormal` moves; for those of a user with a
    `weak_derivative`; and for any other distribution of continuous single numbers with a `cdf`, of another library or by
    `mcgrad.distribution(sampler=..., cdf=...)`. Costs need not be differentiable in the draw, nor continuous. Its variance does
    not grow with the number of entries that meet in a cost, unlike that of `mcgrad.Score`; a constant added to a cost cancels.

    **By a `cdf`**: where its derivative in a parameter rises and where it falls, found by bisection, are the two parts (one term
    for each number that an entry of the draw depends on). The `cdf` must be differentiable, increasing in between 0 and 1,
    and what is outside of that, or not a number, has no mass; one that does not go from 0 to 1 gives NaN. **Changes of sign of
    the density's derivative that are less than a 24th of the mass apart may be overlooked**, and so are jumps of the density that
    move inside the support. It takes some 60 evaluations of the derivative of the `cdf` a draw, and 5,000 for each set of
    parameters; the distributions of mcgrad know where the sign changes, and do without the latter, but for `NoncentralChi2`.

    Evaluations of the rest of the program beside the one at the draw: one for each parameter whose positive or negative
    part is the draw itself, two for others (a location), one for each class of a categorical or multinomial distribution; none
    for parameters that are constants of the program. Entries along batch axes that no cost mixes are moved together, entries
    along others one at a time. Later draws share their keys with those of the drawn path.

    **Inside a `scan`** of at most 32 steps all parts are evaluated; in longer ones, one of them, chosen at random, is followed as
    one alternative path beside the real one, whatever the number of steps (see `mcgrad.SmoothedPerturbation`). States count as
    merged where they agree up to rounding; for continuous draws of later steps see `mcgrad.Pathwise(coupling=...)`.

    Args:
        decomposition: `"hahn_jordan"`, into parts that have no value in common, for a scale and a rate too, where the
            distribution knows how (not both parameters of `F`, the degrees of freedom of `StudentT` and `MultivariateStudentT`,
            `Binomial`, `Geometric`, `Multinomial`, `NegativeBinomial` and `Poisson`): two evaluations, mostly of less variance,
            which for `Beta`, `Dirichlet`, `LKJCholesky` and `VonMisesFisher` are found by thousands of elementary operations; or
            `"size_bias"`, where one part is the draw itself if it can be.
        coupling: how the two parts are drawn: `"shared"`, from the same noise (a location is moved as far to the right as to
            the left: for costs nearly even around it); `"comonotone"`, each by its own quantiles where the distribution knows
            how, and as `"shared"` elsewhere (for costs nearly monotone); `"independent"`, to compare with.
            `mcgrad.least_variance` finds which is best on a program.
        chunk_size: how many perturbed points are evaluated at once; by default all. In chunks, one after another, they take
            the memory of one chunk.

    Raises:
        ValueError: where it is built, for another `decomposition` or `coupling`, or a `chunk_size` that is no number of points;
            where the program is planned, for a distribution with neither a `weak_derivative` nor such a `cdf`.
        NotImplementedError: for a second derivative, inside a `while_loop`, and, with independent parts, inside a `scan` of
            more than 32 steps.

    Example:
        >>> import jax, mcgrad
        >>> def loss(rate, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Poisson(rate), mcgrad.MeasureValued())
        >>> float(mcgrad.grad(loss)(2.0, jax.random.key(0)))
        3.0

    References:
        Pflug 1989; Heidergott et al. 2008; Mohamed et al. 2020, eq. 29 and table 1, "Monte Carlo Gradient Estimation in Machine
        Learning", https://arxiv.org/abs/1906.10652; Rosca et al. 2019 (couplings),
        "Measure-Valued Derivatives for Approximate Bayesian Inference".
    """

    decomposition: Decomposition = static_field(default="hahn_jordan")
    coupling: CouplingName = static_field(default="shared")
    chunk_size: int | None = static_field(default=None)

    follows_alternatives = True
    sees_the_impossible = True

    def __post_init__(self) -> None:
        for name, options in (("decomposition", Decomposition), ("coupling", CouplingName)):
            check_option(f"MeasureValued({name}=...)", getattr(self, name), get_args(options))
        if self.chunk_size is not None:
            check_field(self, "chunk_size", 1, what="a number of points, at least 1, or None")

    def why_not(self, site: Site) -> str | None:
        return why_no_weak_derivative(site)

    def follows(self, num_steps: int) -> bool:
        # the coefficients of independent parts do not cancel
        return num_steps > MAX_UNROLLED_STEPS and self.coupling != "independent"

    def alternatives(self, draw: Draw, x: Any) -> Alternatives:
        found = self._points(draw, x)
        if found is None:
            zeros = jnp.zeros((1, *draw.plates))
            return Alternatives(x[None], zeros, zeros)
        return Alternatives(found.points, found.coefficients, jnp.ones_like(found.coefficients))

    def represent(self, draw: Draw) -> SignedPoints | Flow:
        x = draw.sample()
        found = self._points(draw, x)
        return Flow(x) if found is None else found

    def _points(self, draw: Draw, x: Array) -> SignedPoints | None:
        """Both parts of each term, differences from the draw if they are coupled; `None` if no derivative reaches the draw."""
        terms = self._terms(draw, _BESIDE, x)
        if not terms:
            return None
        points, coefficients = [], []
        independent = self.coupling == "independent"
        if independent:
            again = draw.sample(_AGAIN)
            # each part with its own weight, which may depend on the draw
            for term, other in zip(terms, self._terms(draw, _BESIDE_AGAIN, again), strict=True):
                points += [term.positive, other.negative]
                coefficients += [zero_with_derivative_of(term.weight), -zero_with_derivative_of(other.weight)]
        else:
            for term in terms:
                coefficient = zero_with_derivative_of(term.weight)
                if term.positive_is_draw is None:
                    points += [term.positive, term.negative]
                    coefficients += [coefficient, -coefficient]
                else:  # the part that is not the draw, relative to the draw
                    drawn = term.positive_is_draw
                    wide = jnp.expand_dims(drawn, tuple(range(drawn.ndim, term.positive.ndim)))
                    points.append(jnp.where(wide, term.negative, term.positive))
                    coefficients.append(jnp.where(drawn, -coefficient, coefficient))
        moved = jnp.concatenate([jnp.asarray(point, x.dtype) for point in points])
        if draw.by_log_odds and draw.facts.support is not None:
            moved = possible(draw, moved, jax.vmap(draw.prob)(moved), x)
        # Where positive and negative coefficients cancel, differences from the value at the draw are as good, and round less.
        return SignedPoints(
            x,
            moved,
            jnp.concatenate(coefficients),
            relative=not independent,
            chunk_size=self.chunk_size,
        )

    def _terms(self, draw: Draw, index: int, x: Array) -> list[WeakDerivative]:
        """The terms that a derivative may reach, their arrays with the axes `[n, *plates]` in front."""
        how = Coupling(self.decomposition == "hahn_jordan", self.coupling == "comonotone")
        names: list[tuple[str, ...]] = []
        by_cdf = None
        if "weak_derivative" not in draw.facts.knows:
            by_cdf = {leaf: axes for leaf, axes in directions(draw.site).items() if leaf not in draw.constant}

        def arrays(key: PRNGKey, dist: Any, x: Array) -> list[list[Array | None]]:
            own = by_cdf is None
            terms = dist.weak_derivative(key, x, how) if own else weak_derivative_by_cdf(dist, key, x, how, by_cdf)
            names[:] = [term.parameters for term in terms]
            # behind the axes of the draw's `vmap`s for now
            return [list(term[1:]) for term in terms]

        found = draw.under_vmaps(arrays, x, key=draw.key_beside(index))
        found = jax.tree.map(lambda array: jnp.moveaxis(array, draw.site.num_levels, 0), found)
        terms = [WeakDerivative(parameters, *parts) for parameters, parts in zip(names, found, strict=True)]
        if by_cdf is not None:
            return terms
        moving = draw.moving_parameters
        return [term for term in terms if moving.intersection(term.parameters)]
