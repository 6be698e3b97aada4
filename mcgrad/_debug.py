"""Checks of values while a compiled program runs; off, and free, unless asked for."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

_on = contextvars.ContextVar("mcgrad_debug_checks", default=False)


@contextlib.contextmanager
def debug_checks(on: bool = True) -> Generator[None]:
    """Check values that are known only when the program runs, in everything that is traced inside the `with` block.

    Outside of `jit`, mcgrad refuses a parameter outside its domain at once; under `jit`, `vmap` or `grad` its value is not known
    yet. In the block, these are checked when the compiled program runs: that parameters of mcgrad's distributions lie in their
    domains, that log densities of draws and costs are finite, and that estimators which see what is drawn only are at no
    probability of exactly zero that moves (at `Bernoulli(probs=0.0)` the derivative is `f(1) - f(0)`, and 1 never comes up).
    Programs that were compiled before are not compiled anew.

    Args:
        on: whether to check.

    Raises:
        jax.errors.JaxRuntimeError: when the program runs, with the message that names the parameter, or the draw and its line.
            As all errors of compiled programs it may come late: `jax.block_until_ready` waits for it.

    Example:
        >>> import jax, mcgrad
        >>> def loss(scale, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(0.0, scale)) ** 2
        >>> with mcgrad.debug_checks():
        ...     gradient = jax.block_until_ready(jax.jit(mcgrad.grad(loss))(1.0, jax.random.key(0)))
    """
    token = _on.set(on)
    try:
        yield
    finally:
        _on.reset(token)


def checks_are_on() -> bool:
    """Whether this is traced inside `debug_checks`."""
    return _on.get()


def check_when_run(check: Callable[..., None], *values: Any) -> None:
    """Call `check` with the values, as NumPy arrays, when the program runs."""
    if _on.get():
        jax.debug.callback(lambda *xs: check(*map(np.asarray, xs)), *values)


def check_finite(what: Callable[[], str], value: Any) -> None:
    """Refuse, when the program runs, a value with entries that are not finite; `what` says what it is."""

    def check(values: np.ndarray) -> None:
        bad = ~np.isfinite(values)
        if bad.any():
            raise FloatingPointError(f"{what()} must be finite, got {values[bad].ravel()[0].item()!r}.")

    check_when_run(check, value)
