"""The pathwise estimator, and paths of the multivariate normal distribution with coefficients that are learned."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mcgrad._arguments import check_option
from mcgrad._types import PRNGKey, PyTree, static_field
from mcgrad.estimators.path_couplings import maximal, reflection
from mcgrad.program import Draw, Flow, LocalEstimator, Site
from mcgrad.program.estimator import OnJump


@dataclasses.dataclass(frozen=True)
class AdaptiveVelocity(PyTree):
    r"""Adaptive velocity field: a path of `MultivariateNormal(loc, scale_tril=L)` with coefficients that are free to learn.

    `mcgrad.Pathwise(path=mcgrad.AdaptiveVelocity(rows, columns))` differentiates the draw `x = loc + L z` as

        dx = dloc + dL z + L W z,    W = A - A^T,    A_ij = dL_ij sum_m rows_mi columns_mj

    The last term turns the noise, which leaves the distribution as it is. So **the gradient is unbiased for any coefficients**
    that do not depend on the draw itself, and derivatives of every order are; of the coefficients its variance is a quartic
    polynomial. They are arrays that the program may get as an argument, to be learned by descending the squared norm of the
    gradient, whose mean is the variance and a constant. With `A = 0` the path is the sampler's.

    Args:
        rows: `[m, d]`, of a distribution of `d` dimensions; `m = 1` has `2 d` coefficients, `m = d` any matrix.
        columns: `[m, d]`.

    Raises:
        TypeError: for what is no real floating-point array.
        ValueError: for arrays that are not of one shape `[m, d]`; where the program is planned, for a distribution of another
            dimension, for one other than `MultivariateNormal`, and for its `scale_diag`, which leaves no plane to turn in.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(tril, velocity, key):
        ...     dist = mcgrad.MultivariateNormal(jnp.zeros(3), scale_tril=tril)
        ...     return jnp.prod(mcgrad.sample(key, dist, mcgrad.Pathwise(path=velocity)))
        >>> def size(velocity, tril, key):  # descend its gradient by optax, beside that of the loss
        ...     return jnp.sum(mcgrad.grad(loss)(tril, velocity, key) ** 2)
        >>> velocity = mcgrad.AdaptiveVelocity.init(jax.random.key(0), dimension=3)
        >>> jax.jit(jax.grad(size))(velocity, jnp.eye(3), jax.random.key(1)).rows.shape
        (1, 3)

    References:
        Jankowiak and Karaletsos 2019, on adaptive velocity fields, "Pathwise Derivatives for Multivariate Distributions",
        https://arxiv.org/abs/1806.01856; `rows` and `columns` are their `B` and `C`.
    """

    rows: Float[Array, "m d"]
    columns: Float[Array, "m d"]

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            value = getattr(self, name)
            if not (isinstance(value, (np.ndarray, jax.Array)) and jnp.issubdtype(value.dtype, jnp.floating)):
                raise TypeError(
                    f"`mcgrad.AdaptiveVelocity({name}=...)` must be an array of floating-point numbers, got {value!r}. Start "
                    "from `mcgrad.AdaptiveVelocity.init(key, dimension=d)`."
                )
        if self.rows.ndim != 2 or self.rows.shape != self.columns.shape:
            raise ValueError(
                "`mcgrad.AdaptiveVelocity(rows=..., columns=...)` must be two arrays of one shape `[m, d]`, got "
                f"{self.rows.shape} and {self.columns.shape}. Start from `mcgrad.AdaptiveVelocity.init(key, dimension=d)`."
            )

    @classmethod
    def init(cls, key: PRNGKey, *, dimension: int, rank: int = 1) -> AdaptiveVelocity:
        """A start for learning: the sampler's path, `rows` zero, with standard normal `columns`, so that `rows` can move."""
        columns = jax.random.normal(key, (rank, dimension))
        return cls(jnp.zeros_like(columns), columns)

    def why_not(self, site: Site) -> str | None:
        """Why this path would be wrong at `site`."""
        if "adaptive_velocity" not in site.facts.knows:
            return f"{site.facts.law} has no path with learned coefficients, only `mcgrad.MultivariateNormal` with `scale_tril` has"
        (d,) = site.base_draw.shape[-1:]
        if len(self.rows.shape) != 2 or self.rows.shape[-1] != d:
            return (
                f"`mcgrad.AdaptiveVelocity(rows=..., columns=...)` must be arrays of shape `[m, {d}]` for a distribution of {d} "
                f"dimensions, got {self.rows.shape}. Start from `mcgrad.AdaptiveVelocity.init(key, dimension={d})`"
            )
        return None

    def move(self, key: PRNGKey, dist: Any) -> Any:
        """A draw, with the derivative of this path."""
        return dist.adaptive_velocity(dist.noise(key), self.rows, self.columns)


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

    **Beside an alternative path** through a `scan` (`mcgrad.SmoothedPerturbation`) the draw of that path is coupled with the
    real one. With one noise for both (`"shared"`) two Markov chains that once differ may never meet; by a maximal coupling they
    have the same draw as often as two draws of their distributions can. Any coupling is unbiased, and has another variance.

    (By parts this is `mcgrad.Score`. The tricks of Walder et al. 2019 estimate the velocity of the path by further draws, see
    `mcgrad.implicit_reparameterization`.)

    Args:
        path: `"sampler"`, that of the distribution's sampler; `"optimal_transport"`, for distributions that know it:
            `MultivariateNormal`, `Dirichlet` and `Beta`; or a `mcgrad.AdaptiveVelocity`, for `MultivariateNormal`.
        jumps: what to do where a cost jumps, or where it was tried at a comparison of the draw and could not be told:
            `"warn"`, with a `mcgrad.JumpWarning` that names the line, `"refuse"` or `"ignore"`.
        possible_jumps: the same where it may jump at a comparison that no trial came to, as is usual for guards.
        coupling: of the draw on an alternative path with that of the real one, all entries of the distribution's batch
            together, for a draw in the body of the `scan` itself, not in a branch: `"shared"`; `"reflection"`, for `Normal` and
            `MultivariateNormal`, maximal where both have the same scale and else shared; or `"maximal"`, by rejection, for all
            distributions with a `log_prob`.

    Raises:
        ValueError: where it is built, for another `path`, `coupling` or other `jumps`; where the program is planned, for a
            distribution without a pathwise derivative, for instance a discrete one, or without the path or the coupling, and for
            a jump that is to be refused.

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
        Trick", https://arxiv.org/abs/1806.01851; Arya et al. 2023 (coupling), "Differentiating Metropolis-Hastings to Optimize
        Intractable Densities", https://arxiv.org/abs/2306.07961.
    """

    path: Literal["sampler", "optimal_transport"] | AdaptiveVelocity = dataclasses.field(
        default="sampler", kw_only=True
    )
    jumps: OnJump = static_field(default="warn")
    possible_jumps: OnJump = static_field(default="ignore")
    coupling: Literal["shared", "reflection", "maximal"] = static_field(default="shared", kw_only=True)

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
        check_option("Pathwise(coupling=...)", self.coupling, ("shared", *_COUPLINGS))

    def on_jump(self, *, certain: bool) -> OnJump:
        return self.jumps if certain else self.possible_jumps

    def why_not(self, site: Site) -> str | None:
        facts = site.facts
        if facts.pathwise_obstacle is not None:
            return facts.pathwise_obstacle
        if self.coupling == "reflection" and "noise_of" not in facts.knows:
            return (
                f"{facts.law} has no reflection, only `mcgrad.Normal` and `mcgrad.MultivariateNormal` have. Write "
                '`coupling="maximal"`, for any distribution with a `log_prob`'
            )
        if self.coupling == "maximal" and "log_prob" not in facts.knows:
            return f"{facts.law} has no `log_prob`, which a maximal coupling needs"
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

    @property
    def couples(self) -> bool:
        return self.coupling != "shared"

    def couple(self, draw: Draw, real: Draw, x: Any) -> Any:
        key = draw.key_beside(_KEY_OF_COUPLING)
        return draw.under_vmaps(_COUPLINGS[self.coupling], x, key=key, beside=real, frozen=True)


_COUPLINGS = {"reflection": reflection, "maximal": maximal}

_KEY_OF_COUPLING = 0xC0
"""Folded into the key of a draw, for the noise of its coupling."""
