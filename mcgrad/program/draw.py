"""A random choice while the program runs: what an estimator gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import Shape
from mcgrad.program.relation import Relation
from mcgrad.program.site import Facts, Site, draw_from, under_vmaps


def probability(dist: Any, x: Any) -> Array:
    """Probability of a value, by the law's own `prob` if it has one."""
    own = getattr(dist, "prob", None)
    return own(x) if callable(own) else jnp.exp(dist.log_prob(x))


@dataclasses.dataclass(frozen=True)
class Draw:
    """A random choice while the program runs: what an estimator gets.

    Attributes:
        site: the site as it stands in the program.
        operands: values of the distribution's leaves, the key, and the estimator's leaves.
        relations: for each cost of the program, how it depends on this site (`None` where it does not).
        replicates: `(axis name, number)` of the transform's samples, if there are several.
        constant: for each of the distribution's leaves, whether it is known before the program runs, so that no
            derivative can reach it.
    """

    site: Site
    operands: tuple[Any, ...]
    relations: tuple[Relation | None, ...] = ()
    replicates: tuple[str, int] | None = None
    constant: tuple[bool, ...] = ()

    @property
    def _n(self) -> int:
        return self.site.params["dist_tree"].num_leaves

    @property
    def key(self) -> Array:
        return self.operands[self._n]

    @property
    def plates(self) -> Shape:
        """Shape of the axes along which entries are independent given the parents."""
        return self.site.own_plates

    @property
    def num_plates(self) -> int:
        return len(self.plates)

    @property
    def facts(self) -> Facts:
        return self.site.facts

    @property
    def dist(self) -> Any:
        """The distribution; its leaves carry the axes of enclosing `vmap`s where there are any (see `map`)."""
        return jax.tree.unflatten(self.site.params["dist_tree"], self.operands[: self._n])

    @property
    def moving_parameters(self) -> frozenset[str]:
        """Names of the distribution's fields, and of those of a law inside it, that a derivative may reach."""
        leaves = jax.tree_util.tree_flatten_with_path(self.dist)[0]
        constant = self.constant or (False,) * len(leaves)
        return frozenset(str(path[-1].name) for (path, _), fixed in zip(leaves, constant, strict=True) if not fixed)

    @property
    def mixed_axes(self) -> tuple[int, ...]:
        """Plate axes along which some cost depends on more than one entry."""

        reached = [relation for relation in self.relations if relation is not None]
        return tuple(k for k in range(self.num_plates) if not all(r[k].separate for r in reached))

    def entries_apart(self) -> Array:
        """Masks `[n, *plates]` of the entries that can be perturbed together: all along axes that no cost mixes, else one."""
        masks = jnp.ones((1, *self.plates), bool)
        for k in self.mixed_axes:
            size = self.plates[k]
            shape = [1] * (2 + self.num_plates)
            shape[0], shape[2 + k] = size, size
            masks = (masks[None] & jnp.eye(size, dtype=bool).reshape(shape)).reshape(-1, *self.plates)
        return masks

    def draw(self, index: Any = None) -> Any:
        """One draw with frozen parameters; with an `index`, an independent one for each index."""
        stopped = [jax.lax.stop_gradient(x) for x in self.operands[: self._n]]
        key = self.key if index is None else fold_in(self.key, index)
        return jax.lax.stop_gradient(self._sample(stopped, key))

    def draw_path(self) -> Any:
        """One draw, differentiable in the parameters."""
        return self._sample(self.operands[: self._n], self.key)

    def _sample(self, leaves: Sequence[Any], key: Array) -> Any:
        params = self.site.params
        operands = (*leaves, key, *self.operands[self._n + 1 :])
        outs = draw_from(*operands, dist_tree=params["dist_tree"], levels=params["levels"])
        return jax.tree.unflatten(params["value_tree"], outs)

    def random(self, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(dist, key, *values)` with frozen parameters under the site's `vmap`s: for noise other than a draw of the law."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], key: Array, *values: Any) -> Any:
            return fn(jax.tree.unflatten(tree, leaves), jax.random.clone(key), *values)

        axes = [(list(level[:n]), level[n], *[0] * len(values)) for level in levels]
        return under_vmaps(base, axes)(jax.lax.stop_gradient(list(self.operands[:n])), self.key, *values)

    def map(self, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(dist, *values)` under the site's `vmap`s; the values have the axes of those levels in front."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], _: Array, *values: Any) -> Any:
            return fn(jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), *[0] * (1 + len(values))) for level in levels]
        every_level = jnp.zeros(self.plates[: len(levels)])  # so that a level that maps no leaf has something to map
        return under_vmaps(base, axes)(list(self.operands[:n]), every_level, *values)

    def map_beside(self, index: int, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(key, dist, *values)` under the site's `vmap`s, for what is drawn beside the draw: each index has a key."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], key: Array, *values: Any) -> Any:
            return fn(key, jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), level[n], *[0] * len(values)) for level in levels]
        return under_vmaps(base, axes)(list(self.operands[:n]), fold_in(self.key, index), *values)

    def map_named(self, estimator: Any, index: int, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(estimator, key, dist, *values)` as by `map_beside`, with the arrays of an estimator that the user named here as
        they are where the draw is written; those of any other are the same for the whole batch."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]
        named, arrays = self.site.params["estimator_tree"], list(self.operands[self._n + 1 :])

        def base(leaves: Sequence[Any], key: Array, arrays: Sequence[Any], *values: Any) -> Any:
            own = jax.tree.unflatten(named, arrays) if arrays else estimator
            return fn(own, key, jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), level[n], list(level[n + 1 :]), *[0] * len(values)) for level in levels]
        return under_vmaps(base, axes)(list(self.operands[:n]), fold_in(self.key, index), arrays, *values)

    def log_prob(self, x: Any) -> Array:
        """Log density of a value of the site's shape; of shape `plates`."""
        return self.map(lambda dist, x: dist.log_prob(x), x)

    def prob(self, x: Any) -> Array:
        """Probability of a value of the site's shape, with a finite derivative where it is zero if the law knows one."""
        return self.map(probability, x)

    def estimator_arrays(self) -> list[Array]:
        """The estimator's leaves, with the axes of enclosing `vmap`s in front and the plates' number of axes."""
        n, levels = self._n, self.site.params["levels"]
        batch_ndim = self.site.params["batch_ndim"]
        arrays = []
        for i, leaf in enumerate(map(jnp.asarray, self.operands[n + 1 :])):
            axes = [level[n + 1 + i] for level in levels]
            # Outermost level first: bring its axis to the front, or make one of size 1.
            for depth, axis in enumerate(reversed(axes)):
                leaf = jnp.expand_dims(leaf, depth) if axis is None else jnp.moveaxis(leaf, axis + depth, depth)
            missing = batch_ndim - (leaf.ndim - len(levels))
            leaf = jnp.expand_dims(leaf, tuple(range(len(levels), len(levels) + max(missing, 0))))
            arrays.append(leaf)
        return arrays


def fold_in(key: Array, index: Any) -> Array:
    """`jax.random.fold_in` for an array of keys."""
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, (0, None))
    return fold(jax.random.clone(key), index)
