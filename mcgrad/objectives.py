"""Multi-sample objectives: importance-weighted bounds of a program's log weight, and estimators of their gradients.

A program for the log weight draws latents `z ~ q` through `mcgrad.sample` and returns `log w = log p(x, z) - log q(z)`. All
bounds here use `K` independent runs of it, and are to be maximized.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient as stop
from jaxtyping import Array, Float

from mcgrad._arguments import check_at_least, check_option, keyed_by, sample_key, split
from mcgrad._compat import custom_jvp, undifferentiable
from mcgrad._modules import pure
from mcgrad._types import PRNGKey
from mcgrad.estimators import Pathwise, Score
from mcgrad.planned import plan_of
from mcgrad.program import Estimator
from mcgrad.program.held import Held


def iwae(fn: Callable[..., Any], num_samples: int, *, key_argname: str | None = None) -> Callable[..., Any]:
    r"""The importance-weighted bound of `K` samples, as a program.

        L_K = log (1/K sum_k w_k)

    `E[L_K]` is at most `log p(x)`, grows with `K`, and is the evidence lower bound for `K = 1`. The result is a program like
    any other: `mcgrad.grad` differentiates it with the estimators of its draws, `Pathwise` for continuous ones. For discrete
    draws `mcgrad.vimco` has less variance than `Score`. **With `Pathwise` the signal-to-noise ratio of the gradient in the
    parameters of `q` falls as `1 / sqrt(K)`**; with `mcgrad.dreg` it grows.

    Args:
        fn: a program that returns the log weight: an array of floats of any shape; each entry has its own bound.
        num_samples: `K`, the number of runs, each on its own key, split from the one given.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A program of the arguments of `fn` that returns `L_K`, in the shape of the log weight.

    Raises:
        TypeError: for a log weight that is not a floating-point array.
        ValueError: for an invalid number of samples; for a program without a `key` argument.

    Example:
        >>> import jax, mcgrad
        >>> def log_weight(loc, x, key):
        ...     q = mcgrad.Normal(loc, 1.0)
        ...     z = mcgrad.sample(key, q)
        ...     return mcgrad.Normal(0.0, 1.0).log_prob(z) + mcgrad.Normal(z, 1.0).log_prob(x) - q.log_prob(z)
        >>> mcgrad.grad(mcgrad.iwae(log_weight, 8))(0.0, 1.0, jax.random.key(0)).shape
        ()

    References:
        Burda et al. 2016, section 3, "Importance Weighted Autoencoders", https://arxiv.org/abs/1509.00519; Rainforth et al.
        2018, theorem 1 (signal-to-noise ratio), "Tighter Variational Bounds are Not Necessarily Better",
        https://arxiv.org/abs/1802.04537.
    """
    fn = keyed_by(fn, key_argname)
    return _bound("iwae", fn, num_samples, 1, (None,), _log_mean_exp)


def vimco(
    fn: Callable[..., Any],
    num_samples: int,
    *,
    others: Literal["geometric", "arithmetic"] = "geometric",
    key_argname: str | None = None,
) -> Callable[..., Any]:
    r"""The importance-weighted bound, differentiated by the score with a baseline for each sample (VIMCO).

        d L = sum_k (L_K - L_{-k}) d log q(z_k) + sum_k (w_k / sum_j w_j) d log w_k

    where `L_{-k}` is `L_K` with `w_k` replaced by the mean of the other weights, so that it does not depend on `z_k`.
    Unbiased, for derivatives of every order; for discrete and continuous draws. `K` evaluations of the log weight. Each of its
    entries is credited to the draws that it depends on.

    Args:
        fn: see `mcgrad.iwae`. Its draws name no estimator; all are differentiated by the score.
        num_samples: `K`, at least 2.
        others: which mean of the other weights replaces `w_k`.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` whose value is `L_K`, to be differentiated by JAX.

    Raises:
        TypeError, ValueError: see `mcgrad.iwae`. ValueError also for any other `others`; for a draw that names an
            estimator or has no score.

    Example:
        >>> import jax, mcgrad
        >>> def log_weight(logits, key):
        ...     q = mcgrad.Bernoulli(logits=logits)
        ...     z = mcgrad.sample(key, q)
        ...     return -2.0 * z - q.log_prob(z)
        >>> jax.grad(mcgrad.vimco(log_weight, 4))(0.3, jax.random.key(0)).shape
        ()

    References:
        Mnih and Rezende 2016, section 2 (gradient and both means), "Variational Inference for Monte Carlo Objectives",
        https://arxiv.org/abs/1602.06725.
    """
    fn = keyed_by(fn, key_argname)
    check_option("vimco(others=...)", others, ("geometric", "arithmetic"))

    def surrogate(log_weights: Array, score: Array) -> Array:
        bound = _log_mean_exp(log_weights)
        without = stop(_without_each(log_weights, others))
        return bound * jnp.prod(score, axis=0) + jnp.sum((1 - score) * _finite(without), axis=0)

    return _bound("vimco", fn, num_samples, 2, (Held(), _SCORE), surrogate)


def vargrad(fn: Callable[..., Any], num_samples: int, *, key_argname: str | None = None) -> Callable[..., Any]:
    r"""The evidence lower bound, differentiated by the log-variance loss (VarGrad).

        L = 1/K sum_k log w_k
        d L = 1/(K-1) sum_k (log w_k - L) d log q(z_k) + 1/K sum_k (d log w_k + d log q(z_k))

    In the parameters of `q` the second sum is zero, and the first is minus the gradient of half the sample variance of
    `log w_k` with the draws held fixed. It is the leave-one-out score estimator without the term `d log q`, whose mean is zero.
    Unbiased, for derivatives of every order, also in the parameters of `p`; for discrete and continuous draws. `K` evaluations
    of the log weight.

    Args:
        fn, num_samples: see `mcgrad.vimco`.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` whose value is `L`, to be differentiated by JAX.

    Raises:
        TypeError, ValueError: see `mcgrad.iwae`. ValueError also for a draw that names an estimator or has no score.

    Example:
        >>> import jax, mcgrad
        >>> def log_weight(logits, key):
        ...     q = mcgrad.Bernoulli(logits=logits)
        ...     return -q.log_prob(mcgrad.sample(key, q))
        >>> jax.grad(mcgrad.vargrad(log_weight, 4))(0.0, jax.random.key(0)).shape
        ()

    References:
        Richter et al. 2020, section 3 (of the divergence, so with the opposite sign), "VarGrad: A Low-Variance Gradient
        Estimator for Variational Inference", https://arxiv.org/abs/2010.10436.
    """
    fn = keyed_by(fn, key_argname)

    def surrogate(log_weights: Array, score: Array) -> Array:
        total = jnp.sum(log_weights, axis=0, keepdims=True)
        rest = _finite(stop((total - log_weights) / (len(log_weights) - 1)))
        # A baseline lower by one adds `d log q`, which cancels that of the log weight itself.
        return jnp.mean(score * log_weights + (1 - score) * (rest - 1), axis=0)

    return _bound("vargrad", fn, num_samples, 2, (Held(), _SCORE), surrogate)


def dreg(fn: Callable[..., Any], num_samples: int, *, key_argname: str | None = None) -> Callable[..., Any]:
    r"""The importance-weighted bound, differentiated by doubly reparameterized gradients (DReG).

        d L = sum_k v_k^2 (d log w_k / dz) dz_k + sum_k v_k (d log w_k + d log q(z_k)),    v_k = w_k / sum_j w_j

    with `z_k` held fixed in the second sum, which is zero in the parameters of `q` alone and the gradient of `log p` in those
    of `p`. Unbiased, first derivatives only; continuous draws with a path, log weights differentiable in them. Its
    signal-to-noise ratio in the parameters of `q` grows with `K`, where that of `mcgrad.iwae` falls. `K` evaluations of the
    log weight, differentiated twice (with the draws moving and with the draws held).

    Args:
        fn: see `mcgrad.iwae`; the log weight **with** the derivative of `log q` in its parameters. Its draws name no estimator.
        num_samples: `K`.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` whose value is `L_K`, to be differentiated by JAX.

    Raises:
        TypeError, ValueError: see `mcgrad.iwae`. ValueError also for a draw that names an estimator, or has no path or no score.
        NotImplementedError: for a second derivative.

    Example:
        >>> import jax, mcgrad
        >>> def log_weight(loc, key):
        ...     q = mcgrad.Normal(loc, 1.0)
        ...     z = mcgrad.sample(key, q)
        ...     return mcgrad.Normal(1.0, 1.0).log_prob(z) - q.log_prob(z)
        >>> abs(float(jax.grad(mcgrad.dreg(log_weight, 4))(1.0, jax.random.key(0)))) < 1e-6  # q is exact: no variance
        True

    References:
        Tucker et al. 2019, section 4, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
        https://arxiv.org/abs/1810.04152. They leave `d log q` out of the log weight; here it is added, so that the result
        differs from the plain gradient by a term of mean zero for any program.
    """
    fn = keyed_by(fn, key_argname)
    return _bound("dreg", fn, num_samples, 1, (Pathwise(), Held(), _SCORE), _by_path(jnp.square))


def sticking_the_landing(
    fn: Callable[..., Any], num_samples: int = 1, *, key_argname: str | None = None
) -> Callable[..., Any]:
    r"""The importance-weighted bound, differentiated without the score term of its log weights (STL).

        d L = sum_k v_k (d log w_k / dz) dz_k + sum_k v_k (d log w_k + d log q(z_k)),    v_k = w_k / sum_j w_j

    with `z_k` held fixed in the second sum. It has no variance if `q` is the exact posterior. Unbiased for `K = 1`.
    **Biased for `K > 1`** in the parameters of `q`, by `E[sum_k v_k d log q(z_k)]`, which does not vanish; use `mcgrad.dreg`
    there. First derivatives only; continuous draws with a path.

    Args:
        fn, num_samples: see `mcgrad.dreg`.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` whose value is `L_K`, to be differentiated by JAX.

    Raises:
        TypeError, ValueError, NotImplementedError: see `mcgrad.dreg`.

    Example:
        >>> import jax, mcgrad
        >>> def log_weight(loc, key):
        ...     q = mcgrad.Normal(loc, 1.0)
        ...     z = mcgrad.sample(key, q)
        ...     return mcgrad.Normal(1.0, 1.0).log_prob(z) - q.log_prob(z)
        >>> abs(float(jax.grad(mcgrad.sticking_the_landing(log_weight))(1.0, jax.random.key(0)))) < 1e-6
        True

    References:
        Roeder et al. 2017, section 3, "Sticking the Landing", https://arxiv.org/abs/1703.09194; Tucker et al. 2019, section 4
        (bias for several samples), https://arxiv.org/abs/1810.04152.
    """
    fn = keyed_by(fn, key_argname)
    by_path = _by_path(lambda v: v)
    return _bound("sticking_the_landing", fn, num_samples, 1, (Pathwise(), Held(), _SCORE), by_path)


_SCORE = Score(baseline=None)


def _bound(
    where: str,
    fn: Callable[..., Any],
    num_samples: int,
    least: int,
    estimators: Sequence[Estimator | None],
    surrogate: Callable[..., Array],
) -> Callable[..., Any]:
    """A bound whose surrogate is a function of `[K, ...]` log weights, one for each of the `estimators` of their draws.

    `None` leaves the draws to a transform; `_SCORE` gives the score weights in place of the log weights.
    """
    num_samples = check_at_least(num_samples, least, f"{where}(num_samples=...)")

    @functools.wraps(fn)
    def bound(*args: Any, **kwargs: Any) -> Any:
        held = pure(fn, args, kwargs, has_aux=False)
        if held is not None:
            args, kwargs = held.args, held.kwargs
        key, with_key = sample_key(fn, args, kwargs, where)

        @functools.wraps(fn)
        def program(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            """The log weight, and the variables of modules that it changed."""
            if held is None:
                return fn(*args, **kwargs), ()
            log_weight, (_, changed) = held.fn(*args, **kwargs)
            return log_weight, changed

        def run(key: PRNGKey, estimator: Estimator | None) -> tuple[Any, Any]:
            at, named = with_key(key)
            if estimator is None:
                log_weight, changed = program(*at, **named)
                return _checked(log_weight, where), changed
            reached = _reached(program) if estimator is _SCORE else program
            plan, run_plan = plan_of(reached, at, named, estimator, True, key)
            for site in plan.analysis.sites.values():
                if site.estimator is not None:
                    raise ValueError(
                        f"`mcgrad.{where}` must choose the estimator of every draw, and {site.describe()} names "
                        f"`mcgrad.{type(site.estimator).__name__}`. Leave it out of `mcgrad.sample`."
                    )
            log_weight, changed = run_plan()
            return _checked(log_weight, where), changed

        def one(key: PRNGKey) -> tuple[list[Array], Any]:
            found = [run(jax.tree.map(jax.random.clone, key), estimator) for estimator in estimators]  # the same draws
            return [log_weight for log_weight, _ in found], found[0][1]

        log_weights, changed = jax.vmap(one)(split(key, num_samples))
        if held is not None:
            held.update(changed, several=True)
        return surrogate(*log_weights)

    return bound


def _by_path(path_weight: Callable[[Array], Array]) -> Callable[[Array, Array, Array], Array]:
    """`sum_k c_k (path derivative) + v_k (derivative with z held + score)`, as a bound with that first derivative.

    For DReG, c = v^2, the mean is that of `v (path + held)`: with all other samples fixed, the score and the path give the
    same gradient of `E[v_k]`, so `E[v_k d log q(z_k)] = E[d v_k / dz dz_k] = E[(v_k - v_k^2) (d log w_k / dz) dz_k]`.
    """

    def surrogate(moving: Array, held: Array, score: Array) -> Array:
        v = jax.nn.softmax(moving, axis=0)
        c = path_weight(v)
        terms = _derivative_only(c, moving) + _derivative_only(v - c, held) + _derivative_only(v, score)
        return stop(_log_mean_exp(moving)) + jnp.sum(terms, axis=0)

    return surrogate


def _checked(value: Any, where: str) -> Any:
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = f"an array of {value.dtype}" if isinstance(value, jax.Array) else type(value).__name__
        raise TypeError(
            f"`mcgrad.{where}` must get a program that returns its log weight, one array of floats, got {got}. Return "
            "`log p(x, z) - log q(z)`."
        )
    return value


def _reached(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A program whose value is 1 and which depends on the same draws as the log weight: its surrogate is their score weight."""

    @functools.wraps(fn)
    def program(*args: Any, **kwargs: Any) -> Any:
        log_weight, changed = fn(*args, **kwargs)
        one = jnp.ones_like(log_weight)
        return jnp.where(stop(log_weight) > 0, one, one), changed

    return program


