"""The bits of random keys in NumPy: what splits, folds and picks them is computed while a program is planned, and nothing compiled.

Keys of JAX's default generator only; those of others are made by JAX itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.program import bounded
from mcgrad.program.trace import Equation, Value

_GENERATOR = "threefry2x32"


@functools.cache
def implementation(dtype: Any) -> tuple[Any, tuple[int, ...]]:
    """The generator of keys of a type, and the shape of the bits of one."""
    found: list[Any] = []
    one = jax.ShapeDtypeStruct((), dtype)
    data = jax.eval_shape(lambda key: (found.append(jax.random.key_impl(key)), jax.random.key_data(key))[1], one)
    return found[0], data.shape


def as_bits(value: Value) -> bool:
    """Whether it is of keys that are computed as arrays of their bits, `[*shape, 2]`."""
    return value.is_key and implementation(value.dtype)[0] == _GENERATOR and jax.config.jax_threefry_partitionable


def evaluate(equation: Equation, read: Callable[[Value], Any]) -> list[Any]:
    """The results of an operation, from operands that `read` gives; keys that are computed as bits go in and come out so."""
    rule = _RULES.get(equation.name)
    if rule is not None and all(map(as_bits, filter(_is_key, (*equation.inputs, *equation.outputs)))):
        return rule(equation, *(np.asarray(read(value)) for value in equation.inputs))

    def with_keys(value: Value) -> Any:
        x = read(value)
        return jax.random.wrap_key_data(jnp.asarray(x), impl=_GENERATOR) if as_bits(value) else x

    made = bounded.evaluate(equation, with_keys)
    return [
        np.asarray(jax.random.key_data(x)) if as_bits(v) else x for v, x in zip(equation.outputs, made, strict=True)
    ]


def _is_key(value: Value) -> bool:
    return value.is_key


@np.errstate(over="ignore")
def _encrypted(key: np.ndarray, high: Any, low: Any) -> np.ndarray:
    """Threefry-2x32 of 20 rounds, of counters `[*shape]` under keys `[*shape, 2]` (Salmon et al. 2011, section 3.3).

    A round adds one word to the other, rotates that and combines both; after each four, words of the key are added.
    """
    words = [key[..., 0], key[..., 1], key[..., 0] ^ key[..., 1] ^ np.uint32(0x1BD11BDA)]
    x, y = high + words[0], low + words[1]
    for n in range(5):
        for by in ((13, 15, 26, 6), (17, 29, 16, 24))[n % 2]:
            x = x + y
            y = (y << np.uint32(by) | y >> np.uint32(32 - by)) ^ x
        x, y = x + words[(n + 1) % 3], y + words[(n + 2) % 3] + np.uint32(n + 1)
    return np.stack([x, y], axis=-1)


def _split(equation: Equation, keys: np.ndarray) -> list[np.ndarray]:
    shape = equation.eqn.params["shape"]
    low = np.arange(np.prod(shape, dtype=int), dtype=np.uint32).reshape(shape)  # a program has fewer than 2^32 keys
    return [_encrypted(keys.reshape(*keys.shape[:-1], *[1] * len(shape), 2), np.zeros_like(low), low)]


def _fold_in(equation: Equation, keys: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    numbers = numbers.astype(np.uint32)
    return [_encrypted(keys, np.zeros_like(numbers), numbers)]


def _same(equation: Equation, x: np.ndarray) -> list[np.ndarray]:
    return [x]


def _shaped(equation: Equation, x: np.ndarray) -> list[np.ndarray]:
    output = equation.outputs[0]
    return [x.reshape((*output.shape, *x.shape[len(equation.inputs[0].shape) :]))]


def _sliced(equation: Equation, x: np.ndarray) -> list[np.ndarray]:
    params = equation.eqn.params
    return [
        x[tuple(map(slice, params["start_indices"], params["limit_indices"], params["strides"] or [None] * x.ndim))]
    ]


def _unstacked(equation: Equation, x: np.ndarray) -> Sequence[np.ndarray]:
    return list(np.moveaxis(x, equation.eqn.params["axis"], 0))


def _integers(equation: Equation, *_: np.ndarray) -> list[np.ndarray]:
    params = equation.eqn.params
    shape, axis = params["shape"], params["dimension"]
    counts = np.arange(shape[axis], dtype=params["dtype"]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return [np.broadcast_to(counts, shape)]


_RULES: dict[str, Callable[..., Any]] = {
    "random_split": _split,
    "random_fold_in": _fold_in,
    "random_wrap": _same,
    "random_unwrap": _same,
    "random_clone": _same,
    "squeeze": _shaped,
    "slice": _sliced,
    "unstack": _unstacked,
    "iota": _integers,
}
