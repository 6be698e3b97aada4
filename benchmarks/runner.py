"""The side of a benchmark that asks: worker processes, rounds that alternate between them, ratios with their spread."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import REQUIREMENTS, Missing, environment

ROOT = Path(__file__).parent.parent
OURS = "mcgrad"
MOST_SECONDS = 60.0  # for one answer; a case that takes longer is reported as such
MOST_ROUND_SECONDS = 5.0  # for the rounds of one comparison: slow steps are timed in fewer rounds
FEWEST_ROUNDS = 5
THRESHOLD = 5.0  # standard errors that make a bias
FEWEST_DRAWS = 500  # that decide: among fewer, what is rare and large has often not come up at all


class Failed(RuntimeError):
    """What a worker's library raised, or that it took too long."""


class Worker:
    """A process that runs one library's programs. It is started again after an answer that takes too long.

    Args:
        name: a module of `benchmarks.peers`; it runs in the environment of that name if there is one, else in this one.
    """

    def __init__(self, name: str):
        self.name = name
        self.python = environment(name) if name in REQUIREMENTS else sys.executable
        self._start()
        self.versions = self.ask(do="hello")

    def _start(self) -> None:
        ours = os.environ.get("PYTHONPATH", "") if self.python == sys.executable else ""
        paths = os.pathsep.join(filter(None, (str(ROOT), ours)))
        command = [self.python, "-W", "ignore", "-m", f"benchmarks.peers.{self.name}"]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, timeout: float = MOST_SECONDS, **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            Failed: with what the library raised, or that there was no answer.
        """
        self._process.stdin.write((json.dumps(request) + "\n").encode())
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self.close()
            self._start()
            raise Failed(f"over {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._start()
            raise Failed("the process died")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclasses.dataclass
class Entry:
    """A built case: whose it is, and what was measured of it so far (what goes into the JSON)."""

    worker: Worker
    measured: dict[str, Any]

    @property
    def works(self) -> bool:
        return "error" not in self.measured


def alternate(entries: dict[str, Entry], rounds: int, round_seconds: float = 0.02) -> None:
    """Times the cases in turn, `rounds` times; adds `times`, the seconds of a step in each round, to what is measured.

    Their order is drawn anew in each round, since what runs before leaves its traces in caches and clocks.
    """
    working = [entry for entry in entries.values() if entry.works]
    if not working:
        return
    for entry in working:
        entry.measured["times"] = []
    one_round = sum(max(round_seconds, entry.measured["step_seconds"]) for entry in working)
    rng = np.random.default_rng(0)
    for _ in range(int(np.clip(MOST_ROUND_SECONDS / one_round, min(FEWEST_ROUNDS, rounds), rounds))):
        for entry in (working[i] for i in rng.permutation(len(working))):
            if not entry.works:
                continue
            steps = int(np.clip(round_seconds / entry.measured["step_seconds"], 1, 5000))
            try:
                answer = entry.worker.ask(do="time", case=entry.measured["case"], steps=steps)
                entry.measured["times"].append(answer["seconds"])
            except Failed as error:
                entry.measured = {"error": str(error)}


def draw(entry: Entry, count: int, gradient: tuple[int, int], seed: int = 1) -> None:
    """Draws gradients and adds their moments, or what went wrong, to what is measured; `gradient` is its columns."""
    if not entry.works:
        return
    try:
        part = list(gradient)
        timeout = MOST_SECONDS + 2 * count * entry.measured["step_seconds"]
        entry.measured |= entry.worker.ask(
            timeout, do="draw", case=entry.measured["case"], count=count, seed=seed, part=part
        )
    except Failed as error:
        entry.measured["draw_error"] = str(error)


def ratio(times: list[float], others: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile over rounds of `times / others`."""
    lower, median, upper = np.quantile(np.array(times) / np.array(others), (0.25, 0.5, 0.75))
    return float(lower), float(median), float(upper)


