"""What estimators return: the points of one random choice, in one of three kinds of representation.

Each is a way to write the signed measure `d_theta p`:

| representation                           | identity              | derivatives            |
|------------------------------------------|-----------------------|------------------------|
| `WeightedPoint`, `WeightedPoints`,       | `dp = p * score`      | of every order         |
| `Replicates`, `Reweighted`               |                       |                        |
| `SignedPoints`                           | `dp = c (p+ - p-)`    | first; a second raises, without a `log_weight` |
| `Flow`                                   | `dp = -div(p v)`      | of every order         |
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias

import jax

from mcgrad.program.thresholds import Decision

Baseline: TypeAlias = "jax.Array | Literal['leave_one_out'] | None"


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
        moves: whether costs are also differentiated in the value; otherwise it is held fixed.
        control: a control variate, of shape `plates`: its value is zero, and so is the expectation of each of its
            derivatives, given what came before the draw. It is added to the cost that the baseline is subtracted from.
        fitted: whether the baseline, an array, gets the derivative of its squared error.
    """

    value: Any
    log_weight: jax.Array
    baseline: Baseline = None
    moves: bool = False
    control: jax.Array | None = None
    fitted: bool = False

    @property
    def point(self) -> Any:
        """The value, differentiable if it `moves`, else held fixed."""
        return self.value if self.moves else jax.lax.stop_gradient(self.value)


@dataclasses.dataclass(frozen=True)
class WeightedPoints:
    """Several points with weights: `sum_i w_i(theta) f(x_i)` is unbiased for every theta near the current one.

    Attributes:
        points: of shape `[n, *site shape]`.
        weights: of shape `[n, *plates]`; a cost is multiplied by the product over the plate entries that it depends on.
    """

    points: Any
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class Replicates:
    """Independent replicates of one draw, each of weight `1 / n` times `p_theta(x_i) / stop(p_theta(x_i))`.

    Later sites draw anew for each.

    Attributes:
        points: of shape `[n, *site shape]`.
        log_weights: of shape `[n, *plates]`; only their derivatives matter.
        baseline: as in `WeightedPoint`; `"leave_one_out"` is the mean over the other replicates.
    """

    points: Any
    log_weights: jax.Array
    baseline: Baseline = None


@dataclasses.dataclass(frozen=True)
class Reweighted:
    """Several points with constant weights, times `p_theta(x_i) / stop(p_theta(x_i))` of the entries that a cost depends on.

    Along axes that some cost mixes (`draw.mixed_axes`), each point sets all entries jointly, and `weights` and `mixing` have
    size one.

    Attributes:
        points: of shape `[n, *site shape]`.
        weights: of shape `[n, *plates]`, constant.
        log_weights: of shape `[n, *plates]`; only their derivatives matter.
        mixing: of shape `[n, n, *plates]`: the baseline of point `i` is `sum_j mixing[i, j] f(x_j)`. `None` for no baseline.
    """

    points: Any
    weights: jax.Array
    log_weights: jax.Array
    mixing: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class SignedPoints:
    """A point for the value, and perturbed points whose differences give the first derivative; a second one raises.

    Attributes:
        value: the point at which the rest of the program runs, and is differentiated by itself.
        points: perturbed points `[n, *site shape]`. Entries along plate axes that no cost mixes are perturbed together,
            the others one at a time.
        coefficients: `[n, *plates]`, with the derivative that multiplies `f(x_j)`: `c_j * (theta - stop(theta))` summed over the
            parameters. Their values do not count.
        relative: whether the coefficients multiply `f(x_j) - f(value)` instead.
        joint: whether to perturb all entries at once, even along axes that a cost mixes.
        decision: how to resolve comparisons whose two sides are equal at a perturbed point; `side` and `reach` are per point.
        chunk_size: how many perturbed points are evaluated at once, all by default; memory is that of one chunk.
        log_weight: of shape `plates`, for derivatives of every order: the log of the weight of `value`, as in `WeightedPoint`. Its
            first derivative is then taken off again as `slope`, and `coefficients` must be linear in the same parameters.
        slope: of shape `plates`, zero and linear in the parameters, with the first derivative of `log_weight`.
    """

    value: Any
    points: Any
    coefficients: jax.Array
    relative: bool = False
    joint: bool = False
    decision: Decision | None = None
    chunk_size: int | None = None
    log_weight: jax.Array | None = None
    slope: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alternatives:
    """Other values of a draw `x`, whose differences give the first derivative: `E[sum_j dc_j (f(y_j) - f(z_j))]`.

    Attributes:
        values: `[n, *site shape]`, the `y_j`.
        coefficients: `[n, *plates]`, zero in value, with derivative `dc_j`.
        sizes: `[n, *plates]`, at least zero: the magnitudes of the derivatives of the coefficients, up to a common factor.
            An alternative is chosen with probability proportional to its size; if that is zero, its coefficient must have
            no derivative.
        against: `[n, *site shape]`, the `z_j`: only for an estimator that says so (`pairs`). By default all are the draw itself.
    """

    values: Any
    coefficients: jax.Array
    sizes: jax.Array
    against: Any = None


Representation: TypeAlias = Flow | WeightedPoint | WeightedPoints | Replicates | Reweighted | SignedPoints
