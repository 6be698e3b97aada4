"""All that mcgrad knows of a primitive, in one row; open to new ones by `register`.

A primitive without a row is sound: its result counts as depending on all entries of its operands, and as linear in none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax.numpy as jnp

from mcgrad.program import axis_rules as axes
from mcgrad.program.axis_rules import AxisRule, ByOperand
from mcgrad.program.known import Known
from mcgrad.program.structure import form_of
from mcgrad.program.trace import Equation

Linear: TypeAlias = "Literal['all', 'first', 'each', 'cases'] | tuple[int, ...] | None"
"""In which operands a primitive is linear while the others are held: in all together; in the first; in each by itself; in all
but the first together; in those at these positions together."""

LinearRule: TypeAlias = "Linear | Callable[[Equation], Linear]"
"""The same, or a function that tells it from the parameters of an equation."""

Path: TypeAlias = "Literal['keeps', 'cuts', 'steps', 'jumps', 'rarely', 'constant', 'random'] | None"
"""What becomes of a derivative with respect to a draw: a continuous function with its derivative *keeps* it; one without a
derivative *cuts* it; one that is constant but for jumps *steps*; one that also moves between them *jumps*, or does so *rarely*,
where most programs do not come; one is *constant* with probability one; or the results are *random* bits. `None`: found out from
its rule for derivatives."""

PathRule: TypeAlias = "Path | Callable[[Equation], Path]"
"""The same, or a function that tells it from an equation: the square root of a complex number jumps."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What mcgrad knows of a primitive.

    Attributes:
        axes: where the axes of the operands go; `None`: every entry of the results depends on all entries.
        linear: in which operands it is linear, see `Linear`.
        path: what becomes of derivatives, see `Path`.
    """

    axes: AxisRule | None = None
    linear: LinearRule = None
    path: PathRule = None


_RULES: dict[str, Rule] = {}


def register(
    primitive: Any,
    *,
    axes: AxisRule | Literal["elementwise"] | None = None,
    linear: LinearRule = None,
    path: PathRule = None,
) -> None:
    """Tell mcgrad about a primitive of your own; the same row as those of JAX have.

    **A rule that claims less than the truth makes gradients wrong, silently**; one that claims more makes them noisier. The page
    `notebooks/your_own_primitive.md` has a primitive, its row and its test.

    Args:
        primitive: a `jax.extend.core.Primitive`, or the name of one.
        axes: `"elementwise"`, if entry `i` of the results depends on entry `i` of the operands alone; or a function
            `(equation, known)` that returns for each operand a dict from its axes to what an entry of the result reads along
            them: `mcgrad.program.Move(axis, low, high)`, for the entry at `i` along `axis` entries `i + low .. i + high`, or
            `Take((axis,), source, width)`, entries `source[i] .. source[i] + width`; axes that it leaves out are read as a
            whole; `None` in place of a dict, if the result does not depend on the operand. With several results that differ,
            a list of such lists. `equation.inputs` and `equation.outputs` have a `shape` and a `dtype`,
            `equation.eqn.params` are the parameters; `known.value(equation.inputs[k])` is an operand of integers as an array,
            or `None` where it is not known before the program runs. By default all entries are read.
        linear: in which operands it is linear, the others held: `"all"` together, the `"first"`, `"each"` by itself,
            `"cases"` (all but the first together), or a tuple of positions; or a function of the equation that returns one
            of these. By default in none.
        path: what becomes of derivatives with respect to draws: `"keeps"`, if it is continuous and has its derivative;
            `"cuts"`, if it has none; `"steps"`, if it is constant between jumps, like `floor`; `"jumps"`, if it moves between
            them, like `rem`; `"rarely"`, if it does so where most programs do not come, like `qr`; `"constant"`, if it is constant
            with probability one; `"random"`, if it makes random bits; or a function of the equation that returns one of these. By
            default mcgrad looks whether its rule for derivatives uses the tangents: it keeps or cuts.

    Raises:
        ValueError: for another `linear` or `path`.

    Example:
        >>> import mcgrad
        >>> mcgrad.program.register("my_scale", axes="elementwise", linear="first")
    """
    if not isinstance(linear, tuple) and not callable(linear) and linear not in (None, "all", "first", "each", "cases"):
        raise ValueError(
            '`mcgrad.program.register(linear=...)` must be "all", "first", "each", "cases", a tuple of positions, '
            f"a function or None, got {linear!r}. Pass one of these."
        )
    if not callable(path) and path not in (None, *_PATHS):
        raise ValueError(
            f"`mcgrad.program.register(path=...)` must be one of {', '.join(map(repr, _PATHS))}, a function or None, got {path!r}. "
            "Leave it out to have it found from the primitive's rule for derivatives."
        )
    rule = axes if callable(axes) or axes is None else _elementwise
    _RULES[getattr(primitive, "name", primitive)] = Rule(rule, linear, path)


def rule_of(equation: Equation) -> Rule:
    """The row of an equation's primitive."""
    return _RULES.get(equation.name, _UNKNOWN)


