"""Costs that jump in a draw that is differentiated along its path."""

from __future__ import annotations

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_unbiased
from jax.experimental.ode import odeint

import mcgrad

SIZE = 6


def newton(x, state):
    """A step to the root of `y + y^3 = x`, and what is left."""
    y = state[0] - state[1] / (3 * state[0] ** 2 + 1)
    return y, y**3 + y - x


def straight_through(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


JUMPS = {
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "comparison times a number": lambda x: (x > 0.3) * x,
    "comparison as a number": lambda x: (x > 0.3).astype(float),
    "mean of comparisons": lambda x: jnp.mean(x > 0.3),
    "where between two numbers": lambda x: jnp.where(x > 0.3, 1.0, -1.0),
    "count": lambda x: jnp.count_nonzero(x > 0.3).astype(float),
    "both sides of a threshold": lambda x: jnp.sum(((x > 0.3) & (x < 1.0)).astype(float)),
    "equal to the maximum": lambda x: (x == x.max()).astype(float)[0],
    "argmax": lambda x: jnp.argmax(x).astype(float),
    "one-hot of argmax": lambda x: jax.nn.one_hot(jnp.argmax(x), SIZE) @ jnp.arange(1.0, SIZE + 1),
    "argsort": lambda x: jnp.argsort(x).astype(float)[0],
    "top_k indices": lambda x: jax.lax.top_k(x, 2)[1].astype(float)[0],
    "integer": lambda x: x.astype(int).astype(float),
    "hidden Bernoulli draw": lambda x: jax.random.bernoulli(jax.random.key(1), jax.nn.sigmoid(x)).astype(float),
    "straight-through": straight_through,
    "whole numbers that are stopped": lambda x: x - jax.lax.stop_gradient(jnp.round(x)),
    "a comparison of whole numbers": lambda x: 1.0 * (jnp.round(x) > 0),
    "in jit": jax.jit(jnp.floor),
    "in vmap": jax.vmap(jnp.floor),
    "in checkpoint": jax.checkpoint(jnp.floor),
    "in scan": lambda x: jax.lax.scan(lambda c, xi: (c + jnp.floor(c + xi), c), 0.0, x)[0],
    "in a branch": lambda x: jax.lax.cond(x[0] > 0, jnp.floor, lambda x: x, x),
    "cond between two numbers": lambda x: jax.lax.cond(x[0] > 0.3, lambda: 1.0, lambda: 0.0),
    "cond between other values": lambda x: x[1] * jax.lax.cond(x[0] > 0, lambda a: 2 * a, lambda a: a, jnp.ones(2)),
    "in while": lambda x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.floor(c[1])), (0, x))[1],
    "number of steps": lambda x: jax.lax.while_loop(lambda c: jnp.sum(c) < 5, lambda c: c + 1.0, x),
    "event counted in a carry": lambda x: jax.lax.scan(
        lambda c, xi: ((jnp.where(c[1] + xi < 1.0, c[0] + 1.0, c[0]), c[1] + xi), None), (0.0, 0.0), x
    )[0][0],
    "sign bit": lambda x: 1.0 - jnp.signbit(x),
    "copysign": lambda x: jnp.copysign(2.0, x),
    "searchsorted": lambda x: jnp.array([0.0, 3.0, 1.0])[jnp.searchsorted(jnp.array([-1.0, 0.5]), x)],
    "floor above a threshold": lambda x: jnp.maximum(jnp.floor(x - 3), 0.0),
    "round, then relu": lambda x: jax.nn.relu(jnp.round(x) - 5),
    "few steps of many": lambda x: jnp.clip(jnp.floor(x), 20, 22),
    "integer, far away": lambda x: jnp.clip(x.astype(int), 20, 22).astype(float),
    "remainder above a threshold": lambda x: jax.nn.relu(x % 1.0 + x - 15),
    "one more of ten thousand": lambda x: jnp.sum(1e4 + jnp.where(x > 0.3, 1.0, 0.0)),
    "logarithm of one more": lambda x: jnp.log(1e4 + 1.0 * (x > 0.3)),
    "carried from a large number": lambda x: 1.0 * jax.lax.scan(lambda n, x: (n + (x > 0.3), None), 50_000, x)[0],
    "mean of many comparisons": lambda x: jnp.mean(jnp.linspace(-1.0, 1.0, 20_000)[None] < x[:, None]),
    "beside a large derivative": lambda x: jnp.sum(3e3 * x + jnp.where(x > 0.3, 1.0, 0.0)),
    "a number by its magnitude": lambda x: x / jnp.abs(x),
    "a number by its norm": lambda x: x / jnp.linalg.norm(x[:, None], axis=-1),
    "times an inverse root": lambda x: x * jax.lax.rsqrt(x**2),
    "bounded function of an inverse": lambda x: jnp.tanh(1 / x),
    "of a negative power": lambda x: jnp.clip((x - 0.3) ** -3, -1.0, 1.0),
    "of a ratio of draws": lambda x: jax.nn.sigmoid(x[1] / x[0]),
    "of a tangent": lambda x: jnp.arctan(jnp.tan(x)),
    "angle": lambda x: jnp.arctan2(x[0], x[1] - 2),
    "of an inverse in a scan": lambda x: jax.lax.scan(lambda c, xi: (c + jnp.tanh(1 / xi), None), 0.0, x)[0],
    "index of a switch": lambda x: jax.lax.switch(jnp.int32(x[0]), [lambda x: x, lambda x: 2 * x], x),
}

