"""What a run notes of its draws, for the costs at the end of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxtyping import Array

from mcgrad.program.estimator import Alternatives, Baseline
from mcgrad.program.site import Site


@dataclasses.dataclass(frozen=True)
class Weight:
    """What a local estimator leaves behind: the log weight of its draws and their control variate, of shape `site.plates`."""

    site: Site
    log_weight: Array
    baseline: Baseline
    control: Array | None = None

    def arrays(self) -> Any:
        """What of it is computed; the rest is known beforehand."""
        return self.log_weight, None if isinstance(self.baseline, str) else self.baseline, self.control

    def with_arrays(self, arrays: Any) -> Weight:
        log_weight, baseline, control = arrays
        return Weight(self.site, log_weight, self.baseline if isinstance(self.baseline, str) else baseline, control)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What is noted of a draw inside a `scan` beside which an alternative path is carried."""

    site: Site
    x: Any
    operands: tuple[Any, ...]
    alternatives: Alternatives

    def arrays(self) -> Any:
        a = self.alternatives
        return self.x, self.operands, (a.values, a.coefficients, a.sizes)

    def with_arrays(self, arrays: Any) -> Recorded:
        x, operands, fields = arrays
        return Recorded(self.site, x, operands, Alternatives(*fields))


Note: TypeAlias = Weight | Recorded


class Notes:
    """The notes of a body as arrays in and out of `jax.lax`; what is not an array is kept here."""

    def __init__(self) -> None:
        self.found: list[Note] = []

    def arrays(self, notes: list[Note]) -> list[Any]:
        self.found = notes
        return [note.arrays() for note in notes]

    def notes(self, arrays: Sequence[Any]) -> list[Note]:
        return [note.with_arrays(these) for note, these in zip(self.found, arrays, strict=True)]
