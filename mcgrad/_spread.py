"""Samples spread over devices: each device runs its own, and only their means meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mcgrad import _mesh


class Spread(NamedTuple):
    """Mesh axes that samples are spread over.

    Attributes:
        mesh: the mesh.
        axes: names of its axes.
    """

    mesh: Any
    axes: tuple[str, ...]

    @property
    def num_devices(self) -> int:
        """How many parts the samples are split into."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def run(self, fn: Callable[..., tuple[Any, Any]], xs: Any, arrays: Sequence[Any] = ()) -> tuple[Any, Any]:
        """`fn` of the part of `xs` that each device has: the mean of its first results, and its second ones, concatenated.

        `fn` also gets `arrays`, as a whole: those that JAX does not let it close over, see `not_closed_over`.

        JAX does not check which values differ from device to device: a program need not say so of what its loops carry.
        """
        spec = PartitionSpec(self.axes)

        def local(xs: Any, *arrays: Any) -> tuple[Any, Any]:
            try:
                value, others = fn(xs, *arrays)
            except ValueError as error:
                if "mesh passed to shard_map" not in str(error):
                    raise
                raise NotImplementedError(
                    "`mcgrad.expectation(sharding=...)` must spread a program that runs on one device, got one with its own "
                    "`jax.shard_map`. Leave it out, and spread the samples by the program's own mesh."
                ) from error
            return jax.tree.map(lambda x: x[None], value), others

        if any(kind == AxisType.Explicit for kind in self.mesh.axis_types):
            xs = jax.sharding.reshard(xs, NamedSharding(self.mesh, spec))
            arrays = [jax.sharding.reshard(x, NamedSharding(self.mesh, PartitionSpec())) for x in arrays]
        # All axes of the mesh are manual: with some of them automatic JAX 0.9 runs it only under `jit`, and 0.12 cannot say how
        # the gradient is sharded.
        in_specs = (spec, *[PartitionSpec()] * len(arrays))
        mapped = jax.shard_map(local, mesh=self.mesh, in_specs=in_specs, out_specs=spec, check_vma=False)
        values, others = mapped(xs, *arrays)
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), values), others


def not_closed_over(tree: Any) -> tuple[list[jax.Array], Callable[[Sequence[Any]], Any]]:
    """The arrays of a pytree that the types of an explicit mesh tell of, which `jax.shard_map` must be given; and a function that
    puts others in their place.
    """
    leaves, structure = jax.tree.flatten(tree)
    at = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array) and _mesh.is_explicit(jax.typeof(x))]

    def put(arrays: Sequence[Any]) -> Any:
        found = dict(zip(at, arrays, strict=True))
        return jax.tree.unflatten(structure, [found.get(i, x) for i, x in enumerate(leaves)])

    return [leaves[i] for i in at], put


def check_sharding(sharding: Any, where: str) -> None:
    """Refuse what is not a sharding of one axis."""
    if sharding is None:
        return
    if not isinstance(sharding, (NamedSharding, PartitionSpec)):
        raise TypeError(
            f"`mcgrad.{where}(sharding=...)` must be a `jax.sharding.NamedSharding` or a `jax.sharding.PartitionSpec`, got "
            f'{sharding!r}. Pass `jax.P("data")` under `jax.set_mesh(mesh)`, or `NamedSharding(mesh, jax.P("data"))`.'
        )
    spec = sharding.spec if isinstance(sharding, NamedSharding) else sharding
    if len(spec) != 1 or not isinstance(spec[0], (str, tuple)):
        raise ValueError(
            f"`mcgrad.{where}(sharding=...)` must shard one axis, that of the samples, got {spec}. Pass "
            '`jax.P("data")`, or `jax.P(("data", "model"))` for several mesh axes.'
        )


def spread_over(sharding: Any, num_samples: int, chunk_size: int | None, where: str) -> Spread | None:
    """The mesh axes that a sharding, checked by `check_sharding`, spreads samples over; `None` for no sharding."""
    if sharding is None:
        return None
    current = jax.sharding.get_abstract_mesh()
    named = isinstance(sharding, NamedSharding)
    mesh: Any = sharding.mesh if named else current
    (entry,) = sharding.spec if named else sharding
    axes = (entry,) if isinstance(entry, str) else tuple(entry)
    what = f"`mcgrad.{where}(sharding=...)`"
    kinds = dict(zip(current.axis_names, current.axis_types, strict=True))
    if mapped := [axis for axis, kind in kinds.items() if kind == AxisType.Manual]:
        axis = next((axis for axis in axes if axis in mapped), mapped[0])
        raise ValueError(
            f"{what} must be used where nothing is mapped over devices yet, got {axes[0]!r} inside `jax.shard_map` or `jax.pmap` "
            f"over {axis!r}. Leave it out: each device then has samples of its own, if its key is its own."
        )
    if named and not current.empty and sharding.mesh.abstract_mesh != current:
        raise ValueError(
            f"{what} must be of the mesh that is set, {dict(current.shape)}, got one of the mesh {dict(mesh.shape)}. Pass the "
            f"`jax.sharding.PartitionSpec` alone, {sharding.spec}."
        )
    if missing := [axis for axis in axes if axis not in mesh.axis_names]:
        there = f"the mesh {dict(mesh.shape)}" if mesh.axis_names else "no mesh"
        raise ValueError(
            f"{what} must name axes of the mesh, got {missing[0]!r} where there is {there}. Set it by `jax.set_mesh(mesh)`, or "
            f"pass `NamedSharding(mesh, {PartitionSpec(entry)})`."
        )
    num = Spread(mesh, axes).num_devices
    if num_samples % num:
        raise ValueError(
            f"{what} must spread samples over as many devices as divide `num_samples`, got {num} devices for {num_samples} "
            f"samples. Take {-(-num_samples // num) * num} samples."
        )
    if chunk_size is not None and num_samples // num % chunk_size:
        raise ValueError(
            f"`mcgrad.{where}(chunk_size=...)` must divide the samples of one device, {num_samples // num} of {num_samples} over "
            f"{num} devices, got {chunk_size}. Take a divisor of {num_samples // num}."
        )
    return Spread(mesh, axes)
