"""`python -m benchmarks` measures everything and writes `RESULTS.md`; `--only NAME` measures a part and leaves the rest.

JAX runs on the CPU, unless `JAX_PLATFORMS` in the environment says otherwise.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks import (
    accuracy,
    against_jax,
    against_optax,
    against_storchastic,
    big,
    categorical_toy,
    contract,
    devices,
    guard,
    loops,
    memory,
    overhead,
    pathwise,
    published,
    reinmax,
    scaling,
    survey,
    tuning,
)
from benchmarks.report import Hold, Table, load, save
from benchmarks.runner import Session

PARTS: dict[str, ModuleType] = {
    "overhead": overhead,
    "guard": guard,
    "big": big,
    "loops": loops,
    "tuning": tuning,
    "scaling": scaling,
    "memory": memory,
    "devices": devices,
    "contract": contract,
    "categorical_toy": categorical_toy,
    "reinmax": reinmax,
    "survey": survey,
    "published": published,
    "pathwise": pathwise,
    "accuracy": accuracy,
    "optax": against_optax,
    "jax": against_jax,
    "storchastic": against_storchastic,
}
"""Modules with a `TITLE`, a `BUDGET` in seconds, `measure(session)`, whose result is kept as JSON, and `report(data)`."""
RESULTS = Path(__file__).parent / "RESULTS.md"


def machine() -> str:
    """The machine in words."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {model}"


def measured_part(name: str, session: Session) -> dict[str, Any]:
    """Measures a part and adds when, where and with what."""
    load_before, began = os.getloadavg()[0], time.perf_counter()
    session.begin(PARTS[name].BUDGET)
    data = PARTS[name].measure(session)
    data["run"] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "load": load_before,
        "versions": f"Python {platform.python_version()}, JAX {version('jax')}",
        "quick": session.quick,
        "patience": session.patience,
        "seconds": time.perf_counter() - began,
    }
    return data


def provenance(name: str, data: dict[str, Any]) -> str:
    """How a part was measured, in a sentence."""
    run = data["run"]
    told = f"`python -m benchmarks --only {name}`, {run['date']}, {run['machine']}, {run['versions']}"
    for peer, versions in data.get("versions", {}).items():
        told += f"; {peer}: " + ", ".join(f"{package} {number}" for package, number in versions.items())
    told += f"; {run['seconds']:.0f} s, load average {run['load']:.1f} before."
    if run["patience"] != 1:
        told += f" `--patience {run['patience']:g}`: the machine was busy, and parts were given more seconds."
    return told + (" **A quick run, to try the code: few rounds and draws.**" if run["quick"] else "")


def document() -> str:
    """`RESULTS.md`, from what was last measured of each part."""
    found = {name: data for name in PARTS if (data := load(name)) is not None}
    reports = {name: PARTS[name].report(data) for name, data in found.items()}
    verdicts = Table("Verdicts", ("part", "holds", "met", "not met", "not measured", "seconds"))
    for name, blocks in reports.items():
        outcomes = [block.met for block in blocks if isinstance(block, Hold)]
        counts = [len(outcomes), *(sum(met is wanted for met in outcomes) for wanted in (True, False, None))]
        verdicts.rows.append((PARTS[name].TITLE, *map(str, counts), f"{found[name]['run']['seconds']:.0f}"))
    open_holds = [
        f"{block.markdown()} ({PARTS[name].TITLE})"
        for name, blocks in reports.items()
        for block in blocks
        if isinstance(block, Hold) and not block.met
    ]
    parts = [
        "# Benchmarks",
        'Written by `python -m benchmarks` (`pip install -e ".[benchmarks]"` first; the environments of peers are made on the '
        "way). Each part says when it was measured; `python -m benchmarks --only NAME` measures one again and leaves the rest. "
        "JAX runs on the CPU with its default threads and without asynchronous dispatch, torch with 2. Ratios of times are "
        "medians over rounds that alternate between the sides, with their quartiles in brackets. "
        "A hold is a statement that the figures of its part decide.",
        verdicts.markdown(),
        "Not met or not measured:" if open_holds else "All holds are met.",
        *open_holds,
    ]
    for name, blocks in reports.items():
        parts += [f"## {PARTS[name].TITLE}", provenance(name, found[name])]
        parts += [block if isinstance(block, str) else block.markdown() for block in blocks]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=(*PARTS,), help="measure this part alone (may be repeated)")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, write the document of what was measured"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail if compiled programs have grown (see the part `guard`)",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds and draws, to try the code")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="multiply the seconds that each part may take, on a busy machine"
    )
    options = parser.parse_args(arguments)
    if options.report:
        RESULTS.write_text(document())
        return
    console, session, seconds = Console(), Session(options.quick, options.patience), {}
    if options.check:
        try:
            verdict = guard.compare(measured_part("guard", session), load("guard"))
        finally:
            session.close()
        console.print(verdict)
        sys.exit(not verdict.met)
    try:
        for name in options.only or PARTS:
            console.rule(PARTS[name].TITLE)
            data = measured_part(name, session)
            save(name, data)
            for block in PARTS[name].report(data):
                console.print(block, markup=not isinstance(block, str))
            RESULTS.write_text(document())
            seconds[name] = data["run"]["seconds"]
            console.print(f"{name}: {seconds[name]:.0f} s")
    finally:
        session.close()
    for name, reason in session.skipped.items():
        console.print(f"skipped {name}: {reason}", style="yellow")
    console.print(f"{sum(seconds.values()):.0f} s in all, {RESULTS} written", soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
