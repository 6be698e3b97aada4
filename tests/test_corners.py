"""Every continuous law at the corners of float32: no NaN in draws, densities and their derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcgrad import distributions as laws

EXTREME = (1e-37, 1e-18, 1.0, 1e18, 1e37)
LOCATION_SCALE = {"loc": (-1e37, -1e-37, 0.0, 1e18), "scale": EXTREME}
SHAPES = (1e-30, 1e-4, 0.01, 0.3, 1.0, 20.0, 1e4, 1e8)
GRIDS: dict[str, dict[str, Sequence[float]]] = {
    **dict.fromkeys(("Normal", "Laplace", "Logistic", "Cauchy", "Gumbel"), LOCATION_SCALE),
    "HalfNormal": {"scale": EXTREME},
    "LogNormal": {"loc": (-1e37, -80.0, 0.0, 80.0, 1e37), "scale": EXTREME},
    "Uniform": {"low": (-1e38, -1.0, 0.0), "high": (1e-37, 1.0, 1e38)},
    "Exponential": {"rate": EXTREME},
    "Weibull": {"scale": EXTREME[1:], "concentration": SHAPES},
    "Pareto": {"scale": EXTREME, "concentration": SHAPES},
    "Kumaraswamy": {"concentration1": SHAPES, "concentration0": SHAPES},
    "Gamma": {"concentration": SHAPES, "rate": EXTREME},
    "ExpGamma": {"concentration": SHAPES, "rate": EXTREME},
    "InverseGamma": {"concentration": SHAPES, "rate": EXTREME},
    "Chi2": {"df": SHAPES},
    "Beta": {"concentration1": SHAPES, "concentration0": SHAPES},
    "StudentT": {"df": SHAPES, "loc": (-1e37, 0.0, 1e18), "scale": EXTREME},
    "F": {"df1": SHAPES, "df2": SHAPES},
    "VonMises": {"loc": (-3.0, 0.0, 1e4, 1e37), "concentration": SHAPES},
    "InverseGaussian": {"mean": EXTREME, "concentration": EXTREME},
    "TruncatedNormal": {
        "loc": (-1e37, -1e4, 0.0, 1e37),
        "scale": EXTREME[:-1],
        "low": (-np.inf, -1e37, 0.0),
        "high": (1e-4, 1.0, 1e37, np.inf),
    },
}


def corners(name: str) -> dict[str, np.ndarray]:
    """All combinations of the values of a grid, one a column."""
    columns = np.array(list(itertools.product(*GRIDS[name].values())), np.float32).T
    return dict(zip(GRIDS[name], columns, strict=True))


# What is made of gamma draws takes long to compile; two of them stand for the others by default.
SLOW = ("ExpGamma", "InverseGamma", "Chi2", "Beta", "F", "VonMises", "InverseGaussian", "TruncatedNormal")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GRIDS])
def test_nothing_is_nan_at_the_corners_of_float32(name: str) -> None:
    law, params = getattr(laws, name), corners(name)
    quantiles = getattr(law, "icdf", None) is not None
    # those of Beta and F may be NaN where a ratio of shapes overflows
    known = [method for method in ("cdf", "survival") if getattr(law, method, None) is not None]
    methods = ["log_prob", *([] if name in ("Beta", "F") else known)]
    info = jnp.finfo(jnp.float32)
    ends = jnp.asarray([info.eps / 2, 0.5, 1 - info.epsneg], jnp.float32)

    def draw(params: Any, key: Any) -> Any:
        dist = law(**params)
        x = dist.sample(key)
        return jnp.stack([x, *(dist.icdf(jnp.full_like(x, u)) for u in ends)]) if quantiles else x

    @jax.jit
    @jax.vmap
    def everything(key: Any) -> dict[str, Any]:
        x, pull = jax.vjp(lambda params: draw(params, key), params)
        # where the draw itself overflows, at half the largest number
        held = jnp.clip(x, info.min / 2, info.max / 2)
        found = {"x": x, "derivative": pull(jnp.ones_like(x))}
        for method in methods:
            value, pull_value = jax.vjp(lambda params, x: getattr(law(**params), method)(x), params, held)  # noqa: B023
            found[method] = {"value": value, "derivative": pull_value(jnp.ones_like(value))}
        return found

    found = everything(jax.random.split(jax.random.key(0), 30))
    wrong = {
        jax.tree_util.keystr(path): [
            {key: float(column[index[-1]]) for key, column in params.items()}
            for index in np.argwhere(np.isnan(leaf))[:3]
        ]
        for path, leaf in jax.tree_util.tree_leaves_with_path(found)
        if np.isnan(leaf).any()
    }
    assert not wrong
