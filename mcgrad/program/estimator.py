"""What an estimator is: a rule for one random choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from jaxtyping import Array

from mcgrad._types import PyTree
from mcgrad.program.draw import Draw
from mcgrad.program.relation import Relation
from mcgrad.program.representations import Alternatives, Flow, Representation, WeightedPoint
from mcgrad.program.site import Facts, Site

OnJump: TypeAlias = Literal["ignore", "warn", "refuse"]


class Result(NamedTuple):
    """What the rest of the program returns, and an estimator in its place, with other costs: `result._replace(costs=costs)`.

    Attributes:
        costs: with the weights of later draws; the program's output is made of them by a linear map.
        aux: auxiliary outputs of one plain run.
        undrawn: values that this map reads and that depend on no draw.
    """

    costs: tuple[Array, ...]
    aux: tuple[Any, ...]
    undrawn: tuple[Any, ...]


class Rest(Protocol):
    """The rest of the program, as a function of the value of one draw: all of its entries at once.

    Calling it runs the remainder with later estimators applied. It may be called several times and under `jax.vmap`; all runs use
    the same keys. Combine their `costs`, and return one of the results with these: `aux` and `undrawn` stay as they are.
    """

    def __call__(self, x: Any, *, replicate: Any = None) -> Result:
        """The remaining costs at `x`, differentiable; with a `replicate` index, later sites draw anew for that replicate.

        Args:
            x: a value of the shape of the draw.
            replicate: an integer.

        Raises:
            ValueError: for a value of another shape, or of another kind of numbers.
        """
        ...

    def simulate(self, x: Any) -> Result:
        """The remaining costs at `x`, from one plain run: each later site draws once, whatever its estimator.

        It serves where only the values of the costs count: as a baseline, or in a difference that a coefficient multiplies.
        Costs that are differentiated come from `rest(x)`. Raises as this does.
        """
        ...

    def with_costs(self, fn: Callable[[Any], tuple[Array, ...]]) -> Rest:
        """A rest whose costs are `fn(x)`, arrays of the shapes of its own, in place of the program's; it has nothing else."""
        ...

    def evaluate(self, draw: Draw, representation: Representation) -> Result:
        """The costs, weighted or perturbed as the representation says; raises where one of its fields has another shape."""
        ...

    def with_crossings(self, draw: Draw, x: Any) -> Draw:
        """The draw, of value `x`, with its `crossings`: where costs may jump in it."""
        ...


