"""The site primitive: one random choice of a program, visible in its jaxpr.

`sample` binds a primitive whose operands are the distribution's leaves, the key and the estimator's leaves, and whose
meaning is the distribution's own `sample`, so that a program runs, jits and vmaps without any transform. A `vmap` is
recorded as one more level of `in_axes`; sampling and log densities are then the base functions under the same nested
`vmap`s. The axes of a site's value are: vmapped levels, the distribution's batch axes (both are *plates*: entries
independent given the parents), its event axes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.derivatives.pathwise_check import pathwise_obstacle
from mcgrad.distributions.wrappers.foreign import as_distribution
from mcgrad.program.estimator import Estimator
from mcgrad.program.trace import Equation, Value

if TYPE_CHECKING:
    from mcgrad.program.dependence import Relation


def sample(
    key: PRNGKey, dist: Any, estimator: Estimator | None = None, *, name: str | None = None, proposal: Any = None
) -> Array:
    """A random choice: draws from a distribution, and marks the draw so that `mcgrad` can differentiate through it.

    Without a transform this is `dist.sample(key)`. Under `mcgrad.expectation` and the gradient transforms the site's
    estimator makes the derivatives of the program's expectation in the parameters of `dist` unbiased.

    Plain `jax.grad` through a site is the pathwise derivative where the distribution has one, and an error elsewhere.

    Args:
        key: a typed key (`jax.random.key`), used for this draw only.
        dist: a distribution of mcgrad, NumPyro, Distrax or TFP-on-JAX, or any pytree with `sample(key)`,
            `log_prob(x)`, `batch_shape`, `event_shape` and `reparameterized`.
        estimator: how the derivative is estimated, for instance `mcgrad.Score()`; by default the transform's.
        name: what `explain` and error messages call this site.
        proposal: a distribution to draw from in place of `dist` under a transform, or a function of `dist` that returns
            it: the costs that the draw reaches are weighted, see `mcgrad.ImportanceSampling`, for which this is short.

    Returns:
        One draw, of shape `dist.batch_shape + dist.event_shape`.

    Raises:
        TypeError: if `key` is no typed scalar key, `dist` or `proposal` no distribution, or `estimator` no estimator.
        ValueError: for both an `estimator` and a `proposal`.

    Example:
        >>> import jax, mcgrad
        >>> mcgrad.sample(jax.random.key(0), mcgrad.Normal(0.0, 1.0)).shape
        ()
    """
    check_key(key, "sample")
    if estimator is not None and not isinstance(estimator, Estimator):
        raise TypeError(
            f"`mcgrad.sample(estimator=...)` must be an estimator such as `mcgrad.Score()`, got {estimator!r}."
        )
    if proposal is not None:
        if estimator is not None:
            raise ValueError(
                "`mcgrad.sample(proposal=...)` must stand without `estimator`: it chooses `mcgrad.ImportanceSampling`, got also "
                f"{estimator!r}. Leave one of them out."
            )
        from mcgrad.estimators.importance_sampling import ImportanceSampling  # built on this module

        estimator = ImportanceSampling(proposal)
    dist = as_distribution(dist)
    if estimator is not None:
        estimator = estimator.closed(dist)
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


def check_key(key: Any, where: str) -> None:
    """Refuse what is not one typed key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        old = dtype == np.uint32 and getattr(key, "shape", ())[-1:] == (2,)
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be a typed key, got "
            + (f"an old-style uint32 key of shape {key.shape}. " if old else f"{_describe(key)}. ")
            + "Make keys with `jax.random.key(seed)`"
            + (", or wrap this one with `jax.random.wrap_key_data(key)`." if old else ".")
        )
    if key.shape != ():
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be one key, got an array of keys of shape {key.shape}. "
            "Use `jax.vmap` over the keys, or give the distribution's parameters the batch shape that you want."
        )


def _describe(x: Any) -> str:
    is_array = isinstance(x, (np.ndarray, jax.Array))
    return f"an array of {x.dtype} and shape {x.shape}" if is_array else f"{type(x).__name__}: {x!r}"


