"""Markov chain Monte Carlo as programs: kernels whose draws are those of `mcgrad.sample`, and what to tune them by.

A kernel is a pair of functions, in the shape of blackjax: `state = kernel.init(position)` and
`state, info = kernel.step(state, key, step_size)`. A step is a program like any other, so that `mcgrad.grad` of a function that
runs steps in a `scan` differentiates expectations over the chain: through proposals along their path, through acceptance by one
alternative path that is coupled with the real one. A kernel of one's own needs nothing of this file but `mcgrad.sample`.

**Fixed keys and fresh keys.** Under one key a chain is a function of its parameters that can be optimized like any other, but its
derivative is not the gradient here: it is the path's alone, with every acceptance as it came, and in a step size it may even
have the other sign. The gradient here is that of the *expectation*, of which it is an unbiased estimate under any key that does
not depend on the parameters. With a fresh key for each step of an optimizer this is stochastic approximation, which converges as
steps get smaller. With the same key in each step it is a fixed vector field, the gradient of no function, that is zero near the
optimum: as near as the deviation of one gradient over the curvature. That has no noise along the way, can be repeated, and keeps
this one error.

**Targets with bounds.** Where the log density jumps, to minus infinity for instance, the path of a proposal does not see it: a
`JumpWarning` says so. Change the variables to such without bounds, or take `proposal=mcgrad.Score()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcgrad._arguments import check_at_least
from mcgrad._types import PRNGKey
from mcgrad.distributions import Bernoulli, MultivariateNormal
from mcgrad.estimators import Pathwise, SmoothedPerturbation
from mcgrad.program import Estimator
from mcgrad.sample import sample

LogDensity: TypeAlias = "Callable[[Any], Float[Array, '']]"


class State(NamedTuple):
    """The state of a chain.

    Attributes:
        position: a pytree of floating-point arrays.
        log_density: of the position, up to a constant.
        gradient: of `log_density`, in the shape of the position; `None` for kernels that need none.
    """

    position: Any
    log_density: Array
    gradient: Any = None


class Info(NamedTuple):
    """What a step did.

    Attributes:
        acceptance_rate: the probability with which the proposal was accepted.
        is_accepted: whether it was.
        proposal: the proposed state.
    """

    acceptance_rate: Array
    is_accepted: Array
    proposal: State


class Kernel(NamedTuple):
    """A Markov kernel.

    Attributes:
        init: `init(position)`, the state there.
        step: `step(state, key, step_size)`, the next state and an `Info`; `step_size` is a number, or a pytree of numbers or arrays
            in the structure of the position.
    """

    init: Callable[[Any], State]
    step: Callable[[State, PRNGKey, Any], tuple[State, Info]]


_REFLECTION, _SHARED, _SMOOTHED = Pathwise(coupling="reflection"), Pathwise(), SmoothedPerturbation()


def random_walk(
    log_density: LogDensity,
    *,
    proposal: Estimator = _REFLECTION,
    acceptance: Estimator = _SMOOTHED,
) -> Kernel:
    r"""Random walk Metropolis.

        y = x + s z,    x <- y with probability min(1, p(y) / p(x))

    Args:
        log_density: the log density of the target at a position, up to a constant; it may depend on parameters too.
        proposal: how the derivative in the proposal is estimated.
        acceptance: how the derivative in the acceptance is estimated.

    Returns:
        A kernel.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> kernel = mcgrad.mcmc.random_walk(lambda x: -0.5 * x**2)
        >>> program = mcgrad.mcmc.chain_mean(kernel, mcgrad.mcmc.squared_jump, num_steps=100)
        >>> mcgrad.grad(program)(2.4, jnp.zeros(()), jax.random.key(0)).shape
        ()

    References:
        Metropolis et al. 1953; Arya et al. 2023, section 3, "Differentiating Metropolis-Hastings to Optimize Intractable
        Densities", https://arxiv.org/abs/2306.07961.
    """

    def step(state: State, key: PRNGKey, step_size: Any) -> tuple[State, Info]:
        key_proposal, key_acceptance = jax.random.split(key)
        x, unravel, scale = _flat(state.position, step_size)
        y = sample(key_proposal, MultivariateNormal(x, scale_diag=scale), proposal, name="proposal")
        proposed = _state(log_density, unravel(y), gradient=False)
        log_ratio = proposed.log_density - state.log_density
        return _accept(key_acceptance, state, proposed, log_ratio, acceptance)

    return Kernel(lambda position: _state(log_density, position, gradient=False), step)


def mala(
    log_density: LogDensity,
    *,
    proposal: Estimator = _REFLECTION,
    acceptance: Estimator = _SMOOTHED,
) -> Kernel:
    r"""The Metropolis-adjusted Langevin algorithm; `s` is the standard deviation of the noise.

        y ~ q(y | x) = N(x + s^2 / 2 grad log p(x), s^2),    x <- y with probability min(1, p(y) q(x | y) / (p(x) q(y | x)))

    Args:
        log_density, proposal, acceptance: see `random_walk`.

    Returns:
        A kernel.

    References:
        Roberts and Tweedie 1996, section 1.4, "Exponential Convergence of Langevin Distributions and Their Discrete
        Approximations".
    """

    def step(state: State, key: PRNGKey, step_size: Any) -> tuple[State, Info]:
        key_proposal, key_acceptance = jax.random.split(key)
        forward = _langevin(state, step_size)
        y = sample(key_proposal, forward, proposal, name="proposal")
        x, unravel, _ = _flat(state.position, step_size)
        proposed = _state(log_density, unravel(y))
        back = _langevin(proposed, step_size)
        log_ratio = proposed.log_density - state.log_density + back.log_prob(x) - forward.log_prob(y)
        return _accept(key_acceptance, state, proposed, log_ratio, acceptance)

    return Kernel(lambda position: _state(log_density, position), step)


def langevin(log_density: LogDensity, *, proposal: Estimator = _REFLECTION) -> Kernel:
    r"""The unadjusted Langevin algorithm, `x <- x + s^2 / 2 grad log p(x) + s z`: that of `mala` with every proposal accepted.

    Its stationary distribution is near the target for small `s`, and not the target itself. The path is all of the derivative.

    Args:
        log_density, proposal: see `random_walk`.

    Returns:
        A kernel.

    References:
        Roberts and Tweedie 1996, section 1.4, see `mala`.
    """

    def step(state: State, key: PRNGKey, step_size: Any) -> tuple[State, Info]:
        y = sample(key, _langevin(state, step_size), proposal, name="proposal")
        new = _state(log_density, ravel_pytree(state.position)[1](y))
        return new, Info(jnp.ones_like(new.log_density), jnp.ones((), bool), new)

    return Kernel(lambda position: _state(log_density, position), step)


def hmc(
    log_density: LogDensity,
    num_leapfrog: int,
    *,
    momentum: Estimator = _SHARED,
    acceptance: Estimator = _SMOOTHED,
) -> Kernel:
    r"""Hamiltonian Monte Carlo: `num_leapfrog` leapfrog steps of size `s` from a standard normal momentum, then acceptance.

    One leapfrog step is `mala`. Two paths share their momentum: where the log density is concave they come together by
    themselves, up to rounding. Elsewhere mix in steps of `random_walk`, by which they meet.

    Args:
        log_density, acceptance: see `random_walk`.
        num_leapfrog: leapfrog steps, at least 1.
        momentum: how the derivative in the momentum is estimated.

    Returns:
        A kernel.

    Raises:
        ValueError: for a number of leapfrog steps below 1.

    References:
        Neal 2011, section 5.3.2, "MCMC Using Hamiltonian Dynamics", https://arxiv.org/abs/1206.1901; Heng and Jacob 2019, section
        3 (couplings), "Unbiased Hamiltonian Monte Carlo with Couplings", https://arxiv.org/abs/1709.00404.
    """
    check_at_least(num_leapfrog, 1, "mcmc.hmc(num_leapfrog=...)")

    def step(state: State, key: PRNGKey, step_size: Any) -> tuple[State, Info]:
        key_momentum, key_acceptance = jax.random.split(key)
        x, _, scale = _flat(state.position, step_size)
        start = sample(key_momentum, MultivariateNormal(jnp.zeros_like(x), scale_diag=jnp.ones_like(x)), momentum)

        end, proposed = _leapfrog(log_density, num_leapfrog, scale, start, state)
        kinetic = jnp.sum(start**2) / 2 - jnp.sum(end**2) / 2
        return _accept(key_acceptance, state, proposed, proposed.log_density - state.log_density + kinetic, acceptance)

    return Kernel(lambda position: _state(log_density, position), step)


def accept(
    key: PRNGKey, log_ratio: Array, state: Any, proposed: Any, estimator: Estimator = _SMOOTHED
) -> tuple[Any, tuple[Array, Array, None]]:
    r"""The acceptance of a Metropolis-Hastings step, `proposed` with probability `min(1, exp(log_ratio))`, else `state`.

    For kernels of one's own and of blackjax, whose proposals take it as `sample_proposal`: see `tests/interop/test_blackjax.py`.

    States are pytrees of arrays; a ratio that is not a number accepts nothing; `estimator` is that of the derivative in the ratio.

    Returns:
        The next state, and whether `proposed` was accepted, with what probability, and `None`.
    """
    # a proposal without a density is not accepted
    rate = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)))
    accepted = sample(key, Bernoulli(probs=rate), estimator, name="acceptance") == 1
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), proposed, state), (accepted, rate, None)


def chain_elbo(
    log_density: LogDensity,
    *,
    num_steps: int,
    num_leapfrog: int = 1,
    reverse: Callable[[Any], Any] | None = None,
) -> Callable[[Any, Any, PRNGKey], Array]:
    r"""The evidence lower bound of a short chain of Hamiltonian steps, as a program `program(step_size, start, key)`.

        L = log p(x_T) - log q(x_0) + sum_(t = 1 .. T) log r(v'_t | x_t) - log N(v_t; 0, 1)

    where `x_0 ~ q`, and step `t` goes `num_leapfrog` leapfrog steps from a momentum `v_t` at `x_(t-1)` to `v'_t` at `x_t`, always
    accepted. These keep volumes, so `E[L]` is at most the log of the target's integral, whatever `q`, `r` and the step size are.
    One leapfrog step is a Langevin step. The path is all of the derivative, to every order. To be maximized.

    Args:
        log_density: the log density of the target, up to the constant that is bounded.
        num_steps: `T`, at least 1.
        num_leapfrog: see above, at least 1.
        reverse: `reverse(position)`, the distribution `r`, of a vector, an entry for each of the position; by default `N(0, 1)`.

    Returns:
        A program. `start` is a distribution of the first position, one array; `step_size` is a number, or an array like it.

    Raises:
        ValueError: for a number below 1; for an `r` of another shape.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> program = mcgrad.mcmc.chain_elbo(lambda x: -0.5 * (x - 1.0) ** 2, num_steps=3)
        >>> mcgrad.grad(program, argnums=1)(0.3, mcgrad.Normal(0.0, 1.0), jax.random.key(0)).loc.shape
        ()

    References:
        Salimans, Kingma and Welling 2015, eq. 5 (the bound) and section 4 (Hamiltonian steps, without acceptance too), "Markov
        Chain Monte Carlo and Variational Inference: Bridging the Gap", https://arxiv.org/abs/1410.6460.
    """
    num_steps = check_at_least(num_steps, 1, "mcmc.chain_elbo(num_steps=...)")
    check_at_least(num_leapfrog, 1, "mcmc.chain_elbo(num_leapfrog=...)")

    def program(step_size: Any, start: Any, key: PRNGKey) -> Array:
        key_start, key_steps = jax.random.split(key)
        first = sample(key_start, start, _SHARED, name="start")

        def step(state: State, key: PRNGKey) -> tuple[State, Array]:
            x, _, scale = _flat(state.position, step_size)
            normal = MultivariateNormal(jnp.zeros_like(x), scale_diag=jnp.ones_like(x))
            momentum = sample(key, normal, _SHARED, name="momentum")
            end, new = _leapfrog(log_density, num_leapfrog, scale, momentum, state)
            backward = normal if reverse is None else reverse(new.position)
            if (shape := (*backward.batch_shape, *backward.event_shape)) not in ((), x.shape):
                raise ValueError(
                    f"`mcgrad.mcmc.chain_elbo(reverse=...)` must return a distribution of shape {x.shape}, got {shape}. Flatten it."
                )
            return new, jnp.sum(backward.log_prob(end)) - normal.log_prob(momentum)

        last, terms = jax.lax.scan(step, _state(log_density, first), jax.random.split(key_steps, num_steps))
        return last.log_density - jnp.sum(start.log_prob(first)) + jnp.sum(terms)

    return program


# What to tune by: functions of a state, the next one and the info of the step between, which `chain_mean` averages.


def squared_jump(state: State, new: State, info: Info) -> Float[Array, ""]:
    """The squared distance to the proposal times the probability to accept it: in the mean the squared jump distance.

    The mean over the acceptance is taken, which has less variance than the distance between the two states. To be maximized.

    References:
        Pasarica and Gelman 2010, eq. 2, "Adaptively Scaling the Metropolis Algorithm Using Expected Squared Jumped Distance".
    """
    apart = ravel_pytree(info.proposal.position)[0] - ravel_pytree(state.position)[0]
    # no proposal without a density, infinitely far away, is accepted
    return jnp.where(info.acceptance_rate > 0, info.acceptance_rate * jnp.sum(apart**2), 0)


def lag_one(state: State, new: State, info: Info) -> Float[Array, ""]:
    """The product of neighbors `x_t x_(t+1)`, summed over entries: for a chain of mean zero its autocovariance. To be minimized."""
    return jnp.sum(ravel_pytree(state.position)[0] * ravel_pytree(new.position)[0])


def acceptance_rate(state: State, new: State, info: Info) -> Array:
    """The probability to accept: for a wanted rate `r`, `(mean - r)^2` has its gradient from that of the mean."""
    return info.acceptance_rate


class Objective(Protocol):
    """Of a step of a chain, a number."""

    def __call__(self, state: State, new: State, info: Info, /) -> Array: ...


def chain_mean(kernel: Kernel, objective: Objective, *, num_steps: int) -> Callable[[Any, Any, PRNGKey], Array]:
    """The mean of an objective over the steps of a chain, as a program `program(step_size, position, key)`.

    A mean of numbers of one step each, so that what an acceptance changes is counted step by step until both paths meet. In a
    function of the whole chain, as an autocorrelation with the chain's own mean, an alternative must be followed to the end.

    Args:
        kernel: a kernel of this module, or another pair `init`, `step` of this shape.
        objective: `squared_jump`, `lag_one`, `acceptance_rate`, or a function of yours of a state, the next one and the info.
        num_steps: the length of the chain, at least 1.

    Returns:
        A program.

    Raises:
        ValueError: for a length below 1.
    """
    check_at_least(num_steps, 1, "mcmc.chain_mean(num_steps=...)")

    def program(step_size: Any, position: Any, key: PRNGKey) -> Array:
        def step(state: Any, key: PRNGKey) -> tuple[Any, Array]:
            new, info = kernel.step(state, key, step_size)
            return new, objective(state, new, info)

        return jnp.mean(jax.lax.scan(step, kernel.init(position), jax.random.split(key, num_steps))[1], axis=0)

    return program


def _flat(position: Any, step_size: Any) -> tuple[Array, Callable[[Array], Any], Array]:
    """The position as a vector, the way back, and the step size of each entry."""
    x, unravel = ravel_pytree(position)
    if jax.tree.structure(step_size) != jax.tree.structure(position):
        step_size = jax.tree.map(lambda leaf: step_size, position)
    spread = jax.tree.map(lambda leaf, size: jnp.broadcast_to(size, jnp.shape(leaf)), position, step_size)
    return x, unravel, ravel_pytree(spread)[0].astype(x.dtype)


def _state(log_density: LogDensity, position: Any, *, gradient: bool = True) -> State:
    position = jax.tree.map(jnp.asarray, position)
    if not gradient:
        return State(position, log_density(position))
    return State(position, *jax.value_and_grad(log_density)(position))


def _leapfrog(log_density: LogDensity, num: int, scale: Array, momentum: Array, state: State) -> tuple[Array, State]:
    """The momentum and the state after leapfrog steps."""
    _, unravel = ravel_pytree(state.position)

    def leapfrog(_: Any, at: tuple[Array, State]) -> tuple[Array, State]:
        p, here = at
        p = p + scale / 2 * ravel_pytree(here.gradient)[0]
        there = _state(log_density, unravel(ravel_pytree(here.position)[0] + scale * p))
        return p + scale / 2 * ravel_pytree(there.gradient)[0], there

    return jax.lax.fori_loop(0, num, leapfrog, (momentum, state))


def _langevin(state: State, step_size: Any) -> MultivariateNormal:
    x, _, scale = _flat(state.position, step_size)
    return MultivariateNormal(x + scale**2 / 2 * ravel_pytree(state.gradient)[0], scale_diag=scale)


def _accept(key: PRNGKey, state: State, proposed: State, log_ratio: Array, estimator: Estimator) -> tuple[State, Info]:
    new, (accepted, rate, _) = accept(key, log_ratio, state, proposed, estimator)
    return new, Info(rate, accepted, proposed)
