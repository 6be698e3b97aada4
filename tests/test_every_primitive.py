"""Every primitive of JAX has a row, and what its row says is true: of axes by changing entries, of linearity by adding.

The primitives are found in the jaxprs of calls of JAX's public functions (`tests/fuzz/calls.py`) and among those that
`jax.extend.core.primitives` names, so that one of a newer JAX without a row is reported here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core.primitives
import jax.numpy as jnp
import numpy as np
import pytest
from fuzz import calls
from fuzz.windows import allowed_by

from mcgrad.program import axis_rules, primitives
from mcgrad.program.cuts import cuts_by_its_rule
from mcgrad.program.dependence import Analysis, StandIn, _Pass
from mcgrad.program.known import Known
from mcgrad.program.relation import Window
from mcgrad.program.structure import _CLASSES
from mcgrad.program.trace import Constant, Equation, Program, Value, from_jaxpr

MOST_CASES = 6
"""Of one primitive, how many equations of different parameters and shapes are looked at."""

WITHOUT_A_ROW = {
    "iota empty empty2 create_token after_all axis_index platform_index": "read no numbers",
    "jit closed_call call eval_jaxpr": "are inlined, or not made by public functions",
    "get swap": "belong to references, which a program of draws cannot have as arguments",
    "select_and_scatter": "made by no public function",
    "custom_lin": "occurs while JAX linearizes only",
    "ragged_all_to_all": "mixes what is on different devices",
    "scaled_dot": "has scales for blocks of entries, and is there for low precision",
    "dce_sink": "has no results",
}
"""Primitives that count as depending on all of their operands, and why."""

NO_CALL = {
    "copy_p debug_nans eq_to log2 one_minus_square copysign expand_dims lt_to le_to polynomial": "in some versions of JAX only",
    "reduce_precision_sum scatter_add scatter_mul scatter_min scatter_max scatter_sub scatter-sub": "names of some versions",
    "ragged_dot": "the name in some versions",
    "pcast pvary sharding_constraint reshard": "need a mesh of devices",
    "random_gamma_grad": "is inlined on CPUs",
    "mcgrad_threshold mcgrad_forward_only mcgrad_smooth": "mcgrad's own, tested with what makes them",
    "mcgrad_history mcgrad_conditionals": "mcgrad's own, of sequences",
}
"""Rows that no call of this JAX may reach, and why."""

NOT_RUN = {
    "rng_bit_generator rng_uniform": "take a state of a length that depends on the device",
    "psum psum_invariant pmax pmin ppermute pbroadcast all_to_all reduce_scatter": "need a mesh, in `test_costs_of_devices.py`",
    "all_gather all_gather_invariant all_gather_reduced": "need a mesh, in `test_costs_of_devices.py`",
}
"""Rows whose calls cannot be run here, and why."""

CHANGES = (0.37, -5.0, 5.0)


def names(table: dict[str, str]) -> set[str]:
    return {name for several in table for name in several.split()}


@pytest.fixture(scope="module")
def equations() -> dict[str, list[tuple[Equation, Program]]]:
    filtering = jax.config.values["jax_traceback_filtering"]
    jax.config.update("jax_traceback_filtering", "off")  # takes most of the time where a function refuses arguments
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        found = calls.equations()
    jax.config.update("jax_traceback_filtering", filtering)
    return found


def test_every_primitive_has_a_row_or_a_reason(equations: dict[str, list[Any]]) -> None:
    module = jax.extend.core.primitives
    named = {getattr(module, name).name for name in dir(module) if name.endswith("_p")}
    known = set(primitives._RULES) | set(_CLASSES) | names(WITHOUT_A_ROW)
    assert not (named | set(equations)) - known
    assert not names(WITHOUT_A_ROW) & set(primitives._RULES)


LINEAR = (
    "scatter",
    "scatter-add",
    "fft",
    "conv_general_dilated",
    "optimization_barrier",
    "device_put",
    "triangular_solve",
    "custom_linear_solve",
    "reduce_window_sum",
    "cumsum",
    "select_n",
    "name",
    "select_and_scatter_add",
    "select_and_gather_add",
)


def test_what_is_linear_has_a_row_that_says_so(equations: dict[str, list[Any]]) -> None:
    for name in LINEAR:
        assert any(primitives.linear_group(e, [i]) for e, _ in equations[name] for i in range(len(e.inputs))), name


class Case:
    """One equation as a function of its operands but literals, with integers that the program knows as they are or unknown."""

    def __init__(self, equation: Equation, program: Program, *, known: bool):
        table = Known(program)
        values = {v: None if isinstance(v, Constant) and v.literal else table.value(v) for v in equation.inputs}
        fixed = {v: x for v, x in values.items() if known and x is not None}
        self.equation, self.known, self.any_known = equation, known, bool(fixed)
        free = [v for v in dict.fromkeys(equation.inputs) if not isinstance(v, Constant) or not v.literal]
        self.free = [v for v in free if v not in fixed]
        rng = np.random.default_rng(0)
        self.base = [_base(rng, v, values[v], equation.name) for v in self.free]
        self.other = [_base(rng, v, values[v], equation.name) for v in self.free]

        def results(*operands: Any) -> list[Any]:
            given = {**fixed, **dict(zip(self.free, map(_from_data, self.free, operands), strict=True))}

            def read(value: Value) -> Any:
                return jnp.asarray(value.value if isinstance(value, Constant) and value.literal else given[value])

            return [_to_data(x) for x in equation.evaluate(read)]

        self.fn = results

    def steps(self) -> list[tuple[int, tuple[int, ...], list[Any]]]:
        """Operands with one entry changed: which operand, which entry, and all operands."""
        found = []
        for i, x in enumerate(self.base):
            for entry in np.ndindex(x.shape):
                for change in CHANGES:
                    changed = x.copy()
                    changed[entry] = _changed(x[entry], change, self.equation.name)
                    found.append((i, entry, [*self.base[:i], changed, *self.base[i + 1 :]]))
        return found

    def sums(self) -> list[tuple[list[Any], list[Any], list[Any], list[int]]]:
        """Operands `a`, `b` and `a + b` in those in which the equation is said to be linear, and which results matter."""
        found = {}
        for i, value in enumerate(self.equation.inputs):
            if value in self.free and jnp.issubdtype(value.dtype, jnp.inexact):
                group = primitives.linear_group(self.equation, [i])
                found[group] = {self.equation.inputs[j] for j in group or ()}
        triples = []
        for group in found.values():
            linear = [v in group and jnp.issubdtype(v.dtype, jnp.inexact) for v in self.free]
            a, b = self.base, [y if is_one else x for x, y, is_one in zip(self.base, self.other, linear, strict=True)]
            both = [x + y if is_one else x for x, y, is_one in zip(a, self.other, linear, strict=True)]
            constants = any(isinstance(v, Constant) and v.literal and np.any(v.value) for v in group)
            if any(linear) and not constants:
                triples.append((a, b, both))
        return triples

    def allowed(self, as_one: bool) -> list[list[np.ndarray]]:
        """By operand and result, which entries of the operand an entry of the result may depend on.

        Args:
            as_one: whether the entries of an operand are seen as along one plate, not as along its axes.
        """
        program = from_jaxpr(jax.make_jaxpr(self.fn)(*self.base))
        plates = [(x.size,) if as_one else x.shape for x in self.base]
        sources = [StandIn(p) for p in plates]
        given = [
            {s: (Window(tuple(range(x.ndim)), 0, 0),) if as_one else tuple(Window(a, 0, 0) for a in range(x.ndim))}
            for s, x in zip(sources, self.base, strict=True)
        ]
        found = _Pass(Analysis(), Known(program)).run(program, given)
        return [
            [
                (allowed_by(r[s], o.shape, p) if s in r else np.zeros((*o.shape, *p), bool)).reshape(o.shape + x.shape)
                for o, r in zip(program.outputs, found, strict=True)
            ]
            for s, p, x in zip(sources, plates, self.base, strict=True)
        ]


def _is_key(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _from_data(value: Value, x: Any) -> Any:
    return jax.random.wrap_key_data(x, impl="threefry2x32") if _is_key(value) else x


def _to_data(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _base(rng: np.random.Generator, value: Value, known: Any, name: str) -> np.ndarray:
    """Random numbers that the operations like: matrices that are positive definite, indices that are small."""
    if _is_key(value):
        return rng.integers(0, 2**31, (*value.shape, 2)).astype(np.uint32)
    if known is not None:
        return np.array(known)
    shape, dtype = value.shape, value.dtype
    if jnp.issubdtype(dtype, jnp.bool_):
        return np.array(rng.random(shape) > 0.5)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return np.array(
            np.iinfo(dtype).max - rng.integers(9, 99, shape) if name == "mulhi" else rng.integers(0, 3, shape), dtype
        )
    x = rng.uniform(0.2, 0.9, shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        x = x + 1j * rng.uniform(0.2, 0.9, shape)
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        x = x + np.swapaxes(x, -1, -2) + 3 * np.eye(shape[-1])
    return np.array(1 + np.round(x) if name == "polygamma" else x, dtype)


def _changed(x: Any, change: float, name: str) -> Any:
    if name == "is_finite":
        return np.inf
    if name == "mulhi":
        return x // 2
    if x.dtype == np.bool_:
        return not x
    if np.issubdtype(x.dtype, np.integer):
        return x + x.dtype.type(2 if change > 1 else 1)
    return x + x.dtype.type(change * (1 + 0.3j) if np.issubdtype(x.dtype, np.complexfloating) else change)


def cases_of(found: list[tuple[Equation, Program]]) -> list[Case]:
    apart = [(e, p) for e, p in found if len(set(e.inputs)) == len(e.inputs) and e.outputs]
    chosen = [pair for pair in apart or found if not pair[0].eqn.effects]
    if primitives.rule_of(chosen[0][0]).axes is axis_rules.elementwise:
        chosen.sort(key=lambda pair: sum(isinstance(v, Constant) for v in pair[0].inputs))
        chosen = chosen[:: max(1, len(chosen) // 3)]
    elif len(chosen) > MOST_CASES:  # those by hand come first; of those by introspection, some
        chosen = chosen[: MOST_CASES - 2] + chosen[MOST_CASES - 2 :: len(chosen) // 2]
    both = [Case(*pair, known=known) for pair in chosen for known in (True, False)]
    return [case for case in both if case.free and (case.any_known or not case.known)]


@functools.cache
def _differs(dtype: Any) -> float:
    return 1e-9 if dtype in (np.float64, np.complex128) else 1e-4


def differ(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where two results differ by more than rounding."""
    if not np.issubdtype(x.dtype, np.inexact):
        return x != y
    with np.errstate(all="ignore"):
        return ~((np.abs(x - y) <= _differs(x.dtype) * (1 + np.abs(x))) | (x == y) | (np.isnan(x) & np.isnan(y)))