_log_mean_exp = functools.partial(jax.nn.logmeanexp, axis=0)


def _without_each(log_weights: Float[Array, "K ..."], others: str) -> Float[Array, "K ..."]:
    """`L_{-k}` for every `k`."""
    num = len(log_weights)

    def without(own: Array) -> Array:
        if others == "arithmetic":
            return jax.nn.logsumexp(jnp.where(own, -jnp.inf, log_weights), axis=0) - math.log(num - 1)
        # A mean over the others only: subtracting from the total would be `inf - inf` where a weight is zero.
        mean = jnp.sum(log_weights, axis=0, where=~own) / (num - 1)
        return _log_mean_exp(jnp.where(own, mean[None], log_weights))

    each = jnp.eye(num, dtype=bool).reshape(num, num, *[1] * (log_weights.ndim - 1))
    return jax.vmap(without)(each)


def _finite(baseline: Array) -> Array:
    """The baseline, or zero where all other weights are zero."""
    return jnp.where(jnp.isfinite(baseline), baseline, 0)


_first_order = undifferentiable(
    "A second derivative of `mcgrad.dreg` or `mcgrad.sticking_the_landing` would be wrong: they are right to first order "
    "only. Use `mcgrad.iwae`, which is right to every order."
)


@custom_jvp
def _derivative_only(coefficient: Array, x: Array) -> Array:
    """Zero, with derivative `coefficient dx`, and an error in place of a second."""
    return jnp.zeros_like(x)


@_derivative_only.defjvp
def _derivative_only_jvp(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[Array, Array]:
    coefficient, x = primals
    return jnp.zeros_like(x), _first_order(coefficient) * tangents[1]
