"""Where on a line a divisor comes closest to zero."""

from __future__ import annotations

import numpy as np

from mcgrad.program.lines import Line
from mcgrad.program.poles import Nearest


def test_a_divisor_may_overflow_at_the_end_of_the_line() -> None:
    """Without a warning of NumPy's, which is an error here; its zero elsewhere is seen."""

    def told(line: Line, ts: np.ndarray) -> list[np.ndarray]:
        return [np.where(ts == ts[-1], np.inf, ts - 0.25)]

    nearest = Nearest(Line([], []), told, inverse=False)
    assert set(nearest.where) == {0} and abs(nearest.ts[nearest.where[0]] - 0.25) < 0.02
    bracket = nearest.narrowed(0)
    assert bracket is not None and bracket.ts[0] < 0.25 < bracket.ts[1]
