"""What the tests hold every estimator to, as figures: deviation from the exact value, and variance next to the score's.

The programs, the estimators and the exact values are the tests' own (`tests/programs`, `tests/helpers.py`).
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from benchmarks import leaderboard
from benchmarks.report import RESULTS, Hold, Table
from benchmarks.runner import THRESHOLD, Session, Worker, alternate

TITLE = "The contract: every estimator on the tests' programs"
BUDGET = 250.0
MOST_SECONDS = 30.0  # for one estimator on one program
NUM_WORKERS, NUM_BATCHES = 2, 16
ROUND_SECONDS = 0.004  # for each estimator of a program, in each round of its timing
SCORE = "score"  # the estimator whose variance is the unit
PROGRAMS = (
    "normal",
    "bernoulli_with_offset",
    "categorical",
    "poisson",
    "uniform",
    "jumps_at_thresholds",
    "two_discrete_layers",
    "mixture_of_kinds",
    "batch_through_an_mlp",
    "batch_of_normals_through_a_decoder",
    "attention",
    "gaussian_chain",
    "hidden_markov_chain",
    "rollout_accumulated_in_the_carry",
    "bits_and_classes_as_floats",
    "subset_of_two",
    "ranking_of_three",
    "particle_filter_of_three",
    "births_and_deaths",
)
"""Of the tests' programs, each kind of law, alone and in what it is used for; and those of `contract_programs`."""
OF_BITS = ("bernoulli_with_offset", "two_discrete_layers", "batch_through_an_mlp", "bits_and_classes_as_floats")
"""Those whose costs may be differentiated in their draws, for the bias of biased estimators."""
ORDERS = ("value", "gradient", "hessian")
ABOUT_BIAS = (
    "The exact gradient is by enumeration, the mean over 16,384 gradients: a bias within two standard errors is none that can be "
    "seen. Draws are floats, as they are where a biased estimator is named. Temperatures are those of `tests/helpers.py`: 0.7, and "
    "1.5 where ReinMax is warm."
)
DOCUMENT = RESULTS / "CONTRACT.md"


