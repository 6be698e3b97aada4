"""Libraries are run under JAX's own settings: they promote ranks, and reuse keys in ways that JAX's checker refuses."""

import jax
import pytest


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        yield


def pytest_collection_modifyitems(items):
    for item in items:
        if "interop" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning"))
