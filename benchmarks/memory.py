"""The memory of a million samples in chunks, next to that of one chunk."""

from __future__ import annotations

from typing import Any

from benchmarks.report import Hold, Table
from benchmarks.runner import Failed, Session, Worker

TITLE = "Memory: a million samples in chunks"
BUDGET = 30.0
CHUNK, SAMPLES, QUICK_SAMPLES = 4000, 1_000_000, 40_000
ESTIMATORS = ("score", "pathwise")
MOST = 1.2


def measure(session: Session) -> dict[str, Any]:
    """One chunk and all chunks, each in a fresh process; and all samples at once, which is compiled but not run."""
    num_samples = QUICK_SAMPLES if session.quick else SAMPLES
    data: dict[str, Any] = {"num_samples": num_samples, "rows": {}}
    runs = {
        "one chunk": (CHUNK, CHUNK, True),
        "chunks": (num_samples, CHUNK, True),
        "at once": (num_samples, num_samples, False),
    }
    for estimator in ESTIMATORS:
        for name, (samples, chunk, run) in runs.items():
            worker = Worker("memory")
            data["versions"] = {"mcgrad": worker.versions}
            arguments = {"estimator": estimator, "num_samples": samples, "chunk_size": chunk, "run": run}
            try:
                found = worker.ask(do="facts", workload="chunks", arguments=arguments)
            except Failed as error:
                found = {"error": str(error)}
            finally:
                worker.close()
            data["rows"].setdefault(estimator, {})[name] = found
    return data


def _mib(measured: dict[str, Any], figure: str) -> str:
    return f"{measured[figure] / 2**20:,.1f}" if figure in measured else measured.get("error", "")


def report(data: dict[str, Any]) -> list[Any]:
    """The table and the holds."""
    names = {
        "one chunk": f"{CHUNK:,} samples at once",
        "chunks": f"{data['num_samples']:,} samples, `chunk_size={CHUNK}`",
        "at once": f"{data['num_samples']:,} samples at once (compiled, not run)",
    }
    headings = (
        "estimator",
        "run",
        "temporary (MiB)",
        "peak of the process (MiB)",
        "of it, by the run (MiB)",
        "seconds",
    )
    table = Table("value and gradient, 300 dimensions that one cost mixes", headings)
    compiled, peaks = {}, {}
    for estimator, rows in data["rows"].items():
        for name, found in rows.items():
            added = f"{(found['peak'] - found['before']) / 2**20:,.1f}" if "peak" in found else ""
            seconds = f"{found['seconds']:.2f}" if "seconds" in found else ""
            table.rows.append((estimator, names[name], _mib(found, "bytes"), _mib(found, "peak"), added, seconds))
        one, all_of_them = rows["one chunk"], rows["chunks"]
        if "bytes" in one and "bytes" in all_of_them:
            compiled[estimator] = all_of_them["bytes"] / one["bytes"]
            peaks[estimator] = all_of_them["peak"] / one["peak"]
    return [
        "Temporary memory is that of the compiled step (`memory_analysis`); the peak is the largest resident set of a fresh "
        "process, JAX and the compiler included, and by the run is what executing the compiled step added to it.",
        table,
        _at_most(compiled, "the temporary memory of a million samples in chunks is that of one chunk (within 1.2)"),
        _at_most(peaks, "and so is the peak of the process (within 1.2)"),
    ]


def _at_most(ratios: dict[str, float], statement: str) -> Hold:
    told = ", ".join(f"{ratio:.3f} ({estimator})" for estimator, ratio in ratios.items())
    return Hold(statement, max(ratios.values()) <= MOST if ratios else None, f"Ratios {told or 'none'}.")
