"""The estimator of draws that no derivative can reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import Estimator, Flow
from mcgrad.program.site import Site


@dataclasses.dataclass(frozen=True)
class Held(Estimator):
    """A draw whose law no derivative can reach: drawn as it is."""

    local = True
    flow = True

    def represent(self, site: Draw) -> Flow:
        return Flow(site.draw())


def followed(estimators: Mapping[Site, Estimator]) -> set[Site]:
    """The draws in which costs are differentiated."""
    return {s for s, e in estimators.items() if (e.flow or e.moves_draw) and not isinstance(e, Held)}
