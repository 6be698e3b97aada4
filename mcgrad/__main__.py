"""The command line: `python -m mcgrad`, also installed as `mcgrad`."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import mcgrad
import mcgrad.estimators
import mcgrad.transforms
from mcgrad.diagnostics.comparison import need


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mcgrad", description="Unbiased gradients of expectations, as composable JAX transforms."
    )
    parser.add_argument("--version", action="version", version=f"mcgrad {mcgrad.__version__}")
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

    compare = commands.add_parser("compare", help="compare estimators on a program of your own: bias, variance, time")
    compare.add_argument(
        "program", metavar="FILE.py:FUNCTION", help="its arguments come from `example_args()` in the file"
    )
    compare.add_argument(
        "--estimators",
        type=_names,
        default=",".join(_estimators()),
        metavar="NAME,NAME,...",
        help="which, with their default options (default: %(default)s)",
    )
    compare.add_argument(
        "--samples", type=_several, default=10_000, help="gradients of each estimator (default: %(default)s)"
    )
    compare.add_argument("--seed", type=_natural, help="of the key in place of that of `example_args()`")
    compare.add_argument(
        "--output", type=_folder, default=Path("mcgrad_compare"), help="folder of the picture (default: %(default)s)"
    )

    options = parser.parse_args(arguments)
    try:
        if options.command == "demo":
            return _demo(options)
        if options.command == "compare":
            return _compare(options)
        print(_explanation(options.program))
        return 0
    except _UsageError as error:
        print(f"mcgrad {options.command}: {error}", file=sys.stderr)
        return 2


class _UsageError(Exception):
    """A mistake in how the command was called, shown without a traceback."""


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


def _estimators() -> dict[str, type]:
    """The estimators that need no options, by name."""
    found = {}
    for name, kind in vars(mcgrad.estimators).items():
        if isinstance(kind, type) and all(
            p.default is not p.empty for p in inspect.signature(kind).parameters.values()
        ):
            found[re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()] = kind
    return found


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in _estimators()]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"must be among {', '.join(_estimators())}, got {', '.join(map(repr, unknown))}"
        )
    return names


def _need(what: str, *packages: str, extra: str) -> None:
    try:
        need(what, *packages, extra=extra)
    except ImportError as error:
        raise _UsageError(str(error)) from error


def _make(folder: Path) -> None:
    """Make the folder of a picture, and see before the work that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _UsageError(f"`--output {folder}` must be a folder that can be written to: {error.strerror}") from error


def _demo(options: argparse.Namespace) -> int:
    _need("the demo", "sklearn", "matplotlib", "rich", extra="demo")
    _make(options.output)
    from mcgrad.demo import run

    run(steps=options.steps, seed=options.seed, num_samples=options.num_samples, output=options.output)
    return 0


def _compare(options: argparse.Namespace) -> int:
    _need("the comparison", "matplotlib", "rich", extra="diagnostics")
    program, arguments = _load(options.program)
    _make(options.output)
    key_at = mcgrad.transforms.find_key(program, arguments, {})
    if options.seed is not None and key_at is not None:
        arguments, _ = key_at.put(arguments, {}, jax.random.key(options.seed))
    estimators = {name: _estimators()[name]() for name in options.estimators}
    try:
        compared = mcgrad.compare(program, estimators, num_samples=options.samples, progress=True)(*arguments)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _UsageError(f"`{options.program}`: {error}") from error
    print(compared)
    print(f"Picture: {compared.plot(options.output / 'estimators.png')}")
    return 0


def _explanation(target: str) -> Any:
    program, arguments = _load(target)
    return mcgrad.explain(program)(*arguments)


def _load(target: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A program in a file, and its example arguments."""
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
    return program, arguments if isinstance(arguments, tuple) else (arguments,)


if __name__ == "__main__":
    sys.exit(main())
