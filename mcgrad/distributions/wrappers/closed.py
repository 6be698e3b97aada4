"""Distributions that close over what the program computes: these values become parameters like any other.

A sampler, a bijection, a flow's conditioner may read a parameter that is no leaf of its distribution. Its derivative, its
batch axes and its dependence on earlier draws would go unseen.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat, _mesh
from mcgrad._closures import Closed
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.derivatives.pathwise_check import name_of, pathwise_obstacle, sampler_obstacle
from mcgrad.distributions.wrappers.autoregressive import Sequential
from mcgrad.distributions.wrappers.foreign import ForeignDistribution
from mcgrad.distributions.wrappers.functions import FunctionDistribution

_OF_DRAWS = ("log_prob", "prob", "cdf", "survival")


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """What a distribution knew where it was drawn from."""

    law: str
    batch_shape: Shape
    event_shape: Any
    event_ndim: int
    discrete: bool
    causal: bool
    support_parameters: tuple[str, ...]
    support: np.ndarray | None
    pathwise_obstacle: str | None


@dataclasses.dataclass(frozen=True)
class ClosedDistribution(Distribution):
    """A distribution whose methods are operations, with what they close over as further parameters.

    Args:
        leaves: those of the distribution.
        methods: its methods, as functions of the leaves and their argument.
        known: its facts.
    """

    leaves: tuple[Array, ...]
    methods: dict[str, Closed]
    known: _Known = static_field()

    rounds_at_the_end: ClassVar[bool] = False

    def __getattr__(self, name: str) -> Any:
        if name in (*_OF_DRAWS, "icdf") and name in self.methods:
            return functools.partial(self._at, name)
        raise AttributeError(f"{name!r} is not known of {type(self).__name__}")

    def sample(self, key: PRNGKey) -> Any:
        return self.methods["sample"]((self.leaves, key))

    def _at(self, name: str, x: Any) -> Array:
        """A method of an argument of the shape of a draw, or with more axes in front."""
        draw = self.methods["sample"].result
        x = jax.tree.map(lambda a, of: jnp.broadcast_to(a, jnp.broadcast_shapes(jnp.shape(a), of.shape)), x, draw)
        fn = lambda x: self.methods[name]((self.leaves, x))  # noqa: E731
        for _ in range(jax.tree.leaves(x)[0].ndim - jax.tree.leaves(draw)[0].ndim):
            fn = jax.vmap(fn)
        return fn(x)

    @property
    def reparameterized(self) -> bool:
        """Whether the derivative of `sample` is right."""
        return self.known.pathwise_obstacle is None

    def support(self) -> np.ndarray | None:
        return self.known.support


for _fact in (
    "law",
    "batch_shape",
    "event_shape",
    "event_ndim",
    "discrete",
    "causal",
    "support_parameters",
    "pathwise_obstacle",
):
    setattr(ClosedDistribution, _fact, property(operator.attrgetter(f"known.{_fact}")))


def may_close(dist: Any) -> bool:
    """Whether a distribution holds functions or objects that may close over what the program computes."""
    if dist is None or isinstance(dist, (str, bytes, bool, int, float, np.ndarray, np.generic, np.dtype, jax.Array)):
        return False
    if isinstance(dist, (tuple, list)):
        return any(map(may_close, dist))
    if not isinstance(dist, Distribution) or isinstance(dist, (FunctionDistribution, ForeignDistribution, Sequential)):
        return True
    own = type(dist).__module__.startswith("mcgrad.")
    return not own or any(may_close(getattr(dist, field.name)) for field in dataclasses.fields(dist))


def close(dist: Any, key: PRNGKey) -> Any:
    """The distribution with all that its methods close over as parameters; itself where that is nothing."""
    if not may_close(dist):
        return dist
    leaves, tree = jax.tree.flatten(dist)
    leaves = tuple(map(jnp.asarray, leaves))
    structs = tuple(map(_mesh.placeholder, leaves))

    def closed(name: str, argument: Any) -> Closed:
        return Closed.of(lambda given: getattr(jax.tree.unflatten(tree, given[0]), name)(given[1]), (structs, argument))

    sample = closed("sample", key)
    of_scalars = ("icdf",) if tuple(dist.event_shape) == () else ()
    names = [name for name in (*_OF_DRAWS, *of_scalars) if callable(getattr(dist, name, None))]
    methods = {"sample": sample, **{name: closed(name, sample.result) for name in names}}
    if not any(isinstance(array, _compat.Tracer) for method in methods.values() for array in method.arrays):
        return dist

    obstacle = pathwise_obstacle(dist)
    if obstacle is None:
        hidden = {i: array for i, array in enumerate(sample.arrays) if isinstance(array, _compat.Tracer)}

        def draw(key: PRNGKey, values: dict[int, Array]) -> Any:
            arrays = tuple(values.get(i, array) for i, array in enumerate(sample.arrays))
            return dataclasses.replace(sample, arrays=arrays)((leaves, key))

        names = [f"what it closes over ({array.dtype} of shape {array.shape})" for array in hidden.values()]
        obstacle = sampler_obstacle(draw, hidden, name_of(dist), names)
    moving = isinstance(dist, ForeignDistribution) and dist.bounds_close_over
    known = _Known(
        law=name_of(dist),
        batch_shape=tuple(dist.batch_shape),
        event_shape=dist.event_shape,
        event_ndim=getattr(dist, "event_ndim", len(dist.event_shape)),
        discrete=bool(getattr(dist, "discrete", False)),
        causal=bool(getattr(dist, "causal", False)),
        support_parameters=(
            *getattr(dist, "support_parameters", ()),
            *(("what it closes over",) if moving else ()),
        ),
        support=_support(dist),
        pathwise_obstacle=obstacle,
    )
    return ClosedDistribution(leaves, methods, known)


def _support(dist: Any) -> np.ndarray | None:
    """The values of a finite support, if they are known before the run."""
    support = getattr(dist, "support", None)
    if not callable(support):
        return None
    try:
        with jax.ensure_compile_time_eval():
            values = support()
            return None if values is None else np.asarray(values)
    except jax.errors.TracerArrayConversionError:
        return None
