"""Perturb and maximize: a solver that jumps, smoothed by noise in what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike

from mcgrad._types import PRNGKey
from mcgrad.distributions import Normal
from mcgrad.estimators import Score
from mcgrad.program import Estimator
from mcgrad.sample import sample


def perturbed(
    argmax_fn: Callable[[Any], Any], noise: Callable[[Any, Any], Any] = Normal, *, estimator: Estimator | None = None
) -> Callable[[Any, ArrayLike, PRNGKey], Any]:
    r"""A function of noisy inputs, as a program: perturbed maximizers, `y(theta) = E[argmax_fn(theta + scale Z)]`.

    A maximizer, a ranking, a shortest path or any other solver is constant but where it jumps, so its derivative is zero. That of
    the expectation is not, and is found from values of the solver alone, by the score of the noise:

        d y = E[ argmax_fn(x) d log p(x; theta, scale) ],    x = theta + scale Z

    Unbiased, in the inputs and in the scale, for derivatives of every order; any solver, which sees arrays like the inputs and is
    called once a sample. With `num_samples=` of the transform the mean of the other samples is subtracted. **A cost that is not
    linear in `y`**, `cost(mcgrad.expectation(program, num_samples=K)(...))`, is biased by the order of `1 / K`.

    Args:
        argmax_fn: a function of one array, or pytree of arrays, that returns arrays of floats.
        noise: the distribution of an input, of its location and scale: `mcgrad.Normal`, `mcgrad.Gumbel` (with a one-hot
            maximizer the expectation is `softmax(theta / scale)`), `mcgrad.Logistic`, ..., or `lambda loc, scale: ...`.
        estimator: of the noisy inputs; by default `mcgrad.Score()`.

    Returns:
        A program `program(inputs, scale, key)` for `mcgrad.expectation`, `mcgrad.grad` and others, or to be called in a larger one.
        `scale`, above zero, broadcasts to each array of the inputs.

    Raises:
        TypeError: for an `argmax_fn` or a `noise` that is no function, and for an `estimator` that is none.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> def largest(x):
        ...     return jax.nn.one_hot(jnp.argmax(x), 3)
        >>> y = mcgrad.expectation(mcgrad.perturbed(largest, mcgrad.Gumbel), num_samples=1000)
        >>> theta, keys = jnp.array([0.0, 1.0, 2.0]), jax.random.split(jax.random.key(0))
        >>> bool(jnp.allclose(y(theta, 1.0, keys[0]), jax.nn.softmax(theta), atol=0.05))
        True
        >>> by_theta, by_scale = jax.jacobian(y, argnums=(0, 1))(theta, 1.0, keys[1])
        >>> by_theta.shape, by_scale.shape
        ((3, 3), (3,))

    References:
        Berthet et al. 2020, proposition 3.1, "Learning with Differentiable Perturbed Optimizers",
        https://arxiv.org/abs/2002.08676; Abernethy et al. 2016, lemma 1.5, "Perturbation Techniques in Online Learning and
        Optimization" (smoothing by noise). The derivative in the scale is that of the same score.
    """
    for name, value in (("argmax_fn", argmax_fn), ("noise", noise)):
        if not callable(value):
            raise TypeError(
                f"`mcgrad.perturbed({name}=...)` must be a function, got {type(value).__name__}. Pass for instance "
                + ("`lambda x: jax.nn.one_hot(jnp.argmax(x), n)`." if name == "argmax_fn" else "`mcgrad.Gumbel`.")
            )
    chosen = Score() if estimator is None else estimator
    if not isinstance(chosen, Estimator):
        raise TypeError(
            f"`mcgrad.perturbed(estimator=...)` must be an estimator such as `mcgrad.Score()`, got {chosen!r}. Pass an instance."
        )

    def program(inputs: Any, scale: ArrayLike, key: PRNGKey) -> Any:
        leaves, tree = jax.tree.flatten(inputs)
        keys = jax.random.split(key, max(len(leaves), 1))

        def noisy(leaf: ArrayLike, key: PRNGKey) -> Any:
            loc = jnp.asarray(leaf)
            return sample(key, noise(loc, jnp.broadcast_to(scale, loc.shape)), chosen)

        return argmax_fn(jax.tree.unflatten(tree, list(map(noisy, leaves, keys))))

    return program
