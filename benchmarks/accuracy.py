"""The error of the derivative of a draw in each parameter of each continuous law, next to JAX's and TFP's, against mpmath."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, Hold, Table
from benchmarks.runner import OURS, Failed, Session, Worker

TITLE = "The error of derivatives of draws, against exact ones"
BUDGET = 220.0
BOUNDS = {"float64": 1e-10, "float32": 1e-5}
ULPS = 2  # of a draw and of the parameters, in which a derivative that is right may be off
WRONG = 1e-2  # an error that no rounding explains
NUM_PROCESSES = 2
PEERS = ("jax.random", "TFP")
DOCUMENT = RESULTS / "DERIVATIVES_OF_DRAWS.md"
UNIT = (
    "Beta",
    "Beta, transport",
    "Dirichlet",
    "Dirichlet, transport",
    "Kumaraswamy",
)  # laws whose draws may round to one


def measure(session: Session) -> dict[str, Any]:
    """The worst relative error by law, precision, library and parameter."""
    from benchmarks import references

    ours, tfp = session.worker("derivatives"), session.worker("tfp")
    data: dict[str, Any] = {
        "versions": {worker.name: worker.versions for worker in (ours, tfp) if worker is not None},
        "skipped": session.skipped.get("tfp"),
        "parameters": {law: list(grid) for law, grid in references.GRIDS.items()},
    }
    sides = [(OURS, ours, {"library": "mcgrad"}), ("jax.random", ours, {"library": "jax"})]
    sides += [("TFP", tfp, {})] if tfp is not None else []

    exact = ProcessPoolExecutor(
        NUM_PROCESSES, multiprocessing.get_context("spawn")
    )  # many digits take most of the time

    def of_worker(worker: Worker) -> None:
        # where the seconds do not suffice, it is the peer that is not measured
        for name, _, which in [side for side in sides if side[1] is worker]:
            for law, grid in references.GRIDS.items():
                for dtype in BOUNDS:
                    drawn = _drawn(session, worker, law=law, params=grid, dtype=dtype, **which)
                    found = drawn if "error" in drawn else exact.submit(worst_errors, law, dtype, drawn)
                    data["laws"][law][dtype][name] = found

    data["laws"] = {law: {dtype: {} for dtype in BOUNDS} for law in references.GRIDS}
    with exact, ThreadPoolExecutor() as pool:
        list(pool.map(of_worker, {worker.name: worker for _, worker, _ in sides}.values()))
        for entries in (entries for of_dtype in data["laws"].values() for entries in of_dtype.values()):
            entries |= {name: found.result() for name, found in entries.items() if isinstance(found, Future)}
    return data


def _drawn(session: Session, worker: Worker, **arguments: Any) -> dict[str, Any]:
    if session.left <= 0:
        return {"error": f"not measured: the {session.budget:.0f} s of this part were used up"}
    try:
        return worker.ask(do="facts", workload="derivatives", arguments=arguments)
    except Failed as error:
        return {"error": str(error)}


def worst_errors(law: str, dtype: str, drawn: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each parameter the worst error, where, and how many derivatives are not finite, or zero where they should not be.

    An error is relative to the exact derivative, or, for one that changes its sign over the draws of a grid point, to a tenth
    of its median size there if that is more; and it is what is left beyond the exact values at draws and parameters that
    differ by 2 units in the last place. Draws at the ends of the floating numbers, or of the unit interval, are left out: they
    stand for others beyond.
    """
    info = np.finfo(dtype)
    rows: dict[str, dict[str, Any]] = {
        name: {"error": 0.0, "at": None, "not_finite": 0, "zero": 0, "count": 0} for name in drawn["params"]
    }
    x = np.array(drawn["x"])
    beyond = 1 - 4 * info.eps if law in UNIT else info.max / 16  # neighbors must be draws too
    for point in range(x.shape[1]):
        params = {name: column[point] for name, column in drawn["params"].items()}
        ranks = np.flatnonzero((np.abs(x[:, point]) > 16 * info.tiny) & (np.abs(x[:, point]) < beyond))
        inputs = [[x[rank, point], *(column[rank][point] for column in drawn["parts"])] for rank in ranks]
        for name, row in rows.items():
            found = [drawn["derivatives"][name][rank][point] for rank in ranks]
            exact = [_exact(law, name, values, params) for values in inputs]
            signs = {value > 0 for value in exact if value}
            least = float(np.nanmedian(np.abs(np.array(exact, float)))) / 10 if len(signs) == 2 else 0.0
            row["count"] += len(found)
            for value, right, values in zip(found, exact, inputs, strict=True):
                if not math.isfinite(value) or math.isnan(right):
                    row["not_finite"] += 1  # or a draw outside the support
                    continue
                error = _error(law, name, value, right, values, params, dtype, least)
                row["zero"] += value == 0 and error > WRONG
                if error > row["error"]:
                    row |= {"error": error, "at": {**params, "x": values[0]}}
    return rows


