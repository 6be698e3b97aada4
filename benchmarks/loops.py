"""One alternative path through a loop against the score: variance and time of a gradient, as the loop gets longer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, draw, median_time, ratio, variance, verdict

TITLE = "Loops: score and one alternative path"
BUDGET = 100.0
LENGTHS = (10, 100, 1000)
BY_HAND = "by hand"
ESTIMATORS = {
    "score": "score, reward-to-go",
    "smoothed perturbation": "alternative path",
    "smoothed perturbation, right": "alternative path, one-sided",
}
# workload, exact value, parameters for a number of steps, estimators, draws of the gradient in a full run
PROGRAMS: dict[str, tuple[str, Callable[..., Any], Callable[[int], np.ndarray], tuple[str, ...], int]] = {
    "chain": (
        "bernoulli_chain",
        inputs.bernoulli_chain_value,
        lambda num_steps: np.full(1, inputs.CHAIN),
        ("score", "smoothed perturbation"),
        20_000,
    ),
    "walk": ("walk", inputs.walk_value, inputs.walk, tuple(ESTIMATORS), 20_000),
}
TITLES = {
    "chain": "`x <- 0.9 x + 0.1 (2 b - 1)`, `b ~ Bernoulli(logit)`, cost `sum x^2`, derivative in the logit",
    "walk": "Arya et al. 2022, section 5.1: `X` goes up with probability `exp(-X / p)`, else down, cost `X^2` at the end, "
    "derivative in `p`, which is twice the number of steps",
}
GAINS = {100: 5.0, 1000: 50.0}
"""How many times the variance on the chain is to be below the score's."""
MOST_TIME = 3.0
IN_A_ROW = 100
PUBLISHED = {"score": 95.8, "smoothed perturbation, right": 6.5}
"""Standard deviations on the walk of 100 steps, read off the figure of Arya et al. 2022."""


