"""Settings that every test runs under: what would hide a mistake raises."""

import gc
import os

import jax

# Nearly all of these tests' time is compiling programs that then run for milliseconds. XLA reads its flags when it first
# runs something; one that it does not know ends the process, and newer versions have only one way to emit fusions.
_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jax.__version_info__ < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # takes half the time
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Traced programs are kept in caches, by the million of objects: looking through them for garbage often takes long.
gc.freeze()
gc.set_threshold(100_000, 20, 50)