@pytest.mark.parametrize("name", sorted(primitives._RULES))
def test_what_a_row_says_is_true(name: str, equations: dict[str, list[Any]]) -> None:
    if name not in equations or name in names(NOT_RUN):
        assert name in names(NO_CALL | NOT_RUN), "no call reaches this row"
        return
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        cases = cases_of(equations[name])
        assert cases
        run = jax.jit(lambda operands: [case.fn(*xs) for case, xs in zip(cases, operands, strict=True)])
        check_dependence(cases, run)
        check_linear(cases, run)
    of_path: dict[primitives.Path, list[Equation]] = {}
    for equation, _ in equations[name]:
        of_path.setdefault(primitives.path_of(equation), []).append(equation)
    for path, found in of_path.items():
        check_path(path, found)


def each(cases: list[Case], run: Callable[..., Any], operands: list[list[Any]]) -> list[list[list[np.ndarray]]]:
    """The results of each case on each of its lists of operands, all cases in one compiled call."""
    found: list[list[Any]] = [[] for _ in cases]
    for k in range(max(map(len, operands))):
        results = run([xs[k] if k < len(xs) else case.base for case, xs in zip(cases, operands, strict=True)])
        for case_found, xs, result in zip(found, operands, results, strict=True):
            if k < len(xs):
                case_found.append([np.asarray(x) for x in result])
    return found


