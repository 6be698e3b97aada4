"""Differences of function values along directions, on which all black-box gradients are built.

With directions `d` whose coordinates have mean square one, each black-box gradient is, for some distribution of `d`,

    g = mean over samples, sum over d of (f(theta + s d, key) - f(theta - s d, key)) d / (2 s)

Coordinate directions make finite differences, random signs SPSA, and Gaussian directions evolution strategies. All values
of one sample use the same key: common random numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcgrad._arguments import check_chunks, check_flag, find_key, fold_in, parameters_of, split
from mcgrad._compat import Tracer, undifferentiable
from mcgrad._types import PRNGKey

Directions: TypeAlias = Callable[[PRNGKey, int, Any], Float[Array, "samples directions n"]]
"""Draws directions from a key, for a number of samples and a pytree of parameters, with its entries in one row."""


def difference_grad(
    where: str,
    fn: Callable[..., Any],
    argnums: int | Sequence[int],
    directions: Directions | None,
    step: Any,
    num_samples: int,
    chunk_size: int | None,
    has_aux: bool,
    central: bool = True,
) -> Callable[..., Any]:
    """The gradient of `fn` by differences along directions, as a function of the arguments of `fn`.

    `where` is its public name, and what is not named here is as in `mcgrad.finite_difference_grad`.

    Args:
        directions: random ones, or `None` for those of the coordinates.
        central: differences to both sides; otherwise from the parameters to one side, over `step`.
    """
    check_flag(has_aux, f"{where}(has_aux=...)")
    check_chunks(num_samples, chunk_size, where)
    size = chunk_size or num_samples

    @functools.wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        call, key = _bind(fn, argnums, args, kwargs, where, has_aux)
        if key is None and (directions is not None or num_samples > 1):
            raise ValueError(
                f"`mcgrad.{where}` must get a key to draw with, got none. Name the key argument of "
                "the function `key`, or, where the function takes none, call the gradient with `key=jax.random.key(0)`."
            )
        params = args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)
        params = jax.tree.map(jnp.asarray, params)
        for leaf in jax.tree.leaves(params):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"`mcgrad.{where}(argnums={argnums})` must name arguments of real floating-point numbers, got "
                    f"{leaf.dtype}. Choose others with `argnums`, or convert them to floats."
                )
        flat, unravel = ravel_pytree(params)
        distance = jnp.asarray(step, flat.dtype)

        def chunk(key: Any) -> tuple[Array, Any]:
            if directions is None:
                rows = jnp.broadcast_to(jnp.eye(flat.size, dtype=flat.dtype), (size, flat.size, flat.size))
            else:
                both = split(key, 2)
                rows = directions(jax.tree.leaves(both)[0][0], size, params)
                key = jax.tree.map(lambda k: k[1], both)

            def one(key: Any, rows: Float[Array, "directions n"]) -> tuple[Array, Any]:
                # One `vmap` over all points, so that the black box is compiled once; the key, not mapped, is common.
                points = distance * jnp.concatenate([rows, -rows if central else jnp.zeros_like(rows[:1])])
                values = jax.vmap(lambda by: call(jax.tree.map(jnp.add, params, unravel(by)), key)[0])(points)
                difference = values[: len(rows)] - values[len(rows) :]
                along = jnp.tensordot(difference.astype(flat.dtype), rows, axes=1, precision="highest")
                # The same key again, so that the auxiliary output belongs to the differences that were taken.
                aux = call(params, jax.tree.map(jax.random.clone, key))[1] if has_aux else ()
                return along, aux

            if num_samples == 1:
                return one(key, rows[0])
            along, aux = jax.vmap(one)(split(key, size), rows)
            return jnp.mean(along, axis=0), aux

        if size == num_samples:
            total, aux = chunk(key)
        else:  # one sum is carried, since a stack of the chunks' gradients would grow with their number
            num_chunks = num_samples // size

            def add(total: Array, i: Array) -> tuple[Array, Any]:
                along, aux = chunk(fold_in(key, i))
                return total + along / num_chunks, aux

            total, aux = jax.lax.scan(add, jnp.zeros_like(flat), jnp.arange(num_chunks))
            aux = jax.tree.map(lambda a: a.reshape(num_samples, *a.shape[2:]), aux)

        def unless_lost(g: Array, p: Array) -> Array:
            # Where the step is lost in rounding, a zero would look like a flat function.
            return jnp.where(p + distance.astype(p.dtype) == p, jnp.nan, g)

        found = jax.tree.map(unless_lost, unravel(total / ((2 if central else 1) * distance)), params)
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


def _bind(
    fn: Callable[..., Any], argnums: Any, args: Sequence[Any], kwargs: dict[str, Any], where: str, has_aux: bool
) -> tuple[Callable[[Any, Any], tuple[Array, Any]], Any]:
    """The black box as a function of `(params, key)`, and the key, which only draws directions if the function takes none."""
    key, with_key = find_key(fn, args, kwargs, where)
    takes = parameters_of(fn)
    keyless = "key" in kwargs and takes and "key" not in takes and all(p.kind != p.VAR_KEYWORD for p in takes.values())

    def call(params: Any, key: Any) -> tuple[Array, Any]:
        at, named = with_key(key)
        if keyless:
            named = {name: value for name, value in named.items() if name != "key"}
        full = list(at)
        for i, value in [(argnums, params)] if isinstance(argnums, int) else zip(argnums, params, strict=True):
            full[i] = value
        out = fn(*full, **named)
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
        return value_only(jnp.asarray(value)), aux

    return call, key


value_only = undifferentiable(
    "The derivative of a black-box gradient (`mcgrad.finite_difference_grad`, `mcgrad.spsa_grad`, "
    "`mcgrad.evolution_grad`, `mcgrad.persistent_evolution`) must not be taken: it would be that of the black box itself, which "
    "may be zero or wrong. "
    "Draw the parameters in a program, `mcgrad.sample(key, mcgrad.Normal(params, scale), mcgrad.Score())`, which is right "
    "to every order."
)
