"""Differences of function values along directions, on which all black-box gradients are built.

With directions `d` whose coordinates have mean square one, each black-box gradient is, for some distribution of `d`,

    g = mean over samples, sum over d of (f(theta + s d, key) - f(theta - s d, key)) d / (2 s)

Coordinate directions make finite differences, random signs SPSA, and Gaussian directions evolution strategies. All values
of one sample use the same key: common random numbers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcgrad._arguments import check_chunks, check_key, find_key
from mcgrad._compat import Tracer, undifferentiable
from mcgrad._types import PRNGKey

Directions: TypeAlias = Callable[[PRNGKey | None, int, Any], Float[Array, "samples directions n"]]
"""Draws directions from a key, for a number of samples and a pytree of parameters, with its entries in one row."""


def difference_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int],
    directions: Directions,
    step: Any,
    *,
    where: str,
    random: bool,
    central: bool = True,
    num_samples: int,
    chunk_size: int | None,
    has_aux: bool,
) -> Callable[..., Any]:
    """The gradient of `fn` by differences along `directions`, as a function of the arguments of `fn`.

    Args:
        fn: the black box.
        argnums: as in `jax.grad`.
        directions: see `Directions`.
        step: how far along them.
        where: the public name, for messages.
        random: whether `directions` needs a key.
        central: differences to both sides; otherwise from the parameters to one side, over `step`.
        num_samples: see `mcgrad.spsa_grad`.
        chunk_size: see `mcgrad.spsa_grad`.
        has_aux: see `mcgrad.spsa_grad`.
    """
    if not isinstance(has_aux, bool):
        raise TypeError(f"`mcgrad.{where}(has_aux=...)` must be True or False, got {has_aux!r}. Pass one of these.")
    check_chunks(num_samples, chunk_size, where)
    size = chunk_size or num_samples

    @functools.wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        call, key = _bind(fn, argnums, args, kwargs, where, has_aux)
        if key is None and (random or num_samples > 1):
            raise ValueError(
                f"`mcgrad.{where}` must get a key to draw with, got none. Name the key argument of "
                "the function `key`, or, where the function takes none, call the gradient with `key=jax.random.key(0)`."
            )
        params = jax.tree.map(jnp.asarray, _select(args, argnums))
        for leaf in jax.tree.leaves(params):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"`mcgrad.{where}(argnums={argnums})` must name arguments of real floating-point numbers, got "
                    f"{leaf.dtype}. Choose others with `argnums`, or convert them to floats."
                )
        flat, unravel = ravel_pytree(params)
        distance = jnp.asarray(step, flat.dtype)

        def chunk(key: Any) -> tuple[Array, Any]:
            key_directions, key_fn = jax.random.split(key) if random else (None, key)
            rows = directions(key_directions, size, params)
            keys = key_fn if key_fn is None or num_samples == 1 else jax.random.split(key_fn, size)

            def one(key: Any, rows: Float[Array, "directions n"]) -> tuple[Array, Any]:
                # One `vmap` over all points, so that the black box is compiled once; the key, not mapped, is common.
                points = jnp.concatenate([rows, -rows if central else jnp.zeros_like(rows[:1])])
                values = jax.vmap(lambda row: call(_moved(params, unravel(distance * row)), key)[0])(points)
                difference = values[: len(rows)] - values[len(rows) :]
                along = jnp.tensordot(difference.astype(flat.dtype), rows, axes=1, precision="highest")
                # The same key again, so that the auxiliary output belongs to the differences that were taken.
                aux = call(params, None if key is None else jax.random.clone(key))[1] if has_aux else ()
                return along, aux

            if num_samples == 1:
                return one(keys, rows[0])
            along, aux = jax.vmap(one)(keys, rows)
            return jnp.mean(along, axis=0), aux

        if size == num_samples:
            total, aux = chunk(key)
        else:  # one sum is carried, since a stack of the chunks' gradients would grow with their number
            num_chunks = num_samples // size

            def add(total: Array, i: Array) -> tuple[Array, Any]:
                along, aux = chunk(jax.random.fold_in(key, i))
                return total + along / num_chunks, aux

            total, aux = jax.lax.scan(add, jnp.zeros_like(flat), jnp.arange(num_chunks))
            aux = jax.tree.map(lambda a: a.reshape(num_samples, *a.shape[2:]), aux)
        found = total / ((2 if central else 1) * distance)
        # NaN where the step is lost in rounding: the difference is then meaningless, and a zero would look like a flat function.
        found = jax.tree.map(lambda g, p: jnp.where(_lost(p, distance), jnp.nan, g), unravel(found), params)
        return (found, aux) if has_aux else found

    return gradient


def check_positive(value: Any, where: str) -> None:
    """Refuse a step that is not a scalar, or is concrete and not positive."""
    if jnp.shape(value) != ():
        raise ValueError(
            f"`mcgrad.{where}` must be one number, got an array of shape {jnp.shape(value)}. Pass a float."
        )
    if not isinstance(value, Tracer) and not value > 0:
        raise ValueError(f"`mcgrad.{where}` must be positive, got {value}. Pass a step in the units of the parameters.")


def _moved(params: Any, by: Any) -> Any:
    return jax.tree.map(jnp.add, params, by)


def _lost(leaf: Array, step: Array) -> Array:
    return leaf + step.astype(leaf.dtype) == leaf


def _select(args: Sequence[Any], argnums: int | Sequence[int]) -> Any:
    return args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)


def _bind(
    fn: Callable[..., Any], argnums: Any, args: Sequence[Any], kwargs: dict[str, Any], where: str, has_aux: bool
) -> tuple[Callable[[Any, Any], tuple[Array, Any]], Any]:
    """The black box as a function of `(params, key)`, and the key, which only draws directions if the function takes none."""
    key_at = find_key(fn, args, kwargs)
    key = None if key_at is None else key_at.get(args, kwargs)
    if key is not None:
        check_key(key, where)
    if "key" in kwargs and not _takes_key(fn):
        kwargs = {name: value for name, value in kwargs.items() if name != "key"}
        key_at = None

    def call(params: Any, key: Any) -> tuple[Array, Any]:
        full = list(args)
        for i, value in [(argnums, params)] if isinstance(argnums, int) else zip(argnums, params, strict=True):
            full[i] = value
        at, named = (full, kwargs) if key_at is None else key_at.put(full, kwargs, key)
        out = fn(*at, **named)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise TypeError(
                f"`mcgrad.{where}(has_aux=True)` must get a function that returns a pair `(value, aux)`, got "
                f"{type(out).__name__}. Return a pair, or leave `has_aux` out."
            )
        value, aux = out if has_aux else (out, ())
        if (
            len(jax.tree.leaves(value)) != 1
            or jnp.shape(value) != ()
            or not jnp.issubdtype(jnp.result_type(value), jnp.floating)
        ):
            got = jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", value)
            raise TypeError(
                f"`mcgrad.{where}` must get a function that returns a floating-point scalar, got {got}. Take a mean or a "
                "sum, and convert integers with `.astype(float)`."
            )
        return _value_only(jnp.asarray(value)), aux

    return call, key


def _takes_key(fn: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "key" or p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters)


_value_only = undifferentiable(
    "The derivative of a black-box gradient (`mcgrad.finite_difference_grad`, `mcgrad.spsa_grad`, "
    "`mcgrad.evolution_grad`) must not be taken: it would be that of the black box itself, which may be zero or wrong. "
    "Draw the parameters in a program, `mcgrad.sample(key, mcgrad.Normal(params, scale), mcgrad.Score())`, which is right "
    "to every order."
)
