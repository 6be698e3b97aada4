"""Estimators side by side on one program: bias, variance, time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad._arguments import check_at_least, fold_in, keyed_by, sample_key
from mcgrad._modules import eval_shape, jit
from mcgrad._spread import Spread, check_sharding, spread_over
from mcgrad.diagnostics.comparison import Comparison
from mcgrad.diagnostics.judgement import ROUNDING, judge
from mcgrad.diagnostics.moments import Moments, merge, moments_of_chunk, of_all_devices
from mcgrad.diagnostics.pictures import need
from mcgrad.diagnostics.statistics import sample_gradient, summarize
from mcgrad.estimators.enumeration import Enumerate
from mcgrad.planned import plan_of
from mcgrad.program import Estimator
from mcgrad.program.interpret import Interpreter


def compare(
    fn: Callable[..., Any],
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    *,
    argnums: int | Sequence[int] = 0,
    num_samples: int = 10_000,
    chunk_size: int = 256,
    reference: Any = None,
    sharding: Any = None,
    progress: bool = False,
    key_argname: str | None = None,
) -> Callable[..., Comparison]:
    r"""Estimators side by side on one program: is the gradient right, how noisy is it, how long does it take.

    Each estimator is used for all draws that name none of their own, and gives independent single-sample gradients, whose
    mean is compared with a reference: the exact gradient by `mcgrad.Enumerate()` where the program is finite and small
    enough; otherwise the mean of the estimators, pooled with weights in inverse proportion to their variances.

    An estimator is called **biased** if some coordinate of its mean is more than `threshold` standard errors away from the
    reference. `threshold` is the two-sided normal quantile at which all coordinates of all estimators together raise one
    false alarm in 1,000 comparisons. Without an exact reference, the estimators that agree with each other by the same test
    are pooled if they are the majority, and only the others can be called biased; without a majority they are undecided.
    Agreement is no proof that there is no bias: `distance_error` says how large a bias would go unnoticed. And an event so
    rare that no sample met it looks like a bias.

    Estimators take turns, chunk by chunk, so that other load on the machine slows all of them alike.

    Args:
        fn: a program that returns a scalar, with its randomness in an argument named `key`; see `mcgrad.grad`.
        estimators: by name, or a sequence, named by their classes.
        argnums: which arguments to differentiate in, as in `jax.grad`.
        num_samples: gradients of each estimator, at least 2.
        chunk_size: gradients that run at once, at most.
        reference: the exact gradient if it is known, in the gradient's structure.
        sharding: spreads the gradients of a chunk over devices, `chunk_size` on each; see `mcgrad.expectation`. The time of a
            gradient is then that of all devices together, over their number.
        progress: whether to show progress bars; needs rich.
        key_argname: see `mcgrad.expectation`.

    Returns:
        A function of the arguments of `fn` that returns a `Comparison`. It
        compiles and measures, so it is not to be called under `jax.jit`.

    Raises:
        TypeError: for something that is no estimator.
        ValueError: without estimators; for numbers of samples that are too small, or over devices that do not divide them;
            for a reference of another structure.
            For a program without a draw through `mcgrad.sample`. If every estimator is refused, the first refusal.
        ImportError: for `progress` if rich is not installed.

    Example:
        >>> import jax, mcgrad
        >>> def loss(loc, key):
        ...     return mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) ** 2
        >>> found = mcgrad.compare(loss, [mcgrad.Score(), mcgrad.Pathwise()])(1.0, jax.random.key(0))
        >>> score, pathwise = found.reports.values()
        >>> score.variance > 3 * pathwise.variance, score.verdict
        (True, 'agrees')

    References:
        Glynn and Whitt 1992, eq. 1.2 (variance x time as the measure of an estimator), "The Asymptotic Efficiency of
        Simulation Estimators", https://doi.org/10.1287/opre.40.3.505.
    """
    fn = keyed_by(fn, key_argname)
    named = by_name(estimators)
    num_samples = check_at_least(num_samples, 2, "compare(num_samples=...)")
    chunk_size = check_at_least(chunk_size, 1, "compare(chunk_size=...)")
    if progress:
        need("`mcgrad.compare(progress=True)`", "rich")
    check_sharding(sharding, "compare")

    @functools.wraps(fn)
    def compared(*args: Any, **kwargs: Any) -> Comparison:
        spread = spread_over(sharding, num_samples, None, "compare")
        num_devices = 1 if spread is None else spread.num_devices
        num_chunks = -(-num_samples // (num_devices * chunk_size))
        size = -(-num_samples // (num_devices * num_chunks))
        runs: list[_Run] = []
        refusals: dict[str, Exception] = {}
        kept: tuple[str, ...] = ()
        for index, (name, estimator) in enumerate(_track(named.items(), "compiling", progress)):
            try:
                evaluations, _, kept = count_evaluations(fn, estimator, args, kwargs)
                chunk = _chunk(fn, argnums, estimator, index, size, num_samples, spread)
                jax.block_until_ready(chunk(0, args, kwargs))  # compiles
            except (ValueError, NotImplementedError) as error:
                refusals[name] = error
            else:
                runs.append(_Run(name, evaluations, chunk))
        if not runs:
            raise next(iter(refusals.values()))
        for start in _track(range(0, num_chunks * size, size), "sampling", progress):
            for run in runs:
                began = time.perf_counter()
                moments = jax.block_until_ready(run.chunk(start, args, kwargs))
                run.seconds.append((time.perf_counter() - began) / (size * num_devices))
                run.moments = moments if run.moments is None else _merge(run.moments, moments)
        found = [summarize(run.moments, num_samples) for run in runs]
        exact, source = reference, "the reference given"
        if exact is None:
            exact, source = _exact(fn, argnums, args, kwargs), "the exact gradient, by `mcgrad.Enumerate()`"
        judged = judge(found, exact, source)
        reports = {
            run.name: judged.report(i, found[i], float(np.median(run.seconds)), run.evaluations)
            for i, run in enumerate(runs)
        }
        return Comparison(
            reports=reports,
            refused={name: str(error) for name, error in refusals.items()},
            reference=judged.reference,
            source=judged.source,
            threshold=judged.threshold,
            num_samples=num_samples,
            chunk_size=size,
            named=kept,
        )

    return compared


_merge = jax.jit(merge)


@dataclasses.dataclass
class _Run:
    """An estimator that was not refused, and the moments of its gradients so far."""

    name: str
    evaluations: int
    chunk: Callable[..., Moments]
    seconds: list[float] = dataclasses.field(default_factory=list)
    moments: Any = None


def count_evaluations(
    fn: Callable[..., Any], estimator: Estimator, args: Any, kwargs: Any
) -> tuple[int, bool, tuple[str, ...]]:
    """Evaluations of the program for one estimate, whether every draw is enumerated, and which draws name their own estimator."""
    found: list[tuple[int, bool, tuple[str, ...]]] = []

    def run(args: Any, kwargs: Any) -> None:
        plan, _ = plan_of(fn, args, kwargs, estimator, False)
        if not plan.analysis.sites:
            raise ValueError(
                "`mcgrad.compare` must get a program that draws through `mcgrad.sample`, got one without such a draw: it has "
                "the same gradient by every estimator. Write `mcgrad.sample(key, dist)` in place of `dist.sample(key)`."
            )
        interpreter = Interpreter(plan)
        interpreter.run()
        enumerated = all(isinstance(chosen, Enumerate) for chosen in plan.estimators.values())
        named = ((site, site.estimator) for site in plan.estimators)
        own = tuple(f"{site.describe()} by `{type(own).__name__}`" for site, own in named if own is not None)
        found.append((sum(interpreter.evaluations), enumerated, own))

    eval_shape(run, args, kwargs)
    return found[0]


def _chunk(
    fn: Callable[..., Any],
    argnums: Any,
    estimator: Estimator,
    index: int,
    size: int,
    num_samples: int,
    spread: Spread | None,
) -> Callable[..., Moments]:
    """A function for the moments of the samples of each device from its `start` on; each estimator (`index`) has its own keys."""
    per_device = num_samples // (1 if spread is None else spread.num_devices)

    def chunk(start: Any, args: Any, kwargs: Any) -> Moments:
        def of_device(first: Any, given: Any) -> Moments:
            key, with_key = sample_key(fn, *given, "compare")
            one = sample_gradient(fn, argnums, estimator, "compare", *with_key(fold_in(key, index)))
            return moments_of_chunk(one, first + start, size, first + per_device)

        return of_all_devices(of_device, (args, kwargs), num_samples, spread)

    return jit(chunk)


def _exact(fn: Callable[..., Any], argnums: Any, args: Any, kwargs: Any) -> Any:
    """The gradient by enumeration of every draw; `None` where that is refused, or some randomness is left."""

    def several(args: Any, kwargs: Any) -> Any:
        # One after another: what is enumerated may be large.
        return jax.lax.map(sample_gradient(fn, argnums, Enumerate(), "compare", args, kwargs), jnp.arange(8))

    try:
        _, enumerated, _ = count_evaluations(fn, Enumerate(), args, kwargs)
        if not enumerated:
            return None
        rows = jit(several)(args, kwargs)
    except (ValueError, NotImplementedError):
        return None
    for leaf in jax.tree.leaves(rows):  # a program may also use its key in other ways than in draws of mcgrad
        if np.abs(leaf - leaf[:1]).max() > ROUNDING * jnp.finfo(leaf.dtype).eps * np.abs(leaf).max():
            return None
    return jax.tree.map(lambda leaf: leaf[0], rows)


def by_name(estimators: Any) -> dict[str, Estimator]:
    """Estimators by their names, or by those of their classes."""
    if not isinstance(estimators, Mapping):
        classes = [type(estimator).__name__ for estimator in estimators]
        names = [n if classes.count(n) == 1 else f"{n}#{classes[:i].count(n)}" for i, n in enumerate(classes)]
        estimators = dict(zip(names, estimators, strict=True))
    if not estimators:
        raise ValueError(
            "`mcgrad.compare(estimators=...)` must name at least one estimator, got none. Pass two or more."
        )
    for name, estimator in estimators.items():
        if not isinstance(estimator, Estimator):
            raise TypeError(
                "`mcgrad.compare(estimators=...)` must be estimators such as `mcgrad.Score()`, got "
                f"{estimator!r} for {name!r}. Pass an instance."
            )
    return dict(estimators)


def _track(steps: Iterable[Any], description: str, progress: bool) -> Iterable[Any]:
    if not progress:
        return steps
    from rich.progress import track

    return track(list(steps), description)
