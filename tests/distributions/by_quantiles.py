"""Continuous distributions of numbers whose draws are a closed form of uniform or normal noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

import mcgrad
from distributions.row import (
    EXTREME,
    LOC,
    LOCATIONS,
    SCALE,
    SHAPES,
    SMOOTH,
    Corners,
    Extremes,
    Ordinary,
    Row,
    Twice,
    Weak,
)


class _Kumaraswamy(scipy.stats.rv_continuous):
    """SciPy has none."""

    def _pdf(self, x: Any, a: Any, b: Any) -> Any:
        return a * b * x ** (a - 1) * (1 - x**a) ** (b - 1)

    def _cdf(self, x: Any, a: Any, b: Any) -> Any:
        return 1 - (1 - x**a) ** b

    def _ppf(self, u: Any, a: Any, b: Any) -> Any:
        return (1 - (1 - u) ** (1 / b)) ** (1 / a)


_TAMER = "of a location and a scale, as others are that are checked there: Logistic and Gumbel"
_SCALED = "of a scale alone, by which a draw is multiplied"


def _location_scale(name: str, reference: Any, extremes: Any = _TAMER, further: str = " moments") -> Row:
    return Row(
        getattr(mcgrad, name),
        {"": Ordinary({"loc": LOC, "scale": SCALE}, reference)},
        knows="cdf survival icdf weak_derivative" + further,
        corners={"": Corners({"loc": LOCATIONS, "scale": EXTREME})},
        weak={"": Weak([0.3, 0.8])},
        extremes=extremes,
        twice=SMOOTH,
    )


ROWS = {
    "Normal": _location_scale("Normal", scipy.stats.norm, further=" noise_of moments"),
    "HalfNormal": Row(
        mcgrad.HalfNormal,
        {"": Ordinary({"scale": SCALE}, lambda scale: scipy.stats.halfnorm(scale=scale))},
        knows="cdf survival icdf weak_derivative",
        corners={"": Corners({"scale": EXTREME})},
        weak={"": Weak([0.8])},
        extremes=_SCALED,
        twice=SMOOTH,
    ),
    "LogNormal": Row(
        mcgrad.LogNormal,
        {
            "": Ordinary(
                {"loc": LOC, "scale": [0.5, 1.0, 0.2]},
                lambda loc, scale: scipy.stats.lognorm(scale, scale=np.exp(loc)),
            )
        },
        knows="cdf survival icdf weak_derivative moments",
        corners={"": Corners({"loc": (-1e37, -80.0, 0.0, 80.0, 1e37), "scale": EXTREME})},
        weak={"": Weak([0.2, 0.6])},
        extremes="the exponential of a Normal",
        twice=SMOOTH,
    ),
    "Uniform": Row(
        mcgrad.Uniform,
        {
            "": Ordinary(
                {"low": [[0.25], [-2.0]], "high": SCALE},
                lambda low, high: scipy.stats.uniform(low, np.asarray(high) - low),
            )
        },
        knows="cdf icdf weak_derivative moments",
        moving=("low", "high"),
        corners={"": Corners({"low": (-1e38, -1.0, 0.0), "high": (1e-37, 1.0, 1e38)})},
        weak={"": Weak([-0.4, 1.1])},
        extremes="no density tells of mass at an end that moves",
        twice=SMOOTH,
    ),
    "Exponential": Row(
        mcgrad.Exponential,
        {"": Ordinary({"rate": SCALE}, lambda rate: scipy.stats.expon(scale=1 / rate))},
        knows="cdf survival icdf weak_derivative moments",
        corners={"": Corners({"rate": EXTREME})},
        weak={"": Weak([1.3])},
        extremes=_SCALED,
        twice=SMOOTH,
    ),
    "Laplace": _location_scale("Laplace", scipy.stats.laplace),
    "Logistic": _location_scale("Logistic", scipy.stats.logistic, {"": Extremes([(0.0, 1.0), (3.0, 0.05)])}),
    "Cauchy": _location_scale("Cauchy", scipy.stats.cauchy, further=""),
    "Gumbel": _location_scale("Gumbel", scipy.stats.gumbel_r, {"": Extremes([(0.0, 1.0), (3.0, 0.05)])}),
    "Weibull": Row(
        mcgrad.Weibull,
        {
            "": Ordinary(
                {"scale": [[0.5], [2.0]], "concentration": [0.7, 1.0, 2.5]},
                lambda scale, concentration: scipy.stats.weibull_min(concentration, scale=scale),
            )
        },
        knows="cdf survival icdf weak_derivative",
        corners={"": Corners({"scale": EXTREME, "concentration": SHAPES})},
        weak={"": Weak([1.2, 1.6])},
        extremes="the distribution of a user that is checked there is this one",
        twice=SMOOTH,
    ),
    "Kumaraswamy": Row(
        mcgrad.Kumaraswamy,
        {
            "": Ordinary(
                {"concentration1": [[0.5], [2.0]], "concentration0": [0.7, 1.0, 2.5]},
                lambda concentration1, concentration0: _Kumaraswamy(0, 0, 1, shapes="a, b")(
                    concentration1, concentration0
                ),
            )
        },
        knows="cdf icdf weak_derivative",
        corners={"": Corners({"concentration1": SHAPES, "concentration0": SHAPES})},
        weak={"": Weak([1.8, 2.2], (1e-12, 1.0))},
        extremes={"": Extremes([(0.2, 0.6), (5.0, 0.5), (3.0, 40.0)], ends=(0, 1))},
        twice={"": Twice(lambda p: mcgrad.Kumaraswamy(p[0], p[1]))},
    ),
    "Pareto": Row(
        mcgrad.Pareto,
        {
            "": Ordinary(
                {"scale": [[0.5], [2.0]], "concentration": [0.7, 1.0, 2.5]},
                lambda scale, concentration: scipy.stats.pareto(concentration, scale=scale),
            )
        },
        knows="cdf icdf weak_derivative",
        moving=("scale",),
        corners={"": Corners({"scale": EXTREME, "concentration": SHAPES})},
        weak={"": Weak([0.6, 2.3], (0.5, 1e9))},
        extremes="no density tells of mass at an end that moves",
        twice=SMOOTH,
    ),
}
