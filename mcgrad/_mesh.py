"""What a type of JAX carries besides shape and dtype: how its axes are sharded over a mesh, and the manual mesh axes, those of a
`shard_map`, along which its values may differ. Nothing here changes a program on one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mcgrad._compat import ShapedArray, Tracer, bind


def placeholder(x: Any) -> Any:
    """A placeholder of an array or a type, with all that a type of JAX carries: weak type, sharding, varying manual axes."""
    struct = jax.eval_shape(_same, x)
    # a `ShapeDtypeStruct` without the sharding, as where some mesh axes are not manual, JAX cannot read back
    if not varying_axes(struct) or struct.sharding is not None:
        return struct
    return x if isinstance(x, ShapedArray) else jax.typeof(x)


def _same(x: Any) -> Any:
    return x


def varying_axes(aval: Any) -> frozenset[Any]:
    """The manual mesh axes, those of a `shard_map`, along which values of a type may differ; none where JAX does not check."""
    found = getattr(aval, "manual_axis_type", None)
    return found.varying if found is not None else getattr(aval, "vma", None) or frozenset()


def typed(x: Any, aval: Any, ndim: int | None = None, at: int = 0) -> Any:
    """An array with the sharding and the varying manual axes of a type.

    With `ndim`, the axes of the array from `at` on have the sharding of the first `ndim` axes of the type, others keep theirs.
    """
    x = varying(x, aval)
    kinds = jax.sharding.get_abstract_mesh().axis_types
    if is_explicit(aval) and (not kinds or AxisType.Explicit in kinds):
        sharding, given = aval.sharding, tuple(jax.typeof(x).sharding.spec)
        wanted = tuple(sharding.spec)[:ndim]
        spec = (*given[:at], *wanted, *given[at + len(wanted) :])
        if given != spec:
            x = jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*spec)))
    return x


def automatic(fn: Callable[..., Any], args: tuple[Any, ...], specs: Callable[[Any], Sequence[Sequence[Any]]]) -> Any:
    """`fn(*args)` with the explicit axes of a mesh as automatic ones: not all operations of JAX know how explicit axes go.

    `specs` tells of what `fn` returns how each array is sharded. On one device nothing changes.
    """
    mesh = next((x.sharding.mesh for x in map(jax.typeof, jax.tree.leaves(args)) if is_explicit(x)), None)
    if mesh is None:
        return fn(*args)
    explicit = [n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]
    with jax.sharding.use_abstract_mesh(mesh.update_axis_types(dict.fromkeys(explicit, AxisType.Auto))):
        out = fn(*jax.tree.map(lambda x: jax.sharding.reshard(x, PartitionSpec(*[None] * jnp.ndim(x))), args))
    leaves, tree = jax.tree.flatten(out)
    with jax.sharding.use_abstract_mesh(mesh):
        spread = [jax.sharding.reshard(x, PartitionSpec(*spec)) for x, spec in zip(leaves, specs(out), strict=True)]
    return jax.tree.unflatten(tree, spread)


def entry_by_entry(fn: Callable[..., jax.Array], key: jax.Array, *params: Any) -> jax.Array:
    """`fn(key, *params)`, spread over a mesh as parameters of one shape are: for samplers of JAX that do not know explicit axes."""
    given = zip(*(spec(jax.typeof(x)) for x in params), strict=True)
    merged = [next((entry for entry in entries if entry is not None), None) for entries in given]
    return automatic(fn, (key, *params), lambda _: [merged])


def spec(aval: Any) -> tuple[Any, ...]:
    """How the axes of a type are sharded, one entry an axis."""
    given = tuple(aval.sharding.spec) if is_explicit(aval) else ()
    return (*given, *[None] * (aval.ndim - len(given)))


def plain(literal: Any, aval: Any) -> Any:
    """A literal of a type, which may remember the mesh that it was traced under, without that."""
    return np.asarray(literal, aval.dtype)


def without_sharding(x: Any) -> jax.Array:
    """A known array on one device, others as they are."""
    known = not isinstance(x, Tracer)
    if known and isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(np.asarray(jax.random.key_data(x))), impl=jax.random.key_impl(x))
    return jnp.asarray(np.asarray(x) if known else x)


def with_whole_events(*given: tuple[Any, int]) -> list[Any]:
    """Arrays, given with their numbers of event axes, for products of matrices: event axes are on every device, batch axes
    spread alike, as those of the first array that is spread along each, counted from the last.
    """
    avals = [jax.typeof(x) for x, _ in given]
    if not any(map(is_explicit, avals)):
        return [x for x, _ in given]
    specs = [tuple(aval.sharding.spec)[: aval.ndim - n] for aval, (_, n) in zip(avals, given, strict=True)]
    mesh = next(aval.sharding.mesh for aval in avals if is_explicit(aval))

    def spread(x: Any, num_events: int) -> Any:
        num = x.ndim - num_events
        found = []
        for back in range(num, 0, -1):
            entries = [spec[-back] for spec in specs if len(spec) >= back and spec[-back] is not None]
            found.append(entries[0] if entries and x.shape[num - back] > 1 else None)
        spec = PartitionSpec(*found, *[None] * num_events)
        return x if jax.typeof(x).sharding.spec == spec else jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return [spread(jnp.asarray(x), n) for x, n in given]


def product(x: Any, axes: Sequence[int]) -> Any:
    """The product along axes of few entries; the derivative of `jnp.prod` merges the others, which may be sharded."""
    for axis in sorted(axes, reverse=True):
        entries = [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
        x = math.prod(entries[1:], start=entries[0]) if entries else jnp.prod(x, axis)
    return x


def zeros(aval: Any) -> jax.Array:
    """Zeros of a type."""
    return typed(jnp.zeros(aval.shape, aval.dtype), aval)


def varying(x: Any, aval: Any) -> Any:
    """An array that may differ along the manual mesh axes along which values of a type may."""
    axes = varying_axes(aval)
    missing = axes - varying_axes(jax.typeof(x)) if axes else axes
    return jax.lax.pcast(x, tuple(missing), to="varying") if missing else x


def steady(start: Any, step: Callable[[Any], Any]) -> Any:
    """What a loop starts from, with the sharding and the varying manual axes that its step gives to what it carries.

    On one device it is what was given, and the step is not called.
    """
    kinds = jax.sharding.get_abstract_mesh().axis_types
    if AxisType.Manual not in kinds and AxisType.Explicit not in kinds:
        return start
    if AxisType.Explicit in kinds:  # a `vmap` around a loop wants to know of the mesh also what is not spread over it
        start = jax.tree.map(
            lambda x: x if is_explicit(jax.typeof(x)) else jax.sharding.reshard(x, PartitionSpec()), start
        )
    while True:
        after = jax.tree.map(lambda x, out: typed(x, jax.typeof(out)), start, jax.eval_shape(step, start))
        if jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, start):
            return after
        start = after


def scan(step: Callable[[Any, Any], Any], start: Any, xs: Any, **options: Any) -> Any:
    """`jax.lax.scan` from a `steady` start."""

    def first(carry: Any) -> Any:
        return step(carry, jax.tree.map(lambda x: x[0], xs))[0]

    return jax.lax.scan(step, steady(start, first), xs, **options)


def while_loop(going_on: Callable[[Any], Any], step: Callable[[Any], Any], start: Any) -> Any:
    """`jax.lax.while_loop` from a `steady` start."""
    return jax.lax.while_loop(going_on, step, steady(start, step))


def fori_loop(low: int, high: int, step: Callable[[Any, Any], Any], start: Any) -> Any:
    """`jax.lax.fori_loop` from a `steady` start."""
    return jax.lax.fori_loop(low, high, step, steady(start, lambda state: step(low, state)))


def total(x: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    """The sum over the devices along mesh axes; the array itself where there are none."""
    return jax.lax.psum(x, axes) if axes else x


def is_explicit(aval: Any) -> bool:
    """Whether a type says how its axes are sharded."""
    sharding = getattr(aval, "sharding", None)
    return sharding is not None and AxisType.Explicit in sharding.mesh.axis_types


def collective_axes(eqn: Any) -> tuple[Any, ...]:
    """The named axes, of a mesh or of a `vmap`, that an operation reads other entries along."""
    return () if eqn.primitive.name in _CASTS else tuple(named_axes(eqn))


def named_axes(eqn: Any) -> dict[Any, None]:
    """The named axes of an operation, one that only changes a type included."""
    named = eqn.params.get("axis_name", eqn.params.get("axes", ()))
    named = named if isinstance(named, (tuple, list)) else (named,)
    return dict.fromkeys(axis for axis in named if not isinstance(axis, (int, np.integer)))


def is_checked(axis: Any) -> bool:
    """Whether JAX knows along a named axis which values may differ: for those of a `shard_map` with `check_vma`."""
    return axis in varying_axes(jax.typeof(jax.lax.axis_index(axis)))


_CASTS = frozenset(
    {"pvary", "preduced", "vary_unreduced_cast", "vary_unreduced_cast_p", "reshard", "sharding_constraint"}
)
"""Operations that change a type only."""


def is_of_mesh(eqn: Any) -> bool:
    """Whether an operation can be run only where its mesh, or its named axis, is."""
    shardings = [getattr(v.aval, "sharding", None) for v in (*eqn.invars, *eqn.outvars)]
    return bool(collective_axes(eqn)) or any(s is not None and not s.mesh.empty for s in shardings)


def without_mesh(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of an operation without bodies, were there no mesh: as if all devices held the same."""
    name = eqn.primitive.name
    if name in _CASTS:
        return list(operands)
    if collective_axes(eqn) and all(map(_is_mapped, collective_axes(eqn))):
        if name == "psum_invariant":
            return [jax.lax.psum(x, collective_axes(eqn)) for x in operands]
        return bind(eqn, operands)
    if name == "axis_index":
        return [jnp.zeros((), jnp.int32)]
    if collective_axes(eqn):
        return [jnp.resize(x, out.aval.shape) for x, out in zip(operands, eqn.outvars, strict=False)]
    params = {k: None if isinstance(v, jax.sharding.Sharding) else v for k, v in eqn.params.items()}
    return bind(eqn.replace(params=params), operands)


