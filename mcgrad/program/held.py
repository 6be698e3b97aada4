"""The estimator of draws that no derivative can reach."""

from __future__ import annotations

import dataclasses

from mcgrad.program.draw import Draw
from mcgrad.program.estimator import LocalEstimator
from mcgrad.program.representations import Flow


@dataclasses.dataclass(frozen=True)
class Held(LocalEstimator):
    """A draw whose law no derivative can reach: drawn as it is."""

    flow = True

    def represent(self, site: Draw) -> Flow:
        return Flow(site.draw())
