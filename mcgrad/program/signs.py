"""Which signs a value may have, told from the operations that make it: what a division by it needs to know.

`softmax` divides by a sum of exponentials, which no draw brings to zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from mcgrad import _compat
from mcgrad.program.forward import Forward
from mcgrad.program.trace import Constant, Equation, Program, Value

SignSet: TypeAlias = frozenset[int]
ANY: SignSet = frozenset({-1, 0, 1})


class Signs(Forward[SignSet]):
    """The domain of signs: those that entries of a value may have, -1, 0 and 1."""

    nothing: SignSet = frozenset()

    def __init__(self, program: Program):
        super().__init__()
        self._never: set[Value] = set()  # comparisons that hold only for what is no number
        self.run(program, [ANY] * len(program.inputs))

    def of(self, value: Value) -> SignSet:
        if value in self.facts:
            return self.facts[value]
        known = isinstance(value, Constant) and _compat.is_known(value.value) and not value.is_key
        if not known or jnp.issubdtype(value.dtype, jnp.complexfloating):
            return ANY
        x = np.asarray(value.value).astype(np.float64)
        return frozenset(map(int, np.unique(np.sign(x[~np.isnan(x)]))))  # what is no number has none

    def note(self, equation: Equation, outputs: Sequence[SignSet]) -> None:
        self.facts.update(zip(equation.outputs, outputs, strict=True))  # what is no number has no sign at all

    def apply(self, equation: Equation, inputs: list[SignSet]) -> list[SignSet]:
        if equation.name == "ne" and equation.inputs[0] is equation.inputs[1]:
            self._never.update(equation.outputs)
        rule = _RULES.get(equation.name)
        found = (
            ANY
            if rule is None or any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in equation.outputs)
            else rule(equation, inputs)
        )
        if equation.name == "select_n" and equation.inputs[0] in self._never:
            found = inputs[1]
        return [found] * len(equation.outputs)

    def draw(self, equation: Equation, inputs: list[SignSet]) -> list[SignSet]:
        return [ANY] * len(equation.outputs)

    def join(self, parts: Sequence[SignSet], value: Value, cause: Equation) -> SignSet:
        return _union(parts)

    def chosen(self, equation: Equation, index: SignSet, outputs: Sequence[SignSet], value: Value) -> SignSet:
        return _union(outputs)

    def stopped(self, equation: Equation, going_on: SignSet) -> SignSet:
        return frozenset()


def _union(parts: Sequence[SignSet]) -> SignSet:
    return frozenset().union(*parts)


def _each(fn: Callable[..., int], *signs: SignSet) -> SignSet:
    return frozenset(itertools.starmap(fn, itertools.product(*signs)))


def _sum(*signs: SignSet) -> SignSet:
    """Of sums of one of each, or of several of one."""
    each = _union(signs)
    return ANY if {-1, 1} <= each else each if len(signs) == 1 else _each(lambda *s: int(np.sign(sum(s))), *signs)


def _product(*signs: SignSet) -> SignSet:
    return _each(lambda *s: int(np.prod(s)), *signs)


def _opposite(signs: SignSet) -> SignSet:
    return frozenset(-s for s in signs)


def _magnitude(signs: SignSet) -> SignSet:
    return frozenset(map(abs, signs))


def _power(equation: Equation, inputs: Sequence[SignSet]) -> SignSet:
    return inputs[0] if equation.eqn.params["y"] % 2 else _magnitude(inputs[0])


_RULES: dict[str, Callable[[Equation, list[SignSet]], SignSet]] = {"integer_pow": _power}


def _rows(names: str, rule: Callable[..., SignSet]) -> None:
    _RULES.update(dict.fromkeys(names.split(), lambda _, inputs: rule(*inputs)))


_rows("exp exp2 logistic cosh erfc rsqrt", lambda x: frozenset({1}))
_rows(
    """reshape broadcast_in_dim transpose squeeze expand_dims slice dynamic_slice rev convert_element_type copy copy_p
    stop_gradient reduce_max reduce_min cummax cummin reduce_precision log1p expm1 tanh sinh asinh atan erf erf_inv cbrt
    optimization_barrier pvary""",
    lambda x, *_: x,
)
_rows("sqrt", lambda x: x & {0, 1} or x)
_rows("abs square", _magnitude)
_rows("neg", _opposite)
_rows("reduce_sum cumsum", _sum)
_rows("add add_any", _sum)
_rows("sub", lambda x, y: _sum(x, _opposite(y)))
_rows("mul", _product)
_rows("div", lambda x, y: ANY if 0 in y else _product(x, y))
_rows("dot_general", lambda x, y: _sum(_product(x, y)))
_rows("pow", lambda x, y: ANY if -1 in x else x)
_rows("max", lambda x, y: _each(max, x, y))
_rows("min", lambda x, y: _each(min, x, y))
_rows("clamp", lambda low, x, high: _each(lambda a, b, c: min(max(a, b), c), low, x, high))
_rows("select_n", lambda _, *cases: _union(cases))
_rows("concatenate pad", lambda *parts: _union(parts))
