"""One row of the table of distributions: what a distribution claims, and the parameters that each kind of test gives it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad

# What a distribution may know beyond `sample` and `log_prob`.
METHODS = (
    "cdf",
    "survival",
    "icdf",
    "support",
    "prob",
    "weak_derivative",
    "optimal_transport",
    "adaptive_velocity",
    "noise_of",
    "moments",
    "relaxation",
    "marginals",
)


@dataclasses.dataclass(frozen=True)
class Ordinary:
    """Ordinary parameters, in a batch.

    Attributes:
        params: of a scalar distribution, arrays that broadcast `[2, 1]` with `[3]`.
        reference: SciPy's distribution of the same parameters; or the file of tests that holds draws and densities against
            another reference.
        make: builds the distribution; the row's where it is `None`.
        knows, discrete: of this one, where they are not the row's.
    """

    params: Mapping[str, Any]
    reference: Callable[..., Any] | str
    make: Callable[..., Any] | None = None
    knows: str | None = None
    discrete: bool | None = None

    def dist(self, dtype: Any = np.float64) -> Any:
        return self.make(**{name: jnp.asarray(value, dtype) for name, value in self.params.items()})

    def scipy(self) -> Any:
        return self.reference(**{name: np.asarray(value) for name, value in self.params.items()})

    def scipy_entry(self, index: tuple[int, ...]) -> Any:
        """Of one entry of the batch."""
        shape = np.broadcast_shapes(*(np.shape(value) for value in self.params.values()))
        return self.reference(**{name: np.broadcast_to(value, shape)[index] for name, value in self.params.items()})


@dataclasses.dataclass(frozen=True)
class Corners:
    """Parameters at the ends of float32, every combination of which is taken: `make(*columns)`."""

    grid: Mapping[str, Sequence[float]]
    make: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Weak:
    """Parameters at which the weak derivatives are checked: `make(*params)`.

    Attributes:
        params: numbers.
        interval: what holds the mass, where the density is integrated; with `None`, the distribution function over the
            line, or a sum over the integers.
        num_draws: how many tell a wrong derivative from a right one.
    """

    params: Sequence[float]
    interval: tuple[float, float] | None = None
    num_draws: int = 4_000
    make: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class WeakOfVector:
    """As `Weak`, of draws that are no single numbers: `make(params)`, a cost, and its expectation as a function of `params`."""

    params: Any
    cost: Callable[[Any], Any]
    expectation: Callable[[Any], Any]
    make: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Extremes:
    """Small and large parameters at which the weak derivatives are checked: `make(*params)`.

    Attributes:
        sets: of parameters.
        of: what a cost is a function of: `jnp.log`, `jnp.arcsinh`, or the draw itself with `None`.
        ends: of the support; `None` where they are the last two parameters.
    """

    sets: Sequence[tuple[float, ...]]
    of: Callable[[Any], Any] | None = None
    ends: tuple[float, float] | None = (-math.inf, math.inf)
    make: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Twice:
    """How draws that are differentiated twice are made of two positive parameters `p`: `make(p)`, moved along a path."""

    make: Callable[[Any], Any]
    path: Any = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A distribution: what it claims, and how each kind of test makes it.

    Each of the last five is a dictionary by variant, with "" for the only one or the plain one, or a string: why these
    tests leave the distribution out.

    Attributes:
        make: the class, or a function of its parameters in their order.
        knows: the names among `METHODS` of what it has, and no others.
        discrete: whether its draws are integers, and have probabilities; else draws are reparameterized.
        moving: the parameters with which the support moves.
        event_ndim: axes of one draw.
        ordinary: densities, distribution functions, draws, shapes, dtypes.
        corners: no NaN anywhere at the ends of float32.
        weak: weak derivatives against exact ones.
        extremes: the same, at small and large parameters, in both precisions.
        twice: second derivatives of draws.
    """

    make: Callable[..., Any]
    ordinary: Mapping[str, Ordinary]
    corners: Mapping[str, Corners] | str
    weak: Mapping[str, Weak | WeakOfVector] | str
    extremes: Mapping[str, Extremes] | str
    twice: Mapping[str, Twice] | str
    knows: str = ""
    discrete: bool = False
    moving: tuple[str, ...] = ()
    event_ndim: int = 0


def view(rows: Mapping[str, Row], name: str) -> dict[str, Any]:
    """What one kind of test takes of each row: `"Gamma"` or `"Gamma, small"` to a case that knows how it is made."""
    found = {}
    for row_name, row in rows.items():
        cases = getattr(row, name)
        if not isinstance(cases, str):
            for variant, case in cases.items():
                inherited = {
                    field.name: getattr(row, field.name)
                    for field in dataclasses.fields(case)
                    if field.name in ("make", "knows", "discrete") and getattr(case, field.name) is None
                }
                found[f"{row_name}, {variant}" if variant else row_name] = dataclasses.replace(case, **inherited)
    return found


@functools.cache
def _method(name: str) -> Callable[..., Any]:
    return jax.jit(lambda dist, *args: getattr(dist, name)(*args))


def call(dist: Any, name: str, *args: Any) -> Any:
    """What a method of a distribution gives, compiled as a whole: one by one, each of its many operations would be."""
    return _method(name)(dist, *args)


# What several rows share.

LOC = [[0.5], [-2.0]]
SCALE = [0.5, 1.0, 3.0]
EXTREME = (1e-37, 1e-18, 1.0, 1e18, 1e37)
LOCATIONS = (-1e37, -1e-37, 0.0, 1e18, 1e37)
SHAPES = (1e-37, 1e-30, 1e-18, 1e-4, 0.01, 0.3, 1.0, 20.0, 1e4, 1e8, 1e18, 1e30, 1e37)

SMOOTH = "a draw is a smooth function of noise, which JAX differentiates to every order"
NO_DERIVATIVE = "discrete draws have no derivative"
INTEGERS = "the corners are those of continuous draws; those of integers are in test_distribution_edges.py"

TRANSPORT = mcgrad.Pathwise(path="optimal_transport")


def costs(x: Any) -> jax.Array:
    """Three costs, none even or odd around a distribution's center."""
    return jnp.stack([jnp.cos(0.7 * x + 0.3), jnp.tanh(x - 0.5), jnp.exp(-0.5 * x**2) + 0.3 * (x > 0.6)])
