"""Estimators side by side on one program: bias, variance, time."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.diagnostics.statistics import (
    GradientStatistics,
    Moments,
    find_sample_key,
    merge,
    moments_of_chunk,
    sample_gradient,
    summarize,
)
from mcgrad.estimators.enumeration import Enumerate
from mcgrad.program.estimator import Estimator
from mcgrad.program.interpret import Interpreter
from mcgrad.transforms import check_at_least, plan_of


@dataclasses.dataclass(frozen=True, eq=False)
class EstimatorReport:
    """One estimator of a `mcgrad.compare`.

    Attributes:
        statistics: of single-sample gradients.
        distance: of the mean gradient from the reference, in the Euclidean norm.
        distance_error: its standard error: what `distance` is in root mean square if there is no bias.
        max_z: the largest deviation from the reference among the coordinates, in standard errors.
        verdict: `"agrees"`, `"biased"`, `"undecided"` (off, but so may be what it is compared with) or
            `"not finite"`; see `mcgrad.compare`.
        seconds: for one gradient, when a chunk of them runs at once; the median over chunks.
        evaluations: of the rest of the program for one gradient, all branches counted.
    """

    statistics: GradientStatistics
    distance: float
    distance_error: float
    max_z: float
    verdict: Literal["agrees", "biased", "undecided", "not finite"]
    seconds: float
    evaluations: int

    @property
    def variance(self) -> float:
        """The total variance of one gradient."""
        return float(self.statistics.total_variance)

    @property
    def variance_time(self) -> float:
        """Variance times seconds: the lower, the less time for the same precision."""
        return self.variance * self.seconds

    @property
    def biased(self) -> bool:
        """Whether there is evidence of bias."""
        return self.verdict == "biased"


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `mcgrad.compare` returns; `str()` of it, or `rich.print`, is a table.

    Attributes:
        reports: of each estimator that runs, by name.
        refused: why the program refuses the others, by name.
        reference: the gradient that the means are compared with, in the gradient's structure.
        source: where the reference comes from.
        threshold: `max_z` above this is evidence of bias.
        num_samples: gradients drawn from each estimator.
        chunk_size: gradients that ran at once.
    """

    reports: dict[str, EstimatorReport]
    refused: dict[str, str]
    reference: Any
    source: str
    threshold: float
    num_samples: int
    chunk_size: int

    def __str__(self) -> str:
        _need("rich", "a comparison as text")
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=100).print(self)
        return text.getvalue().rstrip()

    def __rich__(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=f"{self.num_samples:,} gradients of each estimator",
            caption=f"Distances from {self.source}. Biased: more than {self.threshold:.1f} standard errors off somewhere. "
            "Time in microseconds and runs of the program, a gradient.",
            box=box.SIMPLE_HEAD,
            padding=0,
            pad_edge=False,
        )
        table.add_column("estimator", overflow="fold")
        for heading in ("distance", "max |z|", "variance", "time", "variance x time", "runs"):
            table.add_column(heading, justify="right", no_wrap=heading == "distance")
        table.add_column("verdict")
        for name, report in self.reports.items():
            table.add_row(
                Text(name),
                f"{report.distance:.2g} ± {report.distance_error:.2g}",
                f"{report.max_z:.1f}",
                f"{report.variance:.3g}",
                f"{1e6 * report.seconds:.3g}",
                f"{1e6 * report.variance_time:.3g}",
                f"{report.evaluations:,}",
                report.verdict,
                style="" if report.verdict == "agrees" else "red",
            )
        return Group(table, *(Text(f"{name} was refused: {reason}") for name, reason in self.refused.items()))

    def plot(self, path: str | Path) -> Path:
        """Write a picture: variance, time, their product and the evidence of bias, one line for each estimator.

        Args:
            path: of the file; its suffix sets the format, for instance `.png` or `.pdf`.

        Returns:
            `path`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        _need("matplotlib", "`Comparison.plot`")
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter

        shown = dict(reversed(self.reports.items()))
        figure = Figure(figsize=(12, 1.7 + 0.4 * len(shown)), layout="constrained", dpi=130)
        panels: Any = figure.subplots(1, 4, sharey=True)
        columns = {
            "total variance": [r.variance for r in shown.values()],
            "time a gradient (µs)": [1e6 * r.seconds for r in shown.values()],
            "variance × time (µs)": [1e6 * r.variance_time for r in shown.values()],
            f"largest deviation (standard\nerrors; biased above {self.threshold:.1f})": [
                r.max_z for r in shown.values()
            ],
        }
        colors = {"agrees": "tab:blue", "undecided": "tab:orange"}
        for axis, (title, values) in zip(panels, columns.items(), strict=True):
            if axis is panels[-1]:
                near = [value for value in values if value < 2.5 * self.threshold]
                low, high = 0.0, 1.25 * max(self.threshold, *near, 0)
            else:
                axis.set_xscale("log")
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.xaxis.get_major_locator().set_params(numticks=5)
                largest = max([value for value in values if np.isfinite(value) and value > 0], default=1.0)
                # What is smaller by more is rounding: an arrow at the edge.
                low, high = (
                    min([value for value in values if 1e-8 * largest < value < np.inf], default=0.1) / 3,
                    3 * largest,
                )
            axis.set(title=title, xlim=(low, high), ylim=(-0.7, len(shown) - 0.5))
            for row, (value, report) in enumerate(zip(values, shown.values(), strict=True)):
                place = np.clip(value, low, high) if np.isfinite(value) else high
                marker = "<" if value < low else "o" if place == value else ">"
                color = colors.get(report.verdict, "tab:red")
                axis.plot([low, place], [row, row], color=color, lw=1.2, alpha=0.5)
                axis.plot(place, row, marker, color=color, clip_on=False)
                # Beside the point, on the side where there is room.
                ends = axis.transData.transform([(low, row), (place, row), (high, row)])[:, 0]
                left = ends[1] - ends[0] > 0.6 * (ends[2] - ends[0])
                axis.annotate(
                    f"{value:.3g}",
                    (place, row),
                    xytext=(-6 if left else 6, 5),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    fontsize=9,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
                )
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="x", alpha=0.25)
        names = [name if r.verdict == "agrees" else f"{name}\n({r.verdict})" for name, r in shown.items()]
        panels[0].set_yticks(range(len(shown)), names)
        panels[-1].axvline(self.threshold, color="black", ls="--", lw=1)
        refused = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        figure.suptitle(f"{self.num_samples:,} gradients of each; deviations from {self.source}{refused}", fontsize=10)
        figure.savefig(path)
        return Path(path)


def compare(
    fn: Callable[..., Any],
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    *,
    argnums: int | Sequence[int] = 0,
    num_samples: int = 10_000,
    chunk_size: int = 256,
    reference: Any = None,
    progress: bool = False,
) -> Callable[..., Comparison]:
    r"""Estimators side by side on one program: is the gradient right, how noisy is it, how long does it take.

    Each estimator is used for all draws that name none of their own, and gives independent single-sample gradients, whose
    mean is compared with a reference: the exact gradient by `mcgrad.Enumerate()` where the program is finite and small
    enough; otherwise the mean of the estimators, pooled with weights in inverse proportion to their variances.

    An estimator is **biased** where in some coordinate `|mean - reference|` is above `threshold` standard errors, the two-sided
    normal quantile at which all coordinates of all estimators together give a false alarm once in 1,000. Without an exact
    reference only those that agree pairwise by the same test, if they are the majority, are pooled, and only others can be
    biased; without such a majority those that are off are undecided. Two things to know: to agree is no proof of having no
    bias, look at `distance_error`; and an event so rare that no sample saw it looks like bias.

    Estimators run in turn, chunk by chunk, so what else the machine does slows all of them alike.

    Args:
        fn: a program that returns a scalar, with its randomness in an argument named `key`; see `mcgrad.grad`.
        estimators: by name, or a sequence, named by their classes.
        argnums: which arguments to differentiate in, as in `jax.grad`.
        num_samples: gradients of each estimator, at least 2.
        chunk_size: gradients that run at once, at most.
        reference: the exact gradient if it is known, in the gradient's structure.
        progress: whether to show progress bars; needs rich.

    Returns:
        A function of the arguments of `fn`, all of them arrays or pytrees of arrays, that returns a `Comparison`. It
        compiles and measures, so it is not to be called under `jax.jit`.

    Raises:
        TypeError: for something that is no estimator.
        ValueError: without estimators; for numbers of samples that are too small; for a reference of another structure.
            If the program refuses every estimator, what the first one was refused with.
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
        Glynn and Whitt 1992, eq. 1.2 (variance x time as the measure of an estimator).
    """
    named = _named(estimators)
    check_at_least(num_samples, 2, "compare(num_samples=...)")
    check_at_least(chunk_size, 1, "compare(chunk_size=...)")
    if progress:
        _need("rich", "`mcgrad.compare(progress=True)`")
    num_chunks = -(-num_samples // chunk_size)
    size = -(-num_samples // num_chunks)

    @functools.wraps(fn)
    def compared(*args: Any, **kwargs: Any) -> Comparison:
        runs: list[_Run] = []
        refusals: dict[str, Exception] = {}
        for index, (name, estimator) in enumerate(_track(named.items(), "compiling", progress)):
            try:
                evaluations, _ = _plan(fn, estimator, args, kwargs)
                chunk = _chunk(fn, argnums, estimator, index, size, num_samples)
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
                run.seconds.append((time.perf_counter() - began) / size)
                run.moments = moments if run.moments is None else _merge(run.moments, moments)
        found = [summarize(run.moments, num_samples) for run in runs]
        exact, source = reference, "the reference given"
        if exact is None:
            exact, source = _exact(fn, argnums, args, kwargs), "the exact gradient, by `mcgrad.Enumerate()`"
        judged = _against(found, exact, source)
        reports = {run.name: judged.report(i, run, found[i]) for i, run in enumerate(runs)}
        return Comparison(
            reports=reports,
            refused={name: str(error) for name, error in refusals.items()},
            reference=judged.reference,
            source=judged.source,
            threshold=judged.threshold,
            num_samples=num_samples,
            chunk_size=size,
        )

    return compared


FALSE_ALARMS = 1e-3
"""Probability that any estimator without bias is called biased."""

_ROUNDING = 1e3  # machine epsilons, relative to the norm, that sums in another order may differ by; as in the tests

_merge = jax.jit(merge)


@dataclasses.dataclass
class _Run:
    """An estimator that runs, and what it has given so far."""

    name: str
    evaluations: int
    chunk: Callable[..., Moments]
    seconds: list[float] = dataclasses.field(default_factory=list)
    moments: Any = None


@dataclasses.dataclass(frozen=True)
class _Judgement:
    """Means, squared standard errors and deviations as rows, and the reference they are held against."""

    reference: Any
    source: str
    threshold: float
    deviations: np.ndarray  # [estimators, coordinates]
    squared_errors: np.ndarray  # [estimators, coordinates], of the deviations
    allowance: float
    majority: tuple[int, ...] = ()  # the estimators that agree, where the reference is their mean
    decided: bool = True

    def report(self, i: int, run: _Run, statistics: GradientStatistics) -> EstimatorReport:
        max_z = _max_z(self.deviations[i], self.squared_errors[i], self.allowance)
        distance = float(np.linalg.norm(self.deviations[i]))
        verdict = "agrees"
        if not np.isfinite(distance):
            verdict = "not finite"
        elif max_z > self.threshold and i not in self.majority:
            verdict = "biased" if self.decided else "undecided"
        return EstimatorReport(
            statistics=statistics,
            distance=distance,
            distance_error=float(np.sqrt(self.squared_errors[i].sum())),
            max_z=max_z,
            verdict=verdict,
            seconds=float(np.median(run.seconds)),
            evaluations=run.evaluations,
        )


def _against(found: Sequence[GradientStatistics], exact: Any, source: str) -> _Judgement:
    """Hold all means against the exact gradient, or against the pooled mean of a majority that agrees."""
    leaves, tree = jax.tree.flatten(found[0].mean)
    means = np.stack([_flat(f.mean) for f in found])
    squares = np.stack([_flat(f.standard_error) for f in found]) ** 2
    num, coordinates = means.shape
    epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
    allowance = _ROUNDING * epsilon * float(np.max(np.nan_to_num(np.linalg.norm(means, axis=1))))
    if exact is not None:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(exact)]
        if jax.tree.structure(exact) != tree or shapes != [leaf.shape for leaf in leaves]:
            raise ValueError(
                "`mcgrad.compare(reference=...)` must have the structure and shapes of the gradient, "
                f"{jax.tree.map(jnp.shape, found[0].mean)}, got {jax.tree.map(jnp.shape, exact)}. Pass the exact gradient."
            )
        threshold = _threshold(coordinates * num)
        return _Judgement(exact, source, threshold, means - _flat(exact)[None], squares, allowance)
    pairs = list(itertools.combinations(range(num), 2))
    threshold = _threshold(coordinates * max(len(pairs), 1))
    agreeing = {
        (i, j) for i, j in pairs if _max_z(means[i] - means[j], squares[i] + squares[j], allowance) <= threshold
    }
    majority = _majority(num, agreeing)
    source = "the pooled mean"
    if majority is None:
        source += "; no majority agrees, so which are biased cannot be told"
    elif len(majority) < num:
        source += " of the majority that agrees"
    finite = [i for i in range(num) if np.isfinite(means[i]).all()]
    pool = list(majority or finite or range(num))
    totals = np.array([float(found[i].total_variance) for i in pool])
    share = np.zeros(num)
    share[pool] = 1 / np.maximum(totals, max(totals.max(), 1e-300) * 1e-12)
    share /= share.sum()
    pooled = share[pool] @ means[pool]
    own = share[pool] ** 2 @ squares[pool]  # squared standard errors of `pooled`
    # The deviation (1 - w_i) m_i - sum_{j != i} w_j m_j has variance (1 - 2 w_i) v_i + sum_j w_j**2 v_j.
    errors = np.maximum((1 - 2 * share)[:, None] * squares + own[None], 0)
    entries = np.split(pooled, np.cumsum([leaf.size for leaf in leaves])[:-1])
    reference = [jnp.asarray(e.reshape(leaf.shape), leaf.dtype) for e, leaf in zip(entries, leaves, strict=True)]
    return _Judgement(
        jax.tree.unflatten(tree, reference),
        source,
        threshold,
        means - pooled[None],
        errors,
        allowance,
        majority or (),
        decided=majority is not None,
    )


def _threshold(num_tests: int) -> float:
    return -NormalDist().inv_cdf(FALSE_ALARMS / (2 * num_tests))


def _max_z(deviation: np.ndarray, squared_error: np.ndarray, allowance: float) -> float:
    """The largest deviation in standard errors; infinite where a number is not finite."""
    if not (np.isfinite(deviation).all() and np.isfinite(squared_error).all()):
        return float("inf")
    off = np.maximum(np.abs(deviation) - allowance, 0)
    z = np.divide(off, np.sqrt(squared_error), out=np.where(off > 0, np.inf, 0.0), where=squared_error > 0)
    return float(z.max(initial=0.0))


def _majority(num: int, agreeing: set[tuple[int, int]]) -> tuple[int, ...] | None:
    """The largest group in which every pair agrees, if it is more than half and the only one of its size."""
    for size in range(num, num // 2, -1):
        groups = [
            g for g in itertools.combinations(range(num), size) if agreeing.issuperset(itertools.combinations(g, 2))
        ]
        if groups:
            return groups[0] if len(groups) == 1 else None
    return None


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def _plan(fn: Callable[..., Any], estimator: Estimator, args: Any, kwargs: Any) -> tuple[int, bool]:
    """Evaluations of the program for one estimate, and whether every draw is enumerated."""
    found: list[tuple[int, bool]] = []

    def run(args: Any, kwargs: Any) -> None:
        plan, _ = plan_of(fn, args, kwargs, estimator, False)
        interpreter = Interpreter(plan)
        interpreter.run()
        enumerated = all(isinstance(chosen, Enumerate) for chosen in plan.estimators.values())
        found.append((sum(interpreter.evaluations), enumerated))

    jax.eval_shape(run, args, kwargs)
    return found[0]


def _chunk(
    fn: Callable[..., Any], argnums: Any, estimator: Estimator, index: int, size: int, num_samples: int
) -> Callable[..., Moments]:
    """The moments of the samples from `start` on, of an estimator that has keys of its own."""

    def chunk(start: Any, args: Any, kwargs: Any) -> Moments:
        key_at = find_sample_key(fn, args, kwargs, "compare")
        own = key_at.put(args, kwargs, jax.random.fold_in(key_at.get(args, kwargs), index))
        return moments_of_chunk(sample_gradient(fn, argnums, estimator, "compare", *own), start, size, num_samples)

    return jax.jit(chunk)


def _exact(fn: Callable[..., Any], argnums: Any, args: Any, kwargs: Any) -> Any:
    """The gradient by enumeration of every draw; `None` where that is refused, or some randomness is left."""

    def several(args: Any, kwargs: Any) -> Any:
        # One after another: what is enumerated may be large.
        return jax.lax.map(sample_gradient(fn, argnums, Enumerate(), "compare", args, kwargs), jnp.arange(8))

    try:
        _, enumerated = _plan(fn, Enumerate(), args, kwargs)
        if not enumerated:
            return None
        rows = jax.jit(several)(args, kwargs)
    except (ValueError, NotImplementedError):
        return None
    for leaf in jax.tree.leaves(rows):  # a program may also use its key in other ways than in draws of mcgrad
        if np.abs(leaf - leaf[:1]).max() > _ROUNDING * jnp.finfo(leaf.dtype).eps * np.abs(leaf).max():
            return None
    return jax.tree.map(lambda leaf: leaf[0], rows)


def _named(estimators: Any) -> dict[str, Estimator]:
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


def _need(package: str, what: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{what} needs {package}. Install with: pip install "mcgrad[diagnostics]"')