def _nested_vmap(fn: Callable, levels: Sequence[Sequence[Any]]) -> Callable:
    for axes in levels:  # the innermost `vmap` came first
        fn = jax.vmap(fn, in_axes=tuple(axes))
    return fn


def _draw(*operands: Array, dist_tree: Any, levels: Any, **_: Any) -> list[Array]:
    n = dist_tree.num_leaves

    def base(*ops: Array) -> list[Array]:
        # Estimators evaluate the rest of a program several times with the same keys on purpose: common random numbers.
        key = jax.random.clone(ops[n])
        return jax.tree.leaves(jax.tree.unflatten(dist_tree, ops[:n]).sample(key))

    return _nested_vmap(base, levels)(*operands)


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
        return _draw(*operands, **params)

    return jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])


sample_p = _compat.new_primitive("mcgrad_sample", run=_draw, batch=_batch, jvp=_jvp)


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
    def estimator(self) -> Estimator | None:
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


def probability(dist: Any, x: Any) -> Array:
    """Probability of a value, by the law's own `prob` if it has one."""
    own = getattr(dist, "prob", None)
    return own(x) if callable(own) else jnp.exp(dist.log_prob(x))


@dataclasses.dataclass(frozen=True)
class SiteHandle:
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

        def apart(relation: Relation, k: int) -> bool:
            same_axis = [w for w in relation if w.axis is not None and w.axis == relation[k].axis]
            return relation[k].separate and len(same_axis) <= 1

        reached = [relation for relation in self.relations if relation is not None]
        return tuple(k for k in range(self.num_plates) if not all(apart(r, k) for r in reached))

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
        outs = _draw(*operands, dist_tree=params["dist_tree"], levels=params["levels"])
        return jax.tree.unflatten(params["value_tree"], outs)

    def random(self, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(dist, key, *values)` with frozen parameters under the site's `vmap`s: for noise other than a draw of the law."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], key: Array, *values: Any) -> Any:
            return fn(jax.tree.unflatten(tree, leaves), jax.random.clone(key), *values)

        axes = [(list(level[:n]), level[n], *[0] * len(values)) for level in levels]
        return _nested_vmap(base, axes)(jax.lax.stop_gradient(list(self.operands[:n])), self.key, *values)

    def map(self, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(dist, *values)` under the site's `vmap`s; the values have the axes of those levels in front."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], _: Array, *values: Any) -> Any:
            return fn(jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), *[0] * (1 + len(values))) for level in levels]
        every_level = jnp.zeros(self.plates[: len(levels)])  # so that a level that maps no leaf has something to map
        return _nested_vmap(base, axes)(list(self.operands[:n]), every_level, *values)

    def map_beside(self, index: int, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(key, dist, *values)` under the site's `vmap`s, for what is drawn beside the draw: each index has a key."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]

        def base(leaves: Sequence[Any], key: Array, *values: Any) -> Any:
            return fn(key, jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), level[n], *[0] * len(values)) for level in levels]
        return _nested_vmap(base, axes)(list(self.operands[:n]), fold_in(self.key, index), *values)

    def map_named(self, estimator: Estimator, index: int, fn: Callable[..., Any], *values: Any) -> Any:
        """`fn(estimator, key, dist, *values)` as by `map_beside`, with the arrays of an estimator that the user named here as
        they are where the draw is written; those of any other are the same for the whole batch."""
        n, tree, levels = self._n, self.site.params["dist_tree"], self.site.params["levels"]
        named, arrays = self.site.params["estimator_tree"], list(self.operands[self._n + 1 :])

        def base(leaves: Sequence[Any], key: Array, arrays: Sequence[Any], *values: Any) -> Any:
            own = jax.tree.unflatten(named, arrays) if arrays else estimator
            return fn(own, key, jax.tree.unflatten(tree, leaves), *values)

        axes = [(list(level[:n]), level[n], list(level[n + 1 :]), *[0] * len(values)) for level in levels]
        return _nested_vmap(base, axes)(list(self.operands[:n]), fold_in(self.key, index), arrays, *values)

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
