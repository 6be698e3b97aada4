"""The estimator of draws that are held fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator, LocalEstimator
from mcgrad.program.representations import Flow
from mcgrad.program.site import Site


@dataclasses.dataclass(frozen=True)
class Held(LocalEstimator):
    """Holds a draw fixed, so that derivatives are those of the explicit dependence on the parameters only.

    Unbiased if no derivative can reach the distribution's parameters, or if their contribution is added separately.
    """

    flow = True

    def represent(self, draw: Draw) -> Flow:
        return Flow(draw.sample())


def followed(estimators: Mapping[Site, Estimator]) -> set[Site]:
    """The draws in which costs are differentiated."""
    return {s for s, e in estimators.items() if (e.flow or e.moves_draw) and not isinstance(e, Held)}
