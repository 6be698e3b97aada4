"""Stochastic programs: seeing them, crediting their costs, running their estimators."""
