"""Random stochastic programs, checked against exact expectations that mcgrad has no part in.

`python -m tests.fuzz --seed S --seconds N` makes programs (`generate`), checks them (`check`, `windows`) against an evaluator
that sums over all values of all draws (`oracle`), and prints what is wrong as a runnable program, made small (`shrink`).
"""
