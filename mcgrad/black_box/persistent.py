"""Evolution strategies along long episodes, a window of steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from mcgrad._arguments import check_at_least, check_key, check_option
from mcgrad._types import PRNGKey
from mcgrad.black_box.differences import check_positive, value_only


class OnlineGradient(NamedTuple):
    """A gradient that goes along with a simulation, as two functions.

    Attributes:
        init: `init(params, key)`, the state: all pairs at the beginning of an episode.
        update: `update(params, state, key)`, which goes on by a window and returns the mean loss of a step, a gradient in the
            structure of the parameters, and the next state.
    """

    init: Callable[[Any, PRNGKey], Any]
    update: Callable[[Any, Any, PRNGKey], tuple[Float[Array, ""], Any, Any]]


class _Pair(NamedTuple):
    """Two simulations with opposite noise; an episode of the pair ends when both have ended.

    Attributes:
        states: of both sides, `[2, ...]`.
        ended: which of them have ended.
        noise: of the parameters in the current window.
        credit: what a difference of losses is multiplied by: of the noise since the episode began.
    """

    states: Any
    ended: Bool[Array, " 2"]
    noise: Float[Array, " n"]
    credit: Float[Array, " n"]


def persistent_evolution(
    step: Callable[[Any, Any, PRNGKey], tuple[Any, Any, Any]],
    reset: Callable[[PRNGKey], Any],
    *,
    scale: Float[Array, ""] | float,
    num_pairs: int,
    window: int,
    method: Literal["persistent", "noise_reuse", "truncated"] = "persistent",
) -> OnlineGradient:
    r"""The gradient of the loss of long episodes by evolution strategies, after each window of a few steps.

    Pairs of simulations run with the parameters `theta + s e` and `theta - s e`, step by step with the same keys, and go on
    from where they are when the parameters are updated. With the losses `l+` and `l-` of a step,

        g = mean over the pairs and the steps of a window of  xi (l+ - l-) / (2 s)

    - `"persistent"` (PES): another `e` in each window, and `xi` the sum of those since the episode began, so that a loss is
      credited with all noise that led to it. The variance grows with the number of windows in an episode;
    - `"noise_reuse"` (NRES): one `e` for the whole episode, and `xi = e`. An update has less variance, but the updates of an
      episode share their noise. One window as long as the episode is plain evolution strategies;
    - `"truncated"`: another `e` in each window, and `xi = e`. **Biased**: what a window changes in later ones is left out.

    For constant parameters, the mean of `g` over whole episodes of `T` steps is unbiased for `1 / T` times the gradient of
    `E[sum of losses]`, smoothed by normal noise of scale `s`, one for the episode or one for each window. Parameters that change
    within an episode make it that of a loss in which each window has its own.

    An episode may end anywhere in a window, and at another step for each side: a side that has ended stays and adds no loss
    until the other has ended too. Then both begin anew, with noise of which nothing before is credited.

    Args:
        step: `step(params, state, key)`, which returns the next state, the loss of this step and whether the episode ends with it:
            the loss counts. States are pytrees of arrays of constant shapes; nothing is differentiated.
        reset: `reset(key)`, the state at the beginning of an episode.
        scale: `s`, a positive number in the units of the parameters.
        num_pairs: how many pairs run side by side.
        window: steps of an update.
        method: see above.

    Returns:
        Two functions, `init` and `update`.

    Raises:
        TypeError: for a key that is none; parameters or losses that are no floating-point numbers; an end that is no boolean.
        ValueError: for an invalid option, or a step that returns another structure than its state's.
        NotImplementedError: for a derivative of the loss or of the gradient.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def step(theta, state, key):  # twenty steps an episode
        ...     x, t = state
        ...     x = 0.9 * x + theta
        ...     return (x, t + 1), x**2, t == 19
        >>> online = mcgrad.persistent_evolution(step, lambda key: (0.0, 0), scale=0.1, num_pairs=100, window=5)
        >>> state = online.init(0.3, jax.random.key(0))
        >>> loss, gradient, state = online.update(0.3, state, jax.random.key(1))
        >>> gradient.shape
        ()

    References:
        Vicol, Metz and Sohl-Dickstein 2021, algorithm 2, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
        Persistent Evolution Strategies", https://arxiv.org/abs/2112.13835; Li et al. 2023, algorithm 2, "Noise-Reuse in Online
        Evolution Strategies", https://arxiv.org/abs/2304.12180.
    """
    where = "persistent_evolution"
    check_positive(scale, f"{where}(scale=...)")
    check_at_least(num_pairs, 1, f"{where}(num_pairs=...)")
    check_at_least(window, 1, f"{where}(window=...)")
    check_option(f"{where}(method=...)", method, ("persistent", "noise_reuse", "truncated"))

    def begin(key: PRNGKey) -> Any:
        return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), reset(key))

    def init(params: Any, key: PRNGKey) -> Any:
        check_key(key, f"{where}(...).init")
        _check_step(step, params, reset, key)
        flat, _ = ravel_pytree(params)

        key_reset, key_noise = jax.random.split(key)
        noise = jax.random.normal(key_noise, (num_pairs, flat.size), flat.dtype)
        states = jax.vmap(begin)(jax.random.split(key_reset, num_pairs))
        return _Pair(states, jnp.zeros((num_pairs, 2), bool), noise, jnp.zeros_like(noise))

    def update(params: Any, state: Any, key: PRNGKey) -> tuple[Float[Array, ""], Any, Any]:
        check_key(key, f"{where}(...).update")
        flat, unravel = ravel_pytree(params)
        signs = jnp.array([1, -1], flat.dtype)
        key_noise, key_steps = jax.random.split(key)
        fresh = jax.random.normal(key_noise, (num_pairs, flat.size), flat.dtype)
        if method == "noise_reuse":
            pairs = state._replace(credit=state.noise)
        else:
            pairs = state._replace(noise=fresh, credit=fresh + state.credit if method == "persistent" else fresh)

        def advance(pair: _Pair, fresh: Array, key: PRNGKey) -> tuple[_Pair, tuple[Array, Array, Array]]:
            key_step, key_reset = jax.random.split(key)

            def side(sign: Array, state: Any, ended: Array) -> tuple[Any, Array, Array]:
                moved = unravel(flat + sign * scale * pair.noise)
                after, loss, ends = step(moved, state, jax.random.clone(key_step))
                loss = value_only(jnp.asarray(loss))
                after = jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, after)
                return after, jnp.where(ended, 0, loss), ended | ends

            states, losses, ended = jax.vmap(side)(signs, pair.states, pair.ended)
            term = pair.credit * (losses[0] - losses[1]) / (2 * scale)
            both = jnp.all(ended)
            states = jax.tree.map(lambda old, new: jnp.where(both, new, old), states, begin(key_reset))
            noise, credit = (jnp.where(both, fresh, old) for old in (pair.noise, pair.credit))
            return _Pair(states, ended & ~both, noise, credit), (term, losses, ~pair.ended)

        state, (terms, losses, counted) = jax.lax.scan(
            lambda pairs, keys: jax.vmap(advance)(pairs, fresh, keys),
            pairs,
            jax.random.split(key_steps, (window, num_pairs)),
        )
        return jnp.sum(losses) / jnp.sum(counted), unravel(jnp.mean(terms, axis=(0, 1))), state

    return OnlineGradient(init, update)


def _check_step(step: Callable[..., Any], params: Any, reset: Callable[..., Any], key: PRNGKey) -> None:
    """Refuse parameters that cannot move, and steps that do not return what they must."""
    where = "mcgrad.persistent_evolution"
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"`{where}(...).init(params, key)` must get floating-point parameters, got {jnp.result_type(leaf)}. Convert them "
                "with `.astype(float)`, and close over what is not to be tuned."
            )
    before = jax.eval_shape(lambda key: jax.tree.map(jnp.asarray, reset(key)), key)
    found = jax.eval_shape(lambda params, state, key: step(params, state, key), params, before, key)
    if not (isinstance(found, (tuple, list)) and len(found) == 3):
        got = "one array" if isinstance(found, jax.ShapeDtypeStruct) else type(found).__name__
        raise ValueError(
            f"`{where}(step=...)` must return the next state, the loss and whether the episode ends, got {got}. "
            "Return these three as a tuple."
        )
    after, loss, ends = found
    shapes = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", state) for state in (after, before)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`{where}(step=...)` must return a state like that of `reset`, {shapes[1]}, got {shapes[0]}. Convert "
            "with `jnp.asarray` where the types differ."
        )
    for what, x, kind in (("a loss", loss, jnp.floating), ("an end", ends, jnp.bool_)):
        if jnp.shape(x) != () or not jnp.issubdtype(x.dtype, kind):
            wanted = "one boolean" if kind is jnp.bool_ else "one floating-point number"
            raise TypeError(
                f"`{where}(step=...)` must return {what} that is {wanted}, got {x.dtype}{list(x.shape)}. Convert it."
            )