CONTINUOUS = {
    "relu": jax.nn.relu,
    "abs": jnp.abs,
    "maximum": lambda x: jnp.maximum(x, 0.2),
    "max": jnp.max,
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "softplus": jax.nn.softplus,
    "logsumexp": jax.nn.logsumexp,
    "softmax": jax.nn.softmax,
    "log_softmax": lambda x: jax.nn.log_softmax(x)[2],
    "gelu": jax.nn.gelu,
    "sort": jnp.sort,
    "median": jnp.median,
    "top_k values": lambda x: jax.lax.top_k(x, 2)[0],
    "norm": jnp.linalg.norm,
    "Cholesky factor": lambda x: jnp.linalg.cholesky(jnp.eye(SIZE) + jnp.outer(x, x)),
    "log determinant": lambda x: jnp.linalg.slogdet(jnp.eye(SIZE) + jnp.outer(x, x))[1],
    "cross entropy": lambda x: optax.softmax_cross_entropy_with_integer_labels(x, 3),
    "Huber": lambda x: optax.huber_loss(x, jnp.zeros(SIZE)),
    "fori_loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * x, x),
    # Divisions, most by what is seen to be positive.
    "logistic": lambda x: 1 / (1 + jnp.exp(-x)),
    "by one and a square": lambda x: x / (1 + x**2),
    "layer norm": lambda x: (x - x.mean()) / jnp.sqrt(x.var() + 1e-5),
    "unit vector": lambda x: x / jnp.linalg.norm(x),
    "cosine": lambda x: x @ x[::-1] / (jnp.linalg.norm(x) * jnp.linalg.norm(x[::-1])),
    "normal density": lambda x: jax.scipy.stats.norm.logpdf(x[0], x[1], jax.nn.softplus(x[2])),
    "mean by weights": lambda x: jnp.exp(x) @ x / jnp.sum(jnp.exp(x)),
    "standardized": lambda x: (x[:3] - x[:3].mean()) / x[:3].std(),
    "removed pole": lambda x: jnp.tanh(jnp.expm1(x) / x),
    "cosine of an angle": lambda x: jnp.cos(jnp.arctan2(x[0], x[1])),
    "filter": lambda x: jax.lax.scan(
        lambda p, xi: (p * jnp.exp(xi) / (p + jnp.exp(xi)), p / (p + jnp.exp(xi))), 1.0, x
    )[1],
    "Riemann zeta": lambda x: jax.scipy.special.zeta(2 + jnp.exp(x[0]), 1.0),
    "incomplete beta": lambda x: jax.scipy.special.betainc(2.0, 3.0, jax.nn.sigmoid(x)),
}

MATRIX = 3.0 * np.eye(SIZE) + np.random.default_rng(0).normal(size=(SIZE, SIZE))

