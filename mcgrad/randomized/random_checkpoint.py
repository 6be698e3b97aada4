"""Randomized automatic differentiation: a function whose backward pass keeps a random part of what it needs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from mcgrad import _compat, _mesh
from mcgrad._arguments import check_key, find_key, name_of, parameters_of
from mcgrad._compat import Tracer, undifferentiable
from mcgrad._types import PRNGKey, PyTree, static_field
from mcgrad.program.site import sample_p
from mcgrad.program.structure import ScanView
from mcgrad.program.trace import Constant, Equation, Program, Value, trace
from mcgrad.randomized.tape import Tape, make_tape


def random_checkpoint(fn: Callable[..., Any], *, keep: float) -> Callable[..., Any]:
    r"""A function whose reverse-mode derivative needs a part of the memory, and is right in the mean.

    A backward pass reads numbers of the forward pass, which have to be kept until then. Where it is linear in them, as in the
    activations `a` in `dW = a^T delta`, another array `A` with `E[A] = a` in their place gives an unbiased gradient. Here `A`
    is a random part of the entries, `keep` of them:

        A_i = m a_i for one entry i, drawn uniformly, of each run of m = 1 / keep neighbors;  A_i = 0 for the others

    drawn for each array on its own, and in each step of a `scan` anew, so that products of several are unbiased too. The value
    is that of `fn`; the first derivative in reverse mode is unbiased, and exact for `keep=1`; others raise. **What is saved in
    memory is paid in variance**, up to a factor of `1 / keep` for each array that a cotangent has gone through: smallest where it
    goes through few, as with relu, whose masks are kept whole, and where a step of a loop changes little.

    Kept as they are: the arguments of `fn` and what it closes over, and what is no floating-point number. Scans keep their
    arrays step by step, so their memory falls too; inside of `jax.checkpoint` nothing changes. Under `jax.vmap` with one key all
    entries keep the same places.

    Args:
        fn: a function of pytrees that returns a pytree, without draws of `mcgrad.sample` in it: apply this to
            `mcgrad.expectation(program)`.
        keep: the part of the entries of each array that is kept, rounded up; more than 0, at most 1.

    Returns:
        A function of the arguments of `fn`. Its randomness is that of the argument `key` of `fn`, or, where `fn` takes none,
        of one more, `key=`.

    Raises:
        ValueError: for a `keep` that is not a fraction; for a call without a key.
        TypeError: for a key that is none; by JAX, for a derivative in forward mode.
        NotImplementedError: where the backward pass is not linear in what it reads, with the line; for draws; for a second
            derivative.

    Example:
        >>> import jax, jax.numpy as jnp, mcgrad
        >>> layer = mcgrad.random_checkpoint(lambda w, x: jax.nn.relu(x @ w), keep=0.1)
        >>> def loss(w, x, key):
        ...     return jnp.mean(layer(w, x, key=key) ** 2)
        >>> jax.grad(loss)(jnp.ones((5, 3)), jnp.ones((20, 5)), jax.random.key(0)).shape
        (5, 3)

    References:
        Oktay et al. 2020, section 4 (sampling of paths and of entries), "Randomized Automatic Differentiation",
        https://arxiv.org/abs/2007.10412.
    """
    where = "random_checkpoint"
    is_number = isinstance(keep, (int, float)) and not isinstance(keep, bool)
    if not is_number or not 0 < keep <= 1:
        got = "a traced value" if isinstance(keep, Tracer) else repr(keep)
        raise ValueError(
            f"`mcgrad.{where}(keep=...)` must be a number above 0 and at most 1, got {got}. Pass the part to keep, such as 0.1."
        )

    @functools.wraps(fn)
    def sketched(*args: Any, **kwargs: Any) -> Any:
        own, with_key = find_key(fn, args, kwargs, where)
        if own is None:
            raise ValueError(
                f"`mcgrad.{where}` must get a key to draw with, got none. Call `{name_of(fn)}` with one more argument, "
                "`key=jax.random.key(0)`."
            )
        at, named = with_key(own)
        if not _takes_key(fn):
            named = {name: value for name, value in named.items() if name != "key"}
        key = check_key(jax.tree.leaves(own)[0], where)
        key = jax.random.fold_in(jax.random.clone(key), _OWN)
        program, tree = trace(lambda: fn(*at, **named))
        for equation in program.everything():
            if equation.eqn.primitive is sample_p:
                raise NotImplementedError(
                    f"`mcgrad.{where}` must get a function without draws, and there is one at {equation.line}. Apply it to the "
                    "expectation, `mcgrad.random_checkpoint(mcgrad.expectation(program), keep=...)`."
                )
        return jax.tree.unflatten(tree, _Walk(keep).run(program, [], (), key))

    return sketched


_OWN = 0x5EED
"""Folded into a key of the function, which may draw with it too."""


def _takes_key(fn: Callable[..., Any]) -> bool:
    takes = parameters_of(fn)
    return not takes or "key" in takes or any(p.kind == inspect.Parameter.VAR_KEYWORD for p in takes.values())


class _Walk:
    """Runs a program with random sketches in its backward pass: loops and branches are rebuilt, what is between is wrapped."""

    def __init__(self, keep: float):
        self.keep = keep

    def run(self, program: Program, inputs: Sequence[Any], given: Iterable[Value], key: PRNGKey) -> list[Any]:
        """The outputs; `given` are the inputs that are there in the backward pass too."""
        env: dict[Value, Any] = dict(zip(program.inputs, inputs, strict=True))
        there = set(given)

        def read(value: Value) -> Any:
            return value.value if isinstance(value, Constant) else env[value]

        def is_there(value: Value) -> bool:
            return isinstance(value, Constant) or value in there

        left = []
        for equation in program.without_dead_code().equations:
            if equation.name in _SAME_NUMBERS and all(map(is_there, equation.inputs)):
                env.update(zip(equation.outputs, equation.evaluate(read), strict=True))
                there.update(equation.outputs)
            else:
                left.append(equation)
        needed = set(program.outputs)
        parts: list[tuple[list[Equation], list[Value]]] = []
        for part in reversed(list(_parts(left))):
            made = dict.fromkeys(v for equation in part for v in equation.outputs)
            parts.append((part, [v for v in made if v in needed]))
            needed.update(v for equation in part for v in equation.inputs)
        keys = jax.random.split(key, len(parts))
        for (part, outputs), key in zip(reversed(parts), keys, strict=True):
            env.update(zip(outputs, self.part(part, outputs, read, is_there, key), strict=True))
        return [read(value) for value in program.outputs]

    def part(
        self,
        equations: list[Equation],
        outputs: list[Value],
        read: Callable[[Value], Any],
        is_there: Callable[[Value], bool],
        key: PRNGKey,
    ) -> list[Any]:
        """Some of the results of one loop or branch, or of equations in a row."""
        equation = equations[0]
        if equation.eqn.primitive in _STRUCTURES:
            operands, given = list(map(read, equation.inputs)), list(map(is_there, equation.inputs))
            if equation.eqn.primitive is _compat.scan_p:
                found = self.scan(ScanView(equation), operands, given, key)
            elif equation.eqn.primitive is _compat.cond_p:
                found = self.cond(equation, operands, given, key)
            else:
                found = equation.evaluate(read)
            return [dict(zip(equation.outputs, found, strict=True))[v] for v in outputs]
        made = {v for equation in equations for v in equation.outputs}
        used = dict.fromkeys(v for equation in equations for v in equation.inputs)
        inputs = [v for v in used if v not in made and not (isinstance(v, Constant) and v.literal)]

        def plain(*values: Any) -> list[Any]:
            env: dict[Value, Any] = dict(zip(inputs, values, strict=True))
            for equation in equations:
                found = equation.evaluate(lambda v: env[v] if v in env else _literal(v))
                env.update(zip(equation.outputs, found, strict=True))
            return [env[v] for v in outputs]

        def line_of(name: str) -> str:
            """Of the operation of this name, or else of the first."""
            return next((e.line for e in equations if e.name == name), equation.line)

        call = _sketched(plain, list(map(is_there, inputs)), self.keep, jax.random.key_impl(key), line_of)
        return call(jax.random.key_data(key), *map(read, inputs))

    def scan(self, form: ScanView, operands: list[Any], given: list[bool], key: PRNGKey) -> list[Any]:
        """The results of a loop; each step keeps its own sketches."""
        consts, carry, rows = form.split(operands)
        carried = form.split(form.body.inputs)[1]
        fixed = [v for v, is_given in zip(form.body.inputs, given, strict=True) if is_given and v not in carried]

        def step(carry: list[Any], row: tuple[Any, list[Any]]) -> tuple[list[Any], list[Any]]:
            outs = self.run(form.body, [*consts, *carry, *row[1]], fixed, _key_of(key, row[0]))
            return outs[: len(carry)], outs[len(carry) :]

        last, stacked = form.loop(step, carry, (jax.random.key_data(jax.random.split(key, form.length)), rows))
        return [*last, *stacked]

    def cond(self, equation: Equation, operands: list[Any], given: list[bool], key: PRNGKey) -> list[Any]:
        """The results of the branch that is taken."""
        index, *inputs = operands

        def branch(body: Program) -> Callable[..., list[Any]]:
            fixed = [v for v, is_given in zip(body.inputs, given[1:], strict=True) if is_given]
            return lambda data, *inputs: self.run(body, inputs, fixed, _key_of(key, data))

        return jax.lax.switch(index, list(map(branch, equation.bodies)), jax.random.key_data(key), *inputs)


_STRUCTURES = (_compat.scan_p, _compat.cond_p, _compat.while_p, _compat.checkpoint_p)

_LARGE = frozenset({"dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general"})

_SAME_NUMBERS = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "copy_p", "dynamic_slice", "expand_dims"}
    | {"neg", "reshape", "rev", "slice", "squeeze", "transpose"}
)
"""What only rearranges, repeats or converts the numbers of what is there is there too."""


def _key_of(key: PRNGKey, data: Any) -> PRNGKey:
    """A key of the make of another. JAX hands what a loop reads on to its derivative, in which a key would count as used again."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def _literal(value: Value) -> Any:
    assert isinstance(value, Constant)
    return value.value


