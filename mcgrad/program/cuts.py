"""Whether an operation passes derivatives on: by its row, or found from its own differentiation rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat
from mcgrad.program.primitives import path_of
from mcgrad.program.trace import Equation


def cuts(equation: Equation) -> bool:
    """Whether no derivative passes from the floating-point operands of an operation to its results."""
    path = path_of(equation)
    known = path is not None or equation.eqn.primitive is _compat.ruled_p
    return path == "cuts" if known else cuts_by_its_rule(equation)


def cuts_by_its_rule(equation: Equation) -> bool:
    """The same, found by tracing the operation's rule for derivatives: it cuts if what that gives uses no (co)tangent."""
    # What a `custom_vjp` closes over has no derivative: JAX refuses where one is asked for.
    backward = equation.eqn.primitive is _compat.custom_vjp_p
    fixed = equation.eqn.params["num_consts"] if backward else 0
    numbers = [i for i, value in enumerate(equation.inputs) if value.is_inexact and i >= fixed]
    structs = [v.aval for v in equation.inputs]
    key = (equation.eqn.primitive, str(equation.eqn.params), tuple(map(str, structs)))
    if key not in _CUT:

        def derivatives(moved: Sequence[Any], given: Sequence[Any]) -> Any:
            def of_numbers(*xs: Any) -> list[Any]:
                full = dict(zip(numbers, xs, strict=True))
                read = {v: full.get(i, given[i]) for i, v in enumerate(equation.inputs)}
                return [x for x in equation.evaluate(read.__getitem__) if jnp.issubdtype(x.dtype, jnp.inexact)]

            at = [given[i] for i in numbers]
            return jax.vjp(of_numbers, *at)[1](list(moved)) if backward else jax.jvp(of_numbers, at, list(moved))[1]

        try:
            moving = [v.aval for v in equation.outputs if v.is_inexact] if backward else [structs[i] for i in numbers]
            jaxpr, _ = _compat.open_jaxpr(jax.make_jaxpr(derivatives)(moving, structs))
            moved = set(jaxpr.invars[: len(moving)])
            for eqn in jaxpr.eqns:
                if any(not isinstance(v, _compat.Literal) and v in moved for v in eqn.invars):
                    moved.update(eqn.outvars)
            _CUT[key] = not any(not isinstance(v, _compat.Literal) and v in moved for v in jaxpr.outvars)
        except (ValueError, NotImplementedError, TypeError):  # it has no rule: JAX raises when it is differentiated
            _CUT[key] = True
    return _CUT[key]


_CUT: dict[Any, bool] = {}
