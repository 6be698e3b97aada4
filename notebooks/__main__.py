"""Build the book: `python -m notebooks`, with the extra `docs` installed. No network is needed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the static pages; returns the exit status, which is not zero if anything is amiss."""
    parser = argparse.ArgumentParser(
        prog="python -m notebooks",
        description="Build the book. Its code cells run; an error in one of them, a warning or a dead link fails the build.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=HERE / "_build", help="folder of the pages, in `html/` of it")
    parser.add_argument(
        "--fast", action="store_true", help="run the cells of the first chapter only; all else is checked as ever"
    )
    parser.add_argument("--jobs", type=int, default=2, help="pages that are built at once")
    options = parser.parse_args(arguments)
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print('The book needs Sphinx. Install with `pip install -e ".[docs]"` in a clone of mcgrad.', file=sys.stderr)
        return 2
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # the cells print what a reader sees, not what XLA logs
    output = options.output.resolve()
    started = time.perf_counter()
    only = ["-D", "fast=1"] if options.fast else []
    # All pages are read each time: cells run with the code as it is now.
    status = build_main(
        ["-b", "html", "-W", "--keep-going", "-E", "-q", "-j", str(options.jobs), *only, "-d", str(output / "doctrees")]
        + [str(HERE), str(output / "html")]
    )
    if status == 0:
        print(f"{output / 'html' / 'index.html'} ({time.perf_counter() - started:.0f} s)")
    return status


if __name__ == "__main__":
    sys.exit(main())
