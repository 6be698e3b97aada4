"""The distribution inside its wrappers, by which estimators for one law know it."""

from __future__ import annotations

from typing import Any

from mcgrad.distributions.wrappers.foreign import ForeignDistribution
from mcgrad.distributions.wrappers.independent import Independent

# How NumPyro, Distrax and TFP, in this order, call what theirs is made of. These leave parameters and entries in their places.
_OF_OTHERS = {"Independent": ("base_dist", "distribution"), "ExpandedDistribution": ("base_dist",)}


def unwrapped(dist: Any) -> Any:
    """The distribution whose entries are those of `dist`, without what only adapts it or reads its axes in another way.

    That is, without `mcgrad.Independent`, mcgrad's adapters of other libraries, and these libraries' own `Independent` (and
    NumPyro's `expand`). Its parameters broadcast to the shape of a draw from `dist`. What changes the values or their law
    (transformations, mixtures, truncation) stays.

    An estimator for normal draws of any library would be right where `type(unwrapped(site.base_dist)).__name__` is
    `"Normal"`, and reads the mean by `draw.under_vmaps(lambda dist: unwrapped(dist).loc, frozen=True)`.

    Args:
        dist: a distribution under mcgrad's protocol: `site.base_dist`, or the one that `draw.under_vmaps` gives.

    Returns:
        A distribution, of mcgrad or of another library.

    Example:
        >>> import jax.numpy as jnp, mcgrad
        >>> from mcgrad.program import unwrapped
        >>> type(unwrapped(mcgrad.Independent(mcgrad.Normal(jnp.zeros(3), 1.0), 1))).__name__
        'Normal'
    """
    while (inner := _inside(dist)) is not None:
        dist = inner
    return dist


def _inside(dist: Any) -> Any:
    if isinstance(dist, Independent):
        return dist.base
    if isinstance(dist, ForeignDistribution):
        return dist.dist
    names = _OF_OTHERS.get(type(dist).__name__, ())
    return next((getattr(dist, name) for name in names if hasattr(dist, name)), None)
