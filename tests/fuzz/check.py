"""Is what mcgrad makes of a program right? Value and derivatives against the exact ones."""

from __future__ import annotations

import dataclasses
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcgrad

from .oracle import Recording, TooLarge, exact, layout
from .source import FILE, HEADER, Program

THETA = np.array([0.31, -0.43, 0.62, -0.19])
SAMPLES = 2000
STANDARD_ERRORS = 5.0
MORE = 16
"""Times as many samples decide what was suspicious."""

LARGEST = 1e3
"""Larger values are not looked at."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes:
        kind: "right"; "refused", by mcgrad with a reason and a line; "skipped", a program that cannot be judged; or a finding:
            "biased", "inexact" (to the last digits), "not a number", "value", "raised".
        detail: what was expected and what came.
    """

    kind: str
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("right", "refused", "skipped")


def load(program: Program, **more: Any) -> tuple[Any, Any]:
    """The program as a function, and its transform."""
    names: dict[str, Any] = {}
    exec(HEADER, names)
    names.update(more)
    exec(compile(program.source(), FILE, "exec"), names)
    return names["program"], eval(f"expectation(program, {program.transform})", names)


def refusal(error: Exception, program: Program) -> Outcome:
    """Whether an exception is one of mcgrad's own refusals, which name the line; or one of plain JAX."""
    try:
        plain, _ = load(dataclasses.replace(program, transform=""))
        jax.eval_shape(jax.vmap(plain, (None, 0)), jnp.asarray(THETA), jax.random.split(jax.random.key(0), 2))
    except Exception as own:
        return Outcome("skipped", f"JAX: {own}")
    if not program.forward and "while_loop" in program.source() and str(error).startswith("Reverse-mode"):
        return Outcome(
            "skipped", "JAX: a function with a rule for reverse mode only, and a loop with forward mode only"
        )
    text = f"{type(error).__name__}: {error}"
    own = isinstance(error, (ValueError, NotImplementedError, TypeError)) and "mcgrad" in str(error)
    if own and re.search(re.escape(FILE) + r":\d+", str(error)):
        return Outcome("refused", text)
    return Outcome("refused without a line" if own else "raised", text[:1500])


def check(program: Program, seed: int = 0, **more: Any) -> Outcome:
    """Compare the program's estimates with its exact expectation and derivatives."""
    with jax.debug_key_reuse(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(program, seed, more)


def _check(program: Program, seed: int, more: dict[str, Any]) -> Outcome:
    key = jax.random.key(seed)
    try:
        with jax.numpy_rank_promotion("allow"):
            target, probs = exact(program, THETA, key)
            if "Normal" in program.source():
                again, _ = exact(program, THETA, key, nodes=41)
                if any(
                    np.max(np.abs(a - b)) > 1e-6 * (1 + np.max(np.abs(a))) for a, b in zip(target, again, strict=True)
                ):
                    return Outcome("skipped", "not smooth in a continuous draw")
    except TooLarge as error:
        return Outcome("skipped", f"{error} joint values")
    except Exception as error:  # a program that plain JAX does not run
        return Outcome("skipped", f"oracle: {type(error).__name__}: {error}"[:300])
    flat = _flat(target)
    if not np.all(np.isfinite(flat)) or np.max(np.abs(flat)) > LARGEST:
        return Outcome("skipped", "too large")

    try:
        fn, transformed = load(program, **more)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = jax.jit(jax.vmap(_derivatives(transformed, program), (None, 0)))
            draws = _draws(run, key, SAMPLES)
    except Exception as error:
        return refusal(error, program)
    if "Normal" in program.source() and any(isinstance(w.message, mcgrad.JumpWarning) for w in caught):
        return Outcome("skipped", "a jump that mcgrad warns of")
    if not np.all(np.isfinite(draws)):
        return Outcome("not a number", f"expected {flat}, got {draws.mean(0)}")
    if found := suspicious(draws, flat).any() and _decide(run, key, flat, draws):
        return found
    if _all_scores(program):
        return _to_the_last_digit(program, fn, key, draws, flat, probs)
    return Outcome("right")


def _derivatives(transformed: Any, program: Program) -> Any:
    def derivatives(theta: Any, key: Any) -> Any:
        of = lambda theta: transformed(theta, key)  # noqa: E731
        if program.forward:
            value, tangents = jax.vmap(lambda e: jax.jvp(of, (theta,), (e,)))(jnp.eye(len(theta)))
            found = [value[0], tangents]
        else:
            found = list(jax.value_and_grad(of)(theta))
        if program.order == 2:
            found.append(jax.jacfwd(jax.jacfwd(of) if program.forward else jax.grad(of))(theta))
        return jnp.concatenate([jnp.ravel(x) for x in found])

    return derivatives


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts])