CONTINUOUS_BY_TRIAL = {
    "linear solve": lambda x: jnp.linalg.solve(MATRIX + jnp.diag(x), x),
    "inverse": lambda x: jnp.linalg.inv(MATRIX + jnp.outer(x, x)),
    "log determinant with pivots": lambda x: jnp.linalg.slogdet(MATRIX + jnp.outer(x, x))[1],
    "conjugate gradients": lambda x: jax.scipy.sparse.linalg.cg(lambda y: y + x * (x @ y), x)[0],
    "normal quantile": lambda x: jax.scipy.special.ndtri(jax.nn.sigmoid(x)),
    "exponential integral": lambda x: jax.scipy.special.expi(x[0]),
    "differential equation": lambda x: odeint(lambda y, t: -y * x[0], x, jnp.linspace(0.0, 1.0, 3)),
    "matrix exponential": lambda x: jax.scipy.linalg.expm(jnp.eye(3) * x[0] + jnp.outer(x[1:4], x[:3])),
    "rotation": lambda x: jax.scipy.linalg.expm(jnp.array([[0.0, x[0]], [-x[0], 0.0]])),
    "relative entropy": lambda x: jax.scipy.special.rel_entr(jnp.exp(x[0]), jnp.exp(x[1])),
    "Kullback-Leibler": lambda x: jax.scipy.special.kl_div(jnp.exp(x[0]), jnp.exp(x[1])),
    "exponential integral of order 1": lambda x: jax.scipy.special.exp1(jnp.exp(x[0])),
    "Spence": lambda x: jax.scipy.special.spence(jnp.exp(x[0])),
    "Kummer": lambda x: jax.scipy.special.hyp1f1(1.5, 2.5, x[0]),
    "interpolation of an image": lambda x: jax.scipy.ndimage.map_coordinates(
        jnp.arange(12.0).reshape(3, 4) ** 2, [x[:2], x[2:4]], 1, mode="nearest"
    ),
    "elu": jax.nn.elu,
    "leaky relu": jax.nn.leaky_relu,
    "selu": jax.nn.selu,
    "where": lambda x: jnp.where(x > 0, x, -x),
    "cond": lambda x: jax.lax.cond(x[0] > 0, lambda x: x, lambda x: x * jnp.where(jnp.arange(SIZE) == 0, -1.0, 1.0), x),
    "smooth l1": lambda x: jnp.where(jnp.abs(x) < 0.7, 0.5 * x**2 / 0.7, jnp.abs(x) - 0.35),
    "remainder": lambda x: jnp.cos(2 * jnp.pi * (x % 1.0)),
    "all positions of a sort": lambda x: jnp.argsort(x).astype(float),  # whose sum is always the same
    "value at the maximum": lambda x: x[jnp.argmax(x)],
    "determinant": lambda x: jnp.linalg.det(jnp.outer(x[:4], x[1:5]) + jnp.diag(x[:4])),
    "quantile": lambda x: jnp.quantile(x, 0.3),
    "whole numbers that are stopped": lambda x: jnp.cos(2 * jnp.pi * (x - jax.lax.stop_gradient(jnp.round(x)))),
    "cond of factors": lambda x: x[0] * jax.lax.cond(x[0] > 0, lambda a: 2 * a, lambda a: a, jnp.ones(2)),
    "sum of a softmax": lambda x: 1e3 * jnp.sum(jax.nn.softmax(100 * x)) + jnp.where(x > 0, x, 0.0),
    "a solver with what it left": lambda x: jnp.add(
        *jax.lax.while_loop(lambda c: jnp.max(jnp.abs(c[1])) > 1e-6, functools.partial(newton, x), (x, x**3))
    ),
    "compensated sum": lambda x: jnp.add(
        *jax.lax.fori_loop(
            0,
            SIZE,
            lambda i, c: (
                c[0] + x[i],
                c[1]
                + jnp.where(jnp.abs(c[0]) >= jnp.abs(x[i]), c[0] - (c[0] + x[i]) + x[i], x[i] - (c[0] + x[i]) + c[0]),
            ),
            (x[0] * 0, x[0] * 0),
        )
    ),
    "piecewise in a scan": lambda x: jax.lax.scan(lambda c, xi: (c + jnp.where(xi > 0.1, xi - 0.1, 0.0), c), 0.0, x)[0],
}

OUT_OF_REACH = {"a threshold far away": lambda x: jnp.where(x > 1e30, 0.0, x)}


def loss_of(cost, estimator):
    def loss(loc, key):
        return jnp.sum(cost(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), estimator)))

    return loss


