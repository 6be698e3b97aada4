"""What a distribution is: the protocol that sites and estimators use, and what all laws of mcgrad share."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mcgrad import _compat
from mcgrad._types import PRNGKey, PyTree, Shape


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that a parameter may take.

    Attributes:
        text: what the parameter must be, as error messages say it.
        holds: elementwise test of concrete values; false for NaN.
        advice: what to pass instead.
        event_ndim: how many trailing axes of the parameter are no batch axes.
    """

    text: str
    holds: Callable[[np.ndarray], np.ndarray]
    advice: str
    event_ndim: int = 0


REAL = Domain("be finite", np.isfinite, "Look for the NaN or the overflow that made it.")
POSITIVE = Domain(
    "be positive and finite",
    lambda v: (v > 0) & np.isfinite(v),
    "Pass a value above zero, for instance `jnp.exp(x)` or `jax.nn.softplus(x)`.",
)
NONNEGATIVE = Domain(
    "be at least zero and finite",
    lambda v: (v >= 0) & np.isfinite(v),
    "Pass a value that is not below zero, for instance `jax.nn.softplus(x)`.",
)
PROBABILITY = Domain(
    "lie between 0 and 1",
    lambda v: (v >= 0) & (v <= 1),
    "Pass a probability, or unconstrained values as `logits=`.",
)
LOG_ODDS = Domain("not be NaN", lambda v: ~np.isnan(v), "Look for what made it.")


class Coupling(NamedTuple):
    """How the two parts of a weak derivative are chosen and drawn together; a law follows it where it knows how.

    Attributes:
        hahn_jordan: whether the two parts have no value in common (Hahn-Jordan), the least of them that there can be; else
            one of them is the draw itself wherever that can be.
        comonotone: whether each part is drawn by its own quantiles, else both from the same noise.
    """

    hahn_jordan: bool
    comonotone: bool


class WeakDerivative(NamedTuple):
    """Terms of a law's derivative as a signed measure: `dp = sum_i dweight_i (positive_i - negative_i)`.

    Attributes:
        parameters: the fields of the law that the weights depend on; such as it does not have are left out.
        weight: `[n, *batch shape]`, a function of the parameters whose derivative multiplies the difference. Its value
            does not matter; what multiplies the derivative must be stopped (`jax.lax.stop_gradient`).
        positive: a draw from the positive part of each term, `[n, *batch shape, *event shape]`.
        negative: a draw from its negative part, coupled to the positive one.
        positive_is_draw: where one of the two is the draw that was passed in, so that the rest of the program need not be
            evaluated at it again: `[n, *batch shape]`, true where it is the positive one and false where it is the
            negative one; `None` where it is neither.
    """

    parameters: tuple[str, ...]
    weight: Array
    positive: Any
    negative: Any
    positive_is_draw: Array | None = None


class Relaxation(NamedTuple):
    """Continuous draws `z` that a draw `x = H(z)` of a discrete law comes from, for all entries of the batch.

    `E[c(free)]` and `E[w c(given)]`, with `w = p_theta(x) / stop(p_theta(x))`, are equal as functions of the parameters.

    Attributes:
        free: a draw of `z` whose `H(z)` is the draw, moved by the parameters as one that is free, its noise held.
        given: a draw of `z` given the draw, moved by the parameters, the draw and its noise held.
        log_prob: log probability of the draw, of the batch shape; without derivative where `z` has none.
    """

    free: Array
    given: Array
    log_prob: Array


def mapped(
    terms: tuple[WeakDerivative, ...], fn: Callable[[Array], Array], x: Array, **names: str
) -> tuple[WeakDerivative, ...]:
    """The terms of a law for its draw `f^-1(x)`, as terms of the law of `x`; of the parameters that have new names, if any do."""
    found = []
    for term in terms:
        kept = tuple(names.get(name, name) for name in term.parameters if name in names or not names)
        if kept:
            drawn = term.positive_is_draw
            parts = [jax.vmap(fn)(part) for part in (term.positive, term.negative)]
            if drawn is not None:  # exactly the draw, whatever the inverse rounds to
                parts = [jnp.where(where, x[None], part) for where, part in zip((drawn, ~drawn), parts, strict=True)]
            found.append(WeakDerivative(kept, term.weight, parts[0], parts[1], drawn))
    return tuple(found)


