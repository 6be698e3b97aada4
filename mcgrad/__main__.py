"""The command line: `python -m mcgrad`, also installed as `mcgrad`."""

from __future__ import annotations

import argparse
import inspect
import os
import platform
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import mcgrad
import mcgrad.estimators
from mcgrad._arguments import find_key
from mcgrad.diagnostics.pictures import need


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="mcgrad", description="Unbiased gradients of expectations, as composable JAX transforms."
    )
    parser.add_argument("--version", action="version", version=f"mcgrad {mcgrad.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "train autoencoders with discrete and Gaussian latents on real digits")
    demo.add_argument("--steps", type=_at_least(1), default=1500, help="training steps of each model")
    demo.add_argument("--seed", type=_at_least(0), default=0, help="seed of all randomness")
    demo.add_argument("--num-samples", type=_at_least(2), default=4, help="samples of the leave-one-out baseline")
    demo.add_argument("--output", type=_folder, default=Path("mcgrad_demo"), help="folder of the picture")

    explain = command("explain", _explain, "print what mcgrad finds in a program of your own")
    compare = command("compare", _compare, "compare estimators on a program of your own: bias, variance, time")
    for each in (explain, compare):
        help_text = "its arguments come from `example_args()` in the file"
        each.add_argument("program", metavar="FILE.py:FUNCTION", help=help_text)
    every = ",".join(_estimators())
    help_text = "which, with their default options"
    compare.add_argument("--estimators", type=_names, default=every, metavar="NAME,NAME,...", help=help_text)
    compare.add_argument("--samples", type=_at_least(2), default=10_000, help="gradients of each estimator")
    help_text = "of the key in place of that of `example_args()`"
    compare.add_argument("--seed", type=_at_least(0), default=argparse.SUPPRESS, help=help_text)
    compare.add_argument("--output", type=_folder, default=Path("mcgrad_compare"), help="folder of the picture")

    command("doctor", _doctor, "print versions, devices and settings, for reports of mistakes")

    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except _UsageError as error:
        print(f"mcgrad {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


class _UsageError(Exception):
    """A mistake in how the command was called, shown without a traceback."""


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return whole


def _folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got the file {text!r}")
    return Path(text)


def _estimators() -> dict[str, type]:
    """The estimators that need no options, by name."""
    found = {}
    for name in dir(mcgrad.estimators):
        kind = getattr(mcgrad.estimators, name)
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


def _demo(options: argparse.Namespace) -> None:
    _need("the demo", "sklearn", "matplotlib", "rich", extra="demo")
    _make(options.output)
    from mcgrad.demo import run

    run(steps=options.steps, seed=options.seed, num_samples=options.num_samples, output=options.output)


def _explain(options: argparse.Namespace) -> None:
    program, arguments = _load(options.program)
    print(mcgrad.explain(program)(*arguments))


def _compare(options: argparse.Namespace) -> None:
    _need("the comparison", "matplotlib", "rich", extra="diagnostics")
    program, arguments = _load(options.program)
    _make(options.output)
    key, with_key = find_key(program, arguments, {}, "compare")
    if "seed" in options and key is not None:
        seed = jax.random.key(options.seed)
        arguments, _ = with_key(list(jax.random.split(seed, len(key))) if isinstance(key, list) else seed)
    estimators = {name: _estimators()[name]() for name in options.estimators}
    try:
        compared = mcgrad.compare(program, estimators, num_samples=options.samples, progress=True)(*arguments)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _UsageError(f"`{options.program}`: {error}") from error
    print(compared)
    print(f"Picture: {compared.plot(options.output / 'estimators.png')}")


def _doctor(options: argparse.Namespace) -> None:
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    print(f"mcgrad {mcgrad.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for group in (_NEEDED, _OPTIONAL):
        print(*(f"{name} {version(name)}" for name in group), sep=", ")
    print("devices:", *(f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices()))
    print(
        "float64:", "on" if jax.config.jax_enable_x64 else "off", "  random numbers:", jax.config.jax_default_prng_impl
    )
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("JAX_", "XLA_"))]
    print("environment:", *(settings or ["nothing that JAX reads"]))


_NEEDED = ("jax", "jaxlib", "numpy", "optax", "jaxtyping")
_OPTIONAL = (
    "matplotlib",
    "rich",
    "scikit-learn",
    "flax",
    "equinox",
    "numpyro",
    "distrax",
    "tfp-nightly",
    "tensorflow-probability",
)


def _load(target: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A program in a file, and its example arguments."""
    path, _, name = target.rpartition(":")
    if not path or not name:
        raise _UsageError(f"the program must be given as FILE.py:FUNCTION, got {target!r}")
    if not Path(path).is_file():
        raise _UsageError(f"there is no file {path!r}")
    file = Path(path).resolve()
    if file.suffix != ".py":
        raise _UsageError(f"{path!r} is no Python file")
    sys.path.insert(0, str(file.parent))
    module = runpy.run_path(str(file))
    program, example = module.get(name), module.get("example_args")
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
