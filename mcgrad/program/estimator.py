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
from mcgrad.program.trace import Equation

OnJump: TypeAlias = Literal["ignore", "warn", "refuse"]


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

    An estimator whose `represent` returns one point only is better a `LocalEstimator`, which also runs inside loops.

    Class attributes:
        flow: `represent` returns a `Flow`: costs need no weight for this site.
        moves_draw: costs are differentiated in the draw, so that jumps are looked for, although it is no `flow`.
        follows_thresholds: it also does something where no parameter of the draw moves, but a threshold that it is compared with.
        follows_alternatives: it has `alternatives`, one of which is carried along inside a `scan`.
    """

    flow: ClassVar[bool] = False
    moves_draw: ClassVar[bool] = False
    follows_thresholds: ClassVar[bool] = False
    follows_alternatives: ClassVar[bool] = False

    @property
    def needs_rest(self) -> bool:
        """Whether it evaluates the rest of the program; it then runs in no `while_loop` and in short `scan`s only."""
        return True

    def why_not(self, site: Site) -> str | None:
        """Why this estimator would be wrong at `site`, for an error; `None` where it is right."""
        return None

    def flows(self, facts: Facts) -> bool:
        """Whether the path of a draw, where it has one, is what this estimator differentiates, as JAX by itself would."""
        return self.flow

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

    @property
    def num_points(self) -> int:
        """At how many points it evaluates the rest of the program with the estimators of later draws."""
        return 1

    def evaluations(self, site: Site, relation: Relation) -> int:
        """How many evaluations of the rest of the program a cost with this relation takes, draws of a loop together."""
        in_loops = zip(relation, site.plates[: len(site.loops)], strict=False)
        return self.num_points ** math.prod(window.most_draws(n) for window, n in in_loops)

    def represent(self, draw: Draw) -> Representation:
        """The points of this estimator for one random choice."""
        raise NotImplementedError(f"{type(self).__name__} must define `represent` or `estimate`.")

    def alternatives(self, draw: Draw, x: Any) -> Alternatives:
        """Other values for the draw `x`; what a `scan` carries along beside the real state."""
        raise NotImplementedError(f"{type(self).__name__} must define `alternatives`.")

    def estimate(self, draw: Draw, rest: Rest) -> Result:
        """The costs of the rest of the program, right in value and derivatives in expectation."""
        return rest.evaluate(draw, self.represent(draw))


class LocalEstimator(Estimator):
    """Base of estimators that return one point, drawn with what is known at the draw: a `Flow` or a `WeightedPoint`.

    The rest of the program runs once, so that such an estimator also works inside loops and branches.
    """

    @property
    def needs_rest(self) -> bool:
        return False

    def represent(self, draw: Draw) -> Flow | WeightedPoint:
        """The point of this estimator for one random choice."""
        raise NotImplementedError(f"{type(self).__name__} must define `represent`.")
