"""Every refusal and warning before a program runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import jax
import jax.numpy as jnp

from mcgrad import _compat, _mesh
from mcgrad.program.blind_way import BlindWay
from mcgrad.program.costs import Split
from mcgrad.program.dependence import Analysis
from mcgrad.program.estimator import Estimator, spelled
from mcgrad.program.held import Held
from mcgrad.program.jumps import JumpWarning
from mcgrad.program.made_of import MadeOf
from mcgrad.program.point_sets import Samples, can_draw, why_not_number
from mcgrad.program.poles import divisor_of
from mcgrad.program.shards import refuse_draw
from mcgrad.program.site import Site, has_site
from mcgrad.program.structure import rebuilds
from mcgrad.program.trace import Constant, Program


def check_site(site: Site, estimator: Estimator, candidates: Sequence[Estimator]) -> None:
    """Refuse an estimator that would be wrong at a draw, and say which of the candidates would be right."""
    name = spelled(estimator)
    if (reason := estimator.why_not(site)) is not None:
        right = [f"`{spelled(other)}()`" for other in candidates if other.why_not(site) is None]
        way_out = "Give it a `log_prob`, an `icdf` or a `support`, see `mcgrad.distribution`."
        if right:
            way_out = f"Use {', '.join(right[:-1]) + ' or ' if right[1:] else ''}{right[-1]} here."
        raise ValueError(f"`{name}` would be wrong at {site.describe()}: {reason}. {way_out}")
    if site.shares_noise and not estimator.flow:
        raise ValueError(
            f"`{name}` would be wrong at {site.describe()}: a `vmap` maps over the draw but not over its key, so "
            "its entries share their noise. Split the key, `jax.random.split(key, n)`, and map over the keys too."
        )
    if site.axes_sharing_noise and not estimator.flow:
        axis = min(site.axes_sharing_noise)
        raise ValueError(
            f"`{name}` would be wrong at {site.describe()}: its parameters differ along the mesh axis {axis!r} and its key does "
            "not, so the devices share their noise. Make each device a key of its own, "
            f"`jax.random.fold_in(key, jax.lax.axis_index({axis!r}))`."
        )


def check_paths(ways: Sequence[BlindWay], estimators: dict[Site, Estimator], following: Set[Site]) -> None:
    """Warn of blind ways or refuse them, as the estimators of the draws say."""
    jumping = frozenset().union(*(way.sources for way in ways if not way.cut))
    for way in ways:
        for site in sorted(way.sources & following, key=lambda site: site.line):
            if way.cut and site in jumping:
                continue  # as in a straight-through estimator, where the jump says it all
            estimator = estimators[site]
            what = estimator.on_jump(certain=way.certain or way.met)
            at_threshold = not way.cut and divisor_of(way.place) is None
            message = (
                f"{way.describe()} in {site.describe()}, which `{spelled(estimator)}` differentiates along "
                f"its path: the gradient leaves out what {'comes after it' if way.cut else 'happens at a jump'}. Use "
                f"{'`mcgrad.PathwiseWithBoundary()` or ' if at_threshold else ''}`mcgrad.Score()` at the draw, "
                "or make the cost continuous; "
                '`mcgrad.Pathwise(jumps="ignore", possible_jumps="ignore")` says that this is meant.'
            )
            if what == "refuse":
                raise ValueError(message)
            if what == "warn":
                warnings.warn(message, JumpWarning, stacklevel=2)


def check_coupled(estimators: Mapping[Site, Estimator], analysis: Analysis, split: Split) -> None:
    """Refuse to credit a draw for a cost that devices share where its weights do not tell of the others' draws."""
    for cost in split.costs:
        for site, axis, cause in sorted(analysis.couplings(cost), key=lambda coupling: coupling.site.line):
            estimator = estimators[site]
            if estimator.flow or not (estimator.needs_rest or not _mesh.is_checked(axis)):
                continue
            why = "it takes other values for the draws of all of them at once"
            way_out = "Use `mcgrad.Score()` at the draw inside `jax.shard_map`"
            if not estimator.needs_rest:
                why = "JAX does not check along this axis which draws are different ones"
                way_out = "Use `jax.shard_map` with `check_vma=True`"
            raise ValueError(
                f"`{spelled(estimator)}` would be wrong at {site.describe()}: `{cause.name}` at {cause.line} makes one cost of "
                f"the draws along the mapped axis {axis!r}, and {why}. {way_out}, or make the collective the last operation of "
                "the program, such as `jax.lax.pmean(cost, axis_name)`, or take it of the gradient."
            )


MAX_EVALUATIONS = 2**14
"""Evaluations of one cost, over the points of all draws that it depends on together."""


