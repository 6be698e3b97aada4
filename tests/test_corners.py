"""Every continuous law at the corners of float32: no NaN in draws, densities, probabilities and their derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcgrad import distributions as laws

EXTREME = (1e-37, 1e-18, 1.0, 1e18, 1e37)
LOCATION_SCALE = {"loc": (-1e37, -1e-37, 0.0, 1e18, 1e37), "scale": EXTREME}
SHAPES = (1e-37, 1e-30, 1e-18, 1e-4, 0.01, 0.3, 1.0, 20.0, 1e4, 1e8, 1e18, 1e30, 1e37)
FACTOR = np.array([[1.0, 0.0], [0.5, 2.0]], np.float32)

Grid = dict[str, Sequence[float]]


def scaled(size: Any) -> Any:
    return jnp.einsum("...,ij->...ij", size, FACTOR)


def both_signs(loc: Any) -> Any:
    return jnp.stack([loc, -loc], -1)


def mixture(law: Callable[..., Any], logit: Any, *params: Any) -> Any:
    """Of the law of these parameters and of another, where `logit` is the log odds of the first."""
    one = jnp.ones_like(params[0])
    components = law(*(jnp.stack([value, other * one], -1) for value, other in zip(params, (1.0, 2.0), strict=True)))
    return laws.Mixture(laws.Categorical(logits=jnp.stack([logit, 0 * logit], -1)), components)


LAWS: dict[str, tuple[Callable[..., Any], Grid]] = {
    **{name: (getattr(laws, name), LOCATION_SCALE) for name in ("Normal", "Laplace", "Logistic", "Cauchy", "Gumbel")},
    "HalfNormal": (laws.HalfNormal, {"scale": EXTREME}),
    "LogNormal": (laws.LogNormal, {"loc": (-1e37, -80.0, 0.0, 80.0, 1e37), "scale": EXTREME}),
    "Uniform": (laws.Uniform, {"low": (-1e38, -1.0, 0.0), "high": (1e-37, 1.0, 1e38)}),
    "Exponential": (laws.Exponential, {"rate": EXTREME}),
    "Weibull": (laws.Weibull, {"scale": EXTREME, "concentration": SHAPES}),
    "Pareto": (laws.Pareto, {"scale": EXTREME, "concentration": SHAPES}),
    "Kumaraswamy": (laws.Kumaraswamy, {"concentration1": SHAPES, "concentration0": SHAPES}),
    "Gamma": (laws.Gamma, {"concentration": SHAPES, "rate": EXTREME}),
    "ExpGamma": (laws.ExpGamma, {"concentration": SHAPES, "rate": EXTREME}),
    "InverseGamma": (laws.InverseGamma, {"concentration": SHAPES, "rate": EXTREME}),
    "Chi2": (laws.Chi2, {"df": SHAPES}),
    "NoncentralChi2": (
        laws.NoncentralChi2,
        {"df": (*(a for a in SHAPES if a < 1e28), 1e28), "noncentrality": (0.0, 1e-37, 1e-18, 0.3, 1e4, 4e9)},
    ),
    "Beta": (laws.Beta, {"concentration1": SHAPES, "concentration0": SHAPES}),
    "Dirichlet": (lambda *a: laws.Dirichlet(jnp.stack(a, -1)), dict.fromkeys(("first", "second", "third"), SHAPES)),
    "StudentT": (laws.StudentT, {"df": SHAPES, "loc": (-1e37, 0.0, 1e18), "scale": EXTREME}),
    "F": (laws.F, {"df1": SHAPES, "df2": SHAPES}),
    "VonMises": (laws.VonMises, {"loc": (-3.0, 0.0, 1e4, 1e37), "concentration": SHAPES}),
    "VonMisesFisher": (
        lambda k: laws.VonMisesFisher(jnp.broadcast_to(jnp.asarray([0.6, 0, 0.8], k.dtype), (*k.shape, 3)), k),
        {"concentration": SHAPES},
    ),
    "InverseGaussian": (laws.InverseGaussian, {"mean": EXTREME, "concentration": EXTREME}),
    "TruncatedNormal": (
        laws.TruncatedNormal,
        {
            "loc": (-1e37, -1e4, 0.0, 1e37),
            "scale": EXTREME,
            "low": (-np.inf, -1e37, 0.0),
            "high": (1e-37, 1e-4, 1.0, 1e37, np.inf),
        },
    ),
    "MultivariateNormal": (
        lambda loc, size: laws.MultivariateNormal(both_signs(loc), scale_tril=scaled(size)),
        {"loc": (-1e37, 0.0, 1e18), "size": EXTREME},
    ),
    "MultivariateStudentT": (
        lambda df, loc, size: laws.MultivariateStudentT(df, both_signs(loc), scaled(size)),
        {"df": SHAPES, "loc": (-1e37, 0.0, 1e18), "size": EXTREME},
    ),
    "Wishart": (
        lambda df, size: laws.Wishart(df, scaled(size)),
        {"df": (1.0000001, 1.01, 2.0, 20.0, 1e4, 1e8, 1e18), "size": EXTREME},
    ),
    "LKJCholesky": (lambda a: laws.LKJCholesky(3, a), {"concentration": SHAPES}),
    # larger draws are above a hundredth of the largest number
    "Mixture of normals": (
        lambda *params: mixture(laws.Normal, *params),
        {"logit": (-80.0, 0.0, 80.0), "loc": (-1e35, 0.0, 1e18), "scale": (*EXTREME[:-1], 1e35)},
    ),
    "Mixture of gammas": (
        lambda *params: mixture(laws.Gamma, *params),
        {"logit": (-80.0, 0.0, 80.0), "concentration": SHAPES[:-2], "rate": EXTREME[1:]},
    ),
    "Transformed": (
        lambda loc, scale: laws.Transformed(laws.Normal(loc, scale), laws.bijection(jax.nn.sigmoid)()),
        {"loc": (-1e37, -80.0, 0.0, 80.0, 1e37), "scale": EXTREME},
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_nothing_is_nan_at_the_corners_of_float32(name: str) -> None:
    law, grid = LAWS[name]
    params = tuple(np.array(list(itertools.product(*grid.values())), np.float32).T)
    concrete = law(*map(jnp.asarray, params))  # all of them inside the domain
    known = [method for method in ("log_prob", "cdf", "survival") if getattr(concrete, method, None) is not None]
    info = jnp.finfo(jnp.float32)
    ends = jnp.asarray([info.eps / 2, 0.5, 1 - info.epsneg], jnp.float32)

    def draw(params: Any, key: Any) -> Any:
        dist = law(*params)
        x = dist.sample(key)
        if getattr(dist, "icdf", None) is None:
            return x[None]
        return jnp.stack([x, *(dist.icdf(jnp.full_like(x, u)) for u in ends)])

    @jax.jit
    @jax.vmap
    def everything(key: Any) -> dict[str, Any]:
        x, pull = jax.vjp(lambda params: draw(params, key), params)
        found = {"x": x, "derivative": pull(jnp.ones_like(x))}
        # where the draw itself overflows, at half the largest number
        held = jnp.clip(x, info.min / 2, info.max / 2)
        for method in known:
            at_each = lambda params, x, method=method: jax.vmap(getattr(law(*params), method))(x)  # noqa: E731
            value, pull_value = jax.vjp(at_each, params, held)
            found[method] = {"value": value, "derivative": pull_value(jnp.ones_like(value))}
        return found

    found = everything(jax.random.split(jax.random.key(0), 20))
    wrong = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        bad = np.isnan(leaf)
        if bad.any():
            axis = leaf.shape.index(len(params[0]))  # no other axis has that many
            columns = np.unique(np.nonzero(bad)[axis])[:3]
            wrong[jax.tree_util.keystr(path)] = [
                dict(zip(grid, [float(v[i]) for v in params], strict=True)) for i in columns
            ]
    assert not wrong
