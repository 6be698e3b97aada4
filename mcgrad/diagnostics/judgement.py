"""Decides which of several mean gradients are biased, by their standard errors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mcgrad.diagnostics.comparison import EstimatorReport
from mcgrad.diagnostics.statistics import GradientStatistics

FALSE_ALARMS = 1e-3
"""Probability that any estimator without bias is called biased."""

ROUNDING = 1e3
"""How far sums in another order may differ, in machine epsilons of the norm; the tests allow the same."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The reference, and one row for each estimator: its deviations from the reference and their squared standard errors."""

    reference: Any
    source: str
    threshold: float
    deviations: np.ndarray  # [estimators, coordinates]
    squared_errors: np.ndarray  # [estimators, coordinates], of the deviations
    allowance: float
    majority: tuple[int, ...] = ()  # the estimators that agree, where the reference is their mean
    decided: bool = True

    def report(self, i: int, statistics: GradientStatistics, seconds: float, evaluations: int) -> EstimatorReport:
        max_z = _max_z(self.deviations[i], self.squared_errors[i], self.allowance)
        distance = float(np.linalg.norm(self.deviations[i]))
        verdict = "agrees"
        if not np.isfinite(distance):
            verdict = "not finite"
        elif max_z > self.threshold and i not in self.majority:
            verdict = "biased" if self.decided else "undecided"
        return EstimatorReport(
            statistics=statistics,
            distance=distance,
            distance_error=float(np.sqrt(self.squared_errors[i].sum())),
            max_z=max_z,
            verdict=verdict,
            seconds=seconds,
            evaluations=evaluations,
        )


def judge(found: Sequence[GradientStatistics], exact: Any, source: str) -> Judgement:
    """Compare all means with the exact gradient, or with the pooled mean of a majority that agrees."""
    leaves, tree = jax.tree.flatten(found[0].mean)
    flat, unravel = ravel_pytree(found[0].mean)
    means = np.stack([_flat(f.mean) for f in found])
    squares = np.stack([_flat(f.standard_error) for f in found]) ** 2
    num, coordinates = means.shape
    epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
    allowance = ROUNDING * epsilon * float(np.max(np.nan_to_num(np.linalg.norm(means, axis=1))))
    if exact is not None:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(exact)]
        if jax.tree.structure(exact) != tree or shapes != [leaf.shape for leaf in leaves]:
            raise ValueError(
                "`mcgrad.compare(reference=...)` must have the structure and shapes of the gradient, "
                f"{jax.tree.map(jnp.shape, found[0].mean)}, got {jax.tree.map(jnp.shape, exact)}. Pass the exact gradient."
            )
        threshold = _threshold(coordinates * num)
        return Judgement(exact, source, threshold, means - _flat(exact)[None], squares, allowance)
    pairs = list(itertools.combinations(range(num), 2))
    threshold = _threshold(coordinates * max(len(pairs), 1))
    agreeing = {
        (i, j) for i, j in pairs if _max_z(means[i] - means[j], squares[i] + squares[j], allowance) <= threshold
    }
    majority = _majority(num, agreeing)
    source = "the pooled mean"
    if majority is None:
        source += "; no majority agrees, so which are biased cannot be told"
    elif len(majority) < num:
        source += " of the majority that agrees"
    finite = [i for i in range(num) if np.isfinite(means[i]).all()]
    pool = list(majority or finite or range(num))
    totals = np.array([float(found[i].total_variance) for i in pool])
    share = np.zeros(num)
    share[pool] = 1 / np.maximum(totals, max(totals.max(), 1e-300) * 1e-12)
    share /= share.sum()
    pooled = share[pool] @ means[pool]
    own = share[pool] ** 2 @ squares[pool]  # squared standard errors of `pooled`
    # The deviation (1 - w_i) m_i - sum_{j != i} w_j m_j has variance (1 - 2 w_i) v_i + sum_j w_j**2 v_j.
    errors = np.maximum((1 - 2 * share)[:, None] * squares + own[None], 0)
    return Judgement(
        unravel(jnp.asarray(pooled, flat.dtype)),
        source,
        threshold,
        means - pooled[None],
        errors,
        allowance,
        majority or (),
        decided=majority is not None,
    )


def _threshold(num_tests: int) -> float:
    return -NormalDist().inv_cdf(FALSE_ALARMS / (2 * num_tests))


def _max_z(deviation: np.ndarray, squared_error: np.ndarray, allowance: float) -> float:
    """The largest deviation in standard errors; infinite where a number is not finite."""
    if not (np.isfinite(deviation).all() and np.isfinite(squared_error).all()):
        return float("inf")
    off = np.maximum(np.abs(deviation) - allowance, 0)
    z = np.divide(off, np.sqrt(squared_error), out=np.where(off > 0, np.inf, 0.0), where=squared_error > 0)
    return float(z.max(initial=0.0))


def _majority(num: int, agreeing: set[tuple[int, int]]) -> tuple[int, ...] | None:
    """The largest group in which every pair agrees, if it is more than half and the only one of its size."""
    for size in range(num, num // 2, -1):
        groups = [
            g for g in itertools.combinations(range(num), size) if agreeing.issuperset(itertools.combinations(g, 2))
        ]
        if groups:
            return groups[0] if len(groups) == 1 else None
    return None


def _flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0], np.float64)
