"""Continuous distributions of vectors and matrices, with expectations in closed form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from distributions.row import EXTREME, SHAPES, TRANSPORT, Corners, Ordinary, Row, Twice, WeakOfVector, costs

TRIL = np.array([[1.0, 0.0], [-0.5, 2.0]])
_POWERS, _VECTOR = jnp.array([1.3, 0.4, 2.1]), jnp.array([0.7, -0.4, 0.5])
_FORM = jnp.array([[0.6, 0.2, 0.1], [0.2, 0.5, -0.1], [0.1, -0.1, 0.3]])
_FACTOR = jnp.array([[0.8, 0.0, 0.0], [0.3, 0.6, 0.0], [-0.4, 0.5, 0.7]])
_NUMBERS = "small and large parameters are checked of the distributions of numbers that it is made of"


def _scaled(size: Any) -> Any:
    return jnp.einsum("...,ij->...ij", size, np.array([[1.0, 0.0], [0.5, 2.0]], np.float32))


def _both_signs(loc: Any) -> Any:
    return jnp.stack([loc, -loc], -1)


def _tril(p: Any) -> Any:
    return jnp.asarray([[1.0, 0.0], [0.4, 0.8]]) * p[0] + p[1] * jnp.eye(2)


def _unit(p: Any) -> Any:
    return jnp.append(p, 0.5) / jnp.sqrt(jnp.sum(p**2) + 0.25)


def _dirichlet(a: Any) -> Any:
    """Of a product of powers."""

    def log_normalizer(a: Any) -> Any:
        return jnp.sum(jax.scipy.special.gammaln(a)) - jax.scipy.special.gammaln(jnp.sum(a))

    return jnp.exp(log_normalizer(a + _POWERS) - log_normalizer(a))


def _lkj(c: Any) -> Any:
    """Rows are independent, in uniform directions, and their squared entries on the diagonal have beta distributions."""

    def power(b: Any, a: Any, of_diagonal: Any, of_rest: Any) -> Any:
        def log_normalizer(b: Any, a: Any) -> Any:
            return sum(jax.scipy.special.gammaln(v) for v in (b, a)) - jax.scipy.special.gammaln(b + a)

        return jnp.exp(log_normalizer(b + of_diagonal, a + of_rest) - log_normalizer(b, a))

    second = lambda power_of_diagonal: power(c + 0.5, 0.5, power_of_diagonal, 0.0)  # noqa: E731
    return second(0.7) * power(c, 1.0, 1.3, 0.0) + second(0.5) * power(c, 1.0, 0.0, 1.0) / 2


def _von_mises_fisher(params: Any) -> Any:
    """The generating function; the normalizer of three entries is `k / sinh(k)`."""
    mean_direction, k = params
    moved = jnp.linalg.norm(k * mean_direction / jnp.linalg.norm(mean_direction) + _VECTOR)
    return k / jnp.sinh(k) * jnp.sinh(moved) / moved


def _multivariate_student_t(params: Any) -> Any:
    """A sum of entries has a Student distribution."""
    df, loc, factor = params
    x = jnp.tan(jnp.linspace(-np.pi / 2, np.pi / 2, 20_001)[1:-1])
    of_sum = mcgrad.StudentT(df, _VECTOR @ loc, jnp.linalg.norm(_VECTOR @ jnp.tril(factor)))
    return jnp.sum(costs(x)[1] * jnp.exp(of_sum.log_prob(x)) * (1 + x**2)) * np.pi / 20_000


ROWS = {
    "Dirichlet": Row(
        mcgrad.Dirichlet,
        {"": Ordinary({"concentration": [[0.6, 2.0, 1.0], [4.0, 0.5, 3.0]]}, "test_gamma.py")},
        knows="weak_derivative optimal_transport",
        event_ndim=1,
        corners={
            "": Corners(
                dict.fromkeys(("first", "second", "third"), SHAPES), lambda *a: mcgrad.Dirichlet(jnp.stack(a, -1))
            )
        },
        weak={"": WeakOfVector(jnp.array([0.8, 2.2, 1.3]), lambda x: jnp.prod(x**_POWERS), _dirichlet)},
        extremes=_NUMBERS,
        twice={
            "": Twice(lambda p: mcgrad.Dirichlet(jnp.append(p, 1.3))),
            "transport": Twice(lambda p: mcgrad.Dirichlet(jnp.append(p, 1.3)), TRANSPORT),
        },
    ),
    "MultivariateNormal": Row(
        mcgrad.MultivariateNormal,
        {
            "tril": Ordinary({"loc": np.ones((3, 2)), "scale_tril": TRIL}, "test_multivariate_normal.py"),
            "diag": Ordinary(
                {"loc": np.ones((3, 2)), "scale_diag": [0.5, 2.0]},
                "test_multivariate_normal.py",
                knows="weak_derivative optimal_transport noise_of moments",
            ),
        },
        knows="weak_derivative optimal_transport adaptive_velocity noise_of moments",
        event_ndim=1,
        corners={
            "": Corners(
                {"loc": (-1e37, 0.0, 1e18), "size": EXTREME},
                lambda loc, size: mcgrad.MultivariateNormal(_both_signs(loc), scale_tril=_scaled(size)),
            )
        },
        weak="checked in test_measure_valued.py with a factor and with a diagonal",
        extremes=_NUMBERS,
        twice={
            "transport": Twice(lambda p: mcgrad.MultivariateNormal(p, scale_tril=_tril(p)), TRANSPORT),
            "adaptive velocity": Twice(
                lambda p: mcgrad.MultivariateNormal(p, scale_tril=_tril(p)),
                mcgrad.Pathwise(path=mcgrad.AdaptiveVelocity(jnp.asarray([[0.3, -0.8]]), jnp.asarray([[0.5, 1.1]]))),
            ),
        },
    ),
    "MultivariateStudentT": Row(
        mcgrad.MultivariateStudentT,
        {
            "": Ordinary(
                {"df": [1.5, 4.0, 9.0], "loc": np.ones((3, 2)), "scale_tril": TRIL}, "test_multivariate_student_t.py"
            )
        },
        knows="weak_derivative",
        event_ndim=1,
        corners={
            "": Corners(
                {"df": SHAPES, "loc": (-1e37, 0.0, 1e18), "size": EXTREME},
                lambda df, loc, size: mcgrad.MultivariateStudentT(df, _both_signs(loc), _scaled(size)),
            )
        },
        weak={
            "": WeakOfVector(
                (jnp.asarray(1.5), jnp.array([0.2, -0.1, 0.4]), _FACTOR),
                lambda x: costs(_VECTOR @ x)[1],
                _multivariate_student_t,
                lambda p: mcgrad.MultivariateStudentT(*p),
            )
        },
        extremes=_NUMBERS,
        twice={"": Twice(lambda p: mcgrad.MultivariateStudentT(2 + p[0], p, scale_tril=_tril(p)))},
    ),
    "VonMisesFisher": Row(
        mcgrad.VonMisesFisher,
        {
            "": Ordinary(
                {"mean_direction": [[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]], "concentration": [0.5, 3.0]},
                "test_von_mises_fisher.py",
            )
        },
        knows="weak_derivative",
        event_ndim=1,
        corners={
            "": Corners(
                {"concentration": SHAPES},
                lambda k: mcgrad.VonMisesFisher(
                    jnp.broadcast_to(jnp.asarray([0.6, 0, 0.8], k.dtype), (*k.shape, 3)), k
                ),
            )
        },
        weak={
            "": WeakOfVector(
                (jnp.array([0.48, -0.64, 0.6]), jnp.asarray(1.7)),
                lambda x: jnp.exp(_VECTOR @ x),
                _von_mises_fisher,
                lambda p: mcgrad.VonMisesFisher(*p),
            )
        },
        extremes=_NUMBERS,
        twice={"": Twice(lambda p: mcgrad.VonMisesFisher(_unit(p), p[1]))},
    ),
    "Wishart": Row(
        mcgrad.Wishart,
        {"": Ordinary({"concentration": [1.5, 4.0], "scale_tril": TRIL}, "test_wishart.py")},
        knows="weak_derivative",
        event_ndim=2,
        corners={
            "": Corners(
                {"df": (1.0000001, 1.01, 2.0, 20.0, 1e4, 1e8, 1e18), "size": EXTREME},
                lambda df, size: mcgrad.Wishart(df, _scaled(size)),
            )
        },
        weak={
            "": WeakOfVector(
                (jnp.asarray(3.7), _FACTOR),
                lambda x: jnp.exp(-jnp.sum(_FORM * x) / 2),
                lambda p: jnp.linalg.det(jnp.eye(3) + jnp.tril(p[1]) @ jnp.tril(p[1]).T @ _FORM) ** (-p[0] / 2),
                lambda p: mcgrad.Wishart(*p),
            )
        },
        extremes=_NUMBERS,
        twice={"": Twice(lambda p: mcgrad.Wishart(3 + p[0], scale_tril=_tril(p)))},
    ),
    "LKJCholesky": Row(
        lambda concentration: mcgrad.LKJCholesky(3, concentration),
        {"": Ordinary({"concentration": [0.6, 3.0]}, "test_lkj.py")},
        knows="weak_derivative",
        event_ndim=2,
        corners={"": Corners({"concentration": SHAPES})},
        weak={
            "": WeakOfVector(jnp.asarray(1.4), lambda x: x[1, 1] ** 1.4 * x[2, 2] ** 2.6 + x[1, 1] * x[2, 0] ** 2, _lkj)
        },
        extremes=_NUMBERS,
        twice={"": Twice(lambda p: mcgrad.LKJCholesky(3, p[0] + 0.1 * p[1]))},
    ),
}
