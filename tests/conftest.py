"""Settings that every test runs under: what would hide a mistake raises."""

import gc
import importlib.util
import os

import jax
import jaxtyping
import pytest
from jax.extend import source_info_util
from quick import QUICK

# Nearly all of these tests' time is compiling programs that then run for milliseconds. XLA reads its flags when it first
# runs something; one that it does not know ends the process, and newer versions have only one way to emit fusions.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
_FLAGS.append(
    "--xla_force_host_platform_device_count=8"
)  # for tests on devices; other tests run on the first as they would
if jax.__version_info__ < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # takes half the time
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Arrays are checked against the shapes of annotations, where `beartype` is there to do it and jaxtyping leaves the annotations of
# dataclasses as text; not those of distributions, whose parameters broadcast while their annotations say that they are equal, nor
# of the gradients of black boxes, which check the shapes of what users pass.
CHECKED = ("_compat", "demo", "diagnostics", "estimators", "objectives", "program", "sample", "transforms")
if importlib.util.find_spec("beartype") and jaxtyping.__version__ >= "0.3":
    import shapes

    jaxtyping.jaxtyped = shapes.where_told(jaxtyping.jaxtyped)
    jaxtyping.install_import_hook([f"mcgrad.{name}" for name in CHECKED], "shapes.check")
    for frames in (
        os.path.dirname(jaxtyping.__file__),
        "<@beartype",
    ):  # a message names the user's line, not the checker's
        source_info_util.register_exclusion(frames)

# JAX caches millions of objects of traced programs; scanning them in each garbage collection is slow.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the quick tests, and refuses a list that names others than there are."""
    found = set()
    for item in items:
        test = item.nodeid.removeprefix("tests/")
        names = {test, test.split("[")[0], test.split("::")[0]} & set(QUICK)
        found |= names
        if names and not item.get_closest_marker("slow"):
            item.add_marker("quick")
    if not config.option.file_or_dir and found != set(QUICK):
        raise pytest.UsageError(f"tests/quick.py names tests that are not there: {sorted(set(QUICK) - found)}")


@pytest.fixture
def runs_share_keys():
    """For tests that compare runs on one key on purpose."""
    with jax.debug_key_reuse(False):
        yield
