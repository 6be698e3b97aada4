"""Natural gradients, as an optax transform: by the scores of all draws, or by Fisher matrices in closed form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient as stop
from jaxtyping import Array, ArrayLike, Float

from mcgrad import _compat
from mcgrad._arguments import check_at_least, sample_key, split
from mcgrad.distributions.base import Distribution
from mcgrad.distributions.cross_entropy import expected_log_prob
from mcgrad.estimators import Score
from mcgrad.planned import plan_of
from mcgrad.program.held import Held
from mcgrad.program.jumps import JumpWarning


def natural(
    fn: Callable[..., Any], *, num_samples: int | None = None, damping: ArrayLike = 1e-3
) -> optax.GradientTransformationExtraArgs:
    r"""Natural gradients, as an optax transform: gradients times the inverse of the damped Fisher matrix of the draws.

        update = (F + damping I)^-1 gradient,    F = E[s s^T],    s = d log p(all draws)

    **With `num_samples`**, `fn` is a program, such as the loss itself, and `F` is the mean over so many runs of it: the scores of
    all of its draws, in loops too, are found in one pass, with the draws that later ones depend on. Unbiased for `F`, not for its
    inverse: with few samples damping matters. The solve is in the smaller of the number of samples and that of parameters.

    **Without**, `fn` is a function of the parameters that returns a distribution, or a pytree of independent distributions, and `F`
    is exact: exponential families (`Normal`, `LogNormal`, `HalfNormal`, `MultivariateNormal`, `Exponential`, `Gamma`,
    `InverseGamma`, `Beta`, `Dirichlet`, `Poisson`, `Geometric`, `Binomial`, `Multinomial`, `Bernoulli`, `Categorical`,
    `Independent` of these) and others of finite support, in any parameters that a smooth function turns into theirs. It takes
    memory for a matrix of the number of parameters.

    `F` is that of one run: if a batch of `N` independent draws stands in it, `N` times that of one. What no draw depends on has
    only the damping: its gradients are divided by it, so give it another transform (`optax.multi_transform`).

    Args:
        fn: `fn(params, *args)` with `num_samples`, where one of `args` is the key; `fn(params)` without.
        num_samples: runs whose scores make up `F`.
        damping: added to the diagonal of `F`, above zero; at least zero where `F` is exact.

    Returns:
        A transform for `optax.chain`. With `num_samples`, its `update(gradients, state, params, args=(...))` must get the
        parameters, and in `args` what the program takes after them, key included: another key than the gradient's.

    Raises:
        TypeError: for an `fn` that is no function; for one that returns no distributions.
        ValueError: for a number of samples or a damping that cannot be; for an update without `params` or `args`; for a
            distribution without a closed form, or without a density; for a draw that names another estimator than a score,
            with its line.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad, optax
        >>> law = lambda params: mcgrad.Normal(params["loc"], jnp.exp(params["log_scale"]))
        >>> params = {"loc": jnp.array(0.0), "log_scale": jnp.log(2.0)}
        >>> exact = mcgrad.natural(law, damping=0.0)
        >>> updates, _ = exact.update({"loc": jnp.array(1.0), "log_scale": jnp.array(1.0)}, exact.init(params), params)
        >>> {name: round(float(x), 4) for name, x in updates.items()}  # times scale^2, and divided by 2
        {'loc': 4.0, 'log_scale': 0.5}

    References:
        Amari 1998, eq. 8, "Natural Gradient Works Efficiently in Learning", https://doi.org/10.1162/089976698300017746; Hoffman et
        al. 2013, section 2.3 (exponential families), "Stochastic Variational Inference", https://arxiv.org/abs/1206.7051.
    """
    if not callable(fn):
        raise TypeError(
            f"`mcgrad.natural(fn=...)` must be a function, got {type(fn).__name__}. Pass a program, or a function of the "
            "parameters that returns distributions."
        )
    if num_samples is not None:
        num_samples = check_at_least(num_samples, 1, "natural(num_samples=...)")
    concrete = not isinstance(damping, _compat.Tracer)
    low = 0.0 if num_samples is None else np.finfo(np.float32).tiny
    if concrete and not (np.shape(damping) == () and low <= float(np.asarray(damping)) < np.inf):
        fits = "one number, at least zero" if num_samples is None else "one number above zero"
        raise ValueError(f"`mcgrad.natural(damping=...)` must be {fits}, got {damping!r}. Pass for instance 1e-3.")

    def update(updates: Any, state: Any, params: Any = None, *, args: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        if params is None or (num_samples is not None and not isinstance(args, (tuple, list))):
            wanted = "params" if num_samples is None else "params, args=(...)"
            raise ValueError(
                f"`mcgrad.natural(...).update` must be called as `update(gradients, state, {wanted})`, got "
                f"{'no parameters' if params is None else f'{args!r} for `args`'}. Pass what the program takes after "
                "the parameters, key included."
            )
        flat, back = ravel_pytree(updates)
        if num_samples is None:
            matrix = _exact(fn, params)
            solved = jnp.linalg.solve(matrix + damping * jnp.eye(len(flat), dtype=matrix.dtype), flat)
        else:
            solved = _solve(scores(fn, params, tuple(args), num_samples), flat, damping)
        return back(solved.astype(flat.dtype)), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scores(fn: Callable[..., Any], params: Any, args: Any, num_samples: int) -> Float[Array, "n p"]:
    """Derivatives of the log density of all draws of a run that reach its output, of independent runs."""
    key, with_key = sample_key(fn, (params, *args), {}, "natural")

    def one(key: Any) -> Array:
        rest = with_key(key)[0][1:]

        def weight(params: Any) -> Array:
            def program(params: Any, *rest: Any) -> Array:
                # A cost of one that depends on all draws: the derivative of its weight is the score of all of them.
                leaves = map(jnp.asarray, jax.tree.leaves(fn(params, *rest)))
                parts = [jnp.sum(jnp.tanh(stop(x.astype(jnp.result_type(x, jnp.float32))))) for x in leaves]
                return jnp.exp(0.0 * sum(parts, jnp.zeros(())))

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", JumpWarning)  # no draw is differentiated along its path here
                plan, run = plan_of(program, (params, *rest), {}, Score(baseline=None), False, key)
            for site, estimator in plan.estimators.items():
                if not (isinstance(estimator, Held) or (isinstance(estimator, Score) and estimator.num_samples == 1)):
                    raise ValueError(
                        f"`mcgrad.natural(fn=...)` must have draws that name no estimator, got `{type(estimator).__name__}` at "
                        f"{site.describe()}. Pass the program without it, `mcgrad.sample(key, dist)`, or name it in `mcgrad.grad`."
                    )
            return run()

        return ravel_pytree(jax.grad(weight)(params))[0]

    return jax.vmap(one)(split(key, num_samples))


def _solve(rows: Float[Array, "n p"], gradient: Float[Array, " p"], damping: Any) -> Float[Array, " p"]:
    """`(rows^T rows / n + damping I)^-1 gradient`, in the smaller of the two dimensions."""
    n, p = rows.shape
    small = rows.T @ rows / n if p <= n else rows @ rows.T / n
    factor = jax.scipy.linalg.cho_factor(small + damping * jnp.eye(len(small), dtype=small.dtype))
    if p <= n:
        return jax.scipy.linalg.cho_solve(factor, gradient)
    return (gradient - rows.T @ jax.scipy.linalg.cho_solve(factor, rows @ gradient) / n) / damping


def _exact(fn: Callable[..., Any], params: Any) -> Float[Array, "p p"]:
    """Minus the second derivative of the expected log density, under the distributions as they are."""
    flat, back = ravel_pytree(params)

    def is_distribution(x: Any) -> bool:
        return isinstance(x, Distribution)

    def laws(flat: Array) -> list[Any]:
        return jax.tree.leaves(fn(back(flat)), is_leaf=is_distribution)

    fixed = laws(stop(flat))
    for dist in fixed:
        if not is_distribution(dist):
            raise TypeError(
                f"`mcgrad.natural(fn=...)` must return distributions of mcgrad, got {type(dist).__name__}. For a program pass "
                "`num_samples=`, the number of runs whose scores make up its Fisher matrix."
            )

    def total(flat: Array) -> Array:
        found = jnp.zeros((), flat.dtype)
        for dist, under in zip(laws(flat), fixed, strict=True):
            value = expected_log_prob(dist, under)
            if value is None:
                raise ValueError(
                    f"`mcgrad.natural(fn=...)` must return distributions whose Fisher matrix has a closed form, got {dist.law}. "
                    "Pass a program that draws from it, and `num_samples=`."
                )
            found += jnp.sum(value)
        return found

    return -jax.hessian(total)(flat)
