"""The site primitive: one random choice of a program, visible in its jaxpr.

`mcgrad.sample` binds a primitive whose operands are the distribution's leaves, the key and the estimator's leaves, and whose
meaning is the distribution's own `sample`, so that a program runs, jits and vmaps without any transform. A `vmap` is
recorded as one more level of `in_axes`; sampling and log densities are then the base functions under the same nested
`vmap`s. The axes of a site's value are: vmapped levels, the distribution's batch axes (both are *plates*: entries
independent given the parents), its event axes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.derivatives.pathwise_check import pathwise_obstacle
from mcgrad.program.trace import Equation, Program, Value


def bind_draw(key: PRNGKey, dist: Any, estimator: Any = None, name: str | None = None) -> Any:
    """One draw from a distribution, as an operation of the program."""
    dist_leaves, dist_tree = jax.tree.flatten(dist)
    estimator_leaves, estimator_tree = jax.tree.flatten(estimator)
    structure = jax.eval_shape(lambda d, k: d.sample(k), dist, key)
    leaves = sample_p.bind(
        *map(jnp.asarray, dist_leaves),
        key,
        *map(jnp.asarray, estimator_leaves),
        dist_tree=dist_tree,
        estimator_tree=estimator_tree,
        value_tree=jax.tree.structure(structure),
        batch_ndim=len(dist.batch_shape),
        levels=(),
        name=name,
    )
    return jax.tree.unflatten(jax.tree.structure(structure), leaves)


def under_vmaps(fn: Callable, levels: Sequence[Sequence[Any]]) -> Callable:
    for axes in levels:  # the innermost `vmap` came first
        fn = jax.vmap(fn, in_axes=tuple(axes))
    return fn


def draw_from(*operands: Array, dist_tree: Any, levels: Any, **_: Any) -> list[Array]:
    n = dist_tree.num_leaves

    def base(*ops: Array) -> list[Array]:
        # Estimators evaluate the rest of a program several times with the same keys on purpose: common random numbers.
        key = jax.random.clone(ops[n])
        return jax.tree.leaves(jax.tree.unflatten(dist_tree, ops[:n]).sample(key))

    return under_vmaps(base, levels)(*operands)


def _batch(operands: Sequence[Array], axes: Sequence[int | None], *, levels: Any, **params: Any) -> Any:
    outs = sample_p.bind(*operands, levels=(*levels, tuple(axes)), **params)
    return outs, [0] * len(outs)


def _jvp(primals: Sequence[Array], tangents: Sequence[Array | None], **params: Any) -> Any:
    """Plain `jax.grad`, `jax.jvp` through a site: pathwise where that is right."""
    n = params["dist_tree"].num_leaves
    moving = [i for i in range(n) if tangents[i] is not None]
    if not moving:
        return sample_p.bind(*primals, **params), None
    estimator = jax.tree.unflatten(params["estimator_tree"], primals[n + 1 :])
    facts = _facts(params["dist_tree"], primals[:n], params["levels"], with_obstacle=True)
    pathwise = estimator is None or estimator.flow or type(estimator).__name__ == "Auto"
    reason = facts.pathwise_obstacle if pathwise else f"it names the estimator {type(estimator).__name__}"
    if reason is not None:
        raise TypeError(
            f"JAX by itself cannot differentiate the draw from {facts.law} at {_compat.current_line()}, because {reason}. "
            "Differentiate the program with `mcgrad.grad(program)`, or `jax.grad(mcgrad.expectation(program))`."
        )

    def of_moving(*values: Array) -> list[Array]:
        operands = list(primals)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return draw_from(*operands, **params)

    return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])


sample_p = _compat.new_primitive("mcgrad_sample", run=draw_from, batch=_batch, jvp=_jvp)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a site's law before the program runs."""

    law: str
    reparameterized: bool
    has_log_prob: bool
    support_parameters: tuple[str, ...]
    support: np.ndarray | None  # [n, *event shape]
    has_cdf: bool
    has_weak_derivative: bool
    has_optimal_transport: bool
    has_adaptive_velocity: bool
    has_relaxation: bool
    discrete: bool
    scalar_event: bool
    pathwise_obstacle: str | None