def _draws(run: Any, key: Any, count: int) -> np.ndarray:
    return np.asarray(run(THETA, jax.random.split(key, count)))


def suspicious(draws: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coordinates that are off: by many standard errors, or at all where nothing varies."""
    off = draws - target
    error = off.std(0, ddof=1) / np.sqrt(len(off))
    return np.abs(off.mean(0)) > STANDARD_ERRORS * error + 1e-8 * (1 + np.abs(target).max())


def _decide(run: Any, key: Any, target: np.ndarray, first: np.ndarray) -> Outcome | None:
    """Look at what is suspicious again, with more samples and other keys: the same coordinate, off in the same direction."""
    more = np.concatenate([_draws(run, jax.random.fold_in(key, 1 + i), SAMPLES) for i in range(MORE)])
    both = suspicious(first, target) & suspicious(more, target)
    same = np.sign(first.mean(0) - target) == np.sign(more.mean(0) - target)
    if not np.any(both & same):
        return None
    error = more.std(0, ddof=1) / np.sqrt(len(more))
    with np.printoptions(precision=5, suppress=True, linewidth=120):
        return Outcome(
            "biased", f"expected {target}\n     got {more.mean(0)}\n     +/- {error}\nat {np.flatnonzero(both & same)}"
        )


def _all_scores(program: Program) -> bool:
    """Whether all draws are discrete and scored in one sample, so that they alone decide the estimate."""
    text = program.source()
    named = [
        word
        for word in re.findall(r"(\w+)\(", text)
        if word in ("Enumerate", "Auto") or hasattr(mcgrad.estimators, word)
    ]
    single = "num_samples" not in program.transform + text
    return "estimator=Score(" in program.transform and single and "Normal" not in text and set(named) <= {"Score"}


def _to_the_last_digit(
    program: Program, fn: Any, key: Any, draws: np.ndarray, target: np.ndarray, probs: np.ndarray
) -> Outcome:
    """The sum over joint values of probability times estimate; values that did not come can account for a little."""

    def plain(theta: Any, key: Any) -> Any:
        run = Recording()
        run.call(program, theta, key)
        return fn(theta, key), jnp.concatenate([*run.indices, jnp.zeros(0, int)])

    keys = jax.random.split(key, SAMPLES)
    values, came = map(np.asarray, jax.jit(jax.vmap(plain, (None, 0)))(THETA, keys))
    if (
        not np.allclose(values, draws[:, 0], rtol=1e-8, atol=1e-8)
        and "baseline" not in program.transform + program.source()
    ):
        worst = int(np.argmax(np.abs(values - draws[:, 0])))
        return Outcome("value", f"the program's is {values[worst]}, the transformed one's {draws[worst, 0]}")
    cards = layout(program, jnp.asarray(THETA), key).cards
    index = np.ravel_multi_index(came.T, cards) if cards else np.zeros(SAMPLES, int)
    order = np.argsort(index, kind="stable")
    seen, first, counts = np.unique(index[order], return_index=True, return_counts=True)
    of_state = np.repeat(draws[order][first], counts, 0)
    scale = 1 + np.max(np.abs(draws))
    if np.max(np.abs(of_state - draws[order])) > 1e-8 * scale:
        return Outcome("inexact", "the estimate is not a function of the draws")
    missing = max(0.0, 1 - float(probs[seen].sum()))
    off = np.abs(probs[seen] @ draws[order][first] - target + missing * target)
    if np.any(off > 1e-8 * scale + 20 * missing * scale):
        with np.printoptions(precision=6, suppress=True, linewidth=120):
            return Outcome("inexact", f"expected {target}\n     got {probs[seen] @ draws[order][first]}\n{missing=}")
    return Outcome("right", "to the last digit" if missing < 1e-3 else "")
