"""`python -m benchmarks` runs every benchmark."""

from benchmarks import categorical_toy, loops, overhead

overhead.main()
loops.main()
categorical_toy.main()
