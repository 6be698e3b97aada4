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
    "StudentT": {"df": (0.3, 0.5, 1, 5, 100, 1e4, 1e8), "loc": 7 * (0,), "scale": (1, 1, 1, 2, 1, 1, 1)},
    "F": {"df1": (0.5, 1, 5, 100, 1e4, 3, 1e6), "df2": (0.5, 3, 5, 200, 1e4, 1e6, 1e6)},
    "VonMises": {"loc": 7 * (0,), "concentration": (1e-4, 0.1, 1, 10, 100, 1e4, 1e6)},
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
    "NoncentralChi2": {"df": (0.1, 1, 5, 0.5, 1000, 3), "noncentrality": (0.5, 10, 1e-6, 100, 1, 0)},
    "MultivariateNormal": {"loc": (0, 0, 1), "l21": (0.5, 1e3, -1), "l22": (1, 10, 0.1)},
    "MultivariateNormal, diagonal": {"loc": (0, 0, 2.5), "scale": (1e-15, 1, 0.7)},
    "MultivariateNormal, transport": {"loc": (0, 0, 1), "l21": (0.5, 3, -1), "l22": (1, 10, 0.2)},
    "MultivariateStudentT": {
        "df": (0.3, 1, 5, 100, 1e4, 1e8), "loc": 6 * (0,), "l21": (0.5, 1, -1, 10, 0.5, 0.5), "l22": (1, 1, 2, 1, 1, 1),
    },
    "VonMisesFisher": {"direction": 6 * (0,), "concentration": (1e-4, 0.1, 1, 10, 100, 1e6)},
    "Wishart": {
        "concentration": (1.1, 2, 5, 100, 1e4, 1e8), "l21": (0.5, 1, -1, 10, 0.5, 0.1), "l22": (1, 1, 2, 1, 1, 1),
    },
    "LKJCholesky": {"concentration": (0.1, 0.5, 1, 5, 100, 1e4)},
    "Beta, transport": {"concentration1": (0.1, 0.5, 1, 5, 100, 1e4), "concentration0": (3, 0.5, 1, 0.3, 200, 1e4)},
    "Dirichlet, transport": {"c1": (0.5, 1, 5, 0.3, 1e4), "c2": (0.5, 1, 0.3, 3, 1e4), "c3": (0.5, 1, 100, 0.3, 1e4)},
}  # fmt: skip
"""Parameters of each law, one grid point a column.

`Dirichlet` has three entries, the draw that is looked at is the first; `Mixture` has the components `Normal(0, 1)`, and
`Normal(loc, scale)` with `logit` more. Of the laws of vectors of two entries it is the second, or the one at the end of the
diagonal; their factors have the entries 1, `l21` and `l22`. Of a von Mises-Fisher draw of three entries it is the first, and
the direction, the third axis, moves towards that one. By transport is by `Pathwise(path="optimal_transport")`.
"""


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


def _von_mises(x: Any, parts: Any, loc: Any, concentration: Any) -> Any:
    k, theta = concentration, abs(x)
    mean = mp.besseli(1, k) / mp.besseli(0, k)
    width = min(mp.pi - theta, 14 / mp.sqrt(k) * (1 if k > 1 else 99))
    grown = lambda t: (mp.cos(t) - mean) * mp.exp(k * (mp.cos(t) - mp.cos(theta)))  # noqa: E731
    in_concentration = mp.sign(x) * mp.quad(grown, mp.linspace(theta, theta + width, 3), maxdegree=7)
    return {"loc": mpf(1), "concentration": in_concentration}


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


