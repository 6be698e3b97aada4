"""Control variates by a differentiable surrogate of the cost: LAX, RELAX and REBAR.

Let `z` be a draw of a relaxed distribution that moves with the parameters, its noise held, and `z'` one of the same
distribution given the draw `x`, moved with the draw and its noise held. With `w = p_theta(x) / stop(p_theta(x))`, for every
function `c`,

    E[c(z)] = E[w c(z')]

as functions of the parameters: on the right the draw's distribution moves by its weight, and `z'` given the draw by itself. So

    v - stop(v),    v = c(z) - w c(z')

has expectation zero and so have its derivatives, of every order; the first is that of RELAX, `dc(z) - dc(z') - c(z') d log p(x)`.
(With `stop(c(z'))` beside the weight, as often written, the second derivative lacks `2 d log p dc(z')`.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad._arguments import broadcasts_to, check_callable
from mcgrad._closures import Closed
from mcgrad._types import PRNGKey, static_field
from mcgrad.distributions import Independent, Logistic, Relaxation
from mcgrad.estimators.score import why_no_score
from mcgrad.program import Draw, LocalEstimator, Relation, Site, WeightedPoint, bring
from mcgrad.program.blind_way import BlindWay
from mcgrad.program.dependence import analyze
from mcgrad.program.paths import blind_ways
from mcgrad.program.site import bind_draw
from mcgrad.program.surrogates import unit_weight, zero_with_derivative_of
from mcgrad.program.trace import from_jaxpr

KEY_OF_RELAXATION = 1
"""Folded into a draw's key, for the relaxed draws beside it."""


@dataclasses.dataclass(frozen=True)
class _Surrogate(LocalEstimator):
    """What LAX and RELAX share: the function, seen as a program, and the control variate that it makes of a `Relaxation`."""

    control: Callable[[Any], Any]

    def __post_init__(self) -> None:
        way_out = "Pass `lambda z: ...`, or an array as `mcgrad.Score(baseline=...)`."
        check_callable(self, "control", "the draw", way_out)

    def closed(self, dist: Any) -> _Surrogate:
        return self._closed_on(self._argument(dist))

    def resolve(self, site: Site, relations: Any) -> _Surrogate:
        return self._closed_on(self._argument_at(site))

    def why_not(self, site: Site) -> str | None:
        point = self._argument_at(site)
        if point is None:
            return "a draw is not one floating-point array"
        own, batch = self._closed_on(point), site.own_plates[site.num_levels :]
        assert isinstance(own.control, Closed)
        out = own.control.result
        leaves = jax.tree.leaves(out)
        fits = len(leaves) == 1 and broadcasts_to(leaves[0].shape, batch)
        if not fits or leaves[0] is not out or not jnp.issubdtype(out.dtype, jnp.floating):
            got = ", ".join(f"{leaf.dtype} of shape {leaf.shape}" for leaf in leaves) or "nothing"
            return (
                "`control` must return one floating-point array whose shape broadcasts to the draw's batch shape "
                f"{batch}, got {got}. It gets an array of shape {point.shape}; keep an axis of size one where you take a sum"
            )
        jumps = [jump for jump in own._seen(point, len(batch))[1] if jump.certain]
        if jumps:
            return (
                f"`control` must be continuous, and {jumps[0].describe()} in it, where its derivative leaves something out. "
                "Use a smooth function, such as `jax.nn.sigmoid`, in its place"
            )
        return None

    def represent(self, draw: Draw) -> WeightedPoint:
        x = draw.sample()
        key, moving = draw.key_beside(KEY_OF_RELAXATION), self._moving(draw, x)
        control = draw.under_vmaps(_Surrogate._variate, moving, key=key, estimator=self)
        return WeightedPoint(x, draw.log_prob(x), control=control)

    def _argument(self, dist: Any) -> jax.ShapeDtypeStruct | None:
        """What the function gets at a draw from a distribution; `None` where it cannot be one of its draws."""
        raise NotImplementedError

    def _points(self, key: PRNGKey, dist: Any, x: Any) -> Relaxation:
        """The two draws that the function gets."""
        raise NotImplementedError

    def _moving(self, draw: Draw, x: Any) -> Any:
        """The draw `x`, as `_points` gets it."""
        return x

    def _argument_at(self, site: Site) -> jax.ShapeDtypeStruct | None:
        found: list[jax.ShapeDtypeStruct | None] = []
        jax.eval_shape(lambda dist: found.append(self._argument(dist)), site.base_dist)
        return found[0]

    def _closed_on(self, point: jax.ShapeDtypeStruct | None) -> _Surrogate:
        if point is None or isinstance(self.control, Closed):
            return self
        return dataclasses.replace(self, control=Closed.of(self.control, point))

    def _variate(self, key: PRNGKey, dist: Any, x: Any) -> Array:
        """The control variate, of the batch shape."""
        z, given, log_prob, *_ = self._points(key, dist, x)
        c, batch = self.control, tuple(dist.batch_shape)
        relation, _ = self._seen(z, len(batch))
        if relation is None:  # no function of the draw
            return jnp.zeros(batch, z.dtype)
        moved = c(z)
        weight = unit_weight(jnp.broadcast_to(bring(log_prob, relation, moved.shape), moved.shape))
        # Each is less its value where the draws are held: so no derivative is left in what the function closes over, but in
        # the derivatives that follow it is, and can be trained on them.
        value = (moved - c(stop(z))) - (weight * c(given) - c(stop(given)))
        entries = math.prod(batch) // max(value.size, 1)  # of the batch that one number is for
        return jnp.broadcast_to(zero_with_derivative_of(value) / max(entries, 1), batch)

    def _seen(self, point: Any, batch_ndim: int) -> tuple[Relation | None, list[BlindWay]]:
        """Which entries of the draw an entry of the function's value depends on, and where it jumps in the draw."""
        control = self.control
        assert isinstance(control, Closed)

        def on_a_draw(key: PRNGKey, arrays: Any) -> Any:
            anywhere = Logistic(_mesh.zeros(jax.typeof(point)), jnp.ones((), point.dtype))
            z = bind_draw(key, Independent(anywhere, len(point.shape) - batch_ndim))
            return dataclasses.replace(control, arrays=arrays)(z)

        structs = [_mesh.placeholder(array) for array in control.arrays]
        program = from_jaxpr(jax.make_jaxpr(on_a_draw)(_key_struct(), structs))
        analysis = analyze(program)
        site = next(iter(analysis.sites.values()))
        jumps = blind_ways(program, program.outputs, {site.equation: site}, {site})
        return analysis.of(program.outputs[0]).get(site), jumps