def variance(measured: dict[str, Any]) -> tuple[float, float]:
    """The total variance of the gradient and its standard error, from groups of draws."""
    groups = np.array(measured["group_variances"])
    return float(groups.mean()), float(groups.std(ddof=1) / np.sqrt(len(groups)))


def verdict(
    measured: dict[str, Any], exact: np.ndarray, parts: dict[str, tuple[int, int]], error: np.ndarray | float = 0.0
) -> str:
    """Whether drawn columns have the mean `exact`, itself known up to the standard error `error`.

    Returns:
        "not finite", "too few draws" below 500 of them, "biased: PART, ..." where a column is more than 5 standard errors
        off, "too noisy to tell" where 5 standard errors of all columns of a part together are above the size of what is
        estimated, or "agrees". A standard error counts as no less than a fifth of those of its part, in root mean square:
        where hardly any draw has moved a column, the one estimated from them is far too small.
    """
    if "mean" not in measured:
        return measured.get("error") or measured.get("draw_error") or "not drawn"
    mean, spread = np.array(measured["mean"]), np.array(measured["variance"])
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        return "not finite"
    if measured["count"] < FEWEST_DRAWS:
        return "too few draws"
    errors = np.sqrt(spread / measured["count"] + np.square(error))
    biased, noisy = [], False
    for name, (start, end) in parts.items():
        part = slice(start, end)
        size = np.linalg.norm(exact[part])
        told = np.maximum(errors[part], 0.2 * np.sqrt(np.mean(errors[part] ** 2)))
        rounding = 1e-4 * np.maximum(size / np.sqrt(end - start), np.abs(exact[part]))  # float32 sums of many terms
        if np.any(np.abs(mean[part] - exact[part]) > THRESHOLD * told + rounding):
            biased.append(name)
        noisy |= bool(THRESHOLD * np.linalg.norm(errors[part]) > size)
    if biased:
        return f"biased: {', '.join(biased)}"
    return "too noisy to tell" if noisy else "agrees"


@dataclasses.dataclass
class Session:
    """One run: how much to measure, and the workers that it has started.

    Attributes:
        quick: few rounds and draws, to try the code.
        patience: what all allowed seconds are multiplied by.
        skipped: why a peer is not there, by name.
        budget: seconds that the part which is measured may take.
    """

    quick: bool = False
    patience: float = 1.0
    workers: dict[str, Worker] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    budget: float = float("inf")
    _ends: float = float("inf")

    def begin(self, budget: float) -> None:
        """Starts a part that may take `budget` seconds; what is not built by then is not measured, and says so."""
        self.budget = budget * self.patience
        self._ends = time.monotonic() + self.budget

    @property
    def left(self) -> float:
        """Seconds that the part may still take."""
        return self._ends - time.monotonic()

    def build(self, worker: Worker, workload: str, most_seconds: float = MOST_SECONDS, **arguments: Any) -> Entry:
        """Builds a case, within `most_seconds` and the budget of the part; a failure is what is then measured of it."""
        if self.left <= 0:
            return Entry(worker, {"error": f"not measured: the {self.budget:.0f} s of this part were used up"})
        try:
            return Entry(
                worker, worker.ask(most_seconds * self.patience, do="build", workload=workload, arguments=arguments)
            )
        except Failed as error:
            return Entry(worker, {"error": str(error)})

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 25

    def draws(self, full: int) -> int:
        return max(50, full // 40) if self.quick else full

    def worker(self, name: str) -> Worker | None:
        """A running worker, or `None` where its peer cannot be installed; installing it is not in the budget of the part."""
        if name not in self.workers and name not in self.skipped:
            began = time.monotonic()
            try:
                self.workers[name] = Worker(name)
            except (Missing, Failed) as error:
                self.skipped[name] = str(error)
            self._ends += time.monotonic() - began
        return self.workers.get(name)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def reason(measured: dict[str, Any]) -> str:
    """Why a case has no figures."""
    return measured["error"].removeprefix("LookupError: ")


def median_time(measured: dict[str, Any]) -> float:
    return float(np.median(measured["times"]))
