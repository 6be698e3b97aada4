"""Mean, variance and signal-to-noise of a gradient estimate, and how many samples make it good enough."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import PyTree as Tree

from mcgrad._arguments import check_at_least, fold_in, name_of, sample_key
from mcgrad._modules import copied, jit
from mcgrad._spread import Spread, check_sharding, not_closed_over, spread_over
from mcgrad._types import PRNGKey, PyTree, static_field
from mcgrad.diagnostics.pictures import need, save
from mcgrad.program import Estimator
from mcgrad.transforms import explain, grad_of_sample


@dataclasses.dataclass(frozen=True)
class GradientStatistics(PyTree):
    """What `mcgrad.gradient_statistics` returns.

    A *leaf* is an array of the gradient's pytree. Signal-to-noise is that of one sample; of a mean of `K` samples it is
    `sqrt(K)` times that.

    Attributes:
        mean: the mean gradient, in the gradient's structure.
        variance: of one sample, entry by entry, with `num_samples - 1` in the denominator; same structure.
        standard_error: of `mean`, entry by entry: `sqrt(variance / num_samples)`; same structure.
        signal_to_noise: of each leaf, a scalar in its place; see `mcgrad.gradient_statistics`.
        total_variance: the sum of `variance` over all entries.
        total_standard_error: `sqrt(total_variance / num_samples)`, of the whole `mean` as a vector.
        total_signal_to_noise: of the whole gradient as a vector.
        num_samples: how many samples were drawn.
    """

    mean: Tree[Float[Array, ...]]
    variance: Tree[Float[Array, ...]]
    standard_error: Tree[Float[Array, ...]]
    signal_to_noise: Tree[Float[Array, ""]]
    total_variance: Float[Array, ""]
    total_standard_error: Float[Array, ""]
    total_signal_to_noise: Float[Array, ""]
    num_samples: int = static_field()

    def plot(self, path: str | Path) -> Path:
        """Write a picture: the size of the mean gradient against the standard deviation of one sample, a point for each entry.

        Points above the line are entries whose sign one sample mostly has right; those far below are noise until many are averaged.

        Args:
            path: of the file; its suffix sets the format, for instance `.png` or `.pdf`.

        Returns:
            `path`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        need("`GradientStatistics.plot`", "matplotlib")
        return save(self._figure, path)

    def _figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4.2))
        axis: Any = figure.subplots()
        for (where, mean), variance in zip(
            jax.tree_util.tree_leaves_with_path(self.mean), jax.tree.leaves(self.variance), strict=True
        ):
            name = jax.tree_util.keystr(where) or "gradient"
            axis.plot(np.sqrt(variance).ravel(), np.abs(mean).ravel(), "o", markersize=4, alpha=0.7, label=name)
        ends = axis.get_xlim()
        axis.axline((0, 0), slope=1, color="black", linewidth=1, linestyle="--")
        axis.set(
            xlabel="standard deviation of one sample", ylabel="size of the mean", xlim=(0, ends[1]), ylim=(0, None)
        )
        axis.set_title(f"signal-to-noise of the whole gradient: {self.total_signal_to_noise:.3g}")
        axis.legend()
        return figure


class Moments(NamedTuple):
    """Of the samples seen so far: how many, their mean, and the sum of squared deviations from it."""

    count: Array
    mean: Any
    deviation: Any