def _key_struct() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class RELAX(_Surrogate):
    r"""The score with a control variate made of a differentiable surrogate of the cost, at a relaxed draw: RELAX, REBAR.

    A discrete draw is a function of a continuous one, `x = H(z)`, that has a path. With a cost `c` and the surrogate `control`,

        d E[c(x)] = E[ (c(x) - control(z')) d log p(x) + d control(z) - d control(z') ]

    where `z'` is a draw of `z` given `x`, and both move with the parameters, their noise (and `x`) held. For `Bernoulli`,
    `z = logits + logit(u)` and `x = [z > 0]`; for `Categorical` and `OneHotCategorical` of `n` classes `z` has an axis of `n`
    perturbed log probabilities, `log p + Gumbel`, and `x` is where the largest is; for `PlackettLuce`, in which order the largest
    are. Of `Independent` distributions of these too.

    Unbiased for every `control`, for derivatives of every order that `control` has. The cost need not be differentiable in
    the draw. One evaluation of the rest of the program and two of `control`. Entries that are certain, to the smallest normal
    number, have the score only. `num_samples=` of the transform averages; no leave-one-out baseline is added.

    **REBAR** is the case of a cost that can be evaluated at relaxed bits: `control=lambda z: eta * cost(sigmoid(z / temperature))`.

    The surrogate may close over anything that the program computes before the draw. What it closes over, `phi`, moves neither
    the value nor the expected gradient, and no derivative in it is left in the loss. It is trained to lower the variance by
    `jax.grad(lambda phi: sum(g(phi) ** 2))` of the gradient `g`, an unbiased derivative of the total variance.

    **`control` is in the units of the cost**, before the sums, means and constant factors that turn costs into the output,
    like a baseline. For a batch it returns a number an entry, or one for several entries that the cost mixes, with an axis
    of size one in their place: for bits `[N, D]` and a cost of `[N]`, `[N, 1]` (or `[N, D]`, whose sum over `D` stands for
    the cost). Each is weighted with the draws that it depends on. It stands for one cost, that which depends on most of the draws.

    Args:
        control: `control(z)`, of a relaxed draw in the shape of the draw (of the classes, with an axis more for `Categorical`),
            returns a floating-point array that broadcasts to the draw's batch shape. Continuous in `z`.
        coupled: whether `z` and `z'` are made of the same noise; they are then equal, and their derivatives are not.

    Raises:
        TypeError: where it is built, for a `control` that is no function.
        ValueError: where the program is planned, with the line of the draw: for a distribution that has no relaxation, for a
            `control` that returns something else or surely jumps.

    Example:
        >>> import jax, mcgrad
        >>> cost = lambda b: (b - 0.45) ** 2
        >>> def loss(logits, phi, key):
        ...     rebar = mcgrad.RELAX(lambda z: phi[0] * cost(jax.nn.sigmoid(z / phi[1])))
        ...     return cost(mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), rebar))
        >>> gradient = lambda phi: mcgrad.grad(loss)(0.2, phi, jax.random.key(0))
        >>> jax.grad(lambda phi: gradient(phi) ** 2)(jax.numpy.array([1.0, 0.5])).shape  # of the variance
        (2,)

    References:
        Tucker et al. 2017, section 3, "REBAR: Low-Variance, Unbiased Gradient Estimates for Discrete Latent Variable Models",
        https://arxiv.org/abs/1703.07370; Grathwohl et al. 2018, eq. 8 (RELAX), eq. 6 (training), appendix (`z'`),
        "Backpropagation through the Void", https://arxiv.org/abs/1711.00123. Theirs are first derivatives; to be right to
        second order the weight must multiply `control(z')` with its derivative, not its value.
    """

    coupled: bool = static_field(default=False, kw_only=True)

    def why_not(self, site: Site) -> str | None:
        if "relaxation" in site.facts.knows:
            return super().why_not(site)
        lax = "" if site.facts.discrete else "; `mcgrad.LAX(control)` is for continuous ones"
        return (
            "the distribution has no relaxation; `mcgrad.Bernoulli`, `mcgrad.Categorical`, `mcgrad.OneHotCategorical` and "
            f"`mcgrad.PlackettLuce` have, and yours may, see `mcgrad.Distribution`{lax}"
        )

    def _argument(self, dist: Any) -> jax.ShapeDtypeStruct | None:
        if getattr(dist, "relaxation", None) is None:
            return None
        x = jax.eval_shape(dist.sample, _key_struct())
        return jax.eval_shape(lambda key, x: dist.relaxation(key, x, self.coupled).free, _key_struct(), x)

    def _points(self, key: PRNGKey, dist: Any, x: Any) -> Relaxation:
        return dist.relaxation(key, x, self.coupled)


