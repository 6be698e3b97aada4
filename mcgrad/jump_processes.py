"""Jump processes as programs: reactions, epidemics, populations, whose rates depend on their state.

Reaction `k` happens at the rate `rates(x)[k]` and adds `changes[k]` to the state. Expectations of where the process is at a time,
or of what it costs until then, are differentiated in whatever the rates depend on. Three things move with the rates, and all
count: *when* reactions happen (the path of the waiting times), *whether* one more happens before the end (a boundary: counts jump
where a reaction passes the horizon), and *which* one happens (a discrete choice, one of whose alternatives is followed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop
from jaxtyping import Array, ArrayLike, Bool, Float

from mcgrad import _compat
from mcgrad._arguments import check_at_least, check_key, describe
from mcgrad._types import PRNGKey
from mcgrad.distributions import Bernoulli, Categorical, Exponential, Poisson
from mcgrad.estimators import PathwiseWithBoundary, Score, SmoothedPerturbation
from mcgrad.program import Alternatives, Draw, Estimator, SignedPoints, zero_with_derivative_of
from mcgrad.sample import sample

Rates: TypeAlias = "Callable[[Float[Array, ' d']], Float[Array, ' m']]"


@dataclasses.dataclass(frozen=True)
class _OtherAnswer(Estimator):
    """The other value of an accepted or refused candidate, as likely to be followed as candidates are accepted.

        d E[f(b)] = E[ dp (f(1) - f(0)) ]

    Half of the weight of `mcgrad.SmoothedPerturbation` and more would be that of candidates which are hardly ever accepted, or
    nearly always: it takes derivatives in log odds for equally large, this one those in the logarithm of the rate.
    """

    follows_alternatives = True

    def alternatives(self, draw: Draw, x: Array) -> Alternatives:
        there = draw.prob(1 - x)[None]
        accepted = stop(draw.prob(jnp.ones_like(x)))[None]
        return Alternatives((1 - x)[None], zero_with_derivative_of(there), accepted)

    def represent(self, draw: Draw) -> SignedPoints:
        x = draw.sample()
        found = self.alternatives(draw, x)
        return SignedPoints(x, found.values, found.coefficients, relative=True)


@dataclasses.dataclass(frozen=True)
class _OneMore(Estimator):
    """One more of a Poisson distribution: `d E[f(n)] = E[ drate (f(n + 1) - f(n)) ]`."""

    follows_alternatives = True

    def alternatives(self, draw: Draw, x: Array) -> Alternatives:
        rate = draw.under_vmaps(lambda dist: jnp.broadcast_to(dist.rate, dist.batch_shape))[None]
        return Alternatives((x + 1)[None], zero_with_derivative_of(rate), stop(rate))

    def represent(self, draw: Draw) -> SignedPoints:
        x = draw.sample()
        found = self.alternatives(draw, x)
        return SignedPoints(x, found.values, found.coefficients, relative=True)


_BOUNDARY = PathwiseWithBoundary("right")


class Simulation(NamedTuple):
    """Where a jump process is at the end.

    Attributes:
        state: `[d]`; NaN where the simulation is not complete.
        integral: of what was asked for by `running`, over time; NaN where the simulation is not complete.
        complete: whether the horizon was reached, and all rates on the way were valid.
    """

    state: Array
    integral: Any
    complete: Bool[Array, ""]


def simulate(
    key: PRNGKey,
    rates: Rates,
    changes: ArrayLike,
    x0: ArrayLike,
    *,
    until: ArrayLike,
    max_events: int,
    bounds: ArrayLike | None = None,
    running: Callable[[Array], Any] | None = None,
    times: Estimator | None = None,
    reactions: Estimator | None = None,
) -> Simulation:
    r"""A jump process, event by event, up to a time: exact in distribution (Gillespie's direct method, or thinning).

    Draws are those of `mcgrad.sample`, so that `mcgrad.grad` of a function that simulates is an unbiased estimate, of the first
    derivative, in parameters of the rates, in `x0` as far as rates depend on it, and in the horizon.

    **Without `bounds`** each event is the next reaction: a waiting time of the total rate, and a choice in proportion to the
    rates. Two paths that differ in one reaction differ in all later times, and are followed to the end.

    **With `bounds`**, each at least the largest rate of its reaction, candidates come at these constant rates, and reaction `k` is
    accepted with probability `rates(x)[k] / bounds[k]`. Two paths have the same candidates and differ only where one accepts and
    the other does not, so that they meet again: mostly **far less variance**, for more steps (those that are not accepted).

    Args:
        key: a key.
        rates: of a state `[d]`, the rate `[m]` of each reaction, at least zero; it may close over parameters. A rate of zero
            must be so for all parameters nearby: a reaction that never happens is never seen, though its derivative is wanted.
        changes: `[m, d]`, what each reaction adds to the state.
        x0: `[d]`, the state at time zero.
        until: the horizon, a positive number.
        max_events: how many events are simulated at most, with `bounds` candidates. **A simulation, or an alternative of it, that
            needs more is NaN**, and `complete` says so: never silently cut off. Beyond the horizon events cost time and
            change nothing.
        bounds: `[m]`, constant; a rate above its bound makes the simulation NaN.
        running: of a state, a number, or a pytree of arrays, that is integrated over time.
        times: how the derivative in the waiting times is estimated: `mcgrad.PathwiseWithBoundary("right")`, and with `bounds`
            not at all, since then none but `until` moves them (if `until` is differentiated, pass it here).
        reactions: how the derivative in the choice of reactions, with `bounds` in their acceptance, is estimated: by default
            one alternative is followed.

    Returns:
        A `Simulation`.

    Raises:
        TypeError: for `rates` that is no function.
        ValueError: for shapes that do not fit, a horizon or bounds that are not positive, or `max_events` below 1.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def population(birth, key):
        ...     rates = lambda x: jnp.stack([birth, 1.0 * x[0]])
        ...     end = mcgrad.simulate(key, rates, [[1.0], [-1.0]], [0.0], until=3.0, max_events=100)
        ...     return end.state[0]
        >>> mcgrad.grad(population)(5.0, jax.random.key(0)).shape
        ()

    References:
        Gillespie 1977, "Exact Stochastic Simulation of Coupled Chemical Reactions"; Lewis and Shedler 1979 (thinning); Gupta and
        Khammash 2014, "An Efficient and Unbiased Method for Sensitivity Analysis of Stochastic Reaction Networks",
        https://arxiv.org/abs/1402.3076; Anderson 2012 (coupled paths), https://arxiv.org/abs/1109.2890.
    """
    check_at_least(max_events, 1, "simulate(max_events=...)")
    process = _checked("simulate", key, rates, changes, x0, until)
    limit = None if bounds is None else _limit(bounds, process)
    key, changes, until = process.key, process.changes, process.until
    # what no parameter moves needs no estimator; where that is not known beforehand, one that adds nothing to it
    fixed = None if limit is None or _known(bounds) else Score()
    times = times or (_BOUNDARY if limit is None else fixed)
    reactions = reactions or (SmoothedPerturbation() if limit is None else _OtherAnswer())

    def event(carry: Any, key: PRNGKey) -> Any:
        now, x, over, ok = carry
        key_wait, key_reaction, key_accept = jax.random.split(key, 3)
        rate = rates(x)
        total = jnp.sum(rate if limit is None else limit)
        moves = (total > 0) & ~over  # otherwise the process stays where it is, and its draws depend on nothing
        pace = jnp.where(moves, total, 1) if limit is None else total
        arrival = now + sample(key_wait, Exponential(pace), times, name="wait")
        happens = arrival < jnp.where(moves, until, -1)
        valid = jnp.all(rate >= 0)
        if limit is None:
            chances = jnp.where(happens, rate / jnp.where(moves, total, 1), _first(rate))
            reaction = sample(key_reaction, Categorical(probs=chances), reactions, name="reaction")
            reacts = happens
        else:
            reaction = sample(key_reaction, Categorical(probs=limit / total), fixed, name="candidate")
            valid &= jnp.all(rate <= limit)
            chance = jnp.where(happens & valid, rate[reaction] / limit[reaction], 0)
            reacts = happens & (sample(key_accept, Bernoulli(probs=chance), reactions, name="acceptance") == 1)
        after = jnp.where(moves, arrival, 2 * until)
        spent = jnp.minimum(after, until) - jnp.minimum(now, until)
        cost = None if running is None else jax.tree.map(lambda value: value * spent, running(x))
        x = jnp.where(reacts, x + changes[reaction], x)
        return (after, x, ~happens, ok & (valid | over)), cost

    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    start = (jnp.zeros_like(until), process.x0, no, yes)
    (_, x, over, ok), costs = jax.lax.scan(event, start, jax.random.split(key, max_events))
    return _simulation(x, costs, over & ok)


def tau_leap(
    key: PRNGKey,
    rates: Rates,
    changes: ArrayLike,
    x0: ArrayLike,
    *,
    until: ArrayLike,
    num_steps: int,
    running: Callable[[Array], Any] | None = None,
    reactions: Estimator | None = None,
) -> Simulation:
    r"""A jump process in steps of one length `h`, in which rates are held (tau-leaping): an approximation of `simulate`.

        x <- max(0, x + sum_k changes[k] n_k),    n_k ~ Poisson(h rates(x)[k])

    For processes of so many reactions that they cannot be counted one by one. Its bias is of the order of `h`; the gradient is an
    unbiased estimate of that of this approximation, not of the process. Entries of the state below zero are set to zero.

    Args:
        key: a key.
        rates: see `simulate`.
        changes: see `simulate`.
        x0: see `simulate`.
        until: see `simulate`.
        num_steps: how many steps there are.
        running: see `simulate`; summed over the states at the beginnings of the steps.
        reactions: how the derivative in the numbers of reactions is estimated: by default one alternative, with one reaction more,
            is followed.

    Returns:
        A `Simulation`, complete if all rates on the way were valid.

    Raises:
        TypeError: for `rates` that is no function.
        ValueError: for shapes that do not fit, a horizon that is not positive, or `num_steps` below 1.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def infected(contact, key):
        ...     rates = lambda x: jnp.stack([contact * x[0] * x[1] / 1000, 1.0 * x[1]])
        ...     end = mcgrad.tau_leap(key, rates, [[-1, 1], [0, -1]], [990, 10], until=5.0, num_steps=50)
        ...     return end.state[1]
        >>> mcgrad.grad(infected)(2.0, jax.random.key(0)).shape
        ()

    References:
        Gillespie 2001, "Approximate Accelerated Stochastic Simulation of Chemically Reacting Systems".
    """
    check_at_least(num_steps, 1, "tau_leap(num_steps=...)")
    process = _checked("tau_leap", key, rates, changes, x0, until)
    length = process.until / num_steps
    reactions = reactions or _OneMore()

    def step(carry: Any, key: PRNGKey) -> Any:
        x, ok = carry
        rate = rates(x)
        valid = jnp.all(rate >= 0)
        numbers = sample(key, Poisson(length * jnp.where(valid, rate, 0)), reactions, name="reactions")
        cost = None if running is None else jax.tree.map(lambda value: value * length, running(x))
        x = jnp.maximum(x + numbers.astype(x.dtype) @ process.changes, 0)
        return (x, ok & valid), cost

    start = (process.x0, jnp.ones((), bool))
    (x, ok), costs = jax.lax.scan(step, start, jax.random.split(process.key, num_steps))
    return _simulation(x, costs, ok)


class _Process(NamedTuple):
    """What describes a process, checked."""

    key: PRNGKey
    changes: Array
    x0: Array
    until: Array


def _checked(where: str, key: Any, rates: Any, changes: Any, x0: Any, until: Any) -> _Process:
    key = check_key(key, where)
    if not callable(rates):
        raise TypeError(
            f"`mcgrad.{where}(rates=...)` must be a function of the state, got {describe(rates)}. Write `lambda x: ...`."
        )
    end = until
    x0, changes, until = map(jnp.asarray, (x0, changes, until))
    x0 = x0.astype(jnp.result_type(x0, float)) if not jnp.issubdtype(x0.dtype, jnp.floating) else x0
    if x0.ndim != 1 or changes.ndim != 2 or changes.shape[1:] != x0.shape:
        raise ValueError(
            f"`mcgrad.{where}(changes=..., x0=...)` must be of shapes `[m, d]` and `[d]`, got {changes.shape} and {x0.shape}. "
            "Each row of `changes` is what one reaction adds to the state."
        )
    found = jax.eval_shape(rates, x0)
    if getattr(found, "shape", None) != changes.shape[:1] or not jnp.issubdtype(found.dtype, jnp.floating):
        got = f"{found.dtype} of shape {found.shape}" if hasattr(found, "shape") else describe(found)
        raise ValueError(
            f"`mcgrad.{where}(rates=...)` must return a floating-point rate for each of the {len(changes)} reactions, got {got}. "
            "Use `jnp.stack`."
        )
    if until.ndim or (_known(end) and not 0 < float(end) < np.inf):
        got = f"shape {until.shape}" if until.ndim else f"{until}"
        raise ValueError(
            f"`mcgrad.{where}(until=...)` must be a positive number, got {got}. For several times, simulate from one to the next."
        )
    return _Process(key, changes.astype(x0.dtype), x0, until.astype(found.dtype))


def _limit(bounds: Any, process: _Process) -> Array:
    limit = stop(jnp.asarray(bounds, process.until.dtype))
    number = len(process.changes)
    if limit.shape != (number,) or (_known(bounds) and not np.all(np.asarray(bounds) > 0)):
        raise ValueError(
            f"`mcgrad.simulate(bounds=...)` must be {number} positive numbers, one for each reaction, got {bounds}. Leave out "
            "reactions that never happen."
        )
    # so that a rate which is its bound does not pass it by rounding
    return limit * (1 + 64 * jnp.finfo(limit.dtype).eps)


def _known(x: Any) -> bool:
    """Whether these are numbers, and not what becomes known as the program runs."""
    return all(map(_compat.is_known, jax.tree.leaves(x)))


def _first(rate: Array) -> Array:
    """The chances of reactions where none happens: those of a choice that is none."""
    return (jnp.arange(rate.size) == 0).astype(rate.dtype)


def _simulation(x: Array, costs: Any, complete: Array) -> Simulation:
    def marked(value: Array) -> Array:
        return value + jnp.where(complete, 0, jnp.nan).astype(value.dtype)

    return Simulation(marked(x), jax.tree.map(lambda cost: marked(jnp.sum(cost, axis=0)), costs), complete)
