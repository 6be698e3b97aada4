"""Every distribution of NumPyro, Distrax and TFP-on-JAX in mcgrad: right, or refused. Written by `python -m benchmarks.foreign`.

Each row of `tests/foreign` is checked by `mcgrad.check_distribution`, and drawn from in a program whose gradient by path is
compared with that by score. What was found is kept row by row, so that a part can be run again: `--only tfp`, `--name Normal`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from benchmarks.report import RESULTS, Table

TESTS = str(Path(__file__).parents[1] / "tests")
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)
import foreign  # noqa: E402

NUM_DRAWS, NUM_GRADIENTS = 4_000, 4_000
THRESHOLD = 5.5  # standard errors, of some 300 comparisons
DOCUMENT, DATA = RESULTS / "FOREIGN.md", RESULTS / "foreign.json"
PACKAGES = {"numpyro": "numpyro", "distrax": "distrax", "tfp": "tfp-nightly"}


def said(error: Exception) -> str:
    """An error in one line."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return re.sub(r" at \S+:\d+:\d+ \([^)]*\)", "", text)[:300]  # not the line, which is one of this file


def is_clear(error: Exception) -> bool:
    """Whether an error is mcgrad's own: it names what must be otherwise."""
    return type(error) in (TypeError, ValueError, NotImplementedError) and "`mcgrad." in str(error).split("\n")[0]


def cost(x: Any) -> Any:
    """Bounded and smooth."""
    return jnp.mean(jnp.cos(0.7 * x.astype(jnp.float32) + 0.3) + jnp.tanh(x.astype(jnp.float32) - 0.5))


def gradient(make: Callable[[Any], Any], estimator: mcgrad.Estimator) -> dict[str, Any]:
    """Mean and standard error of the gradient in the parameter, or why it is refused."""

    def program(p: Any, key: Any) -> Any:
        return cost(mcgrad.sample(key, make(p), estimator))

    one = mcgrad.grad(program)
    try:
        keys = jax.random.split(jax.random.key(1), NUM_GRADIENTS)
        found = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(jnp.float32(1.0), keys), np.float64)
    except Exception as error:  # what is not mcgrad's own is a finding
        return {"refused" if is_clear(error) else "internal": said(error)}
    return {"mean": float(found.mean()), "error": float(found.std() / np.sqrt(len(found)))}


