"""Statistical checks of gradient estimates, and the table of estimators with what each claims.

The table of programs, with their exact values, is in `programs`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from programs import LOOP_PROGRAMS, PROGRAMS, Program

import mcgrad

STANDARD_ERRORS = 5.0
RESOLUTION = 0.1  # 5 standard errors must be below this fraction of the norm of what is estimated

# What summation in another order may move a number by, in units of the machine epsilon times the norm; it decides only
# where the estimator has no variance.
_ROUNDING = 1e3


def _moments(draws: Any, exact: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, standard error and exact value of all coordinates of a pytree, and an allowance for rounding."""
    draw_leaves, draw_tree = jax.tree.flatten(draws)
    exact_leaves, exact_tree = jax.tree.flatten(exact)
    assert draw_tree == exact_tree, f"draws have the structure {draw_tree}, the exact value {exact_tree}"
    for drawn, leaf in zip(draw_leaves, exact_leaves, strict=True):
        assert np.shape(drawn)[1:] == np.shape(leaf), f"draws of shape {np.shape(drawn)} for {np.shape(leaf)}"
    num = len(draw_leaves[0])
    rows = np.concatenate([np.asarray(leaf).reshape(num, -1) for leaf in draw_leaves], axis=1)
    target = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in exact_leaves])
    rounding = _ROUNDING * float(np.finfo(rows.dtype).eps) * max(float(np.linalg.norm(target)), 1e-3)
    away = rows.astype(np.float64) - target  # where there is no variance, the sum of many equal numbers would round
    return target + away.mean(0), away.std(0, ddof=1) / np.sqrt(num), target, rounding


def imprecision(draws: Any, exact: Any) -> float:
    """The largest standard error, times 5, as a fraction of the norm of the exact value."""
    _, error, target, rounding = _moments(draws, exact)
    worst = STANDARD_ERRORS * float(error.max())
    if not worst > rounding:  # also where a draw is not a number, which no more draws will mend
        return 0.0
    return worst / max(float(np.linalg.norm(target)), 1e-300)


def assert_unbiased(draws: Any, exact: Any) -> None:
    """Checks that independent draws have the exact mean, and that there are enough of them to tell.

    In each coordinate the mean must be within 5 standard errors of the exact value, and 5 standard errors must be below
    10 % of the norm of the exact value. Where an estimator has no variance, the mean must be exact up to rounding.

    Args:
        draws: a pytree of arrays `[num_draws, ...]`.
        exact: the same pytree of arrays `[...]`.
    """
    mean, error, target, rounding = _moments(draws, exact)
    assert np.isfinite(mean).all() and np.isfinite(error).all(), f"draws are not finite: mean {mean}"
    resolution = RESOLUTION * float(np.linalg.norm(target))
    assert STANDARD_ERRORS * error.max() < resolution or error.max() <= rounding, (
        f"too few draws to tell: 5 standard errors are {STANDARD_ERRORS * error.max():.3g}, over {resolution:.3g}"
    )
    off = np.abs(mean - target) - rounding
    worst = int(np.argmax(off / np.maximum(error, 1e-300)))
    assert (off < STANDARD_ERRORS * error + rounding).all(), (
        f"biased: coordinate {worst} is {mean[worst]:.6g} +- {error[worst]:.2g}, should be {target[worst]:.6g}"
    )


def tanhs(fn, params):
    """How many numbers each `tanh` of a function is taken of."""
    text = str(jax.make_jaxpr(fn)(params, jax.random.key(0)))
    shapes = [[int(n) for n in found.split(",") if n] for found in re.findall(r"f64\[([\d,]*)\] = tanh", text)]
    return [math.prod(shape) for shape in shapes]


def central_difference(fn: Callable[[Any], Any], x: float, step: float) -> Any:
    """The derivative of a plain function of one number, with an error of the order of `step^8`, for exact references."""
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(w * (fn(x + k * step) - fn(x - k * step)) for k, w in weights.items()) / step


