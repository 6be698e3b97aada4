"""The pathwise estimator."""

from __future__ import annotations

import dataclasses
from typing import get_args

from mcgrad._types import static_field
from mcgrad.program.estimator import Estimator, Flow, OnJump
from mcgrad.program.site import Site, SiteHandle


@dataclasses.dataclass(frozen=True)
class Pathwise(Estimator):
    r"""Pathwise (reparameterization, infinitesimal perturbation analysis): differentiates the draw itself.

        d E[f(x)] = E[ f'(x) dx/dtheta ],    x = T(noise; theta)

    Unbiased, for derivatives of every order; continuous laws whose `sample` is differentiable in the parameters,
    explicitly or implicitly. One evaluation of the rest of the program, which must be differentiable in the draw
    almost everywhere and continuous. **A cost that jumps in the draw gives a biased gradient**: what happens at the jump is
    left out. `sign`, `floor`, `round`, `argmax` and a comparison turned into a number, where the draw reaches them, always
    jump; `where`, `cond` and `%` may jump. `mcgrad.explain` lists both.

    Args:
        jumps: what to do where a cost jumps: `"warn"`, with a `mcgrad.JumpWarning` that names the line, `"refuse"` or
            `"ignore"`.
        possible_jumps: the same where it may jump.

    Raises:
        ValueError: where it is built, for other `jumps`; where the program is planned, for a law without a pathwise
            derivative, for instance a discrete one, and for a jump that is to be refused.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise()) ** 2
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Kingma and Welling 2014, section 2.4; Mohamed et al. 2020, eq. 28; Figurnov et al. 2018, eq. 5 (implicit); Lee et
        al. 2018, section 2 (jumps).
    """

    jumps: OnJump = static_field(default="warn")
    possible_jumps: OnJump = static_field(default="ignore")

    local = True
    flow = True

    def __post_init__(self) -> None:
        for name in ("jumps", "possible_jumps"):
            if (value := getattr(self, name)) not in get_args(OnJump):
                raise ValueError(
                    f'`mcgrad.Pathwise({name}=...)` must be "ignore", "warn" or "refuse", got {value!r}. Pass one of these.'
                )

    def on_jump(self, *, certain: bool) -> OnJump:
        return self.jumps if certain else self.possible_jumps

    def obstacle(self, site: Site) -> str | None:
        reason = site.facts.pathwise_obstacle
        return None if reason is None else f"{reason}. Use `mcgrad.Score()`, or `mcgrad.Auto()` to let mcgrad choose."

    def represent(self, site: SiteHandle) -> Flow:
        return Flow(site.draw_path())
