"""The programs that mcgrad is checked on, each with the exact value of its expectation."""

from programs.loops import LOOP_PROGRAMS
from programs.models import MODELS
from programs.program import Program
from programs.straight_line import STRAIGHT_LINE

PROGRAMS = {program.name: program for program in (*STRAIGHT_LINE, *MODELS)}

__all__ = ["LOOP_PROGRAMS", "PROGRAMS", "Program"]
