"""Settings that every test runs under: what would hide a mistake raises."""

import gc
import os

# Nearly all of these tests' time is compiling programs that then run for milliseconds.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Traced programs are kept in caches, by the million of objects: looking through them for garbage often takes long.
gc.freeze()
gc.set_threshold(100_000, 20, 50)
