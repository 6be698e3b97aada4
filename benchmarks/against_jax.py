"""Against GenJAX's ADEV and NumPyro's TraceGraph_ELBO: a mixed program, many bits, chains in a scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Entry, Session, alternate, draw, median_time, ratio, variance, verdict

TITLE = "Against GenJAX and NumPyro"
BUDGET = 235.0
BY_HAND = "JAX by hand"
PEERS = {"genjax": "GenJAX", "numpyro": "NumPyro"}
SIZES = {"enumeration": (4, 8, 10, 16, 64), "score": (4, 16, 64)}
PATIENCE = 15.0  # seconds for a case; where one takes longer, larger ones of its kind are not tried
DRAWS = 20_000
WHY_ENUMERATION = (
    " Why: scalar draws are loops inside one another over the states so far, and each level has a guard for values that cannot "
    "come up and whose cost may be infinite, where GenJAX's sum would be NaN (a comparison, `isfinite` and a selection a state: "
    "7,748 operations at 8 bits, 4,648 without); GenJAX unrolls all states into straight code, which takes long to compile."
)
"""Found by counting operations of the compiled programs with and without the guard in `RestOfProgram._weighted`."""

_NUMPYRO = {
    "mixed": ("score, pathwise",),
    "gaussian_chain": ("pathwise",),
    "bernoulli_chain": ("score",),
    "bits": ("score",),
}


def _has(peer: str, workload: str, estimator: str) -> bool:
    """Whether a peer has an estimator to compare with."""
    return estimator in _NUMPYRO[workload] if peer == "NumPyro" else estimator != "smoothed perturbation"


def _chain(value: Callable[..., Any], num_steps: int) -> Callable[[np.ndarray], Any]:
    return partial(value, num_steps=num_steps)


# title: workload, exact value, parameters, arguments, arguments of each estimator, arguments by hand
PROGRAMS: dict[str, tuple[str, Callable[..., Any], np.ndarray, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "one bit, then a normal": (
        "mixed",
        inputs.mixed_value,
        inputs.MIXED,
        {},
        {
            f"{bit}, {normal}": {"bit": bit, "normal": normal}
            for bit, normal in (
                ("score", "pathwise"),
                ("enumeration", "pathwise"),
                ("measure-valued", "pathwise"),
                ("score", "score"),
            )
        },
        {"score, pathwise": {}},
    ),
    "Gaussian chain of 50 steps in a scan": (
        "gaussian_chain",
        _chain(inputs.gaussian_chain_value, 50),
        np.full(1, inputs.CHAIN),
        {"num_steps": 50},
        {name: {"estimator": name} for name in ("pathwise", "score")},
        {"pathwise": {"num_steps": 50}},
    ),
    "Bernoulli chain of 10 steps in a scan": (
        "bernoulli_chain",
        _chain(inputs.bernoulli_chain_value, 10),
        np.full(1, inputs.CHAIN),
        {"num_steps": 10},
        {name: {"estimator": name} for name in ("score", "enumeration", "smoothed perturbation")},
        {},
    ),
}


def _exact(value: Callable[..., Any], params: np.ndarray) -> np.ndarray:
    return inputs.gradient(value, params.astype(np.float64)).ravel()


def _measure(session: Session, entries: dict[str, Entry], exact: np.ndarray) -> dict[str, Any]:
    alternate(entries, session.rounds)
    for entry in entries.values():
        draw(entry, session.draws(DRAWS), (0, len(exact)))
        entry.measured["verdict"] = verdict(entry.measured, exact, {"gradient": (0, len(exact))})
        for column in ("mean", "variance"):
            entry.measured.pop(column, None)
    return {name: entry.measured for name, entry in entries.items()}


def measure(session: Session) -> dict[str, Any]:
    """The programs, then the bits at each size, joint and separate."""
    ours = session.worker(OURS)
    peers = {shown: session.worker(name) for name, shown in PEERS.items()}
    peers = {shown: worker for shown, worker in peers.items() if worker is not None}
    data: dict[str, Any] = {
        "versions": {worker.name: worker.versions for worker in (ours, *peers.values())},
        "skipped": {name: reason for name, reason in session.skipped.items() if name in PEERS},
        "programs": {},
        "bits": {},
    }
    for title, (workload, value, params, arguments, estimators, by_hand) in PROGRAMS.items():
        rows = data["programs"][title] = {}
        for estimator, chosen in estimators.items():
            entries = {OURS: session.build(ours, workload, **arguments, **chosen, value=False)}
            if estimator in by_hand:
                entries[BY_HAND] = session.build(ours, f"{workload}_by_hand", **by_hand[estimator], value=False)
            for shown, worker in peers.items():
                if _has(shown, workload, estimator):
                    entries[shown] = session.build(worker, workload, **arguments, **chosen)
            rows[estimator] = _measure(session, entries, _exact(value, params))
    for kind, value in (("joint", inputs.joint_bits_value), ("separate", inputs.separate_bits_value)):
        for estimator in ("enumeration", "score"):
            sizes = data["bits"].setdefault(kind, {}).setdefault(estimator, {})
            lost: dict[str, str] = {}
            for num in SIZES[estimator]:
                entries = {}
                for shown, worker in {OURS: ours, **peers}.items():
                    if shown != OURS and not _has(shown, "bits", estimator):
                        continue
                    if shown in lost:
                        entries[shown] = Entry(worker, {"error": lost[shown]})
                        continue
                    case = {"estimator": estimator, "num": num, "joint": kind == "joint"}
                    case |= {"value": False} if shown == OURS else {}
                    entries[shown] = session.build(worker, "bits", PATIENCE, **case)
                    if entries[shown].measured.get("error", "").startswith("over "):
                        lost[shown] = f"not tried: {num} take over {PATIENCE * session.patience:.0f} s to compile"
                sizes[str(num)] = _measure(session, entries, _exact(value, inputs.bits(num)))
    return data


def _row(label: str, name: str, measured: dict[str, Any], first: dict[str, Any]) -> tuple[str, ...]:
    if "times" not in measured:
        return (label, name, "", "", "", "", measured["error"])
    over = spread(ratio(measured["times"], first["times"])) if "times" in first else ""
    found = f"{variance(measured)[0]:.3g}" if "group_variances" in measured else ""
    compiling = f"{measured['compile_seconds']:.2g} s"
    return (label, name, compiling, milliseconds(median_time(measured)), over, found, measured["verdict"])


def report(data: dict[str, Any]) -> list[Any]:
    """A table for the programs, two for the bits, the picture and the holds."""
    headings = ("estimator", "whose", "trace and compile", "a gradient", "time / mcgrad", "variance", "verdict")
    blocks: list[Any] = [
        f"A case that takes over {PATIENCE:.0f} s to compile (times `--patience`) is cut, and larger ones are not tried. "
        "All run the gradient alone (GenJAX has no value beside it), NumPyro that of its loss (score for bits, pathwise for "
        "normals: it lets nobody choose). Each library has the newest JAX that it accepts. Biased: 5 "
        f"standard errors off the exact gradient, with {DRAWS:,} draws in a full run."
    ]
    blocks += [f"Skipped {name}: {reason}" for name, reason in data["skipped"].items()]
    for title, rows in data["programs"].items():
        table = Table(title, headings)
        for estimator, entries in rows.items():
            table.rows += [_row(estimator, name, measured, entries[OURS]) for name, measured in entries.items()]
        blocks.append(table)
    for kind, estimators in data["bits"].items():
        cost = {"joint": "(w . b - c)^2, all together", "separate": "sum (w_i b_i - c)^2, each by itself"}[kind]
        for estimator, sizes in estimators.items():
            table = Table(f"D scalar Bernoulli draws, {estimator}, cost {cost}", ("D", *headings[1:]))
            for num, entries in sizes.items():
                table.rows += [_row(num, name, measured, entries[OURS]) for name, measured in entries.items()]
            blocks.append(table)
    _picture(data)
    blocks.append("![seconds to trace and compile against the number of bits](results/bits.png)")
    return [*blocks, *holds(data)]


def _compile_times(data: dict[str, Any], kind: str, estimator: str, name: str) -> tuple[list[int], list[float]]:
    sizes = data["bits"][kind][estimator]
    found = {
        int(num): entries[name]["compile_seconds"] for num, entries in sizes.items() if "times" in entries.get(name, {})
    }
    return list(found), list(found.values())


def _picture(data: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("separate", "joint"), strict=True):
        for name, marker in ((OURS, "o"), ("GenJAX", "s")):
            nums, times = _compile_times(data, kind, "enumeration", name)
            if nums:
                axes.loglog(nums, times, marker=marker, label=name)
        axes.set_xlabel("Bernoulli draws, enumerated")
        axes.set_xticks(SIZES["enumeration"], [str(num) for num in SIZES["enumeration"]])
        axes.minorticks_off()
        axes.set_title({"separate": "costs that separate", "joint": "one cost of all of them"}[kind])
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    panels[0].set_ylabel("trace and compile (s)")
    figure.savefig(RESULTS / "bits.png", dpi=150)


def holds(data: dict[str, Any]) -> list[Hold]:
    """What the figures say of each statement."""
    groups = {
        f"{title}, {estimator}": entries
        for title, rows in data["programs"].items()
        for estimator, entries in rows.items()
    }
    for kind, estimators in data["bits"].items():
        for estimator, sizes in estimators.items():
            groups |= {f"{num} {kind} bits, {estimator}": entries for num, entries in sizes.items()}
    against, hand, wrong = {}, {}, []
    for label, entries in groups.items():
        ours = entries[OURS]
        for name, measured in entries.items():
            if name in PEERS.values() and measured["verdict"].startswith(("biased", "not finite")):
                wrong.append(f"{name} on {label}")
            right = {"agrees", "too noisy to tell"}
            if (
                name == OURS
                or "times" not in ours
                or "times" not in measured
                or not {ours["verdict"], measured["verdict"]} <= right
            ):
                continue
            (hand if name == BY_HAND else against)[f"{label}, {name}"] = ratio(ours["times"], measured["times"])
    slower = [f"{label} ({found[1]:.3g})" for label, found in against.items() if found[0] > 1.05]
    statement = "never slower than GenJAX or NumPyro on what both get right (lower quartile of the ratio at most 1.05)"
    found = [
        Hold(
            statement,
            not slower if against else None,
            f"{len(against)} comparisons. Slower: {', '.join(slower) or 'none'}."
            + (WHY_ENUMERATION if any("joint bits, enumeration" in label for label in slower) else ""),
        )
    ]
    over = [f"{label} ({value[1]:.3g})" for label, value in hand.items() if value[1] > 1.05]
    found.append(
        Hold(
            "within 1.05 of by hand in JAX",
            not over if hand else None,
            f"{len(hand)} comparisons. Over: {', '.join(over) or 'none'}.",
        )
    )
    ours_wrong = [
        label for label, entries in groups.items() if entries[OURS]["verdict"].startswith(("biased", "not finite"))
    ]
    found.append(
        Hold("mcgrad is unbiased wherever it runs", not ours_wrong, f"Biased peers: {', '.join(wrong) or 'none'}.")
    )
    nums, times = _compile_times(data, "separate", "enumeration", OURS)
    slope = float(np.polyfit(np.log(nums), np.log(times), 1)[0]) if len(nums) > 1 else float("nan")
    largest = SIZES["enumeration"][-1]
    met = largest in nums and slope < 3
    found.append(
        Hold(
            "compile time of D enumerated bits is polynomial where the costs separate",
            met,
            f"Log-log slope {slope:.2f} over D = {nums}, of {list(SIZES['enumeration'])}.",
        )
    )
    refused = data["bits"]["joint"]["enumeration"][str(largest)][OURS].get("error", "")
    met = "evaluations" in refused and any(character.isdigit() for character in refused)
    found.append(
        Hold("and refused with the count where it would be exponential", met, f"`{refused}`" if refused else "It ran.")
    )
    return found
