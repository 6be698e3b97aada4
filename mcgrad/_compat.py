"""The only file that touches JAX's semi-public API (`jax.core`, `jax.extend`, `jax.interpreters`).

Everything here runs without warnings on every supported JAX; versions are told apart by feature, never by number.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray as ShapedArray
from jax.core import Tracer as Tracer
from jax.core import eval_context, eval_jaxpr
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive
from jax.extend.core import primitives as _primitives
from jax.interpreters import ad, batching, mlir

jit_p = _primitives.jit_p
checkpoint_p = _primitives.remat_p
cond_p = _primitives.cond_p
scan_p = _primitives.scan_p
while_p = _primitives.while_p
custom_jvp_p = _primitives.custom_jvp_call_p
custom_vjp_p = _primitives.custom_vjp_call_p
linear_solve_p = _primitives.linear_solve_p
SHARD_MAP = "shard_map"
OBJECT_CALL = "call_hi_primitive"
"""Since 0.12 some of JAX's functions, `searchsorted` among them, are objects with rules, called by the primitive of this name."""


def not_of_the_user(file: str) -> None:
    """Lines in the folder of this file are not those of the user."""
    source_info_util.register_exclusion(os.path.dirname(os.path.abspath(file)) + os.sep)


# Error messages and `explain` name the line of the user who called mcgrad, never a line of mcgrad itself.
not_of_the_user(__file__)


def is_known(x: Any) -> bool:
    """Whether a constant is known while a program is planned: neither traced, nor in part that of another process."""
    return not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True)


@contextmanager
def before_the_run() -> Generator[None]:
    """Operations in this context are run at once, on one device, whatever is traced and whatever mesh is set."""
    with eval_context(), _without_a_mesh():
        yield


@contextmanager
def where_known() -> Generator[None]:
    """As `before_the_run`, of operations on what is known; those on what is traced are traced."""
    with jax.ensure_compile_time_eval(), _without_a_mesh():
        yield


def _without_a_mesh() -> Any:
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def user_line(eqn: JaxprEqn) -> str:
    """`file:line (function)` of the user's code that made an equation."""
    return source_info_util.summarize(eqn.source_info)


def current_line() -> str:
    """`file:line (function)` of the user's code that is running now."""
    return source_info_util.summarize(source_info_util.current())