def _pairs() -> dict[str, list[str]]:
    """For each program the estimators that claim it, and the score wherever it runs."""
    tests = str(Path(__file__).parents[1] / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    from helpers import ESTIMATORS, LOOP_PROGRAMS
    from helpers import PROGRAMS as KNOWN

    from benchmarks.contract_programs import MORE

    known = {**KNOWN, **{program.name: program for program in (*LOOP_PROGRAMS, *MORE)}}
    return {
        name: [
            estimator
            for estimator, row in ESTIMATORS.items()
            if row.claims(known[name]) or (estimator == SCORE and SCORE in known[name].kinds)
        ]
        for name in PROGRAMS
    }


def _biased() -> tuple[str, ...]:
    from helpers import BIASED

    return tuple(BIASED)


def measure(session: Session) -> dict[str, Any]:
    """All pairs, program by program in two processes; those of a program are timed in turn."""
    pairs = _pairs()
    workers: SimpleQueue[Worker] = SimpleQueue()
    started = [Worker("contract") for _ in range(NUM_WORKERS)]
    for worker in started:
        workers.put(worker)

    def rows(program: str) -> dict[str, Any]:
        worker = workers.get()
        try:
            arguments = {"program": program, "num_batches": 2 if session.quick else NUM_BATCHES}
            entries = {
                estimator: session.build(worker, "pair", MOST_SECONDS, estimator=estimator, **arguments)
                for estimator in pairs[program]
            }
            facts = {estimator: dict(entry.measured) for estimator, entry in entries.items()}
            alternate(entries, session.rounds, ROUND_SECONDS)
        finally:
            workers.put(worker)
        for estimator, entry in entries.items():
            for name in ("case", "step_seconds"):
                facts[estimator].pop(name, None)
            if times := entry.measured.get("times"):
                facts[estimator]["seconds"] = min(times) / leaderboard.TIMED
        return facts

    def bias(program: str, estimator: str) -> dict[str, Any]:
        worker = workers.get()
        try:
            arguments = {"program": program, "num_batches": 2 if session.quick else NUM_BATCHES}
            entry = session.build(worker, "bias", MOST_SECONDS, estimator=estimator, **arguments)
        finally:
            workers.put(worker)
        return {name: fact for name, fact in entry.measured.items() if name not in ("case", "step_seconds")}

    data: dict[str, Any] = {"versions": {"mcgrad": started[0].versions}}
    try:
        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            data["programs"] = dict(zip(pairs, pool.map(rows, pairs), strict=True))
            of_biased = [(program, name) for program in OF_BITS for name in _biased()]
            data["bias"] = {program: {} for program in OF_BITS}
            for (program, name), found in zip(of_biased, pool.map(lambda pair: bias(*pair), of_biased), strict=True):
                data["bias"][program][name] = found
    finally:
        for worker in started:
            worker.close()
    return data


def _ratio(rows: dict[str, Any], estimator: str, order: str) -> str:
    """The variance over that of the score on the same program."""
    ours, score = (rows.get(name, {}).get(order) for name in (estimator, SCORE))
    return f"{ours['variance'] / score['variance']:.3g}" if ours and score and score["variance"] else ""


def program_table(program: str, rows: dict[str, Any]) -> Table:
    """Deviation, variance and its ratio to the score's for each order that an estimator claims on a program."""
    headings = ["estimator", *(f"{order}: {what}" for order in ORDERS for what in ("deviation", "variance", "/ score"))]
    table = Table(program, [*headings, "draws"])
    for estimator, found in rows.items():
        cells = []
        for order in ORDERS:
            if order not in found:
                cells += ["", "", ""]
                continue
            deviation = f"{found[order]['deviation']:.1f}" + ("" if found[order]["told"] else " (?)")
            cells += [deviation, f"{found[order]['variance']:.3g}", _ratio(rows, estimator, order)]
        table.rows.append((estimator, *cells, f"{found['draws']:,}" if "draws" in found else found["error"]))
    return table


def claims_table(programs: dict[str, Any]) -> Table:
    """For each estimator, on how many of the programs it claims which order, and the largest deviation there."""
    headings = ["estimator", "programs", "unbiased, as it claims, in"]
    table = Table(
        "what each estimator claims, and its largest deviation over the programs, in standard errors",
        [*headings, *ORDERS, "variance of the gradient / score (median)"],
    )
    for estimator in dict.fromkeys(name for rows in programs.values() for name in rows):
        found = [rows[estimator] for rows in programs.values() if estimator in rows]
        claimed = [order for order in ORDERS if any(order in each for each in found)]
        cells = []
        for order in ORDERS:
            deviations = [each[order]["deviation"] for each in found if order in each]
            cells.append(f"{max(deviations):.1f}" if deviations else "")
        ratios = [float(r) for rows in programs.values() if (r := _ratio(rows, estimator, "gradient"))]
        typical = f"{np.median(ratios):.3g}" if ratios else ""
        table.rows.append((estimator, str(len(found)), ", ".join(claimed), *cells, typical))
    return table


def ratio_table(programs: dict[str, Any]) -> Table:
    """The variance of each estimator's gradient over the score's, on every program."""
    table = Table(
        "variance of the gradient over that of `mcgrad.Score()` with one sample",
        ("estimator", *(name.replace("_", " ") for name in programs)),
    )
    for estimator in dict.fromkeys(name for rows in programs.values() for name in rows):
        table.rows.append((estimator, *(_ratio(rows, estimator, "gradient") for rows in programs.values())))
    return table


def auto_table(programs: dict[str, Any]) -> tuple[Table, list[str]]:
    """Variance times time of `Auto`'s gradient, with one sample, next to the best estimator; and where it is over twice that."""
    table = Table(
        "variance times time of one gradient of `mcgrad.Auto()`, next to the best estimator that claims the program",
        (
            "program",
            "auto: variance",
            "microseconds",
            "best that is not exact",
            "its variance",
            "microseconds",
            "ratio",
            "exact",
        ),
    )
    over = []
    for program, rows in programs.items():
        timed = {name: f for name, f in rows.items() if "seconds" in f and "gradient" in f}
        if "auto" not in timed:
            continue
        product = {name: f["gradient"]["variance"] * f["seconds"] for name, f in timed.items()}
        exact = min((name for name in product if not product[name]), key=lambda n: timed[n]["seconds"], default="")
        best = min((name for name in product if product[name]), key=lambda name: product[name], default="auto")
        ratio = product["auto"] / product[best] if product[best] else 1.0
        if ratio > MOST_OF_AUTO:
            known = f" (exact in {_as_long(timed, exact)})" if exact else ""
            over.append(f"{program}, {ratio:.3g} of `{best}`{known}")
        told = [f(timed[name]) for name in ("auto", best) for f in (_variance, _microseconds)]
        table.rows.append(
            (
                program.replace("_", " "),
                *told[:2],
                best,
                *told[2:],
                f"{ratio:.3g}",
                _as_long(timed, exact) if exact else "",
            )
        )
    return table, over


def bias_table(found: dict[str, Any]) -> Table:
    """How far the mean gradient of each biased estimator is from the exact one, in percent of its norm."""
    title = "bias of the gradient of the biased estimators, in percent of the norm of the exact one, with its standard error"
    table = Table(title, ("estimator", *(name.replace("_", " ") for name in found)))
    for name in next(iter(found.values()), {}):
        cells = [rows[name] for rows in found.values()]
        told = [
            each.get("error") if "bias" not in each else f"{each['bias']:.2%} ± {each['error']:.2%}" for each in cells
        ]
        table.rows.append((name, *told))
    return table


MOST_OF_AUTO = 2.0


def _variance(found: dict[str, Any]) -> str:
    return f"{found['gradient']['variance']:.3g}"


def _microseconds(found: dict[str, Any]) -> str:
    return f"{1e6 * found['seconds']:.3g}"


def _as_long(timed: dict[str, Any], exact: str) -> str:
    return (
        f"{exact}, {timed[exact]['seconds'] / timed['auto']['seconds']:.3g} times as long"
        if exact != "auto"
        else "auto"
    )


def report(data: dict[str, Any]) -> list[Any]:
    """The holds and the table of ratios; everything else goes into `results/CONTRACT.md`."""
    programs = data["programs"]
    checks = [
        (f"{estimator} on {program}, {order}", found[order])
        for program, rows in programs.items()
        for estimator, found in rows.items()
        for order in ORDERS
        if order in found
    ]
    off = [f"{label} ({found['deviation']:.1f})" for label, found in checks if found["deviation"] > THRESHOLD]
    failed = [
        f"{estimator} on {program}: {found['error']}"
        for program, rows in programs.items()
        for estimator, found in rows.items()
        if "error" in found
    ]
    untold = sum(not found["told"] for _, found in checks)
    ratios = ratio_table(programs)
    auto, over = auto_table(programs)
    text = [
        "# The contract, in figures",
        "Written by `python -m benchmarks --only contract` from the tables of the tests: every estimator of `tests/helpers.py` on "
        f"{len(programs)} programs of `tests/programs`, in float64. A deviation is that of the mean from the exact value, in "
        "standard errors, of the coordinate where it is largest; (?) marks those where 5 standard errors are over a tenth of "
        "the norm of the exact value, so that a bias of that size would not show with these draws (the tests draw until it would). "
        "A variance is the total over coordinates, of one estimate; the names tell how many samples an estimate takes. An empty "
        "cell is an order that the estimator does not claim. The score without a baseline is measured also where an offset makes "
        "it useless, as the unit.",
        claims_table(programs).markdown(),
        ratios.markdown(),
        auto.markdown(),
        "Times are the least of several rounds of 256 gradients at once, compiled without optimization, as the tests are: they "
        "tell tens of percent apart. Exact estimators have no variance, so that no other is within any factor of them; how long "
        "the quickest takes next to `mcgrad.Auto()` is in the last column.",
        *([bias_table(data["bias"]).markdown(), ABOUT_BIAS] if "bias" in data else []),
        *(program_table(program, rows).markdown() for program, rows in programs.items()),
    ]
    RESULTS.mkdir(exist_ok=True)
    DOCUMENT.write_text("\n\n".join(text) + "\n")
    evidence = f"{len(checks)} values, gradients and Hessians; {untold} of them too noisy to tell with these draws."
    return [
        "Deviations and variances of every order, program by program, are in [CONTRACT.md](results/CONTRACT.md).",
        ratios,
        *leaderboard.blocks(programs),
        auto,
        Hold(
            "variance times time of `mcgrad.Auto()` is within 2 of the best estimator that is not exact, on every program",
            not over if auto.rows else None,
            f"Over: {'; '.join(over) or 'none'}.",
        ),
        Hold(
            "no mean is more than 5 standard errors off the exact value",
            not off if checks else None,
            f"{evidence} Off: {', '.join(off) or 'none'}.",
        ),
        Hold(
            "every estimator runs on every program that it claims, in its seconds",
            not failed,
            f"Not: {'; '.join(failed[:10]) or 'none'}{f' and {len(failed) - 10} more' if len(failed) > 10 else ''}.",
        ),
    ]
