"""A program of a user, traced and planned on given arguments, ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad._arguments import describe, name_of
from mcgrad._modules import partition, pure, split_output
from mcgrad.estimators.auto import CANDIDATES, Auto
from mcgrad.program import Estimator
from mcgrad.program.checks import check_floating, check_point_sets
from mcgrad.program.interpret import Interpreter
from mcgrad.program.plan import Plan, make_plan
from mcgrad.program.point_sets import PointSet
from mcgrad.program.trace import trace


def plan_of(
    fn: Callable[..., Any],
    args: Any,
    kwargs: Any,
    estimator: Estimator | None,
    has_aux: bool,
    key_of_sample: Any = None,
) -> tuple[Plan, Callable[..., Any]]:
    """The plan of a program on given arguments, with the key of one of several samples; and a function that runs it."""

    held = pure(fn, args, kwargs, has_aux)
    put_aux: list[Callable[..., Any]] = []

    def program() -> Any:
        costs, aux = split_output(fn(*args, **kwargs), has_aux) if held is None else held.without_state()
        _check_costs(costs, fn)
        arrays, put = partition(aux)
        put_aux.append(put)  # aux may hold other leaves than arrays: functions of a module, for instance
        return costs, arrays

    traced, tree = trace(program)
    num_costs = tree.children()[0].num_leaves
    check_floating(traced, num_costs)
    plan = make_plan(traced, num_costs, estimator or Auto(), CANDIDATES, key_of_sample)

    def run(replicates: Any = None, points: PointSet = "independent") -> Any:
        interpreter = Interpreter(plan, replicates, points)
        check_point_sets(plan.program, plan.estimators, interpreter.samples_of)
        # What JAX knew as a literal is an array like the others.
        found = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in interpreter.run()]
        costs, arrays = jax.tree.unflatten(tree, found)
        return (costs, put_aux[-1](arrays)) if has_aux else costs

    return plan, run


def _check_costs(costs: Any, fn: Callable[..., Any]) -> None:
    leaves = jax.tree.leaves(costs)
    wrong = [leaf for leaf in leaves or [costs] if not hasattr(leaf, "dtype") and not isinstance(leaf, (int, float))]
    if wrong:
        way_out = "Return a number, an array or a pytree of these."
        if dataclasses.is_dataclass(wrong[0]):
            way_out = "Register the class with `jax.tree_util.register_dataclass`, or return a dict."
        raise TypeError(
            f"The program of `mcgrad.expectation` must return floating-point costs, got {describe(wrong[0])} from `{name_of(fn)}`. "
            + way_out
        )