def check_evaluations(estimators: dict[Site, Estimator], analysis: Analysis, split: Split) -> None:
    """Refuse what would take exponentially many evaluations."""
    for cost in split.costs:
        each = {s: estimators[s].evaluations(s, relation) for s, relation in analysis.of(cost).items()}
        if (count := math.prod(each.values())) > MAX_EVALUATIONS:
            most = max(each, key=lambda site: each[site])
            raise ValueError(
                f"`{spelled(estimators[most])}` at {most.describe()} must take at most {MAX_EVALUATIONS} evaluations "
                f"for a cost, got {float(count):.3g}: one cost depends on many draws together (`mcgrad.explain` shows "
                "where they are mixed). Use `mcgrad.Score()` there, with `num_samples=` of the transform."
            )


def check_samples(program: Program, estimators: Mapping[Site, Estimator], key: Any) -> None:
    """Refuse draws that all samples of a transform would share."""
    keys = jax.tree.leaves(key)
    of_sample = MadeOf(lambda value: isinstance(value, Constant) and any(value.value is k for k in keys))
    of_sample.run(program, [False] * len(program.inputs))
    for site, estimator in estimators.items():
        if not isinstance(estimator, Held) and not of_sample.of(site.key):
            raise ValueError(
                f"{site.describe()} uses a key that is not made of the argument `key`, which `num_samples` splits: all samples "
                "would share the draw, and their mean is no better than one of them. Make its key of `key`, for instance by "
                "`jax.random.split(key)` or `jax.random.fold_in(key, 1)`."
            )


def check_ordered(program: Program, estimators: Mapping[Site, Estimator], *, several: bool) -> None:
    """Refuse callbacks that must be called in order in what runs for several samples, or several points of a draw, at once."""
    ordered = [e for e in program.everything() if any("Ordered" in type(effect).__name__ for effect in e.eqn.effects)]
    needing_rest = [site for site, estimator in estimators.items() if estimator.needs_rest]
    if ordered and (several or needing_rest):
        why = (
            "`num_samples` runs it"
            if several
            else f"`{spelled(estimators[needing_rest[0]])}` runs what comes after a draw"
        )
        raise NotImplementedError(
            f"`{ordered[0].name}` at {ordered[0].line} must be called in order, and {why} several times at once. Use "
            "`ordered=False`, or `mcgrad.Score()` with one sample."
        )


def check_refs(program: Program, analysis: Analysis) -> None:
    """Refuse to write into a reference what depends on a draw: what is read from it later has no weights."""
    for top in program.equations:
        writing = [e for e in top.everything() if any(type(x).__name__ in _WRITING for x in e.eqn.effects)]
        if writing and (any(analysis.of(v) for v in top.inputs) or any(map(has_site, top.bodies))):
            raise NotImplementedError(
                f"`{writing[-1].name}` at {writing[-1].line} writes into a mutable array what depends on a draw, which mcgrad does "
                "not follow. Return new arrays, with `x.at[...].set(...)`, or carry them through the loop."
            )


_WRITING = ("WriteEffect", "AccumEffect")


def check_floating(program: Program, num_outputs: int) -> None:
    """Refuse outputs that have no derivative."""
    for value in program.outputs[:num_outputs]:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"The program of `mcgrad.expectation` must return floating-point costs, got {value.dtype} of shape "
                f"{value.shape}. Return other values as auxiliary output with `has_aux=True`."
            )


def check_supported(program: Program) -> None:
    """Refuse draws inside primitives that cannot be rebuilt."""
    for equation in program.everything():
        if equation.bodies and not rebuilds(equation) and any(map(has_site, equation.bodies)):
            refuse_draw(equation)


def check_point_sets(program: Program, sites: Iterable[Site], samples_of: Callable[[Site], Samples | None]) -> None:
    """Refuse to spread samples over the values of a draw that cannot be made of uniform numbers, or where its keys may repeat."""
    spread = {site: samples for site in sites if (samples := samples_of(site)) is not None}
    if not spread:
        return
    looping = [e for e in program.everything() if e.eqn.primitive is _compat.while_p]
    in_while = {inner for loop in looping for body in loop.bodies for inner in body.everything()}
    for site, samples in spread.items():
        reason = way_out = None
        if (number := why_not_number(samples.point_set, samples.number)) is not None:
            reason, way_out = f"it must {number}, got {samples.number}", "Change `num_samples`, or leave this draw out"
        elif not can_draw(site.base_dist):
            reason = "the distribution has no `icdf`, of mcgrad's or yours, to make it of uniform numbers"
        elif site.equation in in_while:
            reason = "in a `while_loop` samples stop at different steps, and have no set of points together"
        if reason is not None:
            raise ValueError(
                f'`points="{samples.point_set}"` cannot be had at {site.describe()}: {reason}. '
                f'{way_out or "Leave this draw out"}: `mcgrad.sample(..., points="independent")`.'
            )