def measure(session: Session) -> dict[str, Any]:
    """The estimators of both programs, and the surrogate by hand: one simulation and its gradient."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "programs": {}}
    for title, (workload, value, parameters, estimators, draws) in PROGRAMS.items():
        lengths = data["programs"][title] = {}
        for num_steps in LENGTHS:
            params = parameters(num_steps).astype(np.float64)
            known = functools.partial(value, num_steps=num_steps)
            exact = np.array([known(params), inputs.gradient(known, params)[0]])
            entries = {name: session.build(ours, workload, estimator=name, num_steps=num_steps) for name in estimators}
            timed = entries | {BY_HAND: session.build(ours, f"{workload}_by_hand", num_steps=num_steps)}
            alternate(timed, session.rounds)
            again = {"num_steps": num_steps, "in_a_row": IN_A_ROW}
            rows = {
                name: session.build(ours, workload, estimator=name, **again) for name in estimators if name != "score"
            }
            rows[BY_HAND] = session.build(ours, f"{workload}_by_hand", **again)
            alternate(rows, session.rounds)
            for entry in entries.values():
                draw(entry, session.draws(draws), (1, 2))
                entry.measured["verdict"] = verdict(entry.measured, exact, {"gradient": (1, 2)})
            measured = {name: entry.measured for name, entry in timed.items()}
            in_a_row = {name: entry.measured for name, entry in rows.items()}
            lengths[str(num_steps)] = {"exact": exact[1], "estimators": measured, "in_a_row": in_a_row}
    return data


def report(data: dict[str, Any]) -> list[Any]:
    """The tables, the picture and the holds."""
    tables = [_table(TITLES[title], lengths) for title, lengths in data["programs"].items()]
    _picture(data["programs"])
    return [
        "By hand is the score with reward-to-go, written in JAX: one simulation and its gradient. In a row: programs that "
        f"compute {IN_A_ROW} gradients one after another. A single one of few steps takes microseconds, much of "
        "which is how JAX starts it.",
        *tables,
        "![spread of the gradient against the number of steps](results/alternative_path.png)",
        *holds(data["programs"]),
    ]


def _table(title: str, lengths: dict[str, Any]) -> Table:
    headings = (
        "steps",
        "estimator",
        "mean (exact)",
        "variance",
        "/ score",
        "a step",
        "/ by hand",
        "in a row",
        "verdict",
    )
    table = Table(title, headings)
    for num_steps, found in lengths.items():
        score, hand = (found["estimators"][name] for name in ("score", BY_HAND))
        for name, measured in found["estimators"].items():
            if name == BY_HAND:
                continue
            if "group_variances" not in measured or "group_variances" not in score:
                table.rows.append((num_steps, ESTIMATORS[name], *[""] * 6, measured["verdict"]))
                continue
            mean, error = measured["mean"][1], np.sqrt(measured["variance"][1] / measured["count"])
            table.rows.append(
                (
                    num_steps,
                    ESTIMATORS[name],
                    f"{mean:.4g} ± {error:.2g} ({found['exact']:.4g})",
                    f"{variance(measured)[0]:,.3g}",
                    f"{variance(measured)[0] / variance(score)[0]:.3g}",
                    milliseconds(median_time(measured)),
                    _over(measured, hand),
                    _over(found["in_a_row"].get(name, {}), found["in_a_row"][BY_HAND]),
                    measured["verdict"],
                )
            )
    return table


def _over(measured: dict[str, Any], hand: dict[str, Any]) -> str:
    return spread(ratio(measured["times"], hand["times"])) if "times" in measured and "times" in hand else ""


def holds(programs: dict[str, Any]) -> list[Hold]:
    """What the figures say of each statement."""
    rows = {
        (title, int(num_steps), name): (measured, found)
        for title, lengths in programs.items()
        for num_steps, found in lengths.items()
        for name, measured in found["estimators"].items()
        if name != BY_HAND
    }
    labels = {key: f"{ESTIMATORS[key[2]]}, {key[0]}, {key[1]} steps" for key in rows}
    drawn = any("mean" in own for own, _ in rows.values())
    wrong = [labels[key] for key, (own, _) in rows.items() if own["verdict"].startswith(("biased", "not finite"))]
    times = {
        labels[key]: ratio(found["in_a_row"][key[2]]["times"], found["in_a_row"][BY_HAND]["times"])[1]
        for key, (_, found) in rows.items()
        if key[2] != "score" and all("times" in found["in_a_row"][name] for name in (key[2], BY_HAND))
    }
    slow = [f"{label} ({found:.3g})" for label, found in times.items() if found > MOST_TIME]
    largest = (
        f"Largest ratio {max(times.values()):.3g}, of {len(times)}; over: {', '.join(slow) or 'none'}." if times else ""
    )
    found = [
        Hold(
            "all are unbiased at every length", not wrong if drawn else None, f"Biased: {', '.join(wrong) or 'none'}."
        ),
        Hold(
            f"in a row, an alternative path takes at most {MOST_TIME:.0f} times as long as one simulation and its gradient by hand",
            not slow if times else None,
            largest,
        ),
    ]
    for num_steps, least in GAINS.items():
        own, at_length = rows.get(("chain", num_steps, "smoothed perturbation"), ({}, {"estimators": {"score": {}}}))
        score = at_length["estimators"]["score"]
        statement = f"on the chain of {num_steps} steps its variance is at least {least:.0f} times below the score's"
        if "group_variances" in own and "group_variances" in score:
            gain = variance(score)[0] / variance(own)[0]
            found.append(Hold(statement, gain >= least, f"{gain:.3g} times."))
        else:
            found.append(Hold(statement, None, ""))
    deviations = {
        name: np.sqrt(variance(rows["walk", 100, name][0])[0])
        for name in PUBLISHED
        if "group_variances" in rows.get(("walk", 100, name), ({},))[0]
    }
    off = [name for name, value in deviations.items() if abs(value / PUBLISHED[name] - 1) > 0.05]
    found.append(
        Hold(
            "on the walk of 100 steps the standard deviations are the published ones (within 5 %)",
            not off if len(deviations) == len(PUBLISHED) else None,
            "; ".join(f"{ESTIMATORS[name]}: {value:.3g}, {PUBLISHED[name]}" for name, value in deviations.items()),
        )
    )
    return found


def _picture(programs: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.9), layout="constrained")
    for axes, (title, lengths) in zip(figure.subplots(1, 2), programs.items(), strict=True):
        for name, marker in zip(ESTIMATORS, "os^", strict=True):
            points = [
                (int(num_steps), np.sqrt(variance(found["estimators"][name])[0]))
                for num_steps, found in lengths.items()
                if "group_variances" in found["estimators"].get(name, {})
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), marker=marker, label=ESTIMATORS[name])
        if title == "walk":
            for name, value in PUBLISHED.items():
                label = "published, 100 steps" if name == "score" else None
                axes.plot(100, value, "k+", markersize=12, label=label, zorder=3)
        axes.set_xlabel("steps")
        axes.set_title({"chain": "Bernoulli chain", "walk": "walk of Arya et al. 2022"}[title], fontsize=11)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.set_ylabel("standard deviation of the gradient")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "alternative_path.png", dpi=150)
