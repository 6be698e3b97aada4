"""A smaller program with the same fault."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator

from .source import Program, Statement, replaced, without_dead_code


def smaller(program: Program) -> Iterator[Program]:
    """Programs with something less, the largest steps first."""
    terms = program.result.split(" + ")
    for term in terms if len(terms) > 1 and all(t.count("(") == t.count(")") for t in terms) else []:
        yield dataclasses.replace(program, result=" + ".join(t for t in terms if t is not term))
    for line in program.statements():
        if line.expression in ("carry", "row") or any(kind.filler == line.expression for kind in line.kinds):
            continue
        if line.kinds:
            expression = ", ".join(kind.filler for kind in line.kinds)
            yield _with(program, line, Statement(line.names, line.kinds, expression))
        earlier = [
            o
            for o in program.lines
            if o is not line and o.kinds == line.kinds and o.names[0] in re.findall(r"\w+", line.expression)
        ]
        for other in earlier:
            yield _renamed(_with(program, line, None), dict(zip(line.names, other.names, strict=True)))
        plain = re.sub(r", \w+\([^()]*\), name=", ", name=", line.expression)
        if line.expression.startswith("sample(") and plain != line.expression:
            yield _with(program, line, dataclasses.replace(line, expression=plain))
        for fn in line.functions:
            for name in re.findall(r"\b[vd]\d+\b", fn.result):
                other = dataclasses.replace(fn, result=re.sub(rf"\b{name}\b", "0.5", fn.result))
                functions = tuple(other if f is fn else f for f in line.functions)
                yield _with(program, line, dataclasses.replace(line, functions=functions))
    for transform in (
        "estimator=Score()",
        "estimator=Score(), num_samples=2",
        re.sub(r", num_samples.*", "", program.transform),
    ):
        yield dataclasses.replace(program, transform=transform)
    if program.order > 1:
        yield dataclasses.replace(program, order=1)


def _renamed(program: Program, names: dict[str, str]) -> Program:
    def text(old: str) -> str:
        return re.sub(r"\b[a-z]\d+\b", lambda word: names.get(word[0], word[0]), old)

    def lines(old: tuple[Statement, ...]) -> tuple[Statement, ...]:
        found = []
        for line in old:
            functions = tuple(
                dataclasses.replace(f, lines=lines(f.lines), result=text(f.result)) for f in line.functions
            )
            found.append(dataclasses.replace(line, expression=text(line.expression), functions=functions))
        return tuple(found)

    return dataclasses.replace(program, lines=lines(program.lines), result=text(program.result))


def _with(program: Program, old: Statement, new: Statement | None) -> Program:
    return dataclasses.replace(program, lines=replaced(program.lines, old, new))


def _size(program: Program) -> tuple[int, int]:
    ranks = ("estimator=Score()", "estimator=Score(), num_samples=2")
    rank = ranks.index(program.transform) if program.transform in ranks else 2 + len(program.transform)
    return len(program.source()), 10 * rank + program.order


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 300.0) -> Program:
    """The smallest program found that still fails."""
    end = time.monotonic() + seconds
    tried: set[str] = set()
    again = True
    while again and time.monotonic() < end:
        again = False
        for candidate in smaller(program):
            candidate = without_dead_code(candidate)
            text = candidate.describe()
            if text in tried or sum(_size(candidate)) >= sum(_size(program)) or time.monotonic() > end:
                continue
            tried.add(text)
            if fails(candidate):
                program, again = candidate, True
                break
    return program