def derivatives(fn: Callable[[Any], jax.Array], params: Any, order: int, mode: str = "reverse") -> dict[str, jax.Array]:
    """Value, gradient and, for `order=2`, Hessian of a function of one pytree, each as a vector; in one evaluation."""
    jacobian = jax.jacrev if mode == "reverse" else jax.jacfwd

    def first(params):
        def doubled(params):
            value = fn(params)
            return value, value

        gradient, value = jacobian(doubled, has_aux=True)(params)
        return gradient, {"value": value, "gradient": gradient}

    if order == 1:
        results = first(params)[1]
    else:
        hessian, results = jax.jacfwd(first, has_aux=True)(params)
        results = {**results, "hessian": hessian}
    return {name: _ravel(result) for name, result in results.items()}


def _ravel(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@functools.cache
def exact_derivatives(program: Program) -> dict[str, np.ndarray]:
    """Exact value, gradient and Hessian of a program's expectation."""
    compiled = jax.jit(lambda params: derivatives(program.exact, params, 2))
    return jax.tree.map(np.asarray, compiled(program.typed_params(jnp.float64)))


def gradient_draws(
    estimate: Callable[[jax.Array], Any], exact: Any, key: jax.Array, *, most: int = 2**22, batch: int = 1024
) -> Any:
    """Draws of an estimator, as many as it takes to resolve each entry of `exact`, in means of 64.

    The estimator is compiled once and runs under `vmap`, a `batch` at a time.

    Args:
        estimate: a function of a key that returns a dictionary of arrays.
        exact: the same dictionary, of exact values; only their norms are used.
        key: split for the draws.
        most: the number of draws at which to give up.
        batch: how many run at once.
    """
    group, num_batches = 64, 8

    @jax.jit
    def run(key):
        keys = jax.random.split(key, (num_batches, batch))
        draws = jax.lax.map(jax.vmap(estimate), keys)
        return jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[2:]).mean(1), draws)

    per_run = num_batches * batch
    draws = [jax.tree.map(np.asarray, run(jax.random.fold_in(key, i))) for i in range(2)]
    needed = 2 * per_run
    while True:
        together = {name: np.concatenate([draw[name] for draw in draws]) for name in exact}
        ratio = max(imprecision(together[name], exact[name]) for name in exact) / RESOLUTION
        if ratio < 0.95 or needed >= most:
            return together
        needed = int(min(most, 1.1 * len(draws) * per_run * max(ratio, 1.05) ** 2))
        while len(draws) * per_run < needed:
            draws.append(jax.tree.map(np.asarray, run(jax.random.fold_in(key, len(draws)))))


@dataclasses.dataclass(frozen=True)
class EstimatorRow:
    """An estimator as users spell it, and what it claims: that value and derivatives up to its order are unbiased.

    Attributes:
        make: builds it from a program and its parameters (an estimator's arrays may be computed from these).
        kind: the programs it runs on, a word of `Program.kinds`.
        num_samples: what the transform is given.
        order: derivatives that it claims.
        removes_offset: whether a constant added to the cost leaves its variance as it is.
        replicates: whether it runs the rest of the program several times at each draw; not for draws in loops.
        evaluations: of the rest of the program, in all samples together, for two entries of a draw that one cost mixes.
    """

    name: str
    make: Callable[[Program, Any], Any]
    kind: str
    num_samples: int = 1
    order: int = 2
    removes_offset: bool = False
    replicates: bool = False
    evaluations: int = 1

    def claims(self, program: Program) -> bool:
        if self.kind not in program.kinds or (program.offset and not self.removes_offset):
            return False
        if program.baseline is None and "array" in self.name:
            return False
        return not (self.replicates and program.in_loop)

    @property
    def unrolls(self) -> bool:
        """Whether a loop takes long to compile, since it is unrolled or an alternative is carried along."""
        return self.kind not in ("score", "pathwise", "partly pathwise", "relaxed", "auto")

    def order_on(self, program: Program) -> int:
        follows_paths = self.kind in ("pathwise", "partly pathwise", "auto") and "enumerate" not in program.kinds
        return min(self.order, program.order, program.pathwise_order if follows_paths else 2)

    def expectation(self, program: Program, params: Any, key: jax.Array) -> Any:
        """The transformed program on its arguments: the value, or `(value, aux)`."""
        transformed = mcgrad.expectation(
            program.fn,
            estimator=self.make(program, params),
            num_samples=self.num_samples,
            has_aux=program.has_aux,
        )
        return program.call(transformed, params, key)

    def value(self, program: Program, params: Any, key: jax.Array) -> jax.Array:
        value = self.expectation(program, params, key)
        return value[0] if program.has_aux else value

    def estimate(self, program: Program, params: Any, key: jax.Array) -> dict[str, jax.Array]:
        """Value, gradient and, where claimed, Hessian on one key."""
        order = self.order_on(program)
        return derivatives(lambda params: self.value(program, params, key), params, order, program.mode)


