"""The layout of the package: who imports whom, in which order, how long files are, and who may touch JAX's internals.

Imports are read from the source. Those under `TYPE_CHECKING` never run: they may point anywhere, and each is listed here.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mcgrad"
MAX_LINES = 400

# The floors of the house, from below: a folder or a file imports from itself and from the floors under it. A file that is named
# stands there, whatever its folder does.
FLOORS = (
    ("_types", "_compat", "_stub"),
    ("_mesh",),
    ("_spread",),
    ("_modules",),
    ("_arguments", "_debug"),
    ("_eager",),
    ("_closures",),
    ("program.trace",),
    ("distributions",),
    ("program",),
    ("estimators",),
    ("sample",),
    ("planned",),
    ("transforms",),
    (
        "gradients",
        "objectives",
        "perturbed",
        "natural",
        "mcmc",
        "diagnostics",
        "black_box",
        "jump_processes",
        "randomized",
        "smc",
        "numpyro",
    ),
    ("__init__",),
    ("demo",),
    ("__main__",),
)

# What no file but `_compat` imports: names that JAX does not promise to keep.
SEMI_PUBLIC = ("jax._src", "jax.interpreters", "jax.extend")

# What is not so today, to be emptied: an exception that is no longer one fails too.
UPWARD: set[tuple[str, str]] = set()
IN_CIRCLES: set[str] = set()
TOO_LONG: set[str] = set()
FOR_TYPES_ONLY = {("program.structure", "program.forward")}


def _files() -> dict[str, Path]:
    """Each file of the package as a dotted name inside it: `estimators.score`, `program`, `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


FILES = _files()


def _imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, also inside functions, and whether that is for types only."""

    def walk(node: ast.AST, for_types: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", for_types) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, True)
            for child in node.orelse:
                yield from walk(child, for_types)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, for_types)

    return walk(tree, False)


@functools.cache
def _edges() -> tuple[dict[str, set[str]], dict[str, set[str]], dict[str, set[str]]]:
    """Of each file: the files that it imports at run time, those for types only, and what it imports of others."""
    run_time, for_types, foreign = ({name: set() for name in FILES} for _ in range(3))
    for name, path in FILES.items():
        stub = path.with_suffix(".pyi")  # what is imported when it is first asked for
        source = path.read_text() + (stub.read_text() if stub.exists() else "")
        for module, typing in _imported(ast.parse(source)):
            if module.split(".")[0] != "mcgrad":
                foreign[name].add(module)
                continue
            inside = module.split(".")[1:]
            while inside and ".".join(inside) not in FILES:
                inside.pop()  # a name in that file
            target = ".".join(inside) or "__init__"
            if target != name:
                (for_types if typing else run_time)[name].add(target)
    return run_time, for_types, foreign


def _place(name: str) -> tuple[int, str]:
    """The floor of a file, and its room there."""
    rooms = {room: floor for floor, names in enumerate(FLOORS) for room in names}
    for room in (name, name.split(".")[0]):
        if room in rooms:
            return rooms[room], room
    raise AssertionError(f"{name} is on none of the floors: give it a place in `FLOORS`")


def _circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Files that reach themselves, in groups that reach each other."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            for target in edges[left.pop()] - found:
                found.add(target)
                left.append(target)
        return found

    reach = {name: reached(name) for name in edges}
    groups: list[set[str]] = []
    for name in edges:
        group = {other for other in reach[name] if name in reach[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def test_no_file_is_in_a_circle_of_imports() -> None:
    """A folder's `__init__` imports its files, so that importing from the folder inside it closes a circle too."""
    circles = _circles(_edges()[0])
    assert set().union(*circles) == IN_CIRCLES, circles


def test_imports_run_down_the_floors() -> None:
    wrong = set()
    for name, others in _edges()[0].items():
        for other in others:
            (here, room), (there, other_room) = _place(name), _place(other)
            if there > here or (there == here and room != other_room):
                wrong.add((name, other))
    assert wrong == UPWARD


def test_imports_for_types_only_are_known() -> None:
    for_types = _edges()[1]
    assert {(name, other) for name in FILES for other in for_types[name]} == FOR_TYPES_ONLY


def test_no_file_is_too_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert {name for name, number in lines.items() if number > MAX_LINES} == TOO_LONG, lines


def test_only_one_file_uses_what_jax_does_not_promise() -> None:
    foreign = _edges()[2]
    found = {
        (name, module)
        for name, modules in foreign.items()
        for module in modules
        if name != "_compat" and any(module == hidden or module.startswith(f"{hidden}.") for hidden in SEMI_PUBLIC)
    }
    assert not found


def test_every_room_exists() -> None:
    for room in (room for names in FLOORS for room in names):
        assert room in FILES, f"{room} is no file of the package: take it out of `FLOORS`"


def test_the_checks_can_fail() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    source = "import jax._src.core\nif TYPE_CHECKING:\n    from mcgrad.a import b\nelse:\n    import c\ndef f():\n    import d"
    assert set(_imported(ast.parse(source))) == {
        ("jax._src.core", False),
        ("mcgrad.a.b", True),
        ("c", False),
        ("d", False),
    }
    with pytest.raises(AssertionError, match="on none of the floors"):
        _place("utils")
