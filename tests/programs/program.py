"""One row of the table of programs, and exact expectations by enumeration and quadrature, in plain `jax.numpy`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CONTINUOUS = ("score", "pathwise", "partly pathwise", "measure-valued", "auto")
SMOOTH = (*CONTINUOUS, "moments")
FINITE = ("score", "enumerate", "neighbours", "measure-valued", "auto")
CATEGORICAL = (*FINITE, "relaxed")
DISCRETE = (*CATEGORICAL, "binary")
COUNTS = ("score", "neighbours", "measure-valued", "auto")
MIXED = ("score", "measure-valued", "auto")


def _plain_baseline(params: Any) -> jax.Array:
    """A baseline that the parameters reach: it must change no derivative, of any order."""
    return 0.5 + 0.1 * sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """An ordinary function that draws through `mcgrad.sample`, and what is known of it.

    Attributes:
        fn: `fn(params, *args, key)`, or `fn(params, *args, key=key, **kwargs)` where there are `kwargs`.
        params: a pytree of numpy arrays.
        exact: the expectation as a differentiable function of the parameters.
        kinds: which estimators can run it: "score", "pathwise" (every law is reparameterized), "enumerate" (every
            support is finite and small), "relaxed" (every law has a relaxation), "neighbours" (every law is one of integers
            with a cdf), "binary" (every law is one of 0 and 1), "measure-valued" (every law has a weak derivative and no loop
            is long), "floats" (every law is finite and drawn in floats, in which costs are smooth), "thresholds"
            (costs jump where a comparison of a draw changes), "normal" (every law is `Normal`, and no cost has a kink),
            "moments" (every law knows its mean and covariance, no cost has a kink), "auto".
        pathwise_order: derivatives that are right along the path: 1 where the cost has kinks.
        order: derivatives that are checked.
        offset: whether the costs have a large offset, so that only estimators that remove it have a usable variance.
        baseline: what the row "score, array as baseline" subtracts; `None` where an array cannot be subtracted.
        in_loop: whether it draws in a loop or a branch, where replicates of one draw would multiply.
        mode: "reverse", or "forward" where JAX itself has no reverse mode (`while_loop`).
    """

    name: str
    fn: Callable[..., Any]
    params: Any
    exact: Callable[[Any], jax.Array]
    kinds: tuple[str, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    has_aux: bool = False
    pathwise_order: int = 2
    order: int = 2
    offset: bool = False
    baseline: Callable[[Any], jax.Array] | None = _plain_baseline
    mode: str = "reverse"
    in_loop: bool = False

    def call(self, fn: Callable[..., Any], params: Any, key: jax.Array) -> Any:
        """`fn`, the program or a transform of it, on this program's arguments."""
        dtype = jax.tree.leaves(params)[0].dtype
        args = jax.tree.map(lambda x: jnp.asarray(x, dtype), self.args)
        if self.kwargs:
            return fn(params, *args, key=key, **jax.tree.map(lambda x: jnp.asarray(x, dtype), self.kwargs))
        return fn(params, *args, key)

    def typed_params(self, dtype: Any) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), self.params)


class Table(list):
    """Rows, added by decorating a program with `table.add(params=..., exact=..., kinds=...)`."""

    def __init__(self, **defaults: Any):
        super().__init__()
        self.defaults = defaults

    def add(self, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
            self.append(Program(name=fn.__name__, fn=fn, **{**self.defaults, **fields}))
            return fn

        return decorate


def constant(value: Any, like: jax.Array) -> jax.Array:
    """Data of a program, in the precision of its parameters."""
    return jnp.asarray(value, like.dtype)


def every_state(num_values: int, num_draws: int) -> np.ndarray:
    """All joint values of `num_draws` draws from `0, ..., num_values - 1`, of shape `[num_values**num_draws, num_draws]`."""
    return np.array(list(itertools.product(range(num_values), repeat=num_draws)))


def expect_bernoulli(logits: jax.Array, cost: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`E[cost(b)]` for independent `b_i ~ Bernoulli(logits_i)`, given as floats in the shape of `logits`."""
    states = jnp.asarray(every_state(2, logits.size).reshape(-1, *logits.shape), logits.dtype)
    probabilities = jax.vmap(lambda b: jnp.exp(jnp.sum(b * logits - jax.nn.softplus(logits))))(states)
    return jnp.tensordot(probabilities, jax.vmap(cost)(states), axes=1)


def expect_categorical(logits: jax.Array, cost: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`E[cost(x)]` for independent `x_i ~ Categorical(logits_i)`, logits of shape `[..., n]`, `x` integers `[...]`."""
    *shape, num_values = logits.shape
    flat = jax.nn.log_softmax(logits).reshape(-1, num_values)
    states = jnp.asarray(every_state(num_values, len(flat)), jnp.int32)
    probabilities = jax.vmap(lambda x: jnp.exp(jnp.sum(flat[jnp.arange(len(flat)), x])))(states)
    return jnp.tensordot(probabilities, jax.vmap(lambda x: cost(x.reshape(shape)))(states), axes=1)


@functools.cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return nodes, weights / weights.sum()


def expect_normal(loc: jax.Array, scale: Any, cost: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`E[cost(x)]` for a scalar `x ~ Normal(loc, scale)` and a smooth cost, by Gauss-Hermite quadrature."""
    nodes, weights = _hermite()
    return jnp.tensordot(jnp.asarray(weights), jax.vmap(cost)(loc + scale * nodes), axes=1)
