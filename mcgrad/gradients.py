"""Gradients by a named estimator: of programs, and of plain functions with no draw in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mcgrad.distributions.wrappers.functions import distribution
from mcgrad.estimators import MeasureValued, Pathwise, Score
from mcgrad.estimators.measure_valued import CouplingName, Decomposition
from mcgrad.sample import sample
from mcgrad.transforms import grad


def score_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sampler: Callable[..., Any] | None = None,
    log_prob: Callable[..., Any] | None = None,
    num_samples: int = 1,
    chunk_size: int | None = None,
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """The gradient by the score function, of a program or of a plain cost.

    Two spellings. `score_grad(program)` is `mcgrad.grad(program, estimator=mcgrad.Score())`. And

        score_grad(cost, sampler=draw, log_prob=log_density)

    wraps plain functions, with no draw in them, into a function of `(params, key)` that estimates
    `grad_params E_{x ~ draw(key, params)}[cost(params, x)]`. Unbiased; see `mcgrad.Score`.

    Args:
        fn: a program, or `cost(params, x)`.
        argnums: see `mcgrad.grad`; only for a program.
        sampler: `draw(key, params)`, any pytree of arrays.
        log_prob: `log_density(x, params)`: of the shape of the draw without the axes of one event; a scalar makes the
            whole draw one event.
        num_samples, chunk_size, sharding, has_aux, key_argname: see `mcgrad.expectation`.

    Raises:
        ValueError: if only one of `sampler` and `log_prob` is given; and see `mcgrad.grad`.

    Example:
        >>> import jax, mcgrad
        >>> draw = lambda key, rate: jax.random.poisson(key, rate)
        >>> density = lambda x, rate: jax.scipy.stats.poisson.logpmf(x, rate)
        >>> gradient = mcgrad.score_grad(lambda rate, x: x * 1.0, sampler=draw, log_prob=density, num_samples=8)
        >>> gradient(3.0, jax.random.key(0)).shape
        ()
    """
    if sampler is not None or log_prob is not None:
        if sampler is None or log_prob is None:
            missing = "sampler" if sampler is None else "log_prob"
            raise ValueError(
                f"`mcgrad.score_grad(sampler=..., log_prob=...)` must get both or neither, got no `{missing}`. A draw "
                "and its log density make a score."
            )
        fn = _plain(fn, argnums, distribution(sampler=sampler, log_prob=log_prob, event_ndim=None), "score_grad")
    return grad(
        fn,
        argnums,
        estimator=Score(),
        num_samples=num_samples,
        chunk_size=chunk_size,
        sharding=sharding,
        has_aux=has_aux,
        key_argname=key_argname,
    )


def pathwise_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    sampler: Callable[..., Any] | None = None,
    icdf: Callable[..., Any] | None = None,
    cdf: Callable[..., Any] | None = None,
    log_prob: Callable[..., Any] | None = None,
    support: tuple[float, float] = (-math.inf, math.inf),
    num_samples: int = 1,
    chunk_size: int | None = None,
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """The pathwise (reparameterization) gradient, of a program or of a plain cost.

    Two spellings. `pathwise_grad(program)` is `mcgrad.grad(program, estimator=mcgrad.Pathwise())`. And

        pathwise_grad(cost, sampler=draw)            # draw(key, params) differentiable in params
        pathwise_grad(cost, icdf=quantile)           # quantile(u, params), entry by entry
        pathwise_grad(cost, sampler=draw, cdf=cdf)   # cdf(x, params): implicit reparameterization
        pathwise_grad(cost, sampler=draw, log_prob=log_density, support=(0, inf))  # the same by quadrature
        pathwise_grad(cost, log_prob=log_density)    # drawn by quadrature too

    wraps plain functions, as in `mcgrad.score_grad`. Unbiased; see `mcgrad.Pathwise`.

    Args:
        fn: a program, or `cost(params, x)`.
        argnums: see `mcgrad.grad`; only for a program.
        sampler: `draw(key, params)`.
        icdf: `icdf(u, params)`.
        cdf: `cdf(x, params)`.
        log_prob: `log_prob(x, params)`, elementwise in x, for distributions of single numbers; the constant does not matter.
        support: the fixed interval where `exp(log_prob)` is positive and continuous, see `mcgrad.distribution`.
        num_samples, chunk_size, sharding, has_aux, key_argname: see `mcgrad.expectation`.

    Raises:
        ValueError: for a `cdf` without `sampler`; for a sampler that has no derivative; and see `mcgrad.grad`.

    Example:
        >>> import jax, mcgrad
        >>> draw = lambda key, loc: loc + jax.random.normal(key)
        >>> float(mcgrad.pathwise_grad(lambda loc, x: 3.0 * x, sampler=draw)(0.0, jax.random.key(0)))
        3.0
    """
    if any(given is not None for given in (sampler, icdf, cdf, log_prob)):
        if sampler is None and icdf is None and log_prob is None:
            raise ValueError(
                "`mcgrad.pathwise_grad(cdf=...)` must also get a `sampler`, got none. A cdf alone does not draw: pass "
                "`sampler=`, or `icdf=` in its place."
            )
        dist = distribution(
            sampler=sampler,
            log_prob=log_prob,
            icdf=icdf,
            cdf=cdf,
            event_ndim=None,
            support=None if log_prob is None else support,
        )
        fn = _plain(fn, argnums, dist, "pathwise_grad")
    return grad(
        fn,
        argnums,
        estimator=Pathwise(),
        num_samples=num_samples,
        chunk_size=chunk_size,
        sharding=sharding,
        has_aux=has_aux,
        key_argname=key_argname,
    )


def measure_valued_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    decomposition: Decomposition = "hahn_jordan",
    coupling: CouplingName = "shared",
    num_samples: int = 1,
    chunk_size: int | None = None,
    sharding: Any = None,
    has_aux: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Any]:
    """The gradient of a program by measure-valued derivatives: `mcgrad.grad(program, estimator=mcgrad.MeasureValued())`.

    Unbiased, for the first derivative; see `mcgrad.MeasureValued`.

    Args:
        fn: a program.
        argnums: see `mcgrad.grad`.
        decomposition, coupling: see `mcgrad.MeasureValued`.
        num_samples, chunk_size, sharding, has_aux, key_argname: see `mcgrad.expectation`.

    Raises:
        ValueError: for another `decomposition` or `coupling`, a distribution without `weak_derivative`; and see `mcgrad.grad`.

    Example:
        >>> import jax, mcgrad
        >>> def loss(rate, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Poisson(rate))
        >>> float(mcgrad.measure_valued_grad(loss)(2.0, jax.random.key(0)))
        3.0
    """
    estimator = MeasureValued(decomposition, coupling)
    return grad(
        fn,
        argnums,
        estimator=estimator,
        num_samples=num_samples,
        chunk_size=chunk_size,
        sharding=sharding,
        has_aux=has_aux,
        key_argname=key_argname,
    )


def _plain(cost: Callable[..., Any], argnums: Any, dist: Any, where: str) -> Callable[..., Any]:
    """The program of a plain cost of `(params, x)`."""
    if argnums != 0:
        raise ValueError(
            f"`mcgrad.{where}(argnums=...)` must be left at 0 with plain functions, whose only parameters are `params`, "
            f"got {argnums}. Put all parameters into one pytree."
        )

    @functools.wraps(cost)
    def program(params: Any, key: jax.Array) -> Any:
        return cost(params, sample(key, dist(params)))

    del program.__wrapped__  # whose arguments are others
    return program
