"""The command line: `python -m mcgrad`, also installed as `mcgrad`."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mcgrad", description="Unbiased gradients of expectations, as composable JAX transforms."
    )
    parser.add_argument("--version", action="version", version=f"mcgrad {importlib.metadata.version('mcgrad')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train autoencoders with discrete and Gaussian latents on real digits")
    demo.add_argument(
        "--steps", type=_positive, default=1500, help="training steps of each model (default: %(default)s)"
    )
    demo.add_argument("--seed", type=_natural, default=0, help="seed of all randomness (default: %(default)s)")
    demo.add_argument(
        "--num-samples", type=_several, default=4, help="samples of the leave-one-out baseline (default: %(default)s)"
    )
    demo.add_argument(
        "--output", type=_folder, default=Path("mcgrad_demo"), help="folder of the picture (default: %(default)s)"
    )

    explain = commands.add_parser("explain", help="print what mcgrad finds in a program of your own")
    explain.add_argument(
        "program", metavar="FILE.py:FUNCTION", help="its arguments come from `example_args()` in the file"
    )

    options = parser.parse_args(arguments)
    try:
        if options.command == "demo":
            return _demo(options)
        print(_explanation(options.program))
        return 0
    except _UsageError as error:
        print(f"mcgrad {options.command}: {error}", file=sys.stderr)
        return 2


class _UsageError(Exception):
    """Something that the user can put right."""


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _natural(text: str) -> int:
    return _at_least(text, 0)


def _several(text: str) -> int:
    return _at_least(text, 2)


def _at_least(text: str, least: int) -> int:
    if not text.lstrip("-").isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return int(text)


def _folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got the file {text!r}")
    return Path(text)


def _demo(options: argparse.Namespace) -> int:
    missing = [name for name in ("sklearn", "matplotlib", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        raise _UsageError(f'needs {", ".join(missing)}. Install with: pip install "mcgrad[demo]"')
    from mcgrad.demo import run

    run(steps=options.steps, seed=options.seed, num_samples=options.num_samples, output=options.output)
    return 0


def _explanation(target: str) -> Any:
    from mcgrad.transforms import explain

    path, _, name = target.rpartition(":")
    if not path or not name:
        raise _UsageError(f"the program must be given as FILE.py:FUNCTION, got {target!r}")
    if not Path(path).is_file():
        raise _UsageError(f"there is no file {path!r}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise _UsageError(f"{path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    program, example = getattr(module, name, None), getattr(module, "example_args", None)
    if not callable(program):
        raise _UsageError(f"{path!r} has no function `{name}`")
    if not callable(example):
        raise _UsageError(
            f"{path!r} has no function `example_args()`. Write one that returns a tuple of arguments for `{name}`, for "
            "instance `def example_args(): return params, jax.random.key(0)`"
        )
    arguments = example()
    return explain(program)(*(arguments if isinstance(arguments, tuple) else (arguments,)))


if __name__ == "__main__":
    sys.exit(main())