def _facts(dist_tree: Any, operands: Sequence[Any], levels: Any, *, with_obstacle: bool) -> Facts:
    """Facts of the base law, found on placeholders of its leaves."""
    n = dist_tree.num_leaves
    found: list[Facts] = []

    def inspect(*leaves: Array) -> int:
        dist = jax.tree.unflatten(dist_tree, leaves)
        values = None
        support = getattr(dist, "support", None)
        if callable(support):
            with jax.ensure_compile_time_eval():
                values = support()
        found.append(
            Facts(
                law=getattr(dist, "law", type(dist).__name__),
                reparameterized=bool(dist.reparameterized),
                has_log_prob=getattr(dist, "log_prob", None) is not None,
                support_parameters=tuple(getattr(dist, "support_parameters", ())),
                support=None if values is None else np.asarray(values),
                has_cdf=getattr(dist, "cdf", None) is not None,
                has_weak_derivative=getattr(dist, "weak_derivative", None) is not None,
                has_optimal_transport=getattr(dist, "optimal_transport", None) is not None,
                has_adaptive_velocity=getattr(dist, "adaptive_velocity", None) is not None,
                has_relaxation=getattr(dist, "relaxation", None) is not None,
                discrete=bool(getattr(dist, "discrete", False)),
                scalar_event=tuple(dist.event_shape) == (),
                pathwise_obstacle=pathwise_obstacle(dist) if with_obstacle else None,
            )
        )
        return 0

    jax.eval_shape(inspect, *_base_structs(operands[:n], levels))
    return found[0]


def _base_structs(leaves: Sequence[Any], levels: Any) -> list[jax.ShapeDtypeStruct]:
    """Placeholders of the leaves of the law inside all `vmap`s."""
    structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    axes = [level[: len(structs)] for level in levels]
    for level in reversed(axes):  # outermost first: take its axis off each leaf
        structs = [
            s if a is None else jax.ShapeDtypeStruct(s.shape[:a] + s.shape[a + 1 :], s.dtype)
            for s, a in zip(structs, level, strict=True)
        ]
    return structs


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A random choice of a program, before it runs.

    Attributes:
        equation: where it stands.
        loops: the `scan`s around it, outermost first; each gives the site a leading plate axis, its time axis.
        top_level: whether it stands in no body of control flow.
    """

    equation: Equation
    loops: tuple[Equation, ...] = ()
    top_level: bool = True

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.eqn.params

    @property
    def name(self) -> str:
        return self.params["name"] or self.facts.law

    @property
    def line(self) -> str:
        return self.equation.line

    @property
    def own_plates(self) -> Shape:
        """Plate axes of one draw, those of loops left out."""
        ndim = len(self.params["levels"]) + self.params["batch_ndim"]
        return self.equation.outputs[0].shape[:ndim]

    @property
    def plates(self) -> Shape:
        return tuple(loop.eqn.params["length"] for loop in self.loops) + self.own_plates

    @property
    def key(self) -> Value:
        return self.equation.inputs[self.params["dist_tree"].num_leaves]

    @property
    def parameters(self) -> tuple[Value, ...]:
        return self.equation.inputs[: self.params["dist_tree"].num_leaves]

    @property
    def shares_noise(self) -> bool:
        """Whether a `vmap` maps over the site but not over its key."""
        n = self.params["dist_tree"].num_leaves
        return any(level[n] is None for level in self.params["levels"])

    @functools.cached_property
    def facts(self) -> Facts:
        """What is known of the law."""
        params = self.params
        return _facts(params["dist_tree"], self.equation.inputs, params["levels"], with_obstacle=True)

    @property
    def base_law(self) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
        """The tree structure of the law inside all `vmap`s, and placeholders of its leaves."""
        tree = self.params["dist_tree"]
        return tree, _base_structs(self.equation.inputs[: tree.num_leaves], self.params["levels"])

    @property
    def base_draw(self) -> jax.ShapeDtypeStruct:
        """A placeholder of one draw, an array, of that law."""
        x = self.equation.outputs[0]
        return jax.ShapeDtypeStruct(x.shape[len(self.params["levels"]) :], x.dtype)

    @property
    def estimator(self) -> Any:
        """The estimator that the user named, with placeholders for its arrays, as they are inside all `vmap`s."""
        leaves = _base_structs(self.equation.inputs, self.params["levels"])
        return jax.tree.unflatten(self.params["estimator_tree"], leaves[len(self.parameters) + 1 :])

    def describe(self) -> str:
        """How messages speak of the site."""
        name = f" (name={self.params['name']!r})" if self.params["name"] else ""
        place = f"at {self.line}" if self.line else "made by `sampler=` or `icdf=`"
        return f"the draw from {self.facts.law}{name} {place}"

    def has_constant_law(self, constants: set[Value]) -> bool:
        """Whether no derivative can reach the law's parameters."""
        return all(value in constants for value in self.parameters)


def has_site(program: Program) -> bool:
    """Whether a program draws, in a body of control flow included."""
    return any(equation.eqn.primitive is sample_p for equation in program.everything())
