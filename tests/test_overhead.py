"""mcgrad's compiled step does the work of the surrogate written by hand, and no more."""

import jax

from benchmarks.peers.mcgrad import autoencoder, autoencoder_by_hand


def test_an_autoencoder_step_has_the_operations_of_the_one_written_by_hand():
    # Clearing compilation caches is part of the benchmark; the key-reuse checker would add operations to both sides.
    # Other devices' compilers repeat cheap operations in several kernels, and count them so.
    cpu = jax.default_device(jax.devices("cpu")[0])
    with cpu, jax.enable_x64(False), jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        ours, hand = autoencoder("score").facts["flops"], autoencoder_by_hand("score").facts["flops"]
    assert 0.98 < ours / hand < 1.02