def gradient_statistics(
    fn: Callable[..., Any],
    num_samples: int,
    chunk_size: int = 256,
    *,
    argnums: int | Sequence[int] = 0,
    estimator: Estimator | None = None,
    sharding: Any = None,
) -> Callable[..., GradientStatistics]:
    r"""Mean, variance, standard error and signal-to-noise of a gradient estimate of one sample, in constant memory.

    Over samples `g_i` of `mcgrad.grad(fn)`,

        mean = sum_i g_i / N,    variance = sum_i (g_i - mean)**2 / (N - 1),
        signal_to_noise = sqrt(max(|mean|**2 - V / N, 0) / V),    V = the sum of `variance` over entries

    the last for each leaf and for all together. `V / N` is what noise alone adds to `|mean|**2`; a signal-to-noise of 0
    says that the gradient cannot be told from zero with `N` samples, and NaN that a sample was not finite. Samples run in
    chunks whose moments are merged, so memory does not grow with `num_samples`. Compiled by `jax.jit`, once for each shape
    of the arguments.

    Args:
        fn: a program that returns a scalar, with its randomness in an argument named `key`; see `mcgrad.grad`.
        num_samples: `N`, at least 2. The samples are independent: score estimators have no leave-one-out baseline among them.
        chunk_size: how many samples run at once, at most; any number, the last chunk may be smaller.
        argnums, estimator: see `mcgrad.grad`.
        sharding: spreads the samples over devices, which each run theirs in chunks; see `mcgrad.expectation`. The samples are
            those of one device.

    Returns:
        A function of the arguments of `fn` that returns `GradientStatistics`.

    Raises:
        ValueError: for fewer than 2 samples, a `chunk_size` that is no positive int, a program without `key`, and a `sharding`
            over devices that do not divide the samples.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2
        >>> found = mcgrad.gradient_statistics(loss, 10_000)(1.0, jax.random.key(0))
        >>> 3.9 < found.variance < 4.1 and 0.98 < found.total_signal_to_noise < 1.02
        Array(True, dtype=bool)

    References:
        Chan, Golub and LeVeque 1983, eq. 1.5 (merging of moments), "Algorithms for Computing the Sample Variance",
        https://doi.org/10.1080/00031305.1983.10483115.
    """
    num_samples = check_at_least(num_samples, 2, "gradient_statistics(num_samples=...)")
    chunk_size = check_at_least(chunk_size, 1, "gradient_statistics(chunk_size=...)")
    check_sharding(sharding, "gradient_statistics")

    @functools.wraps(fn)
    def statistics(*args: Any, **kwargs: Any) -> GradientStatistics:
        one = sample_gradient(fn, argnums, estimator, "gradient_statistics", args, kwargs)
        spread = spread_over(sharding, num_samples, None, "gradient_statistics")
        own = num_samples // (1 if spread is None else spread.num_devices)
        num_chunks = -(-own // chunk_size)
        size = -(-own // num_chunks)  # chunks of one size, as even as can be
        shapes = jax.eval_shape(one, 0)

        def of_device(first: Any, given: Any) -> Moments:
            one = sample_gradient(fn, argnums, estimator, "gradient_statistics", *given)

            def step(moments: Moments, _: None) -> tuple[Moments, None]:
                return merge(moments, moments_of_chunk(one, first + moments.count, size, first + own)), None

            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.scan(step, Moments(jnp.zeros((), int), zeros, zeros), length=num_chunks)[0]

        return summarize(of_all_devices(of_device, (args, kwargs), num_samples, spread), num_samples)

    return jit(statistics)


def per_sample_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    estimator: Estimator | None = None,
    num_samples: int,
) -> Callable[..., Any]:
    """Gradients of single samples: those whose mean is an estimate of the gradient of a program's expectation.

    Memory grows with `num_samples`; for moments use `mcgrad.gradient_statistics`, which sees the same samples.

    Args:
        fn: a program that returns a scalar, with its randomness in an argument named `key`; see `mcgrad.grad`.
        argnums, estimator: see `mcgrad.grad`.
        num_samples: how many, independent as in `mcgrad.gradient_statistics`.

    Returns:
        A function of the arguments of `fn` that returns the gradient with a leading axis of `num_samples` on each array.

    Raises:
        ValueError: if `num_samples` is no positive int, and for a program without `key`.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2
        >>> mcgrad.per_sample_grad(loss, num_samples=5)(jax.numpy.float32(1.0), jax.random.key(0)).shape
        (5,)
    """
    num_samples = check_at_least(num_samples, 1, "per_sample_grad(num_samples=...)")

    @functools.wraps(fn)
    def gradients(*args: Any, **kwargs: Any) -> Any:
        one = sample_gradient(fn, argnums, estimator, "per_sample_grad", args, kwargs)
        return jax.vmap(one)(jnp.arange(num_samples))

    return gradients


def samples_for(
    fn: Callable[..., Any],
    relative_error: float,
    pilot_samples: int = 1000,
    chunk_size: int = 256,
    *,
    argnums: int | Sequence[int] = 0,
    estimator: Estimator | None = None,
) -> Callable[..., int]:
    r"""How many samples bring the standard error of the gradient down to a fraction of its norm.

        N = ceil(V / (relative_error**2 |g|**2)),    |g|**2 ~ |mean|**2 - V / n

    since the mean of `N` samples has the root mean square error `sqrt(V / N)`. The mean and the total variance `V` of one
    sample are measured with `n` pilot samples, so the answer is itself an estimate: good to a few percent if the pilot
    resolves the gradient well.

    Args:
        fn: a program that returns a scalar, with its randomness in an argument named `key`; see `mcgrad.grad`.
        relative_error: the standard error wanted, as a fraction of the gradient's norm; 0.1 is ten percent.
        pilot_samples: `n`, at least 2.
        chunk_size, argnums, estimator: see `mcgrad.gradient_statistics`.

    Returns:
        A function of the arguments of `fn` that returns the number of samples, at least 1. It is not to be called under
        `jax.jit`, since it returns a Python number.

    Raises:
        ValueError: for a `relative_error` that is not positive; and, when called, if the pilot samples cannot tell the
            gradient from zero (`|g|` is below twice its standard error), or are not finite.

    Warns:
        UserWarning: for a program that uses its key, but has no draw through `mcgrad.sample`.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2
        >>> 95 < mcgrad.samples_for(loss, 0.1, pilot_samples=10_000)(1.0, jax.random.key(0)) < 105
        True
    """
    if not relative_error > 0:
        raise ValueError(
            f"`mcgrad.samples_for(relative_error=...)` must be positive, got {relative_error!r}. Pass 0.1 for ten percent."
        )
    pilot_samples = check_at_least(pilot_samples, 2, "samples_for(pilot_samples=...)")
    pilot = gradient_statistics(fn, pilot_samples, chunk_size, argnums=argnums, estimator=estimator)

    @functools.wraps(fn)
    def number(*args: Any, **kwargs: Any) -> int:
        found = pilot(*args, **kwargs)
        _warn_without_draws(fn, args, kwargs)
        if not math.isfinite(found.total_variance):
            raise ValueError(
                "`mcgrad.samples_for` must find a finite gradient and variance, got a total variance of "
                f"{float(found.total_variance)}. Look for infinities and NaN in the program at these arguments."
            )
        if float(found.total_variance) == 0:
            return 1
        ratio = float(found.total_signal_to_noise)
        if ratio**2 * pilot_samples < 4:
            raise ValueError(
                f"`mcgrad.samples_for(pilot_samples=...)` must be enough to tell the gradient from zero, got {pilot_samples}: "
                f"its standard error is {float(found.total_standard_error):.3g}, its norm "
                f"{ratio * float(found.total_variance) ** 0.5:.3g}. Pass ten times as many, or lower the variance first."
            )
        return max(1, math.ceil((relative_error * ratio) ** -2))

    return number


def _warn_without_draws(fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Warn of a program that uses its key, but in no draw that mcgrad sees."""
    key, with_key = sample_key(fn, args, kwargs, "samples_for")

    def program(key: PRNGKey) -> Any:
        at, named = with_key(key)
        return fn(*at, **named)

    traced = jax.make_jaxpr(program)(key).jaxpr
    uses_key = any(traced.invars[0] is value for equation in traced.eqns for value in equation.invars)
    if uses_key and not explain(fn)(*args, **kwargs).sites:
        warnings.warn(
            f"`{name_of(fn)}` uses its key, but never in `mcgrad.sample`: `mcgrad.samples_for` "
            "counts samples for what `jax.grad` sees of its randomness, which is nothing of a discrete draw. Write "
            "`mcgrad.sample(key, dist)` in place of `dist.sample(key)`.",
            stacklevel=3,
        )


def sample_gradient(
    fn: Callable[..., Any],
    argnums: int | Sequence[int],
    estimator: Estimator | None,
    where: str,
    args: Any,
    kwargs: Any,
) -> Callable[[Any], Any]:
    """The gradient of sample `i`, as a function of `i`."""
    key, with_key = sample_key(fn, args, kwargs, where)

    def one(index: Any) -> Any:
        own = fold_in(key, index)
        at, named = copied(with_key(own))
        found = grad_of_sample(fn, argnums, estimator, own)(*at, **named)
        # Sums over many samples need more than half precision.
        return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), found)

    return one


def moments_of_chunk(one: Callable[[Any], Any], start: Any, size: int, end: Any) -> Moments:
    """The moments of samples `start` to `start + size`, those from `end` on left out."""
    indices = start + jnp.arange(size)
    samples = jax.vmap(one)(indices)
    count = jnp.minimum(end - start, size)

    def total(leaf: Array) -> Array:
        return jnp.sum(leaf, axis=0, where=(indices < end).reshape(size, *[1] * (leaf.ndim - 1)))

    mean = jax.tree.map(lambda leaf: total(leaf) / count.astype(leaf.dtype), samples)
    return Moments(count, mean, jax.tree.map(lambda leaf, m: total((leaf - m[None]) ** 2), samples, mean))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets of samples together."""
    share = b.count / (a.count + b.count)
    apart = jax.tree.map(jnp.subtract, b.mean, a.mean)
    mean = jax.tree.map(lambda m, d: m + d * share.astype(d.dtype), a.mean, apart)
    between = jax.tree.map(lambda d: d**2 * (a.count * share).astype(d.dtype), apart)
    return Moments(a.count + b.count, mean, jax.tree.map(lambda *parts: sum(parts), a.deviation, b.deviation, between))


def of_all_devices(
    of_device: Callable[[Any, Any], Moments], given: Any, num_samples: int, spread: Spread | None
) -> Moments:
    """The moments of all devices, from those of one as a function of its first sample and what is `given`; all have as many."""
    if spread is None:
        return of_device(0, given)
    arrays, put = not_closed_over(given)

    def local(first: Array, *arrays: Array) -> tuple[Any, Moments]:
        return (), jax.tree.map(lambda leaf: leaf[None], of_device(first[0], put(arrays)))

    starts = jnp.arange(0, num_samples, num_samples // spread.num_devices)
    _, (counts, means, deviations) = spread.run(local, starts, arrays)
    count = jnp.max(counts)  # of one device: all have equally many
    mean = jax.tree.map(lambda m: jnp.mean(m, axis=0), means)
    between = jax.tree.map(
        lambda m, whole: count.astype(m.dtype) * jnp.sum((m - whole[None]) ** 2, axis=0), means, mean
    )
    deviation = jax.tree.map(lambda d, more: jnp.sum(d, axis=0) + more, deviations, between)
    return Moments(jnp.sum(counts), mean, deviation)


def summarize(moments: Moments, num_samples: int) -> GradientStatistics:
    """The statistics of finished moments."""
    mean = moments.mean
    variance = jax.tree.map(lambda s: s / (num_samples - 1), moments.deviation)
    total_variance = total(variance)
    return GradientStatistics(
        mean=mean,
        variance=variance,
        standard_error=jax.tree.map(lambda v: jnp.sqrt(v / num_samples), variance),
        signal_to_noise=jax.tree.map(lambda m, v: signal_to_noise(m, v, 1 / num_samples), mean, variance),
        total_variance=total_variance,
        total_standard_error=jnp.sqrt(total_variance / num_samples),
        total_signal_to_noise=signal_to_noise(mean, variance, 1 / num_samples),
        num_samples=num_samples,
    )


def total(tree: Any) -> Array:
    """The sum of all entries."""
    return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(tree)]))


def signal_to_noise(mean: Any, variance: Any, share: Any) -> Array:
    """`sqrt(max(|mean|**2 - share V, 0) / V)`, with `share V` the variance of the mean; infinite without noise, NaN for NaN."""
    square, noise = total(jax.tree.map(jnp.square, mean)), total(variance)
    known = jnp.where(noise == 0, 1, noise)
    ratio = jnp.sqrt(jnp.maximum(square - share * known, 0) / known)
    return jnp.where(noise == 0, jnp.where(square > 0, jnp.inf, 0), ratio)
