"""Operations of random programs: how templates of `operations.txt` are filled in with values in scope.

What is ill-formed
(shapes that do not fit, ...) need not be avoided: statements are traced before they are taken.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import random

from .source import Kind


class NotHere(Exception):
    """An operation for which the scope has no operands."""


@dataclasses.dataclass
class Scope:
    """What a statement may read: values by name, later ones more often; and its own key."""

    rng: random.Random
    values: dict[str, Kind]
    key: str | None = None

    def pick(
        self, *, least: int = 0, most: int = 9, dtype: str | None = None, shape: tuple[int, ...] | None = None
    ) -> str:
        fits = [
            name
            for name, kind in self.values.items()
            if least <= len(kind.shape) <= most
            and (dtype is None or kind.dtype == dtype)
            and (shape is None or kind.shape == shape)
        ]
        if not fits:
            raise NotHere
        return self.rng.choices(fits, weights=[0.3 if name == "theta" else 1 + i for i, name in enumerate(fits)])[0]

    def number(self, **test: object) -> tuple[str, tuple[int, ...]]:
        """A value as floating-point numbers, and its shape."""
        name = self.pick(**test)  # type: ignore[arg-type]
        kind = self.values[name]
        return (name if kind.dtype == "float" else f"(1.0 * {name})"), kind.shape

    def constant(self, *shape: int) -> str:
        return (
            f"const({self.rng.randint(0, 9)}, {', '.join(map(str, shape))})"
            if shape
            else f"{self.rng.uniform(-1, 1):.2f}"
        )

    def like(self, shape: tuple[int, ...]) -> str:
        """Numbers that go with a value of a shape."""
        names = [n for n, kind in self.values.items() if kind.shape in (shape, ()) and kind.dtype == "float"]
        ones = [
            n
            for n, kind in self.values.items()
            if len(kind.shape) == len(shape) and all(a in (b, 1) for a, b in zip(kind.shape, shape, strict=True))
        ]
        if (names or ones) and self.rng.random() < 0.7:
            return f"(1.0 * {self.rng.choice(names + ones)})"
        return self.constant(*shape)

    def integer(self, length: int) -> str:
        """A known or drawn index below a length."""
        drawn = [n for n, k in self.values.items() if k.shape == () and k.dtype == "int"]
        if drawn and self.rng.random() < 0.6:
            name = self.rng.choice(drawn)
            return self.rng.choice([name, f"jnp.clip({name}, 0, {length - 1})", f"({name} + 1) % {length}"])
        return str(self.rng.randint(*self.bounds(length)))

    def indices(self, length: int, count: int | None = None) -> str:
        """A known or drawn vector of indices below a length."""
        drawn = [
            n for n, k in self.values.items() if len(k.shape) == 1 and k.dtype == "int" and count in (None, *k.shape)
        ]
        if drawn and self.rng.random() < 0.6:
            name = self.rng.choice(drawn)
            return self.rng.choice([name, f"jnp.clip({name}, 0, {length - 1})", f"({name} + 1) % {length}"])
        n = count or self.rng.randint(1, 4)
        return f"np.array({[self.rng.randint(*self.bounds(length)) for _ in range(n)]})"

    def bounds(self, length: int) -> tuple[int, int]:
        """Of known indices: now and then out of bounds."""
        return (-2 * length, 2 * length) if self.rng.random() < 0.15 else (-length, length - 1)


def axis_of(s: Scope, shape: tuple[int, ...]) -> int:
    return s.rng.randrange(len(shape))


def _templates() -> dict[str, list[str]]:
    """The templates of `operations.txt`, by family."""
    found: dict[str, list[str]] = {}
    for line in (pathlib.Path(__file__).parent / "operations.txt").read_text().splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def _slices(s: Scope, shape: tuple[int, ...]) -> str:
    """A subscript of known and drawn slices."""
    parts = []
    for n in shape:
        a, b = sorted((s.rng.randint(0, n), s.rng.randint(0, n)))
        choices = [
            ":",
            ":",
            f"{a}:{max(b, a + 1)}",
            f"{s.rng.randint(0, 1)}::2",
            "::-1",
            s.integer(n),
            f"{-n}:-1",
            "None, :",
        ]
        parts.append(s.rng.choice(choices))
    return f"[{', '.join(parts)}]"


def _factored(s: Scope, size: int) -> tuple[int, ...]:
    """A random shape of a size."""
    shape: list[int] = []
    while size > 1:
        n = s.rng.choice([d for d in range(2, size + 1) if size % d == 0])
        shape.append(n)
        size //= n
    s.rng.shuffle(shape)
    if s.rng.random() < 0.3:
        shape.insert(s.rng.randint(0, len(shape)), 1)
    return tuple(shape) if s.rng.random() < 0.7 or not shape else (shape[0], -1)


def _filled(template: str, s: Scope, x: str, shape: tuple[int, ...]) -> str:
    n = shape[-1] if shape else 1
    a = axis_of(s, shape) if shape else 0
    length = shape[a] if shape else 1
    few = lambda: s.rng.randint(0, 1)  # noqa: E731
    permutation = s.rng.sample(range(len(shape)), len(shape))
    values = {
        "x": x,
        "y": lambda: s.like(shape),
        "a": a,
        "k": s.rng.randint(-2, 2),
        "r": s.rng.randint(1, 2),
        "b": few(),
        "m": shape[0]
        if "{n}" in template or "{m})" in template or "{im}" in template
        else s.rng.randint(1, max(length, 1)),
        "n": n,
        "i": lambda: s.indices(length),
        "i2": lambda: s.indices(n),
        "im": lambda: s.indices(n, shape[0]),
        "iv": lambda: s.indices(3, shape[0]),
        "j": lambda: s.integer(length),
        "s": lambda: _factored(s, math.prod(shape)),
        "p": tuple(permutation),
        "t": tuple(s.rng.randint(1, 2) for _ in shape),
        "q": [(few(), few()) for _ in shape],
        "z": [(s.rng.randint(-1, 1), s.rng.randint(-1, 1), few()) for _ in shape],
        "w": tuple(s.rng.randint(1, 2) for _ in shape),
        "ax": tuple(sorted(s.rng.sample(range(len(shape)), s.rng.randint(1, max(len(shape), 1)) if shape else 0))),
        "sl": lambda: _slices(s, shape),
    }
    return template.format(**{k: v() if callable(v) else v for k, v in values.items() if f"{{{k}}}" in template})


TEMPLATES = _templates()

OPERANDS = {"reduce": (1, 9), "along": (1, 9), "whole": (1, 9), "matrix": (2, 2), "vector": (1, 1)}
"""By family, between how many and how many axes its operand has."""

OFTEN = {
    "unary": 3,
    "binary": 4,
    "reduce": 2,
    "along": 5,
    "whole": 5,
    "matrix": 3,
    "vector": 3,
    "integer": 3,
    "boolean": 1,
}


def operation(s: Scope, only: str | None = None, without: str | None = None) -> tuple[str, str]:
    """A random operation on values in scope, its template and the expression: mostly of those with `only` in their text."""
    every = {f: [t for t in ts if not without or without not in t] for f, ts in TEMPLATES.items()}
    families = {f: [t for t in ts if not only or only in t] for f, ts in every.items()}
    if s.rng.random() < 0.3 or not any(families.values()):
        families = every
    names = [f for f, ts in families.items() if ts]
    family = s.rng.choices(names, weights=[OFTEN[name] for name in names])[0]
    template = s.rng.choice(families[family])
    if family in ("integer", "boolean"):
        letter = family[0]
        return template, template.replace(f"{{{letter}}}", s.pick(dtype={"integer": "int", "boolean": "bool"}[family]))
    least, most = OPERANDS.get(family, (0, 9))
    return template, _filled(template, s, *s.number(least=least, most=most))
