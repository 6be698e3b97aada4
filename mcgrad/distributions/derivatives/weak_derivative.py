"""Weak derivatives: the derivative of a distribution as a signed measure, by a draw from each of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad.distributions.numerics.arithmetic import log_one_minus_exp


class Coupling(NamedTuple):
    """The choice and joint drawing of the two parts of a weak derivative, followed where the distribution knows how.

    Attributes:
        hahn_jordan: whether the two parts have no value in common (Hahn-Jordan), the least of them that there can be; else
            one of them is the draw itself wherever that can be.
        comonotone: whether each part is drawn by its own quantiles, else both from the same noise.
    """

    hahn_jordan: bool
    comonotone: bool

    def other(self, drop: Array) -> Array:
        """The exponential draw of the other part, for that of one: the opposite quantile, or the same draw."""
        return -log_one_minus_exp(-drop) if self.comonotone else drop


class WeakDerivative(NamedTuple):
    """Terms of a distribution's derivative as a signed measure: `dp = sum_i dweight_i (positive_i - negative_i)`.

    Attributes:
        parameters: fields of the distribution that the weight depends on; names of fields it does not have are ignored.
        weight: `[n, *batch shape]`, a function of the parameters whose derivative multiplies the difference. Its value
            does not matter; what multiplies the derivative must be stopped (`jax.lax.stop_gradient`).
        positive: a draw from the positive part of each term, `[n, *batch shape, *event shape]`.
        negative: a draw from its negative part, coupled to the positive one.
        positive_is_draw: where one of the two is the draw that was passed in, so that the rest of the program need not be
            evaluated at it again: `[n, *batch shape]`, true where it is the positive one and false where it is the
            negative one; `None` where it is neither.
    """

    parameters: tuple[str, ...]
    weight: Array
    positive: Any
    negative: Any
    positive_is_draw: Array | None = None

    @classmethod
    def single(
        cls,
        names: str | tuple[str, ...],
        weight: Array,
        positive: Array,
        negative: Array,
        positive_is_draw: bool | Array | None = None,
    ) -> WeakDerivative:
        """One term, of arrays without the leading axis; `positive_is_draw` may be the same for all entries."""
        names = (names,) if isinstance(names, str) else names
        if positive_is_draw is not None:
            positive_is_draw = jnp.broadcast_to(positive_is_draw, weight.shape)[None]
        return cls(names, weight[None], positive[None], negative[None], positive_is_draw)


def mapped(
    terms: tuple[WeakDerivative, ...], fn: Callable[[Array], Array], x: Array, **names: str
) -> tuple[WeakDerivative, ...]:
    """The terms of the distribution of `fn(y)`, from those of the distribution of `y`.

    `x` is the draw `fn(y)`. With `names`, only the terms of renamed parameters.
    """
    found = []
    for term in terms:
        kept = tuple(names.get(name, name) for name in term.parameters if name in names or not names)
        if kept:
            drawn = term.positive_is_draw
            parts = [jax.vmap(fn)(part) for part in (term.positive, term.negative)]
            if drawn is not None:  # exactly the draw, whatever the inverse rounds to
                drawn_entries = jnp.expand_dims(drawn, tuple(range(drawn.ndim, 1 + x.ndim)))
                sides = (drawn_entries, ~drawn_entries)
                parts = [jnp.where(is_draw, x[None], part) for is_draw, part in zip(sides, parts, strict=True)]
            found.append(WeakDerivative(kept, term.weight, parts[0], parts[1], drawn))
    return tuple(found)
