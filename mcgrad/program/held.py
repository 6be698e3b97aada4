"""The estimator of draws that are held fixed."""

from __future__ import annotations

import dataclasses

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import LocalEstimator
from mcgrad.program.representations import Flow


@dataclasses.dataclass(frozen=True)
class Held(LocalEstimator):
    """Holds a draw fixed, so that derivatives are those of the explicit dependence on the parameters only.

    Right where no derivative can reach the distribution's parameters, or where its part is added otherwise.
    """

    flow = True

    def represent(self, draw: Draw) -> Flow:
        return Flow(draw.sample())
