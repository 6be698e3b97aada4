r"""Particle filters as programs, and the derivatives of their likelihoods in the forms that people use.

A filter moves `N` particles, weights them by an observation, and resamples them. Its likelihood `Z = prod_t 1/N sum_i w_t^i` is
an unbiased estimate of that of the observations. Here it is a program like any other, of draws by `mcgrad.sample` in a `scan`; a
filter of one's own needs nothing of this file but `resample`, or not even that.

**What the gradient is of** is decided where particles are resampled, by `gradient=`:

| `gradient=`                  | of `Z`: `E[dZ]` is `d E[Z]`      | of the bound: `E[d log Z]` is `d E[log Z]`     | cost         |
|------------------------------|----------------------------------|------------------------------------------------|--------------|
| `"stop_gradient"`            | unbiased, every order            | **biased**; near the gradient of `log E[Z]`    | one filter   |
| `"marginal"`                 | unbiased, every order            | **biased**; the same with less variance        | `N^2` a step |
| `mcgrad.Score()`             | unbiased, every order            | unbiased, every order; of much variance        | one filter   |
| `"ignore"`                   | **biased**                       | **biased**, of little variance                 | one filter   |

`log Z` of the first two has the derivative `dZ / Z`, which is a consistent estimate of the score of the observations, with a bias
of order `1 / N`: what maximum likelihood needs. As an estimate of `d E[log Z]`, the gradient of the bound of variational sequential
Monte Carlo, it is biased: its mean is near the gradient of `log E[Z]`, which no parameter of the proposal alone changes. `"ignore"`
is what is done for this bound in practice. The third is the likelihood ratio of the ancestors: with `num_samples` of the transform
it has a baseline. It should be used with `resampling=mcgrad.WithReplacement` only, where its standard deviation grows as `sqrt(N)`.

**Credit.** A filter's likelihood mixes all particles, so the score of an ancestor counts for all that comes after it. The first two
forms carry it on the weights of the descendants instead, as importance weights: `Z` is linear in the weighted particles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mcgrad._arguments import check_at_least, check_key, check_option, describe
from mcgrad._compat import custom_jvp
from mcgrad._types import PRNGKey
from mcgrad.distributions import Systematic, as_distribution, pathwise_obstacle
from mcgrad.program import Estimator, zero_with_derivative_of
from mcgrad.program.held import Held
from mcgrad.sample import sample

Gradient: TypeAlias = "Literal['stop_gradient', 'marginal', 'ignore'] | Estimator"
Scheme: TypeAlias = "Callable[[Array], Any]"


class Model(NamedTuple):
    """A state space model. Its functions are of all particles at once, with axis `n` in front: `jax.vmap` one of a single particle.

    Attributes:
        initial: the distribution of the first state, of one particle.
        transition: `transition(x)`, the distribution of the next states, of batch shape `[n]`.
        log_observation: `log_observation(x, y)`, the log density of one observation at each particle, `[n]`.
    """

    initial: Any
    transition: Callable[[Array], Any]
    log_observation: Callable[[Array, Any], Array]


class Proposal(NamedTuple):
    """What a guided filter draws from.

    Attributes:
        initial: `initial(y)`, the distribution of the first state, of one particle.
        transition: `transition(x, y)`, the distribution of the next states, of batch shape `[n]`.
    """

    initial: Callable[[Any], Any]
    transition: Callable[[Array, Any], Any]


class Filtered(NamedTuple):
    """What a filter returns.

    Attributes:
        log_likelihood: the logarithm of `Z`.
        log_increments: that of each step given those before, `[T]`; their sum is `log_likelihood`. Where no particle has weight it
            is -1e30, of which the likelihood is zero.
        particles: weighted particles of each step, before they are resampled, `[T, n, *state]`.
        log_weights: their normalized log weights, `[T, n]`.
    """

    log_likelihood: Float[Array, ""]
    log_increments: Float[Array, " T"]
    particles: Array
    log_weights: Float[Array, "T n"]


def bootstrap_filter(
    model: Model,
    observations: Any,
    key: PRNGKey,
    *,
    num_particles: int,
    gradient: Gradient,
    resampling: Scheme = Systematic,
) -> Filtered:
    r"""The bootstrap filter: particles move by the model, and are weighted by the observation.

        a ~ resampling(W_(t-1)),    x_t^i ~ p(x | x_(t-1)^(a_i)),    w_t^i = p(y_t | x_t^i)

    It resamples at each step. Particles move along their paths with the parameters where the transition has a path; with
    `"stop_gradient"` and `"marginal"`, particles without one carry `p(x) / stop(p(x))` on their weights.

    Args:
        model: see `Model`; its functions close over parameters.
        observations: a pytree of arrays `[T, ...]`.
        key: a key, used for this filter only.
        num_particles: `N`, at least 1.
        gradient: see this module. With an estimator, such as `mcgrad.Score()`, it is that of the ancestors.
        resampling: `mcgrad.Systematic`, `mcgrad.Stratified`, `mcgrad.Residual`, `mcgrad.WithReplacement`, or another function of
            log weights `[n]` that returns a distribution of `n` ancestors.

    Returns:
        See `Filtered`.

    Raises:
        ValueError: for another `gradient`, no particle, no observation, or a distribution of another batch shape.
        TypeError: for what is no distribution, or no key.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def log_likelihood(a, y, key):
        ...     observed = lambda x, y: mcgrad.Normal(x, 0.5).log_prob(y)
        ...     model = mcgrad.smc.Model(mcgrad.Normal(0.0, 1.0), lambda x: mcgrad.Normal(a * x, 1.0), observed)
        ...     found = mcgrad.smc.bootstrap_filter(model, y, key, num_particles=64, gradient="stop_gradient")
        ...     return found.log_likelihood
        >>> mcgrad.grad(log_likelihood)(0.9, jnp.zeros(10), jax.random.key(0)).shape
        ()

    References:
        Gordon, Salmond and Smith 1993 (filter); Scibior and Wood 2021, algorithm 2 and section 4 (stop-gradient and marginal),
        "Differentiable Particle Filtering without Modifying the Forward Pass", https://arxiv.org/abs/2106.10314; Poyiadjis,
        Doucet and Singh 2011 (the estimates of the score that these are); Maddison et al. 2017, section 4 (score and ignored),
        "Filtering Variational Objectives", https://arxiv.org/abs/1705.09279.
    """
    return _filter(model, None, observations, key, num_particles, gradient, resampling, "bootstrap_filter")


def guided_filter(
    model: Model,
    proposal: Proposal,
    observations: Any,
    key: PRNGKey,
    *,
    num_particles: int,
    gradient: Gradient,
    resampling: Scheme = Systematic,
) -> Filtered:
    r"""A guided filter: particles move by a proposal that knows the observation.

        a ~ resampling(W_(t-1)),    x_t^i ~ q(x | x_(t-1)^(a_i), y_t),    w_t^i = p(x_t^i | x_(t-1)^(a_i)) p(y_t | x_t^i) / q(x_t^i)

    The mean of `log_likelihood` is a lower bound of the log likelihood of the observations, that of variational sequential Monte
    Carlo (FIVO), to be maximized in the model and the proposal. With `"marginal"` the weight is
    `sum_j W_j p(x | x_j) / sum_j W_j q(x | x_j, y)`, as in a marginal filter, and particles are held fixed: there is no derivative
    in parameters of the proposal, in which `E[Z]` has none.

    Args:
        model: see `Model`.
        proposal: see `Proposal`; it must have density wherever the model has.
        observations, key, num_particles, gradient, resampling: see `bootstrap_filter`.

    Returns:
        See `Filtered`.

    Raises:
        ValueError, TypeError: see `bootstrap_filter`.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def bound(loc, y, key):
        ...     observed = lambda x, y: mcgrad.Normal(x, 0.5).log_prob(y)
        ...     model = mcgrad.smc.Model(mcgrad.Normal(0.0, 1.0), lambda x: mcgrad.Normal(x, 1.0), observed)
        ...     proposal = mcgrad.smc.Proposal(lambda y: mcgrad.Normal(y, 0.5), lambda x, y: mcgrad.Normal(y + loc, 0.5 + 0 * x))
        ...     found = mcgrad.smc.guided_filter(model, proposal, y, key, num_particles=8, gradient="ignore")
        ...     return found.log_likelihood
        >>> mcgrad.grad(bound)(0.1, jnp.zeros(10), jax.random.key(0)).shape
        ()

    References:
        Doucet, Godsill and Andrieu 2000 (filter); Klaas, de Freitas and Doucet 2005, section 3.1 (marginal filter); Maddison et al.
        2017, Le et al. 2018 and Naesseth et al. 2018 (bound), https://arxiv.org/abs/1705.09279,
        https://arxiv.org/abs/1705.10306, https://arxiv.org/abs/1705.11140.
    """
    return _filter(model, proposal, observations, key, num_particles, gradient, resampling, "guided_filter")


def resample(
    key: PRNGKey,
    log_weights: Float[Array, " n"],
    *,
    gradient: Literal["stop_gradient", "ignore"] | Estimator,
    resampling: Scheme = Systematic,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    r"""Ancestors of weighted particles, and the log weights of their copies: zero, with the derivative that `gradient` says.

        v_i = W_(a_i) / stop(W_(a_i))    for "stop_gradient",    1 otherwise

    With these a sum over the copies, `1/n sum_i v_i f(x_(a_i))`, is an unbiased estimate of `sum_j W_j f(x_j)`, derivatives of
    every order included, for every distribution of ancestors that draws a particle `n W_j` times in the mean.

    Args:
        key: a key, used for these ancestors only.
        log_weights: unnormalized log weights. If all are `-inf`, they count as equal.
        gradient, resampling: see `bootstrap_filter`; `"marginal"` needs the densities of the next step, which only a filter has.

    Returns:
        The ancestors and the log weights, `[n]` each.

    Raises:
        ValueError: for another `gradient`, or a distribution of other ancestors.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> x, log_weights = jnp.arange(3.0), jnp.array([0.0, -jnp.inf, -jnp.inf])
        >>> ancestors, log_v = mcgrad.smc.resample(jax.random.key(0), log_weights, gradient="stop_gradient")
        >>> x[ancestors].tolist(), log_v.tolist()
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])

    References:
        Scibior and Wood 2021, algorithm 2, see `bootstrap_filter`.
    """
    if not isinstance(gradient, Estimator):
        check_option("smc.resample(gradient=...)", gradient, ("stop_gradient", "ignore"), "an estimator")
    return _resample(key, _normalized(jnp.asarray(log_weights))[0], gradient, resampling)


def _resample(key: PRNGKey, log_weights: Array, gradient: Gradient, resampling: Scheme) -> tuple[Array, Array]:
    if isinstance(gradient, Estimator):
        return _ancestors(key, log_weights, gradient, resampling), jnp.zeros_like(log_weights)
    if gradient == "ignore":
        return _ancestors(key, log_weights, _Ignored(), resampling), jnp.zeros_like(log_weights)
    ancestors = _ancestors(key, log_weights, _HELD, resampling)
    return ancestors, zero_with_derivative_of(jnp.take(log_weights, ancestors, mode="clip"))


class _Ignored(Held):
    """As `explain` speaks of it: nothing is in place of what is held fixed."""

    biased = True


_HELD = Held()


def _ancestors(key: PRNGKey, log_weights: Array, estimator: Estimator, resampling: Scheme) -> Array:
    dist = as_distribution(resampling(log_weights))
    shape = (*dist.batch_shape, *dist.event_shape)
    if shape != log_weights.shape:
        raise ValueError(
            f"`mcgrad.smc` with `resampling=...` must get as many ancestors as log weights, {log_weights.shape}, got a "
            f"distribution of draws of shape {shape}. Pass `resampling=mcgrad.Systematic`, or the like."
        )
    return sample(key, dist, estimator, name="ancestors")


def _normalized(log_weights: Array) -> tuple[Array, Array]:
    """Normalized log weights, and the logarithm of their mean."""
    log_weights = jnp.maximum(log_weights, _LEAST)
    total = _log_sum(log_weights)
    return log_weights - total, total - jnp.log(jnp.asarray(len(log_weights), log_weights.dtype))


@custom_jvp
def _log_sum(log_weights: Array) -> Array:
    """`log sum exp` over the last axis, of finite numbers."""
    largest = jnp.max(log_weights, axis=-1, keepdims=True)
    return largest[..., 0] + jnp.log(jnp.sum(jnp.exp(log_weights - largest), axis=-1))


@_log_sum.defjvp
def _log_sum_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    total = _log_sum(*primals)
    return total, jnp.sum(jnp.exp(primals[0] - total[..., None]) * tangents[0], axis=-1)


_LEAST = -1e30
"""Stands for log weights of `-inf`: equal weights are left where no particle has any, and no NaN."""


def _filter(
    model: Model,
    proposal: Proposal | None,
    observations: Any,
    key: PRNGKey,
    num_particles: int,
    gradient: Gradient,
    resampling: Scheme,
    where: str,
) -> Filtered:
    key = check_key(key, f"smc.{where}")
    n = check_at_least(num_particles, 1, f"smc.{where}(num_particles=...)")
    if not isinstance(gradient, Estimator):
        check_option(f"smc.{where}(gradient=...)", gradient, ("stop_gradient", "marginal", "ignore"), "an estimator")
    num_steps = _num_steps(observations, where)
    key_first, key_others = jax.random.split(key)
    carried = gradient in ("stop_gradient", "marginal")

    def weighted(x: Array, log_ratio: Array | float, y: Any) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        log_density = model.log_observation(x, y)
        _check_shape("Model(log_observation=...)", "log densities", jnp.shape(log_density), n)
        log_weights, log_mean = _normalized(log_density + log_ratio)
        return (x, log_weights), (log_mean, x, log_weights)

    def is_held(dist: Any) -> bool:
        return gradient == "marginal" or (carried and pathwise_obstacle(dist) is not None)

    def first(key: PRNGKey, y: Any) -> tuple[Array, Array | float]:
        p = _distribution(model.initial, "Model(initial=...)", ())
        q = p if proposal is None else _distribution(proposal.initial(y), "Proposal(initial=...)", ())
        held = is_held(q)
        draw = lambda key: sample(key, q, _HELD if held else None, name="first particles")  # noqa: E731
        x = jax.vmap(draw)(jax.random.split(key, n))
        log_p, log_q = (jax.vmap(dist.log_prob) for dist in (p, q))
        return x, _log_ratio(log_p, log_q, x, held, proposal is None)

    def step(state: tuple[Array, Array], at: tuple[PRNGKey, Any]) -> Any:
        (x, log_weights), (key, y) = state, at
        key_ancestors, key_move = jax.random.split(key)
        ancestors, log_v = _resample(key_ancestors, log_weights, gradient, resampling)

        def moves(x: Array) -> tuple[Any, Any]:
            p = _distribution(model.transition(x), "Model(transition=...)", (n,))
            if proposal is None:
                return p, p
            return p, _distribution(proposal.transition(x, y), "Proposal(transition=...)", (n,))

        p, q = moves(jnp.take(x, ancestors, axis=0, mode="clip"))
        held = is_held(q)
        new = sample(key_move, q, _HELD if held else None, name="particles")
        if gradient == "marginal":
            mixed_p, mixed_q = (_mixture(dist, log_weights) for dist in moves(x))
            return weighted(new, _log_ratio(mixed_p, mixed_q, new, True, proposal is None), y)
        return weighted(new, log_v + _log_ratio(p.log_prob, q.log_prob, new, held, proposal is None), y)

    y_first, y_others = (jax.tree.map(part, observations) for part in (lambda y: y[0], lambda y: y[1:]))
    state, out = weighted(*first(key_first, y_first), y_first)
    _, outs = jax.lax.scan(step, state, (jax.random.split(key_others, num_steps - 1), y_others))
    increments, particles, log_weights = (jnp.concatenate([a[None], b]) for a, b in zip(out, outs, strict=True))
    return Filtered(out[0] + jnp.sum(outs[0]), increments, particles, log_weights)


def _log_ratio(log_p: Any, log_q: Any, x: Array, held: bool, same: bool) -> Array | float:
    if not held:
        return 0.0 if same else log_p(x) - log_q(x)
    found = log_p(x)
    return zero_with_derivative_of(found) if same else _less_held(found, log_q(x))


@custom_jvp
def _less_held(x: Array, held: Array) -> Array:
    """`x - stop(held)`."""
    return x - held


@_less_held.defjvp
def _less_held_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _less_held(*primals), tangents[0]


def _mixture(dist: Any, log_weights: Array) -> Callable[[Array], Array]:
    """The function `log sum_j W_j p(x_i | x_j)`, for each `i`."""

    def log_prob(x: Array) -> Array:
        each = jax.vmap(lambda x_i: dist.log_prob(jnp.broadcast_to(x_i, x.shape)))(x)  # [i, j]
        return _log_sum(jnp.maximum(each + log_weights[None], _LEAST))

    return log_prob


def _distribution(dist: Any, what: str, batch: tuple[int, ...]) -> Any:
    dist = as_distribution(dist)
    if tuple(dist.batch_shape) != batch:
        one = "of one particle" if batch == () else "of all particles at once, or `jax.vmap` a function of one particle"
        raise ValueError(
            f"`mcgrad.smc.{what}` must be a distribution of batch shape {batch}, got {tuple(dist.batch_shape)}. Write it {one}; "
            "`mcgrad.Independent` makes an axis of a state of a batch axis."
        )
    return dist


def _check_shape(what: str, of: str, shape: tuple[int, ...], n: int) -> None:
    if shape != (n,):
        raise ValueError(
            f"`mcgrad.smc.{what}` must return {of} of shape ({n},), one a particle, got {shape}. Write it of all particles at "
            "once, or `jax.vmap` a function of one particle."
        )


def _num_steps(observations: Any, where: str) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(observations)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"`mcgrad.smc.{where}(observations=...)` must be arrays with one time axis in front, got {describe(observations)} with "
            f"shapes {shapes}. Give each step one entry."
        )
    return lengths.pop()
