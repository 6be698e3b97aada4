"""`python -m benchmarks` measures everything, prints it, and writes `RESULTS.md`; `--only NAME` refreshes a part."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import against_jax, against_storchastic, categorical_toy, loops, overhead, survey
from benchmarks.report import load, save
from benchmarks.runner import Session

PRINTED = {"overhead": overhead, "loops": loops, "categorical_toy": categorical_toy, "survey": survey}
"""Parts that print their tables and draw their pictures; the README has their figures."""
WORKLOADS = {"storchastic": against_storchastic, "jax": against_jax}
"""Parts next to peers, whose figures are kept for `RESULTS.md`."""
RESULTS = Path(__file__).parent / "RESULTS.md"


def provenance(quick: bool, seconds: float) -> dict[str, Any]:
    """When, where and with what a part was measured."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, {model}",
        "load": os.getloadavg()[0],
        "versions": f"Python {platform.python_version()}, JAX {version('jax')}",
        "quick": quick,
        "seconds": seconds,
    }


def document() -> str:
    """`RESULTS.md`, from what was last measured of each part."""
    parts = [
        "# Benchmarks",
        'Written by `python -m benchmarks` (`pip install -e ".[test]"` first; the environments of peers are made on the way). '
        "Each part says when it was measured; `python -m benchmarks --only NAME` measures one again and leaves the rest. "
        "JAX runs on the CPU with its default threads, torch with 2.",
    ]
    for name, workload in WORKLOADS.items():
        data = load(name)
        if data is None:
            continue
        run = data["run"]
        told = f"`python -m benchmarks --only {name}`, {run['date']}, {run['machine']}, {run['versions']}"
        for peer, versions in data.get("versions", {}).items():
            told += f"; {peer}: " + ", ".join(f"{package} {number}" for package, number in versions.items())
        told += f"; {run['seconds']:.0f} s, load average {run['load']:.1f} at the end."
        if run["quick"]:
            told += " **A quick run, to try the code: few rounds and draws.**"
        parts += [f"## {workload.TITLE}", told]
        parts += [block if isinstance(block, str) else block.markdown() for block in workload.report(data)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=(*PRINTED, *WORKLOADS), help="measure this part alone (may be repeated)"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds and draws, to try the code")
    options = parser.parse_args(arguments)
    console, session = Console(), Session(quick=options.quick)
    try:
        for name in options.only or (*PRINTED, *WORKLOADS):
            if name in PRINTED:
                PRINTED[name].main()
                continue
            console.rule(WORKLOADS[name].TITLE)
            began = time.perf_counter()
            data = WORKLOADS[name].measure(session)
            data["run"] = provenance(options.quick, time.perf_counter() - began)
            save(name, data)
            for block in WORKLOADS[name].report(data):
                console.print(block)
            RESULTS.write_text(document())
    finally:
        session.close()
    for name, reason in session.skipped.items():
        console.print(f"skipped {name}: {reason}", style="yellow")


if __name__ == "__main__":
    main(sys.argv[1:])
