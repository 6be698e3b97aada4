"""Every distribution that NumPyro, Distrax and TFP-on-JAX export, with arguments, at mcgrad's protocol.

`ROWS[library]` has one row for each name of the library: a function of one parameter (1.0) that makes the distribution, or a
string, why there is nothing to make. `test_foreign_sweep.py` compares the names with those that the installed library has.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

LIBRARIES = {
    "numpyro": "numpyro.distributions",
    "distrax": "distrax",
    "tfp": "tensorflow_probability.substrates.jax.distributions",
}

Row = Callable[[Any], Any] | str


def names(module: Any) -> set[str]:
    """The distributions of a library: its classes of distributions, and its functions that look like classes."""
    found = set()
    for name in dir(module):
        value = getattr(module, name)
        is_class = inspect.isclass(value) and issubclass(value, module.Distribution)
        is_function = inspect.isfunction(value) and name[0].isupper()
        if not name.startswith("_") and (is_class or is_function):
            found.add(name)
    return found


def rows(library: str) -> dict[str, Row]:
    """Of a library that is installed: by name, and by name and variant (`"Normal, batch"`)."""
    import importlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"foreign.{library}_rows").rows()
