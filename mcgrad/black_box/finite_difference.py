"""Finite differences, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Array, Float

from mcgrad._arguments import check_option
from mcgrad.black_box.differences import check_positive, difference_grad


def finite_difference_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    step: Float[Array, ""] | float,
    difference: Literal["central", "forward"] = "central",
    num_samples: int = 1,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The gradient by finite differences with common random numbers.

        g_i = (f(params + h e_i, key) - f(params - h e_i, key)) / (2 h)          central
        g_i = (f(params + h e_i, key) - f(params, key)) / h                      forward

    with one key for all values of a sample. Biased: `E[g_i]` is the exact derivative of `E[f]` averaged in entry `i` over
    `params_i +- h` (central) or `params_i .. params_i + h` (forward); off by `h^2/6 d_i^3 E[f]` or `h/2 d_i^2 E[f]`, and
    exact where `E[f]` is quadratic, or linear, in that entry. First derivatives only; `fn` need not be
    differentiable. `2 n` or `n + 1` evaluations a sample for `n` entries, all at once: for large `n` take
    `mcgrad.spsa_grad` or `mcgrad.evolution_grad`.

    **How the variance depends on the step**: not at all if `f` is smooth for a fixed key; as `1 / h` if it jumps for a fixed
    key (discrete draws, thresholds). If the step is lost to rounding when added to a parameter, that entry is NaN.

    Args:
        fn: any function that JAX can trace and that returns a scalar, of `(params, ..., key)`; its draws may be plain
            `jax.random` or `mcgrad.sample`. It may also take no key. It runs under `jax.vmap`, so give a callback a
            `vmap_method`.
        argnums: which arguments to differentiate in, as in `jax.grad`.
        step: `h`, a positive number in the units of the parameters.
        difference: `"central"` or `"forward"`.
        num_samples: how many keys, split from the one given, to average over.
        chunk_size: how many samples run at once; must divide `num_samples`. By default all.
        has_aux: as in `jax.grad`; `aux` is that of a run at `params`, with a leading axis of size `num_samples` if that is
            above one. To get the value too, return it as `aux`.

    Returns:
        A function of the arguments of `fn` that returns the gradient, or `(gradient, aux)`.

    Raises:
        TypeError: for a function that does not return a floating-point scalar; for parameters that are not floats; for a
            `has_aux` that is not a bool.
        ValueError: for an invalid option; for several samples without a key.
        NotImplementedError: if the result is differentiated.

    Example:
        >>> import jax, mcgrad
        >>> def cost(rate, key):
        ...     return (jax.random.exponential(key) / rate - 1.0) ** 2
        >>> gradient = mcgrad.finite_difference_grad(cost, step=1e-3, num_samples=100)
        >>> gradient(2.0, jax.random.key(0)).shape
        ()

    References:
        Glasserman 2003, "Monte Carlo Methods in Financial Engineering", section 7.1 (bias and variance, with common random
        numbers); L'Ecuyer and Perron 1994, "On the Convergence Rates of IPA and FDC Derivative Estimators",
        https://doi.org/10.1287/opre.42.4.643.
    """
    check_positive(step, "finite_difference_grad(step=...)")
    check_option("finite_difference_grad(difference=...)", difference, ("central", "forward"))

    central = difference == "central"
    return difference_grad(
        "finite_difference_grad", fn, argnums, None, step, num_samples, chunk_size, has_aux, central=central
    )
