"""Examples run as they stand: those of the docstrings, and the Python of the README."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mcgrad

README = (Path(__file__).parent.parent / "README.md").read_text()
MODULES = [
    module.name
    for module in pkgutil.walk_packages(mcgrad.__path__, "mcgrad.")
    if not module.name.endswith("__main__") and not module.name.startswith("mcgrad.program.")
]


@pytest.mark.slow  # a minute of small compilations; CI runs them once
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S), ids=lambda code: code.count("\n"))
def test_examples_of_the_readme(code):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
