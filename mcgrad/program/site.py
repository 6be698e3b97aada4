"""The site primitive: one random choice of a program, visible in its jaxpr.

`mcgrad.sample` binds a primitive whose operands are the distribution's leaves, the key and the estimator's leaves, and whose
meaning is the distribution's own `sample`, so that a program runs, jits and vmaps without any transform of mcgrad. A `vmap`
is recorded as one more level of `in_axes`; sampling and log densities are then the base functions under the same nested
`vmap`s. The axes of a site's value are the vmapped levels, the distribution's batch axes (both are *plates*: their entries
are independent given the parents) and its event axes, in this order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat, _mesh
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.derivatives.pathwise_check import name_of, pathwise_obstacle
from mcgrad.program.trace import Equation, Program, Value


def bind_draw(
    key: PRNGKey, dist: Any, estimator: Any = None, name: str | None = None, point_set: str | None = None
) -> Any:
    """One draw from a distribution, as an operation of the program."""
    dist_leaves, dist_tree = jax.tree.flatten(dist)
    estimator_leaves, estimator_tree = jax.tree.flatten(estimator)
    with _as_jax_draws(dist):
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
        mesh_levels=(),
        name=name,
        point_set=point_set,
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
        dist = jax.tree.unflatten(dist_tree, ops[:n])
        with _as_jax_draws(dist):
            return jax.tree.leaves(dist.sample(key))

    mapped = under_vmaps(base, levels)
    if not any(map(_mesh.is_explicit, map(jax.typeof, operands))):
        return mapped(*operands)
    specs = [_mesh.spec(aval) for aval in _compat.trace_on(mapped, [jax.typeof(x) for x in operands]).out_avals]
    return _mesh.automatic(mapped, operands, lambda _: specs)


@contextmanager
def _as_jax_draws(dist: Any) -> Generator[None]:
    """Says in our words where a sampler of JAX itself does not know the types of a mesh."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kinds = jax.sharding.get_abstract_mesh().axis_types
        manual, explicit = (kind in kinds for kind in (jax.sharding.AxisType.Manual, jax.sharding.AxisType.Explicit))
        if not (manual or explicit) or not type(dist).__module__.startswith("mcgrad."):
            raise
        way_out = (
            "`jax.shard_map` with `check_vma=False`" if manual else "a mesh with automatic axes, or `jax.shard_map`"
        )
        at = f" at {line}" if (line := _compat.current_line()) else ""
        raise NotImplementedError(
            f"JAX cannot draw from {name_of(dist)}{at} where the types of arrays tell of "
            f"{'what differs from device to device' if manual else 'their sharding'}. Use {way_out}. JAX says: {error}"
        ) from error


def _batch(operands: Sequence[Array], axes: Sequence[int | None], *, levels: Any, **params: Any) -> Any:
    outs = sample_p.bind(*operands, levels=(*levels, tuple(axes)), **params)
    return outs, [0] * len(outs)


def _jvp(primals: Sequence[Array], tangents: Sequence[Array | None], **params: Any) -> Any:
    """Plain `jax.grad` or `jax.jvp` through a site: the pathwise derivative where it is unbiased, else an error."""
    n = params["dist_tree"].num_leaves
    moving = [i for i in range(n) if tangents[i] is not None]
    if not moving:
        return sample_p.bind(*primals, **params), None
    estimator = jax.tree.unflatten(params["estimator_tree"], primals[n + 1 :])
    facts = _facts(jax.tree.unflatten(params["dist_tree"], _placeholders(primals, params["levels"])[:n]))
    pathwise = estimator is None or estimator.flows(facts)
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
    """What is known of a site's distribution before the program runs.

    Attributes:
        law: the name of the distribution.
        knows: which of the optional methods of `mcgrad.Distribution` it has, `"log_prob"` among them.
        reparameterized: see `mcgrad.Distribution`.
        discrete: see `mcgrad.Distribution`.
        causal: whether entries depend on those before them along the last batch axis.
        support_parameters: see `mcgrad.Distribution`.
        support: the values of a finite support, `[n, *event shape]`, in NumPy.
        scalar_event: whether a draw of one batch entry is a single number.
        pathwise_obstacle: why it has no pathwise derivative, or `None`.
    """

    law: str
    knows: frozenset[str]
    reparameterized: bool
    discrete: bool
    causal: bool
    support_parameters: tuple[str, ...]
    support: np.ndarray | None
    scalar_event: bool
    pathwise_obstacle: str | None


