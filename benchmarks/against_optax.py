"""Against the three estimators of `optax.monte_carlo`, which Optax removed after 0.2.6."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.report import Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, draw, median_time, ratio, variance, verdict

TITLE = "Against optax.monte_carlo"
BUDGET = 70.0
NUM, DRAWS = 10, 4000
PEER = "Optax"
SUMMED = ", w . x as a sum"
ESTIMATORS = ("score", "leave-one-out", "pathwise", "measure-valued", f"measure-valued{SUMMED}")
ALONE = "mcgrad, gradient alone"
SAMPLES = (1, 100)
WHY = (
    " Why: with one sample a step is mostly what JAX takes to start it and to wrap its results, here two arrays and there one (the "
    "rows of the gradient alone). Measure-valued, the 40 points go through `w @ x` together, a product of [10, 40] for which XLA "
    f"calls its matrix library; written as `jnp.sum(w * x)` (the row `{SUMMED.lstrip(', ')}`) it takes a third of the time."
)


def measure(session: Session) -> dict[str, Any]:
    """Each estimator on ten normals that one cost mixes, with one sample and with a hundred."""
    ours, peer = session.worker(OURS), session.worker("optax")
    workers = {OURS: ours, PEER: peer}
    value = inputs.normals_value
    params = inputs.normals(NUM).astype(np.float64)
    gradient = inputs.gradient(value, params).ravel()
    exact = np.concatenate([[value(params)], gradient])
    data: dict[str, Any] = {
        "versions": {worker.name: worker.versions for worker in workers.values() if worker is not None},
        "skipped": session.skipped.get("optax"),
        "rows": {},
    }
    for num_samples in SAMPLES:
        rows = data["rows"][str(num_samples)] = {}
        for estimator in ESTIMATORS:
            if estimator == "leave-one-out" and num_samples == 1:
                continue
            case = {"estimator": estimator.removesuffix(SUMMED), "num": NUM, "num_samples": num_samples}
            case["summed"] = estimator.endswith(SUMMED)
            entries = {
                name: session.build(worker, "normals", **case)
                for name, worker in workers.items()
                if worker is not None and (name == OURS or estimator != "leave-one-out")
            }
            entries[ALONE] = session.build(ours, "normals", **case, value=False)
            alternate(entries, session.rounds)
            for name, entry in entries.items():
                first = 1 if name == OURS else 0  # what comes before the gradient: the value, in ours
                part = (first, first + len(gradient))
                draw(entry, session.draws(DRAWS), part)
                entry.measured["verdict"] = verdict(entry.measured, exact[1 - first :], {"gradient": part})
            rows[estimator] = {name: entry.measured for name, entry in entries.items()}
    return data


def report(data: dict[str, Any]) -> list[Any]:
    """A table for each number of samples, and the holds."""
    blocks: list[Any] = [
        f"{NUM} normals, locations and log scales, cost `cos(w . x) + 0.1 |x - 1|^2`. Optax has no value beside its gradient; "
        "mcgrad gives both. Optax has no leave-one-out baseline; the variance is that of the mean over the samples."
    ]
    if data["skipped"]:
        blocks.append(f"Skipped Optax: {data['skipped']}")
    headings = ("estimator", "whose", "a gradient", "time / mcgrad", "variance", "variance x time (s)", "verdict")
    slower, alone_slower, larger, wrong, compared, alone_compared = [], [], [], [], 0, 0
    for num_samples, rows in data["rows"].items():
        table = Table(f"{num_samples} samples" if num_samples != "1" else "one sample", headings)
        for estimator, entries in rows.items():
            ours = entries[OURS]
            for name, measured in entries.items():
                if "times" not in measured or "group_variances" not in measured:
                    table.rows.append((estimator, name, *[""] * 4, measured["verdict"]))
                    continue
                found, time = variance(measured)[0], median_time(measured)
                over = spread(ratio(measured["times"], ours["times"])) if "times" in ours else ""
                shown = (milliseconds(time), over, f"{found:.3g}", f"{found * time:.3g}", measured["verdict"])
                table.rows.append((estimator, name, *shown))
            label = f"{estimator}, {num_samples}"
            if ours["verdict"].startswith(("biased", "not finite")):
                wrong.append(label)
            if all("group_variances" in entries.get(name, {}) for name in (OURS, PEER)):
                compared += 1
                peer, times = entries[PEER], ratio(ours["times"], entries[PEER]["times"])
                if times[0] > 1.05:
                    slower.append(f"{label} ({times[1]:.3g})")
                if "times" in entries.get(ALONE, {}):
                    alone_compared += 1
                    alone = ratio(entries[ALONE]["times"], peer["times"])
                    if alone[0] > 1.05:
                        alone_slower.append(f"{label} ({alone[1]:.3g})")
                (a, a_error), (b, b_error) = variance(ours), variance(peer)
                if a - b > 4 * np.hypot(a_error, b_error):
                    larger.append(f"{label} ({a / b:.3g})")
        blocks.append(table)
    evidence = f"{compared} comparisons."
    return [
        *blocks,
        Hold("mcgrad is unbiased on each", not wrong, f"Biased: {', '.join(wrong) or 'none'}."),
        Hold(
            "no estimator has more variance than Optax's (4 standard errors)",
            not larger if compared else None,
            f"{evidence} More: {', '.join(larger) or 'none'}.",
        ),
        Hold(
            "value and gradient take no longer than Optax's gradient (lower quartile of the ratio at most 1.05)",
            not slower if compared else None,
            f"{evidence} Slower: {', '.join(slower) or 'none'}.{WHY if slower else ''}",
        ),
        Hold(
            "nor does the gradient alone",
            not alone_slower if alone_compared else None,
            f"{alone_compared} comparisons. Slower: {', '.join(alone_slower) or 'none'}.",
        ),
    ]
