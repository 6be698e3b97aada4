"""Exact derivatives of draws in the parameters of their law, by mpmath, and the grid of parameters where they are compared.

For a distribution function `F` and density `p` it is `-(dF / dparam) / p` at the draw. For a law that is a smooth function of
gamma draws, each of which moves so, it is the chain rule at these *parts* of a draw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from mpmath import mp, mpf

mp.dps = 50
_BITS = 192  # of the sums in fixed point

GRIDS: dict[str, dict[str, Sequence[float]]] = {
    "Normal": {"loc": (0, 0, 0, 2.5), "scale": (1e-15, 1, 1e15, 0.7)},
    "HalfNormal": {"scale": (1e-15, 1, 1e15)},
    "LogNormal": {"loc": (0, -30, 30, 0.5), "scale": (1, 0.01, 5, 10)},
    "Uniform": {"low": (0, -1e15, 1e-15, -1), "high": (1, 1e15, 1, 2)},
    "Exponential": {"rate": (1e-15, 1, 1e15)},
    "Laplace": {"loc": (0, 0, 0, 2.5), "scale": (1e-15, 1, 1e15, 0.7)},
    "Logistic": {"loc": (0, 0, 0, 2.5), "scale": (1e-15, 1, 1e15, 0.7)},
    "Cauchy": {"loc": (0, 0, 0, 2.5), "scale": (1e-15, 1, 1e15, 0.7)},
    "Gumbel": {"loc": (0, 0, 0, 2.5), "scale": (1e-15, 1, 1e15, 0.7)},
    "Weibull": {"scale": (1, 1e-10, 1, 2, 1, 1e10), "concentration": (0.1, 0.5, 1, 5, 100, 1e4)},
    "Pareto": {"scale": (1, 1e-10, 1, 2, 1, 1e10), "concentration": (0.3, 0.5, 1, 5, 100, 1e4)},
    "Kumaraswamy": {"concentration1": (0.1, 0.5, 1, 2, 50, 0.1, 1e3), "concentration0": (0.3, 0.5, 1, 5, 0.3, 20, 1e3)},
    "Gamma": {"concentration": (0.01, 0.1, 0.5, 1, 5, 100, 1e4, 1e8, 3, 3), "rate": (*8 * (1,), 1e-15, 1e15)},
    "ExpGamma": {"concentration": (1e-4, 0.01, 0.1, 0.5, 1, 5, 100, 1e4, 1e8), "rate": (*8 * (1,), 2)},
    "InverseGamma": {"concentration": (0.1, 0.5, 1, 5, 100, 1e4, 1e8, 3), "rate": (*7 * (1,), 1e10)},
    "Chi2": {"df": (0.1, 0.5, 1, 5, 100, 1e4, 1e8)},
    "Beta": {"concentration1": (0.01, 0.1, 0.5, 1, 5, 100, 1e6), "concentration0": (0.01, 3, 0.5, 1, 0.3, 200, 1e6)},
    "Dirichlet": {"c1": (0.01, 0.1, 0.5, 1, 5, 1e4), "c2": (0.02, 3, 0.5, 1, 0.3, 1e4), "c3": (0.1, 0.1, 0.5, 1, 100, 1e4)},
    "StudentT": {"df": (0.3, 0.5, 1, 5, 100, 1e4, 1e8), "scale": (1, 1, 1, 2, 1, 1, 1)},
    "F": {"df1": (0.5, 1, 5, 100, 1e4, 3, 1e6), "df2": (0.5, 3, 5, 200, 1e4, 1e6, 1e6)},
    "VonMises": {"concentration": (1e-4, 0.1, 1, 10, 100, 1e4, 1e6)},
    "TruncatedNormal": {
        "loc": (0, 0, 0, 0, 0, 0, 0),
        "scale": (1, 1, 1, 1, 2, 1, 1),
        "low": (-1, 5, 30, -3, -40, -0.001, 1e3),
        "high": (2, math.inf, math.inf, 30, -20, 0.001, 1.001e3),
    },
    "InverseGaussian": {
        "mean": (1, 1, 1, 1, 1, 1e-10, 1e10, 3),
        "concentration": (0.01, 0.3, 1, 10, 1e4, 1e-10, 1e10, 2),
    },
    "Mixture": {"logit": (0, 3, -8, 0), "loc": (2, 1, 5, 20), "scale": (1, 0.1, 3, 1)},
}  # fmt: skip
"""Parameters of each law, one grid point a column. `StudentT` and `VonMises` have `loc` zero; `Dirichlet` has three entries, the
draw that is looked at is the first; `Mixture` has the components `Normal(0, 1)`, and `Normal(loc, scale)` with `logit` more."""


@functools.cache
def gamma_velocity(a: Any, log_x: Any) -> Any:
    """`d log(x) / da` at a fixed quantile of the gamma law of rate one: the series of the incomplete gamma function, term by
    term: `sum_n t_n (h_n - log x + psi(a))` with `t_n = x^n / (a (a + 1) ... (a + n))` and `h_n = 1 / a + ... + 1 / (a + n)`.
    """
    one = 1 << _BITS
    fixed = lambda value: int(mp.floor(value * one))  # noqa: E731
    step, x = fixed(a), fixed(mp.exp(log_x)) if log_x > -2 * _BITS else 0
    term = harmonic = one * one // step
    first, second = term, term * harmonic >> _BITS
    while term:
        step += one
        term = term * x // step
        harmonic += one * one // step
        first, second = first + term, second + (term * harmonic >> _BITS)
    return mpf(second) / one - mpf(first) / one * (log_x - mp.digamma(a))


def _location_scale(x: Any, parts: Any, loc: Any, scale: Any) -> Any:
    return {"loc": mpf(1), "scale": (x - loc) / scale}


def _kumaraswamy(x: Any, parts: Any, concentration1: Any, concentration0: Any) -> Any:
    rest = 1 - x**concentration1
    in_second = rest * mp.log(rest) / (concentration1 * concentration0 * x ** (concentration1 - 1))
    return {"concentration1": -x * mp.log(x) / concentration1, "concentration0": in_second}


def _beta(x: Any, parts: Any, concentration1: Any, concentration0: Any) -> Any:
    weight = 1 / (2 + 2 * mp.cosh(parts[0] - parts[1]))  # x (1 - x)
    first, second = gamma_velocity(concentration1, parts[0]), gamma_velocity(concentration0, parts[1])
    return {"concentration1": weight * first, "concentration0": -weight * second}


def _dirichlet(x: Any, parts: Any, **concentrations: Any) -> Any:
    masses = [mp.exp(part - max(parts)) for part in parts]
    shares = [mass / mp.fsum(masses) for mass in masses]
    moves = [gamma_velocity(a, part) for a, part in zip(concentrations.values(), parts, strict=True)]
    weights = [shares[0] * mp.fsum(shares[1:]), -shares[0] * shares[1], -shares[0] * shares[2]]
    return {name: w * v for name, w, v in zip(concentrations, weights, moves, strict=True)}


def _log_ratio_velocity(log_ratio: Any, df: Any) -> Any:
    """`d log(y / df) / ddf` of a chi-squared draw `y`."""
    return (gamma_velocity(df / 2, log_ratio + mp.log(df / 2)) - 2 / df) / 2


def _von_mises(x: Any, parts: Any, concentration: Any) -> Any:
    k, theta = concentration, abs(x)
    mean = mp.besseli(1, k) / mp.besseli(0, k)
    width = min(mp.pi - theta, 14 / mp.sqrt(k) * (1 if k > 1 else 99))
    grown = lambda t: (mp.cos(t) - mean) * mp.exp(k * (mp.cos(t) - mp.cos(theta)))  # noqa: E731
    return {"concentration": mp.sign(x) * mp.quad(grown, mp.linspace(theta, theta + width, 3), maxdegree=7)}


def _truncated_normal(x: Any, parts: Any, loc: Any, scale: Any, low: Any, high: Any) -> Any:
    def tail(
        t: Any, side: int
    ) -> tuple[Any, Any, Any]:  # masses and density of the normal law, from the side of the tail
        z = (t - loc) / scale
        density = mp.npdf(z) if mp.isfinite(z) else mpf(0)
        return mp.erfc(side * z / mp.sqrt(2)) / 2, density, density * z if density else mpf(0)

    side = 1 if high > loc else -1  # of the tail whose mass is small
    (at_x, p, pz), (at_low, p_low, pz_low), (at_high, p_high, pz_high) = (tail(t, side) for t in (x, low, high))
    below, total = side * (at_low - at_x), side * (at_low - at_high)
    part = below / total
    # dF = (dP(x) - dP(low)) / total - part (dP(high) - dP(low)) / total, with dP / dloc = -p / scale and dP / dscale = -p z / scale
    return {
        "loc": (p - p_low - part * (p_high - p_low)) / p,
        "scale": (pz - pz_low - part * (pz_high - pz_low)) / p,
        "low": (1 - part) * p_low / p,
        "high": part * p_high / p,
    }


def _inverse_gaussian(x: Any, parts: Any, mean: Any, concentration: Any) -> Any:
    root = mp.sqrt(concentration / x)
    b = root * (x / mean + 1)
    mills = mp.erfc(b / mp.sqrt(2)) / 2 / mp.npdf(b)  # exp(2 c / mean) phi(b) = phi(a)
    density_x = root  # x p(x) over phi(a)
    in_mean = -2 * concentration / mean**2 * mills
    in_concentration = (root * (x / mean - 1) - b) / (2 * concentration) + 2 / mean * mills
    return {"mean": -in_mean * x / density_x, "concentration": -in_concentration * x / density_x}


def _mixture(x: Any, parts: Any, logit: Any, loc: Any, scale: Any) -> Any:
    weight = 1 / (1 + mp.exp(-logit))
    z = (x - loc) / scale
    density = (1 - weight) * mp.npdf(x) + weight * mp.npdf(z) / scale
    apart = (mp.erfc(-z / mp.sqrt(2)) - mp.erfc(-x / mp.sqrt(2))) / 2
    moved = weight * mp.npdf(z) / scale / density
    return {"logit": -weight * (1 - weight) * apart / density, "loc": moved, "scale": moved * z}


VELOCITIES: dict[str, Callable[..., dict[str, Any]]] = {
    **dict.fromkeys(("Normal", "Laplace", "Logistic", "Cauchy", "Gumbel"), _location_scale),
    "HalfNormal": lambda x, _, scale: {"scale": x / scale},
    "LogNormal": lambda x, _, loc, scale: {"loc": x, "scale": x * (mp.log(x) - loc) / scale},
    "Uniform": lambda x, _, low, high: {"low": (high - x) / (high - low), "high": (x - low) / (high - low)},
    "Exponential": lambda x, _, rate: {"rate": -x / rate},
    "Weibull": lambda x, _, scale, concentration: {
        "scale": x / scale,
        "concentration": -x * mp.log(x / scale) / concentration,
    },
    "Pareto": lambda x, _, scale, concentration: {
        "scale": x / scale,
        "concentration": -x * mp.log(x / scale) / concentration,
    },
    "Kumaraswamy": _kumaraswamy,
    "Gamma": lambda x, _, concentration, rate: {
        "concentration": x * gamma_velocity(concentration, mp.log(x * rate)),
        "rate": -x / rate,
    },
    "ExpGamma": lambda x, _, concentration, rate: {
        "concentration": gamma_velocity(concentration, x + mp.log(rate)),
        "rate": -1 / rate,
    },
    "InverseGamma": lambda x, _, concentration, rate: {
        "concentration": -x * gamma_velocity(concentration, mp.log(rate / x)),
        "rate": x / rate,
    },
    "Chi2": lambda x, _, df: {"df": x / 2 * gamma_velocity(df / 2, mp.log(x / 2))},
    "Beta": _beta,
    "Dirichlet": _dirichlet,
    "StudentT": lambda x, parts, df, scale: {"df": -x / 2 * _log_ratio_velocity(parts[0], df), "scale": x / scale},
    "F": lambda x, parts, df1, df2: {
        "df1": x * _log_ratio_velocity(parts[0], df1),
        "df2": -x * _log_ratio_velocity(parts[1], df2),
    },
    "VonMises": _von_mises,
    "TruncatedNormal": _truncated_normal,
    "InverseGaussian": _inverse_gaussian,
    "Mixture": _mixture,
}
"""Of a draw, its parts and the parameters: the derivative in each of them."""
