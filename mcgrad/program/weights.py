"""Log weights and control variates recorded during a run, and alternatives of draws, applied to the costs at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mcgrad._types import PyTree, static_field
from mcgrad.distributions.half_precision import in_single
from mcgrad.program.representations import Baseline, WeightedPoint
from mcgrad.program.site import Site
from mcgrad.program.surrogates import with_fitted_baseline
from mcgrad.program.thresholds import Crossings


@dataclasses.dataclass(frozen=True)
class Weight(PyTree):
    """What a local estimator records: the log weight of its draws and their control variate, of shape `site.plates`."""

    site: Site = static_field()
    log_weight: Array  # ty: ignore[invalid-dataclass-field-order]
    baseline: Baseline  # ty: ignore[invalid-dataclass-field-order]
    control: Array | None = None

    @classmethod
    def of(cls, site: Site, point: WeightedPoint) -> Weight:
        """The record of one point."""

        def on_plates(array: Any) -> Any:
            return array if array is None or isinstance(array, str) else jnp.broadcast_to(array, site.own_plates)

        log_weight, baseline, control = map(on_plates, (in_single(point.log_weight), point.baseline, point.control))
        if point.fitted:
            log_weight, control = with_fitted_baseline(log_weight, baseline.astype(log_weight.dtype))
            baseline = None
        return cls(site, log_weight, baseline, control)


@dataclasses.dataclass(frozen=True)
class Recorded(PyTree):
    """A draw inside a `scan` that carries an alternative path, and the other values that the draw could have taken."""

    site: Site = static_field()
    x: Any  # ty: ignore[invalid-dataclass-field-order]
    operands: tuple[Any, ...]  # ty: ignore[invalid-dataclass-field-order]
    alternatives: Any  # ty: ignore[invalid-dataclass-field-order]
    crossings: Crossings | None = None


@dataclasses.dataclass(frozen=True)
class Coupled(PyTree):
    """A draw of the real path that the draw of the alternative path is coupled with."""

    site: Site = static_field()
    x: Any  # ty: ignore[invalid-dataclass-field-order]
    operands: tuple[Any, ...]  # ty: ignore[invalid-dataclass-field-order]


stop = jax.lax.stop_gradient

Record: TypeAlias = Weight | Recorded | Coupled


def is_leave_one_out(baseline: Baseline) -> bool:
    return isinstance(baseline, str)


def mean_of_others(cost: Array, total: Callable[[Array], Array], number: int) -> Array:
    """The mean of the costs of the other samples, in float32 at least: rounded, the sum less the cost would still hold it."""
    wide = in_single(stop(cost))
    return ((total(wide) - wide) / (number - 1)).astype(cost.dtype)
