"""The parts of a distribution of another library: what it is made of, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LIBRARIES = ("numpyro", "distrax", "tensorflow_probability")


def library_of(obj: Any) -> str | None:
    """The library that the class of an object comes from, if it is one of the three."""
    modules = (cls.__module__.partition(".")[0] for cls in type(obj).__mro__)
    return next((module for module in modules if module in LIBRARIES), None)


def attributes(obj: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Names and values of the attributes of a distribution, of its parts, and of entries of containers in it."""
    seen = set() if seen is None else seen
    if id(obj) in seen or isinstance(obj, type):
        return
    seen.add(id(obj))
    yield prefix, obj
    if isinstance(obj, dict):
        entries = [(str(key), value) for key, value in obj.items()]
    elif isinstance(obj, (list, tuple)):
        entries = [(str(i), value) for i, value in enumerate(obj)]
    elif library_of(obj) is not None:
        entries = list(getattr(obj, "__dict__", {}).items())
    else:
        return
    for key, value in entries:
        name = key.lstrip("_")
        # TFP keeps the arguments of the constructor in `_parameters`
        path = prefix if name == "parameters" else f"{prefix}.{name}" if prefix else name
        yield from attributes(value, path, seen)


def parts_of(dist: Any) -> list[Any]:
    """The objects of a library that a distribution is made of, itself among them."""
    return [value for _, value in attributes(dist) if library_of(value) is not None]


def parts_with(dist: Any, attribute: str) -> list[Any]:
    """Those that have an attribute."""
    return [part for part in parts_of(dist) if hasattr(part, attribute)]


def is_map(part: Any) -> bool:
    """Whether a part is a transformation."""
    return hasattr(part, "log_abs_det_jacobian") or hasattr(part, "forward_log_det_jacobian")
