"""Programs of real size next to by hand: tracing, planning, compiling, operations, memory, a step; and how planning grows."""

from __future__ import annotations

from typing import Any

from benchmarks.overhead import BY_HAND, _at_most
from benchmarks.report import Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Entry, Failed, Session, alternate, median_time, ratio, reason
from benchmarks.scaling import slope

TITLE = "Programs of real size"
BUDGET = 160.0
PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "residual network with batch norm around classes": ("resnet", {}),
    "stochastic depth, 64 layers, a line each": ("stochastic_depth", {"scan": False}),
    "stochastic depth, in a scan": ("stochastic_depth", {"scan": True}),
    "64 scalar draws, a line each": ("many_draws", {"number": 64}),
    "rollout of 10,000 steps in a scan": ("rollout", {"num_steps": 10_000}),
    "graph network, `segment_sum`": ("graph_network", {}),
    "128 tokens, `mcgrad.autoregressive`": ("autoregressive", {}),
    "128 tokens, in a scan": ("token_by_token", {}),
    "transformer, 2 x 24 blocks around a layer of bits": ("transformer", {"num_samples": 1}),
    "transformer, 4 samples": ("transformer", {"num_samples": 4}),
    "particle filter, 1,000 particles, 20 steps, with stop-gradients": ("particle_filter", {}),
}
IN_LOOPS = (
    "rollout",
    "token_by_token",
    "autoregressive",
    "particle_filter",
)  # XLA counts a loop's body once: operations say nothing
SEVERAL = "transformer, 4 samples"
DRAWS = "64 scalar draws, a line each"
FILTER = "particle filter, 1,000 particles, 20 steps, with stop-gradients"
MOST_COMPILE_SECONDS = 300.0
PLANNED = {"costs": ("summed costs", (250, 500, 1000, 2000)), "draws": ("scalar draws", (16, 32, 64, 128, 1000))}
MOST_SLOPE = 1.15
WHY_OPERATIONS = {
    DRAWS: "`mcgrad.Bernoulli` takes the logarithms of both probabilities and selects one of them last, so that samples of one "
    "distribution share them and infinite logits are allowed (7 transcendental operations a draw); by hand is one softplus (4)",
}


def measure(session: Session) -> dict[str, Any]:
    """Both sides of each program, compiled and then timed in turn; and planning alone, of longer and longer programs."""
    ours = session.worker(OURS)
    data: dict[str, Any] = {"versions": {OURS: ours.versions}, "programs": {}, "planning": {}}
    for lines, (_, numbers) in PLANNED.items():
        found = data["planning"][lines] = {}
        for number in numbers[: 3 if session.quick else None]:
            try:
                found[str(number)] = ours.ask(
                    MOST_COMPILE_SECONDS * session.patience,
                    do="facts",
                    workload="planning",
                    arguments={"lines": lines, "number": number},
                )
            except Failed as error:
                found[str(number)] = {"error": str(error)}
    for title, (workload, arguments) in PROGRAMS.items():
        entries: dict[str, Entry] = {}
        for name, builder in ((OURS, workload), (BY_HAND, f"{workload}_by_hand")):
            entries[name] = session.build(ours, builder, MOST_COMPILE_SECONDS, **arguments)
        alternate(entries, session.rounds)
        data["programs"][title] = {name: entry.measured for name, entry in entries.items()}
    return data


def _work(measured: dict[str, Any]) -> float:
    return measured["trace_work"] + measured["compile_work"]


def report(data: dict[str, Any]) -> list[Any]:
    headings = (
        "program",
        "trace and plan",
        "ratio",
        "and compile",
        "ratio",
        "operations",
        "temporary memory",
        "a step",
        "ratio",
    )
    table = Table("value and gradient, next to the surrogate written by hand", headings)
    works, operations, memory, times = {}, {}, {}, {}
    for title, entries in data["programs"].items():
        ours, hand = entries[OURS], entries[BY_HAND]
        if not ("times" in ours and "times" in hand):
            table.rows.append((title, *[""] * 7, reason(ours if "error" in ours else hand)))
            continue
        works[title] = _work(ours) / _work(hand)
        if PROGRAMS[title][0] not in IN_LOOPS and not PROGRAMS[title][1].get("scan"):
            operations[title] = ours["flops"] / hand["flops"]
        memory[title] = ours["bytes"] / hand["bytes"]
        times[title] = ratio(ours["times"], hand["times"])
        table.rows.append(
            (
                title,
                f"{ours['trace_work']:.2f} s",
                f"{ours['trace_work'] / hand['trace_work']:.2f}",
                f"{_work(ours):.1f} s",
                f"{works[title]:.2f}",
                f"{operations[title]:.3f}" if title in operations else "",
                f"{memory[title]:.3f}",
                milliseconds(median_time(ours)),
                spread(times[title]),
            )
        )
    planning, slopes = _planning(data["planning"])
    one = {title: found for title, found in works.items() if title not in (SEVERAL, DRAWS)}
    two = {title: found for title, found in works.items() if title in (SEVERAL, DRAWS)}
    thousand = data["planning"]["costs"].get("1000", {}).get("plan")
    statement = "1,000 summed costs are planned in under a second"
    return [
        "Seconds of tracing, planning and compiling are those of the processor, which other programs on the machine do not "
        "lengthen. Operations and temporary memory are ratios, of the compiled step; operations are not told of loops, whose body "
        "XLA counts once. Many draws in lines of their own are planned and traced up to 1,000 of them, but not compiled: XLA takes "
        "minutes for them, by hand as well.",
        table,
        planning,
        _at_most(one, 1.5, "tracing, planning and compiling takes at most 1.5 times as long as by hand"),
        _at_most(two, 2.0, "of four samples, and of 64 scalar draws in lines of their own, at most twice as long"),
        _at_most(operations, 1.01, "outside loops, operations are at most 1.01 of by hand", WHY_OPERATIONS),
        _at_most(memory, 1.05, "temporary memory is at most 1.05 of by hand"),
        _at_most(
            {title: found[1] for title, found in times.items() if title != FILTER},
            1.02,
            "a step takes at most 1.02 of by hand (median)",
        ),
        _at_most(
            {title: found[1] for title, found in times.items() if title == FILTER},
            1.5,
            "a particle filter takes at most 1.5 times as long as by hand with stop-gradients (median)",
        ),
        _at_most(
            slopes,
            MOST_SLOPE,
            f"planning grows linearly in the number of equations (log-log slope at most {MOST_SLOPE})",
        ),
        Hold(statement, thousand < 1 if thousand else None, f"{thousand:.2f} s." if thousand else ""),
    ]


def _planning(planning: dict[str, Any]) -> tuple[Table, dict[str, float]]:
    """The seconds of each size, and the slopes."""
    headings = ("program", "plan", "trace of the gradient", "by hand", "ratio")
    table, slopes = Table("planning of longer and longer programs, seconds of the processor", headings), {}
    for lines, found in planning.items():
        name, rows = PLANNED[lines][0], {int(n): row for n, row in found.items() if "plan" in row}
        for number, row in rows.items():
            figures = row["plan"], row["gradient"], row["by_hand"], row["gradient"] / row["by_hand"]
            table.rows.append((f"{number:,} {name}", *(f"{figure:.3f}" for figure in figures)))
        if len(rows) >= 3:
            slopes[name] = slope(list(rows), [row["plan"] for row in rows.values()])
            table.rows.append((f"log-log slope, {name}", f"{slopes[name]:.2f}", "", "", ""))
    return table, slopes
