"""One alternative path through a loop against the score: the variance of a gradient, and its time, as the loop gets longer."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, draw, median_time, ratio, variance, verdict

TITLE = "A chain of draws: score and one alternative path"
BUDGET = 90.0
LENGTHS = (10, 30, 100, 300, 1000)
ESTIMATORS = {"score": "score, reward-to-go", "smoothed perturbation": "alternative path"}


def measure(session: Session) -> dict[str, Any]:
    """Both estimators of the derivative in the logit of a chain of Bernoulli draws."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "lengths": {}}
    logit = np.full(1, inputs.CHAIN)
    for num_steps in LENGTHS:

        def value(logit: np.ndarray, num_steps: int = num_steps) -> Any:
            return inputs.bernoulli_chain_value(logit, num_steps)

        exact = np.array([value(logit), inputs.gradient(value, logit)[0]])
        entries = {
            name: session.build(ours, "bernoulli_chain", estimator=name, num_steps=num_steps) for name in ESTIMATORS
        }
        alternate(entries, session.rounds)
        for entry in entries.values():
            draw(entry, session.draws(4000), (1, 2))
            entry.measured["verdict"] = verdict(entry.measured, exact, {"gradient": (1, 2)})
        data["lengths"][str(num_steps)] = {
            "exact": exact[1],
            "estimators": {name: entry.measured for name, entry in entries.items()},
        }
    return data


def report(data: dict[str, Any]) -> list[Any]:
    """The table, the picture and the holds."""
    headings = ("steps", "estimator", "mean (exact)", "variance", "ratio", "a step", "ratio", "verdict")
    table = Table(
        "`x <- 0.9 x + 0.1 (2 b - 1)`, `b ~ Bernoulli(logit)`, cost `sum x^2`, derivative in the logit", headings
    )
    curves: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    gains, verdicts = {}, {}
    for num_steps, found in data["lengths"].items():
        score = found["estimators"]["score"]
        for name, measured in found["estimators"].items():
            verdicts[f"{ESTIMATORS[name]}, {num_steps} steps"] = measured["verdict"]
            if "group_variances" not in measured:
                table.rows.append((num_steps, ESTIMATORS[name], *[""] * 5, measured["verdict"]))
                continue
            mean, error = measured["mean"][1], np.sqrt(measured["variance"][1] / measured["count"])
            curves[name].append(variance(measured)[0])
            gains[int(num_steps)] = variance(measured)[0] / variance(score)[0]
            table.rows.append(
                (
                    num_steps,
                    ESTIMATORS[name],
                    f"{mean:.4g} ± {error:.2g} ({found['exact']:.4g})",
                    f"{variance(measured)[0]:,.3g}",
                    f"{gains[int(num_steps)]:.3g}",
                    milliseconds(median_time(measured)),
                    spread(ratio(measured["times"], score["times"])),
                    measured["verdict"],
                )
            )
    _picture([int(num_steps) for num_steps in data["lengths"]], curves)
    wrong = [label for label, said in verdicts.items() if said.startswith(("biased", "not finite"))]
    longest = max(gains, default=0)
    return [
        table,
        "![variance of the gradient against the number of steps](results/alternative_path.png)",
        Hold("both are unbiased at every length", not wrong, f"Biased: {', '.join(wrong) or 'none'}."),
        Hold(
            "at 1000 steps the alternative path has less than a tenth of the variance of the score",
            gains[longest] < 0.1 if longest == LENGTHS[-1] else None,
            f"Ratio {gains[longest]:.3g} at {longest} steps." if gains else "",
        ),
    ]


def _picture(lengths: list[int], curves: dict[str, list[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(curves.items(), "os", strict=True):
        if len(values) == len(lengths):
            axes.loglog(lengths, values, marker=marker, label=ESTIMATORS[name])
    axes.set_xlabel("steps of the chain")
    axes.set_ylabel("variance of the gradient, one sample")
    axes.set_title("Bernoulli chain: derivative in the logit")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "alternative_path.png", dpi=150)
