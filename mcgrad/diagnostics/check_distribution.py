"""Whether what a distribution says of itself agrees: draws, density, distribution function, support, derivatives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mcgrad import _compat
from mcgrad._arguments import check_at_least, check_key
from mcgrad._types import PRNGKey
from mcgrad.diagnostics.agreement import (
    Agreement,
    DistributionReport,
    by_chance,
    chi_square,
    mean_zero,
    normal_p,
    not_known,
    within,
)
from mcgrad.diagnostics.derivatives_of_draws import derivative_rows
from mcgrad.diagnostics.mass import ball, ladder, masses
from mcgrad.diagnostics.subject import Subject
from mcgrad.distributions.derivatives.pathwise_check import name_of
from mcgrad.distributions.wrappers.foreign import ForeignDistribution, as_distribution

_CELLS = 32
_ROWS = 12  # that share the level (Bonferroni); no distribution has more that chance decides
_MOST_VALUES = 200_000  # of a discrete distribution whose probabilities are summed
_MASS = 3e-4  # how far a mass by quadrature may be from one


def check_distribution(
    dist: Any, key: PRNGKey, *, params: Any = None, num_samples: int = 10_000, level: float = 1e-5
) -> DistributionReport:
    r"""Whether what a distribution says of itself agrees, by quadrature and by tests on its draws.

    For one that you wrote (a subclass of `mcgrad.Distribution`, or of `mcgrad.distribution`), or took from another library:
    a density that is not normalized, or a sampler of other parameters than the density, makes every gradient wrong, and
    nothing else tells. The rows of the report, for each entry of the batch:

    - *draws*, *log_prob*: draws have the shape `batch_shape + event_shape` and are finite, their log density has the shape
      `batch_shape`. Where not, nothing else is checked.
    - *support*: `log_prob` is finite, or infinite for good reason, at every draw; draws are among the values of `support()`.
    - *mass*: `sum_x p(x)` or `int p(x) dx` is one. By adaptive quadrature for continuous numbers; by sums over `support()`, or
      over all integers that matter; for vectors without `support()`, over the values drawn before; for continuous vectors of at
      most 5 dimensions in a ball around their center, `int_B p(x) dx = P(x in B)` by uniform points; of those on a plane, such as
      weights that add up to one, with volumes in the plane or in its first coordinates, whichever agrees.
    - *draws and density*: counts of draws in cells have the probabilities of the density (chi-square).
    - *cdf*, *draws and cdf*, *survival*, *icdf*, *prob*: against the density, the draws, and each other.
    - *score*: `E[d log p(x) / dtheta] = 0` for each parameter.
    - *parameters moved*: `E_{theta'}[p_theta(x) / p_theta'(x) f(x)] = E_theta[f(x)]` for `f = 1` and two others, with
      parameters `theta'` some percent away: do sampler and density depend on the parameters in the same way?
    - *path and score*: `E[d f(x) / dtheta] = E[f(x) d log p(x) / dtheta]` for two bounded functions `f` of the draw, where the
      draw has a pathwise derivative.

    What a distribution does not have, and what cannot be told, is *not known*, with the reason: it is no evidence. A row
    tells only of deviations beyond its noise, some percent for vectors and derivatives; more samples tell of smaller ones.
    Parameters that move the support have no mean score of zero, and are left out of the last three rows; so is a mean
    that few draws decide.

    Args:
        dist: a distribution of mcgrad, NumPyro, Distrax or TFP-on-JAX, or any pytree with `sample(key)`, `log_prob(x)`,
            `batch_shape`, `event_shape` and `reparameterized`, whose parameters are numbers (not traced).
        key: a key of either style.
        params: with these, `dist` is a function of them that returns the distribution, and derivatives are those in `params`,
            any pytree of arrays. Without, they are those in the leaves of `dist`: wrong where these depend on each other, as
            those of a library that keeps a normalizing constant beside the parameter that it is made of.
        num_samples: draws, at least 1000.
        level: the probability, up to the error of the normal approximation, that a right distribution disagrees in some
            row by chance.

    Returns:
        A `DistributionReport`: its `agrees` says whether no row disagrees, its `rows` hold the statistics, printed it is a table.

    Raises:
        TypeError: if `dist` is no distribution (with `params`: no function), or `key` no key; under `jax.jit`.
        ValueError: for fewer than 1000 samples, and a `level` that is not between 0 and 1.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> log_density = lambda x, rate: -rate * x + jnp.where(x > 0, 0.0, -jnp.inf)  # lacks log(rate)
        >>> Wrong = mcgrad.distribution(lambda key, rate: jax.random.exponential(key) / rate, log_density)
        >>> found = mcgrad.check_distribution(Wrong(2.0), jax.random.key(0))
        >>> found.agrees, [row.name for row in found.disagreements if row.name in ("mass", "score")]
        (False, ['mass', 'score'])
        >>> mcgrad.check_distribution(mcgrad.Exponential(2.0), jax.random.key(0)).agrees
        True

    References:
        Geweke 2004 (tests of simulators by two ways to the same mean), "Getting It Right",
        https://doi.org/10.1198/016214504000001132; Levina and Bickel 2004, eq. 8 (dimension of draws).
    """
    key = check_key(key, "check_distribution")
    num_samples = check_at_least(num_samples, 1000, "check_distribution(num_samples=...)")
    if not 0 < level < 1:
        raise ValueError(
            f"`mcgrad.check_distribution(level=...)` must be between 0 and 1, got {level!r}. Pass 1e-5, for instance."
        )
    if params is None:
        make, params = as_distribution, as_distribution(dist)
    elif callable(dist):
        make = lambda p: as_distribution(dist(p))  # noqa: E731
    else:
        raise TypeError(
            f"`mcgrad.check_distribution(dist=...)` must be a function of `params`, got {type(dist).__name__}. Pass "
            "`lambda params: ...`, or no `params`."
        )
    if any(isinstance(leaf, _compat.Tracer) for leaf in (*jax.tree.leaves(params), key)):
        raise TypeError(
            "`mcgrad.check_distribution(dist=...)` must have parameters that are numbers, got traced ones. Call it outside of "
            "`jax.jit`, `jax.grad` and `jax.vmap`."
        )
    subject = Subject(make, params, key, num_samples)
    checks = (_draws, _support, _discrete if subject.discrete else _continuous, derivative_rows)
    rows: list[Agreement] = []
    for check in checks:
        rows += check(subject, level / _ROWS)
        if check is _draws and any(row.verdict == "disagrees" for row in rows):
            break  # nothing else can be asked
    return DistributionReport(name_of(subject.dist), tuple(rows), num_samples, level)


def _draws(subject: Subject, level: float) -> Iterator[Agreement]:
    shapes, wanted = subject.draw_shapes, subject.wanted_shapes
    if shapes != wanted:
        yield within("draws", 1, 0, f"of shape {shapes}, where batch and event shape say {wanted}")
        return
    wrong = subject.share_not_finite
    yield within("draws", wrong, 0, "the share that is not finite; their shape is as said")
    if subject.log_prob is not None and (got := subject.log_probs.shape[1:]) != subject.batch_shape:
        yield within("log_prob", 1, 0, f"of shape {got}, where the batch shape is {subject.batch_shape}")


def _support(subject: Subject, level: float) -> Iterator[Agreement]:
    if subject.log_prob is None:
        yield not_known("support", "there is no log density")
        return
    impossible = np.isnan(subject.log_probs) | (subject.log_probs == -np.inf)
    yield within("support", impossible.mean(), 0, "the share of draws whose log_prob is -inf or NaN")
    if subject.values is not None:
        drawn, _ = subject.match(subject.values)
        yield within("support()", np.mean(drawn < 0), 0, "the share of draws that are not among its values")


def _continuous(subject: Subject, level: float) -> Iterator[Agreement]:
    if subject.event_size != 1 or not subject.scalar:
        yield from _vectors(subject, level)
        return
    x = subject.numbers
    half, epsilon = len(x) // 2, subject.epsilon
    tied = max(int(np.max(np.unique(column, return_counts=True)[1])) for column in x.T) / len(x)
    if not np.isfinite(x).all() or tied > (0.1 if epsilon > 1e-4 else 0.02):
        yield not_known("mass", f"a share of {tied:.2g} of the draws is one number: a point mass, or rounding")
        return
    # Draws are rounded: what is counted below an edge between two numbers was below it before.
    edges, panels = ladder(x[:half], _CELLS, subject.between_numbers)
    inner = edges[1:-1]
    counts = np.stack(
        [np.bincount(np.searchsorted(e, c), minlength=_CELLS) for e, c in zip(inner.T, x[half:].T, strict=True)], 1
    )
    below, allowed = None, 0.0
    if subject.log_prob is not None:
        found, errors = masses(subject.density, edges, panels, subject.point_epsilon)
        mass, chances = _mass(subject, found, 5 * errors, half)
        allowed = _MASS + subject.rounding + 5 * float(np.max(errors.sum(axis=0)))
        yield mass
        if chances is not None:
            below = np.cumsum(chances, axis=0)[:-1]
            words = f"counts of draws in {_CELLS} cells, which the density gives their masses"
            yield chi_square("draws and density", counts, chances, subject.rounding, level, words)
    cdf = subject.method("cdf")
    if cdf is not None:
        at_edges = cdf(inner)
        if below is not None:
            yield within("cdf", _largest(at_edges - below), allowed, "against integrals of the density")
        chances = np.diff(at_edges, axis=0, prepend=0.0, append=1.0)
        words = f"counts of draws in {_CELLS} cells, which the cdf gives their masses"
        yield chi_square("draws and cdf", counts, np.maximum(chances, 0), subject.rounding, level, words)
        survival = subject.method("survival")
        if survival is not None:
            off = _largest(at_edges + survival(inner) - 1)
            yield within("survival", off, 1e-5 + 4 * subject.rounding, "cdf + survival = 1")
    icdf = subject.method("icdf")
    if icdf is not None:
        u = np.broadcast_to(np.arange(1, _CELLS)[:, None] / _CELLS, inner.shape)
        quantiles = icdf(u)
        if cdf is not None:
            step = epsilon * np.abs(quantiles) * (0 if subject.log_prob is None else subject.density(quantiles))
            off = np.maximum(np.abs(cdf(quantiles) - u) - 4 * step, 0)
            yield within("icdf", _largest(off), 1e-5 + 4 * subject.rounding, "cdf(icdf(u)) = u")
        else:
            cells = [
                np.bincount(np.searchsorted(q, c), minlength=_CELLS) for q, c in zip(quantiles.T, x.T, strict=True)
            ]
            chances = np.full((_CELLS, len(cells)), 1 / _CELLS)
            words = f"counts of draws between {_CELLS - 1} quantiles"
            yield chi_square("icdf", np.stack(cells, 1), chances, 8 * subject.rounding, level, words)


def _mass(subject: Subject, found: np.ndarray, errors: np.ndarray, number: int) -> tuple[Agreement, np.ndarray | None]:
    """The row *mass* of masses of cells, the first and the last of them beyond `number` draws, and chances of the cells."""
    total, beyond = found.sum(axis=0), found[0] + found[-1]
    # The mass beyond the draws is more than 25 / number with probability exp(-25) 26.
    if np.any(beyond > 25 / number + _MASS):
        worst = int(np.argmax(beyond))
        return within("mass", beyond[worst], 0, "of the density beyond all draws, where it should vanish"), None
    worst = int(np.argmax(np.abs(total - 1) - errors.sum(axis=0)))
    error = errors.sum(axis=0)[worst]
    if not error <= 0.01:
        return not_known("mass", f"quadrature has an error of {error / 5:.1g}"), None
    joined = np.concatenate([found[:1] + found[1:2], found[2:-2], found[-2:-1] + found[-1:]])
    words = f"of the density, less one; by quadrature {total[worst]:.5g}"
    mass = within("mass", abs(total[worst] - 1), _MASS + subject.rounding + error, words)
    return mass, joined / np.where(total > 0, total, 1)


def _vectors(subject: Subject, level: float) -> Iterator[Agreement]:
    """The mass of a ball around the center, by draws and by density."""
    if subject.log_prob is None or subject.trees or not np.isfinite(subject.flat).all() or subject.event_size > 40:
        yield not_known("mass", "of draws of several arrays, of many dimensions, or without a density")
        return
    half, rng = subject.num_samples // 2, np.random.default_rng(subject.seed)
    tried = [ball(subject.flat[:half, i], rng) for i in range(subject.entries)]
    balls = {i: each for i, each in enumerate(tried) if not isinstance(each, str)}
    if not balls:
        yield not_known("mass", str(tried[0]))
        return
    some = next(iter(balls.values()))
    density = subject.density(np.stack([balls.get(i, some).points for i in range(subject.entries)], 1))
    rows = []
    for which in range(2):
        differences, ratios = [], []
        for i, each in balls.items():
            inside = each.inside(subject.flat[half:, i])[:half]
            of_density = each.volumes[which] * density[: len(inside), i]
            differences.append(inside - of_density)
            ratios.append(of_density.mean() / inside.mean())
        worst = ratios[int(np.argmax(np.abs(np.log(np.maximum(ratios, 1e-300)))))]
        words = f"of balls around the center, by the density {worst:.3f} of that by draws; in standard errors"
        rows.append(mean_zero("mass", np.stack(differences, 1), subject.rounding, level, words))
    yield next((row for row in rows if row.verdict != "disagrees"), rows[0])


def _discrete(subject: Subject, level: float) -> Iterator[Agreement]:
    if subject.log_prob is None:
        yield not_known("mass", "there is no log density")
        return
    if subject.trees or not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(subject.draws)):
        yield not_known("mass", "of draws of several arrays")
        return
    values = subject.values
    if values is None and subject.scalar and np.all(subject.numbers == np.round(subject.numbers)):
        values = _integers(subject)
    if values is None:
        yield from _seen(subject, level)
        return
    chances = subject.density(subject.everywhere(values))
    total = chances.sum(axis=0)
    worst = int(np.argmax(np.abs(total - 1)))
    allowed = 1e-5 + 10 * subject.rounding
    yield within("mass", abs(total[worst] - 1), allowed, f"of {len(values):,} values; the sum is {total[worst]:.6g}")
    drawn, order = subject.match(values)
    counts = np.stack([np.bincount(d[d >= 0], minlength=len(values)) for d in drawn.T], 1)
    words = "counts of draws of each value"
    normalized = chances / np.where(total > 0, total, 1)
    yield chi_square("draws and density", counts, normalized, subject.rounding, level, words)
    prob = subject.method("prob")
    if prob is not None:
        off = _largest(prob(subject.everywhere(values)) - chances)
        yield within("prob", off, 1e-5 + 4 * subject.rounding, "prob = exp(log_prob)")
    if not subject.scalar:
        return
    # beyond all mass nothing is asked of the distribution function
    some = np.flatnonzero(np.any(normalized[order] > 0, axis=1))
    order = order[some[0] : some[-1] + 1] if some.size else order
    below = np.cumsum(normalized[order], axis=0)  # at the values in their order
    at = subject.everywhere(values[order])
    cdf, icdf, survival = (subject.method(name) for name in ("cdf", "icdf", "survival"))
    if cdf is not None:
        yield within("cdf", _largest(cdf(at) - below), 1e-5 + 10 * subject.rounding, "against sums of probabilities")
        if not isinstance(subject.dist, ForeignDistribution):  # others know it of integers at integers only
            between = cdf(at + 0.5) if np.all(values == np.round(values)) else cdf(at)
            off = _largest(between - below)
            yield within("cdf between", off, 1e-5 + 10 * subject.rounding, "the cdf half a step above each value")
        if survival is not None:
            off = _largest(cdf(at) + survival(at) - 1)
            yield within("survival", off, 1e-5 + 10 * subject.rounding, "cdf + survival = 1")
    if icdf is not None:
        middle = below - normalized[order] / 2
        sure = normalized[order] > 1e-3 + 20 * subject.rounding
        got = icdf(np.clip(middle, 1e-6, 1 - 1e-6))
        off = np.abs(got - at)[sure]
        yield within("icdf", _largest(off), 0, "the value in the middle of whose probability u is")


def _integers(subject: Subject) -> np.ndarray | None:
    """Integers from below the draws to where no mass is left above them; `None` if they are too many."""
    low, high = int(subject.numbers.min()), int(subject.numbers.max())
    width = high - low + 17
    while width < _MOST_VALUES:
        values = np.arange(low - width, high + width + 1)
        last = subject.density(subject.everywhere(values[-width // 2 :]))
        if np.all(last.sum(axis=0) < 1e-7):
            return values
        width *= 8
    return None


def _seen(subject: Subject, level: float) -> Iterator[Agreement]:
    """Of values that are too many to list: those of the first half of the draws, and how often the second half meets them."""
    half = subject.num_samples // 2
    rows = subject.flat
    seen = [np.unique(rows[:half, i], axis=0) for i in range(subject.entries)]
    longest = max(map(len, seen))
    padded = np.stack([np.concatenate([s, np.repeat(s[:1], longest - len(s), axis=0)]) for s in seen], 1)
    chances = subject.density(padded)  # [longest, entries]
    worst, counts, expected = 0.0, [], []
    for i, values in enumerate(seen):
        p = chances[: len(values), i]
        _, inverse = np.unique(np.concatenate([values, rows[half:, i]]), axis=0, return_inverse=True)
        inverse = np.ravel(inverse)
        place = np.full(int(np.max(inverse)) + 1, -1)
        place[inverse[: len(values)]] = np.arange(len(values))
        met = place[inverse[len(values) :]]
        rest, new = 1 - p.sum(), int(np.sum(met < 0))
        if rest < -1e-5 - 10 * subject.rounding:
            yield within("mass", -rest, 0, "of the values drawn in the first half, less one")
            return
        # a count of few draws is no normal number: 3 more in its variance make up for that
        spread = math.sqrt(len(met) * max(rest, 0) * (1 - rest) + 3) + 10 * subject.rounding * len(met)
        worst = max(worst, abs(new - len(met) * rest) / spread)
        common = p * half >= 10
        met_common = np.bincount(met[met >= 0], minlength=len(values))[common]
        counts.append(np.append(met_common, len(met) - met_common.sum()))
        expected.append(np.append(p[common], max(1 - p[common].sum(), 0)))
    words = "of new values in the second half of the draws, against the density, in standard errors"
    yield by_chance("mass", worst, normal_p(worst) * subject.entries, level, words)
    length = max(map(len, counts))
    table, of_density = (
        np.stack([np.append(np.zeros(length - len(c)), c) for c in columns], 1) for columns in (counts, expected)
    )
    yield chi_square(
        "draws and density", table, of_density, subject.rounding, level, "counts of the more frequent values"
    )


def _largest(array: np.ndarray) -> float:
    """The largest absolute value; infinite for NaN."""
    return float(np.nan_to_num(np.max(np.abs(array), initial=0.0), nan=math.inf))
