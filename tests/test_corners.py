"""Every continuous law at the corners of float32: no NaN in draws, densities, probabilities and their derivatives."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import CORNERS

LONG = ("F", "MultivariateStudentT", "Mixture, gammas", "NoncentralChi2")  # made of others here


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CORNERS])
def test_nothing_is_nan_at_the_corners_of_float32(name: str) -> None:
    make, grid = CORNERS[name].make, CORNERS[name].grid
    params = tuple(np.array(list(itertools.product(*grid.values())), np.float32).T)
    concrete = make(*map(jnp.asarray, params))  # all of them inside the domain
    known = [method for method in ("log_prob", "cdf", "survival") if getattr(concrete, method, None) is not None]
    info = jnp.finfo(jnp.float32)
    ends = jnp.asarray([info.eps / 2, 0.5, 1 - info.epsneg], jnp.float32)

    def draw(params: Any, key: Any) -> Any:
        dist = make(*params)
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
            at_each = lambda params, x, method=method: jax.vmap(getattr(make(*params), method))(x)  # noqa: E731
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
