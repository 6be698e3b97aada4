"""Examples run as they stand: those of the docstrings, and the Python of the README, which prints what the README says."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import jax
import pytest

import mcgrad

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(mcgrad.__path__, "mcgrad.")
    if not module.name.endswith("__main__") and not module.name.startswith("mcgrad.program.")
]


@pytest.mark.slow  # a minute of small compilations; CI runs them once
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    if name == "mcgrad.numpyro":
        pytest.importorskip("numpyro")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_readme_runs_from_top_to_bottom_and_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```(?:\s+```text\n(.*?)```)?", README, re.S)
    assert (
        len(blocks) == README.count("```python")
        and sum(bool(said) for _, said in blocks) == README.count("```text") > 0
    )
    names = {"__name__": "readme"}
    with jax.enable_x64(False):  # as a user runs it
        for code, said in blocks:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "example.py", "exec"), names)
            if said:
                assert printed.getvalue() == said
