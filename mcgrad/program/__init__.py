"""Stochastic programs: seeing them, crediting their costs, running their estimators."""

from mcgrad.program import control_flow as control_flow
from mcgrad.program.primitives import register as register