def _parts(equations: Iterable[Equation]) -> Iterator[list[Equation]]:
    """Each loop and branch by itself; of what stands between, a large operation with the small ones that follow."""
    row: list[Equation] = []
    for equation in equations:
        alone = equation.eqn.primitive in _STRUCTURES
        if row and (alone or equation.name in _LARGE):
            yield row
            row = []
        if alone:
            yield [equation]
        else:
            row.append(equation)
    if row:
        yield row


def _sketched(
    plain: Callable[..., list[Any]], given: list[bool], keep: float, impl: Any, line_of: Callable[[str], str]
) -> Callable[..., list[Any]]:
    """A function of the data of a key and arrays that keeps sketches for its backward pass, and the `given` arrays as they are."""

    @jax.custom_vjp
    def call(key_data: Any, *values: Any) -> list[Any]:
        return plain(*values)

    def forward(key_data: Any, *primals: Any) -> tuple[list[Any], _Kept]:
        values = [primal.value for primal in primals]
        moving = tuple(i for i, p in enumerate(primals) if p.perturbed and _is_number(p.value))
        if not moving:
            return plain(*values), _Kept(None, ())

        def of_moving(*moved: Any) -> tuple[list[Any], list[Any]]:
            at = dict(zip(moving, moved, strict=True))
            outs = plain(*(at.get(i, x) for i, x in enumerate(values)))
            return list(filter(_is_number, outs)), outs

        numbers, pullback, outs = jax.vjp(of_moving, *(values[i] for i in moving), has_aux=True)
        exact = [x for x, is_given in zip(values, given, strict=True) if is_given]
        key = jax.random.wrap_key_data(key_data.value, impl=impl)
        tape = make_tape(pullback, list(map(jax.typeof, numbers)), exact, keep, key, line_of)
        return [tape.made_before(x) if _is_number(x) else x for x in outs], _Kept(tape, moving)

    def backward(kept: _Kept, cotangents: Sequence[Any]) -> tuple[Any, ...]:
        gradients: list[Any] = [None] * (1 + len(given))
        if kept.tape is not None:
            whole = [_mesh.zeros(ct.aval) if isinstance(ct, SymbolicZero) else ct for ct in cotangents]
            tape, whole = jax.tree.map(lambda x: _first_order(x) if _is_number(x) else x, (kept.tape, whole))
            found = tape([ct for ct in whole if _is_number(ct)])
            for i, gradient in zip(kept.moving, found, strict=True):
                gradients[1 + i] = gradient
        return tuple(gradients)

    call.defvjp(forward, backward, symbolic_zeros=True)
    return call


@dataclasses.dataclass(frozen=True)
class _Kept(PyTree):
    """What is kept from the forward to the backward pass, and the operands that are differentiated."""

    tape: Tape | None
    moving: tuple[int, ...] = static_field()


def _is_number(x: Any) -> bool:
    return jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)


_first_order = undifferentiable(
    "The derivative of a derivative of `mcgrad.random_checkpoint` must not be taken: it would be that of the sketches. Use "
    "`jax.checkpoint` where second derivatives are needed."
)