def _exact(law: str, name: str, values: list[Any], params: dict[str, Any]) -> Any:
    """The derivative at a draw and its parts, with many digits."""
    from mpmath import mpf

    from benchmarks.references import VELOCITIES

    draw, *parts = map(mpf, values)
    try:
        exact = VELOCITIES[law](draw, parts, **{key: mpf(value) for key, value in params.items()})[name]
    except (TypeError, ValueError, ZeroDivisionError):  # a logarithm of what cannot be a draw
        return mpf("nan")
    return exact if isinstance(exact, mpf) else mpf("nan")


def _error(
    law: str, name: str, found: float, right: Any, values: list[float], params: Any, dtype: str, least: float
) -> float:
    info = np.finfo(dtype)
    size = max(abs(right), least)
    if abs(right) < 16 * info.tiny > abs(found):
        return 0.0
    if abs(found - right) <= BOUNDS[dtype] / 10 * size:
        return float(abs(found - right) / size)
    near = [right]
    for factor in (1 - ULPS * float(info.eps), 1 + ULPS * float(info.eps)):
        for i, value in enumerate(values):
            near.append(_exact(law, name, [*values[:i], value * factor, *values[i + 1 :]], params))
        for key, value in params.items():
            near.append(_exact(law, name, values, {**params, key: value * factor}))
    near = [value for value in near if not math.isnan(value)]
    return float(max(min(near) - found, found - max(near), 0) / max(size, max(map(abs, near))))


def report(data: dict[str, Any]) -> list[Any]:
    """The document with the table, and the holds."""
    tables, missed = [], {dtype: [] for dtype in BOUNDS}
    for dtype, bound in BOUNDS.items():
        table = Table(f"Worst relative error of the derivative of a draw, {dtype}", ("law", "parameter", OURS, *PEERS))
        for law, entries in data["laws"].items():
            of_law = entries[dtype]
            ours = of_law[OURS]
            for name in data["parameters"][law]:
                cells = [_cell(of_law.get(library, {"error": "skipped"}), name) for library in (OURS, *PEERS)]
                table.rows.append((law, f"`{name}`", *cells))
                row = {} if "error" in ours else ours[name]
                if not row or row["error"] > bound or row["not_finite"] or row["zero"]:
                    missed[dtype].append(f"{law} {name}: {cells[0]}")
        tables.append(table)
    text = [
        "# The error of derivatives of draws",
        f"By `python -m benchmarks --only accuracy`. {__doc__}",
        worst_errors.__doc__,
        "Of vectors and matrices one entry is looked at; `l21` and `l22` are entries of the "
        'factor. Transport is `mcgrad.Pathwise(path="optimal_transport")`.',
    ]
    text += [table.markdown() for table in tables]
    RESULTS.mkdir(exist_ok=True)
    DOCUMENT.write_text("\n\n".join("\n".join(line.strip() for line in part.splitlines()) for part in text) + "\n")
    blocks: list[Any] = [f"Skipped TFP: {data['skipped']}"] if data["skipped"] else []
    blocks += ["The table by law and parameter: [DERIVATIVES_OF_DRAWS.md](results/DERIVATIVES_OF_DRAWS.md)."]
    for dtype, bound in BOUNDS.items():
        count = sum(map(len, data["parameters"].values()))
        statement = (
            f"in {dtype} the derivative of a draw has a relative error below {bound:g}, for every law and parameter"
        )
        blocks.append(
            Hold(statement, not missed[dtype], f"{count} parameters. Missed: {', '.join(missed[dtype]) or 'none'}.")
        )
    return blocks


def _cell(measured: dict[str, Any], name: str) -> str:
    if isinstance(measured.get("error"), str):
        message = measured["error"]
        if message.startswith("not measured"):
            return "not measured"
        return "none" if message.startswith("LookupError") else f"raises {message.split(':')[0]}"
    row = measured[name]
    told = [f"{row['not_finite']} of {row['count']} not finite"] if row["not_finite"] else []
    if row["zero"] == row["count"]:
        return "silently zero"
    told += [f"{row['zero']} of {row['count']} zero"] if row["zero"] else []
    told += [f"wrong ({row['error']:.1g})" if row["error"] > WRONG else f"{row['error']:.1e}"]
    return ", ".join(told)