def checked(make: Callable[[Any], Any]) -> dict[str, Any]:
    """What is found of one distribution: its report, gradients, and what was refused or failed."""
    began, found = time.perf_counter(), {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(jax.debug_key_reuse(False))
        stack.enter_context(jax.enable_x64(False))
        try:
            make(jnp.float32(1.0))
            jax.make_jaxpr(lambda p: (make(p), p)[1])(jnp.float32(1.0))
        except Exception as error:
            return {"not built": said(error)}
        try:
            report = mcgrad.check_distribution(make, jax.random.key(0), params=jnp.float32(1.0), num_samples=NUM_DRAWS)
            found["rows"] = {row.name: row.verdict for row in report.rows}
            found["disagrees"] = [f"{row.name}: {row.statistic:.3g} {row.words}" for row in report.disagreements]
        except Exception as error:
            found["refused" if is_clear(error) else "internal"] = said(error)
        if "refused" not in found:
            found["path"] = gradient(make, mcgrad.Pathwise(jumps="ignore"))
            found["score"] = gradient(make, mcgrad.Score())
    found["seconds"] = time.perf_counter() - began
    return found


def deviation(found: dict[str, Any]) -> float | None:
    """Of the gradient by path from that by score, in standard errors; `None` where one of them is refused."""
    path, score = found.get("path", {}), found.get("score", {})
    if "mean" not in path or "mean" not in score:
        return None
    error = np.hypot(path["error"], score["error"]) + 1e-6 * (1 + abs(path["mean"]))
    return float(np.nan_to_num(abs(path["mean"] - score["mean"]) / error, nan=np.inf))


def problems(found: dict[str, Any]) -> list[str]:
    """What is neither right nor refused in words."""
    parts = (found, found.get("path", {}), found.get("score", {}))
    wrong = [f"internal error: {part['internal']}" for part in parts if "internal" in part]
    wrong += found.get("disagrees", [])
    for name in ("path", "score"):
        if not np.isfinite(found.get(name, {}).get("mean", 0.0)):
            wrong.append(f"{name}: not finite")
    if (off := deviation(found)) is not None and off > THRESHOLD:
        wrong.append(f"gradient by path {off:.1f} standard errors off that by score")
    return wrong


def cells(found: dict[str, Any]) -> tuple[str, ...]:
    """Draws and density, path, score, and words."""
    if "not built" in found:
        return "", "", "", f"cannot be built while JAX traces it: {found['not built']}"
    if "refused" in found:
        return "refused", "", "", found["refused"]
    verdicts = found.get("rows", {})
    wrong = [name for name, verdict in verdicts.items() if verdict == "disagrees"]
    told = [name for name in ("mass", "draws and density", "parameters moved") if verdicts.get(name) == "agrees"]
    draws = f"**{', '.join(wrong)}**" if wrong else ", ".join(told) or "not known"
    kinds = []
    for name in ("path", "score"):
        part = found.get(name, {})
        kinds.append("refused" if "refused" in part else "**internal error**" if "internal" in part else "runs")
    off = deviation(found)
    words = [f"path and score {off:.1f} standard errors apart"] if off is not None else []
    words += problems(found)
    for name in ("path", "score"):
        if "refused" in found.get(name, {}):
            reason = found[name]["refused"]
            words.append(f"{name}: {reason.partition(' would be wrong at ')[2].partition(': ')[2] or reason}")
    return draws, *kinds, "; ".join(words)


def document(data: dict[str, Any]) -> str:
    """The tables, one for each library."""
    parts = [
        "# Distributions of other libraries",
        "Written by `python -m benchmarks.foreign` from `tests/foreign`: every distribution that the libraries export, checked by "
        f"`mcgrad.check_distribution` with {NUM_DRAWS:,} draws in float32, and drawn from in a program whose gradient by path is "
        f"compared with that by score, {NUM_GRADIENTS:,} of each. The second column says which checks of draws against the density "
        "agree; bold is what disagrees or fails. A path that is refused for a discrete distribution, or a score where the support "
        "moves, is as it should be.",
    ]
    for library, rows in data.items():
        table = Table(f"{library} {rows['version']}", ("name", "draws and density", "path", "score", "words"))
        table.rows = [(name, *cells(found)) for name, found in sorted(rows["rows"].items())]
        wrong = sum(bool(problems(found)) for found in rows["rows"].values())
        parts += [table.markdown(), f"{len(table.rows)} rows, {wrong} of them with something in bold."]
    return "\n\n".join(parts) + "\n"


def save(data: dict[str, Any]) -> None:
    """Over what another process may have written of other libraries meanwhile."""
    kept = json.loads(DATA.read_text()) if DATA.exists() else {}
    DATA.write_text(json.dumps({**kept, **data}, indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foreign", description=__doc__)
    parser.add_argument("--only", choices=foreign.LIBRARIES, help="this library alone")
    parser.add_argument("--name", action="append", help="this distribution alone (may be repeated)")
    parser.add_argument("--missing", action="store_true", help="only what was not measured yet")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no distribution after this time")
    options = parser.parse_args()
    for library in [options.only] if options.only else foreign.LIBRARIES:
        data = json.loads(DATA.read_text()) if DATA.exists() else {}
        kept = data.get(library, {"rows": {}})
        data = {library: {"version": version(PACKAGES[library]), "rows": kept["rows"]}}
        kept = data[library]
        rows = {name: make for name, make in foreign.rows(library).items() if not isinstance(make, str)}
        began = time.perf_counter()
        kept["rows"] = {name: found for name, found in kept["rows"].items() if name in rows}
        for name, make in rows.items():
            if time.perf_counter() - began > options.seconds:
                break
            if (options.name and name not in options.name) or (options.missing and name in kept["rows"]):
                continue
            kept["rows"][name] = checked(make)
            print(
                f"{library} {name}: {kept['rows'][name].get('seconds', 0):.1f} s",
                *problems(kept["rows"][name]),
                flush=True,
            )
            save(data)
    DOCUMENT.write_text(document(json.loads(DATA.read_text())))


if __name__ == "__main__":
    main()
