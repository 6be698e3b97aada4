"""`python -m tests.fuzz --seed S --seconds N`: make programs and check them until the time is up."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import sys
import time

import jax

from .check import Outcome, check
from .generate import Settings, generate
from .shrink import shrink
from .source import HEADER, Program
from .windows import check_windows

# Compiling is nearly all of the time; see `tests/conftest.py`.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jax.__version_info__ < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

KINDS = {
    "score": Settings("score", discrete=True),
    "windows": Settings("score", blocks=0.2, while_loops=False),
    "enumerate": Settings("enumerate", discrete=True, numbers=5, statements=6),
    "mixed": Settings("mixed", numbers=5, statements=6),
    "further": Settings("mixed", numbers=6, statements=6, further=True),
}
"""What to check, by name: programs of this kind."""


def judge(kind: str, program: Program, seed: int) -> Outcome:
    try:
        return check_windows(program, seed) if kind == "windows" else check(program, seed)
    except Exception as error:  # of the fuzzer: those of mcgrad are outcomes
        return Outcome("broken", f"the fuzzer: {type(error).__name__}: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first program's")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=KINDS, help="one kind of program")
    parser.add_argument("--programs", type=int, default=10**9, help="at most")
    parser.add_argument("--operation", help="prefer operations whose text has this in it")
    parser.add_argument("--without", help="leave out operations whose text has this in it")
    parser.add_argument("--shrink", type=float, default=120.0, help="seconds to make a finding smaller")
    parser.add_argument("--refusals", action="store_true", help="print them too")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")

    kinds = [args.only] if args.only else list(KINDS)
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    end = time.monotonic() + args.seconds
    findings = 0
    for seed in range(args.seed, args.seed + args.programs):
        if time.monotonic() > end:
            break
        kind = kinds[seed % len(kinds)]
        settings = dataclasses.replace(KINDS[kind], operation=args.operation, without=args.without)
        program = generate(settings, seed)
        outcome = judge(kind, program, seed)
        count[kind, f"{outcome.kind}: {outcome.detail[:40]}" if outcome.kind == "skipped" else outcome.kind] += 1
        if args.refusals and outcome.kind == "refused":
            print(f"--- {kind} {seed}: {outcome.detail}\n", flush=True)
        if outcome.is_finding:
            findings += 1
            print(f"=== {kind} {seed}: {outcome.kind}\n{program.describe()}\n{outcome.detail}\n", flush=True)

            def fails(candidate: Program, kind: str = kind, outcome: Outcome = outcome, seed: int = seed) -> bool:
                found = judge(kind, candidate, seed)
                return found.kind == outcome.kind and found.detail[:25] == (
                    outcome.detail[:25] if found.kind == "raised" else found.detail[:25]
                )

            smallest = shrink(program, fails, args.shrink)
            print(f"--- smaller:\n{smallest.describe()}\n{judge(kind, smallest, seed).detail}\n", flush=True)
        if sum(count.values()) % 50 == 0:
            jax.clear_caches()
    for (kind, what), number in sorted(count.items()):
        print(f"{number:6d} {kind}: {what}")
    print(
        f"{findings} findings in {sum(count.values())} programs; programs run after:\n\n{HEADER}"
        if findings
        else "no findings"
    )
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
