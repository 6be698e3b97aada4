"""The page `notebooks/many_devices.md` runs as its reader runs it."""

from __future__ import annotations

import jax
import pytest
from pages import Page

PAGE = Page("many_devices")


@pytest.mark.skipif(len(jax.devices("cpu")) < 8, reason="XLA_FLAGS must have --xla_force_host_platform_device_count=8")
def test_the_page_runs_and_checks_what_it_says():
    PAGE.run()  # which asserts that gradients are those of one device


def test_the_page_needs_nothing_but_jax_and_mcgrad():
    assert PAGE.modules == {"os", "jax", "jax.numpy", "jax.sharding", "mcgrad"}
