"""Does every value depend on no more draws than mcgrad says? By changing draws one at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcgrad.program.dependence import analyze
from mcgrad.program.trace import trace

from .check import THETA, Outcome, load, refusal
from .oracle import Enumeration, layout
from .source import Program

STATES = 12
"""Joint values around which each draw is changed."""


def check_windows(program: Program, seed: int = 0) -> Outcome:
    """Compare the dependence of all values at the top level, the laws of draws included, with what changes of draws show."""
    with jax.debug_key_reuse(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(program, jax.random.key(seed))


def _check(program: Program, key: Any) -> Outcome:
    names = [name for line in program.lines for name in line.names]
    program = dataclasses.replace(program, result=f"({', '.join(names)},)", transform="")
    theta = jnp.asarray(THETA)
    try:
        run = layout(program, theta, key)
    except Exception as error:  # a program that plain JAX does not run
        return Outcome("skipped", f"oracle: {type(error).__name__}: {error}"[:300])
    if not run.cards or any("while_loop" in line.expression for line in program.statements()):
        return Outcome("skipped", "no draws")
    try:
        fn, _ = load(program)
        traced, _ = trace(lambda: fn(theta, key))
        analysis = analyze(traced)
    except Exception as error:
        return refusal(error, program)
    sites = {site.name: site for site in analysis.sites.values()}
    moved, base = _moved(program, key, run)
    for j, (name, output) in enumerate(zip(names, traced.outputs, strict=True)):
        for draw in {draw for draw, _ in run.places}:
            columns = [c for c, place in enumerate(run.places) if place[0] == draw]
            truth = moved[j][..., columns] if name != draw else moved[j][..., columns] & False
            if not truth.any():
                continue
            site = sites.get(draw)
            relation = None if site is None else analysis.of(output).get(site)
            if site is None or relation is None:
                return Outcome("window", f"{name} depends on {draw}, and is said not to")
            allowed = allowed_by(relation, base[j], site.plates)
            places = [run.places[c][1] for c in columns]
            said = np.stack([allowed[(..., *place)] for place in places], -1)
            if np.any(truth & ~said):
                entry = tuple(int(i) for i in np.argwhere(truth & ~said)[0])
                return Outcome(
                    "window", f"{name}{list(entry[:-1])} depends on {draw}{list(places[entry[-1]])}; windows {relation}"
                )
    return Outcome("right")


def _moved(program: Program, key: Any, run: Enumeration) -> tuple[list[np.ndarray], list[tuple[int, ...]]]:
    """For each entry of each result, the numbers drawn that it changes with; for a draw, with which its law does."""
    draws = {line.names[0] for line in program.lines if line.expression.startswith("sample(")}
    names = [name for line in program.lines for name in line.names]

    def results(state: Any) -> list[Any]:
        one = Enumeration(state)
        found = one.call(program, jnp.asarray(THETA), key)
        return [one.log_probs[name, ()] if name in draws else x for name, x in zip(names, found, strict=True)]

    evaluate = jax.jit(functools.partial(jax.lax.map, results))  # JAX cannot map `ragged_dot` over every axis
    rng = np.random.default_rng(0)
    cards = np.array(run.cards)
    base = rng.integers(0, cards, (STATES, len(cards)))
    at_base = [np.asarray(x) for x in evaluate(base)]
    moved = [np.zeros((*x.shape[1:], len(cards)), bool) for x in at_base]
    others = np.repeat(base, len(cards), 0)
    rows = np.arange(len(others))
    column = rows % len(cards)
    # Draws of laws whose own density is looked at change with themselves, which is not asked.
    for shift in (1, 2):
        changed = others.copy()
        changed[rows, column] = (changed[rows, column] + shift) % cards[column]
        for x, y, seen in zip(at_base, evaluate(changed), moved, strict=True):
            differs = np.abs(np.asarray(y).astype(float) - np.repeat(x, len(cards), 0).astype(float)) > 1e-9
            differs = differs.reshape(STATES, len(cards), *x.shape[1:])
            seen |= np.moveaxis(differs.any(0), 0, -1)
    return moved, [x.shape[1:] for x in at_base]


def allowed_by(relation: Any, shape: tuple[int, ...], plates: tuple[int, ...]) -> np.ndarray:
    """For each entry of a value, which draws its windows allow."""
    allowed = np.ones((*shape, *plates), bool)
    for k, (window, plate) in enumerate(zip(relation, plates, strict=True)):
        draw = np.arange(plate).reshape([1] * len(shape) + [plate if j == k else 1 for j in range(len(plates))])
        entries = window.entries(shape)
        assert entries is not None and math.prod(shape) <= 10_000
        order = np.argsort(window.axes)
        lengths = [shape[a] if a in window.axes else 1 for a in range(len(shape))] + [1] * len(plates)
        at = entries.transpose(order).reshape(lengths)
        allowed = allowed & (draw >= at + window.low) & (draw <= at + window.high)
    return allowed
