"""Limits of sequences without bias: a random number of corrections, weighted by how probable they were."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mcgrad._arguments import check_at_least, check_key, check_option, name_of, sample_key
from mcgrad._compat import Tracer


def debias(
    level: Callable[..., Any],
    *,
    rate: float,
    max_level: int,
    form: Literal["single", "sum"] = "single",
) -> Callable[..., Any]:
    r"""A randomized estimate of the limit of a sequence, from the corrections of its levels, as a program.

    With the corrections `D_n = Y_n - Y_(n-1)`, `D_0 = Y_0`, and a random level `N`,

        "single":  Z = D_0 + D_N / p_N,                  p_n = P(N = n) = (1 - rate) rate^(n-1),    n = 1, 2, ...
        "sum":     Z = D_0 + sum_(1 <= n <= N) D_n / P(N >= n),    P(N >= n) = rate^n,              n = 0, 1, ...

    Both are unbiased for `E[Y_max_level]`: **`max_level` is the last one**, chosen with all probability that is left, since JAX
    must know its programs beforehand. What lies behind it is left out: take it where the corrections are small beside the error
    that you accept. `N` depends on no parameter, so derivatives of every order are those of the levels, and unbiased too.

    **The variance stays finite for ever more levels if `E[D_n^2]` falls faster than `rate^n`, the cost if it grows slower than
    `rate^-n`.** Where `E[D_n^2] ~ b^n` and the cost is `~ c^n`, that is `b < rate < 1 / c`, and `sqrt(b / c)` is best. No rate will
    do if `b c >= 1`. `mcgrad.debias_report` measures both. Under `jax.vmap`, and so with `num_samples`, every level is run for
    every sample: average by `jax.lax.map`.

    Args:
        level: `level(n, *args, key)`, the correction `D_n` of level `n`, an int from 0 to `max_level`: floating-point numbers,
            a pytree of arrays of the same shapes at every level. `E[D_0 + ... + D_n]` is `E[Y_n]`. It may draw with
            `mcgrad.sample`. Every level gets the same key: draw the same numbers in `Y_n` and `Y_(n-1)`, and fold `n` into the key
            for levels that are independent of each other.
        rate: the probability to go on to the next level, between 0 and 1.
        max_level: the last level, at least 1.
        form: see above. `"single"` runs one level besides level 0, `"sum"` all levels up to `N`.

    Returns:
        A program of the arguments of `level` without the first.

    Raises:
        ValueError: for a rate that is no probability, another invalid option, or a call without a key.
        TypeError: for levels of different shapes or of integers.

    Example:
        >>> import math, jax, mcgrad
        >>> def level(n, x, key):  # of exp(x), term by term
        ...     return x**n / float(math.factorial(n))
        >>> program = mcgrad.debias(level, rate=0.5, max_level=20, form="sum")
        >>> jax.grad(program)(0.3, jax.random.key(0)).shape
        ()

    References:
        Rhee and Glynn 2015, theorem 1 (coupled sum) and section 3 (single term), "Unbiased Estimation with Square Root
        Convergence for SDE Models"; their single term leaves level 0 to chance too. McLeish 2011, "A General Method for Debiasing a
        Monte Carlo Estimator", https://arxiv.org/abs/1005.2228; Luo et al. 2020 (bounds of many samples), "SUMO",
        https://arxiv.org/abs/2004.00353.
    """
    check_levels(level, rate, max_level, "debias")
    check_option("debias(form=...)", form, ("single", "sum"))
    reached, chances = chances_of(rate, max_level)

    def program(*args: Any, **kwargs: Any) -> Any:
        key, with_key = sample_key(functools.partial(level, 0), args, kwargs, "debias")
        goes_on = jax.random.bernoulli(_own(key), rate, (max_level,))
        passed = jnp.cumprod(goes_on)
        of_levels = jax.tree.map(lambda own: jax.random.fold_in(jax.random.clone(own), _OF_LEVELS), key)

        def term(n: int, chance: float) -> Callable[[], Any]:
            def run() -> Any:
                at, named = with_key(jax.tree.map(jax.random.clone, of_levels))
                return jax.tree.map(lambda x: x / chance, correction(level, n, at, named))

            return run

        like = jax.eval_shape(term(0, 1.0))
        for n in range(1, max_level + 1):
            check_same(jax.eval_shape(term(n, 1.0)), like, n)
        total = term(0, 1.0)()
        if form == "single":
            others = [term(n, chances[n]) for n in range(1, max_level + 1)]
            return jax.tree.map(jnp.add, total, jax.lax.switch(jnp.sum(passed[:-1]), others))
        for n in range(1, max_level + 1):
            nothing = functools.partial(jax.tree.map, lambda s: jnp.zeros(s.shape, s.dtype), like)
            more = jax.lax.cond(passed[n - 1] == 1, term(n, reached[n]), nothing)
            total = jax.tree.map(jnp.add, total, more)
        return total

    return without_level(program, level)


_OWN, _OF_LEVELS = 0xDEB1A5, 0xDEB1A6
"""Folded into the key: of the number of levels, and of what all levels get. A level may be such a program itself."""


def _own(key: Any) -> Any:
    return jax.random.fold_in(jax.random.clone(check_key(jax.tree.leaves(key)[0], "debias")), _OWN)


def chances_of(rate: float, max_level: int) -> tuple[list[float], list[float]]:
    """Of each level, the probability that the sum reaches it, and that it is the single one, besides level 0, which always is."""
    reached = [rate**n for n in range(max_level + 1)]
    single = [a - b for a, b in zip(reached, [*reached[1:-1], 0.0], strict=False)]
    return reached, [1.0, *single]


def correction(level: Callable[..., Any], n: int, args: Any, kwargs: Any) -> Any:
    """The correction of a level, as arrays."""
    found = jax.tree.map(jnp.asarray, level(n, *args, **kwargs))
    wrong = [x.dtype for x in jax.tree.leaves(found) if not jnp.issubdtype(x.dtype, jnp.inexact)]
    if wrong:
        raise TypeError(
            f"`mcgrad.debias(level=...)` must return floating-point numbers, got {wrong[0]} from level {n} of `{name_of(level)}`. "
            "Convert them with `.astype(float)`."
        )
    return found


def check_same(found: Any, like: Any, n: int) -> None:
    """Refuse a level of another structure, shape or dtype than level 0."""
    described = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (found, like)]
    if described[0] != described[1]:
        raise TypeError(
            f"`mcgrad.debias(level=...)` must return the same shapes and dtypes at every level, got {described[0]} at level {n} "
            f"and {described[1]} at level 0. Take a mean over what grows with the level."
        )


def check_levels(level: Any, rate: Any, max_level: Any, where: str) -> None:
    """Refuse levels that are no function, rates that are no probabilities and numbers of levels that are none."""
    if not callable(level):
        raise TypeError(
            f"`mcgrad.{where}(level=...)` must be a function `level(n, *args, key)`, got {type(level).__name__}. Pass one that "
            "returns the correction of level `n`."
        )
    is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if not is_number or not 0 < rate < 1:
        got = "a traced value" if isinstance(rate, Tracer) else repr(rate)
        raise ValueError(
            f"`mcgrad.{where}(rate=...)` must be a number between 0 and 1, got {got}. Pass the probability to go on to the next "
            "level; `mcgrad.debias_report` tells which are good."
        )
    check_at_least(max_level, 1, f"{where}(max_level=...)")


def without_level(program: Callable[..., Any], level: Callable[..., Any]) -> Callable[..., Any]:
    """The program with the name and the arguments of the levels, but for the first."""
    named = functools.update_wrapper(program, level)
    with contextlib.suppress(TypeError, ValueError):
        named.__signature__ = inspect.signature(functools.partial(level, 0))  # ty: ignore[missing-attribute]
    return named
