"""Whether an operation passes derivatives on, found from its own differentiation rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program.trace import Equation


def cuts(equation: Equation) -> bool:
    """Whether no derivative passes from the floating-point operands of an operation to its results, by its own rule."""
    if equation.name in _SMOOTH or equation.eqn.primitive is _compat.ruled_p:
        return False
    if equation.name == "stop_gradient":
        return True
    numbers = [i for i, value in enumerate(equation.inputs) if value.is_inexact]
    structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in equation.inputs]
    key = (equation.eqn.primitive, str(equation.eqn.params), tuple((v.shape, str(v.dtype)) for v in equation.inputs))
    if key not in _CUT:

        def tangents(moved: Sequence[Any], given: Sequence[Any]) -> Any:
            def of_numbers(*xs: Any) -> list[Any]:
                full = dict(zip(numbers, xs, strict=True))
                read = {v: full.get(i, given[i]) for i, v in enumerate(equation.inputs)}
                return [x for x in equation.evaluate(read.__getitem__) if jnp.issubdtype(x.dtype, jnp.inexact)]

            return jax.jvp(of_numbers, [given[i] for i in numbers], list(moved))[1]

        try:
            jaxpr, _ = _compat.open_jaxpr(jax.make_jaxpr(tangents)([structs[i] for i in numbers], structs))
            moved = set(jaxpr.invars[: len(numbers)])
            for eqn in jaxpr.eqns:
                if any(not isinstance(v, _compat.Literal) and v in moved for v in eqn.invars):
                    moved.update(eqn.outvars)
            _CUT[key] = not any(not isinstance(v, _compat.Literal) and v in moved for v in jaxpr.outvars)
        except (ValueError, NotImplementedError, TypeError):  # it has no rule: JAX raises when it is differentiated
            _CUT[key] = True
    return _CUT[key]


_CUT: dict[Any, bool] = {}

_SMOOTH = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cumsum",
        "div",
        "dot_general",
        "conv_general_dilated",
        "dynamic_slice",
        "dynamic_update_slice",
        "erf",
        "exp",
        "expand_dims",
        "expm1",
        "gather",
        "integer_pow",
        "log",
        "log1p",
        "logistic",
        "max",
        "min",
        "mul",
        "neg",
        "pad",
        "pow",
        "reduce_max",
        "reduce_min",
        "reduce_sum",
        "reduce_prod",
        "reshape",
        "rev",
        "rsqrt",
        "scatter",
        "scatter-add",
        "select_n",
        "sin",
        "slice",
        "sort",
        "split",
        "sqrt",
        "square",
        "squeeze",
        "stack",
        "sub",
        "tanh",
        "top_k",
        "transpose",
        "clamp",
        "real",
        "imag",
        "complex",
    ]
)
"""The most frequent operations, known to pass derivatives on, so that they need not be tried."""