def check_dependence(cases: list[Case], run: Callable[..., Any]) -> None:
    moved = 0
    steps = [case.steps() for case in cases]
    results = each(cases, run, [[case.base, *(xs for *_, xs in s)] for case, s in zip(cases, steps, strict=True)])
    for case, s, (base, *found) in zip(cases, steps, results, strict=True):
        truth = [[np.zeros(x.shape + o.shape, bool) for o in base] for x in case.base]
        for (i, entry, _), outputs in zip(s, found, strict=True):
            for seen, x, y in zip(truth[i], base, outputs, strict=True):
                seen[entry] |= differ(x, y)
        for as_one in (False, True):
            for i, (seen, said) in enumerate(zip(truth, case.allowed(as_one), strict=True)):
                for s_, a in zip(seen, said, strict=True):
                    n = case.base[i].ndim
                    at = np.moveaxis(s_, range(n), range(-n, 0)) if n else s_
                    assert not np.any(at & ~a), (str(case.equation.eqn)[:600], i)
                    moved += int(at.sum())
    assert moved, "nothing depends on anything"


def check_path(path: primitives.Path, equations: list[Equation]) -> None:
    """What the row says of derivatives against the rule for derivatives that JAX has."""
    found = set()
    for equation in equations:
        moving = [v for v in equation.inputs if v.is_inexact and not isinstance(v, Constant)]
        if moving and any(v.is_inexact for v in equation.outputs):
            found.add(cuts_by_its_rule(equation))
    if path == "keeps" and found:
        assert False in found  # others may be constant: a power of zero
    if path == "cuts":
        assert found == {True}
    if path == "steps":
        assert found == {True}  # a derivative of zero
    if path in ("jumps", "rarely"):
        assert found
    if path == "constant":
        assert not found


def check_linear(cases: list[Case], run: Callable[..., Any]) -> None:
    sums = [case.sums() for case in cases]
    if not any(sums):
        return
    results = each(cases, run, [[xs for triple in s for xs in triple] for s in sums])
    for case, found in zip(cases, results, strict=True):
        for k in range(0, len(found), 3):
            for a, b, both in zip(*found[k : k + 3], strict=True):
                assert not np.any(differ(a + b, both)), (str(case.equation.eqn)[:600], a, b, both)
