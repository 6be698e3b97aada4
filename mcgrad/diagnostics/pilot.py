"""The estimator of least measured variance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from mcgrad._arguments import check_option, keyed_by
from mcgrad.diagnostics.compare import by_name, compare
from mcgrad.diagnostics.comparison import EstimatorReport
from mcgrad.estimators.measure_valued import CouplingName, Decomposition, MeasureValued
from mcgrad.program import Estimator


def least_variance(
    fn: Callable[..., Any],
    estimators: Mapping[str, Estimator] | Sequence[Estimator] | None = None,
    *,
    measure: Literal["variance", "variance_time"] = "variance",
    argnums: int | Sequence[int] = 0,
    num_samples: int = 1_000,
    chunk_size: int = 256,
    key_argname: str | None = None,
) -> Callable[..., Estimator]:
    """The estimator with the least variance on a program, as measured by a pilot run.

    Runs `mcgrad.compare` and returns the estimator whose gradients have the least total variance, or the least product of
    variance and time; those that the program refuses, and those that are biased, by their label or as measured, do not count.
    Choosing in this way adds no bias as long as later gradients use other keys than the pilot. The choice holds for arguments
    near those of the pilot: run it again after training has moved away from them. `mcgrad.tune` chooses for each draw, under a
    budget.

    Args:
        fn: a program that returns a scalar; see `mcgrad.grad`.
        estimators: as in `mcgrad.compare`; by default every decomposition and coupling of `mcgrad.MeasureValued`.
        measure: `"variance"` of one gradient, or `"variance_time"`, which decides the error for a given computing time.
        argnums, num_samples, chunk_size: see `mcgrad.compare`; fewer samples by default.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` that returns one of the estimators; not to be called under `jax.jit` either.

    Raises:
        ValueError: for another `measure`; if none of those that run has a finite gradient without bias; and see
            `mcgrad.compare`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def loss(loc, key):
        ...     return jnp.abs(mcgrad.sample(key, mcgrad.Laplace(loc, 1.0)))  # symmetric around the center
        >>> both = [mcgrad.MeasureValued(), mcgrad.MeasureValued(coupling="comonotone")]
        >>> found = mcgrad.least_variance(loss, both, num_samples=100)(0.0, jax.random.key(0))
        >>> found.coupling
        'shared'
        >>> mcgrad.grad(loss, estimator=found)(0.0, jax.random.key(1)).shape
        ()
    """
    fn = keyed_by(fn, key_argname)
    check_option("least_variance(measure=...)", measure, ("variance", "variance_time"))
    if estimators is None:
        pairs = itertools.product(get_args(Decomposition), get_args(CouplingName))
        estimators = {" ".join(pair): MeasureValued(*pair) for pair in pairs}
    named = by_name(estimators)
    run = compare(fn, named, argnums=argnums, num_samples=num_samples, chunk_size=chunk_size)

    def pilot(*args: Any, **kwargs: Any) -> Estimator:
        right = unbiased(run(*args, **kwargs).reports, named, "least_variance")
        return named[min(right, key=lambda name: getattr(right[name], measure))]

    return pilot


def unbiased(
    reports: Mapping[str, EstimatorReport], estimators: Mapping[str, Estimator], where: str
) -> dict[str, EstimatorReport]:
    """Those that are not labelled as biased, and show no evidence of it; refuses that there be none."""
    right = {
        name: report
        for name, report in reports.items()
        if report.verdict in ("agrees", "undecided") and not estimators[name].biased
    }
    if not right:
        verdicts = ", ".join(f"{name}: {report.verdict}" for name, report in reports.items())
        raise ValueError(
            f"`mcgrad.{where}(estimators=...)` must contain one with a finite, unbiased gradient, got {verdicts}. "
            "Look at `mcgrad.compare` of these on this program."
        )
    return right
