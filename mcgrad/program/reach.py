"""Which `scan`s carry an alternative path, and how the costs read their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mcgrad import _compat
from mcgrad.program.dependence import dependence_on_results
from mcgrad.program.estimator import Estimator
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation, Program, Value

MAX_UNROLLED_STEPS = 32
"""Steps of a `scan` that are unrolled for estimators that need the rest of the program: their code grows with each."""


def can_follow(equation: Equation, needing_rest: Mapping[Site, Estimator]) -> bool:
    """Whether all draws directly inside a `scan` that need the rest of the program can follow alternatives instead."""
    if equation.eqn.primitive is not _compat.scan_p:
        return False
    inner = {e for body in equation.bodies for e in body.everything()}
    inside = {site: estimator for site, estimator in needing_rest.items() if site.equation in inner}
    length = equation.eqn.params["length"]
    return all(e.follows(length) and site.loops[-1] is equation for site, e in inside.items())


class Reach(NamedTuple):
    """How the costs of a program read a `scan`.

    Attributes:
        by_step: for each cost whose entry `t` along some axis reads only step `t`: that axis.
        separate: whether all other costs read nothing but the carry after the last step.
    """

    by_step: Mapping[Value, int]
    separate: bool


def reach_of(program: Program, equation: Equation, costs: Sequence[Value]) -> Reach:
    """How costs read the results of a `scan`."""
    steps, last = dependence_on_results(program, equation, costs)
    by_step = {
        cost: axis
        for cost, window in steps.items()
        if isinstance(axis := window.simple_axis, int) and (window.low, window.high) == (0, 0) and cost not in last
    }
    return Reach(by_step, separate=len(by_step) == len(steps))