def path_of(equation: Equation) -> Path:
    """What becomes of derivatives in an equation."""
    path = rule_of(equation).path
    return path(equation) if callable(path) else path


def moves_of(equation: Equation, known: Known) -> list[ByOperand]:
    """For each result, for each operand, where the operand's axes go."""
    rule = rule_of(equation)
    if rule.axes is None:
        return [[{} for _ in equation.inputs]] * len(equation.outputs)
    found: Any = rule.axes(equation, known)
    return found if found and isinstance(found[0], list) else [found] * len(equation.outputs)


def linear_group(equation: Equation, operands: Sequence[int]) -> tuple[int, ...] | None:
    """The positions of the operands, those given among them, in which an equation is linear together, the others held."""
    if (form := form_of(equation)) is not None and form.linear_in(operands):
        return tuple(operands)
    linear, n = rule_of(equation).linear, len(equation.inputs)
    linear = linear(equation) if callable(linear) else linear
    group: tuple[int, ...] = ()
    match linear:
        case "all":
            group = tuple(range(n))
        case "first":
            group = (0,)
        case "each":
            group = tuple(operands[:1])
        case "cases":
            group = tuple(range(1, n))
        case tuple():
            group = linear
    values = (*equation.outputs, *(equation.inputs[i] for i in operands))
    inexact = all(jnp.issubdtype(value.dtype, jnp.inexact) for value in values)
    return group if inexact and set(operands) <= set(group) else None


_UNKNOWN = Rule()
_PATHS = ("keeps", "cuts", "steps", "jumps", "rarely", "constant", "random")
_elementwise = axes.elementwise


def _rows(names: str, rule: AxisRule | None, linear: LinearRule = None, path: PathRule = None) -> None:
    path = "keeps" if path is None and linear is not None else path
    _RULES.update(dict.fromkeys(names.split(), Rule(rule, linear, path)))


def _unless_filled(equation: Equation) -> Linear:
    """Places out of bounds are filled with zeros or with what is not a number, or are not linear in the operand."""
    filled = equation.eqn.params["fill_value"]
    return "first" if "FILL" not in str(equation.eqn.params["mode"]) or filled is None or not filled else None


def is_coarse(equation: Equation) -> bool:
    """Whether it rounds to numbers of so few bits that draws are not much wider than a step: of fewer than bfloat16 has."""
    (x,), (out,) = equation.inputs, equation.outputs
    if not (x.is_inexact and jnp.issubdtype(out.dtype, jnp.floating)):
        return False
    bits = equation.eqn.params["mantissa_bits"] if equation.name == "reduce_precision" else jnp.finfo(out.dtype).nmant
    return bits < jnp.finfo(jnp.bfloat16).nmant


def _of_complex(equation: Equation) -> Path:
    """Functions of complex numbers jump where a branch of them is cut."""
    return "rarely" if any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in equation.inputs) else "keeps"


def _right_hand_side(equation: Equation) -> Linear:
    """The last operands of a linear solve, behind the constants of its functions."""
    return tuple(range(sum(equation.eqn.params["const_lengths"]), len(equation.inputs)))


