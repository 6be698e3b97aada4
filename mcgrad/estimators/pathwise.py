"""The pathwise estimator."""

from __future__ import annotations

import dataclasses

from mcgrad.program.estimator import Estimator, Flow
from mcgrad.program.site import Site, SiteHandle


@dataclasses.dataclass(frozen=True)
class Pathwise(Estimator):
    r"""Pathwise (reparameterization, infinitesimal perturbation analysis): differentiates the draw itself.

        d E[f(x)] = E[ f'(x) dx/dtheta ],    x = T(noise; theta)

    Unbiased, for derivatives of every order; continuous laws whose `sample` is differentiable in the parameters,
    explicitly or implicitly. One evaluation of the rest of the program, which must be differentiable in the draw
    almost everywhere and continuous. **A cost that jumps in the draw gives a biased gradient.**

    Raises:
        ValueError: where the program is planned, for a law without a pathwise derivative, for instance a discrete one.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise()) ** 2
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Kingma and Welling 2014, section 2.4; Mohamed et al. 2020, eq. 28; Figurnov et al. 2018, eq. 5 (implicit).
    """

    local = True
    flow = True

    def obstacle(self, site: Site) -> str | None:
        reason = site.facts.pathwise_obstacle
        return None if reason is None else f"{reason}. Use `mcgrad.Score()`, or `mcgrad.Auto()` to let mcgrad choose."

    def represent(self, site: SiteHandle) -> Flow:
        return Flow(site.draw_path())
