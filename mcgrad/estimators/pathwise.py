"""The pathwise estimator."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from mcgrad._arguments import check_option
from mcgrad._types import static_field
from mcgrad.estimators.adaptive_velocity import AdaptiveVelocity
from mcgrad.program import Draw, Flow, LocalEstimator, Site
from mcgrad.program.estimator import OnJump


@dataclasses.dataclass(frozen=True)
class Pathwise(LocalEstimator):
    r"""Pathwise (reparameterization, infinitesimal perturbation analysis): differentiates the draw itself.

        d E[f(x)] = E[ f'(x) dx/dtheta ],    x = T(noise; theta)

    Unbiased, for derivatives of every order; continuous distributions whose `sample` is differentiable in the parameters,
    explicitly or implicitly. One evaluation of the rest of the program, which must be differentiable in the draw
    almost everywhere and continuous. **A cost that jumps in the draw gives a biased gradient**: what happens at the jump is
    left out. `sign`, `floor`, `round`, `argmax`, a comparison turned into a number and `where` or `cond` between values that
    do not depend on the draw always jump; other `where`s and `cond`s and `%` may jump. `mcgrad.explain` lists both.

    Many paths move a distribution of several dimensions alike, and differ in variance. That of **optimal transport** has the
    least mean square velocity: for the Cholesky factor of a normal distribution it often gives less variance, for one matrix
    equation that all draws of a batch share. For a Dirichlet distribution it is the published approximation, which moves the
    distribution exactly and never has more variance than the sampler's path, its velocity being that one's mean given the draw.
    In one dimension the path that keeps quantiles is the only one that is a function of the draw; a beta sampler has two gamma
    draws, and `Beta` this path beside it.

    A `mcgrad.AdaptiveVelocity` has coefficients, and is a right path of a normal distribution whatever they are: they can be
    learned.

    (By parts this is `mcgrad.Score`. The tricks of Walder et al. 2019 estimate the velocity of the path by further draws, see
    `mcgrad.implicit_reparameterization`.)

    Args:
        path: `"sampler"`, that of the distribution's sampler; `"optimal_transport"`, for distributions that know it:
            `MultivariateNormal`, `Dirichlet` and `Beta`; or a `mcgrad.AdaptiveVelocity`, for `MultivariateNormal`.
        jumps: what to do where a cost jumps: `"warn"`, with a `mcgrad.JumpWarning` that names the line, `"refuse"` or
            `"ignore"`.
        possible_jumps: the same where it may jump.

    Raises:
        ValueError: where it is built, for another `path` or other `jumps`; where the program is planned, for a distribution
            without a pathwise derivative, for instance a discrete one, or without the path, and for a jump that is to be refused.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise()) ** 2
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Kingma and Welling 2014, section 2.4, "Auto-Encoding Variational Bayes", https://arxiv.org/abs/1312.6114; Mohamed et al.
        2020, eq. 28, https://arxiv.org/abs/1906.10652; Figurnov et al. 2018, eq. 5, "Implicit Reparameterization Gradients",
        https://arxiv.org/abs/1805.08498; Lee et al. 2018, section 2 (jumps), https://arxiv.org/abs/1806.00176;
        Jankowiak and Obermeyer 2018, section 5 (optimal transport), "Pathwise Derivatives Beyond the Reparameterization
        Trick", https://arxiv.org/abs/1806.01851.
    """

    path: Literal["sampler", "optimal_transport"] | AdaptiveVelocity = dataclasses.field(
        default="sampler", kw_only=True
    )
    jumps: OnJump = static_field(default="warn")
    possible_jumps: OnJump = static_field(default="ignore")

    flow = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, AdaptiveVelocity):
            options = ("sampler", "optimal_transport")
            check_option("Pathwise(path=...)", self.path, options, "a `mcgrad.AdaptiveVelocity`")
        if self.jumps in ("sampler", "optimal_transport") or isinstance(self.jumps, AdaptiveVelocity):
            raise TypeError(
                f"`mcgrad.Pathwise(path=...)` must be passed by its name, got {self.jumps!r} for `jumps`, the "
                "first argument. Write `path=`."
            )
        for name in ("jumps", "possible_jumps"):
            check_option(f"Pathwise({name}=...)", getattr(self, name), get_args(OnJump))

    def on_jump(self, *, certain: bool) -> OnJump:
        return self.jumps if certain else self.possible_jumps

    def why_not(self, site: Site) -> str | None:
        facts = site.facts
        if facts.pathwise_obstacle is not None:
            return facts.pathwise_obstacle
        if isinstance(self.path, AdaptiveVelocity):
            return self.path.why_not(site)
        missing = self.path == "optimal_transport" and "optimal_transport" not in facts.knows
        return f"{facts.law} knows no path of optimal transport" if missing else None

    def represent(self, draw: Draw) -> Flow:
        if isinstance(self.path, AdaptiveVelocity):
            return Flow(draw.under_vmaps(lambda own, *given: own.path.move(*given), key=draw.key, estimator=self))
        if self.path == "sampler":
            return Flow(draw.sample_path())
        return Flow(draw.under_vmaps(lambda dist, x: dist.optimal_transport(x), draw.sample()))
