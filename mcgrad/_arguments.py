"""Arguments of public functions: where the key stands, and checks of what users pass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad._modules import is_sequence, is_variables


def is_key(x: Any) -> bool:
    """Whether this is an array of typed keys, or a placeholder of one."""
    return isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) and bool(jnp.issubdtype(x.dtype, jax.dtypes.prng_key))


def is_old_key(x: Any) -> bool:
    """Whether this has the shape and type of one old-style key, as `jax.random.PRNGKey` makes it."""
    if not isinstance(x, (jax.Array, np.ndarray)) or x.ndim != 1 or x.dtype != np.uint32:
        return False
    return x.shape == jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def check_key(key: Any, where: str, way_out: str = "Make keys with `jax.random.key(seed)`") -> Array:
    """The typed key of a key of either style; refuses what is not one key."""
    if is_old_key(key):
        return jax.random.wrap_key_data(key)
    if not is_key(key):
        data = getattr(key, "dtype", None) == np.uint32
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be a key, got {describe(key)}. {way_out}"
            + (
                ", or wrap data of another implementation with `jax.random.wrap_key_data(data, impl=...)`." * data
                or "."
            )
        )
    if key.shape != ():
        raise TypeError(
            f"`mcgrad.{where}(key=...)` must be one key, got an array of keys of shape {key.shape}. "
            "Use `jax.vmap` over the keys, or give the distribution's parameters the batch shape that you want."
        )
    return key


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


KEY_NAMES = ("key", "rng", "rng_key", "rngs")
"""What the randomness of a program is called, where nothing else is said."""

WithKey: TypeAlias = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
"""The positional and the keyword arguments of a call, with this key, or these keys, in place of its own."""


def keyed_by(fn: Callable[..., Any], key_argname: str | None) -> Callable[..., Any]:
    """The program with the name of the argument that is its randomness, where that is given."""
    if key_argname is None:
        return fn

    @functools.wraps(fn)
    def program(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    setattr(program, _KEY_ARGNAME, key_argname)  # what is made of the program by `functools.wraps` has it too
    return program


_KEY_ARGNAME = "__mcgrad_key_argname__"


def find_key(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], where: str, key_argname: str | None = None
) -> tuple[Any, WithKey]:
    """The randomness of a call, one key or a list of keys, and the arguments with other keys in its place.

    It is the argument of one of `KEY_NAMES`, or `key_argname`: a key of either style, a sequence of keys of Haiku, or a pytree
    with keys, such as streams by name; random streams in modules of Flax NNX join it. Otherwise the only typed key among the
    arguments, or the keys of the only argument that holds some; of a function that hides its names also the only old-style
    key. `None` if there is none.
    """
    key_argname = key_argname or getattr(fn, _KEY_ARGNAME, None)
    given = _named(fn, args, kwargs)
    at = _place_of_key(fn, given, where, key_argname)
    if at is None:
        return None, lambda key: (tuple(args), kwargs)

    def put(values: dict[int | str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(values.get(i, value) for i, value in enumerate(args)), {
            n: values.get(n, v) for n, v in kwargs.items()
        }

    value = given[at][1]
    if is_sequence(value):
        return next(value), lambda key: put({at: type(value)(key)})
    places = [at, *(place for place, (_, other) in given.items() if place != at and _has_streams(other))]
    trees = {place: jax.tree.flatten(given[place][1]) for place in places}
    keys = [
        (place, i)
        for place, (leaves, _) in trees.items()
        for i, leaf in enumerate(leaves)
        if is_key(leaf) or (place == at and is_old_key(leaf))
    ]
    if jax.tree_util.all_leaves([value]) or all(place != at for place, _ in keys):
        check_key(value, where)
        if len(places) == 1:
            return value, lambda key: put({at: key})

    def with_keys(found: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        other = dict(zip(keys, found, strict=True))
        new = {
            place: jax.tree.unflatten(tree, [other.get((place, i), leaf) for i, leaf in enumerate(leaves)])
            for place, (leaves, tree) in trees.items()
        }
        return put(new)

    return [trees[place][0][i] for place, i in keys], with_keys


def _named(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[int | str, tuple[str, Any]]:
    """For each argument of a call, by its position or keyword: its name, empty if that is hidden, and its value."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in parameters_of(fn).items() if parameter.kind in by_position]
    names += [""] * (len(args) - len(names))
    given: dict[int | str, tuple[str, Any]] = {i: (names[i], value) for i, value in enumerate(args)}
    return given | {name: (name, value) for name, value in kwargs.items()}


