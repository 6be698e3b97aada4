"""`python -m benchmarks` runs every benchmark."""

from benchmarks import loops, overhead

overhead.main()
loops.main()
