"""How time and memory of a gradient grow with samples, steps, dimensions, examples, and draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report import RESULTS, Hold, Table, milliseconds
from benchmarks.runner import OURS, Session, alternate, median_time

TITLE = "Scaling"
BUDGET = 90.0
SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "samples": ("`num_samples`, 100 dimensions", (64, 256, 1024, 4096, 16384)),
    "steps": ("steps of a scan, 32 dimensions", (64, 256, 1024, 4096, 16384)),
    "vector": ("dimensions of one draw", (4096, 16384, 65536, 262144)),
    "examples": ("examples of a batch, 64 latents", (32, 128, 512, 2048)),
    "lines": ("scalar draws, a line each", (4, 8, 16, 32)),
}
ESTIMATORS = ("score", "pathwise")
FIGURES = {"time": "a step", "bytes": "memory", "compile_seconds": "trace and compile"}
LARGEST = 3  # the slope is that of the largest sizes: the smallest ones take the time of a call
MOST_SLOPE = {"time": 1.15, "bytes": 1.15, "compile_seconds": 2.0}
STATEMENTS = {
    "time": "time grows at most linearly in samples, steps, dimensions and examples",
    "bytes": "and so does memory",
    "compile_seconds": "compile time grows at most quadratically in the lines that draw",
}


def measure(session: Session) -> dict[str, Any]:
    """Each sweep with score and pathwise."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "sweeps": {}}
    for sweep, (_, sizes) in SWEEPS.items():
        for estimator in ESTIMATORS:
            found = data["sweeps"].setdefault(sweep, {})[estimator] = {}
            for size in sizes:
                entry = session.build(ours, sweep, estimator=estimator, size=size)
                alternate({OURS: entry}, session.rounds)
                found[str(size)] = entry.measured
    return data


def slope(sizes: list[int], values: list[float]) -> float:
    """The log-log slope over the largest sizes."""
    return float(np.polyfit(np.log(sizes[-LARGEST:]), np.log(values[-LARGEST:]), 1)[0])


def _values(rows: dict[str, Any], figure: str) -> tuple[list[int], list[float]]:
    found = {
        int(size): median_time(measured) if figure == "time" else measured[figure]
        for size, measured in rows.items()
        if "times" in measured
    }
    return list(found), list(found.values())


def report(data: dict[str, Any]) -> list[Any]:
    """The table of slopes, the figures at each size, the picture and the holds."""
    slopes = Table("log-log slopes over the three largest sizes", ("sweep", "estimator", *FIGURES.values()))
    figures = Table(
        "at each size", ("sweep", "size", *(f"{e}: {name}" for e in ESTIMATORS for name in FIGURES.values()))
    )
    worst: dict[str, dict[str, float]] = {figure: {} for figure in FIGURES}
    for sweep, found in data["sweeps"].items():
        label = SWEEPS[sweep][0]
        for estimator, rows in found.items():
            cells = []
            for figure in FIGURES:
                sizes, values = _values(rows, figure)
                told = len(sizes) >= LARGEST
                cells.append(f"{slope(sizes, values):.2f}" if told else "")
                # only lines make a longer program, which runs for microseconds: they decide of compiling, the rest of running
                if told and (figure == "compile_seconds") == (sweep == "lines"):
                    worst[figure][f"{sweep}, {estimator}"] = slope(sizes, values)
            slopes.rows.append((label, estimator, *cells))
        for size in next(iter(found.values())):
            cells = [cell for rows in found.values() for cell in _cells(rows[size])]
            figures.rows.append((label, f"{int(size):,}", *cells))
    _picture(data)
    return [
        "Memory is what the compiled step allocates beside its arguments (`memory_analysis`).",
        slopes,
        "![time and memory against size](results/scaling.png)",
        figures,
        *(_hold(worst[figure], MOST_SLOPE[figure], statement) for figure, statement in STATEMENTS.items()),
    ]


def _hold(slopes: dict[str, float], most: float, statement: str) -> Hold:
    if not slopes:
        return Hold(statement, None, "")
    worst = max(slopes, key=slopes.__getitem__)
    evidence = f"Largest slope {slopes[worst]:.2f} ({worst}), of {len(slopes)}; {most} is allowed."
    return Hold(statement, slopes[worst] <= most, evidence)


def _cells(measured: dict[str, Any]) -> tuple[str, ...]:
    if "times" not in measured:
        return (measured["error"], "", "")
    size = f"{measured['bytes'] / 2**20:.3g} MiB"
    return (milliseconds(median_time(measured)), size, f"{measured['compile_seconds']:.2g} s")


def _picture(data: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    grid = figure.subplots(2, len(SWEEPS), sharex="col")
    for column, (sweep, found) in enumerate(data["sweeps"].items()):
        upper = ("compile_seconds", 1.0) if sweep == "lines" else ("time", 1e3)
        for row, (name, scale) in enumerate((upper, ("bytes", 2**-20))):
            axes = grid[row, column]
            for (estimator, rows), marker in zip(found.items(), "os", strict=True):
                sizes, values = _values(rows, name)
                if sizes:
                    axes.loglog(sizes, scale * np.array(values), marker=marker, label=estimator)
                    if estimator == ESTIMATORS[-1]:
                        line = scale * values[-1] * np.array(sizes) / sizes[-1]
                        axes.loglog(sizes, line, color="gray", linestyle=":", linewidth=1, label="linear")
            axes.grid(alpha=0.3)
            axes.minorticks_off()
        grid[0, column].set_title(SWEEPS[sweep][0].replace("`", ""), fontsize=9)
        sizes = SWEEPS[sweep][1]
        grid[1, column].set_xticks(sizes, [str(size) if size < 1000 else f"{size // 1024}k" for size in sizes])
        grid[1, column].set_xlabel("size")
    grid[0, 0].set_ylabel("value and gradient (ms)")
    grid[0, -1].set_ylabel("trace and compile (s)")
    grid[1, 0].set_ylabel("memory (MiB)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=150)
