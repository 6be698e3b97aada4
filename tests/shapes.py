"""The checker that `conftest` puts around mcgrad's functions: arrays have the shapes of their annotations."""

import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_OF_ARRAYS = re.compile(r"\b(Float|Inexact|Int|Bool|Num|Shaped)\[")


def check(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves out constructors, which refuse with words of their own, and all that is no shape, which the type checker sees."""
    shaped = not fn.__qualname__.endswith("__init__")
    fn.__annotations__ = {
        name: kind if shaped and _OF_ARRAYS.search(kind if isinstance(kind, str) else repr(kind)) else Any
        for name, kind in fn.__annotations__.items()
    }
    return beartype(fn, conf=BeartypeConf(is_pep484_tower=True))  # an `int` is a `float` too, as for type checkers
