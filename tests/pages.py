"""The pages of `notebooks/` that are run as tests, as their reader runs them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import jax

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


class Page:
    """A page of text and code cells.

    Attributes:
        file: the name under which error messages speak of its code.
        cells: the code.
    """

    def __init__(self, name: str):
        text = (NOTEBOOKS / f"{name}.md").read_text(encoding="utf-8")
        self.file = f"{name}.py"
        self.cells = re.findall(r"```\{code-cell\}\n(.*?)```", text, re.S)
        assert len(self.cells) == text.count("```{code-cell}") > 0

    @property
    def code(self) -> str:
        return "".join(self.cells)

    @property
    def modules(self) -> set[str]:
        """What it imports from."""
        return set(re.findall(r"^(?:import|from) (\S+)", self.code, re.M))

    def run(self) -> dict[str, Any]:
        """What the page defines, and under `printed` what it prints."""
        names: dict[str, Any] = {"__name__": "page"}
        printed = io.StringIO()
        with (
            jax.enable_x64(False),
            jax.debug_key_reuse(False),
            contextlib.redirect_stdout(printed),
        ):  # as a user runs it
            for cell in self.cells:
                exec(compile(cell, self.file, "exec", dont_inherit=True), names)
        return names | {"printed": printed.getvalue()}
