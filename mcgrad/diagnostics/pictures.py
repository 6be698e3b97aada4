"""The look of all pictures: `pictures.mplstyle`, which the book uses too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

AGREES, DOUBTFUL, WRONG = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
)  # of verdicts; told apart by the color-blind (Okabe and Ito 2008)


def style() -> AbstractContextManager[None]:
    """Within it, figures of matplotlib have that look."""
    import matplotlib

    return matplotlib.rc_context(fname=Path(__file__).with_name("pictures.mplstyle"))
