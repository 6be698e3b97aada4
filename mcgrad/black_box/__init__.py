"""Gradients of black boxes, by differences of function values along directions."""

from mcgrad.black_box.evolution import evolution_grad as evolution_grad
from mcgrad.black_box.finite_difference import finite_difference_grad as finite_difference_grad
from mcgrad.black_box.persistent import OnlineGradient as OnlineGradient
from mcgrad.black_box.persistent import persistent_evolution as persistent_evolution
from mcgrad.black_box.spsa import spsa_grad as spsa_grad
