"""What an estimator is: a rule for one random choice, as data in one of three representations.

Each is a reading of the signed measure `d_theta p` (design page, section 4):

| representation    | identity              | derivatives            |
|-------------------|-----------------------|------------------------|
| `WeightedPoints`  | `dp = p * score`      | of every order         |
| `SignedPoints`    | `dp = c (p+ - p-)`    | first; a second raises |
| `Flow`            | `dp = -div(p v)`      | of every order         |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._compat import custom_jvp
from mcgrad._types import PyTree
from mcgrad.program.draw import Draw
from mcgrad.program.relation import Relation
from mcgrad.program.site import Site
from mcgrad.program.thresholds import Decision
from mcgrad.program.trace import Equation

Baseline: TypeAlias = "jax.Array | Literal['leave_one_out'] | None"
OnJump: TypeAlias = Literal["ignore", "warn", "refuse"]


@dataclasses.dataclass(frozen=True)
class Flow:
    """One value whose derivative is the velocity `v = dx/dtheta`."""

    value: Any


@dataclasses.dataclass(frozen=True)
class WeightedPoint:
    """One point drawn with frozen parameters, and the log of its weight `p_theta(x) / stop(p_theta(x))`.

    Attributes:
        value: the point, of the site's shape.
        log_weight: of shape `plates`; only its derivatives matter (the weight's value is 1).
        baseline: subtracted from the costs that the point is credited with, without changing their expectation:
            an array that broadcasts to `plates`, `"leave_one_out"` (the mean of the other samples of the transform), or `None`.
        moves: whether costs are differentiated in the value too; else it is held fixed.
        control: a control variate, of shape `plates`: zero in value, all of its derivatives of expectation zero, given what
            came before the draw. It is added to the cost that the baseline is subtracted from.
    """

    value: Any
    log_weight: jax.Array
    baseline: Baseline = None
    moves: bool = False
    control: jax.Array | None = None

    @property
    def point(self) -> Any:
        """The value, with the derivative that it is to have."""
        return self.value if self.moves else jax.lax.stop_gradient(self.value)


@dataclasses.dataclass(frozen=True)
class WeightedPoints:
    """Several points with weights: `sum_i w_i(theta) f(x_i)` is unbiased for every theta near the current one.

    Attributes:
        points: of shape `[n, *site shape]`.
        weights: of shape `[n, *plates]`; a cost gets the product over the plate entries that it depends on.
        log_weights: in place of `weights`: of shape `[n, *plates]`, for points that are replicates of one draw, each with
            weight `1 / n` times `p_theta(x_i) / stop(p_theta(x_i))`; downstream sites then draw anew for each.
            Beside `weights`: these are then constants, multiplied by `p_theta(x_i) / stop(p_theta(x_i))` of the entries
            that a cost depends on. Along axes that some cost mixes the points are joint, and `weights` have one entry.
        baseline: as in `WeightedPoint`; `"leave_one_out"` is the mean over the other points. With both kinds of weights a
            matrix `[n, n, *plates]`: the baseline of point `i` is `sum_j baseline[i, j] f(x_j)`.
    """

    points: Any
    weights: jax.Array | None = None
    log_weights: jax.Array | None = None
    baseline: Baseline = None


@dataclasses.dataclass(frozen=True)
class SignedPoints:
    """A point for the value, and perturbed points whose differences make the first derivative.

    Attributes:
        value: the point at which the rest of the program is run with its own derivatives.
        points: perturbed points `[n, *site shape]`. Entries along plate axes that no cost mixes are perturbed together,
            the others one at a time.
        coefficients: `[n, *plates]`, zero in value, with the derivative that multiplies `f(x_j)`:
            `c_j * (theta - stop(theta))` summed over the parameters.
        relative: whether the coefficients multiply `f(x_j) - f(value)` instead.
        joint: whether a point perturbs all entries together also along axes that some cost mixes.
        decision: how comparisons that tie at the points come out, with `side` and `reach` of each point.
        chunk_size: how many perturbed points are evaluated at once, all by default; memory is that of one chunk.
    """

    value: Any
    points: Any
    coefficients: jax.Array
    relative: bool = False
    joint: bool = False
    decision: Decision | None = None
    chunk_size: int | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alternatives:
    """Other values of a draw `x`, whose differences make the first derivative: `E[sum_j dc_j (f(y_j) - f(x))]`.

    Attributes:
        values: `[n, *site shape]`.
        coefficients: `[n, *plates]`, zero in value, with derivative `dc_j`.
        sizes: `[n, *plates]`, at least zero: how large the derivatives of the coefficients are, up to a common factor; an
            alternative is chosen in proportion to it, and one of size zero must have a coefficient without derivative.
    """

    values: Any
    coefficients: jax.Array
    sizes: jax.Array


Representation: TypeAlias = Flow | WeightedPoint | WeightedPoints | SignedPoints


class Result(NamedTuple):
    """The weighted costs of a program, the auxiliary outputs of one plain run of it, and what no draw reaches."""

    costs: tuple[Array, ...]
    aux: tuple[Any, ...]
    undrawn: tuple[Any, ...]


class Rest(Protocol):
    """The rest of the program, as a function of the value of one draw.

    Calling it runs the remainder with later estimators applied; it may be called at several points and vmapped over.
    """

    def __call__(self, x: Any, *, replicate: Any = None) -> Result:
        """The remaining costs at `x`; with a `replicate` index, later sites draw anew for that replicate."""
        ...

    def simulate(self, x: Any) -> Result:
        """The remaining costs at `x` of one plain run: later sites draw once, whatever their estimators."""
        ...

    def evaluate(self, draw: Draw, representation: Representation) -> Result:
        """The costs that a representation stands for."""
        ...

    def thresholds(self, draw: Draw) -> list[tuple[Equation, Callable[[Array], Array]]]:
        """Where costs may jump in a draw: comparisons, each with the compared difference, affine in the draw."""
        ...


class Estimator(PyTree):
    """Base of estimators: subclass as a frozen dataclass and write `represent` (or, for the general form, `estimate`).

    Class attributes:
        local: `represent` returns a `Flow` or a single `WeightedPoint`, so the rest of the program is not needed;
            such an estimator also runs inside loops and branches.
        flow: `represent` returns a `Flow`: costs need no weight for this site.
        moves_draw: costs are differentiated in the draw, so that jumps are looked for, although it is no `flow`.
        follows_alternatives: it has `alternatives`, one of which is carried along inside a `scan`.
    """

    local: ClassVar[bool] = False
    flow: ClassVar[bool] = False
    moves_draw: ClassVar[bool] = False
    follows_alternatives: ClassVar[bool] = False

    def obstacle(self, site: Site) -> str | None:
        """Why this estimator would be wrong at `site`, and the way out; `None` where it is right."""
        return None

    def closed(self, dist: Any) -> Estimator:
        """This estimator, named at a draw from `dist`, with the arrays that its functions close over as leaves of its own.

        So a function may close over what the program computes, in a `vmap` or a `scan` too.
        """
        return self

    def resolve(self, site: Site, relations: Sequence[Relation | None] | None) -> Estimator:
        """The estimator that stands for this one at `site`; `relations` to the costs are `None` while not yet known."""
        return self

    def where_costs_jump(self, site: Site) -> Estimator:
        """The estimator that stands for this one at `site` if a cost surely jumps in the draw."""
        return self.resolve(site, None)

    def on_jump(self, *, certain: bool) -> OnJump:
        """What to do, where the draw is moved, about a cost that jumps in the draw, or that may jump in it."""
        return "warn" if certain else "ignore"

    def evaluations(self, site: Site, relation: Relation) -> int:
        """How many evaluations of the rest of the program a cost with this relation takes, draws of a loop together."""
        return 1

    def represent(self, draw: Draw) -> Representation:
        """The points of this estimator for one random choice."""
        raise NotImplementedError(f"{type(self).__name__} must define `represent` or `estimate`.")

    def alternatives(self, draw: Draw, x: Any) -> Alternatives:
        """Other values for the draw `x`; what a `scan` carries along beside the real state."""
        raise NotImplementedError(f"{type(self).__name__} must define `alternatives`.")

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        """The costs of the rest of the program, right in value and derivatives in expectation."""
        return rest.evaluate(draw, self.represent(draw))


@custom_jvp
def unit_weight(log_weight: jax.Array) -> jax.Array:
    """`exp(l - stop(l))`: one in value, with the derivatives of `exp(l)` relative to it (Foerster et al. 2018, eq. 5).

    As a rule of its own it never forms `l - l`, which is NaN where `l` is infinite, and costs nothing where only the
    value is wanted.
    """
    return jnp.ones_like(log_weight)


@unit_weight.defjvp
def _unit_weight_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (log_weight,), (tangent,) = primals, tangents
    weight = unit_weight(log_weight)
    return weight, weight * tangent


@custom_jvp
def zero_with_derivative_of(x: jax.Array) -> jax.Array:
    """`x - stop(x)`, without the value of `x` being computed."""
    return jnp.zeros_like(x)


@zero_with_derivative_of.defjvp
def _zero_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return zero_with_derivative_of(*primals), tangents[0]


@custom_jvp
def signed_term(coefficient: jax.Array, cost: jax.Array) -> jax.Array:
    """`coefficient * stop(cost)` for a coefficient that is zero in value, with an error in place of a second derivative.

    The cost is not stopped here but in the rule, so that a derivative in a parameter that only the cost depends on,
    after one in the site's parameter, is seen and refused rather than silently zero.
    """
    return coefficient * cost


@signed_term.defjvp
def _signed_term_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    coefficient, cost = primals
    # The guard is on what the tangent is multiplied with, which stays when the product is linearized.
    return coefficient * cost, _undifferentiable(coefficient, cost) * tangents[0]


@custom_jvp
def _undifferentiable(coefficient: jax.Array, cost: jax.Array) -> jax.Array:
    return cost


@_undifferentiable.defjvp
def _undifferentiable_jvp(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    raise NotImplementedError(
        "A second derivative through an estimator of signed points (measure-valued, coupled) would be wrong: its "
        "points are right to first order only. Use `mcgrad.Score`, `mcgrad.Pathwise` or `mcgrad.Enumerate` at this "
        "site, which are right to every order."
    )
