"""The look of all pictures, `pictures.mplstyle`, which the book uses too; and the packages that they need."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of verdicts; told apart by the color-blind (Okabe and Ito 2008).
AGREES, DOUBTFUL, WRONG = "#0072B2", "#E69F00", "#D55E00"


def save(figure: Callable[[], Any], path: str | Path) -> Path:
    """Write a figure of matplotlib, made with that look; returns the path."""
    import matplotlib

    with matplotlib.rc_context(fname=Path(__file__).with_name("pictures.mplstyle")):
        figure().savefig(path)
    return Path(path)


def need(what: str, *packages: str, extra: str = "diagnostics") -> None:
    """An `ImportError` if a package is missing that `what` needs and an extra of mcgrad installs."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'{what} needs {", ".join(missing)}. Install with `pip install ".[{extra}]"` in a clone of mcgrad.'
        )
