"""The sweeps of Mohamed et al. 2020 (figures 2, 3 and their neighbours): the variance of one draw of each gradient.

Run with `python -m benchmarks.survey`: prints at how many of the 100 points of each sweep the default of
`mcgrad.MeasureValued` has less variance than the best of the survey's four curves, and draws them into `results/`. The
survey's curves are exact, by quadrature (`survey_curves.json`); ours are of 40,000 draws. In the mean both are the same
estimator, so that the count there is of noise.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mcgrad

HERE = Path(__file__).parent
RESULTS = HERE / "results"
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


@functools.partial(jax.jit, static_argnames="cost")
def variances(cost: str, k: jax.Array) -> jax.Array:
    """The variance of one draw of the default, in the mean and in the scale, at `N(1, 1)`."""

    def program(params: jax.Array, key: jax.Array) -> jax.Array:
        return COSTS[cost][1](mcgrad.sample(key, mcgrad.Normal(params[0], params[1])), k)

    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    draws = jax.vmap(mcgrad.measure_valued_grad(program), (None, 0))(jnp.ones(2), keys)
    return jnp.var(draws, axis=0, ddof=1)


def main() -> None:
    """Print the table and draw the figure."""
    survey: dict[str, Any] = json.loads((HERE / "survey_curves.json").read_text())
    table = Table(title="Measure-valued, default, against the best of the survey's four curves at each of 100 points")
    for heading in ("cost", "parameter", "points with less variance", "median ratio", "largest ratio"):
        table.add_column(heading, justify="left" if heading in ("cost", "parameter") else "right")
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.subplots(2, 3)
    for column, (cost, (label, _)) in enumerate(track(COSTS.items(), description="sweeps", transient=True)):
        ks = np.array(survey[cost]["k"])
        ours = np.asarray(jax.lax.map(functools.partial(variances, cost), jnp.asarray(ks)))
        for row, parameter in enumerate(("mu", "sigma")):
            curves = survey[cost][parameter]
            best = np.min([curves[name] for name in CURVES], axis=0)
            ratios = best / np.maximum(ours[:, row], 1e-300)
            wins = int((ratios > 1).sum())
            table.add_row(cost, parameter, f"{wins} of {len(ks)}", f"{np.median(ratios):.3g}", f"{ratios.max():.3g}")
            axes = grid[row, column]
            for name, text in CURVES.items():
                axes.semilogy(ks, curves[name], label=text, linewidth=1)
            axes.semilogy(ks, ours[:, row], label="mcgrad.MeasureValued()", color="black", linewidth=2)
            axes.set_xlabel("k")
            axes.set_title(f"{label}, derivative in $\\{parameter}$", fontsize=10)
            axes.set_ylim(bottom=max(min(ours[:, row].min(), best.min()) / 2, 1e-7))
            axes.grid(alpha=0.3)
        grid[0, column].set_xlabel("")
    for row in range(2):
        grid[row, 0].set_ylabel("variance of one draw")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "survey.png"
    figure.savefig(path, dpi=150)
    console = Console()
    console.print(table)
    console.print(f"picture: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
