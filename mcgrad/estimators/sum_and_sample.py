"""Sum and sample: some values enumerated, one drawn from the others."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mcgrad._arguments import broadcasts_to, check_field, check_option
from mcgrad._types import static_field
from mcgrad.estimators.joint_states import Groups, draw_in_turn, draw_outside, log_prob, most_probable
from mcgrad.estimators.without_replacement import Chosen, WithoutReplacement, shares
from mcgrad.program import Draw


@dataclasses.dataclass(frozen=True)
class SumAndSample(WithoutReplacement):
    r"""Sum and sample (Rao-Blackwellized): sums over some values, and draws one of the others for all that is left.

        E[f(x)] = sum_{c in C} p(c) f(c) + (1 - p(C)) E[f(z)],    z ~ p given that z is not in C

    with baseline `b = sum_{c in C} p(c) f(c) / p(C)` for all of them, which does not depend on `z`. With a memory buffer
    of good states for `C` this is memory-augmented policy optimization (MAPO); with `C` itself drawn, its stochastic
    form.

    Unbiased, for derivatives of every order; weights sum to one. Distributions of finite support; `num_samples` evaluations of
    the rest of the program, later draws with common random numbers; exact where `num_samples` exceeds the number of values.
    Most useful where a few values have most of the probability. Batch axes as in `mcgrad.UnorderedSet`, and values of
    probability zero too: with many entries that some cost mixes, `C` has next to no probability, and this is the score
    with one sample and the costs in `C` as baseline; `"drawn"` then makes the better baseline.

    Args:
        num_samples: the number of values in `C`, plus one; 2 by default. Not with a buffer, whose size it is plus one.
        enumerated: what `C` is: `"most_probable"`, the most probable values; `"drawn"`, values drawn without replacement;
            or a buffer, positions of values in `dist.support()`, of a shape that broadcasts to `[*batch_shape, m]`: for a
            `Categorical` with batch shape `[3]`, `m` joint states of its three draws. What a buffer has twice counts once;
            positions beyond the last value stand for the last.
        baseline: `"enumerated"`, as above; `"independent"`, an independent draw for each term, which doubles the
            evaluations; or `None`.

    Raises:
        ValueError: where it is built, for other options; where the program runs, for a buffer of another shape or dtype;
            where the program is planned, for a distribution without finite support.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.SumAndSample(2))
        >>> round(float(mcgrad.grad(loss)(0.0, jax.random.key(0))), 4)  # two values: exact
        0.75

    References:
        Liu et al. 2019, "Rao-Blackwellized Stochastic Gradients for Discrete Distributions", https://arxiv.org/abs/1810.04777;
        Liang et al. 2018, "Memory Augmented Policy Optimization for Program Synthesis and Semantic Parsing",
        https://arxiv.org/abs/1807.02322; Kool, van Hoof and Welling 2020 (stochastic), https://arxiv.org/abs/2002.06043.
    """

    num_samples: int | None = static_field(default=None)
    enumerated: Literal["most_probable", "drawn"] | Int[Array, "*batch m"] = "most_probable"
    baseline: Literal["enumerated", "independent"] | None = static_field(default="enumerated")

    def __post_init__(self) -> None:
        if isinstance(self.enumerated, str):
            check_option("SumAndSample(enumerated=...)", self.enumerated, ("most_probable", "drawn"), "an array")
            if self.num_samples is not None:
                check_field(self, "num_samples", 1, what="an int of at least 1")
        elif self.num_samples is not None:
            raise ValueError(
                f"`mcgrad.SumAndSample(num_samples=...)` must be left out with a buffer, got {self.num_samples!r}. The "
                "number of evaluations is the size of the buffer plus one."
            )
        check_option("SumAndSample(baseline=...)", self.baseline, ("enumerated", "independent", None))

    @property
    def _num_summed(self) -> int:
        if isinstance(self.enumerated, str):
            return (2 if self.num_samples is None else self.num_samples) - 1
        return (jnp.shape(self.enumerated) or (1,))[-1]  # a placeholder for a buffer has no shape

    @property
    def num_points(self) -> int:
        return (1 + self._num_summed) * (2 if self.baseline == "independent" else 1)

    def choose(self, draw: Draw, groups: Groups) -> Chosen:
        if isinstance(self.enumerated, str):
            buffer, drawn, m = None, self.enumerated == "drawn", groups.num_states(self._num_summed)
        else:
            buffer, drawn, m = self._buffer(draw, groups), False, self._num_summed
        num_drawn = m if drawn else 0
        num_independent = m + 1 if self.baseline == "independent" else 0
        log_probs = groups.log_probs()
        noise = groups.uniform(1 + num_drawn + num_independent, log_probs.dtype)

        def one(log_probs: Array, u: Array, states: Array | None) -> Chosen:
            is_summed = jnp.ones(m, bool)
            if m == 0:
                states = jnp.zeros((0, log_probs.shape[0]), jnp.int32)
            elif states is not None:
                same = (states[:, None] == states[None]).all(-1)
                is_summed = ~jnp.tril(same, -1).any(1)
            elif drawn:
                states, is_summed, _ = draw_in_turn(log_probs, u[1 : 1 + m])
            else:
                states = most_probable(log_probs, m)
            log_p = jnp.where(is_summed, log_prob(log_probs, states), -jnp.inf)
            summed = log_p > -jnp.inf
            sampled, log_mass, is_left = draw_outside(log_probs, states, summed, u[0])
            left = jnp.where(is_left, jnp.exp(log_mass), 0)
            states = jnp.concatenate([states, sampled[None]])
            possible = jnp.append(summed, is_left)
            weights = jnp.append(jnp.exp(log_p), left)
            baseline = None
            if self.baseline == "independent":
                nothing = (states[:0], possible[:0])
                independent, _, _ = jax.vmap(lambda u: draw_outside(log_probs, *nothing, u))(u[1 + num_drawn :])
                states = jnp.concatenate([states, independent])
                possible = jnp.append(possible, jnp.ones(m + 1, bool))
                weights = jnp.append(weights, jnp.zeros(m + 1, weights.dtype))
                baseline = jnp.eye(2 * m + 2, k=m + 1, dtype=weights.dtype)
            elif self.baseline == "enumerated" and m > 0:
                # zeros, so no baseline, where a buffer holds nothing that is possible
                baseline = jnp.broadcast_to(shares(jnp.append(log_p, -jnp.inf)), (m + 1, m + 1))
            return Chosen(states, possible, weights, baseline)

        return jax.vmap(one, (0, 0, None if buffer is None else 0))(log_probs, noise, buffer)

    def _buffer(self, draw: Draw, groups: Groups) -> Array:
        """The buffer by groups, `[g, m, d]`."""
        states = jnp.asarray(self.enumerated)
        plates, shape = draw.plates, states.shape
        if not (shape and broadcasts_to(shape[:-1], plates) and jnp.issubdtype(states.dtype, jnp.integer)):
            raise ValueError(
                "`mcgrad.SumAndSample(enumerated=...)` must be integers of shape `[*batch_shape, m]`, got "
                f"{states.dtype} of shape {shape} for batch shape {plates} at {draw.site.describe()}. Give one position "
                "in `dist.support()` for each entry of the draw, the states along the last axis."
            )
        states = jnp.clip(states, 0, groups.num_values - 1)
        return jnp.swapaxes(groups.gather(jnp.broadcast_to(states, (*plates, shape[-1]))), 1, 2)