@functools.cache
def beta_velocity(x: Any, rest: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The derivatives of the log odds of `x = 1 - rest` in `a` and in `b` at a fixed quantile of the beta law.

    Term by term of `F = x^a rest^b / (a B(a, b)) sum_n t_n` with `t_n = (a + b)_n / (a + 1)_n x^n`.
    """
    if x > rest:
        in_b, in_a = beta_velocity(rest, x, b, a)
        return -in_a, -in_b
    term, total, in_a, in_b, more, less, n = mpf(1), mpf(1), mpf(0), mpf(0), mpf(0), mpf(0), 0
    while term > mpf(10) ** -40 * total:
        more, less = more + 1 / (a + b + n), less + 1 / (a + 1 + n)
        term *= x * (a + b + n) / (a + 1 + n)
        n += 1
        total, in_a, in_b = total + term, in_a + term * (more - less), in_b + term * more
    both = mp.digamma(a + b)
    in_a += total * (mp.log(x) - 1 / a - mp.digamma(a) + both)
    in_b += total * (mp.log(rest) - mp.digamma(b) + both)
    return -in_a / a, -in_b / a


def _beta_transport(x: Any, parts: Any, concentration1: Any, concentration0: Any) -> Any:
    in_first, in_second = beta_velocity(x, 1 - x, concentration1, concentration0)
    return {"concentration1": x * (1 - x) * in_first, "concentration0": x * (1 - x) * in_second}


def _dirichlet_transport(x: Any, parts: Any, **concentrations: Any) -> Any:
    entries, total = [x, *parts], mp.fsum(concentrations.values())
    moved = []
    for i, (entry, a) in enumerate(zip(entries, concentrations.values(), strict=True)):
        rest = mp.fsum(entries[:i] + entries[i + 1 :])
        whole = entry + rest
        moved.append(entry * beta_velocity(entry / whole, rest / whole, a, total - a)[0])
    weights = (mp.fsum(parts), -x, -x)
    return {name: w * v for name, w, v in zip(concentrations, weights, moved, strict=True)}


def _lkj(x: Any, parts: Any, concentration: Any) -> Any:
    square, rest = parts[0] ** 2, x**2
    whole = square + rest
    _, moved = beta_velocity(square / whole, rest / whole, mpf(1) / 2, concentration)
    return {"concentration": -x / 2 * square * moved}


def _noncentral_chi2(x: Any, parts: Any, df: Any, noncentrality: Any) -> Any:
    weight = total = mpf(1)
    in_df = in_noncentrality = mpf(0)
    q, j = noncentrality * x / 4, 0
    total = mpf(0)
    while weight > mpf(10) ** -16 * total or j * (df / 2 + j) < q:
        a = df / 2 + j
        total += weight
        in_df += weight * x / 2 * gamma_velocity(a, mp.log(x / 2))
        in_noncentrality += weight * x / (2 * a)
        j += 1
        weight *= q / (j * a)
    return {"df": in_df / total, "noncentrality": in_noncentrality / total}


def _gaussian_transport(x: Any, parts: Any, loc: Any, l21: Any, l22: Any) -> Any:
    factor = mp.matrix([[1, 0], [l21, l22]])
    s = factor * factor.T
    # A S + S A = C for the entries (A_11, A_21, A_22)
    system = mp.matrix(
        [[2 * s[0, 0], 2 * s[0, 1], 0], [s[0, 1], s[0, 0] + s[1, 1], s[0, 1]], [0, 2 * s[0, 1], 2 * s[1, 1]]]
    )
    found = {"loc": mpf(1)}
    for name, (i, j) in {"l21": (1, 0), "l22": (1, 1)}.items():
        half = mp.matrix(2, 2)
        half[i, j] = 1
        half = half * factor.T
        a = mp.lu_solve(system, mp.matrix([2 * half[0, 0], half[0, 1] + half[1, 0], 2 * half[1, 1]]))
        found[name] = a[1] * parts[0] + a[2] * (x - loc)
    return found


def _wishart(x: Any, parts: Any, concentration: Any, l21: Any, l22: Any) -> Any:
    z, *logs = parts
    first, second = (mp.exp(log / 2) for log in logs)
    moves = [
        chi / 4 * gamma_velocity((concentration - lost) / 2, log - mp.log(2))
        for lost, (chi, log) in enumerate(zip((first, second), logs, strict=True))
    ]
    side = l21 * first + l22 * z
    return {
        "concentration": 2 * side * l21 * moves[0] + 2 * l22**2 * second * moves[1],
        "l21": 2 * side * first,
        "l22": 2 * side * z + 2 * l22 * second**2,
    }


def _von_mises_fisher(x: Any, parts: Any, direction: Any, concentration: Any) -> Any:
    """On the sphere, `F = (exp(k (w - 1)) - exp(-2 k)) / (1 - exp(-2 k))` for `w = cos(t)`."""
    k, square = concentration, x**2 + parts[0] ** 2  # sin(t)^2
    w = mp.sign(parts[1]) * mp.sqrt(1 - square)
    less = square / (1 + w) if w > 0 else 1 - w
    more = square / less
    fallen = mp.exp(-k * more)
    # (coth(k) - w) - exp(-k (1 + w)) (1 + coth(k)), over k
    beyond = 2 * mp.exp(-2 * k) / (1 - mp.exp(-2 * k))  # coth(k) - 1
    in_w = (beyond + less - fallen * (2 + beyond)) / k
    return {"direction": w, "concentration": -in_w / square * w * x}


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
    "StudentT": lambda x, parts, df, loc, scale: {
        "df": -(x - loc) / 2 * _log_ratio_velocity(parts[0], df),
        "loc": mpf(1),
        "scale": (x - loc) / scale,
    },
    "F": lambda x, parts, df1, df2: {
        "df1": x * _log_ratio_velocity(parts[0], df1),
        "df2": -x * _log_ratio_velocity(parts[1], df2),
    },
    "VonMises": _von_mises,
    "TruncatedNormal": _truncated_normal,
    "InverseGaussian": _inverse_gaussian,
    "Mixture": _mixture,
    "NoncentralChi2": _noncentral_chi2,
    "MultivariateNormal": lambda x, z, loc, l21, l22: {"loc": mpf(1), "l21": z[0], "l22": z[1]},
    "MultivariateNormal, diagonal": _location_scale,
    "MultivariateNormal, transport": _gaussian_transport,
    "MultivariateStudentT": lambda x, parts, df, loc, l21, l22: {
        "df": -(x - loc) / 2 * _log_ratio_velocity(parts[0], df),
        "loc": mpf(1),
        "l21": parts[1] * mp.exp(-parts[0] / 2),
        "l22": parts[2] * mp.exp(-parts[0] / 2),
    },
    "VonMisesFisher": _von_mises_fisher,
    "Wishart": _wishart,
    "LKJCholesky": _lkj,
    "Beta, transport": _beta_transport,
    "Dirichlet, transport": _dirichlet_transport,
}
"""Of a draw, its parts and the parameters: the derivative in each of them."""
