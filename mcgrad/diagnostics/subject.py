"""A distribution that is checked: its draws, and its methods as functions of NumPy arrays with a leading axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad._types import PRNGKey, Shape
from mcgrad.distributions.derivatives.pathwise_check import influences
from mcgrad.distributions.wrappers.base import leaf_names

_BLOCK = 4096  # points that a method gets at once, so that one program serves all


class Subject:
    """A distribution `make(params)` with `num_samples` draws.

    Attributes:
        dist: the distribution.
        leaves: those of the parameters; `names`: theirs.
        num_samples: of its draws.
        other_key: for what else is drawn.
        batch_shape: of the distribution, with `entries` entries.
    """

    def __init__(self, make: Callable[[Any], Any], params: Any, key: PRNGKey, num_samples: int):
        self.dist, self.num_samples = make(params), num_samples
        leaves, self.tree = jax.tree.flatten(params)
        self.names = getattr(params, "_leaf_names", None) or leaf_names(params)
        self.leaves = tuple(map(jnp.asarray, leaves))
        draw_key, self.other_key, seed_key = jax.random.split(key, 3)
        self.seed = int(jax.random.bits(seed_key, dtype=jnp.uint32))
        self._keys = jax.random.split(draw_key, num_samples)
        self._make = make
        self.batch_shape: Shape = tuple(self.dist.batch_shape)
        self.entries = math.prod(self.batch_shape)

    def of(self, leaves: Any) -> Any:
        """The distribution with other parameters."""
        return self._make(jax.tree.unflatten(self.tree, leaves))

    @functools.cached_property
    def moves_support(self) -> list[bool]:
        """Whether the support moves with each parameter."""
        moving = tuple(getattr(self.dist, "support_parameters", ()))
        names = getattr(self.dist, "_leaf_names", None) or leaf_names(self.dist)
        which = [i for i, name in enumerate(names) if any(name == m or name.endswith(f".{m}") for m in moving)]
        if moving and not which:  # told by names that no leaf has
            return [True] * len(self.leaves)
        return influences(lambda *leaves: [jax.tree.leaves(self.of(leaves))[i] for i in which], self.leaves)

    @property
    def keys(self) -> Any:
        """Of the draws, which are drawn again where they are differentiated."""
        return jax.random.clone(self._keys)

    # Draws

    @functools.cached_property
    def draws(self) -> Any:
        """As they are, with an axis of draws in front."""
        return jax.jit(lambda leaves, keys: jax.vmap(self.of(leaves).sample)(keys))(self.leaves, self.keys)

    @property
    def trees(self) -> bool:
        """Whether a draw has several arrays."""
        return len(jax.tree.leaves(self.draws)) != 1 or not hasattr(self.draws, "shape")

    @property
    def draw_shapes(self) -> Any:
        return jax.tree.map(lambda leaf: leaf.shape[1:], self.draws)

    @property
    def wanted_shapes(self) -> Any:
        is_shape = lambda s: isinstance(s, tuple) and all(isinstance(n, (int, np.integer)) for n in s)  # noqa: E731
        return jax.tree.map(lambda s: (*self.batch_shape, *s), self.dist.event_shape, is_leaf=is_shape)

    @property
    def share_not_finite(self) -> float:
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(self.draws)]
        return max(float(np.mean(~np.isfinite(leaf))) if leaf.size else 0.0 for leaf in leaves)

    @functools.cached_property
    def flat(self) -> np.ndarray:
        """The draws as numbers `[n, entries, event_size]`."""
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(self.draws)]
        return np.concatenate([leaf.reshape(self.num_samples, self.entries, -1) for leaf in leaves], axis=-1)

    @property
    def event_size(self) -> int:
        return self.flat.shape[-1]

    @property
    def scalar(self) -> bool:
        return not self.trees and self.draws.shape[1:] == self.batch_shape

    @property
    def numbers(self) -> np.ndarray:
        """The draws `[n, entries]` of a distribution of numbers."""
        return self.flat[..., 0]

    @property
    def discrete(self) -> bool:
        return bool(getattr(self.dist, "discrete", False))

    @functools.cached_property
    def values(self) -> np.ndarray | None:
        """The values of a finite support `[m, *event]`, if they are known."""
        support = getattr(self.dist, "support", None)
        found = support() if callable(support) and not self.trees else None
        return None if found is None else np.asarray(found, np.float64)

    def match(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the values each draw is `[n, entries]`, -1 for none; and the order of the values."""
        rows = values.reshape(len(values), -1)
        together = np.concatenate([rows, self.flat.reshape(-1, self.event_size)])
        unique, inverse = np.unique(together, axis=0, return_inverse=True)
        place = np.full(len(unique), -1)
        place[np.ravel(inverse)[: len(rows)]] = np.arange(len(rows))
        drawn = place[np.ravel(inverse)[len(rows) :]]
        return drawn.reshape(self.num_samples, self.entries), np.lexsort(rows.T[::-1])

    # Precision

    @property
    def draw_dtype(self) -> Any:
        return jax.tree.leaves(self.draws)[0].dtype

    @property
    def epsilon(self) -> float:
        """The rounding of a draw, or of a density where draws are integers."""
        floating = jnp.issubdtype(self.draw_dtype, jnp.floating)
        return float(jnp.finfo(self.draw_dtype if floating else self.log_probs.dtype).eps)

    @property
    def point_epsilon(self) -> float:
        return float(jnp.finfo(self.point_dtype).eps)

    @property
    def point_dtype(self) -> Any:
        """Of points at which densities are asked: draws of 16 bits are too coarse for quadrature."""
        return jnp.promote_types(self.draw_dtype, jnp.float32)

    @functools.cached_property
    def rounding(self) -> float:
        """The relative error of a density, from that of its logarithm."""
        if self.log_prob is None:
            return 4 * self.epsilon
        logs = np.abs(np.nan_to_num(self.log_probs, neginf=0.0, posinf=0.0))
        return 4 * float(jnp.finfo(self._log_probs.dtype).eps) * (1 + float(np.median(logs)))

    def between_numbers(self, edges: np.ndarray) -> np.ndarray:
        """Half a rounding step above edges that are draws."""
        rounded = edges.astype(self.draw_dtype)
        above = np.nextafter(rounded, np.asarray(np.inf, rounded.dtype)).astype(np.float64)
        return edges + (above - edges) / 2

    # Methods

    @property
    def log_prob(self) -> Callable[[Any], Any] | None:
        return getattr(self.dist, "log_prob", None)

    @functools.cached_property
    def _log_probs(self) -> Any:
        return jax.jit(lambda leaves, x: jax.vmap(self.of(leaves).log_prob)(x))(self.leaves, self.draws)

    @property
    def log_probs(self) -> np.ndarray:
        """Of the draws."""
        return np.asarray(self._log_probs, np.float64)

    def everywhere(self, values: np.ndarray) -> np.ndarray:
        """Values `[m, *event]` for each entry, `[m, entries, event_size]` or `[m, entries]` for numbers."""
        rows = np.broadcast_to(values.reshape(len(values), 1, -1), (len(values), self.entries, self.event_size))
        return rows[..., 0] if self.scalar else rows

    def method(self, name: str) -> Callable[[np.ndarray], np.ndarray] | None:
        """A method as a function of points `[m, entries]`, or `[m, entries, event_size]`, that returns `[m, entries]`."""
        if not callable(getattr(self.dist, name, None)):
            return None
        return functools.partial(self._at, name)

    def density(self, x: np.ndarray) -> np.ndarray:
        """`exp(log_prob)`, zero where that is NaN."""
        with np.errstate(over="ignore"):
            found = np.nan_to_num(np.exp(self._at("log_prob", x)), nan=0.0, posinf=0.0)
        return found if self.circle is None else np.where(np.abs(x - self.circle) <= np.pi, found, 0.0)

    @functools.cached_property
    def circle(self) -> float | None:
        """The middle of the angles that draws are, whose density comes again after each turn; `None` of other draws."""
        if not self.scalar or self.discrete:
            return None
        middle = next((m for m in (0.0, np.pi) if np.all(np.abs(self.numbers - m) <= np.pi * (1 + 1e-6))), None)
        if middle is None:
            return None
        x = self.numbers[:64]
        turned = [self._at("log_prob", x + turn) for turn in (-2 * np.pi, 0.0, 2 * np.pi)]
        return middle if np.allclose(turned[0], turned[1], atol=1e-3) and np.allclose(*turned[1:], atol=1e-3) else None

    def _at(self, name: str, x: np.ndarray) -> np.ndarray:
        event = () if x.ndim == 2 else self.draws.shape[1 + len(self.batch_shape) :]
        integers = not jnp.issubdtype(self.draw_dtype, jnp.floating) and np.all(x == np.round(x))
        dtype = self.draw_dtype if integers and name != "icdf" else self.point_dtype
        points = np.reshape(x, (len(x), *self.batch_shape, *event)).astype(dtype)
        size = min(_BLOCK, 1 << (len(x) - 1).bit_length())
        found = []
        for start in range(0, len(points), size):
            block = points[start : start + size]
            padded = np.concatenate([block, np.repeat(block[-1:], size - len(block), axis=0)])
            found.append(np.asarray(self._compiled(name)(self.leaves, padded), np.float64)[: len(block)])
        return np.concatenate(found).reshape(len(x), self.entries)

    @functools.cache  # noqa: B019, a subject lives as long as its check
    def _compiled(self, name: str) -> Callable[..., Any]:
        def batched(leaves: Any, x: Any) -> Any:
            fn = getattr(self.of(leaves), name)
            return jax.vmap(lambda one: jnp.broadcast_to(fn(one), self.batch_shape))(x)

        return jax.jit(batched)
