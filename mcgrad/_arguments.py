"""Arguments of public functions: where the key stands, and checks of what users pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np


def is_key(x: Any) -> bool:
    """Whether this is an array of typed keys, or a placeholder of one."""
    return isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) and bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def check_key(key: Any, where: str, way_out: str = "Make keys with `jax.random.key(seed)`") -> None:
    """Refuse what is not one typed key."""
    if not is_key(key):
        dtype = getattr(key, "dtype", None)
        old = dtype == np.uint32 and getattr(key, "shape", ())[-1:] == (2,)
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be a typed key, got "
            + (f"an old-style uint32 key of shape {key.shape}. " if old else f"{describe(key)}. ")
            + way_out
            + (", or wrap this one with `jax.random.wrap_key_data(key)`." if old else ".")
        )
    if key.shape != ():
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be one key, got an array of keys of shape {key.shape}. "
            "Use `jax.vmap` over the keys, or give the distribution's parameters the batch shape that you want."
        )


def describe(x: Any) -> str:
    is_array = isinstance(x, (np.ndarray, jax.Array))
    return f"an array of {x.dtype} and shape {x.shape}" if is_array else f"{type(x).__name__}: {x!r}"


def check_at_least(
    value: Any, least: int, where: str, most: int | None = None, *, what: str | None = None, way_out: str = ""
) -> int:
    """The int, one of NumPy included; refuses anything else, and one that is too small or too large.

    `what` says in other words what it must be, `way_out` what to do besides passing another.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not least <= value <= (value if most is None else most):
        fits = f"{least} or more" if most is None else f"{least} to {most}"
        if what is None and most is None:
            what = "a positive int" if least == 1 else f"an int of at least {least}"
        raise ValueError(
            f"`mcgrad.{where}` must be {what or f'an int between {least} and {most}'}, got {value!r}. Pass {fits}{way_out}."
        )
    return int(value)


def check_field(instance: Any, name: str, least: int, most: int | None = None, **words: Any) -> None:
    """`check_at_least` of a field of a frozen dataclass, which becomes an int of Python: one of NumPy has a dtype."""
    where = f"{type(instance).__name__}({name}=...)"
    object.__setattr__(instance, name, check_at_least(getattr(instance, name), least, where, most, **words))


def check_callable(instance: Any, name: str, of_what: str, way_out: str) -> None:
    """Refuse a field of a dataclass that is no function."""
    if not callable(value := getattr(instance, name)):
        raise TypeError(
            f"`mcgrad.{type(instance).__name__}({name}=...)` must be a function of {of_what}, got {type(value).__name__}. "
            + way_out
        )


def check_chunks(num_samples: Any, chunk_size: Any, where: str) -> tuple[int, int | None]:
    """Numbers of samples, and of those at once, as ints; refuses those that cannot be."""
    num_samples = check_at_least(num_samples, 1, f"{where}(num_samples=...)")
    if chunk_size is not None:
        chunk_size = check_at_least(chunk_size, 1, f"{where}(chunk_size=...)")
        if num_samples % chunk_size:
            raise ValueError(
                f"`mcgrad.{where}(chunk_size=...)` must divide `num_samples`, got {chunk_size} for {num_samples}. Take "
                f"{-(-num_samples // chunk_size) * chunk_size} samples."
            )
    return num_samples, chunk_size


def check_flag(value: Any, where: str) -> None:
    """Refuse what is not a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"`mcgrad.{where}` must be True or False, got {value!r}. Pass one of these.")


def check_option(where: str, value: Any, options: Sequence[str | None], *others: str) -> None:
    """Refuse an option that does not exist; `others` say what else the argument may be."""
    if value not in options:
        written = [f'"{option}"' if isinstance(option, str) else "None" for option in options] + list(others)
        listed = " or ".join(", ".join(written).rsplit(", ", 1))
        raise ValueError(f"`mcgrad.{where}` must be {listed}, got {value!r}. Pass one of these.")


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of one shape can be broadcast to the other."""
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))


WithKey: TypeAlias = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
"""The positional and the keyword arguments of a call, with this key in place of its own."""


def find_key(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], where: str | None = None
) -> tuple[Any, WithKey]:
    """The argument named `key`, checked if `where` is given, and the arguments with another in its place.

    For a function that hides its names it is the only positional argument that is a typed key. `None` if there is none.
    """
    if "key" in kwargs:
        key, with_key = kwargs["key"], lambda key: (tuple(args), {**kwargs, "key": key})
    elif (at := _position_of_key(fn, args)) is not None:
        key, with_key = args[at], lambda key: ((*args[:at], key, *args[at + 1 :]), kwargs)
    else:
        return None, lambda key: (tuple(args), kwargs)
    if where is not None:
        check_key(key, where)
    return key, with_key


def _position_of_key(fn: Callable[..., Any], args: Sequence[Any]) -> int | None:
    parameters = parameters_of(fn)
    if "key" in parameters:
        position = list(parameters).index("key")
        if position < len(args):
            return position
        if parameters["key"].default is inspect.Parameter.empty:
            raise TypeError(f"`{name_of(fn)}(key=...)` must be a typed key, got none. Pass `jax.random.key(seed)` too.")
    typed = [i for i, a in enumerate(args) if isinstance(a, jax.Array) and is_key(a)]
    return typed[0] if len(typed) == 1 else None


def sample_key(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], where: str) -> tuple[Any, WithKey]:
    """`find_key` for the key that those of all samples are made of; an error where there is none."""
    key, with_key = find_key(fn, args, kwargs, where)
    if key is None:
        raise ValueError(
            f"`mcgrad.{where}` must find the argument named `key` of the program, to split it, and "
            f"`{name_of(fn)}` has none. Name its key argument `key`."
        )
    return key, with_key


def parameters_of(fn: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function by name; none for one that hides them."""
    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}


def name_of(fn: Callable[..., Any]) -> str:
    """What messages call a function."""
    return getattr(fn, "__name__", type(fn).__name__)