def explained(cost, estimator=None):
    estimator = mcgrad.Pathwise() if estimator is None else estimator
    return mcgrad.explain(loss_of(cost, estimator))(jnp.linspace(0.1, 1.0, SIZE), jax.random.key(0))


@pytest.mark.parametrize(
    "cost",
    [pytest.param(c, id=n, marks=[pytest.mark.slow] * (n == "mean of many comparisons")) for n, c in JUMPS.items()],
)
def test_a_jump_is_warned_of_with_its_line(cost):
    with pytest.warns(mcgrad.JumpWarning, match=r"test_jumps.py:\d+.* jumps in the draw from Normal .*test_jumps.py"):
        report = explained(cost)
    assert any("jumps in Normal" in line for line in report.jumps)


@pytest.mark.parametrize("cost", CONTINUOUS.values(), ids=CONTINUOUS)
def test_continuous_costs_are_not_warned_of(cost):
    assert not explained(cost, mcgrad.Pathwise(jumps="refuse", possible_jumps="refuse")).jumps


LONG = (
    "differential equation",
    "exponential integral",
    "normal quantile",
    "log determinant with pivots",
    "matrix exponential",
    "rotation",
    "exponential integral of order 1",
    "Spence",
    "Kummer",
    "interpolation of an image",
)


@pytest.mark.parametrize(
    "cost",
    [pytest.param(c, id=n, marks=[pytest.mark.slow] * (n in LONG)) for n, c in CONTINUOUS_BY_TRIAL.items()],
)
def test_selections_that_join_continuously_are_not_warned_of(cost):
    assert not explained(cost, mcgrad.Pathwise(jumps="refuse", possible_jumps="refuse")).jumps


def test_complex_numbers_are_tried_without_a_word_from_numpy():
    """Warnings are errors in these tests."""
    with pytest.warns(mcgrad.JumpWarning, match="cuts the derivative"):
        explained(lambda x: jnp.abs(jax.lax.stop_gradient(jax.lax.complex(x, x)) + x))


def test_interpolation_is_not_warned_of():
    # Guards of equal neighbors in the table are listed: no draw can come near them.
    explained(lambda x: jnp.interp(x, jnp.array([-1.0, 0.2, 1.0]), jnp.array([0.0, 2.0, 1.0])))


@pytest.mark.parametrize("cost", OUT_OF_REACH.values(), ids=OUT_OF_REACH)
def test_jumps_that_were_not_found_are_listed_and_warned_of_on_request(cost):
    assert any("may jump in Normal" in line for line in explained(cost).jumps)
    assert "may jump in Normal" in str(explained(cost))
    with pytest.warns(mcgrad.JumpWarning, match="may jump"):
        explained(cost, mcgrad.Pathwise(possible_jumps="warn"))


def test_a_comparison_that_was_met_but_not_decided_is_warned_of():
    """As no guard of everyday smooth code is: those that are listed are never met."""

    def ragged(x):
        return jnp.where(x > 0.3, jnp.sin(1e18 * x), jnp.cos(1e18 * x))

    with pytest.warns(mcgrad.JumpWarning, match=r"`where` at .*test_jumps.py.* may jump"):
        explained(ragged)
    explained(ragged, mcgrad.Pathwise(jumps="ignore"))
    guarded = {
        "sinc": jnp.sinc,
        "entropy": lambda x: jax.scipy.special.entr(jax.nn.sigmoid(x)),
        "density": lambda x: jax.scipy.stats.gamma.logpdf(jnp.exp(x), 2.0),
        "near zero": lambda x: jnp.where(jnp.abs(x) < 1e-6, 1.0, jnp.sin(x) / jnp.where(jnp.abs(x) < 1e-6, 1.0, x)),
    }
    listed = [any("may jump" in line for line in explained(cost).jumps) for cost in guarded.values()]
    assert any(listed)  # all of them in some versions of JAX; warnings would be errors


