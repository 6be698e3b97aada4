"""Continuous distributions of numbers whose draws have a derivative of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad
from distributions.row import EXTREME, LOC, SCALE, SHAPES, TRANSPORT, Corners, Extremes, Ordinary, Row, Twice, Weak

_SMALL_AND_LARGE = [[0.6], [4.0]]


ROWS = {
    "Gamma": Row(
        mcgrad.Gamma,
        {"": Ordinary({"concentration": _SMALL_AND_LARGE, "rate": SCALE}, "test_gamma.py")},
        knows="cdf survival weak_derivative moments",
        corners={"": Corners({"concentration": SHAPES, "rate": EXTREME})},
        weak={"": Weak([2.3, 1.4], (1e-9, 60.0)), "small": Weak([0.4, 0.8], (1e-30, 60.0))},
        extremes={"": Extremes([(0.1, 1.0), (1.0, 3.0), (30.0, 0.1), (1e4, 1.0)], jnp.log)},
        twice={"": Twice(lambda p: mcgrad.Gamma(p[0], p[1]))},
    ),
    "ExpGamma": Row(
        mcgrad.ExpGamma,
        {"": Ordinary({"concentration": _SMALL_AND_LARGE, "rate": SCALE}, "test_gamma.py")},
        knows="weak_derivative",
        corners={"": Corners({"concentration": SHAPES, "rate": EXTREME})},
        weak={"": Weak([0.3, 1.4], (-110.0, 5.0))},
        extremes="the logarithm of a Gamma",
        twice={"": Twice(lambda p: mcgrad.ExpGamma(p[0], p[1]))},
    ),
    "InverseGamma": Row(
        mcgrad.InverseGamma,
        {"": Ordinary({"concentration": _SMALL_AND_LARGE, "rate": SCALE}, "test_gamma.py")},
        knows="weak_derivative",
        corners={"": Corners({"concentration": SHAPES, "rate": EXTREME})},
        weak={"": Weak([2.3, 1.4], (1e-3, 1e9))},
        extremes={"": Extremes([(0.2, 1.0), (1.0, 3.0), (1e3, 1.0)], jnp.log)},
        twice={"": Twice(lambda p: mcgrad.InverseGamma(p[0], p[1]))},
    ),
    "Chi2": Row(
        mcgrad.Chi2,
        {"": Ordinary({"df": SCALE}, "test_gamma.py")},
        knows="cdf survival weak_derivative",
        corners={"": Corners({"df": SHAPES})},
        weak={"": Weak([1.7], (1e-30, 90.0))},
        extremes="a Gamma of half the degrees of freedom",
        twice="a Gamma of half the degrees of freedom",
    ),
    "NoncentralChi2": Row(
        mcgrad.NoncentralChi2,
        {"": Ordinary({"df": _SMALL_AND_LARGE, "noncentrality": SCALE}, "test_noncentral_chi2.py")},
        knows="cdf",
        corners={
            "": Corners(
                {"df": (*(a for a in SHAPES if a < 1e28), 1e28), "noncentrality": (0.0, 1e-37, 1e-18, 0.3, 1e4, 4e9)}
            )
        },
        weak="it has no weak derivative",
        extremes="it has no weak derivative",
        twice={"": Twice(lambda p: mcgrad.NoncentralChi2(p[0], p[1]))},
    ),
    "Beta": Row(
        mcgrad.Beta,
        {"": Ordinary({"concentration1": _SMALL_AND_LARGE, "concentration0": SCALE}, "test_gamma.py")},
        knows="cdf survival weak_derivative optimal_transport moments",
        corners={"": Corners({"concentration1": SHAPES, "concentration0": SHAPES})},
        weak={"": Weak([2.4, 1.7], (1e-12, 1.0), num_draws=20_000)},
        extremes={"": Extremes([(0.1, 0.6), (0.3, 20.0), (50.0, 0.5), (300.0, 200.0)], ends=(0, 1))},
        twice={
            "": Twice(lambda p: mcgrad.Beta(p[0], p[1])),
            "transport": Twice(lambda p: mcgrad.Beta(p[0], p[1]), TRANSPORT),
        },
    ),
    "F": Row(
        mcgrad.F,
        {"": Ordinary({"df1": [[1.5], [4.0]], "df2": SCALE}, "test_gamma.py")},
        knows="cdf survival weak_derivative",
        corners={"": Corners({"df1": SHAPES, "df2": SHAPES})},
        weak={"": Weak([1.6, 1.2], (1e-12, 1e12), num_draws=200_000)},
        extremes={"": Extremes([(0.5, 0.7), (3.0, 0.4), (3.0, 2.0)], jnp.log)},
        twice={"": Twice(lambda p: mcgrad.F(p[0], p[1]))},
    ),
    "StudentT": Row(
        mcgrad.StudentT,
        {"": Ordinary({"df": [[1.5], [4.0]], "loc": SCALE, "scale": SCALE}, "test_gamma.py")},
        knows="cdf survival weak_derivative",
        corners={"": Corners({"df": SHAPES, "loc": (-1e37, 0.0, 1e18), "scale": EXTREME})},
        weak={"": Weak([1.5, 0.3, 0.8], (-np.inf, np.inf), num_draws=100_000)},
        extremes={"": Extremes([(0.5, 0.0, 1.0), (2.0, 1.0, 0.1), (8.0, -1.0, 5.0)], jnp.arcsinh)},
        twice={"": Twice(lambda p: mcgrad.StudentT(2 + p[0], 0.3, p[1]))},
    ),
    "VonMises": Row(
        mcgrad.VonMises,
        {"": Ordinary({"loc": LOC, "concentration": SCALE}, "test_von_mises.py")},
        knows="cdf weak_derivative",
        corners={"": Corners({"loc": (-3.0, 0.0, 1e4, 1e37), "concentration": SHAPES})},
        weak={"": Weak([0.4, 1.7], (-np.pi, np.pi))},
        extremes={"": Extremes([(0.4, 0.3), (0.4, 3.0), (0.4, 300.0)], ends=(-np.pi, np.pi))},
        twice={"": Twice(lambda p: mcgrad.VonMises(p[0], p[1]))},
    ),
    "TruncatedNormal": Row(
        mcgrad.TruncatedNormal,
        {"": Ordinary({"loc": LOC, "scale": SCALE, "low": -3.0, "high": 0.7}, "test_truncated_normal.py")},
        knows="cdf icdf weak_derivative",
        moving=("low", "high"),
        corners={
            "": Corners(
                {
                    "loc": (-1e37, -1e4, 0.0, 1e37),
                    "scale": EXTREME,
                    "low": (-np.inf, -1e37, 0.0),
                    "high": (1e-37, 1e-4, 1.0, 1e37, np.inf),
                }
            )
        },
        weak={"": Weak([0.4, 0.9, -0.5, 1.8], (-0.6, 1.9))},
        extremes={
            "": Extremes(
                [(0.0, 1.0, 2.0, 3.0), (0.5, 1.0, -3.0, 8.0), (0.3, 0.5, -9.0, 0.0)],
                ends=None,
                make=lambda loc, scale, low, high: mcgrad.TruncatedNormal(
                    loc, scale, *map(jax.lax.stop_gradient, (low, high))
                ),
            )
        },
        twice={"": Twice(lambda p: mcgrad.TruncatedNormal(p[0], p[1], -0.4, 2.0))},
    ),
    "InverseGaussian": Row(
        mcgrad.InverseGaussian,
        {"": Ordinary({"mean": SCALE, "concentration": SCALE}, "test_inverse_gaussian.py")},
        knows="cdf weak_derivative",
        corners={"": Corners({"mean": EXTREME, "concentration": EXTREME})},
        weak={"": Weak([1.1, 1.9], (1e-3, 90.0))},
        extremes={"": Extremes([(1.0, 0.1), (1.0, 1.0), (2.0, 300.0)], jnp.log)},
        twice={"": Twice(lambda p: mcgrad.InverseGaussian(p[0], p[1]))},
    ),
}
