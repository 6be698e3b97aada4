"""`python -m benchmarks.published NAME ...` measures and prints these tables, and writes nothing; without a name, all."""

import sys

from rich.console import Console

from benchmarks.published import TABLES, table
from benchmarks.runner import Session

for name in sys.argv[1:] or TABLES:
    console = Console()
    console.print(TABLES[name].SET_UP)
    console.print(table(name, TABLES[name].measure(Session())))
