"""A random choice while the program runs: what an estimator gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _mesh
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.classes import Chances
from mcgrad.distributions.numerics.arithmetic import open_uniform
from mcgrad.program.bring import bring
from mcgrad.program.density import log_density, probability
from mcgrad.program.point_sets import Samples, draw_from_uniform, total_of_others
from mcgrad.program.relation import Relation
from mcgrad.program.site import Facts, Site, under_vmaps
from mcgrad.program.surrogates import signed_term
from mcgrad.program.thresholds import Crossings


def placeholder(site: Site) -> Any:
    """Placeholders of a value of a site, with its shapes and dtypes."""
    outputs = site.equation.outputs
    return site.recall("value", lambda: site.value_of([_mesh.placeholder(value.aval) for value in outputs]))


def kind_of(x: Any) -> str:
    """In words, the kind of numbers in an array: what a program does with one kind may be silently wrong for another."""
    kinds = {jnp.floating: "floats", jnp.integer: "integers", jnp.bool_: "booleans"}
    return next((name for kind, name in kinds.items() if jnp.issubdtype(jnp.result_type(x), kind)), "others")


def check_value(site: Site, x: Any, what: str, *, kinds: bool = True) -> None:
    """Refuse what has not the shapes of a value of a site, nor its kind of numbers; `what` says where it was passed."""
    (own, own_tree), (leaves, tree) = jax.tree.flatten(placeholder(site)), jax.tree.flatten(x)
    wanted, got = ([(kind_of(leaf), np.shape(leaf)) for leaf in each] for each in (own, leaves))
    same = wanted == got if kinds else [shape for _, shape in wanted] == [shape for _, shape in got]
    if tree == own_tree and same:
        return

    def written(each: Any) -> str:
        return " and ".join(f"{kind} of shape {shape}" for kind, shape in each) or "nothing"

    raise ValueError(
        f"{what} must be a value of {site.describe()}, {written(wanted)}, got {written(got)}. To change some entries of a draw "
        "`x`, write `jnp.where(mask, other, x)`."
    )


@dataclasses.dataclass(frozen=True)
class Draw:
    """A random choice while the program runs: what an estimator gets.

    Attributes:
        site: the site as it stands in the program.
        operands: values of the distribution's leaves, the key, and the estimator's leaves.
        relations: for each cost of the program, how it depends on this site (`None` where it does not).
        replicates: `(axis names, number)` of the transform's samples, if there are several.
        samples: the samples of the transform that share a set of points, if this draw has one.
        constant: positions of the distribution's leaves that are known before the program runs, so that no derivative can
            reach them.
        crossings: where comparisons of this draw change, for an estimator that follows thresholds; `None` if there are none.
        excludes: whether its parameters are made of an infinite constant, as log odds of excluded values are.
    """

    site: Site
    operands: tuple[Any, ...]
    relations: tuple[Relation | None, ...] = ()
    replicates: tuple[tuple[str, ...], int] | None = None
    constant: frozenset[int] = frozenset()
    samples: Samples | None = None
    crossings: Crossings | None = None
    excludes: bool = False

    @property
    def _n(self) -> int:
        return len(self.site.parameters)

    @property
    def key(self) -> Array:
        """The key of the draw, one for each entry along the vmapped axes; to draw something *instead* of `sample`."""
        return self.operands[self._n]

    def key_beside(self, index: Any) -> Array:
        """A key for something drawn *in addition* to the draw, a different one for each index."""
        return fold_in(self.key, index)

    @property
    def plates(self) -> Shape:
        """Shape of the axes along which entries are independent given the parents: vmapped axes, then batch axes."""
        return self.site.own_plates

    @property
    def num_plates(self) -> int:
        return len(self.plates)

    @property
    def facts(self) -> Facts:
        return self.site.facts

    @property
    def dist(self) -> Any:
        """The distribution, for a draw under no `vmap`.

        Raises:
            ValueError: under a `vmap` of the program, whose axes its parameters have or have not; see `under_vmaps`.
        """
        if self.site.num_levels:
            raise ValueError(
                f"`draw.dist` must be read of a draw under no `vmap` of the program, got {self.site.describe()}, under "
                f"{self.site.num_levels}, whose axes may stand anywhere in its parameters. Use "
                "`draw.under_vmaps(lambda dist, x: ..., x)`: a function of the distribution as it is at that line. "
                "`frozen=True` holds its parameters fixed."
            )
        return self.site.dist_of(self.operands[: self._n])

    @property
    def by_log_odds(self) -> bool:
        """Whether what has no probability gets none as parameters move: it is excluded by log odds of `-inf`."""
        dist = self.site.base_dist
        return isinstance(dist, Chances) and dist.probs is None

    @property
    def moving_parameters(self) -> frozenset[str]:
        """Names of the distribution's fields, and of those of a distribution inside it, that a derivative may reach."""
        paths = jax.tree_util.tree_flatten_with_path(self.site.base_dist)[0]
        return frozenset(str(path[-1].name) for i, (path, _) in enumerate(paths) if i not in self.constant)

    @property
    def mixed_axes(self) -> tuple[int, ...]:
        """Plate axes along which some cost depends on more than one entry."""

        reached = [relation for relation in self.relations if relation is not None]
        return tuple(k for k in range(self.num_plates) if not all(r[k].separate for r in reached))

    def entries_apart(self) -> Array:
        """Masks `[n, *plates]` of entries that can be perturbed together: all along axes that no cost mixes, else one."""
        masks = jnp.ones((1, *self.plates), bool)
        for k in self.mixed_axes:
            size = self.plates[k]
            shape = [1] * (2 + self.num_plates)
            shape[0], shape[2 + k] = size, size
            masks = (masks[None] & jnp.eye(size, dtype=bool).reshape(shape)).reshape(-1, *self.plates)
        return self.on_plates(masks, 1)

    def on_plates(self, x: Array, at: int = 0) -> Array:
        """An array whose axes from `at` on are the plates, with the sharding that the draw has along them."""
        return _mesh.typed(x, self.site.equation.outputs[0].aval, self.num_plates, at)

    def under_vmaps(
        self,
        fn: Callable[..., Any],
        *values: Any,
        key: Array | None = None,
        estimator: Any = None,
        beside: Draw | None = None,
        frozen: bool = False,
    ) -> Any:
        """A function of the distribution, evaluated inside the `vmap`s that surround the draw in the program.

        Args:
            fn: `fn(estimator, key, dist, beside, *values)`, without those that are not given; `dist` has the shapes that
                it has at the line of the draw.
            values: pytrees of arrays with the axes of those `vmap`s in front.
            key: `draw.key` or one of `draw.key_beside`.
            estimator: the estimator that asks. If the user named it at this draw, its arrays are batched like those of the
                draw; otherwise they are the same for the whole batch.
            beside: the draw of this site on another path, of which the function gets the distribution.
            frozen: whether the distribution's parameters are held fixed.

        Returns:
            What `fn` returns, with the axes of the `vmap`s in front.
        """
        n, site = self._n, self.site
        leaves, arrays = list(self.operands[:n]), list(self.operands[n + 1 :])
        keys = [] if key is None else [key]
        others = [] if beside is None else [list(beside.operands[:n])]

        def base(
            leaves: list[Any], others: list[list[Any]], keys: list[Any], arrays: list[Any], _: Array, *values: Any
        ) -> Any:
            # Estimators evaluate the rest of a program several times with the same keys on purpose: common random numbers.
            given = [jax.random.clone(key) for key in keys]
            if estimator is not None:
                given.insert(0, site.named_estimator(arrays) if arrays else estimator)
            return fn(*given, *map(site.dist_of, (leaves, *others)), *values)

        axes = [
            (
                list(level[:n]),
                [list(level[:n])] * len(others),
                [level[n]] * len(keys),
                list(level[n + 1 :]),
                *[0] * (1 + len(values)),
            )
            for level in site.levels
        ]
        # So that a level that maps nothing else has something to map.
        every_level = jnp.zeros(self.plates[: site.num_levels])
        leaves, others = jax.lax.stop_gradient((leaves, others)) if frozen else (leaves, others)
        mapped = jax.tree.map(site.along_vmaps, (every_level, *values))
        return _mesh.automatic(under_vmaps(base, axes), (leaves, others, keys, arrays, *mapped), self._specs)

    def _specs(self, found: Any) -> list[list[Any]]:
        """How results of a function of the distribution are sharded: as the draw along the `vmap`s and the batch axes, which may
        have one axis more in front.
        """
        levels, batch = self.site.num_levels, self.plates[self.site.num_levels :]

        def at(shape: Shape) -> int:
            return next((k for k in (levels, levels + 1) if shape[k : k + len(batch)] == batch), len(shape))

        return [self._spec(x.ndim, levels, at(x.shape)) for x in jax.tree.leaves(found)]

    def _spec(self, ndim: int, num_first: int, at: int) -> list[Any]:
        """Of an array with the first plates in front and the others from an axis on."""
        own = _mesh.spec(self.site.equation.outputs[0].aval)[: self.num_plates]
        return [*own[:num_first], *[None] * (at - num_first), *own[num_first:], *[None] * ndim][:ndim]

    def represented(self, represent: Callable[[Draw], Any]) -> Any:
        """The points of an estimator, computed as if all axes of a mesh were automatic; arrays keep the sharding of the draw."""
        found: list[Any] = []

        def arrays(*operands: Any) -> dict[str, Any]:
            found.append(represent(dataclasses.replace(self, operands=operands)))
            fields = {field.name: getattr(found[0], field.name) for field in dataclasses.fields(found[0])}
            return {name: value for name, value in fields.items() if isinstance(value, jax.Array)}

        def specs(arrays: dict[str, Any]) -> list[list[Any]]:
            return [self._spec(x.ndim, 0, {"value": 0, "mixing": 2}.get(name, 1)) for name, x in sorted(arrays.items())]

        spread = _mesh.automatic(arrays, self.operands, specs)
        return dataclasses.replace(found[0], **spread)

    def sample(self, index: Any = None) -> Any:
        """One draw with frozen parameters; with an `index`, an independent one for each index."""
        if index is None:
            return jax.lax.stop_gradient(self.under_vmaps(self._sampled, key=self.key, frozen=True))
        key = self.key_beside(index)
        return jax.lax.stop_gradient(self.under_vmaps(lambda key, dist: dist.sample(key), key=key, frozen=True))

    def sample_path(self) -> Any:
        """One draw, differentiable in the parameters."""
        return self.under_vmaps(self._sampled, key=self.key)

    def _sampled(self, key: PRNGKey, dist: Any) -> Any:
        samples = self.samples
        if samples is None:
            return dist.sample(key)
        dtype = jnp.result_type(
            jnp.float32, *(x for x in jax.tree.leaves(dist) if jnp.issubdtype(x.dtype, jnp.floating))
        )
        x = draw_from_uniform(dist, lambda shape: samples.uniform(key, shape, dtype))
        return x.astype(self.site.equation.outputs[0].dtype)

    def uniform(self, *shape: int, dtype: Any, index: Any) -> Array:
        """Uniform noise in (0, 1) of shape `[*plates, *shape]`.

        Args:
            shape: of the noise for each entry.
            dtype: of the noise.
            index: a number, for noise beside the draw, independent of it and of that of other numbers. `None` for noise from the
                key of the draw, in place of `draw.sample()`: never beside it, which is made of the same bits.
        """
        key = self.key if index is None else self.key_beside(index)
        make = open_uniform if self.samples is None or index is not None else self.samples.uniform
        return self.under_vmaps(lambda key, dist: make(key, (*dist.batch_shape, *shape), dtype), key=key)

    @property
    def num_others(self) -> int:
        """How many of the transform's samples are independent of this one at this draw."""
        if self.replicates is None:
            return 0
        return self.replicates[1] - 1 if self.samples is None else self.samples.num_others

    def total_of_others(self, x: Array) -> Array:
        """The sum over the samples that are independent of this one at this draw; held fixed."""
        assert self.replicates is not None
        return total_of_others(jax.lax.stop_gradient(x), self.replicates[0], self.samples)

    def log_prob(self, x: Any) -> Array:
        """Log density of a value of the site's shape; of shape `plates`."""
        check_value(self.site, x, "`draw.log_prob(x)`", kinds=False)
        return self.under_vmaps(log_density, x)

    def prob(self, x: Any) -> Array:
        """Probability of a value of the site's shape, with a finite derivative where it is zero if the distribution has one."""
        check_value(self.site, x, "`draw.prob(x)`", kinds=False)
        return self.under_vmaps(probability, x)

    def per_cost(
        self,
        reached: Callable[..., Array],
        otherwise: Callable[..., Array],
        *costs: Sequence[Array],
    ) -> tuple[Array, ...]:
        """`reached(relation, *cost)` for each cost that the draw reaches, `otherwise(*cost)` for each other.

        Args:
            reached: gets how the cost depends on the draw, for `bring`, and its entry of each of `costs`.
            otherwise: gets its entry of each of `costs`.
            costs: sequences with an entry for each cost of the program.
        """
        each = zip(self.relations, *costs, strict=True)
        return tuple(otherwise(*cost) if relation is None else reached(relation, *cost) for relation, *cost in each)

    def signed_terms(
        self, coefficient: Array, costs: Sequence[Array], *, every_order: bool = False
    ) -> tuple[Array, ...]:
        """For each cost, zero with the derivative `d coefficient * cost`; a second derivative raises, if not `every_order`.

        Args:
            coefficient: zero in value, of shape `plates`; costs that do not depend on the draw get no term.
            costs: what to multiply by the coefficients of the entries that each cost depends on.
            every_order: whether further derivatives are those of the coefficient, the costs held fixed.
        """

        def term(relation: Relation, cost: Array) -> Array:
            brought = bring(coefficient, relation, cost.shape).astype(cost.dtype)
            brought = jnp.broadcast_to(brought, cost.shape)
            return brought * jax.lax.stop_gradient(cost) if every_order else signed_term(brought, cost)

        return self.per_cost(term, jnp.zeros_like, costs)

    def named_estimator(self) -> Any:
        """The estimator that the user named; its leaves have the axes of enclosing `vmap`s in front and one axis for each plate."""
        n, site = self._n, self.site
        num_levels = site.num_levels
        arrays = []
        for i, leaf in enumerate(map(jnp.asarray, self.operands[n + 1 :])):
            axes = [level[n + 1 + i] for level in site.levels]
            # Outermost level first: bring its axis to the front, or make one of size 1.
            for depth, axis in enumerate(reversed(axes)):
                leaf = jnp.expand_dims(leaf, depth) if axis is None else jnp.moveaxis(leaf, axis + depth, depth)
            missing = self.num_plates - leaf.ndim
            arrays.append(jnp.expand_dims(leaf, tuple(range(num_levels, num_levels + max(missing, 0)))))
        return site.named_estimator(arrays)


def fold_in(key: PRNGKey | Array, index: Any) -> Array:
    """`jax.random.fold_in` for an array of keys."""
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, (0, None))
    return fold(jax.random.clone(key), index)
