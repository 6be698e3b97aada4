"""The sweeps of Mohamed et al. 2020 (figures 2, 3 and their neighbours): the variance of one draw of each gradient.

At how many of the 100 points of each sweep the default of `mcgrad.MeasureValued` has less variance than the best of the
survey's four curves. The survey's curves are exact, by quadrature (`survey_curves.json`); ours are of 40,000 draws. In the
mean both are the same estimator, so that the count there is of noise.

And the time of its gradient of a batch of 64 examples, with 20 normal latents each that one cost of the example mixes, against
a `vmap` of that of one example: a batch is moved together, so that evaluations grow with the latents only.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks import logistic_regression
from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, median_time, ratio

TITLE = "The survey's sweeps: variance of measure-valued derivatives"
BUDGET = 75.0
PARAMETERS = ("mu", "sigma")
CURVES = {
    "score": "score",
    "score_opt_baseline": "score, optimal baseline",
    "pathwise": "pathwise",
    "mvd_survey": "measure-valued, as in the survey",
}
COSTS = {
    "square": ("$(x - k)^2$", lambda x, k: (x - k) ** 2),
    "exp": ("$\\exp(-k x^2)$", lambda x, k: jnp.exp(-k * x**2)),
    "cos": ("$\\cos(k x)$", lambda x, k: jnp.cos(k * x)),
}
NUM_DRAWS = 40_000
BATCH = {"one program": False, "`vmap` of one example": True}
MOST_TIME = 1.5


@functools.partial(jax.jit, static_argnames="cost")
def variances(cost: str, k: jax.Array) -> jax.Array:
    """The variance of one draw of the default, in the mean and in the scale, at `N(1, 1)`."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        return COSTS[cost][1](mcgrad.sample(key, mcgrad.Normal(params[0], params[1])), k)

    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    draws = jax.vmap(mcgrad.measure_valued_grad(program), (None, 0))(jnp.ones(2), keys)
    return jnp.var(draws, axis=0, ddof=1)


def _survey() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "survey_curves.json").read_text())


def measure(session: Session) -> dict[str, Any]:
    """Our variances at every tenth point of each sweep in a quick run, else at all."""
    survey, step = _survey(), 10 if session.quick else 1
    found = {}
    for cost in COSTS:
        ks = jnp.asarray(survey[cost]["k"][::step])
        found[cost] = np.asarray(jax.lax.map(functools.partial(variances, cost), ks)).T.tolist()
    ours = session.worker(OURS)
    batch = {name: session.build(ours, "latents", vmapped=vmapped) for name, vmapped in BATCH.items()}
    alternate(batch, session.rounds)
    measured = {name: entry.measured for name, entry in batch.items()}
    return {
        "versions": {OURS: ours.versions},
        "step": step,
        "variances": found,
        "batch": measured,
        "regression": logistic_regression.measured(session.quick),
    }


def report(data: dict[str, Any]) -> list[Any]:
    """The table of wins, the picture and the hold."""
    survey, step = _survey(), data["step"]
    headings = ("cost", "parameter", "points with less variance", "median of best / ours", "largest")
    table = Table("`mcgrad.MeasureValued()` against the best of the survey's four curves at each point", headings)
    wins = {}
    for cost, (label, _) in COSTS.items():
        for parameter, ours in zip(PARAMETERS, data["variances"][cost], strict=True):
            best = np.min([survey[cost][parameter][name][::step] for name in CURVES], axis=0)
            ratios = best / np.maximum(ours, 1e-300)
            wins[cost, parameter] = int((ratios > 1).sum()), len(ratios)
            told = (f"{wins[cost, parameter][0]} of {len(ratios)}", f"{np.median(ratios):.3g}", f"{ratios.max():.3g}")
            table.rows.append((label.replace("\\exp", "exp").replace("\\cos", "cos").strip("$"), parameter, *told))
    _picture(survey, data)
    in_scale = [found for (_, parameter), found in wins.items() if parameter == "sigma"]
    statement = "less variance in the scale than the best of the survey's four at every point, for all three costs"
    evidence = "; ".join(f"{won} of {points}" for won, points in in_scale)
    return [
        table,
        "![variance of one draw against the parameter of the cost, for each estimator](results/survey.png)",
        Hold(statement, all(won == points for won, points in in_scale), f"{evidence}."),
        *_batch(data["batch"]),
        *(logistic_regression.reported(data["regression"]) if "regression" in data else []),
    ]


def _batch(measured: dict[str, Any]) -> list[Any]:
    """The table of times of a batch, and the hold."""
    statement = f"a batch of 64 examples takes at most {MOST_TIME} times as long as a `vmap` of one example (median)"
    together, one_by_one = (measured[name] for name in BATCH)
    if not ("times" in together and "times" in one_by_one):
        return [Hold(statement, None, together.get("error") or one_by_one["error"])]
    found = ratio(together["times"], one_by_one["times"])
    table = Table("value and gradient of 64 examples with 20 normal latents each", ("spelling", "a step", "operations"))
    table.rows = [(name, milliseconds(median_time(row)), f"{row['flops']:,.0f}") for name, row in measured.items()]
    return [table, Hold(statement, found[1] <= MOST_TIME, f"Ratio {spread(found)}.")]


def _picture(survey: dict[str, Any], data: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.subplots(2, 3)
    for column, (cost, (label, _)) in enumerate(COSTS.items()):
        ks = np.array(survey[cost]["k"])
        for row, (parameter, ours) in enumerate(zip(PARAMETERS, data["variances"][cost], strict=True)):
            curves, axes = survey[cost][parameter], grid[row, column]
            for name, text in CURVES.items():
                axes.semilogy(ks, curves[name], label=text, linewidth=1)
            axes.semilogy(ks[:: data["step"]], ours, label="mcgrad.MeasureValued()", color="black", linewidth=2)
            axes.set_xlabel("k")
            axes.set_title(f"{label}, derivative in $\\{parameter}$", fontsize=10)
            axes.set_ylim(bottom=max(min(min(ours), *(min(curves[name]) for name in CURVES)) / 2, 1e-7))
            axes.grid(alpha=0.3)
        grid[0, column].set_xlabel("")
    for row in range(2):
        grid[row, 0].set_ylabel("variance of one draw")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "survey.png", dpi=150)