class Distribution(PyTree):
    """Base of the laws: subclass as a frozen dataclass whose fields are the parameters.

    A subclass defines `sample` and `log_prob`, and sets what more it knows (class attributes, properties or methods):

    Class attributes:
        domains: the domain of each parameter. Parameters named here are checked where they are concrete, brought to one
            floating dtype, and define the batch shape.
        event_ndim: number of event axes.
        reparameterized: whether `sample` is itself differentiable in every parameter.
        discrete: whether the law has a probability mass function.
        support_parameters: the parameters with which the support moves; score functions are biased for those.
        cdf: distribution function, elementwise, or `None`.
        survival: one minus the distribution function, with all digits where that is near one; or `None`.
        icdf: quantile function of u in (0, 1), elementwise, or `None`.
        support: a method that returns the values of a finite support, `[n, *event shape]`, the same for every entry of
            the batch; or `None`.
        prob: a method that returns probabilities with finite derivatives also where they are zero, or `None`.
        weak_derivative: a method of `(key, x, how)`, for a draw `x`, that returns a tuple of `WeakDerivative`; what it
            draws is independent of the noise of `x`, and distributed as said when `x` is a draw from the law; or `None`.
        optimal_transport: a method of a draw `x` that returns it with a derivative in the parameters that moves the law at
            the least kinetic energy; or `None`.
        adaptive_velocity: a method of the noise `noise(key)` of a draw, and of coefficients, that returns the draw with a
            derivative in the parameters that moves the law whatever the coefficients are; or `None`.
        relaxation: of a discrete law, a method of `(key, x, coupled)`, for a draw `x`, that returns a `Relaxation`; `coupled` says
            that its two draws are made of the same noise; or `None`.
    """

    domains: ClassVar[Mapping[str, Domain]] = {}
    event_ndim: ClassVar[Any] = 0
    reparameterized: ClassVar[Any] = False
    discrete: ClassVar[Any] = False
    support_parameters: ClassVar[Any] = ()
    cdf: ClassVar[Any] = None
    survival: ClassVar[Any] = None
    icdf: ClassVar[Any] = None
    support: ClassVar[Any] = None
    prob: ClassVar[Any] = None
    weak_derivative: ClassVar[Any] = None
    optimal_transport: ClassVar[Any] = None
    adaptive_velocity: ClassVar[Any] = None
    relaxation: ClassVar[Any] = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.domains if getattr(self, name) is not None}
        if not given:
            return
        for name, value in given.items():
            if not _is_real_array(value):
                raise TypeError(
                    f"`mcgrad.{self.law}({name}=...)` must be a real number or array, got "
                    f"{type(value).__name__}: {value!r}. Convert it with `jnp.asarray`."
                )
        check_shapes(
            self.law, {name: (jnp.shape(value), self.domains[name].event_ndim) for name, value in given.items()}
        )
        for name, value in given.items():
            check_domain(self.law, name, value, self.domains[name])
        dtype = _common_dtype(given.values())
        for name, value in given.items():
            object.__setattr__(self, name, jnp.asarray(value, dtype))

    @property
    def law(self) -> str:
        """The name that messages give this law."""
        return type(self).__name__

    @property
    def batch_shape(self) -> Shape:
        """Shape of the independent entries."""
        shapes = []
        for name, domain in self.domains.items():
            value = getattr(self, name)
            if value is not None:
                shape = jnp.shape(value)
                shapes.append(shape[: len(shape) - domain.event_ndim])
        return jnp.broadcast_shapes(*shapes)

    @property
    def event_shape(self) -> Shape:
        """Shape of one entry."""
        return ()

    @property
    def dtype(self) -> Any:
        """The floating dtype of parameters, densities and continuous draws."""
        return _common_dtype(value for name in self.domains if (value := getattr(self, name)) is not None)

    def sample(self, key: PRNGKey) -> Any:
        """One draw, of shape `batch_shape + event_shape`."""
        raise NotImplementedError(f"{self.law} must define `sample(key)`.")

    def log_prob(self, x: Array) -> Array:
        """Log density (or log probability) of a value, of shape `batch_shape`."""
        raise NotImplementedError(f"{self.law} must define `log_prob(x)`.")


def align(*arrays: Any) -> tuple[Array, ...]:
    """Arrays with leading axes of size one added, so that all have the same rank; scalars stay scalars.

    Under `jax_numpy_rank_promotion="raise"` JAX refuses to add those axes by itself.
    """
    ndim = max(jnp.ndim(array) for array in arrays)
    return tuple(
        jnp.asarray(array)
        if jnp.ndim(array) in (0, ndim)
        else jnp.expand_dims(array, tuple(range(ndim - jnp.ndim(array))))
        for array in arrays
    )


@jax.custom_jvp
def quotient(x: Array, y: Array) -> Array:
    """`x / y`, whose derivative `(dx - (x / y) dy) / y` has no square of `y` that overflows or underflows."""
    return x / y