def _is_mapped(axis: Any) -> bool:
    """Whether a `vmap` maps over an axis of this name here."""
    try:
        jax.lax.axis_index(axis)
    except NameError:
        return False
    return True


def names_of(entry: Any) -> tuple[Any, ...]:
    """The mesh axes of an entry of a `jax.sharding.PartitionSpec`."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def split(x: jax.Array, spec: Sequence[Any], axes: Mapping[Any, int]) -> jax.Array:
    """An array in its parts on the devices of mesh axes, with these in front."""
    places: list[int] = []  # of the mesh axes
    found: list[Any] = []
    for k, entry in enumerate((*spec, *[None] * (x.ndim - len(spec)))):
        names = names_of(entry)
        at = k + len(found)
        sizes = [axes[name] for name in names]
        x = x.reshape(*x.shape[:at], *sizes, x.shape[at] // math.prod(sizes), *x.shape[at + 1 :])
        places += range(at, at + len(names))
        found += names
    ordered = [axis for axis in axes if axis in found]
    x = jnp.moveaxis(x, places, [ordered.index(name) for name in found])
    missing = [k for k, axis in enumerate(axes) if axis not in found]
    x = jnp.expand_dims(x, missing)
    return jnp.broadcast_to(x, (*axes.values(), *x.shape[len(axes) :]))


def joined(x: jax.Array, spec: Sequence[Any], axes: Mapping[Any, int]) -> jax.Array:
    """An array from its parts, with mesh axes in front; where its parts are the same, the first."""
    order = list(axes)
    for k, entry in reversed(list(enumerate(spec))):
        for name in reversed(names_of(entry)):
            at, own = order.index(name), len(order) + k
            x = jnp.moveaxis(x, at, own - 1)
            order.remove(name)
            x = x.reshape(*x.shape[: own - 1], x.shape[own - 1] * x.shape[own], *x.shape[own + 1 :])
    return x[(0,) * len(order)]
