"""`mcgrad.sample`: the random choice as users write it."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, UInt32

from mcgrad._arguments import check_key, check_option, is_key, is_old_key
from mcgrad._types import PRNGKey
from mcgrad.distributions.wrappers.autoregressive import by_entries
from mcgrad.distributions.wrappers.closed import close
from mcgrad.distributions.wrappers.foreign import as_distribution, entry_by_entry
from mcgrad.estimators.importance_sampling import ImportanceSampling
from mcgrad.program import Estimator
from mcgrad.program.point_sets import POINT_SETS, PointSet
from mcgrad.program.site import bind_draw


def sample(
    key: PRNGKey | UInt32[Array, " words"],
    dist: Any,
    estimator: Estimator | None = None,
    *,
    name: str | None = None,
    proposal: Any = None,
    points: PointSet | None = None,
) -> Array:
    """A random choice: draws from a distribution, and marks the draw so that `mcgrad` can differentiate through it.

    Without a transform this is `dist.sample(key)`. Under `mcgrad.expectation` and the gradient transforms, the estimator of
    this draw makes the derivatives of the program's expectation in the parameters of `dist` unbiased.

    Plain `jax.grad` through a draw gives the pathwise derivative if the distribution has one, and raises otherwise.

    Args:
        key: a key of either style, as `jax.random.key` and `jax.random.PRNGKey` make it, used for this draw only.
        dist: a distribution of mcgrad, NumPyro, Distrax or TFP-on-JAX, or any pytree with `sample(key)`,
            `log_prob(x)`, `batch_shape`, `event_shape` and `reparameterized`.
        estimator: how the derivative is estimated, for instance by `mcgrad.Score()`; by default as the transform says.
        name: what `mcgrad.explain` and error messages call this draw.
        proposal: a distribution to draw from in place of `dist` under a transform, or a function of `dist` that returns
            it: costs that depend on the draw are then weighted. Short for `mcgrad.ImportanceSampling(proposal)`.
        points: how several samples of a transform are spread over the values of this draw, in place of what the transform says;
            see `mcgrad.expectation`. `"independent"` leaves the draw as it is.

    Returns:
        One draw, of shape `dist.batch_shape + dist.event_shape`.

    Raises:
        TypeError: if `key` is not one key, `dist` or `proposal` not a distribution, or `estimator` not an estimator.
        ValueError: if both `estimator` and `proposal` are given.

    Example:
        >>> import jax, mcgrad
        >>> mcgrad.sample(jax.random.key(0), mcgrad.Normal(0.0, 1.0)).shape
        ()
    """
    swapped = (is_key(dist) or is_old_key(dist)) and not (is_key(key) or is_old_key(key))
    key = check_key(key, "sample", *["Swap the two: `mcgrad.sample(key, dist)`"] * swapped)
    check_estimator(estimator, "sample")
    if proposal is not None:
        if estimator is not None:
            raise ValueError(
                "`mcgrad.sample(proposal=...)` must come without `estimator`, since it means `mcgrad.ImportanceSampling`, got also "
                f"{estimator!r}. Leave one of them out."
            )
        estimator = ImportanceSampling(proposal)
    dist = as_distribution(dist)
    if not jax.tree.leaves(estimator):  # whose arrays would have the batch shape
        dist = entry_by_entry(dist)
    dist = close(by_entries(dist), key)
    if estimator is not None:
        dist, estimator = estimator.drawn(dist), estimator.closed(dist)
    if points is not None:
        check_option("sample(points=...)", points, POINT_SETS, "None")
    return bind_draw(key, dist, estimator, name, points)


def check_estimator(estimator: Any, where: str) -> None:
    """Refuse what is neither an estimator nor `None`."""
    if estimator is not None and not isinstance(estimator, Estimator):
        raise TypeError(
            f"`mcgrad.{where}(estimator=...)` must be an estimator such as `mcgrad.Score()`, got {estimator!r}."
        )
