"""Names of a package that are imported when they are first asked for, as its stub lists them.

`import mcgrad` is a part of everyone's start, and a program uses a few of its 140 names. A package's `__init__.pyi` says where each
name is from, to type checkers and here (Scientific Python's SPEC 1, https://scientific-python.org/specs/spec-0001).
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the lines `from module import name as name` beside its `file`."""
    origins = {
        alias.name: line.module
        for line in ast.parse(Path(file).with_suffix(".pyi").read_bytes()).body
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }

    def getattribute(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        if (module := origins[name]) == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(module), name)
        setattr(sys.modules[package], name, value)  # the next time it is there
        return value

    names = sorted(origins)
    return getattribute, lambda: sorted({*vars(sys.modules[package]), *names}), names
