"""Mistakes of who writes an estimator: refused as it is traced, with the class, the field, its shape and the way out.

Each was silently wrong, or an error of JAX's or Python's about something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcgrad
from mcgrad.program import Alternatives, Replicates, Reweighted, bring, unit_weight, zero_with_derivative_of

BATCH, ONE = jnp.zeros(3), jnp.zeros(())


@dataclasses.dataclass(frozen=True)
class Mine(mcgrad.Estimator):
    represents: Callable[[Any], Any] = mcgrad._types.static_field()

    def represent(self, draw: Any) -> Any:
        return self.represents(draw)


@dataclasses.dataclass(frozen=True)
class MyLocal(mcgrad.LocalEstimator):
    represents: Callable[[Any], Any] = mcgrad._types.static_field()

    def represent(self, draw: Any) -> Any:
        return self.represents(draw)


@dataclasses.dataclass(frozen=True)
class MyGeneral(mcgrad.Estimator):
    estimates: Callable[[Any, Any], Any] = mcgrad._types.static_field()

    def estimate(self, draw: Any, rest: Any) -> Any:
        return self.estimates(draw, rest)


def traced(estimator: Any, logits: jax.Array = BATCH) -> Any:
    """The gradient with bits that one cost mixes and others do not, as it is traced."""

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        b = 1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), estimator, name="bits")
        return jnp.sum(b) ** 2 + jnp.sum((b - 0.4) ** 2)

    return jax.eval_shape(mcgrad.grad(loss), logits, jax.random.key(0))


def signed(draw: Any, points: Any = None, coefficients: Any = None, value: Any = None) -> Any:
    b = draw.sample()
    right = (1 - b)[None], zero_with_derivative_of(draw.prob(1 - b))[None]
    return mcgrad.SignedPoints(
        b if value is None else value(b),
        right[0] if points is None else points(right[0]),
        right[1] if coefficients is None else coefficients(right[1]),
        relative=True,
    )


def weighted(draw: Any, log_weight: Any = lambda log_p: log_p, value: Any = lambda b: b, **others: Any) -> Any:
    b = draw.sample()
    return mcgrad.WeightedPoint(value(b), log_weight(draw.log_prob(b)), **others)


def several(make: Callable[..., Any], points: Any = lambda x: x, **numbers: Any) -> Callable[[Any], Any]:
    """Two points; `numbers` are the shapes of the other fields."""

    def represent(draw: Any) -> Any:
        x = jax.vmap(draw.sample)(jnp.arange(2))
        return make(points(x), **{name: jnp.ones(shape) for name, shape in numbers.items()})

    return represent


SHAPES = {
    "points without their axis": (
        Mine(lambda draw: signed(draw, points=lambda x: x[0])),
        "SignedPoints",
        "points",
        r"\(3,\)",
    ),
    "points of other entries": (
        Mine(lambda draw: signed(draw, points=lambda x: x[:, :2])),
        "SignedPoints",
        "points",
        r"\(1, 2\)",
    ),
    "points of another kind": (
        Mine(lambda draw: signed(draw, points=lambda x: 1.0 * x)),
        "SignedPoints",
        "points",
        "floats",
    ),
    "coefficients without their axis": (
        Mine(lambda draw: signed(draw, coefficients=lambda c: c[0])),
        "SignedPoints",
        "coefficients",
        r"\(3,\)",
    ),
    "neither with its axis": (
        Mine(lambda draw: signed(draw, lambda x: x[0], lambda c: c[0])),
        "SignedPoints",
        "points",
        r"\(3,\)",
    ),
    "a coefficient for two points": (
        Mine(lambda draw: signed(draw, points=lambda x: jnp.concatenate([x, x]))),
        "SignedPoints",
        "coefficients",
        r"\(1, 3\)",
    ),
    "coefficients that are none": (
        Mine(lambda draw: signed(draw, coefficients=lambda c: None)),
        "SignedPoints",
        "coefficients",
        "None",
    ),
    "a value of other entries": (
        Mine(lambda draw: signed(draw, value=lambda b: b[:2])),
        "SignedPoints",
        "value",
        r"\(2,\)",
    ),
    "a log weight summed": (MyLocal(lambda draw: weighted(draw, jnp.sum)), "WeightedPoint", "log_weight", r"\(\)"),
    "the same, with the rest": (Mine(lambda draw: weighted(draw, jnp.sum)), "WeightedPoint", "log_weight", r"\(\)"),
    "no log weight": (MyLocal(lambda draw: weighted(draw, lambda w: None)), "WeightedPoint", "log_weight", "None"),
    "a point of other entries": (
        MyLocal(lambda draw: weighted(draw, value=lambda b: b[:1])),
        "WeightedPoint",
        "value",
        r"\(1,\)",
    ),
    "a control of no entry": (
        MyLocal(lambda draw: weighted(draw, control=jnp.zeros(()))),
        "WeightedPoint",
        "control",
        r"\(\)",
    ),
    "a baseline of others": (
        MyLocal(lambda draw: weighted(draw, baseline=jnp.zeros(2))),
        "WeightedPoint",
        "baseline",
        r"\(2,\)",
    ),
    "an unknown baseline": (
        MyLocal(lambda draw: weighted(draw, baseline="mean")),
        "WeightedPoint",
        "baseline",
        "'mean'",
    ),
    "a path of other entries": (MyLocal(lambda draw: mcgrad.Flow(draw.sample()[0])), "Flow", "value", r"\(\)"),
    "weights for the batch": (
        Mine(several(mcgrad.WeightedPoints, weights=(2,))),
        "WeightedPoints",
        "weights",
        r"\(2,\)",
    ),
    "log weights for the batch": (Mine(several(Replicates, log_weights=(2,))), "Replicates", "log_weights", r"\(2,\)"),
    "weights of each of mixed entries": (
        Mine(several(Reweighted, weights=(2, 3), log_weights=(2, 3))),
        "Reweighted",
        "weights",
        r"\(2, 3\)",
    ),
    "a mixing of one point": (
        Mine(several(Reweighted, weights=(2, 1), log_weights=(2, 3), mixing=(2, 1))),
        "Reweighted",
        "mixing",
        r"\(2, 1\)",
    ),
}


@pytest.mark.parametrize("mistake", SHAPES)
def test_a_field_of_another_shape_is_refused(mistake: str) -> None:
    estimator, returned, field, got = SHAPES[mistake]
    said = rf"^`{returned}\({field}=...\)` of `{type(estimator).__name__}` must .*Bernoulli \(name='bits'\) at .*got .*{got}.*\. "
    with pytest.raises(ValueError, match=said):
        traced(estimator)


@pytest.mark.parametrize(
    ("field", "must"), [("points", r"have shape \(n,\), .*got \(\)"), ("coefficients", r"\(1,\).*got shape \(\)")]
)
def test_a_field_of_a_draw_of_one_number_is_refused_too(field: str, must: str) -> None:
    with pytest.raises(ValueError, match=rf"`SignedPoints\({field}=...\)` of `Mine` must .*{must}"):
        traced(Mine(lambda draw: signed(draw, **{field: lambda x: x[0]})), ONE)


def test_what_is_right_is_not_refused() -> None:
    for logits in (BATCH, ONE, jnp.zeros((2, 3))):
        assert traced(Mine(signed), logits).shape == logits.shape
        for estimator in (Mine, MyLocal):
            for baseline in (None, 0.5, jnp.zeros(logits.shape[1:]), "leave_one_out"):
                made = estimator(lambda draw, baseline=baseline: weighted(draw, baseline=baseline))
                assert traced(made, logits).shape == logits.shape


def test_points_are_refused_under_a_vmap_of_the_program_too() -> None:
    estimator = Mine(lambda draw: signed(draw, lambda x: x[0], lambda c: c[0]))

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        one = lambda p, key: mcgrad.sample(key, mcgrad.Bernoulli(logits=p), estimator)  # noqa: E731
        return jnp.sum(1.0 * jax.vmap(one)(logits, jax.random.split(key, 3)))

    with pytest.raises(ValueError, match=r"`SignedPoints\(points=...\)` of `Mine` must have shape \(n, 3\)"):
        jax.eval_shape(mcgrad.grad(loss), BATCH, jax.random.key(0))


def test_coefficients_may_have_values() -> None:
    """Only their derivatives count, so that the value of the expectation is that of the draw."""
    left = Mine(lambda draw: dataclasses.replace(signed(draw), coefficients=draw.prob(1 - draw.sample())[None]))
    with jax.debug_key_reuse(False):
        found, right = (
            mcgrad.value_and_grad(
                lambda p, key, e=e: jnp.sum(1.0 * mcgrad.sample(key, mcgrad.Bernoulli(logits=p), e) ** 2)
            )(jnp.array([0.3, -0.2]), jax.random.key(1))
            for e in (left, Mine(signed))
        )
    np.testing.assert_array_equal(found[0], right[0])
    np.testing.assert_allclose(found[1], right[1], rtol=1e-12)


KINDS = {
    "points from a local estimator": (
        MyLocal(signed),
        "`Flow` or `WeightedPoint` for .*, got `SignedPoints`.*subclass `mcgrad.Estimator`",
    ),
    "an array": (Mine(lambda draw: draw.sample()), "`Flow`, .* or `SignedPoints` for .*, got .*array.*help"),
    "an array from a local estimator": (MyLocal(lambda draw: draw.sample()), "`Flow` or `WeightedPoint` for .*array"),
    "nothing": (Mine(lambda draw: None), "`Flow`, .* or `SignedPoints` for .*, got NoneType"),
}


@pytest.mark.parametrize("mistake", KINDS)
def test_what_is_no_representation_is_refused(mistake: str) -> None:
    estimator, said = KINDS[mistake]
    with pytest.raises(TypeError, match=rf"^`{type(estimator).__name__}.represent\(draw\)` must return {said}"):
        traced(estimator)


def test_a_local_estimator_with_estimate_is_told_of_the_other_base() -> None:
    class Confused(mcgrad.LocalEstimator):
        def estimate(self, draw: Any, rest: Any) -> Any:
            return rest(draw.sample())

    with pytest.raises(
        NotImplementedError, match="`Confused` must define `represent`.*`estimate` subclasses `mcgrad.Estimator`"
    ):
        traced(dataclasses.dataclass(frozen=True)(Confused)())


def without_bring(draw: Any, rest: Any) -> Any:
    b = draw.sample()
    result, weight = rest(b), unit_weight(draw.log_prob(b))
    return result._replace(costs=tuple(weight * cost for cost in result.costs))


def every_field_mapped(draw: Any, rest: Any) -> Any:
    results = jax.vmap(rest)(jax.vmap(draw.sample)(jnp.arange(2)))
    return results._replace(costs=tuple(jnp.mean(cost, axis=0) for cost in results.costs))


GENERAL = {
    "costs alone": (
        lambda draw, rest: rest(draw.sample()).costs,
        TypeError,
        "what `rest\\(x\\)` returned.*got tuple.*_replace",
    ),
    "one cost": (
        lambda draw, rest: rest(draw.sample()).costs[0],
        TypeError,
        "what `rest\\(x\\)` returned.*got .*_replace",
    ),
    "nothing": (lambda draw, rest: None, TypeError, "what `rest\\(x\\)` returned.*got NoneType"),
    "no cost": (
        lambda draw, rest: rest(draw.sample())._replace(costs=()),
        ValueError,
        r"`costs` of the shapes .*got \[\]",
    ),
    "weights without bring": (without_bring, ValueError, r"`costs` of the shapes .*got .*per_cost.*bring\("),
    "the axis of a vmap left": (
        lambda draw, rest: jax.vmap(rest)(jax.vmap(draw.sample)(jnp.arange(2))),
        ValueError,
        "`costs` of the shapes .*sum over the axis of a `vmap`",
    ),
}


@pytest.mark.parametrize("mistake", GENERAL)
def test_what_is_no_result_is_refused(mistake: str) -> None:
    estimates, error, said = GENERAL[mistake]
    with pytest.raises(error, match=rf"^`MyGeneral.estimate\(draw, rest\)` must return {said}"):
        traced(MyGeneral(estimates))


def test_other_fields_than_costs_must_be_those_of_one_result() -> None:
    def loss(logits: jax.Array, key: jax.Array) -> Any:
        b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits), MyGeneral(every_field_mapped))
        return jnp.sum(1.0 * b), b

    with pytest.raises(
        ValueError, match=r"`MyGeneral.estimate\(draw, rest\)` must return `aux` of the shapes .*Keep `aux` of one"
    ):
        jax.eval_shape(mcgrad.grad(loss, has_aux=True), BATCH, jax.random.key(0))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("change", "got"),
    [(lambda b: b[:2], r"integers of shape \(2,\)"), (lambda b: 1.0 * b, "floats"), (lambda b: (b, b), " and ")],
)
def test_the_rest_is_a_function_of_values_of_the_draw(change: Any, got: str, plain: bool) -> None:
    def estimate(draw: Any, rest: Any) -> Any:
        return (rest.simulate if plain else rest)(change(draw.sample()))

    said = rf"argument of `rest` in `MyGeneral` must be a value of the draw from Bernoulli .*integers of shape \(3,\), got .*{got}"
    with pytest.raises(ValueError, match=said):
        traced(MyGeneral(estimate))


@pytest.mark.parametrize("method", ["log_prob", "prob"])
def test_densities_are_of_values_of_the_draw(method: str) -> None:
    def represent(draw: Any) -> Any:
        b = draw.sample()
        return mcgrad.WeightedPoint(b, getattr(draw, method)(b[:2]))

    with pytest.raises(
        ValueError, match=rf"`draw.{method}\(x\)` must be a value of .*shape \(3,\), got .*shape \(2,\)"
    ):
        traced(Mine(represent))


def test_a_log_density_of_another_shape_is_the_distributions_mistake() -> None:
    @dataclasses.dataclass(frozen=True)
    class Summed(mcgrad.Normal):
        def log_prob(self, x: Any) -> Any:
            return jnp.sum(super().log_prob(x))

    with pytest.raises(ValueError, match=r"`log_prob` of Summed must .*`batch_shape` \(3,\), got shape \(\)"):
        mcgrad.grad(lambda t, key: jnp.sum(mcgrad.sample(key, Summed(t, 1.0), mcgrad.Score())))(
            BATCH, jax.random.key(0)
        )


def test_the_distribution_is_not_read_under_a_vmap() -> None:
    """Its parameters have the mapped axes where the program has them, so that rows and columns of a square are confused."""
    estimator = MyLocal(lambda draw: mcgrad.Flow(draw.sample() + draw.dist.loc - jax.lax.stop_gradient(draw.dist.loc)))

    def loss(t: jax.Array, key: jax.Array) -> jax.Array:
        one = lambda m, key: mcgrad.sample(key, mcgrad.Normal(m, jnp.ones(2)), estimator)  # noqa: E731
        return jnp.sum(jax.vmap(one)(t, jax.random.split(key, 2)))

    with pytest.raises(ValueError, match=r"`draw.dist` must be read .* no `vmap` .*Normal.*`draw.under_vmaps\("):
        mcgrad.grad(loss)(jnp.zeros(2), jax.random.key(0))
    gradient = mcgrad.grad(lambda t, key: jnp.sum(mcgrad.sample(key, mcgrad.Normal(t, 1.0), estimator)))
    np.testing.assert_array_equal(gradient(BATCH, jax.random.key(0)), jnp.ones(3))


@pytest.mark.parametrize(("field", "shape"), [("values", (3,)), ("coefficients", (3,)), ("sizes", (1, 2))])
def test_alternatives_of_other_shapes_are_refused(field: str, shape: tuple[int, ...]) -> None:
    @dataclasses.dataclass(frozen=True)
    class Following(mcgrad.SmoothedPerturbation):
        def alternatives(self, draw: Any, x: Any) -> Alternatives:
            kind = x.dtype if field == "values" else float
            return dataclasses.replace(super().alternatives(draw, x), **{field: jnp.ones(shape, kind)})

    def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
        def step(state: jax.Array, key: jax.Array) -> Any:
            b = mcgrad.sample(key, mcgrad.Bernoulli(logits=logits + 0.1 * state), Following())
            return state + jnp.sum(1.0 * b), None

        return jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 3))[0]

    with pytest.raises(ValueError, match=rf"`Alternatives\({field}=...\)` of `Following` must "):
        jax.eval_shape(mcgrad.grad(loss), BATCH, jax.random.key(0))


def test_a_weight_brought_to_each_cost_is_not_refused() -> None:
    def estimate(draw: Any, rest: Any) -> Any:
        b = draw.sample()
        result, log_weight = rest(b), draw.log_prob(b)
        weighted = lambda relation, cost: cost * unit_weight(bring(log_weight, relation, cost.shape))  # noqa: E731
        return result._replace(costs=draw.per_cost(weighted, lambda cost: cost, result.costs))

    for logits in (BATCH, ONE):
        assert traced(MyGeneral(estimate), logits).shape == logits.shape
