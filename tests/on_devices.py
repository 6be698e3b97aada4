"""What the tests on devices share: the eight that XLA makes of the processor, see `conftest.py`."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

CPUS = jax.devices("cpu")
MARKS = [
    pytest.mark.skipif(len(CPUS) < 8, reason="XLA_FLAGS must have --xla_force_host_platform_device_count=8"),
    pytest.mark.usefixtures("runs_share_keys"),
]


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((8,), ("data",), (kind,), devices=CPUS[:8])


def close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(compiled):
    """How many of each a compiled program has."""
    text = compiled.as_text()
    return [text.count(f" {name}(") + text.count(f" {name}-start(") for name in COLLECTIVES]
