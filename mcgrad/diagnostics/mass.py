"""The mass of a density on intervals, by adaptive quadrature; and in a ball, by uniform points."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_FEWER_NODES, _FEWER_WEIGHTS = np.polynomial.legendre.leggauss(8)
_POINTS = np.concatenate([_NODES, _FEWER_NODES])
_PANELS, _SPLIT, _ROUNDS = 64, 32, 40  # panels evaluated at once, halved in a round, and rounds
_INFINITE = 1e200  # stands for what overflows
_STEPS = 4.0 ** np.arange(-6, 41)  # beyond the last draws, in distances between these


def ladder(
    draws: np.ndarray, num_cells: int, between_numbers: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Edges of cells, and of finer panels that reach beyond all draws.

    The edges of cells are those of equal shares of `draws [n, entries]`, with the first and the last draw around them.
    """
    n = len(draws)
    ordered = np.sort(draws, axis=0)
    inner = between_numbers(ordered[np.arange(1, num_cells) * n // num_cells])
    ranks = (n // num_cells) // 2 ** np.arange(1, 30)
    ranks = ranks[ranks > 0]
    top = np.finfo(draws.dtype).max
    sides = []
    for sign, line in ((-1, ordered), (1, ordered[::-1])):
        last = line[:1].astype(np.float64)
        spread = np.abs(line[max(n // num_cells // 4, 1)][None] - last) + 1e-30 * np.abs(last) + 1e-300
        with np.errstate(over="ignore"):
            outer = np.clip(last + sign * spread * _STEPS[:, None], -top, top)
        side = np.concatenate([line[ranks], last, outer])
        sides.append(side[::-1] if sign < 0 else side)
    edges = np.concatenate([ordered[:1], inner, ordered[-1:]])
    return edges, np.sort(np.concatenate([sides[0], inner, sides[1]]), axis=0)


def masses(
    density: Callable[[np.ndarray], np.ndarray], edges: np.ndarray, panels: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Masses and their errors `[cells, entries]` of the cells between `edges`, those below the first and above the last too.

    `density` is of points `[m, entries]`.

    Gauss-Legendre rules of 8 and 12 nodes on each panel; those that differ most are halved, again and again.
    """
    entries = edges.shape[1]
    low, high = panels[:-1].copy(), panels[1:].copy()
    value, error = _integrate(density, low, high)
    for _ in range(_ROUNDS):
        wide = _wide(low, high, epsilon)
        worst = np.argsort(np.where(wide, error, -1), axis=0)[-_SPLIT:]
        take = lambda array, worst=worst: np.take_along_axis(array, worst, axis=0)  # noqa: E731
        if np.max(take(np.where(wide, error, 0)), initial=0.0) < 1e-8:
            break
        a, b = take(low), take(high)
        middle = a + (b - a) / 2
        halves, errors = _integrate(density, np.concatenate([a, middle]), np.concatenate([middle, b]))
        for array, new in ((high, middle), (value, halves[: len(a)]), (error, errors[: len(a)])):
            np.put_along_axis(array, worst, new, axis=0)  # the left half in place, the right one behind
        low, high = np.concatenate([low, middle]), np.concatenate([high, b])
        value, error = np.concatenate([value, halves[len(a) :]]), np.concatenate([error, errors[len(a) :]])
    # Where points are rounded to one number, a quarter of the mass may be off.
    error = np.where(_wide(low, high, epsilon), error, np.maximum(error, value / 4))
    cells, errors = np.zeros((2, len(edges) + 1, entries))
    for entry in range(entries):
        place = np.searchsorted(edges[:, entry], low[:, entry], "right")
        np.add.at(cells[:, entry], place, value[:, entry])
        np.add.at(errors[:, entry], place, error[:, entry])
    return cells, errors


def _wide(low: np.ndarray, high: np.ndarray, epsilon: float) -> np.ndarray:
    """Whether a panel has enough numbers in it to be halved."""
    return high - low > 8 * epsilon * np.maximum(np.abs(low), np.abs(high))


def _integrate(
    density: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Integrals over panels `[panels, entries]`, and their errors; in blocks of one shape, so that one program serves all."""
    size = -(-len(low) // _PANELS) * _PANELS
    pad = np.zeros((size - len(low), low.shape[1]))
    start, half = np.concatenate([low, pad]), np.concatenate([(high / 2 - low / 2), pad])
    values = []
    for block in range(0, size, _PANELS):
        a, h = start[block : block + _PANELS], half[block : block + _PANELS]
        x = a + h * (1 + _POINTS[:, None, None])
        p = density(x.reshape(-1, low.shape[1])).reshape(x.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            values.append(p * np.where(h > 0, h, 0))
    found = np.nan_to_num(np.concatenate(values, axis=1)[:, : len(low)], posinf=_INFINITE)
    fine = np.tensordot(_WEIGHTS, found[: len(_NODES)], 1)
    return fine, np.abs(fine - np.tensordot(_FEWER_WEIGHTS, found[len(_NODES) :], 1))


class Ball(NamedTuple):
    """A ball in coordinates that a linear map makes those of the draws of one entry.

    Its volume in these coordinates, and in the plane that the draws are in: densities are defined by one or the other.
    """

    inside: Callable[[np.ndarray], np.ndarray]
    points: np.ndarray
    volumes: tuple[float, float]


def ball(draws: np.ndarray, rng: np.random.Generator) -> Ball | str:
    """A ball around the center of `draws [n, d]`, with uniform points in it; or why there is none.

    Coordinates that are linear functions of earlier ones (the last of a simplex, those above the diagonal of a symmetric matrix)
    are left out of the volume, as densities are defined. Draws on a curved surface are told by how the distances to the
    nearest draws grow (Levina and Bickel 2004).
    """
    n, d = draws.shape
    center = np.median(draws, axis=0)
    spread = np.median(np.abs(draws - center), axis=0)
    near = np.argsort(np.max(np.abs(draws - center) / np.where(spread > 0, spread, 1), axis=1))[: n // 3]
    local = draws[near] - draws[near].mean(axis=0)
    free: list[int] = []
    for j in range(d):
        column = local[:, j]
        rest = column - local[:, free] @ np.linalg.lstsq(local[:, free], column, rcond=None)[0] if free else column
        if np.std(rest) > 1e-3 * np.std(column) + 1e-12:
            free.append(j)
    if not 1 <= len(free) <= 5:
        return f"no reference for densities of {len(free)} dimensions"
    to_all = np.linalg.lstsq(local[:, free], local, rcond=None)[0]  # [free, d]
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(local[:, free].T)))
    origin = draws[near].mean(axis=0)
    z = np.linalg.solve(factor, (draws[:, free] - origin[free]).T).T
    distances = np.sort(np.linalg.norm(z[near[:200], None] - z[None], axis=-1), axis=1)[:, 1:21]
    with np.errstate(divide="ignore", invalid="ignore"):
        dimension = 1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1]))
    if not abs(dimension - len(free)) < 0.35:
        return f"draws are not spread over the {len(free)} dimensions that they have"
    radius = np.quantile(np.linalg.norm(z[near], axis=1), 0.6)
    direction = rng.standard_normal((n, len(free)))
    direction *= rng.uniform(size=(n, 1)) ** (1 / len(free)) / np.linalg.norm(direction, axis=1, keepdims=True)
    points = origin + radius * direction @ factor.T @ to_all

    def inside(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(np.linalg.solve(factor, (x[:, free] - origin[free]).T), axis=0) <= radius

    unit = [2.0, np.pi, 4 / 3 * np.pi, np.pi**2 / 2, 8 / 15 * np.pi**2][len(free) - 1]
    volume = float(unit * radius ** len(free) * np.prod(np.diagonal(factor)))
    return Ball(inside, points, (volume, volume * float(np.sqrt(np.linalg.det(to_all @ to_all.T)))))
