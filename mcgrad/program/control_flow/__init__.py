"""Loops, branches and checkpoints, one file each: all that mcgrad knows of a control-flow primitive is in its file.

Where all draws of a body are local, the loop, branch or checkpoint is rebuilt with the log weights of its draws as
further outputs: stacked by `scan`, summed by `while_loop`, zero for the branches of `cond` that were not taken. Where an
estimator needs the rest of the program, the body becomes part of it: a checkpoint is entered, a branch goes on
with the rest inside `switch`, a `scan` is unrolled or carries an alternative path.
"""

from mcgrad.program.control_flow import call as call
from mcgrad.program.control_flow import checkpoint as checkpoint
from mcgrad.program.control_flow import cond as cond
from mcgrad.program.control_flow import scan as scan
from mcgrad.program.control_flow import shard_map as shard_map
from mcgrad.program.control_flow import while_loop as while_loop
