"""Benchmarks: mcgrad next to hand-written JAX, measured in one run."""