def new_primitive(
    name: str,
    *,
    run: Callable[..., Sequence[jax.Array]],
    batch: Callable[..., tuple[Sequence[jax.Array], Sequence[int]]],
    jvp: Callable[..., tuple[Sequence[jax.Array], Sequence[Any] | None]],
) -> Primitive:
    """A primitive with several results whose meaning is the function `run`.

    `jvp(primals, tangents, **params)` gets `None` for a tangent that is zero, and returns results and their tangents
    (`None` for one that is zero, and where all are).
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(lambda *operands, **params: jax.jit(lambda *ops: run(*ops, **params))(*operands))

    def jvp_rule(primals, tangents, **params):
        outs, outs_dot = jvp(primals, [None if isinstance(t, ad.Zero) else t for t in tangents], **params)
        none = [None] * len(outs)
        return outs, [
            ad.Zero(jax.typeof(out).to_tangent_aval()) if dot is None else dot
            for out, dot in zip(outs, outs_dot or none, strict=True)
        ]

    primitive.def_abstract_eval(lambda *avals, **params: trace_on(lambda *a: run(*a, **params), avals).out_avals)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=True))
    batching.primitive_batchers[primitive] = batch
    ad.primitive_jvps[primitive] = jvp_rule
    return primitive


class custom_jvp:
    """`jax.custom_jvp` as a primitive, whose rule no transform drops.

    On JAX 0.10 a reverse-mode derivative of a reverse-mode derivative through `scan` differentiates the function itself in
    place of its rule, silently. Arguments are pytrees of arrays; the rule gets an array for every tangent.
    """

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        self.rule: Callable[..., Any] | None = None
        functools.update_wrapper(self, fn)

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        self.rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        rule: Any = self.rule
        out_tree = jax.tree.structure(jax.eval_shape(self.fn, *args))

        def flat(*leaves: Any) -> list[Any]:
            return jax.tree.leaves(self.fn(*jax.tree.unflatten(tree, leaves)))

        def flat_rule(primals: Sequence[Any], moving: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            tangents = iter(moving)
            full = [next(tangents) if _moves(x) else np.zeros(jnp.shape(x), jax.dtypes.float0) for x in primals]
            out, out_dot = rule(jax.tree.unflatten(tree, primals), jax.tree.unflatten(tree, full))
            return jax.tree.leaves(out), jax.tree.leaves(out_dot)

        outs = ruled_p.bind(*leaves, fn=flat, rule=flat_rule)
        return jax.tree.unflatten(out_tree, outs)


def undifferentiable(message: str) -> custom_jvp:
    """A function of `(x, *others)` that returns `x`, with an error in place of a derivative in any of them."""

    @custom_jvp
    def guard(x: Any, *_: Any) -> Any:
        return x

    @guard.defjvp
    def refuse(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
        raise NotImplementedError(message)

    return guard


def _moves(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _custom_jvp_batch(operands, axes, *, fn, rule):
    mapped = jax.vmap(rule, (axes, tuple(axis for x, axis in zip(operands, axes, strict=True) if _moves(x))))
    outs = ruled_p.bind(*operands, fn=jax.vmap(fn, axes), rule=lambda *args: mapped(*map(tuple, args)))
    return outs, [0] * len(outs)


def _custom_jvp_jvp(primals, tangents, *, fn, rule):
    return rule(primals, [ad.instantiate_zeros(t) for x, t in zip(primals, tangents, strict=True) if _moves(x)])


ruled_p = Primitive("mcgrad_custom_jvp")
"""What a `custom_jvp` binds: the function `fn` of its operands, a list of results, and its rule."""
ruled_p.multiple_results = True
ruled_p.def_impl(lambda *operands, fn, rule: fn(*operands))
ruled_p.def_abstract_eval(lambda *avals, fn, rule: trace_on(fn, avals).out_avals)
mlir.register_lowering(ruled_p, mlir.lower_fun(lambda *operands, fn, rule: fn(*operands), multiple_results=True))
batching.primitive_batchers[ruled_p] = _custom_jvp_batch
ad.primitive_jvps[ruled_p] = _custom_jvp_jvp


def _new_identity(name: str) -> Primitive:
    """An identity `x` that carries a `message`, for rules that say it."""
    primitive = Primitive(name)
    primitive.def_impl(lambda x, message: x)
    primitive.def_abstract_eval(lambda x, message: x)
    mlir.register_lowering(primitive, mlir.lower_fun(lambda x, message: x, multiple_results=False))
    batching.primitive_batchers[primitive] = lambda args, axes, message: (
        primitive.bind(*args, message=message),
        axes[0],
    )
    return primitive


def new_forward_only(name: str) -> Callable[[jax.Array, str], jax.Array]:
    """An identity `(x, message)` that forward mode passes and reverse mode refuses, with the message."""
    primitive = _new_identity(name)
    ad.primitive_jvps[primitive] = lambda primals, tangents, message: (
        primitive.bind(*primals, message=message),
        tangents[0] if isinstance(tangents[0], ad.Zero) else primitive.bind(tangents[0], message=message),
    )

    def refuse(cotangent, x, message):
        raise NotImplementedError(message)

    ad.primitive_transposes[primitive] = refuse
    return lambda x, message: primitive.bind(x, message=message)


def new_watched(name: str, moved: Callable[[str], None]) -> Callable[[jax.Array, str], jax.Array]:
    """An identity `(x, message)` that calls `moved(message)` where a derivative reaches it."""
    primitive = _new_identity(name)

    def jvp(primals, tangents, message):
        if not isinstance(tangents[0], ad.Zero):
            moved(message)
        return primitive.bind(*primals, message=message), tangents[0]

    ad.primitive_jvps[primitive] = jvp
    return lambda x, message: primitive.bind(x, message=message)


def total_over(x: jax.Array, axis_name: str, *mesh_axes: str) -> jax.Array:
    """`psum` along a named axis of a `vmap`, where JAX refuses it inside a `shard_map`, and mesh axes. It has no derivative."""
    total = _total_p.bind(x, axis_name=axis_name)
    return jax.lax.psum(total, mesh_axes) if mesh_axes else total


def _total_batch(axis, args, dims, *, axis_name):
    (x,), (dim,) = args, dims
    if axis.name == axis_name:
        return (x * axis.size, None) if dim is None else (jax.lax.reduce_sum(x, (dim,)), None)
    return _total_p.bind(x, axis_name=axis_name), dim


_total_p = Primitive("mcgrad_total")
_total_p.def_abstract_eval(lambda x, axis_name: x)
batching.fancy_primitive_batchers[_total_p] = _total_batch


def trace(fn: Callable[[], Any]) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of a function of no arguments (all it uses is closed over), and the tree of its output."""
    closed: Any
    closed, shape = jax.make_jaxpr(fn, return_shape=True)()
    return closed, jax.tree.structure(shape)


