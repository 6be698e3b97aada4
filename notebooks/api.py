"""Which public name is on which page of the reference, by the module where it lives."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import mcgrad
import mcgrad.distributions
import mcgrad.mcmc
import mcgrad.program
import mcgrad.smc

OTHERS = ("numpyro",)  # modules for users of other packages, which may not be installed
FIRST = ("sample", "expectation", "grad", "value_and_grad", "explain")  # on their page; the others follow by name


def _in(*modules: str) -> Callable[[str, Any], bool]:
    return lambda module, thing: any(module == name or module.startswith(f"{name}.") for name in modules)


def _is_distribution(module: str, thing: Any) -> bool:
    base = mcgrad.Distribution
    own = isinstance(thing, type) and getattr(mcgrad, thing.__name__, None) is thing  # not those for authors
    return own and issubclass(thing, base) and thing is not base


# Page: what is on it. The first that fits takes a name.
GROUPS: dict[str, Callable[[str, Any], bool]] = {
    "api_transforms": lambda module, thing: (
        _in(
            "mcgrad.transforms",
            "mcgrad.sample",
            "mcgrad.gradients",
            "mcgrad.perturbed",
            "mcgrad.natural",
            "mcgrad._debug",
        )(module, thing)
        or (isinstance(thing, type) and issubclass(thing, Warning))
    ),
    "api_estimators": _in("mcgrad.estimators"),
    "api_distributions": _is_distribution,
    "api_bounds": _in("mcgrad.objectives"),
    "api_black_box": _in("mcgrad.black_box"),
    "api_randomized": _in("mcgrad.randomized"),
    "api_diagnostics": _in("mcgrad.diagnostics"),
    "api_mcmc": _in("mcgrad.mcmc"),
    "api_jump_processes": _in("mcgrad.jump_processes"),
    "api_smc": _in("mcgrad.smc"),
    "api_numpyro": _in("mcgrad.numpyro"),
    "api_own_distribution": _in("mcgrad.distributions", "mcgrad.program.domain"),
    "api_own_estimator": _in("mcgrad.program"),
}


def public() -> dict[str, tuple[str, Any]]:
    """Every public name of the public modules, each thing once: its module to import from, and itself."""
    found: dict[str, tuple[str, Any]] = {}
    for module in (mcgrad, mcgrad.program, mcgrad.distributions):
        for name in dir(module):
            thing = getattr(module, name)
            if not name.startswith("_") and not inspect.ismodule(thing):
                found.setdefault(name, (module.__name__, thing))
    for module in (mcgrad.mcmc, mcgrad.smc):
        own = module.__name__
        here = {name: thing for name, thing in vars(module).items() if not name.startswith("_")}
        found |= {name: (own, thing) for name, thing in here.items() if getattr(thing, "__module__", "") == own}
    for package in OTHERS:
        if importlib.util.find_spec(package) is not None:
            module = importlib.import_module(f"mcgrad.{package}")
            found |= {name: (module.__name__, getattr(module, name)) for name in module.__all__}
    return found


def pages() -> dict[str, list[str]]:
    """Of each page, its names, in their order."""
    names: dict[str, list[str]] = {page: [] for page in GROUPS}
    for name, (exported, thing) in public().items():
        module = getattr(thing, "__module__", None)
        if module is None or not module.startswith("mcgrad") or not hasattr(thing, "__name__"):
            module = exported  # a value has no module of its own
        page = next((page for page, fits in GROUPS.items() if fits(module, thing)), None)
        if page is None:
            raise LookupError(
                f"`{name}`, of {module}, is on no page of the reference. Give it one in `notebooks/api.py`."
            )
        names[page].append(name)
    return {page: sorted(found, key=_order) for page, found in names.items()}


def _order(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name.lower())


def directives(page: str) -> str:
    """The page's entries, for autodoc."""
    lines: list[str] = []
    for name in pages()[page]:
        module, thing = public()[name]
        kind = (
            "class"
            if isinstance(thing, type)
            else "function"
            if callable(thing) and hasattr(thing, "__name__")
            else "data"
        )
        lines.append(f".. auto{kind}:: {module}.{name}")
        # The methods of the house's own protocol are told with the base classes.
        if kind == "class" and page not in ("api_estimators", "api_distributions"):
            lines.append("   :members:")
        if kind == "data":
            lines.append("   :no-value:")
        lines.append("")
    return "\n".join(lines)
