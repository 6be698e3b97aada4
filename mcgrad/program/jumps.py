"""Warnings about jumps that a derivative misses, and about thresholds that move while the draw is held fixed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set

from mcgrad import _compat
from mcgrad.program.blind_way import PARAMETER, BlindWay
from mcgrad.program.site import Site
from mcgrad.program.trace import Equation


class JumpWarning(UserWarning):
    """A cost jumps in a draw that is differentiated along its path, or at a threshold that moves: the gradient is biased."""


def watched(ways: Iterable[BlindWay], following: Set[Site]) -> dict[Equation, str]:
    """For each comparison at which a cost certainly jumps in a fixed draw, or in raw random bits: the warning to issue if a
    derivative reaches it, which is known only once the derivative is taken.
    """
    found: dict[Equation, str] = {}
    for way in ways:
        held = {source for source in way.sources if source != PARAMETER and source not in following}
        if held and PARAMETER in way.sources and way.certain and not way.cut:
            raw = all(isinstance(source, Equation) for source in held)
            for root in way.roots:
                found.setdefault(root, _of_raw_bits(way, root) if raw else _of_held_draw(way))
    return found


def _of_held_draw(way: BlindWay) -> str:
    return (
        f"{way.describe()} at a threshold that moves with what is differentiated, in a draw that is held fixed (by "
        "`mcgrad.Score()` and the like, or since its distribution is constant): the gradient leaves out how the threshold moves. "
        "Use `mcgrad.PathwiseWithBoundary()` at the draw, or let its distribution move in place of the threshold; "
        "`jax.lax.stop_gradient` of the threshold says that this is meant."
    )


def _of_raw_bits(way: BlindWay, root: Equation) -> str:
    unnamed = ("a comparison with raw random numbers", "the distribution that it is")
    drawn, instead = next((_RAW_DRAWS[name] for name in root.within if name in _RAW_DRAWS), unnamed)
    return (
        f"{drawn} at {root.line} moves with what is differentiated, and mcgrad cannot see that it is a draw: the gradient "
        f"leaves out how its outcome changes. Draw it by `mcgrad.sample(key, {instead})`; `jax.lax.stop_gradient` of its "
        "parameters says that this is meant."
    )


_RAW_DRAWS: Mapping[str, tuple[str, str]] = {
    "_bernoulli": ("`jax.random.bernoulli`", "mcgrad.Bernoulli(probs=p)"),
    "_categorical": ("`jax.random.categorical`", "mcgrad.Categorical(logits=logits)"),
    "_poisson": ("`jax.random.poisson`", "mcgrad.Poisson(rate)"),
    "_binomial": ("`jax.random.binomial`", "mcgrad.Binomial(n, probs=p)"),
    "_geometric": ("`jax.random.geometric`", "mcgrad.Geometric(probs=p)"),
    "_gamma": ("`jax.random.gamma`", "mcgrad.Gamma(concentration, rate)"),
}
"""For a function of JAX that contains the comparison: what to call it, and what to write instead."""


def _warn(message: str) -> None:
    warnings.warn(message, JumpWarning, stacklevel=2)


watch = _compat.new_watched("mcgrad_threshold", _warn)
"""`watch(x, message)` is `x`, and warns if a derivative reaches it."""
