"""Statements with bodies: loops, branches, `vmap`s, functions."""

from __future__ import annotations

import random

from .operations import NotHere, Scope
from .source import Function, Kind, Statement


class Bodies:
    """Part of `generate.Maker`."""

    rng: random.Random
    left: int
    count: int
    repeats: int
    depth: int
    forward: bool

    def name(self, letter: str) -> str:
        raise NotImplementedError

    def lines(self, scope: Scope, count: int) -> list[Statement]:
        raise NotImplementedError

    def body(
        self, scope: Scope, arguments: dict[str, Kind], key: str | None, count: int, repeats: int = 1
    ) -> tuple[Scope, list[Statement]]:
        inner = Scope(self.rng, {**scope.values, **arguments}, key)
        before = self.repeats
        self.repeats, self.depth = self.repeats * repeats, self.depth + 1
        lines = self.lines(inner, count)
        self.repeats, self.depth = before, self.depth - 1
        return inner, lines

    def fits(self, scope: Scope, kind: Kind, own: set[str]) -> str:
        """An expression of a shape, of the body's own values where there are any."""
        names = [n for n in scope.values if n in own and scope.values[n].shape == kind.shape]
        if names and self.rng.random() < 0.8:
            return f"(1.0 * {self.rng.choice(names)})"
        inner = Scope(self.rng, {n: k for n, k in scope.values.items() if n in own} or scope.values)
        x, _ = inner.number()
        return f"jnp.mean({x})"

    def rows(self, scope: Scope) -> tuple[str, tuple[int, ...]]:
        x, shape = scope.number(least=1, most=3)
        if shape[0] > 4 or shape[0] < 2:
            raise NotHere
        return x, shape

    def some(self) -> int:
        return self.rng.randint(1, max(1, min(3, self.left - 1)))

    def vmap(self, scope: Scope) -> Statement:
        x, shape = self.rows(scope)
        axis = self.rng.randrange(len(shape)) if self.rng.random() < 0.3 else 0
        n = shape[axis]
        f, r, k, u = self.name("f"), self.name("x"), self.name("k"), self.name("x")
        arguments = {r: Kind(shape[:axis] + shape[axis + 1 :])}
        other = self.rng.random() < 0.3
        y, y_shape = scope.number() if other else ("", ())
        mapped = bool(other and y_shape and y_shape[0] == n)
        if other:
            arguments[u] = Kind(y_shape[1:] if mapped else y_shape)
        inner, lines = self.body(scope, arguments, k if scope.key else None, self.some(), n)
        own = [name for line in lines for name in line.names] or [r]
        outs = list(dict.fromkeys(self.rng.choices(own[-2:], k=2)))
        key = f"split(fold_in({scope.key}, {self.count}), {n})" if scope.key else f"const(0, {n})"
        in_axes = (axis, *([0 if mapped else None] if other else []), 0)
        out_axes = self.rng.choice([0, 0, 0, -1])
        if out_axes and any(not inner.values[name].shape for name in outs):
            out_axes = 0
        axes = (
            ""
            if not any(in_axes) and None not in in_axes and not out_axes
            else f", in_axes={in_axes}, out_axes={out_axes}"
        )
        fn = Function(f, (r, *([u] if other else []), k), tuple(lines), ", ".join(outs))
        call = f"vmap({f}{axes})({x}, {y + ', ' if other else ''}{key})"
        return Statement(tuple(self.name("v") for _ in outs), (), call, (fn,), "vmap")

    def scan(self, scope: Scope) -> Statement:
        x, shape = self.rows(scope)
        n = shape[0]
        f, c, a, r, k = (self.name(letter) for letter in "fcaxk")
        init, carried = scope.number(most=2)
        with_sum = self.rng.random() < 0.5
        key = f"split(fold_in({scope.key}, {self.count}), {n})" if scope.key else f"const(0, {n})"
        inner, lines = self.body(
            scope, {c: Kind(carried), r: Kind(shape[1:])}, k if scope.key else None, self.some(), n
        )
        own = {c, r} | {name for line in lines for name in line.names}
        step = self.fits(inner, Kind(carried), own - {c})
        total = self.fits(inner, Kind(()), own)
        new = self.rng.choice(
            [
                f"0.6 * {c} + 0.4 * {step}",
                f"{step} + 0.0 * {c}",
                f"{c} + 0.5 * {step}",
                f"jnp.tanh({c} + {step})",
                f"{c}",
            ]
            + [f"{c} - {step}", f"theta[1] * {c} + {step}", f"jnp.where(jnp.sum({total}) > 0.3, {c}, {c} + {step})"]
        )
        carry = self.name("n")
        lines.append(Statement((carry,), (Kind(carried),), new))
        out = self.rng.choice([*sorted(own), carry, f"{carry} + 0.3 * {step}"])
        add = self.rng.choice([f"{a} + jnp.sum({total})", f"0.9 * {a} + jnp.sum({total})", f"{a} + jnp.mean({carry})"])
        result = f"({carry}, {add}), {out}" if with_sum else f"{carry}, {out}"
        take = (
            Statement((c, a), (Kind(carried), Kind(())), "carry")
            if with_sum
            else Statement((c,), (Kind(carried),), "carry")
        )
        fn = Function(
            f, ("carry", "row"), (take, Statement((r, k), (Kind(shape[1:]), Kind(())), "row"), *lines), result
        )
        start = f"({init} + jnp.zeros({carried}), 0.0)" if with_sum else f"{init} + jnp.zeros({carried})"
        call = f"scan({f}, {start}, ({x}, {key}){', reverse=True' if self.rng.random() < 0.3 else ''})"
        last, summed, ys = self.name("v"), self.name("v"), self.name("v")
        outs = (f"({last}, {summed})", ys) if with_sum else (last, ys)
        return _unpacked(outs, call, (fn,), "scan")

    def fori_loop(self, scope: Scope) -> Statement:
        init, carried = scope.number(most=2)
        n = self.rng.randint(2, 3)
        f, c, i, r, k = (self.name(letter) for letter in "fcixk")
        inner, lines = self.body(
            scope, {c: Kind(carried), i: Kind((), "int")}, k if scope.key else None, self.some(), n
        )
        own = {c} | {name for line in lines for name in line.names}
        step = self.fits(inner, Kind(carried), own - {c} or own)
        result = self.rng.choice([f"0.6 * {c} + 0.4 * {step}", f"{c} + 0.5 * {step}", f"jnp.sin({c} + {step})"])
        keys = (Statement((k,), (Kind(()),), f"fold_in(fold_in({scope.key}, {self.count}), {i})"),) if scope.key else ()
        fn = Function(f, (i, c), (*keys, *lines), result)
        return Statement(
            (self.name("v"),), (), f"fori_loop(0, {n}, {f}, {init} + jnp.zeros({carried}))", (fn,), "fori_loop"
        )

    def while_loop(self, scope: Scope) -> Statement:
        init, carried = scope.number(most=1)
        f, g, c, i, k = (self.name(letter) for letter in "fgcik")
        self.forward = True
        inner, lines = self.body(
            scope, {c: Kind(carried), i: Kind((), "int")}, k if scope.key else None, self.some(), 3
        )
        own = {c} | {name for line in lines for name in line.names}
        step = self.fits(inner, Kind(carried), own - {c} or own)
        keys = (Statement((k,), (Kind(()),), f"fold_in(fold_in({scope.key}, {self.count}), {i})"),) if scope.key else ()
        take = Statement((i, c), (Kind((), "int"), Kind(carried)), "carry")
        fn = Function(f, ("carry",), (take, *keys, *lines), f"{i} + 1, 0.7 * {c} + 0.6 * {step}")
        go = Function(
            g,
            ("carry",),
            (),
            f"(carry[0] < {self.rng.randint(2, 3)}) & (jnp.sum(carry[1]) < {self.rng.uniform(-0.5, 1.5):.2f})",
        )
        call = f"while_loop({g}, {f}, (0, {init} + jnp.zeros({carried})))"
        return Statement((self.name("v"), self.name("v")), (), call, (go, fn), "while_loop")

    def branches(self, scope: Scope, count: int) -> tuple[list[Function], str]:
        x, shape = scope.number()
        kind = Kind(shape)
        found = []
        for _ in range(count):
            f, r, k = self.name("f"), self.name("x"), self.name("k")
            inner, lines = self.body(scope, {r: kind}, k if scope.key else None, self.rng.randint(0, 2))
            own = {r} | {name for line in lines for name in line.names}
            found.append(
                Function(
                    f,
                    (r, k),
                    tuple(lines),
                    f"{self.rng.choice(['1.0', '0.5', '-1.0'])} * {self.fits(inner, kind, own)} + jnp.zeros({shape})",
                )
            )
        key = f"fold_in({scope.key}, {self.count})" if scope.key else "0"
        return found, f"{x}, {key}"

    def cond(self, scope: Scope) -> Statement:
        which, _ = scope.number()
        functions, operands = self.branches(scope, 2)
        test = f"jnp.mean({which}) > {self.rng.uniform(-0.2, 0.6):.2f}"
        call = f"cond({test}, {functions[0].name}, {functions[1].name}, {operands})"
        return Statement((self.name("v"),), (), call, tuple(functions), "cond")

    def switch(self, scope: Scope) -> Statement:
        which = scope.pick(dtype="int")
        functions, operands = self.branches(scope, self.rng.randint(2, 3))
        call = f"switch(jnp.sum({which}), [{', '.join(f.name for f in functions)}], {operands})"
        return Statement((self.name("v"),), (), call, tuple(functions), "switch")

    def call(self, scope: Scope) -> Statement:
        x, shape = scope.number()
        f, r, k = self.name("f"), self.name("x"), self.name("k")
        inner, lines = self.body(scope, {r: Kind(shape)}, k if scope.key else None, self.some())
        own = [name for line in lines for name in line.names] or [r]
        outs = list(dict.fromkeys(self.rng.choices(own[-3:], k=2)))
        key = f"fold_in({scope.key}, {self.count})" if scope.key else "0"
        fn = Function(f, (r, k), tuple(lines), ", ".join(outs))
        names = tuple(self.name("v") for _ in outs)
        return Statement(names, (), f"{self.rng.choice(['jit', 'checkpoint'])}({f})({x}, {key})", (fn,), "call")


def _unpacked(outs: tuple[str, ...], call: str, functions: tuple[Function, ...], operation: str) -> Statement:
    """A statement whose targets are nested: the names are those inside."""
    text = ", ".join(outs)
    names = tuple(text.replace("(", "").replace(")", "").split(", "))
    if "(" in text:  # `(last, total), rows = ...`, flattened
        call = f"(lambda out: (*out[0], out[1]))({call})"
    return Statement(names, (), call, functions, operation)