def _place_of_key(
    fn: Callable[..., Any], given: dict[int | str, tuple[str, Any]], where: str, key_argname: str | None
) -> int | str | None:
    """The position or the keyword of the argument that is the randomness."""
    names = KEY_NAMES if key_argname is None else (key_argname,)
    for name in names:
        for at, (own, value) in given.items():
            if own == name and (name in ("key", key_argname) or holds_keys(value)):
                return at
    parameters = parameters_of(fn)
    for name in names:
        missing = name in parameters and all(own != name for own, _ in given.values())
        if missing and parameters[name].default is inspect.Parameter.empty:
            raise TypeError(f"`{name_of(fn)}({name}=...)` must be a key, got none. Pass `jax.random.key(seed)` too.")
    if key_argname is not None:
        raise ValueError(
            f"`mcgrad.{where}(key_argname=...)` must name an argument of the call, got {key_argname!r}. Name the argument that "
            "is the key."
        )
    typed = [at for at, (_, value) in given.items() if is_key(value)]
    hidden = [at for at, (own, value) in given.items() if not own and is_old_key(value)]
    within = [at for at, (_, value) in given.items() if any(map(is_key, jax.tree.leaves(value)))]
    return next((found[0] for found in (typed, hidden, within) if len(found) == 1), None)


def _has_streams(value: Any) -> bool:
    """Whether an argument holds variables of a module, random streams among them."""
    held = [node for node in jax.tree.leaves(value, is_leaf=is_variables) if is_variables(node)]
    return any(map(is_key, jax.tree.leaves(held)))


def holds_keys(value: Any) -> bool:
    """Whether an argument is a key or holds some."""
    return is_sequence(value) or any(is_key(leaf) or is_old_key(leaf) for leaf in jax.tree.leaves(value))


def sample_key(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], where: str, key_argname: str | None = None
) -> tuple[Any, WithKey]:
    """`find_key` for the keys that those of all samples are made of; an error where there is none."""
    key, with_key = find_key(fn, args, kwargs, where, key_argname)
    if key is None:
        several = [own or at for at, (own, value) in _named(fn, args, kwargs).items() if holds_keys(value)]
        found, way_out = "has none. Name its key argument `key`.", ""
        if len(several) == 1:
            found = f"may have one in `{several[0]}`. "
            way_out = f"Name its key argument `key`, or pass `key_argname={several[0]!r}`."
        elif several:
            found = f"has more than one key, {' and '.join(f'`{name}`' for name in several)}. "
            way_out = "Pass one named `key` and split it in the program."
        raise ValueError(
            f"`mcgrad.{where}` must find the argument named `key` of the program, to split it, and `{name_of(fn)}` "
            + found
            + way_out
        )
    return key, with_key


def split(key: Any, number: int) -> Any:
    """As many keys of each key, along a new leading axis."""
    return jax.tree.map(lambda k: _each(lambda one: jax.random.split(one, number), k), key)


def fold_in(key: Any, index: Any) -> Any:
    """The keys with an index folded in."""
    return jax.tree.map(lambda k: _each(lambda one: jax.random.fold_in(one, index), k), key)


def _each(fn: Callable[[Any], Any], key: Any) -> Any:
    """A function of one key, of each in an array of keys; axes that it adds come first."""
    for _ in range(jnp.ndim(key) if is_key(key) else 0):
        fn = jax.vmap(fn, in_axes=-1, out_axes=-1)
    return fn(key)


def parameters_of(fn: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function by name; none for one that hides them."""
    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}


def name_of(fn: Callable[..., Any]) -> str:
    """What messages call a function."""
    return getattr(fn, "__name__", type(fn).__name__)
