"""What the levels of `mcgrad.debias` cost and vary, and which rates are good."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad._arguments import check_at_least, sample_key, split
from mcgrad.randomized.debias import chances_of, check_levels, check_same, correction, without_level


@dataclasses.dataclass(frozen=True, eq=False)
class DebiasReport:
    """What `mcgrad.debias_report` returns; printed, it is a table.

    Attributes:
        rate: the probability to go on.
        means: of each level, the Euclidean norm of the mean correction; that of the last tells what is left out behind it.
        second_moments: of each level, `E|D_n|^2`.
        costs: of each level.
        decay: `b`, by which the second moments fall from one level to the next, fitted from level 1 on.
        growth: `c`, by which the costs grow, fitted likewise.
        variance: of one estimate, by form.
        cost: of one estimate in the mean, by form.
        num_samples: how often each level was run.
    """

    rate: float
    means: np.ndarray
    second_moments: np.ndarray
    costs: np.ndarray
    decay: float
    growth: float
    variance: dict[str, float]
    cost: dict[str, float]
    num_samples: int

    @property
    def finite_variance(self) -> bool:
        """Whether the variance stays finite for ever more levels, as far as the fit tells."""
        return self.decay < self.rate

    @property
    def finite_cost(self) -> bool:
        """Whether the mean cost stays finite for ever more levels, as far as the fit tells."""
        return self.growth * self.rate < 1

    @property
    def best_rate(self) -> float:
        """The rate at which variance times cost is least, `sqrt(b / c)`; not a number where no rate keeps both finite."""
        return math.sqrt(self.decay / self.growth) if self.decay * self.growth < 1 else math.nan

    def __str__(self) -> str:
        _, chances = chances_of(self.rate, len(self.costs) - 1)
        lines = [f"{'level':>5}  {'probability':>11}  {'|mean|':>9}  {'E|D|^2':>9}  {'cost':>9}"]
        rows = zip(chances, self.means, self.second_moments, self.costs, strict=True)
        lines += [f"{n:5d}  {p:11.3g}  {m:9.3g}  {s:9.3g}  {c:9.3g}" for n, (p, m, s, c) in enumerate(rows)]
        lines += [
            f"{form}: variance {self.variance[form]:.3g}, cost {self.cost[form]:.3g}, product "
            f"{self.variance[form] * self.cost[form]:.3g}"
            for form in self.variance
        ]
        fit = f"second moments fall by {self.decay:.3g} a level, costs grow by {self.growth:.3g}"
        if math.isnan(self.best_rate):
            return "\n".join(
                [*lines, f"{fit}: no rate keeps both variance and cost finite. Couple the levels more closely."]
            )
        wanted = (
            f"a rate between {self.decay:.3g} and {1 / self.growth:.3g} keeps both finite, best {self.best_rate:.3g}"
        )
        verdict = "" if self.finite_variance and self.finite_cost else f"; {self.rate:g} does not"
        return "\n".join([*lines, f"{fit}: {wanted}{verdict}."])


def debias_report(
    level: Callable[..., Any],
    *,
    rate: float,
    max_level: int,
    num_samples: int = 256,
    cost: Callable[[int], float] | None = None,
) -> Callable[..., DebiasReport]:
    r"""Cost and variance of `mcgrad.debias`, measured level by level.

        Var Z = E|Z|^2 - |E Z|^2,    cost = C_0 + sum_(n >= 1) P(N = n) C_n,  or, of the sum,  sum_n P(N >= n) C_n

    with the mean over `N` taken exactly, and that over the draws of the levels by all of them at each sample.

    Args:
        level, rate, max_level: see `mcgrad.debias`. For the variance of a gradient pass levels that return gradients.
        num_samples: how often each level is run.
        cost: `cost(n)`, of level `n` in any unit. By default the floating-point operations that XLA counts.

    Returns:
        A function of the arguments of `level` without the first that returns a `DebiasReport`.

    Raises:
        ValueError, TypeError: see `mcgrad.debias`.

    Example:
        >>> import jax, mcgrad
        >>> report = mcgrad.debias_report(lambda n, x, key: x**n, rate=0.6, max_level=8, cost=lambda n: 1.0)
        >>> round(report(0.5, key=jax.random.key(0)).decay, 3)
        0.25

    References:
        Rhee and Glynn 2015, theorem 1 and section 3 (the best distribution of `N`), see `mcgrad.debias`.
    """
    check_levels(level, rate, max_level, "debias_report")
    num_samples = check_at_least(num_samples, 2, "debias_report(num_samples=...)")
    reached, chances = chances_of(rate, max_level)

    def report(*args: Any, **kwargs: Any) -> DebiasReport:
        key, with_key = sample_key(functools.partial(level, 0), args, kwargs, "debias_report")

        def run(n: int, key: Any) -> Any:
            at, named = with_key(jax.tree.map(jax.random.clone, key))
            return correction(level, n, at, named)

        like = jax.eval_shape(functools.partial(run, 0), key)
        for n in range(1, max_level + 1):
            check_same(jax.eval_shape(functools.partial(run, n), key), like, n)

        def one(key: Any) -> jax.Array:
            rows = [jax.tree.leaves(run(n, key)) for n in range(max_level + 1)]
            return jnp.stack([jnp.concatenate([x.reshape(-1) for x in row]) for row in rows])

        keys = split(key, num_samples)
        found = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=16))(keys), np.complex128)
        costs = np.array([cost(n) if cost else _operations(run, n, key) for n in range(max_level + 1)], np.float64)
        square = np.mean(np.sum(np.abs(found) ** 2, axis=-1), axis=0)
        less = float(np.sum(np.abs(np.mean(np.sum(found, axis=1), axis=0)) ** 2))
        singles = found[:, :1] + found[:, 1:] / np.array(chances)[1:, None]
        sums = np.cumsum(found / np.array(reached)[:, None], axis=1)
        last = -np.diff([*reached, 0.0])  # the probabilities that the sum ends with each level

        def variance(values: np.ndarray, weights: np.ndarray) -> float:
            return float(np.mean(np.sum(np.abs(values) ** 2, axis=-1) @ weights)) - less

        return DebiasReport(
            rate=rate,
            means=np.linalg.norm(np.mean(found, axis=0), axis=-1),
            second_moments=square,
            costs=costs,
            decay=_slope(square),
            growth=_slope(costs),
            variance={"single": variance(singles, np.array(chances)[1:]), "sum": variance(sums, last)},
            cost={"single": float(costs @ chances), "sum": float(costs @ reached)},
            num_samples=num_samples,
        )

    return without_level(report, level)


def _operations(run: Callable[..., Any], n: int, key: Any) -> float:
    """The floating-point operations of a level, at least one."""
    found: Any = jax.jit(functools.partial(run, n)).lower(key).cost_analysis()
    return max(1.0, float((found or {}).get("flops", 1.0)))


def _slope(values: Sequence[float] | np.ndarray) -> float:
    """By what factor positive numbers change from one to the next, from the second on, by least squares of their logarithms."""
    n = np.arange(1, len(values))
    logs = np.log(np.maximum(np.asarray(values, np.float64)[1:], 1e-300))
    return float(np.exp(np.polyfit(n, logs, 1)[0])) if len(n) > 1 else math.nan