def test_a_jump_is_refused_or_ignored_on_request():
    with pytest.raises(ValueError, match=r"`floor` at .*test_jumps.py.*jumps in the draw.*mcgrad.Score\(\)"):
        explained(jnp.floor, mcgrad.Pathwise(jumps="refuse"))
    with pytest.raises(ValueError, match="`where` at .*may jump"):
        explained(OUT_OF_REACH["a threshold far away"], mcgrad.Pathwise(possible_jumps="refuse"))
    explained(jnp.floor, mcgrad.Pathwise(jumps="ignore"))
    for name in ("jumps", "possible_jumps"):
        with pytest.raises(ValueError, match=rf'Pathwise\({name}=...\)` must be "ignore", "warn" or "refuse"'):
            mcgrad.Pathwise(**{name: "never"})


def test_auto_takes_the_score_where_a_cost_jumps():
    report = explained(jnp.floor, mcgrad.Auto())
    assert [site.estimator for site in report.sites] == ["Score"]
    for cost in (
        jax.nn.elu,
        jnp.sinc,
    ):  # newer JAX takes a whole number off in `sinc`, and stops its derivative, which is zero
        assert [site.estimator for site in explained(cost, mcgrad.Auto()).sites] == ["Pathwise"]

    def loss(loc, key):
        return (mcgrad.sample(key, mcgrad.Normal(loc, 1.0)) > 0.5).astype(float)

    draws = jax.jit(jax.vmap(mcgrad.grad(loss), (None, 0)))(0.3, jax.random.split(jax.random.key(0), 20_000))
    assert_unbiased(draws, jax.scipy.stats.norm.pdf(0.2))


def test_auto_warns_where_the_score_would_be_wrong_too():
    def loss(high, key):
        return jnp.floor(mcgrad.sample(key, mcgrad.Uniform(0.0, high)))

    with pytest.warns(mcgrad.JumpWarning, match="Uniform"):
        mcgrad.grad(loss)(3.0, jax.random.key(0))


def test_only_what_the_costs_see_of_pathwise_draws_counts():
    def loss(loc, key):
        keys = jax.random.split(key, 3)
        x = mcgrad.sample(keys[0], mcgrad.Normal(loc, 1.0), mcgrad.Pathwise(), name="x")
        noise = mcgrad.sample(keys[1], mcgrad.Normal(0.0, 1.0), name="noise")
        # A threshold of a draw by score is no jump of the one that its law depends on.
        b = mcgrad.sample(keys[2], mcgrad.Normal(x, 1.0), mcgrad.Score(), name="b")
        return x**2 * (noise > 0) + jnp.floor(b), jnp.sign(x)  # auxiliary output may jump

    report = mcgrad.explain(loss, has_aux=True)(0.3, jax.random.key(0))
    assert report.jumps == ()
    np.testing.assert_(np.isfinite(mcgrad.grad(loss, has_aux=True)(0.3, jax.random.key(0))[0]))


def test_a_program_may_print_its_draws(capfd):
    def loss(loc, key):
        x = mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise())
        jax.debug.print("drawn {}", x)
        return x**2

    assert np.isfinite(mcgrad.grad(loss)(0.3, jax.random.key(0)))
    jax.effects_barrier()
    assert "drawn" in capfd.readouterr().out


def test_draws_inside_loops_and_branches_are_seen():
    def looped(loc, key):
        def step(total, key):
            return total + jnp.floor(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise())), None

        return jax.lax.scan(step, 0.0, jax.random.split(key, 3))[0]

    def branched(loc, key):
        return jax.lax.cond(
            loc > 0,
            lambda key: jnp.sign(mcgrad.sample(key, mcgrad.Normal(loc, 1.0), mcgrad.Pathwise())),
            lambda key: 0.0,
            key,
        )

    for program, operation in ((looped, "floor"), (branched, "sign")):
        with pytest.warns(mcgrad.JumpWarning, match=f"`{operation}` at .*test_jumps.py"):
            mcgrad.grad(program)(0.3, jax.random.key(0))


def test_the_warning_can_be_made_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", mcgrad.JumpWarning)
        with pytest.raises(mcgrad.JumpWarning, match="jumps"):
            explained(jnp.floor)


HELD = (mcgrad.Score(), mcgrad.Score(num_samples=2), mcgrad.MeasureValued(), mcgrad.Auto())


def above(x, threshold):
    return jnp.where(x > threshold, 1.0, 0.0)