@dataclasses.dataclass(frozen=True)
class LAX(_Surrogate):
    r"""The score with a control variate made of a differentiable surrogate of the cost, for continuous draws.

        d E[c(x)] = E[ (c(x) - control(x)) d log p(x) + d control(x) ]

    where the last derivative is that along the path of the draw. The score and the path of the surrogate have the same
    expectation, so what is left is the score of the difference. `control=cost` gives the pathwise estimator, `control=0` the score.

    Unbiased for every `control`, for derivatives of every order that `control` and the path have. The cost need not be
    differentiable in the draw, nor continuous. One evaluation of the rest of the program.

    For how `control` is trained, for its units and shapes see `mcgrad.RELAX`.

    Args:
        control: `control(x)`, of a draw, returns a floating-point array that broadcasts to the draw's batch shape.
            Continuous in `x`.

    Raises:
        TypeError: where it is built, for a `control` that is no function.
        ValueError: where the program is planned, with the line of the draw: for a distribution without a pathwise derivative,
            without a log density or with a support that moves; for a `control` that returns something else or surely jumps.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.LAX(lambda x: 0.5 * x))
        ...     return 1.0 * (x > 0.3)
        >>> mcgrad.grad(loss)(0.0, jax.random.key(0)).shape
        ()

    References:
        Grathwohl et al. 2018, eq. 5, "Backpropagation through the Void", https://arxiv.org/abs/1711.00123.
    """

    def why_not(self, site: Site) -> str | None:
        facts = site.facts
        if facts.pathwise_obstacle is not None:
            relax = "; `mcgrad.RELAX(control)` is for such" if "relaxation" in facts.knows else ""
            return f"{facts.pathwise_obstacle}, so it has no path{relax}"
        return why_no_score(site) or super().why_not(site)

    def _argument(self, dist: Any) -> jax.ShapeDtypeStruct | None:
        x = jax.eval_shape(dist.sample, _key_struct())
        single = isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.floating)
        return x if single else None

    def _points(self, key: PRNGKey, dist: Any, x: Any) -> Relaxation:
        return Relaxation(x, stop(x), dist.log_prob(stop(x)))

    def _moving(self, draw: Draw, x: Any) -> Any:
        return draw.sample_path()