_rows(
    """abs atan2 bessel_i0e bessel_i1e clamp cos cosh digamma erf erf_inv erfc exp exp2 expm1 integer_pow lgamma logistic max min
    one_minus_square sin sinh square tan tanh""",
    axes.elementwise,
    path="keeps",
)
_rows("acos acosh asin asinh atan atanh cbrt log log1p log2 pow rsqrt sqrt", axes.elementwise, path=_of_complex)
_rows(
    """and bitcast_convert_type clz copysign eq eq_to ge gt igamma igamma_grad_a igammac le le_to lt lt_to mulhi ne not or
    polygamma population_count random_gamma_grad regularized_incomplete_beta shift_left shift_right_arithmetic
    shift_right_logical xor zeta mcgrad_threshold mcgrad_forward_only random_clone debug_nans polynomial random_gamma
    is_finite""",
    axes.elementwise,
)
_rows("mcgrad_smooth", axes.elementwise, path="keeps")
_rows("mcgrad_history mcgrad_conditionals", axes.whole, path="keeps")
_rows("ceil floor round sign", axes.elementwise, path="steps")
_rows("nextafter rem", axes.elementwise, path="jumps")
_rows("stop_gradient", axes.elementwise, path="cuts")
_rows("threefry2x32", axes.elementwise, path="random")
_rows(
    "add add_any sub neg copy copy_p complex conj imag real name pvary pcast",
    axes.elementwise,
    "all",
)
_rows(
    "convert_element_type reduce_precision",
    axes.elementwise,
    lambda equation: None if is_coarse(equation) else "all",
    lambda equation: "jumps" if is_coarse(equation) else "keeps",
)
_rows("mul", axes.elementwise, "each")
_rows("div", axes.elementwise, "first")
_rows("select_n", axes.elementwise, "cases")
_rows("reduce_sum reduce_precision_sum", axes.reduce_axes, "all")
_rows("reduce_max reduce_min reduce_prod", axes.reduce_axes, path="keeps")
_rows("argmax argmin reduce reduce_and reduce_or reduce_xor", axes.reduce_axes)
_rows("cumsum", axes.cumulative, "all")
_rows("cumprod cummax cummin cumlogsumexp", axes.cumulative)
_rows("dot_general", axes.dot_general, "each")
_rows("ragged_dot ragged_dot_general", axes.ragged_dot, "each")
_rows("conv_general_dilated", axes.convolution, "each")
_rows("broadcast_in_dim", axes.broadcast, "first")
_rows("reshape expand_dims", axes.reshape, "first")
_rows("squeeze", axes.squeeze, "all")
_rows("transpose", axes.transpose, "all")
_rows("concatenate", axes.concatenate, "all")
_rows("stack", axes.stack, "all")
_rows("unstack", axes.unstack, "all")
_rows("split", axes.split, "all")
_rows("slice", axes.slice_, "all")
_rows("rev", axes.rev, "all")
_rows("tile", axes.tile, "all")
_rows("pad", axes.pad, "all")
_rows("dynamic_slice", axes.dynamic_slice, "first")
_rows("dynamic_update_slice", axes.dynamic_update_slice, (0, 1))
_rows("gather", axes.gather, _unless_filled)
_rows("scatter scatter-add scatter_add scatter-sub scatter_sub", axes.scatter, (0, 2))
_rows("scatter-mul scatter_mul scatter-min scatter_min scatter-max scatter_max", axes.scatter)
_rows("reduce_window_sum", axes.pooling, "first")
_rows("reduce_window_max reduce_window_min reduce_window", axes.pooling)
_rows("select_and_scatter_add select_and_gather_add", axes.pooling, "first")
_rows("sort", axes.all_but("dimension"), path="keeps")
_rows("top_k", axes.top_k, path="keeps")
_rows("approx_top_k", axes.all_but("reduction_dimension"))
_rows("fft", axes.leading(lambda equation: len(equation.eqn.params["fft_lengths"])), "all")
_rows(
    """cholesky lu eigh eig svd householder_product schur lu_pivots_to_permutation hessenberg
    tridiagonal symmetric_product""",
    axes.matrices,
)
_rows("qr geqrf", axes.matrices, path="rarely")  # in the signs of its results
_rows("triangular_solve", axes.matrices, (1,))
_rows("ormqr", axes.matrices, (2,), path="cuts")  # JAX has no derivative of it
_rows("tridiagonal_solve", axes.matrices, (3,))
_rows("custom_linear_solve", None, _right_hand_side)
_rows("optimization_barrier device_put sharding_constraint reshard", axes.per_operand, "all")
_rows("psum psum_invariant ppermute pbroadcast", axes.collective, "all")
_rows("pmax pmin", axes.collective, path="keeps")
_rows("all_gather all_gather_invariant all_gather_reduced", axes.all_gather, "all")
_rows("all_to_all reduce_scatter", None, "all")
_rows("random_seed random_wrap random_unwrap random_fold_in random_split", axes.random_bits)
_rows("random_bits", axes.random_bits, path="random")
_rows("rng_uniform rng_bit_generator", None, path="random")