def _fixed(estimator: Callable[[], Any]) -> Callable[[Program, Any], Any]:
    return lambda program, params: estimator()


def _proposal(law: Any) -> Any:
    """A proposal for the laws of the programs: another one where few entries make the weights few."""
    if sum(jnp.size(leaf) for leaf in jax.tree.leaves(law)) <= 4:
        if isinstance(law, mcgrad.Normal):
            return mcgrad.Normal(law.loc + 0.2 * law.scale, 1.3 * law.scale)
        if isinstance(law, mcgrad.Bernoulli):
            return mcgrad.Bernoulli(logits=0.8 * law.logits)
    return law


def _surrogate(z: Any) -> jax.Array:
    """One number for all entries of a draw, of any shape; the less, the more entries weight it."""
    return 0.5 * jnp.sin(0.5 + jnp.sum(z)) / z.size


_ROWS = (
    EstimatorRow("score", _fixed(lambda: mcgrad.Score()), "score", evaluations=1),
    EstimatorRow("score, no baseline", _fixed(lambda: mcgrad.Score(baseline=None)), "score", evaluations=1),
    EstimatorRow(
        "score, array as baseline",
        lambda program, params: mcgrad.Score(baseline=program.baseline(params)),
        "score",
        removes_offset=True,
        evaluations=1,
    ),
    EstimatorRow(
        "score, fitted array as baseline",
        lambda program, params: mcgrad.Score(baseline=mcgrad.fitted(jax.lax.stop_gradient(program.baseline(params)))),
        "score",
        removes_offset=True,
        evaluations=1,
    ),
    EstimatorRow(
        "score, 2 points",
        _fixed(lambda: mcgrad.Score(num_samples=2)),
        "score",
        removes_offset=True,
        replicates=True,
        evaluations=2,
    ),
    EstimatorRow(
        "score, 5 points, leave-one-out",
        _fixed(lambda: mcgrad.Score(num_samples=5, baseline="leave_one_out")),
        "score",
        removes_offset=True,
        replicates=True,
        evaluations=5,
    ),
    EstimatorRow(
        "score, 2 points, array as baseline",
        lambda program, params: mcgrad.Score(num_samples=2, baseline=program.baseline(params)),
        "score",
        removes_offset=True,
        replicates=True,
        evaluations=2,
    ),
    EstimatorRow(
        "score, 2 samples", _fixed(lambda: mcgrad.Score()), "score", num_samples=2, removes_offset=True, evaluations=2
    ),
    EstimatorRow(
        "score, 5 samples, leave-one-out",
        _fixed(lambda: mcgrad.Score(baseline="leave_one_out")),
        "score",
        num_samples=5,
        removes_offset=True,
        evaluations=5,
    ),
    EstimatorRow(
        "score, 2 samples of 2 points",
        _fixed(lambda: mcgrad.Score(num_samples=2)),
        "score",
        num_samples=2,
        removes_offset=True,
        replicates=True,
        evaluations=4,
    ),
    EstimatorRow("pathwise", _fixed(lambda: mcgrad.Pathwise()), "pathwise", removes_offset=True, evaluations=1),
    EstimatorRow(
        "pathwise, 2 samples",
        _fixed(lambda: mcgrad.Pathwise()),
        "pathwise",
        num_samples=2,
        removes_offset=True,
        evaluations=2,
    ),
    EstimatorRow("generalized reparameterization", _fixed(lambda: _BY_LOCATION), "partly pathwise", evaluations=1),
    EstimatorRow(
        "bonnet and price", _fixed(lambda: mcgrad.BonnetPrice()), "normal", order=1, removes_offset=True, evaluations=3
    ),
    EstimatorRow(
        "taylor of pathwise, given",
        _fixed(lambda: mcgrad.Taylor(mcgrad.Pathwise(), 0.7)),
        "moments",
        removes_offset=True,
        evaluations=4,
    ),
    EstimatorRow(
        "taylor of pathwise, regressed, 5 samples",
        _fixed(lambda: mcgrad.Taylor(mcgrad.Pathwise())),
        "moments",
        num_samples=5,
        removes_offset=True,
        evaluations=18,
    ),
    EstimatorRow(
        "taylor of score, regressed, 5 samples",
        _fixed(lambda: mcgrad.Taylor(mcgrad.Score())),
        "moments",
        num_samples=5,
        removes_offset=True,
        evaluations=18,
    ),
    EstimatorRow(
        "taylor of measure-valued, regressed, 5 samples",
        _fixed(lambda: mcgrad.Taylor(mcgrad.MeasureValued())),
        "moments",
        num_samples=5,
        order=1,
        removes_offset=True,
        evaluations=60,
    ),
    EstimatorRow(
        "pathwise with boundary", _fixed(lambda: mcgrad.PathwiseWithBoundary()), "thresholds", order=1, evaluations=1
    ),
    EstimatorRow("lax", _fixed(lambda: mcgrad.LAX(_surrogate)), "partly pathwise", evaluations=1),
    EstimatorRow("relax", _fixed(lambda: mcgrad.RELAX(_surrogate)), "relaxed", evaluations=1),
    EstimatorRow(
        "relax, coupled, 2 samples",
        _fixed(lambda: mcgrad.RELAX(_surrogate, coupled=True)),
        "relaxed",
        num_samples=2,
        evaluations=2,
    ),
    EstimatorRow("enumerate", _fixed(lambda: mcgrad.Enumerate()), "enumerate", removes_offset=True, evaluations=4),
    EstimatorRow(
        "enumerate, 2 samples",
        _fixed(lambda: mcgrad.Enumerate()),
        "enumerate",
        num_samples=2,
        removes_offset=True,
        evaluations=4,
    ),
    EstimatorRow(
        "smoothed perturbation",
        _fixed(lambda: mcgrad.SmoothedPerturbation()),
        "neighbours",
        order=1,
        removes_offset=True,
        evaluations=5,
    ),
    EstimatorRow(
        "smoothed perturbation to the right, 2 samples",
        _fixed(lambda: mcgrad.SmoothedPerturbation("right")),
        "neighbours",
        num_samples=2,
        order=1,
        removes_offset=True,
        evaluations=6,
    ),
    EstimatorRow(
        "smoothed perturbation to the left",
        _fixed(lambda: mcgrad.SmoothedPerturbation("left")),
        "neighbours",
        order=1,
        removes_offset=True,
        evaluations=3,
    ),
    EstimatorRow("arm", _fixed(lambda: mcgrad.ARM()), "binary", order=1, removes_offset=True, evaluations=2),
    EstimatorRow("disarm", _fixed(lambda: mcgrad.DisARM()), "binary", order=1, removes_offset=True, evaluations=2),
    EstimatorRow(
        "disarm, 2 samples",
        _fixed(lambda: mcgrad.DisARM()),
        "binary",
        num_samples=2,
        order=1,
        removes_offset=True,
        evaluations=4,
    ),
    EstimatorRow(
        "local expectation",
        _fixed(lambda: mcgrad.LocalExpectation()),
        "enumerate",
        order=1,
        removes_offset=True,
        evaluations=3,
    ),
    EstimatorRow(
        "measure-valued",
        _fixed(lambda: mcgrad.MeasureValued()),
        "measure-valued",
        order=1,
        removes_offset=True,
        evaluations=5,
    ),
    EstimatorRow(
        "measure-valued, size bias, comonotone",
        _fixed(lambda: mcgrad.MeasureValued("size_bias", "comonotone")),
        "measure-valued",
        order=1,
        removes_offset=True,
        evaluations=5,
    ),
    EstimatorRow(
        "measure-valued, independent, 2 samples",
        _fixed(lambda: mcgrad.MeasureValued(coupling="independent")),
        "measure-valued",
        num_samples=2,
        order=1,
        removes_offset=True,
        evaluations=10,
    ),
    EstimatorRow("arms", _fixed(lambda: mcgrad.ARMS(3)), "binary", order=1, removes_offset=True, evaluations=3),
    EstimatorRow(
        "arms, gaussian, 2 samples",
        _fixed(lambda: mcgrad.ARMS(4, "gaussian")),
        "binary",
        num_samples=2,
        order=1,
        removes_offset=True,
        evaluations=8,
    ),
    EstimatorRow(
        "carms",
        _fixed(lambda: mcgrad.CARMS(3)),
        "enumerate",
        order=1,
        removes_offset=True,
        replicates=True,
        evaluations=3,
    ),
    EstimatorRow(
        "tree disarm",
        _fixed(lambda: mcgrad.TreeDisARM()),
        "enumerate",
        order=1,
        removes_offset=True,
        replicates=True,
        evaluations=2,
    ),
    EstimatorRow(
        "arsm, 2 samples",
        _fixed(lambda: mcgrad.ARSM()),
        "enumerate",
        num_samples=2,
        order=1,
        removes_offset=True,
        replicates=True,
        evaluations=4,
    ),
    EstimatorRow(
        "double control variates", _fixed(lambda: mcgrad.DoubleControl()), "floats", removes_offset=True, evaluations=2
    ),
    EstimatorRow(
        "disarm, every order",
        _fixed(lambda: mcgrad.EveryOrder(mcgrad.DisARM())),
        "binary",
        evaluations=2,
    ),
    EstimatorRow(
        "tree disarm, every order, 2 samples",
        _fixed(lambda: mcgrad.EveryOrder(mcgrad.TreeDisARM())),
        "enumerate",
        num_samples=2,
        replicates=True,
        evaluations=4,
    ),
    EstimatorRow(
        "unordered set",
        _fixed(lambda: mcgrad.UnorderedSet(2)),
        "enumerate",
        removes_offset=True,
        replicates=True,
        evaluations=2,
    ),
    EstimatorRow(
        "importance without replacement",
        _fixed(lambda: mcgrad.ImportanceWithoutReplacement(2)),
        "enumerate",
        replicates=True,
        evaluations=2,
    ),
    EstimatorRow(
        "sum and sample, independent baselines, 2 samples",
        _fixed(lambda: mcgrad.SumAndSample(baseline="independent")),
        "enumerate",
        num_samples=2,
        removes_offset=True,
        replicates=True,
        evaluations=8,
    ),
    EstimatorRow(
        "importance sampling",
        _fixed(lambda: mcgrad.ImportanceSampling(_proposal)),
        "score",
        replicates=True,
        evaluations=1,
    ),
    EstimatorRow("auto", _fixed(lambda: mcgrad.Auto()), "auto", removes_offset=True, evaluations=1),
    EstimatorRow(
        "auto, 5 samples", _fixed(lambda: mcgrad.Auto()), "auto", num_samples=5, removes_offset=True, evaluations=5
    ),
)
# Moves a draw with its location only; a weight makes up for the other parameters.
_BY_LOCATION = mcgrad.GeneralizedReparameterization(
    lambda noise, law: noise + getattr(law, "loc", 0.0), lambda x, law: x - getattr(law, "loc", 0.0)
)

ESTIMATORS = {row.name: row for row in _ROWS}

# Their means are checked in `test_straight_through.py`.
BIASED = {
    "straight-through": mcgrad.StraightThrough(),
    "reinmax": mcgrad.ReinMax(),
    "reinmax, warm": mcgrad.ReinMax(1.5),
    "gumbel-softmax": mcgrad.GumbelSoftmax(0.7),
    "gumbel-softmax, hard": mcgrad.GumbelSoftmax(0.7, hard=True),
    "gumbel-rao": mcgrad.GumbelRao(0.7, 4),
}

__all__ = [
    "BIASED",
    "ESTIMATORS",
    "LOOP_PROGRAMS",
    "PROGRAMS",
    "EstimatorRow",
    "Program",
    "assert_unbiased",
    "derivatives",
    "exact_derivatives",
    "gradient_draws",
    "imprecision",
    "tanhs",
]
