"""Stochastic programs: seeing them, crediting their costs, running their estimators.

The names below are public, for estimators of your own (the page `notebooks/your_own_estimator.md` shows how) and for rules of
primitives; the files that they live in are not.

- The base classes: `Estimator`, and `LocalEstimator` for those that return one point and also run inside loops.
- What an estimator gets: a `Draw`, whose `draw.site` is a `Site` with its `Facts`; and the `Rest` of the program, which returns a
  `Result`. `unwrapped` finds the distribution inside wrappers, to know one law by.
- What `represent` returns, and mcgrad runs the program by: a `Flow`, one value that moves with the parameters; a `WeightedPoint`,
  one value with a log weight, and if need be a baseline or a control variate; `WeightedPoints`, several with weights that have
  derivatives; `Replicates`, independent draws, averaged; `Reweighted`, several with constant weights, each times its score weight,
  and baselines from the others; `SignedPoints`, values whose differences give the first derivative, and no more. A value has the
  shape of the draw and a log weight the shape `draw.plates`; several have one axis more in front. Other shapes are refused.
- What it returns inside a `scan` of any length, if it follows alternatives: `Alternatives`.
- What surrogate costs are made of: `unit_weight`, `zero_with_derivative_of`, `signed_term`; and `bring` and `bring_each`, which sum
  the weights of a draw over the entries that a cost depends on, by a `Relation` of `Window`s.
- `register`, for the row of a primitive of your own (the page `notebooks/your_own_primitive.md` shows how), and what the rule for
  its axes gets and returns: an `Equation` and what is `Known`; a `Move`, `Take` or `Regroup` of the axes of each operand.
"""

from mcgrad.program import control_flow as control_flow
from mcgrad.program.bring import bring as bring
from mcgrad.program.bring import bring_each as bring_each
from mcgrad.program.draw import Draw as Draw
from mcgrad.program.estimator import Estimator as Estimator
from mcgrad.program.estimator import LocalEstimator as LocalEstimator
from mcgrad.program.estimator import Rest as Rest
from mcgrad.program.estimator import Result as Result
from mcgrad.program.known import Known as Known
from mcgrad.program.primitives import register as register
from mcgrad.program.relation import Move as Move
from mcgrad.program.relation import Regroup as Regroup
from mcgrad.program.relation import Relation as Relation
from mcgrad.program.relation import Take as Take
from mcgrad.program.relation import Window as Window
from mcgrad.program.representations import Alternatives as Alternatives
from mcgrad.program.representations import Flow as Flow
from mcgrad.program.representations import Replicates as Replicates
from mcgrad.program.representations import Reweighted as Reweighted
from mcgrad.program.representations import SignedPoints as SignedPoints
from mcgrad.program.representations import WeightedPoint as WeightedPoint
from mcgrad.program.representations import WeightedPoints as WeightedPoints
from mcgrad.program.site import Facts as Facts
from mcgrad.program.site import Site as Site
from mcgrad.program.surrogates import signed_term as signed_term
from mcgrad.program.surrogates import unit_weight as unit_weight
from mcgrad.program.surrogates import zero_with_derivative_of as zero_with_derivative_of
from mcgrad.program.trace import Equation as Equation
from mcgrad.program.unwrapped import unwrapped as unwrapped