MOVED = {
    "where": above,
    "difference": lambda x, threshold: (x - threshold > 0) * 1.0,
    "sign": lambda x, threshold: jnp.sign(x - threshold),
    "cond": lambda x, threshold: jax.lax.cond(x > threshold, lambda: 1.0, lambda: 0.0),
    "floor": lambda x, threshold: jnp.floor(2 * x + threshold),
    "argmax": lambda x, threshold: jnp.argmax(jnp.stack([x, threshold])) * 1.0,
    "in jit": jax.jit(above),
}


def of_threshold(cost, estimator):
    return lambda t, data, key: cost(mcgrad.sample(key, mcgrad.Normal(0.5 * t + 0 * data, 1.0), estimator), t)


@pytest.mark.parametrize("cost", MOVED.values(), ids=MOVED)
def test_a_threshold_that_moves_against_a_draw_held_fixed_is_warned_of(cost):
    for estimator in HELD:
        with pytest.warns(mcgrad.JumpWarning, match=r"test_jumps.py:\d+.* jumps at a threshold that moves"):
            mcgrad.grad(of_threshold(cost, estimator))(0.3, 0.0, jax.random.key(0))


def test_where_a_moving_threshold_is_seen():
    program = of_threshold(above, mcgrad.Score())
    wrong = pytest.warns(mcgrad.JumpWarning, match="threshold that moves")
    with wrong:
        jax.grad(jax.jit(mcgrad.expectation(program)))(0.3, 0.0, jax.random.key(0))
    with wrong:
        jax.jvp(lambda t: mcgrad.expectation(program)(t, 0.0, jax.random.key(0)), (0.3,), (1.0,))

    def constant_law(t, key):
        return above(mcgrad.sample(key, mcgrad.Normal(0.0, 1.0)), t)

    with wrong:
        mcgrad.grad(constant_law)(0.3, jax.random.key(0))

    def looped(t, key):
        def step(total, key):
            return total + above(mcgrad.sample(key, mcgrad.Normal(t, 1.0), mcgrad.Score()), t**2), None

        return jax.lax.scan(step, 0.0, jax.random.split(key, 3))[0]

    with wrong:
        mcgrad.grad(looped)(0.3, jax.random.key(0))


def in_scan(cost):
    return lambda x, t: jax.lax.scan(lambda total, _: (total + cost(x, t), None), 0.0, None, length=3)[0]


def in_while(cost):
    return lambda x, t: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + cost(x, t)), (0, 0.0))[1]


BODIES = {
    "scan": in_scan,
    "fori_loop": lambda cost: lambda x, t: jax.lax.fori_loop(0, 3, lambda _, total: total + cost(x, t), 0.0),
    "while": in_while,
    "cond": lambda cost: lambda x, t: jax.lax.cond(t > 0, cost, lambda x, t: x * t, x, t),
    "checkpoint": jax.checkpoint,
    "vmap": lambda cost: lambda x, t: jnp.sum(jax.vmap(in_scan(cost), (0, None))(jnp.stack([x, 2 * x]), t)),
    "scan in a checkpoint in a scan": lambda cost: in_scan(jax.checkpoint(in_scan(cost))),
    "carried": lambda cost: lambda x, t: jax.lax.scan(lambda s, _: (x * s, cost(s, t)), x, None, length=3)[1].sum(),
}


def slope_of(body, cost, t=0.3):
    program = of_threshold(BODIES[body](cost), mcgrad.Score())
    return jax.jvp(lambda t: mcgrad.expectation(program)(t, 0.0, jax.random.key(0)), (t,), (1.0,))[1]


@pytest.mark.parametrize("body", BODIES)
def test_a_moving_threshold_is_seen_in_a_body_that_draws_nothing(body):
    with pytest.warns(mcgrad.JumpWarning, match=r"test_jumps.py:\d+.* jumps at a threshold that moves"):
        slope_of(body, above)
    if body != "while":  # which has no reverse mode
        with pytest.warns(mcgrad.JumpWarning, match="threshold that moves"):
            mcgrad.grad(of_threshold(BODIES[body](above), mcgrad.Score()))(0.3, 0.0, jax.random.key(0))