def trace_on(fn: Callable[..., Any], avals: Sequence[Any]) -> Any:
    """The jaxpr of a function on arguments of given types: shape, dtype, weak type, sharding, varying manual axes."""
    return jax.make_jaxpr(fn)(*avals)


def closed(fn: Callable[[Any], Any], argument: Any) -> tuple[Jaxpr, Sequence[Any], Any]:
    """The jaxpr of a function of the arrays that it closes over and of its argument; these arrays; and the tree of its output."""
    made: Any
    made, shape = jax.make_jaxpr(fn, return_shape=True)(argument)
    opened, arrays = open_jaxpr(made)
    jaxpr = opened.replace(constvars=[], invars=[*opened.constvars, *opened.invars])
    return jaxpr, arrays, jax.tree.structure(shape)


def evaluate(jaxpr: Jaxpr, values: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr without constants."""
    return eval_jaxpr(jaxpr, [], *values)


def on_line_of(eqn: JaxprEqn) -> AbstractContextManager[None]:
    """Operations traced in this context get the source line of an equation."""
    return source_info_util.user_context(eqn.source_info.traceback, name_stack=eqn.source_info.name_stack)


def open_jaxpr(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and the values of its constants, whichever of the two classes (one class since 0.11) it is."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def sub_jaxprs(eqn: JaxprEqn) -> list[Jaxpr | ClosedJaxpr]:
    """Every jaxpr among the parameters of an equation, in the order of the parameters.

    Since 0.12 some primitives keep theirs in an object: `custom_root`.
    """
    found: list[Jaxpr | ClosedJaxpr] = []
    if eqn.primitive.name == OBJECT_CALL:
        operation = next(iter(eqn.params.values()))

        def expanded(*leaves: Any) -> Any:
            return jax.tree.leaves(operation.expand(*jax.tree.unflatten(operation.in_tree, leaves)))

        return [trace_on(expanded, [var.aval for var in eqn.invars])]
    for param in eqn.params.values():
        entries = list(param) if isinstance(param, (tuple, list)) else [param]
        if hasattr(param, "__dict__") and not isinstance(param, (Jaxpr, ClosedJaxpr)):
            entries += [getattr(param, name) for name in dir(param) if name.endswith("jaxpr")]
        found += [entry for entry in entries if isinstance(entry, (Jaxpr, ClosedJaxpr))]
    return found


def evaluator(eqn: JaxprEqn, jaxpr: Jaxpr) -> Callable[..., list[Any]]:
    """A function of the equation's non-literal inputs that evaluates it, with its rules, contexts and source kept."""

    @functools.cache  # most equations of a program that is only looked at are never evaluated
    def single() -> Any:
        inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
        return jaxpr.replace(constvars=[], invars=inputs, outvars=list(eqn.outvars), eqns=[eqn])

    return lambda *values: eval_jaxpr(single(), [], *values)


def with_bodies(eqn: JaxprEqn, change: Callable[[Any], Any]) -> JaxprEqn:
    """An equation with the jaxprs among its parameters changed, to be evaluated under the mesh that is current now."""

    def changed(param: Any) -> Any:
        if isinstance(param, tuple):
            return tuple(map(changed, param))
        if isinstance(param, ClosedJaxpr):
            return change(param)
        return open_jaxpr(change(param))[0] if isinstance(param, Jaxpr) else param

    context = trace_on(lambda x: x + 1, [np.float32(0)]).eqns[0].ctx
    return eqn.replace(params={name: changed(param) for name, param in eqn.params.items()}, ctx=context)


def bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """The results of the operation of an equation without bodies, on other operands."""
    results = eqn.primitive.bind(*operands, **eqn.params)
    return list(results) if eqn.primitive.multiple_results else [results]


def scan_split(eqn: JaxprEqn) -> tuple[int, int]:
    """How many inputs of a `scan` are constants, and how many are carried."""
    if "ft_in" in eqn.params:
        consts, carry, _ = eqn.params["ft_in"].unpack()
        return len(consts), len(carry)
    return eqn.params["num_consts"], eqn.params["num_carry"]
