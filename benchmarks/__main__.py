"""`python -m benchmarks` runs every benchmark."""

from benchmarks import categorical_toy, loops, overhead, survey

overhead.main()
loops.main()
categorical_toy.main()
survey.main()
