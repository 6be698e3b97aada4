"""Exact enumeration of a finite support."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.estimators.finite_support import FiniteSupportEstimator, possible
from mcgrad.program import Draw, Relation, Site, WeightedPoints


@dataclasses.dataclass(frozen=True)
class Enumerate(FiniteSupportEstimator):
    r"""Enumeration (marginalization): the exact expectation over a distribution of finite support.

        E[f(x)] = sum_i p_theta(x_i) f(x_i)

    Exact, so without variance from this draw, for derivatives of every order. The rest of the program is evaluated at
    every value, later draws with common random numbers. Entries along batch axes that no cost mixes are enumerated at
    once, `n` evaluations in all; axes that some cost mixes are enumerated jointly, `n ** size` evaluations.

    Raises:
        ValueError: for a distribution without finite support, and where a cost would need more than
            16,384 joint states, with their number.

    Example:
        >>> import jax, mcgrad
        >>> def loss(logits, key):
        ...     return 3.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), mcgrad.Enumerate())
        >>> float(mcgrad.grad(loss)(0.0, jax.random.key(0)))
        0.75

    References:
        Schulman et al. 2015, section 3 (marginalization of a node), "Gradient Estimation Using Stochastic Computation Graphs",
        https://arxiv.org/abs/1506.05254.
    """

    sees_the_impossible = True

    def evaluations(self, site: Site, relation: Relation) -> int:
        together = math.prod(window.most_draws(n) for window, n in zip(relation, site.plates, strict=True))
        assert site.facts.support is not None  # see `why_not`
        return len(site.facts.support) ** together

    def represent(self, draw: Draw) -> WeightedPoints:
        support = draw.facts.support  # [n, *event], NumPy's, as all points are: constants of the compiled program
        assert support is not None  # see `why_not`
        shape = [size if k in draw.mixed_axes else 1 for k, size in enumerate(draw.plates)]
        joint = np.array(list(itertools.product(support, repeat=math.prod(shape))), support.dtype)
        points = jnp.asarray(joint.reshape(len(joint), *shape, *support.shape[1:]))
        points = jnp.broadcast_to(points, (len(joint), *draw.plates, *support.shape[1:]))
        p = jax.vmap(draw.prob)(points)
        if draw.excludes:  # otherwise the points stay constants of the compiled program
            likeliest = jnp.expand_dims(jnp.argmax(p, axis=0, keepdims=True), tuple(range(p.ndim, points.ndim)))
            points = possible(draw, points, p, jnp.take_along_axis(points, likeliest, axis=0))
        return WeightedPoints(points, p)