@pytest.mark.parametrize("body", BODIES)
def test_continuous_costs_in_bodies_that_draw_nothing_are_not_warned_of(body):
    """Warnings are errors in these tests."""

    def cost(x, t):
        kinked = jax.nn.relu(x - t) + jnp.abs(x - t) + jnp.maximum(x, t) + jnp.clip(x, -t, t) + jax.nn.softplus(x - t)
        return kinked + jax.nn.elu(x - t) + optax.huber_loss(x, t) + jnp.where(x > t, x - t, 0.0)

    assert np.isfinite(slope_of(body, cost))
    assert np.isfinite(slope_of(body, lambda x, t: t * above(x, jax.lax.stop_gradient(t))))


def test_thresholds_that_do_not_move_and_costs_that_do_not_jump_are_not_warned_of():
    """Warnings are errors in these tests."""
    with_data = lambda x, t, data: above(x, data) + above(x, jax.lax.stop_gradient(t))  # noqa: E731
    hinge = lambda x, t, data: jnp.where(x > t, x - t, 0.0) + jnp.abs(x - t) + jnp.maximum(x, t)  # noqa: E731
    for cost in (with_data, hinge):

        def program(t, data, key, cost=cost):
            return cost(mcgrad.sample(key, mcgrad.Normal(0.5 * t, 1.0), mcgrad.Score()), t, data)

        assert np.isfinite(jax.jit(mcgrad.grad(program))(0.3, 0.1, jax.random.key(0)))
        assert np.isfinite(jax.grad(jax.jit(mcgrad.expectation(program)))(0.3, 0.1, jax.random.key(0)))
    # the value alone is right
    assert np.isfinite(mcgrad.expectation(of_threshold(above, mcgrad.Score()))(0.3, 0.0, jax.random.key(0)))
    boundary = of_threshold(above, mcgrad.PathwiseWithBoundary())
    assert np.isfinite(mcgrad.grad(boundary)(0.3, 0.0, jax.random.key(0)))


def test_explain_says_where_a_path_is_given_up():
    report = mcgrad.explain(loss_of(lambda x: jnp.where(x > 0, 1.0, x), None))(jnp.zeros(3), jax.random.key(0))
    (site,) = report.sites
    assert site.estimator == "Score" and re.search(r"`where` at .*test_jumps.py:\d+.* jumps", site.reason)
    assert f"its path is not followed: {site.reason}" in str(report)
    (site,) = mcgrad.explain(loss_of(jnp.abs, None))(jnp.zeros(3), jax.random.key(0)).sites
    assert site.estimator == "Pathwise" and not site.reason


def test_explain_tells_what_each_pass_found():
    report = mcgrad.explain(loss_of(lambda x: jnp.where(x > 0, 1.0, x), None))(jnp.zeros(3), jax.random.key(0))
    found = {one.name: one.found for one in report.passes}
    assert list(found) == ["trace", "dependence", "constants", "paths", "hoisting", "costs", "estimators", "schedule"]
    assert found["estimators"] == "Score (1)" and found["costs"].startswith("1 cost, 1 linear operation")
    assert str(report.passes[1]).startswith("dependence: 1 draw, ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_raw_draws_by_rejection_are_warned_of(name):
    def loss(p, key):
        counts = jax.random.poisson(key, p) if name == "poisson" else jax.random.binomial(key, 5.0, p)
        return 1.0 * counts

    with pytest.warns(mcgrad.JumpWarning, match=r"at .*test_jumps.py:\d+.* moves with what is differentiated"):
        mcgrad.grad(loss)(0.4, jax.random.key(0))


@pytest.mark.parametrize("shape", [(64, 64), (512, 1024)], ids=str)
def test_activations_of_large_arrays_are_decided_on_few_entries(shape):
    """In a moment each, where trying all entries took a minute; what stands still, as the other side of a guard, does so."""

    def through(activation, mean, key):
        x = mcgrad.sample(key, mcgrad.Normal(mean, 1.0))
        return jnp.mean(activation(activation(x @ jnp.full((shape[0], shape[1]), 0.01))))

    def told(activation):
        program = functools.partial(through, activation)
        return mcgrad.explain(program)(jnp.zeros((shape[0], shape[0])), jax.random.key(0))

    guarded = lambda h: jnp.where(h > 0, jnp.log(jnp.where(h > 0, h, 1.0) + 1), 0.0)  # noqa: E731
    for activation in (jax.nn.leaky_relu, jax.nn.elu, jax.nn.selu, guarded):
        report = told(activation)
        assert [site.estimator for site in report.sites] == ["Pathwise"] and not report.jumps
