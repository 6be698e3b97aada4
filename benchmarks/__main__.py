"""`python -m benchmarks` runs every benchmark."""

from benchmarks import overhead

overhead.main()
