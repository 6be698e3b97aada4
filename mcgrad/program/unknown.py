"""Warnings about operations that mcgrad has no rule for, where a row of a batch may have been taken for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from mcgrad.program.costs import Split
from mcgrad.program.dependence import Analysis
from mcgrad.program.estimator import Estimator
from mcgrad.program.primitives import rule_of
from mcgrad.program.site import Site, sample_p
from mcgrad.program.structure import form_of
from mcgrad.program.trace import Equation


class CreditWarning(UserWarning):
    """Costs are credited with more draws than they may depend on: the gradient is right, and may be far noisier than need be."""


def warn_of_unknown(estimators: Mapping[Site, Estimator], analysis: Analysis, split: Split) -> None:
    """Say where a cost is credited with all draws along an axis because an operation between them is not known."""
    causes = dict.fromkeys(
        (window.cause, site, k)
        for cost in split.costs
        for site, relation in analysis.of(cost).items()
        if not estimators[site].flow
        for k, window in enumerate(relation)
        if window.cause is not None and not window.axes
    )
    for cause, site, k in causes:
        known = rule_of(cause).axes is not None or form_of(cause) is not None or cause.eqn.primitive is sample_p
        if known or (axis := _kept_axis(cause, site, k, analysis)) is None:
            continue
        way_out = f'`mcgrad.program.register("{cause.name}", axes=...)` says which entries it reads'
        if "callback" in cause.name:
            way_out = '`vmap_method="sequential"` calls it for one entry at a time'
        warnings.warn(
            f"mcgrad has no rule for `{cause.name}` at {cause.line}: each of its {cause.outputs[0].shape[axis]} results along "
            f"axis {axis} counts as depending on all {site.plates[k]} draws of {site.describe()}. The gradient is right, and as "
            f"noisy as if they did. If each result depends on its own draw only, {way_out}.",
            CreditWarning,
            stacklevel=2,
        )


def _kept_axis(equation: Equation, site: Site, k: int, analysis: Analysis) -> int | None:
    """The axis of an operand along a draw's axis `k`, if the results have it too."""
    for value in equation.inputs:
        relation = analysis.of(value).get(site)
        axis = relation[k].simple_axis if relation is not None else None
        if isinstance(axis, int) and value.shape[axis] > 1:
            kept = [v.shape[axis : axis + 1] == (value.shape[axis],) for v in equation.outputs]
            if all(kept):
                return axis
    return None
