"""Joint states of several entries of a draw, over distributions of finite support: drawn without replacement, or the most
probable.

Entries are independent, so the distribution of `d` entries with `n` values each is a table of log probabilities `[d, n]`, and a
joint state is a row of `d` positions of values. A product of probabilities is never formed, so that two hundred entries
are as good as one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mcgrad import _mesh
from mcgrad.estimators.finite_support import each_value
from mcgrad.program import Draw


def draw_outside(
    log_probs: Float[Array, "d n"], taken: Int[Array, "m d"], is_taken: Bool[Array, " m"], u: Float[Array, " d"]
) -> tuple[Int[Array, " d"], Float[Array, ""], Bool[Array, ""]]:
    """Draws a state given that it is none of those taken, entry by entry from uniform noise `u`.

    Returns it, of no meaning where none is left; the log probability of all that are left; and whether one is.

    Given the entries so far, the weight of a value is its probability times the probability that the entries behind it do
    not complete a taken state.
    """
    each = _chosen(log_probs, taken)  # [m, d]
    behind = jax.lax.cumsum(each[:, 1:], axis=1, reverse=True)
    behind = jnp.concatenate([behind, jnp.zeros_like(each[:, :1])], axis=1)
    values = jnp.arange(log_probs.shape[1], dtype=jnp.int32)

    def step(agrees: Array, entry: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        log_p, taken, behind, u = entry
        completes = agrees[:, None] & (taken[:, None] == values[None])  # [m, n]
        completed = jax.nn.logsumexp(jnp.where(completes, behind[:, None], -jnp.inf), axis=0)
        left = log_p + jax.nn.log1mexp(-jnp.minimum(completed, 0))  # up to rounding
        total = jax.nn.logsumexp(left)
        below = jnp.cumsum(jnp.exp(left - jnp.where(total > -jnp.inf, total, 0)))
        value = jnp.minimum(jnp.sum(below < u * below[-1], dtype=jnp.int32), len(values) - 1)
        return agrees & (taken == value), (value, total, left[value] > -jnp.inf)

    _, (state, log_mass, possible) = _mesh.scan(step, is_taken, (log_probs, taken.T, behind.T, u))
    return state, jnp.minimum(log_mass[0], 0), jnp.all(possible)


def draw_in_turn(log_probs: Float[Array, "d n"], u: Float[Array, "k d"]) -> tuple[Array, Array, Array]:
    """Draws states without replacement, each with its probability among those that are left.

    Returns them in their order, `[k, d]`; which are possible, not the last ones where there are no more states; and the log
    probability of what was left before each draw, and after the last, `[k + 1]`.

    In distribution these are the `k` largest of Gumbel-perturbed log probabilities, in their order (Kool et al. 2019,
    stochastic beams).
    """
    k = len(u)

    def step(taken: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        j, u = at
        state, log_mass, is_left = draw_outside(log_probs, *taken, u)
        states, possible = taken
        return (states.at[j].set(state), possible.at[j].set(is_left)), log_mass

    start = (jnp.zeros(u.shape, jnp.int32), jnp.zeros(k, bool))
    (states, possible), log_outside = _mesh.scan(step, start, (jnp.arange(k), u))
    _, after, _ = draw_outside(log_probs, states, possible, u[0])
    return states, possible, jnp.append(log_outside, after)


def most_probable(log_probs: Float[Array, "d n"], k: int) -> Int[Array, "k d"]:
    """The `k` most probable states, the most probable first; exact, since what comes behind is the same for all prefixes."""
    d, n = log_probs.shape

    def step(beam: tuple[Array, Array], entry: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        scores, states = beam
        e, log_p = entry
        scores, best = jax.lax.top_k((scores[:, None] + log_p[None]).ravel(), k)
        return (scores, states[best // n].at[:, e].set((best % n).astype(jnp.int32))), None

    start = (jnp.where(jnp.arange(k) == 0, 0, -jnp.inf).astype(log_probs.dtype), jnp.zeros((k, d), jnp.int32))
    (_, states), _ = _mesh.scan(step, start, (jnp.arange(d), log_probs))
    return states


def log_prob(log_probs: Float[Array, "d n"], states: Int[Array, "k d"]) -> Float[Array, " k"]:
    """Log probability of joint states."""
    return jnp.sum(_chosen(log_probs, states), axis=1)


def _chosen(log_probs: Array, states: Array) -> Array:
    return jnp.take_along_axis(log_probs[None], states[..., None], axis=-1)[..., 0]


@dataclasses.dataclass(frozen=True)
class Groups:
    """The entries of a draw, those that some cost mixes brought together: `g` groups of `d` entries.

    Entries of one group have joint states; groups are independent, and no cost mixes them.
    """

    draw: Draw

    @property
    def _order(self) -> tuple[int, ...]:
        mixed = self.draw.mixed_axes
        return (*(k for k in range(self.draw.num_plates) if k not in mixed), *mixed)

    @property
    def size(self) -> int:
        """The number of entries of a group."""
        return math.prod(self.draw.plates[k] for k in self.draw.mixed_axes)

    def num_states(self, most: int) -> int:
        """How many states a group has, up to `most`."""
        n = self.num_values
        return most if n > 1 and self.size * math.log2(n) > 32 else min(n**self.size, most)

    @property
    def num_values(self) -> int:
        """The number of values of one entry."""
        assert self.draw.facts.support is not None  # see `FiniteSupportEstimator`
        return len(self.draw.facts.support)

    def log_probs(self) -> Float[Array, "g d n"]:
        """The distribution of each group, frozen."""
        return self.gather(jax.lax.stop_gradient(each_value(self.draw, self.draw.log_prob)))

    def uniform(self, num: int, dtype: Any) -> Float[Array, "g num d"]:
        """Noise in (0, 1) for each group."""
        u = self.draw.uniform(num, dtype=dtype, index=None)
        return jnp.swapaxes(self.gather(u), 1, 2)

    def gather(self, x: Array) -> Array:
        """`[*plates, *rest]` to `[g, d, *rest]`."""
        num = self.draw.num_plates
        return jnp.transpose(x, (*self._order, *range(num, x.ndim))).reshape(-1, self.size, *x.shape[num:])

    def points(self, states: Int[Array, "g k d"]) -> Array:
        """The values `[k, *draw shape]` of joint states."""
        states = jnp.moveaxis(states, 1, 0).reshape(states.shape[1], *(self.draw.plates[k] for k in self._order))
        states = jnp.moveaxis(states, range(1, states.ndim), [1 + k for k in self._order])
        return jnp.asarray(self.draw.facts.support)[states]

    def per_entry(self, x: Float[Array, " g *lead"]) -> Float[Array, "*lead *plates"]:
        """Numbers of each group in the shape of the plates, with one entry along axes that some cost mixes."""
        mixed = self.draw.mixed_axes
        plates = [1 if k in mixed else size for k, size in enumerate(self.draw.plates)]
        return jnp.moveaxis(x, 0, -1).reshape(*x.shape[1:], *plates)
