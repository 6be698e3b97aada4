"""The score-function estimator."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._arguments import check_field, check_option
from mcgrad._types import static_field
from mcgrad.estimators.baselines import Fitted
from mcgrad.program import Draw, Estimator, Replicates, Site, WeightedPoint


@dataclasses.dataclass(frozen=True)
class Score(Estimator):
    r"""Score function (REINFORCE, likelihood ratio): needs only a log density and the values of the costs.

    With `x_k ~ p_theta` and baseline `b_k` that does not depend on `x_k`, each cost `c` that the draw reaches becomes

        1/K sum_k [w_k c(x_k) + (1 - w_k) b_k],    w_k = p_theta(x_k) / stop(p_theta(x_k))

    whose first derivative is `(c - b) d log p`. Unbiased, for derivatives of every order; discrete and continuous distributions
    whose support does not move with their parameters; costs need not be differentiable in the draw. `num_samples`
    evaluations of the rest of the program, averaged; draws of a batch are credited with their own costs only. **Where a cost
    jumps at a threshold that itself moves with a parameter, how it moves is left out**, as by all estimators that hold the
    draw fixed; a `mcgrad.JumpWarning` names the line. **At a probability of exactly 0 that moves** (`probs=0.0`, not
    `logits=-jnp.inf`), what costs are at the value that never comes up is left out, as by all estimators that see draws only;
    `mcgrad.debug_checks` finds it.

    Integration by parts of a pathwise derivative along any velocity `v` (Stein; Stoker 1986, of a constant `v`),
    `E[f' v] = -E[f div(p v) / p]`, is this estimator.

    **A baseline is in the units of the cost**, before the sums, means and constant factors that turn costs into the output: for
    `loss = mean(per_example)`, in those of `per_example`. It is subtracted once, for each entry of the draw, from the sum of the
    costs that are credited to it. What is added to these that no draw reaches is no part of them.

    Args:
        baseline: `"leave_one_out"`, the mean cost of the other samples (Kool et al. 2019); an array that broadcasts to
            the draw's batch shape, computed by the program before the draw, for instance by `mcgrad.moving_average`; such an
            array as `mcgrad.fitted(array)`, which learns; `None`; or, the default `"auto"`, leave-one-out where several
            samples are drawn and `None` elsewhere.
        num_samples: replicates `K` of this draw and of all later ones.

    Raises:
        ValueError: where it is built, for a baseline or a number of samples that cannot be; where the program is
            planned, for a distribution without log density or with a support that moves; for leave-one-out of one sample.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Score(num_samples=4))
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Williams 1992, theorem 1, https://doi.org/10.1007/BF00992696; Schulman et al. 2015, theorem 1 (credit), "Gradient
        Estimation Using Stochastic Computation Graphs", https://arxiv.org/abs/1506.05254; Foerster et al. 2018, eq. 5 (every
        order), "DiCE: The Infinitely Differentiable Monte Carlo Estimator", https://arxiv.org/abs/1802.05098; Kool et al.
        2019, eq. 8 (leave-one-out), "Buy 4 REINFORCE Samples, Get a Baseline for Free!".
    """

    baseline: Array | Fitted | Literal["auto", "leave_one_out"] | None = "auto"
    num_samples: int = static_field(default=1)

    def __post_init__(self) -> None:
        if isinstance(self.baseline, (bool, int)):
            raise TypeError(
                f'`mcgrad.Score(baseline=...)` must be "auto", "leave_one_out", an array or None, got {self.baseline!r}. For '
                "several samples pass `num_samples=`; for a constant baseline a float."
            )
        if isinstance(self.baseline, str):
            check_option("Score(baseline=...)", self.baseline, ("auto", "leave_one_out"), "an array", "None")
        check_field(self, "num_samples", 1)
        if isinstance(self.baseline, Fitted) and self.num_samples > 1:
            raise ValueError(
                "`mcgrad.Score(baseline=mcgrad.fitted(...))` must come with one sample of the draw, got "
                f"`num_samples={self.num_samples}`. Use `num_samples=` of the transform."
            )

    @property
    def needs_rest(self) -> bool:
        return self.num_samples > 1

    @property
    def scores_its_draw(self) -> bool:
        return self.num_samples == 1 and type(self).represent is Score.represent

    def why_not(self, site: Site) -> str | None:
        return why_no_score(site)

    @property
    def num_points(self) -> int:
        return self.num_samples

    def represent(self, draw: Draw) -> WeightedPoint | Replicates:
        several = self.num_samples > 1 or draw.replicates is not None
        baseline = self.baseline
        if isinstance(baseline, str):
            if (
                baseline == "leave_one_out"
                and draw.samples is not None
                and draw.replicates is None
                and self.num_samples == 1
            ):
                kind = draw.samples.point_set
                way_out = "Take 4 samples at least" if kind == "antithetic" else 'Use `points="antithetic"` here'
                raise ValueError(
                    f'`mcgrad.Score(baseline="leave_one_out")` must have independent samples, got `points="{kind}"` at '
                    f"{draw.site.describe()}, where the others depend on this one and their mean would be a biased baseline. "
                    f'{way_out}, another baseline, or `points="independent"` at the draw.'
                )
            if baseline == "leave_one_out" and not several:
                raise ValueError(
                    '`mcgrad.Score(baseline="leave_one_out")` must have several samples, got 1 at '
                    f"{draw.site.describe()}. Use `mcgrad.Score(num_samples=K)`, or `num_samples=K` in the transform."
                )
            baseline = "leave_one_out" if several else None
        if isinstance(baseline, Fitted):
            x = draw.sample()
            return WeightedPoint(x, draw.log_prob(x), baseline.value, fitted=True)
        if self.num_samples == 1:
            x = draw.sample()
            return WeightedPoint(x, draw.log_prob(x), baseline)
        xs = jax.vmap(draw.sample)(jnp.arange(self.num_samples))
        return Replicates(xs, jax.vmap(draw.log_prob)(xs), baseline)


def why_no_score(site: Site, misses: str = "the score misses") -> str | None:
    """Why an estimator that holds draws fixed and weights them would be wrong at a site, or `None`."""
    if "log_prob" not in site.facts.knows:
        return "the distribution has no log density. Give it one, `mcgrad.distribution(..., log_prob=...)`"
    if site.support_moves_with:
        moving = " and ".join(f"`{name}`" for name in site.support_moves_with)
        return (
            f"the support moves with {moving}, so {misses} what happens at its edge. Shift and scale a draw with constant "
            "bounds"
        )
    return None
