"""A distribution of another library as its leaves, and what is asked of it before it is used."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WAY_OUT = "Write it with `mcgrad.distribution(sampler, log_prob)`."


@jax.tree_util.register_pytree_with_keys_class
class Rebuilt:
    """A distribution that is built of its leaves when it is asked for.

    Constructors of other libraries run when JAX builds a tree, and some compute with what they get: they fail on the
    placeholders that stand for leaves where only shapes matter.
    """

    def __init__(self, leaves: Any, structure: Any):
        self.leaves, self.structure = tuple(leaves), structure

    @classmethod
    def of(cls, dist: Any) -> Rebuilt:
        """Of a distribution, which is not built again."""
        try:
            paths, tree = jax.tree_util.tree_flatten_with_path(dist)
        except Exception as error:  # as of sampling below
            raise TypeError(
                f"`mcgrad.sample(dist=...)` must be a pytree, got {type(dist).__name__}, which has no leaves: {error} {_WAY_OUT}"
            ) from error
        rebuilt = cls([leaf for _, leaf in paths], (tree, tuple(jax.tree_util.keystr(path) for path, _ in paths)))
        rebuilt.__dict__["dist"] = dist
        return rebuilt

    @functools.cached_property
    def dist(self) -> Any:
        """The distribution; numbers of Python, which some libraries ask for a shape, are arrays."""
        leaves = [jnp.asarray(leaf) if isinstance(leaf, (bool, int, float)) else leaf for leaf in self.leaves]
        return jax.tree.unflatten(self.structure[0], leaves)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        return [*zip(map(jax.tree_util.GetAttrKey, self.structure[1]), self.leaves, strict=True)], self.structure

    @classmethod
    def tree_unflatten(cls, structure: Any, leaves: Any) -> Rebuilt:
        return cls(leaves, structure)


def shapes_of(dist: Any) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct | None]:
    """A draw and its log density, as placeholders, of a distribution of another library; refuses what cannot be used.

    Raises:
        TypeError: if it cannot be drawn from while its parameters are traced, or what it gives has other shapes than it says.
    """
    for leaf in dist.parameters.leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, bool, int, float)):
            raise TypeError(
                f"`mcgrad.sample(dist=...)` must be a pytree of arrays, got {dist.law} with a leaf of type "
                f"{type(leaf).__name__}. {_WAY_OUT}"
            )
    try:
        key = jax.eval_shape(lambda: jax.random.key(0))
        x = jax.eval_shape(lambda dist, key: dist.sample(key), dist, key)
    except Exception as error:  # whatever the library raises: it is the reason, and the user is told it
        said = str(error).strip().split("\n")[0]
        raise TypeError(
            f"`mcgrad.sample(dist=...)` must be a distribution that is drawn from while JAX traces its parameters, got "
            f"{dist.law}: {type(error).__name__}{f': {said}' if said else ''}. {_WAY_OUT}"
        ) from error
    leaves = jax.tree.leaves(x)
    if not isinstance(x, jax.ShapeDtypeStruct):
        raise TypeError(
            f"`mcgrad.sample(dist=...)` must be a distribution whose draw is one array, got {dist.law}, whose draw has "
            f"{len(leaves)}. Draw its parts one after another, each with `mcgrad.sample`."
        )
    shapes = (*dist.batch_shape, *dist.event_shape)
    if x.shape != shapes:
        raise TypeError(
            f"`mcgrad.sample(dist=...)` must be a distribution whose draw has the shape that it says, {shapes}, got "
            f"{dist.law}, whose draw has shape {x.shape}. {_WAY_OUT}"
        )
    try:
        log_prob = jax.eval_shape(lambda dist, x: dist.log_prob(x), dist, x)
    except Exception:  # a density that cannot be asked is none: what needs it refuses
        return x, None
    if log_prob.shape != dist.batch_shape:
        raise TypeError(
            f"`mcgrad.sample(dist=...)` must be a distribution whose log density has its batch shape, {dist.batch_shape}, got "
            f"{dist.law}, whose log density has shape {log_prob.shape}. Wrap it in `mcgrad.Independent`, or give it the shape."
        )
    return x, log_prob
