"""The side of a benchmark that runs in a process of its own: builds cases, times rounds of steps, draws gradients.

It imports numpy alone, since it runs in the environments of peers. Requests and answers are lines of JSON on the standard
streams; a request that fails is answered with `{"error": ...}` and the process lives on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

GROUPS = 10  # of draws, from whose spread the error of a variance is known


@dataclasses.dataclass
class Case:
    """One estimator on one program.

    Attributes:
        step: one step; it has finished when it returns.
        draw: `draw(count, seed)` draws rows `[count, d]`: the value, then the gradient.
        facts: what is known of it after building: seconds of compilation, operations, bytes.
    """

    step: Callable[[], Any]
    draw: Callable[[int, int], np.ndarray]
    facts: dict[str, float] = dataclasses.field(default_factory=dict)


def seconds(step: Callable[[], Any], steps: int) -> float:
    """Seconds of one step, over `steps` in a row."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def moments(rows: np.ndarray, part: slice) -> dict[str, Any]:
    """Mean and variance of each column, and the total variance of the columns in `part` for each group of rows."""
    rows = rows.astype(np.float64)
    groups = [float(group[:, part].var(0, ddof=1).sum()) for group in np.array_split(rows, GROUPS)]
    return {
        "count": len(rows),
        "mean": rows.mean(0).tolist(),
        "variance": rows.var(0, ddof=1).tolist(),
        "group_variances": groups,
    }


def serve(builders: Mapping[str, Callable[..., Case]], packages: tuple[str, ...]) -> None:
    """Answers requests until the standard input ends.

    Args:
        builders: what builds the case of a workload from its arguments.
        packages: whose versions are told.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    cases: list[Case] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "hello":
                return {"python": platform.python_version(), **{name: version(name) for name in packages}}
            case "build":
                built = builders[request["workload"]](**request["arguments"])
                for _ in range(2):
                    built.step()
                cases.append(built)
                once = min(seconds(built.step, 1) for _ in range(3))
                return {"case": len(cases) - 1, "step_seconds": once, **built.facts}
            case "time":
                return {"seconds": seconds(cases[request["case"]].step, request["steps"])}
            case "draw":
                rows = cases[request["case"]].draw(request["count"], request["seed"])
                return moments(rows, slice(*request["part"]))
            case "facts":  # a builder that measures and has nothing to step
                return builders[request["workload"]](**request["arguments"]).facts
        raise ValueError(f"unknown request {request['do']!r}")

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # whatever a peer raises is a result
            message = (str(error).strip().splitlines() or [""])[0].replace(os.getcwd() + os.sep, "")
            reply = {"error": f"{type(error).__name__}: {message[:400]}"}
        print(json.dumps(reply), file=answers, flush=True)
