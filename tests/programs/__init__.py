"""The programs that mcgrad is checked on, each with the exact value of its expectation."""

from programs.around_draws import AROUND_DRAWS
from programs.loops import LOOP_PROGRAMS
from programs.models import MODELS
from programs.one_draw import ONE_DRAW
from programs.program import Program
from programs.several_draws import SEVERAL_DRAWS

PROGRAMS = {program.name: program for program in (*ONE_DRAW, *SEVERAL_DRAWS, *AROUND_DRAWS, *MODELS)}

__all__ = ["LOOP_PROGRAMS", "PROGRAMS", "Program"]