_OPTIONAL = (
    "log_prob prob cdf icdf survival support weak_derivative optimal_transport adaptive_velocity noise_of moments "
    "relaxation marginals"
)


def _facts(placeholder: Any) -> Facts:
    """Facts of a distribution whose leaves are placeholders."""
    found: list[Facts] = []

    def inspect(dist: Any) -> int:
        knows = frozenset(name for name in _OPTIONAL.split() if getattr(dist, name, None) is not None)
        values = None
        if "support" in knows and callable(dist.support):
            with _compat.where_known():
                values = dist.support()
        found.append(
            Facts(
                law=name_of(dist),
                knows=knows,
                reparameterized=bool(dist.reparameterized),
                discrete=bool(getattr(dist, "discrete", False)),
                causal=bool(getattr(dist, "causal", False)),
                support_parameters=tuple(getattr(dist, "support_parameters", ())),
                support=None if values is None else np.asarray(values),
                scalar_event=tuple(dist.event_shape) == (),
                pathwise_obstacle=pathwise_obstacle(dist),
            )
        )
        return 0

    jax.eval_shape(inspect, placeholder)
    return found[0]


def _placeholders(operands: Sequence[Any], levels: Any) -> list[jax.ShapeDtypeStruct]:
    """Placeholders of operands of a draw, types or arrays, as they are inside all `vmap`s."""
    found: list[Any] = []

    def inside(*operands: Any) -> tuple[()]:
        found[:] = map(_mesh.placeholder, map(jax.typeof, operands))
        return ()

    jax.eval_shape(under_vmaps(inside, levels), *operands)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A random choice of a program, before it runs.

    Attributes:
        equation: where it stands.
        loops: the `scan`s around it, outermost first; each gives the site a leading plate axis, its time axis.
        top_level: whether it stands in no body of control flow.
        constants: values known before the program runs.
    """

    equation: Equation
    loops: tuple[Equation, ...] = ()
    top_level: bool = True
    constants: frozenset[Value] = frozenset()

    @property
    def _params(self) -> dict[str, Any]:
        return self.equation.eqn.params

    @property
    def name(self) -> str:
        return self._params["name"] or self.facts.law

    @property
    def point_set(self) -> str | None:
        """How the user said that several samples are spread over the values of the draw."""
        return self._params["point_set"]

    @property
    def line(self) -> str:
        return self.equation.line

    @property
    def levels(self) -> tuple[tuple[int | None, ...], ...]:
        """The `vmap`s around the draw, innermost first, each with the axis of every operand that it maps."""
        return self._params["levels"]

    @property
    def num_levels(self) -> int:
        """How many `vmap`s stand around the draw; as many plate axes come first."""
        return len(self.levels)

    @property
    def own_plates(self) -> Shape:
        """Plate axes of one draw, those of loops left out."""
        return self.equation.outputs[0].shape[: self.num_levels + self._params["batch_ndim"]]

    @property
    def plates(self) -> Shape:
        return tuple(loop.eqn.params["length"] for loop in self.loops) + self.own_plates

    @property
    def key(self) -> Value:
        return self.equation.inputs[len(self.parameters)]

    @property
    def parameters(self) -> tuple[Value, ...]:
        return self.equation.inputs[: self._params["dist_tree"].num_leaves]

    @property
    def shares_noise(self) -> bool:
        """Whether a `vmap` maps over the site but not over its key."""
        of_mesh = {at for at, _ in self._params["mesh_levels"]}
        return any(level[len(self.parameters)] is None for at, level in enumerate(self.levels) if at not in of_mesh)

    @property
    def axes_sharing_noise(self) -> frozenset[Any]:
        """The manual mesh axes, those of a `shard_map`, along which the distribution differs but not the key."""
        moving = frozenset().union(*(_mesh.varying_axes(value.aval) for value in self.parameters))
        inside = {axis for at, axis in self._params["mesh_levels"] if self.levels[at][len(self.parameters)] is None}
        return (moving - _mesh.varying_axes(self.key.aval)) | inside

    def recall(self, what: str, find: Callable[[], Any]) -> Any:
        """What `find` finds of the distribution: once for all draws of the program from one of the same kind and shape."""
        params = self._params
        types = tuple(value.aval for value in (*self.equation.inputs, *self.equation.outputs))
        law = (params["dist_tree"], params["value_tree"], params["batch_ndim"], params["levels"], params["mesh_levels"])
        try:
            hash(law)
        except TypeError:  # what the distribution has beside arrays need not be hashable
            law = (self.equation,)
        return self.equation.recall((what, law, types), find)

    @functools.cached_property
    def facts(self) -> Facts:
        """What is known of the distribution."""
        return self.recall("facts", lambda: _facts(self.base_dist))

    def dist_of(self, leaves: Sequence[Any]) -> Any:
        """The distribution with other leaves."""
        return jax.tree.unflatten(self._params["dist_tree"], leaves)

    def value_of(self, leaves: Sequence[Any]) -> Any:
        """A value of the draw from its leaves."""
        return jax.tree.unflatten(self._params["value_tree"], leaves)

    def typed(self, x: Any) -> list[Array]:
        """The leaves of a value of the draw, with the sharding and the varying manual axes that the program saw."""
        leaves = zip(jax.tree.leaves(x), self.equation.outputs, strict=True)
        return [_mesh.typed(leaf, value.aval) for leaf, value in leaves]

    def along_vmaps(self, x: Any) -> Array:
        """An array that the `vmap`s around the draw map over, with the sharding of the draw along their axes."""
        return _mesh.typed(x, self.equation.outputs[0].aval, self.num_levels) if self.levels else x

    @property
    def base_dist(self) -> Any:
        """The distribution inside all `vmap`s, with placeholders for its leaves: for `jax.eval_shape` and `isinstance`."""
        return self.dist_of(self._placeholders[: len(self.parameters)])

    @property
    def base_draw(self) -> jax.ShapeDtypeStruct:
        """A placeholder of one draw, an array, of that distribution."""
        x = self.equation.outputs[0]
        return jax.ShapeDtypeStruct(x.shape[self.num_levels :], x.dtype)

    @property
    def estimator(self) -> Any:
        """The estimator that the user named, with placeholders for its arrays, as they are inside all `vmap`s."""
        return self.named_estimator(self._placeholders[len(self.parameters) + 1 :])

    @functools.cached_property
    def _placeholders(self) -> list[jax.ShapeDtypeStruct]:
        operands = [value.aval for value in self.equation.inputs]
        return self.recall("placeholders", lambda: _placeholders(operands, self.levels))

    def named_estimator(self, arrays: Sequence[Any]) -> Any:
        """The estimator that the user named, with these arrays."""
        return jax.tree.unflatten(self._params["estimator_tree"], arrays)

    @property
    def names_arrays(self) -> bool:
        """Whether the user named an estimator that has arrays."""
        return self._params["estimator_tree"].num_leaves > 0

    def describe(self) -> str:
        """How messages speak of the site."""
        name = f" (name={self._params['name']!r})" if self._params["name"] else ""
        place = f"at {self.line}" if self.line else "made by `sampler=`, `icdf=` or a kernel of `mcgrad.mcmc`"
        return f"the draw from {self.facts.law}{name} {place}"

    @property
    def has_constant_law(self) -> bool:
        """Whether no derivative can reach the distribution's parameters."""
        return all(value in self.constants for value in self.parameters)

    @property
    def support_moves_with(self) -> tuple[str, ...]:
        """The parameters that the support depends on and that a derivative can reach."""
        constant = self.dist_of([value in self.constants for value in self.parameters])
        return tuple(
            name for name in self.facts.support_parameters if not all(jax.tree.leaves(getattr(constant, name, False)))
        )


def has_site(program: Program) -> bool:
    """Whether a program draws, in a body of control flow included."""
    return any(equation.eqn.primitive is sample_p for equation in program.everything())