class Estimator(PyTree):
    """Base of estimators: subclass as a frozen dataclass and write `represent` (or, for the general form, `estimate`).

    If `represent` returns a single point, subclass `LocalEstimator` instead, which also runs inside loops.

    Class attributes:
        flow: `represent` returns a `Flow`: costs need no weight for this site.
        moves_draw: costs are differentiated in the draw, and therefore searched for jumps, although `flow` is false.
        follows_thresholds: it also contributes where a threshold moves and no parameter of the draw that is compared with it.
        biased: its expectation is not the gradient; `mcgrad.explain` says so, and `mcgrad.Auto` never takes it.
        follows_alternatives: it defines `alternatives`; inside a `scan` one of them is carried beside the real state.
        pairs: its alternatives name what each is compared with (`Alternatives.against`), which is carried as well.
        sees_the_impossible: it is right where impossible values become possible as a parameter moves; for `mcgrad.debug_checks`.
    """

    flow: ClassVar[bool] = False
    moves_draw: ClassVar[bool] = False
    follows_thresholds: ClassVar[bool] = False
    follows_alternatives: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    biased: ClassVar[bool] = False
    sees_the_impossible: ClassVar[bool] = False

    def follows(self, num_steps: int) -> bool:
        """Whether one alternative is followed through a `scan` of so many steps, rather than the `scan` unrolled."""
        return self.follows_alternatives

    @property
    def title(self) -> str:
        """How `mcgrad.explain` names it."""
        return type(self).__name__

    @property
    def couples(self) -> bool:
        """Whether it defines `couple`: how a draw of an alternative path beside a `scan` depends on that of the real one."""
        return False

    @property
    def needs_rest(self) -> bool:
        """Whether it evaluates the rest of the program. If so, it cannot run in a `while_loop`, and in short `scan`s only."""
        return True

    @property
    def scores_its_draw(self) -> bool:
        """Whether `represent` reads nothing but `draw.sample()` and the log density of what that returns."""
        return False

    def why_not(self, site: Site) -> str | None:
        """Why this estimator would be wrong at `site`, for an error; `None` where it is right."""
        return None

    def flows(self, facts: Facts) -> bool:
        """Whether this estimator differentiates the path of a draw that has one, as plain JAX would."""
        return self.flow

    def closed(self, dist: Any) -> Estimator:
        """This estimator as named at a draw from `dist`: arrays that its functions close over become its own leaves.

        A function may therefore close over values that the program computes, also inside a `vmap` or a `scan`.
        """
        return self

    def drawn(self, dist: Any) -> Any:
        """What to draw from where this estimator is named at a draw from `dist`: the same, with draws of another dtype or not."""
        return dist

    def resolve(self, site: Site, relations: Sequence[Relation | None] | None) -> Estimator:
        """The estimator to use in place of this one at `site`; `relations` to the costs are `None` while they are unknown."""
        return self

    def where_costs_jump(self, site: Site) -> Estimator:
        """The estimator to use in place of this one at `site` if a cost certainly jumps in the draw."""
        return self.resolve(site, None)

    @property
    def simulated(self) -> Estimator:
        """The estimator that stands for this one in a plain run, if that is local; else the draw is weighted by its score."""
        return self

    def on_jump(self, *, certain: bool) -> OnJump:
        """What to do about a cost that jumps in a moving draw (`certain`), or that may jump in it."""
        return "warn" if certain else "ignore"

    @property
    def num_points(self) -> int:
        """The number of points at which it evaluates the rest of the program, later estimators included."""
        return 1

    def evaluations(self, site: Site, relation: Relation) -> int:
        """The number of evaluations of the rest of the program that a cost with this relation takes, over all draws of a loop."""
        in_loops = zip(relation, site.plates[: len(site.loops)], strict=False)
        return self.num_points ** math.prod(window.most_draws(n) for window, n in in_loops)

    def represent(self, draw: Draw) -> Representation:
        """The points of this estimator for one random choice."""
        raise NotImplementedError(f"`{type(self).__name__}` must define `represent` or `estimate`.")

    def alternatives(self, draw: Draw, x: Any) -> Alternatives:
        """Other values that the draw `x` could have taken; a `scan` carries one of them beside the real state."""
        raise NotImplementedError(f"`{type(self).__name__}` must define `alternatives`.")

    def couple(self, draw: Draw, real: Draw, x: Any) -> Any:
        """The draw of an alternative path, given the draw `x` of the real one; over the draws `x` it has its own distribution."""
        raise NotImplementedError(f"`{type(self).__name__}` must define `couple`.")

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        """The costs of the rest of the program, whose value and derivatives are unbiased.

        Each cost keeps its shape: `draw.per_cost` goes through them, and `bring` sums weights of shape `draw.plates` for each
        entry of a cost. Nothing is done one entry of the draw at a time; `draw.entries_apart` tells which can be.
        """
        return rest.evaluate(draw, self.represent(draw))


class LocalEstimator(Estimator):
    """Base of estimators that return one point, a `Flow` or a `WeightedPoint`, using nothing but the draw itself.

    The rest of the program runs once, so that such an estimator also works inside loops and branches.
    """

    @property
    def needs_rest(self) -> bool:
        return False

    def represent(self, draw: Draw) -> Flow | WeightedPoint:
        """The point of this estimator for one random choice."""
        raise NotImplementedError(
            f"`{type(self).__name__}` must define `represent`, as every `mcgrad.LocalEstimator`. One with `estimate` subclasses "
            "`mcgrad.Estimator`."
        )


def spelled(estimator: Estimator) -> str:
    """An estimator as messages name it: `mcgrad.Score`, or the class alone if it is not mcgrad's."""
    cls = type(estimator)
    return f"mcgrad.{cls.__name__}" if cls.__module__.partition(".")[0] == "mcgrad" else cls.__name__
