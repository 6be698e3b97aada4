"""Tables and pictures of what was measured, for the terminal and for `RESULTS.md`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass
class Table:
    """A title, headings (the first column is text) and rows of cells."""

    title: str
    headings: Sequence[str]
    rows: list[Sequence[str]] = dataclasses.field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _row(self.headings), _row(["---", *(["---:"] * (len(self.headings) - 1))])]
        return "\n".join([*lines, *map(_row, self.rows)])

    def __rich__(self) -> Any:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, box=box.SIMPLE_HEAD, pad_edge=False)
        for i, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclasses.dataclass
class Hold:
    """A statement that the figures decide; `met` is `None` where there are none to decide it."""

    statement: str
    met: bool | None
    evidence: str

    def markdown(self) -> str:
        word = {True: "met", False: "**NOT met**", None: "not measured"}[self.met]
        return f"- {word}: {self.statement}. {self.evidence}"

    def __rich__(self) -> str:
        color = {True: "green", False: "red", None: "yellow"}[self.met]
        word = {True: "met", False: "NOT met", None: "not measured"}[self.met]
        return f"[{color}]{word}[/]: {self.statement}. {self.evidence}"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def spread(quartiles: tuple[float, float, float]) -> str:
    """A median with its quartiles."""
    lower, median, upper = quartiles
    return f"{median:.3g} [{lower:.3g}, {upper:.3g}]"


def path_of(name: str) -> Path:
    return RESULTS / f"{name}.json"


def save(name: str, data: dict[str, Any]) -> None:
    """Writes what was measured, in six digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(each) for each in value]
        return value if isinstance(value, str | bool | int | None) else float(f"{float(value):.6g}")

    RESULTS.mkdir(exist_ok=True)
    path_of(name).write_text(json.dumps(rounded(data), indent=1) + "\n")


def load(name: str) -> dict[str, Any] | None:
    return json.loads(path_of(name).read_text()) if path_of(name).exists() else None