@functools.partial(quotient.defjvp, symbolic_zeros=True)
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (_, y), (x_dot, y_dot) = primals, tangents
    z = quotient(*primals)
    fixed = [isinstance(tangent, jax.custom_derivatives.SymbolicZero) for tangent in tangents]
    if all(fixed):
        return z, jnp.zeros_like(z)
    if fixed[1]:
        return z, x_dot / y
    # an infinite quotient, or in reverse mode an infinite factor of the quotient zero, would give NaN
    largest = jnp.finfo(z.dtype).max
    along_y = jnp.where(z == 0, jnp.zeros_like(z), jnp.clip(z, -largest, largest) * y_dot)
    return z, (-along_y if fixed[0] else x_dot - along_y) / y


@jax.custom_jvp
def log_quotient(x: Array, y: Array) -> Array:
    """`log(x / y)` of positive numbers, with all digits where they nearly agree, and for every size of the two."""
    return log_ratio_to(x, jnp.log(x), y)


@log_quotient.defjvp
def _log_quotient_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (x, y), (x_dot, y_dot) = primals, tangents
    return log_quotient(x, y), x_dot / x - y_dot / y


def log_ratio_to(x: Array, log_x: Array, y: Array) -> Array:
    """`log(x / y)`, also where the two nearly agree, and where `x` underflows and its logarithm does not."""
    near = jnp.abs(x - y) < 0.5 * y
    return jnp.where(near, jnp.log1p(jnp.where(near, (x - y) / y, 0.0)), log_x - jnp.log(y))


def open_uniform(key: PRNGKey, shape: Shape, dtype: Any) -> Array:
    """Uniform draws that are never 0 or 1.

    `jax.random.uniform` draws multiples of `eps`, zero included. Half a step added gives a grid that is symmetric
    around one half, and exact in floating point; a smallest positive number in place of zero would, with probability
    `eps`, throw `log(u)` from -16 to -87.
    """
    return jax.random.uniform(key, shape, dtype) + jnp.asarray(jnp.finfo(dtype).eps / 2, dtype)


def largest_log_odds(dtype: Any) -> float:
    """Log odds beyond which the less likely value does not come up; its probability is the smallest normal number."""
    return -math.log(float(jnp.finfo(dtype).tiny))


def check_domain(law: str, name: str, value: Any, domain: Domain) -> None:
    """Refuse a concrete parameter with entries outside its domain."""
    if isinstance(value, _compat.Tracer):
        return
    values = np.asarray(value)
    holds = np.broadcast_to(domain.holds(values), values.shape)
    if not holds.all():
        index = tuple(int(i) for i in np.argwhere(~holds)[0])
        place = f" at index {index}" if index else ""
        raise ValueError(
            f"`mcgrad.{law}({name}=...)` must {domain.text}, got {values[index].item()!r}{place}. {domain.advice}"
        )


def check_one_of(law: str, **given: Any) -> None:
    """Refuse a law that does not get exactly one of its alternative parameters."""
    passed = [name for name, value in given.items() if value is not None]
    if len(passed) != 1:
        options = " or ".join(f"`{name}=`" for name in given)
        got = " and ".join(f"`{name}=`" for name in passed) or "neither"
        raise ValueError(f"`mcgrad.{law}(...)` must get exactly one of {options}, got {got}. Pass one of them.")


def check_shapes(law: str, shapes: Mapping[str, tuple[Shape, int]]) -> None:
    """Refuse parameters, given as `(shape, number of event axes)`, whose batch shapes do not broadcast."""
    for name, (shape, event_ndim) in shapes.items():
        if len(shape) < event_ndim:
            raise ValueError(
                f"`mcgrad.{law}({name}=...)` must have at least {event_ndim} axes, got shape {shape}. "
                f"Its last {event_ndim} axes belong to one draw; those before are batch axes."
            )
    try:
        jnp.broadcast_shapes(*(shape[: len(shape) - event_ndim] for shape, event_ndim in shapes.values()))
    except ValueError as error:
        described = ", ".join(f"{name} {shape}" for name, (shape, _) in shapes.items())
        raise ValueError(
            f"`mcgrad.{law}(...)` must get parameters whose batch shapes broadcast, got {described}. "
            "Add axes of size one where they should broadcast, for instance `scale[:, None]`."
        ) from error


def _is_real_array(value: Any) -> bool:
    if isinstance(value, (bool, int, float)):
        return True
    if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return False
    return bool(
        jnp.issubdtype(value.dtype, jnp.floating)
        or jnp.issubdtype(value.dtype, jnp.integer)
        or jnp.issubdtype(value.dtype, jnp.bool_)
    )


def _common_dtype(values: Any) -> Any:
    dtype = jnp.result_type(*values)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(dtype, float)
