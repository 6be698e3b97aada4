"""The look of all pictures, `pictures.mplstyle`, which the book uses too; and the packages that they need."""

from __future__ import annotations

import importlib.util
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


def need(what: str, *packages: str, extra: str = "diagnostics") -> None:
    """An `ImportError` if a package is missing that `what` needs and an extra of mcgrad installs."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{what} needs {", ".join(missing)}. Install with `pip install ".[{extra}]"` in a clone of mcgrad.'
        )
