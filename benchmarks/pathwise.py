"""The time of draws with a derivative in the shape of their law: mcgrad's, those of `jax.random`, and TFP's."""

from __future__ import annotations

from typing import Any

from benchmarks.report import RESULTS, Hold, Table, milliseconds, spread
from benchmarks.runner import OURS, Session, alternate, median_time, ratio, reason

TITLE = "Draws with a derivative: Gamma, Beta, Dirichlet, StudentT, VonMises"
BUDGET = 80.0
PEERS = ("jax.random", "TFP")
LAWS = {
    "Gamma": "`Gamma(c, 1)`",
    "Beta": "`Beta(c, 2)`",
    "Dirichlet": "`Dirichlet(c, c, c)`",
    "StudentT": "`StudentT(c)`",
    "VonMises": "`VonMises(0, c)`",
}
CONCENTRATIONS = (0.3, 0.8, 5.0, 100.0)
MOST_ROUNDS = 15  # of single steps, which take up to half a second
ERRORS = RESULTS / "DERIVATIVES_OF_DRAWS.md"


def measure(session: Session) -> dict[str, Any]:
    """Value and gradient of 20,000 draws of each law, in a concentration of each draw."""
    ours, tfp = session.worker(OURS), session.worker("tfp")
    data: dict[str, Any] = {
        "versions": {worker.name: worker.versions for worker in (ours, tfp) if worker is not None},
        "skipped": session.skipped.get("tfp"),
        "laws": {},
    }
    for law in LAWS:
        for concentration in CONCENTRATIONS:
            arguments = {"law": law, "concentration": concentration}
            entries = {
                OURS: session.build(ours, "draws", library="mcgrad", **arguments),
                "jax.random": session.build(ours, "draws", library="jax", **arguments),
            }
            if tfp is not None:
                entries["TFP"] = session.build(tfp, "draws", **arguments)
            alternate(entries, min(session.rounds, MOST_ROUNDS), round_seconds=0.0)
            measured = {name: entry.measured for name, entry in entries.items()}
            data["laws"].setdefault(law, {})[str(concentration)] = measured
    return data


def _wrong(measured: dict[str, Any]) -> str:
    """How many derivatives are not finite, how many zero."""
    told = [f"{measured[kind]} {kind.replace('_', ' ')}" for kind in ("not_finite", "zero") if measured.get(kind)]
    return ", ".join(told)


def report(data: dict[str, Any]) -> list[Any]:
    """The table, the picture and the holds."""
    headings = ("law", "`c`", "mcgrad", *(column for peer in PEERS for column in (peer, "/ mcgrad")), "derivatives")
    table = Table("20,000 draws and their gradient, float32", headings)
    slower: dict[str, list[str]] = {peer: [] for peer in PEERS}
    compared, wrong, measured_ours = dict.fromkeys(PEERS, 0), [], 0
    for law, rows in data["laws"].items():
        for concentration, entries in rows.items():
            ours = entries[OURS]
            measured_ours += "times" in ours
            cells = [milliseconds(median_time(ours)) if "times" in ours else reason(ours)]
            for peer in PEERS:
                measured = entries.get(peer, {"error": "skipped"})
                if "times" not in measured:
                    cells += [reason(measured), ""]
                    continue
                cells += [milliseconds(median_time(measured)), ""]
                if "times" in ours:
                    found = ratio(measured["times"], ours["times"])
                    cells[-1], compared[peer] = spread(found), compared[peer] + 1
                    if found[1] < 1 / 1.05:
                        slower[peer].append(f"{law} {concentration} ({1 / found[1]:.3g})")
            remarks = {name: _wrong(measured) for name, measured in entries.items()}
            if remarks[OURS]:
                wrong.append(f"{law} {concentration}: {remarks[OURS]}")
            told = "; ".join(f"{name}: {remark}" for name, remark in remarks.items() if remark)
            table.rows.append((LAWS[law], concentration, *cells, told))
    link = "The error of the derivatives is another table: [DERIVATIVES_OF_DRAWS.md](results/DERIVATIVES_OF_DRAWS.md)."
    _picture(data)
    blocks: list[Any] = [link] if ERRORS.exists() else []
    blocks += [f"Skipped TFP: {data['skipped']}"] if data["skipped"] else []
    blocks += [table, "![time of draws with a derivative against the concentration](results/pathwise.png)"]
    for peer in PEERS:
        statement = f"draws with a derivative take at most 1.05 times as long as those of {peer} (median)"
        evidence = f"{compared[peer]} comparisons. Slower: {', '.join(slower[peer]) or 'none'}."
        blocks.append(Hold(statement, not slower[peer] if compared[peer] else None, evidence))
    statement = "all derivatives of mcgrad are finite, and none is zero"
    return [*blocks, Hold(statement, not wrong if measured_ours else None, f"Found: {', '.join(wrong) or 'none'}.")]


def _picture(data: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    panels = figure.subplots(1, len(LAWS), sharey=True)
    for axes, (law, rows) in zip(panels, data["laws"].items(), strict=False):
        for name, marker, color in ((OURS, "o", "C0"), ("jax.random", "s", "C1"), ("TFP", "^", "C2")):
            points = [(float(c), median_time(e[name])) for c, e in rows.items() if "times" in e.get(name, {})]
            if points:
                concentrations, times = zip(*points, strict=True)
                axes.loglog(concentrations, [1e3 * time for time in times], marker=marker, color=color, label=name)
        axes.set_title(LAWS[law].strip("`"), fontsize=10)
        axes.set_xlabel("c")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("20,000 draws and gradient (ms)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "pathwise.png", dpi=150)
