"""Calls of JAX's public functions, whose jaxprs show the primitives that there are: by introspection, and by hand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.special
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from mcgrad.program.trace import Equation, Program, from_jaxpr

MODULES = (lax, lax.linalg, jnp, jnp.linalg, jnp.fft, jax.nn, jax.ops, jax.scipy.special, jax.scipy.linalg)

X = np.random.default_rng(0).uniform(0.2, 0.9, (3, 4))
SQUARE = X[:, :3] + X[:, :3].T + 3 * np.eye(3)
COUNTS = np.arange(12).reshape(3, 4) % 3

ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (X,),
    (X, X),
    (X, 0),
    (SQUARE,),
    (COUNTS,),
    (COUNTS, COUNTS),
    (X, X, X),
    (SQUARE, SQUARE),
    (X[0], X[0]),
    (X + 1j * X,),
    (X, 1, 0),
    (X, (0,)),
)
"""What the functions of the modules are tried on, in turn; their integers and tuples are static."""

PLACES, ROWS = np.array([2, 0, 0]), np.array([1, -1, 9])
BATCH = np.stack([SQUARE, 2 * SQUARE])
IMAGE = np.stack([X, 2 * X])[:, None, :, :, None]  # [batch, channel, height, width, 1]
KEYS = np.arange(6, dtype=np.uint32).reshape(3, 2)


def _keys(fn: Any) -> Any:
    return lambda data: fn(jax.random.wrap_key_data(data, impl="threefry2x32"))


def _window(reducer: Any, start: Any, **more: Any) -> Any:
    return lambda x: lax.reduce_window(
        x, start, reducer, **({"window_dimensions": (1, 2), "window_strides": (1, 1)} | more)
    )


def _convolved(x: Any, kernel: Any) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1,), "SAME")


def _pooled(x: Any, y: Any) -> jax.Array:
    return jnp.sum(lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 2), "VALID") * y)


def _pooled_gradient(x: Any, y: Any) -> jax.Array:
    return jax.grad(_pooled)(x, y)


def _solved(a: Any, b: Any) -> jax.Array:
    return lax.custom_linear_solve(lambda x: a @ x, b, lambda _, b: jnp.linalg.inv(a) @ b, symmetric=True)


CALLS: list[tuple[Any, ...]] = [
    # Indexing: known and unknown places, in and out of bounds.
    (lambda x: x[PLACES], X),
    (lambda x: x[:, PLACES], X),
    (lambda x: x[PLACES, PLACES], X),
    (lambda x, i: x[i], X, PLACES),
    (lambda x, i: x[i % 3], X, PLACES),
    (lambda x: x[ROWS], X),
    (lambda x: x[1:, ::2], X),
    (lambda x: x[1], X),
    (lambda x: x.at[ROWS].get(mode="fill", fill_value=0.25), X),
    (lambda x: x.at[ROWS].get(mode="fill"), X),
    (lambda x: x.at[ROWS].get(mode="clip"), X),
    (lambda x: jnp.take_along_axis(x, COUNTS[:, :1], 1), X),
    (lambda x, i: jnp.take_along_axis(x, i, 1), X, COUNTS),
    (lambda x, i: jax.vmap(lambda r, j: r[j])(x, i), X, PLACES),
    *[
        (lambda x, y, i, name=name, mode=mode: getattr(x.at[PLACES if i is None else i], name)(y, mode=mode), X, X, i)
        for name in ("set", "add", "multiply", "min", "max", "subtract")
        if hasattr(jnp.zeros(1).at[0], name)
        for mode, i in ((None, None), (None, PLACES), ("clip", ROWS))
    ],
    (lambda x, y: x.at[ROWS].add(y, mode="drop"), X, X),
    (lambda x, y: x.at[ROWS].set(y, mode="clip"), X, X),
    (lambda x, y: x.at[1].add(y), X, X[0]),
    (lambda x, y: x.at[:, 1:3].set(y), X, X[:, :2]),
    (lambda x, y: x.at[PLACES, PLACES].add(y), X, X[:, 0]),
    (lambda x, y: jax.vmap(lambda r, i, u: r.at[i].add(u[0]))(x, jnp.asarray(PLACES), y), X, X),
    (lambda x, y, i: lax.scatter_sub(x, i, y, lax.ScatterDimensionNumbers((1,), (0,), (0,))), X, X, PLACES[:, None])
    if hasattr(lax, "scatter_sub")
    else (jnp.negative, X),
    (lambda x: jax.ops.segment_sum(x, PLACES, 3), X),
    (lambda x: lax.dynamic_slice(x, (1, 1), (2, 2)), X),
    (lambda x, i: lax.dynamic_slice(x, (i, 1), (2, 2)), X, np.int64(1)),
    (lambda x, y: lax.dynamic_update_slice(x, y, (1, 5)), X, X[:2, :2]),
    (lambda x, y, i: lax.dynamic_update_slice(x, y, (i, 0)), X, X[:2, :2], np.int64(1)),
    # Axes.
    (lambda x: lax.pad(x, 0.1, ((1, 0, 1), (-1, 2, 0))), X),
    (lambda x: lax.rev(x, (1,)), X),
    (lambda x: lax.slice(x, (0, 1), (3, 4), (2, 1)), X),
    (lambda x: lax.transpose(x, (1, 0)), X),
    (lambda x: x.reshape(2, 6), X),
    (lambda x: x.reshape(4, 3, order="F"), X),
    (lambda x: x.reshape(3, 2, 2), X),
    (lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1, 2)), X),
    (lambda x: lax.broadcast_in_dim(x[:, :1], (3, 4), (0, 1)), X),
    (lambda x: jnp.expand_dims(x, 1), X),
    (lambda x: lax.squeeze(x[:, :1], (1,)), X),
    (lambda x, y: lax.concatenate([x, y], 0), X, X[:2]),
    (lambda x, y: jnp.stack([x, y], 1), X, X),
    (lambda x: jnp.unstack(x, axis=1), X),
    (lambda x: lax.split(x, (1, 3), 1), X),
    (lambda x: jnp.tile(x, (2, 1)), X),
    (lambda x: jnp.repeat(x, 2, 0), X),
    # Reductions, along axes and in windows.
    *[
        (lambda x, fn=fn, r=r: fn(x, axis=1, reverse=r), X)
        for fn in (lax.cumsum, lax.cumprod, lax.cummax, lax.cummin, lax.cumlogsumexp)
        for r in (False, True)
    ],
    *[(lambda x, fn=fn: fn(x, 1), X) for fn in (jnp.sum, jnp.prod, jnp.max, jnp.min, jnp.argmax, jnp.argmin)],
    *[(lambda x, fn=fn: fn(x > 0.5, axis=1), X) for fn in (jnp.all, jnp.any)],
    (lambda x: lax.reduce_xor(x, (1,)), COUNTS),
    (lambda x: lax.reduce(x, 1.0, lambda a, b: a * b + a + b, (1,)), X),
    (lambda x, y: lax.reduce((x, y), (0.0, 0.0), lambda a, b: (a[0] + b[0], a[1] * b[0] + b[1]), (0,)), X, X),
    *[(_window(*how), X) for how in ((lax.add, 0.0), (lax.max, -np.inf), (lax.min, np.inf), (lax.mul, 1.0))],
    (_window(lax.add, 0.0, padding="SAME", window_strides=(1, 2), base_dilation=(2, 1)), X),
    (_window(lax.add, 0.0, padding=((0, 0), (1, 0)), window_dilation=(1, 2)), X),
    (lambda x: lax.reduce_window(x, 0.5, lambda a, b: jnp.hypot(a, b), (1, 2), (1, 1), "VALID"), X),
    (_pooled_gradient, X, X[:, :2]),
    (lambda x, y: jax.jvp(_pooled_gradient, (x, y), (x, y))[1], X, X[:, :2]),
    (
        lambda x, y: jax.jvp(lambda x: jax.jvp(_window(lax.max, -jnp.inf, padding="VALID"), (x,), (y,))[1], (x,), (y,)),
        X,
        X,
    ),
    (lambda x: lax.top_k(x, 2), X),
    (lambda x: lax.approx_max_k(x, 2), X),
    (lambda x, y: lax.sort([x, y], dimension=0, num_keys=1), X, X),
    # Products and linear algebra.
    (lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))), X, X),
    (lambda x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))), BATCH, BATCH),
    (lambda x, y: lax.ragged_dot(x, y, jnp.array([1, 2])), X, np.stack([X.T, X.T])),
    (_convolved, np.stack([X, X]), X[None, :, :2]),
    (lambda x, k: _convolved(x, k), IMAGE[:, 0, :, :, 0], X[:, :, None][:, :3]),
    (lambda x, k: lax.conv_general_dilated(x, k, (1,), "SAME", feature_group_count=3), X[None], X[:, None, :2]),
    (lambda x, k: lax.conv_general_dilated(x, k, (1,), "SAME", batch_group_count=3), X[:, None], X[:, None, :2]),
    *[
        (jax.vmap(fn), BATCH)
        for fn in (
            jnp.linalg.cholesky,
            jnp.linalg.eigh,
            jnp.linalg.svd,
            jnp.linalg.qr,
            jnp.linalg.eigvals,
            lax.linalg.lu,
            lax.linalg.schur,
            lax.linalg.hessenberg,
            lambda a: lax.linalg.tridiagonal(a)[:3],
        )
    ],
    (lambda a: lax.linalg.householder_product(a, a[:, 0]), BATCH),
    (lambda a, c: lax.linalg.ormqr(a, a[:, 0], c) if hasattr(lax.linalg, "ormqr") else a, BATCH, BATCH),
    (lambda a: lax.linalg.lu_pivots_to_permutation(a, 4), np.array([[1, 1, 2]], np.int32)),
    (lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True), BATCH, BATCH),
    (lambda a, b: lax.linalg.triangular_solve(a, b, transpose_a=True, unit_diagonal=True), SQUARE, SQUARE),
    (lambda a, b: lax.linalg.tridiagonal_solve(0.1 * a, a + 1, 0.1 * a, b[..., None]), X, X),
    (_solved, SQUARE, SQUARE[0]),
    (jnp.linalg.solve, SQUARE, SQUARE),
    *[(lambda x, fn=fn: fn(x, axis=0), X) for fn in (jnp.fft.fft, jnp.fft.ifft, jnp.fft.rfft, jnp.fft.irfft)],
    # What passes values on.
    (lambda x, y: lax.optimization_barrier((x, y)), X, X),
    (lambda x, y: jax.device_put((x, y)), X, X),
    (lambda x: checkpoint_name(x, "here"), X),
    (lambda x, y: lax.select_n(COUNTS > 1, x, y), X, X),
    (lambda m, x, y: lax.select_n(m, x, y), COUNTS > 1, X, X),
    (lambda x: x.astype(jnp.float32), X),
    (lambda x: lax.reduce_precision(x, 5, 2), X),
    (lambda x: lax.bitcast_convert_type(x, jnp.uint32), X),
    (lambda x: lax.bitcast_convert_type(x, jnp.float64), KEYS),
    (lambda x, y: lax.clamp(0.3, x, y[0, 0]), X, X),
    (lambda x: jnp.polyval(x[:, 0], x), X),
    (jax.vmap(lambda x: lax.psum(x, "i"), axis_name="i"), X),
    # Random numbers.
    (lambda seeds: jax.random.key_data(jax.vmap(jax.random.key)(seeds)), np.arange(3)),
    (_keys(jax.vmap(lambda k: jax.random.key_data(jax.random.split(k)))), KEYS),
    (_keys(jax.vmap(lambda k: jax.random.key_data(jax.random.fold_in(k, 3)))), KEYS),
    (_keys(jax.vmap(lambda k: jax.random.bits(k, (2,)))), KEYS),
    (_keys(lambda k: jax.random.key_data(jax.random.clone(k))), KEYS),
    (lambda data, x: _keys(lambda k: jax.vmap(jax.random.gamma)(k, x))(data), KEYS, X[:, 0]),
    (lambda a: jax.jvp(lambda a: jax.random.gamma(jax.random.key(0), a), (a,), (a,)), X),
    (jax.extend.random.threefry_2x32 if hasattr(jax.extend, "random") else jnp.add, KEYS[0], KEYS[1]),
]
"""What introspection does not reach, or not in all forms; each a function and its arguments."""


def programs() -> Iterator[Program]:
    """The programs of all calls."""
    for fn, *arguments in CALLS:
        yield _program(fn, *arguments)
    for fn in public():
        yield from first(fn)


def public() -> list[Any]:
    """The public functions of the modules."""
    names = [(module, name) for module in MODULES for name in dir(module) if not name.startswith("_")]
    found = [getattr(module, name) for module, name in names if name not in _WITH_FILES]
    return list({id(fn): fn for fn in found if callable(fn) and not isinstance(fn, type)}.values())


_WITH_FILES = frozenset(
    {"save", "savez", "load", "fromfile", "frombuffer", "from_dlpack", "set_printoptions", "printoptions"}
)


def first(fn: Any) -> Iterator[Program]:
    """The program of a function on the first of the arguments that it takes."""
    for arguments in ARGUMENTS:
        try:
            yield _program(fn, *arguments)
        except Exception:  # noqa: S112 - whatever a function says of arguments that do not fit
            continue
        return


def _program(fn: Any, *arguments: Any) -> Program:
    static = [i for i, a in enumerate(arguments) if isinstance(a, (int, tuple)) or a is None]
    arrays = [a for i, a in enumerate(arguments) if i not in static]

    def of_arrays(*given: Any) -> Any:
        values = iter(given)
        return fn(*(a if i in static else next(values) for i, a in enumerate(arguments)))

    return from_jaxpr(jax.make_jaxpr(of_arrays)(*arrays))


@functools.cache
def equations() -> dict[str, list[tuple[Equation, Program]]]:
    """By primitive, equations that differ in their parameters or shapes, each with its program."""
    found: dict[str, dict[str, tuple[Equation, Program]]] = {}
    for program in programs():
        for equation in program.everything():
            shapes = [(v.shape, str(v.dtype)) for v in equation.inputs]
            # Jaxprs among the parameters are long to print, and say what to compute, not where.
            params = {k: v for k, v in equation.eqn.params.items() if "jaxpr" not in k and not callable(v)}
            found.setdefault(equation.name, {}).setdefault(f"{shapes} {params}", (equation, program))
    return {name: list(cases.values()) for name, cases in found.items()}
