"""Distributions of integers, of classes and of counts."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import mcgrad
from distributions.row import INTEGERS, NO_DERIVATIVE, SCALE, Extremes, Ordinary, Row, Weak, WeakOfVector

PROBS = [0.1, 0.5, 0.8]
LOGITS = [[-1.0], [2.0]]
COUNT = np.array([[4], [9]])
WEIGHTS = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
_OF_CLASSES = {"logits": {"logits": np.log(WEIGHTS) + 1.0}, "probs": {"probs": WEIGHTS}}
_FEW_VALUES = "a weight and every value are bounded by those checked elsewhere at extreme parameters"

_ITEMS = [[0.4, -0.5, 0.1, 0.9], [-1.0, 0.3, 2.0, 0.0]]
_PAIRS = jnp.array([[i in pair for i in range(4)] for pair in itertools.combinations(range(4), 2)], float)
_OF_ITEMS = jnp.array([0.3, -1.1, 0.8, 2.0])


def sigmoid(x: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x)))


_CHECKED = "checked in test_ancestors.py against sums over all ancestors"


def _ancestors(make: Any, *, event_ndim: int = 0, moving: tuple[str, ...] = ()) -> Row:
    return Row(
        make,
        {"": Ordinary({"log_weights": np.log(WEIGHTS) + 1.0}, "test_ancestors.py")},
        discrete=True,
        event_ndim=event_ndim,
        moving=moving,
        corners=INTEGERS,
        weak=_CHECKED,
        extremes=_CHECKED,
        twice=NO_DERIVATIVE,
    )


def _by(name: str, make: Any, params: Any) -> WeakOfVector:
    """Of one of three classes, a cost of each."""
    cost = jnp.array([1.3, -0.4, 0.8])
    of = {"logits": jax.nn.softmax, "probs": lambda probs: probs / jnp.sum(probs)}[name]
    return WeakOfVector(jnp.array(params), lambda x: cost @ x, lambda p: cost @ of(p), lambda p: make(**{name: p}))


ROWS = {
    "Bernoulli": Row(
        mcgrad.Bernoulli,
        {
            "logits": Ordinary({"logits": LOGITS}, lambda logits: scipy.stats.bernoulli(sigmoid(logits))),
            "probs": Ordinary({"probs": PROBS}, lambda probs: scipy.stats.bernoulli(probs)),
        },
        knows="cdf icdf support prob weak_derivative relaxation",
        discrete=True,
        corners=INTEGERS,
        weak={
            "logits": Weak([0.4], make=lambda p: mcgrad.Bernoulli(logits=p)),
            "probs": Weak([0.3], make=lambda p: mcgrad.Bernoulli(probs=p)),
        },
        extremes=_FEW_VALUES,
        twice=NO_DERIVATIVE,
    ),
    "Binomial": Row(
        mcgrad.Binomial,
        {
            "logits": Ordinary(
                {"logits": LOGITS},
                lambda logits: scipy.stats.binom(COUNT, sigmoid(logits)),
                lambda logits: mcgrad.Binomial(jnp.asarray(COUNT), logits=logits),
            ),
            "probs": Ordinary(
                {"probs": PROBS},
                lambda probs: scipy.stats.binom(COUNT, probs),
                lambda probs: mcgrad.Binomial(jnp.asarray(COUNT), probs=probs),
            ),
        },
        knows="cdf support prob weak_derivative",
        discrete=True,
        corners=INTEGERS,
        weak={
            "logits": Weak([0.4], make=lambda p: mcgrad.Binomial(5, logits=p)),
            "probs": Weak([0.3], make=lambda p: mcgrad.Binomial(5, probs=p)),
        },
        extremes={"": Extremes([(1e-3,), (0.4,), (0.995,)], make=lambda p: mcgrad.Binomial(12, probs=p))},
        twice=NO_DERIVATIVE,
    ),
    "Categorical": Row(
        mcgrad.Categorical,
        {name: Ordinary(params, "test_categorical.py") for name, params in _OF_CLASSES.items()},
        knows="cdf icdf support prob weak_derivative relaxation",
        discrete=True,
        corners=INTEGERS,
        weak={
            "logits": Weak([0.4, -0.5, 0.1], make=lambda *p: mcgrad.Categorical(logits=jnp.stack(p))),
            "probs": Weak([0.4, 0.5, 0.1], make=lambda *p: mcgrad.Categorical(probs=jnp.stack(p))),
        },
        extremes=_FEW_VALUES,
        twice=NO_DERIVATIVE,
    ),
    "OneHotCategorical": Row(
        mcgrad.OneHotCategorical,
        {name: Ordinary(params, "test_categorical.py") for name, params in _OF_CLASSES.items()},
        knows="support prob weak_derivative relaxation",
        discrete=True,
        event_ndim=1,
        corners=INTEGERS,
        weak={
            "logits": _by("logits", mcgrad.OneHotCategorical, [0.4, -0.5, 0.1]),
            "probs": _by("probs", mcgrad.OneHotCategorical, [0.4, 0.5, 0.1]),
        },
        extremes=_FEW_VALUES,
        twice=NO_DERIVATIVE,
    ),
    "Geometric": Row(
        mcgrad.Geometric,
        {
            "logits": Ordinary({"logits": LOGITS}, lambda logits: scipy.stats.geom(sigmoid(logits), loc=-1)),
            "probs": Ordinary({"probs": PROBS}, lambda probs: scipy.stats.geom(probs, loc=-1)),
        },
        knows="cdf icdf weak_derivative",
        discrete=True,
        corners=INTEGERS,
        weak={
            "logits": Weak([-0.2], make=lambda p: mcgrad.Geometric(logits=p)),
            "probs": Weak([0.35], make=lambda p: mcgrad.Geometric(probs=p)),
        },
        extremes={"": Extremes([(0.01,), (0.3,), (0.97,)], make=lambda p: mcgrad.Geometric(probs=p))},
        twice=NO_DERIVATIVE,
    ),
    "Multinomial": Row(
        mcgrad.Multinomial,
        {
            "logits": Ordinary(
                _OF_CLASSES["logits"], "test_multinomial.py", lambda logits: mcgrad.Multinomial(5, logits=logits)
            ),
            "probs": Ordinary(
                _OF_CLASSES["probs"],
                "test_multinomial.py",
                lambda probs: mcgrad.Multinomial(jnp.asarray([4, 30]), probs=probs),
            ),
        },
        knows="weak_derivative",
        discrete=True,
        event_ndim=1,
        corners=INTEGERS,
        weak="checked in test_multinomial.py against sums over all counts",
        extremes="a sum of draws of a OneHotCategorical",
        twice=NO_DERIVATIVE,
    ),
    "NegativeBinomial": Row(
        mcgrad.NegativeBinomial,
        {
            "logits": Ordinary(
                {"total_count": [0.7, 1.0, 4.0], "logits": LOGITS},
                lambda total_count, logits: scipy.stats.nbinom(total_count, sigmoid(-logits)),
            ),
            "probs": Ordinary(
                {"total_count": [[0.3], [20.0]], "probs": PROBS},
                lambda total_count, probs: scipy.stats.nbinom(total_count, 1 - probs),
            ),
        },
        knows="cdf weak_derivative",
        discrete=True,
        corners=INTEGERS,
        weak={
            "logits": Weak([1.3, -0.2], make=lambda r, p: mcgrad.NegativeBinomial(r, logits=p)),
            "probs": Weak([0.6, 0.6], make=lambda r, p: mcgrad.NegativeBinomial(r, probs=p)),
        },
        extremes={
            "": Extremes(
                [(0.05, 0.9), (1.5, 1e-3), (40.0, 0.3), (0.5, 0.99)],
                make=lambda r, p: mcgrad.NegativeBinomial(r, probs=p),
            )
        },
        twice=NO_DERIVATIVE,
    ),
    "PlackettLuce": Row(
        mcgrad.PlackettLuce,
        {
            "": Ordinary({"logits": _ITEMS}, "test_rankings.py"),
            "places": Ordinary({"logits": _ITEMS}, "test_rankings.py", lambda logits: mcgrad.PlackettLuce(logits, 2)),
        },
        knows="support prob weak_derivative relaxation",
        discrete=True,
        event_ndim=1,
        corners=INTEGERS,
        weak="checked in test_rankings.py against sums over all rankings",
        extremes=_FEW_VALUES,
        twice=NO_DERIVATIVE,
    ),
    "Poisson": Row(
        mcgrad.Poisson,
        {"": Ordinary({"rate": SCALE}, lambda rate: scipy.stats.poisson(rate))},
        knows="cdf weak_derivative",
        discrete=True,
        corners=INTEGERS,
        weak={"": Weak([0.7])},
        extremes={"": Extremes([(0.01,), (3.0,), (900.0,)])},
        twice=NO_DERIVATIVE,
    ),
    "Residual": _ancestors(mcgrad.Residual, moving=("log_weights",)),
    "Stratified": _ancestors(mcgrad.Stratified),
    "Systematic": _ancestors(mcgrad.Systematic, event_ndim=1),
    "WithReplacement": _ancestors(mcgrad.WithReplacement),
    "Subset": Row(
        lambda logits: mcgrad.Subset(logits, 2),
        {"": Ordinary({"logits": _ITEMS}, "test_subset.py")},
        knows="support prob weak_derivative marginals",
        discrete=True,
        event_ndim=1,
        corners=INTEGERS,
        weak={
            "": WeakOfVector(
                jnp.asarray(_ITEMS[0]),
                lambda x: jnp.cos(x @ _OF_ITEMS),
                lambda logits: jax.nn.softmax(_PAIRS @ logits) @ jnp.cos(_PAIRS @ _OF_ITEMS),
            )
        },
        extremes=_FEW_VALUES,
        twice=NO_DERIVATIVE,
    ),
}
