"""Distributions that close over what the program computes: these values become parameters like any other.

A sampler, a bijection, a flow's conditioner may read a parameter that is no leaf of its distribution. Its derivative, its
batch axes and its dependence on earlier draws would go unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._types import PRNGKey, Shape, static_field
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.derivatives.pathwise_check import name_of, pathwise_obstacle, sampler_obstacle
from mcgrad.distributions.wrappers.foreign import ForeignDistribution
from mcgrad.distributions.wrappers.functions import FunctionDistribution

_OF_DRAWS = ("log_prob", "prob", "cdf", "survival")
_OF_UNIFORMS = ("icdf",)


@dataclasses.dataclass(frozen=True, eq=False)
class _Method:
    """A method of a distribution as its operations on `leaves`, an argument, and those of `values` at `positions`."""

    jaxpr: Any
    arrays: tuple[Any, ...]
    positions: tuple[int | None, ...]
    tree: Any

    def __call__(self, leaves: Sequence[Any], values: Sequence[Any], argument: Any) -> Any:
        hidden = [a if i is None else values[i] for a, i in zip(self.arrays, self.positions, strict=True)]
        out = _compat.evaluate(self.jaxpr, [*hidden, *leaves, *jax.tree.leaves(argument)])
        return jax.tree.unflatten(self.tree, out)


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """What a distribution knew where it was drawn from."""

    law: str
    batch_shape: Shape
    event_shape: Any
    discrete: bool
    support_parameters: tuple[str, ...]
    support: Any
    pathwise_obstacle: str | None
    draw: Any


@dataclasses.dataclass(frozen=True)
class ClosedDistribution(Distribution):
    """A distribution with what its methods close over as further parameters.

    Args:
        leaves: those of the distribution.
        values: what its methods close over.
        methods: its methods.
        known: its facts.
    """

    leaves: tuple[Array, ...]
    values: tuple[Array, ...]
    methods: tuple[tuple[str, _Method], ...] = static_field()
    known: _Known = static_field()

    def __post_init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name in (*_OF_DRAWS, *_OF_UNIFORMS) and name in (methods := dict(self.methods)):
            return lambda x: self._at(methods[name], x)
        raise AttributeError(f"{name!r} is not known of {type(self).__name__}")

    def sample(self, key: PRNGKey) -> Any:
        """One draw."""
        return dict(self.methods)["sample"](self.leaves, self.values, key)

    def _at(self, method: _Method, x: Any) -> Array:
        shapes = jax.tree.map(lambda draw: draw.shape, self.known.draw)
        x = jax.tree.map(
            lambda a, s: jnp.broadcast_to(a, jnp.broadcast_shapes(jnp.shape(a), s.shape)), x, self.known.draw
        )
        first, shape = jax.tree.leaves(x)[0], jax.tree.leaves(shapes, is_leaf=lambda s: isinstance(s, tuple))[0]
        fn = lambda x: method(self.leaves, self.values, x)  # noqa: E731
        for _ in range(first.ndim - len(shape)):
            fn = jax.vmap(fn)
        return fn(x)

    @property
    def law(self) -> str:
        """The name of the distribution."""
        return self.known.law

    @property
    def batch_shape(self) -> Shape:
        """Shape of the independent entries."""
        return self.known.batch_shape

    @property
    def event_shape(self) -> Any:
        """Shape of one entry."""
        return self.known.event_shape

    @property
    def event_ndim(self) -> int:
        """Number of event axes."""
        return len(self.known.event_shape)

    @property
    def discrete(self) -> bool:
        """Whether the distribution has a probability mass function."""
        return self.known.discrete

    @property
    def support_parameters(self) -> tuple[str, ...]:
        """The parameters with which the support moves."""
        return self.known.support_parameters

    @property
    def pathwise_obstacle(self) -> str | None:
        """Why the derivative of `sample` would be wrong, or `None`."""
        return self.known.pathwise_obstacle

    @property
    def reparameterized(self) -> bool:
        """Whether the derivative of `sample` is right."""
        return self.known.pathwise_obstacle is None

    def support(self) -> Any:
        """The values of a finite support, or `None`."""
        return self.known.support


def may_close(dist: Any) -> bool:
    """Whether a distribution holds functions or objects that may close over what the program computes."""
    if dist is None or isinstance(dist, (str, bytes, bool, int, float, np.ndarray, np.generic, jax.Array)):
        return False
    if isinstance(dist, (tuple, list)):
        return any(map(may_close, dist))
    if not isinstance(dist, Distribution) or isinstance(dist, (FunctionDistribution, ForeignDistribution)):
        return True
    own = type(dist).__module__.startswith("mcgrad.")
    return not own or any(may_close(getattr(dist, field.name)) for field in dataclasses.fields(dist))


def close(dist: Any, key: PRNGKey) -> Any:
    """The distribution with all that its methods close over as parameters; itself where that is nothing."""
    if not may_close(dist):
        return dist
    leaves, tree = jax.tree.flatten(dist)
    leaves = list(map(jnp.asarray, leaves))
    traced: dict[str, tuple[Any, Sequence[Any], Any]] = {}

    def trace(name: str, argument: Any) -> None:
        def method(given: tuple[Any, Any]) -> Any:
            return getattr(jax.tree.unflatten(tree, given[0]), name)(given[1])

        structs = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        traced[name] = _compat.closed(method, (structs, argument))

    trace("sample", key)
    draw = jax.eval_shape(lambda: jax.tree.unflatten(tree, leaves).sample(key))
    for name in _OF_DRAWS:
        if callable(getattr(dist, name, None)):
            trace(name, draw)
    for name in _OF_UNIFORMS:
        if callable(getattr(dist, name, None)) and not jax.tree.leaves(tuple(dist.event_shape)):
            trace(name, draw)
    hidden = {id(a): a for _, arrays, _ in traced.values() for a in arrays if isinstance(a, _compat.Tracer)}
    if not hidden:
        return dist
    values, at = tuple(hidden.values()), {identity: i for i, identity in enumerate(hidden)}
    methods = {
        name: _Method(
            jaxpr,
            tuple(None if id(a) in at else a for a in arrays),
            tuple(at.get(id(a)) for a in arrays),
            out,
        )
        for name, (jaxpr, arrays, out) in traced.items()
    }

    obstacle = pathwise_obstacle(dist)
    if obstacle is None:
        names = [f"what it closes over ({value.dtype} of shape {value.shape})" for value in values]
        of_values = lambda key, values: methods["sample"](leaves, values, key)  # noqa: E731
        obstacle = sampler_obstacle(of_values, values, name_of(dist), names)
    moving = dist.bounds_close_over if isinstance(dist, ForeignDistribution) else False
    known = _Known(
        law=name_of(dist),
        batch_shape=tuple(dist.batch_shape),
        event_shape=dist.event_shape,
        discrete=bool(getattr(dist, "discrete", False)),
        support_parameters=(
            *getattr(dist, "support_parameters", ()),
            *(("what it closes over",) if moving else ()),
        ),
        support=_support(dist),
        pathwise_obstacle=obstacle,
        draw=draw,
    )
    return ClosedDistribution(tuple(leaves), values, tuple(methods.items()), known)


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
