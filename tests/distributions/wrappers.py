"""Distributions made of others: what they know is what those know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from distributions.row import EXTREME, SHAPES, Corners, Extremes, Ordinary, Row, Twice, WeakOfVector

_W = jnp.array([0.7, -0.5, 0.9])


def _mixture(dist: Callable[..., Any], logit: Any, *params: Any) -> Any:
    """Of the distribution of these parameters and of another, where `logit` is the log odds of the first."""
    one = jnp.ones_like(params[0])
    components = dist(*(jnp.stack([value, other * one], -1) for value, other in zip(params, (1.0, 2.0), strict=True)))
    return mcgrad.Mixture(mcgrad.Categorical(logits=jnp.stack([logit, 0 * logit], -1)), components)


def _mixture_of_normals(balance: Any, loc: Any, scale: Any) -> Any:
    mixing = mcgrad.Categorical(logits=jnp.stack([balance, jnp.zeros_like(balance)]))
    normals = mcgrad.Normal(jnp.stack([loc, jnp.full_like(loc, 1.5)]), jnp.stack([scale, jnp.full_like(scale, 0.3)]))
    return mcgrad.Mixture(mixing, normals)


ROWS = {
    "Independent": Row(
        mcgrad.Independent,
        {
            "": Ordinary(
                {"loc": np.zeros((2, 3))},
                "test_independent.py",
                lambda loc: mcgrad.Independent(mcgrad.Normal(loc, 1.0), 1),
            ),
            "Bernoulli": Ordinary(
                {"logits": np.ones((2, 3))},
                "test_independent.py",
                lambda logits: mcgrad.Independent(mcgrad.Bernoulli(logits=logits), 1),
                knows="support prob weak_derivative relaxation",
                discrete=True,
            ),
        },
        knows="weak_derivative moments",
        event_ndim=1,
        corners="a draw and a density are those of its base, which is checked",
        weak={
            "": WeakOfVector(
                (jnp.array([0.2, -0.1, 0.4]), jnp.array([0.8, 0.5, 1.1])),
                lambda x: jnp.cos(x @ _W + 0.4),
                lambda p: jnp.cos(p[0] @ _W + 0.4) * jnp.exp(-0.5 * jnp.sum((_W * p[1]) ** 2)),
                lambda p: mcgrad.Independent(mcgrad.Normal(*p), 1),
            )
        },
        extremes="a weak derivative is that of its base, which is checked",
        twice="a draw is that of its base, which is checked",
    ),
    "Mixture": Row(
        mcgrad.Mixture,
        {
            "": Ordinary(
                {"probs": np.ones(2) / 2, "loc": np.zeros((3, 2))},
                "test_mixture.py",
                lambda probs, loc: mcgrad.Mixture(mcgrad.Categorical(probs=probs), mcgrad.Normal(loc, 1.0)),
            )
        },
        knows="cdf survival weak_derivative",
        corners={
            # larger draws are above a hundredth of the largest number
            "normals": Corners(
                {"logit": (-80.0, 0.0, 80.0), "loc": (-1e35, 0.0, 1e18), "scale": (*EXTREME[:-1], 1e35)},
                lambda *params: _mixture(mcgrad.Normal, *params),
            ),
            "gammas": Corners(
                {"logit": (-80.0, 0.0, 80.0), "concentration": SHAPES[:-2], "rate": EXTREME[1:]},
                lambda *params: _mixture(mcgrad.Gamma, *params),
            ),
        },
        weak="checked in test_weak_derivatives.py in weights and components",
        extremes={"": Extremes([(-4.0, -1.0, 0.5), (0.0, 1.0, 0.05), (4.0, -1.0, 3.0)], make=_mixture_of_normals)},
        twice={
            "": Twice(lambda p: mcgrad.Mixture(mcgrad.Categorical(logits=p), mcgrad.Normal(jnp.asarray([0.0, 1.0]), p)))
        },
    ),
    "Transformed": Row(
        mcgrad.Transformed,
        {
            "": Ordinary(
                {"loc": np.zeros((2, 3))},
                "test_transformed.py",
                lambda loc: mcgrad.Transformed(mcgrad.Normal(loc, 1.0), mcgrad.bijection(jnp.exp, jnp.log)()),
            )
        },
        knows="cdf survival icdf weak_derivative",
        corners={
            "": Corners(
                {"loc": (-1e37, -80.0, 0.0, 80.0, 1e37), "scale": EXTREME},
                lambda loc, scale: mcgrad.Transformed(mcgrad.Normal(loc, scale), mcgrad.bijection(jax.nn.sigmoid)()),
            )
        },
        weak="checked in test_transformed.py against the path and the score",
        extremes="a weak derivative is that of its base, which is checked",
        twice="a draw is a smooth function of one of its base, which is checked",
    ),
}
