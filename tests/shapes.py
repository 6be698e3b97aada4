"""The checker that `conftest` puts around mcgrad's functions: arrays have the shapes of their annotations."""

import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_OF_ARRAYS = re.compile(r"\b(Float|Inexact|Int|Bool|Num|Shaped)\[")


def check(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves out all that is no shape, which the type checker sees."""
    fn.__annotations__ = {name: kind if _is_shape(kind) else Any for name, kind in fn.__annotations__.items()}
    return beartype(fn, conf=BeartypeConf(is_pep484_tower=True))  # an `int` is a `float` too, as for type checkers


def _is_shape(kind: Any) -> bool:
    return _OF_ARRAYS.search(kind if isinstance(kind, str) else repr(kind)) is not None


def where_told(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """`jaxtyped` that leaves functions without a shape among their annotations as they are, which then are as fast as ever.

    So it does classes and constructors, which refuse with words of their own.
    """

    def decorator(**options: Any) -> Callable[[Any], Any]:
        def decorated(fn: Any) -> Any:
            shaped = not isinstance(fn, type) and any(map(_is_shape, fn.__annotations__.values()))
            return jaxtyped(**options)(fn) if shaped and fn.__name__ != "__init__" else fn

        return decorated

    return decorator
